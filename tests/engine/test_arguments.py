"""Values of common options."""

from __future__ import annotations

import argparse

import pytest

from maskfreevis_ext.engine.arguments import add_confidence, score


@pytest.mark.parametrize("text", ["0", "0.5", "1", "1e-3"])
def test_score_is_a_number_from_0_to_1(text):
    assert score(text) == float(text)


@pytest.mark.parametrize("text", ["nan", "inf", "-0.1", "1.01", "half", ""])
def test_other_scores_end_with_code_2_and_their_value(text, capsys):
    parser = argparse.ArgumentParser()
    add_confidence(parser)

    with pytest.raises(SystemExit) as stop:
        parser.parse_args([f"--confidence={text}"])

    assert stop.value.code == 2
    assert f"expected a number in 0..1, got {text!r}" in capsys.readouterr().err


def test_confidence_has_its_older_name_too():
    parser = argparse.ArgumentParser()
    add_confidence(parser)

    assert parser.parse_args(["--confidence-threshold", "0.7"]).confidence == 0.7
