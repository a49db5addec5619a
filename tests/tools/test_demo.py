"""tools/demo.py on one's own videos, with a tiny model."""

from __future__ import annotations

import json
import logging
import runpy
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.modeling import build_model

from maskfreevis_ext.inference.video_io import FrameWriter, open_frames, write_image
from tests.helpers.configs import tiny_cfg

TOOL = Path(__file__).parents[2] / "tools" / "demo.py"
tool = runpy.run_path(str(TOOL))
main = tool["main"]


@pytest.fixture(scope="module")
def model_files(tmp_path_factory) -> list[str]:
    """Arguments that name the config and the weights of a random model."""
    folder = tmp_path_factory.mktemp("model")
    cfg = tiny_cfg("INPUT.MIN_SIZE_TEST", 32, "DATASETS.TRAIN", (), "DATASETS.TEST", ())
    (folder / "config.yaml").write_text(cfg.dump())
    torch.manual_seed(0)
    torch.save({"model": build_model(cfg).state_dict()}, folder / "model.pth")
    return [
        *("--config-file", str(folder / "config.yaml")),
        *("--opts", "MODEL.WEIGHTS", str(folder / "model.pth")),
    ]


def make_video(path: Path, count: int = 3) -> str:
    """A small video: an mp4 file, or a folder of frames."""
    rng = np.random.RandomState(0)
    with FrameWriter(path, fps=4) as writer:
        for _ in range(count):
            writer.write(rng.randint(0, 256, (36, 50, 3)).astype(np.uint8))
    return str(path)


def visible(folder: Path) -> list[str]:
    """Names of the files and folders in a folder."""
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))


def call(model_files: list[str], *arguments: str) -> None:
    """``--opts`` takes all that follows, so it stands last."""
    split = model_files.index("--opts")
    main([*model_files[:split], *arguments, *model_files[split:]])


def test_video_file_becomes_a_video_of_equal_length(model_files, tmp_path, capsys):
    source = make_video(tmp_path / "clip.mp4")

    call(model_files, "--input", source, "--output", str(tmp_path / "drawn.mp4"))

    drawn = open_frames(tmp_path / "drawn.mp4")
    assert len(list(drawn)) == 3
    assert drawn.fps == pytest.approx(4)
    assert "drawn in" in capsys.readouterr().out


def test_folder_becomes_video_frames_and_json(model_files, tmp_path):
    source = make_video(tmp_path / "frames")

    call(
        model_files,
        *("--input", source, "--output", str(tmp_path / "out"), "--confidence-threshold", "0"),
        *("--fps", "8", "--save-frames", "--save-json", "--classes", "cat", "dog", "emu"),
    )

    out = tmp_path / "out"
    assert visible(out) == ["frames", "frames.json", "frames.mp4"]
    assert open_frames(out / "frames.mp4").fps == pytest.approx(8)
    drawn = list(open_frames(out / "frames"))
    assert [frame.shape for frame in drawn] == [(36, 50, 3)] * 3
    originals = list(open_frames(source))
    assert any((one != other).any() for one, other in zip(drawn, originals, strict=True))
    entries = json.loads((out / "frames.json").read_text())
    assert len(entries) == 10
    assert {entry["category_id"] for entry in entries} <= {1, 2, 3}
    assert [len(entry["segmentations"]) for entry in entries] == [3] * 10
    assert entries[0]["segmentations"][0]["size"] == [36, 50]


def test_nothing_above_the_threshold_copies_the_video(model_files, tmp_path, capsys):
    source = make_video(tmp_path / "frames")

    call(
        model_files,
        *("--input", source, "--output", str(tmp_path / "out"), "--save-frames"),
        *("--confidence-threshold", "1.1"),
    )

    for one, other in zip(
        open_frames(source), open_frames(tmp_path / "out" / "frames"), strict=True
    ):
        assert (one == other).all()
    assert "0 tracks" in capsys.readouterr().out


