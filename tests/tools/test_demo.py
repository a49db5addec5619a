"""tools/demo.py on one's own videos, with a tiny model."""

from __future__ import annotations

import json
import logging
import os
import runpy
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.modeling import build_model

from maskfreevis_ext.inference.video_io import (
    FrameWriter,
    open_frames,
    sources,
    write_image,
)
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


def call(model_files: list[str], *arguments: str) -> int:
    """The exit code; ``--opts`` takes all that follows, so it stands last."""
    split = model_files.index("--opts")
    return main([*model_files[:split], *arguments, *map(str, model_files[split:])])


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
        *("--confidence-threshold", "1"),
    )

    for one, other in zip(
        open_frames(source), open_frames(tmp_path / "out" / "frames"), strict=True
    ):
        assert (one == other).all()
    assert "0 tracks" in capsys.readouterr().out


def test_everything_is_saved_and_may_be_saved_again(model_files, tmp_path):
    source = make_video(tmp_path / "clip.mp4")
    arguments = ("--input", source, "--output", str(tmp_path / "out"), "--confidence", "0")
    arguments = (*arguments, "--save", "mp4", "frames", "davis", "ytvis", "coco", "mots")

    call(model_files, *arguments, "--classes", "0", "2")
    call(model_files, *arguments, "--stride", "2")

    assert visible(tmp_path / "out") == [
        *("clip", "clip.json", "clip.mp4", "clip_coco.json", "clip_davis", "clip_mots.txt"),
    ]
    assert visible(tmp_path / "out" / "clip") == ["00000.png", "00001.png"]
    assert visible(tmp_path / "out" / "clip_davis") == ["00000.png", "00002.png"]
    coco = json.loads((tmp_path / "out" / "clip_coco.json").read_text())
    assert [image["file_name"] for image in coco["images"]] == ["00000.jpg", "00002.jpg"]
    *_, last = open_frames(tmp_path / "out" / "clip.mp4").timed()
    assert last.time + last.duration == pytest.approx(3 / 4, abs=0.01)


def test_classes_choose_what_is_written(model_files, tmp_path):
    source = make_video(tmp_path / "clip.mp4")
    options = ["--save", "ytvis", "--confidence", "0", "--classes", "1"]

    call(model_files, "--input", source, "--output", str(tmp_path / "out"), *options)

    entries = json.loads((tmp_path / "out" / "clip.json").read_text())
    assert {entry["category_id"] for entry in entries} == {2}


def test_pictures_that_the_shell_lists_are_one_video(model_files, tmp_path):
    folder = Path(make_video(tmp_path / "walk"))

    call(model_files, "--input", *map(str, folder.iterdir()), "--output", str(tmp_path / "out"))

    assert visible(tmp_path / "out") == ["walk.mp4"]
    assert len(list(open_frames(tmp_path / "out" / "walk.mp4"))) == 3


@pytest.mark.parametrize("mode", ["offline", "online"])
def test_interrupt_completes_the_files(model_files, tmp_path, mode, monkeypatch):
    source = make_video(tmp_path / "clip.mp4", 30)
    every_nth = sources.every_nth
    pressed = []  # once: the frames may be read a second time, to draw on them

    def interrupted(frames, *arguments):
        for frame in every_nth(frames, *arguments):
            if frame.number == 10 and not pressed:
                pressed.append(True)
                os.kill(os.getpid(), signal.SIGINT)
            yield frame

    monkeypatch.setattr("maskfreevis_ext.inference.segment_video.every_nth", interrupted)
    arguments = ["--input", source, source, "--output", str(tmp_path / "out"), "--save-json"]
    options = [*model_files, "TEST.WINDOW.MODE", mode, "TEST.WINDOW.SIZE", 4]

    assert call([*options, "TEST.WINDOW.STRIDE", 2], *arguments, "--confidence", "0") == 130

    assert visible(tmp_path / "out") == ["clip.json", "clip.mp4"]  # of the first input only
    count = len(list(open_frames(tmp_path / "out" / "clip.mp4")))
    assert 1 <= count <= 12
    entries = json.loads((tmp_path / "out" / "clip.json").read_text())
    assert {len(entry["segmentations"]) for entry in entries} == {count}


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


