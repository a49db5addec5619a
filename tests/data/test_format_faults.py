"""Damaged files of every format: one ``DataError`` that says where, or annotations that are sound.

2,080 damaged files in all (130 of each of the 16 formats).
"""

from __future__ import annotations

import functools
import random
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from maskfreevis_ext.data.readers import READERS, read_annotations
from maskfreevis_ext.errors import DataError
from tests.helpers.damage import check_sound, damage, sample_options, write_sample

_CASES = 130


@functools.lru_cache
def _sample(name: str) -> tuple[tempfile.TemporaryDirectory, str, list[Path]]:
    """Folder of a sound set in a format, the path to read, and its files."""
    holder = tempfile.TemporaryDirectory()
    return holder, *write_sample(name, Path(holder.name))


def _read_sound(name: str, path: str) -> str | None:
    """The message of the error; None where sound annotations are read."""
    try:
        check_sound(read_annotations(name, path, sample_options(name)))
    except DataError as error:
        return str(error)
    return None


@pytest.mark.parametrize("name", sorted(READERS))
def test_undamaged_sample_is_read(name):
    _, path, _ = _sample(name)
    dataset = read_annotations(name, path, sample_options(name))
    check_sound(dataset)
    assert sum(len(video.tracks) for video in dataset) >= 4


@pytest.mark.parametrize("name", sorted(READERS))
@settings(
    max_examples=_CASES,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
)
@given(seed=st.integers(0, 2**40))
def test_damaged_file_gives_one_error_or_sound_annotations(name, seed):
    holder, path, files = _sample(name)
    rng = random.Random(seed)
    file = rng.choice(files)
    original = file.read_bytes()
    try:
        file.write_bytes(damage(original, rng, file.suffix == ".json"))
        message = _read_sound(name, path)
    finally:
        file.write_bytes(original)
    assert message is None or holder.name in message or "video '" in message, message
    assert len(message or "") < 1500


@pytest.mark.parametrize("ending", [".\0", ".j\x04g", "/../x", "jpg", ".{0}", ".é"])
@pytest.mark.parametrize("name", ["mot", "mots"])
def test_ending_of_frames_that_is_none_is_named(name, ending, tmp_path):
    path, files = write_sample(name, tmp_path)
    ini = next(file for file in files if file.name == "seqinfo.ini")
    ini.write_text(ini.read_text().replace("imExt=.jpg", f"imExt={ending}"))
    with pytest.raises(DataError, match=r"seqinfo\.ini.*imExt"):
        list(read_annotations(name, path, sample_options(name)))


@pytest.mark.parametrize("name", sorted(READERS))
def test_missing_and_empty_inputs_are_named(name, tmp_path):
    for path in (tmp_path / "nothing", tmp_path):
        with pytest.raises(DataError, match=tmp_path.name):
            list(read_annotations(name, path))