def test_several_inputs_of_one_name_do_not_overwrite_each_other(model_files, tmp_path):
    sources = [make_video(tmp_path / name / "clip.mp4", 2) for name in ("a", "b")]

    call(model_files, "--input", *sources, "--output", str(tmp_path / "out"))

    assert visible(tmp_path / "out") == ["clip.mp4", "clip_2.mp4"]


def test_without_gpu_it_says_so_and_uses_the_cpu(model_files, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    logging.getLogger("maskfreevis_ext").propagate = True  # start_log turns it off
    source = make_video(tmp_path / "clip.mp4", 1)
    load = tool["run"].__globals__["load_config"]

    def load_and_watch(*arguments):
        logging.getLogger("maskfreevis_ext").addHandler(caplog.handler)
        return load(*arguments)

    monkeypatch.setitem(tool["run"].__globals__, "load_config", load_and_watch)
    call(
        model_files,
        *("--input", source, "--output", str(tmp_path / "out.mp4"), "--device", "cuda"),
    )

    assert "sees no GPU: running on the CPU" in caplog.text
    assert len(list(open_frames(tmp_path / "out.mp4"))) == 1


class TestFaults:
    """Each ends with exit code 2 and one message."""

    @pytest.fixture
    def refuse(self, model_files, capsys):
        def _refuse(*arguments: str, message: str) -> None:
            with pytest.raises(SystemExit) as stop:
                call(model_files, *arguments)
            assert stop.value.code == 2
            error = capsys.readouterr().err.strip().splitlines()[-1]
            assert message in error

        return _refuse

    def test_missing_input(self, refuse, tmp_path):
        path = str(tmp_path / "absent.mp4")
        refuse("--input", path, "--output", "x", message="absent.mp4: there is no such")

    def test_damaged_video(self, refuse, tmp_path):
        path = Path(make_video(tmp_path / "cut.mp4", 20))
        path.write_bytes(path.read_bytes()[:500])
        refuse("--input", str(path), "--output", "x", message="cut.mp4: no frame can be read")

    def test_damaged_frame(self, refuse, tmp_path):
        folder = Path(make_video(tmp_path / "frames"))
        (folder / "00001.jpg").write_bytes(b"no picture")
        output = tmp_path / "out"
        message = "00001.jpg: expected an image, but it cannot be decoded"
        refuse("--input", str(folder), "--output", str(output), message=message)
        assert not output.exists()

    def test_several_inputs_for_one_file(self, refuse, tmp_path):
        source = make_video(tmp_path / "clip.mp4", 1)
        refuse("--input", source, source, "--output", "x.mp4", message="expected a folder for 2")

    def test_wrong_number_of_classes(self, refuse, tmp_path):
        source = make_video(tmp_path / "clip.mp4", 1)
        arguments = ("--input", source, "--output", "x", "--classes", "cat")
        refuse(*arguments, message="--classes: expected 3 names")

    def test_wrong_speed(self, refuse, tmp_path):
        source = make_video(tmp_path / "clip.mp4", 1)
        refuse(
            "--input", source, "--output", "x", "--fps", "-3", message="--fps: expected a number"
        )

    def test_no_weights(self, model_files, tmp_path, capsys):
        source = make_video(tmp_path / "clip.mp4", 1)
        with pytest.raises(SystemExit) as stop:
            main([*model_files[:2], "--input", source, "--output", "x"])
        assert stop.value.code == 2
        assert "MODEL.WEIGHTS: expected a checkpoint" in capsys.readouterr().err


def test_single_picture_is_drawn_too(model_files, tmp_path):
    write_image(tmp_path / "one.png", np.zeros((36, 50, 3), np.uint8))

    call(model_files, "--input", str(tmp_path / "one.png"), "--output", str(tmp_path / "out"))

    assert len(list(open_frames(tmp_path / "out" / "one.mp4"))) == 1