def test_names_come_with_the_weights(model_files, tmp_path):
    weights = torch.load(model_files[-1], weights_only=True)
    names = ["emu", "Hündin", "cat"]
    torch.save({**weights, "class_names": names}, tmp_path / "named.pth")
    named = [*model_files[:-1], str(tmp_path / "named.pth")]
    words = ["--input", make_video(tmp_path / "clip"), "--output", str(tmp_path / "out")]

    call(named, *words, "--save", "coco", "--confidence", "0", "--classes", "Hündin")

    content = json.loads((tmp_path / "out" / "clip_coco.json").read_text())
    assert [each["name"] for each in content["categories"]] == names
    assert {each["category_id"] for each in content["annotations"]} == {2}


def test_weights_that_are_not_finite_write_nothing(model_files, tmp_path, capsys):
    weights = torch.load(model_files[-1], weights_only=True)
    weights["model"]["sem_seg_head.predictor.class_embed.bias"][1] = float("nan")
    torch.save(weights, tmp_path / "nan.pth")
    words = ["--input", make_video(tmp_path / "clip"), "--output", str(tmp_path / "out")]
    with pytest.raises(SystemExit) as end:
        call([*model_files[:-1], str(tmp_path / "nan.pth")], *words, "--save", "ytvis")
    assert end.value.code == 2
    assert "NumericError: Weights file" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


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

    @pytest.mark.parametrize("overwrite", [(), ("--overwrite",)])
    def test_inputs_are_never_outputs(self, refuse, tmp_path, overwrite):
        sources = [make_video(tmp_path / name, 1) for name in ("a.mp4", "b.mp4")]
        before = [Path(source).read_bytes() for source in sources]

        message = "a.mp4: is an input"
        refuse("--input", *sources, "--output", str(tmp_path), *overwrite, message=message)
        refuse("--input", sources[0], "--output", sources[0], *overwrite, message=message)
        frames = make_video(tmp_path / "frames", 1)
        refuse(
            *("--input", frames, "--output", str(tmp_path), "--save", "frames", *overwrite),
            message="frames: is an input",
        )

        assert [Path(source).read_bytes() for source in sources] == before

    def test_files_of_other_origin_are_not_replaced(self, refuse, tmp_path):
        source = make_video(tmp_path / "in" / "clip.mp4", 1)
        (tmp_path / "val.json").write_text("{}")

        output = str(tmp_path / "val.mp4")
        message = "val.json: exists, and was not made by this tool"
        refuse("--input", source, "--output", output, "--save-json", message=message)

        assert (tmp_path / "val.json").read_text() == "{}"
        assert not (tmp_path / "val.mp4").exists()

    @pytest.mark.parametrize("output", ["/sys/x/y.mp4", "/sys/x"])
    def test_output_that_cannot_be_written(self, refuse, tmp_path, output):
        source = make_video(tmp_path / "clip.mp4", 1)
        refuse("--input", source, "--output", output, message="cannot be written")

    def test_other_kind_of_video(self, refuse, tmp_path):
        source = make_video(tmp_path / "clip.mp4", 1)
        refuse("--input", source, "--output", "x.avi", message="expected a file that ends in .mp4")

    def test_frames_that_no_video_can_hold(self, refuse, tmp_path):
        write_image(tmp_path / "long.png", np.zeros((4, 20000, 3), np.uint8))
        message = "long.mp4: frames of 20000 x 4 pixels cannot be encoded"
        source, output = str(tmp_path / "long.png"), str(tmp_path / "out")
        refuse("--input", source, "--output", output, message=message)

    def test_unknown_class(self, refuse, tmp_path):
        source = make_video(tmp_path / "clip.mp4", 1)
        message = "numbers 0..2, got 3."
        refuse("--input", source, "--output", "x", "--classes", "3", message=message)

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
