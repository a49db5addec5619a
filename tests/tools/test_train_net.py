"""The command line of tools/train_net.py, in this process."""

from __future__ import annotations

import importlib.util
import os
import pickle
from collections.abc import Iterator
from types import ModuleType

import pytest
import torch
from detectron2.modeling import build_model
from PIL import Image

from maskfreevis_ext.config import load_config
from tests.helpers.training import CONFIG, ROOT, own_loggers, tiny_options, write_videos


@pytest.fixture(scope="module")
def train_net() -> ModuleType:
    spec = importlib.util.spec_from_file_location("train_net", ROOT / "tools" / "train_net.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(autouse=True)
def _loggers() -> Iterator[None]:
    with own_loggers():
        yield


def _fails(train_net: ModuleType, capsys, *argv: object) -> str:
    """Run a command that must end with exit code 2; gives the last line of what it said."""
    with pytest.raises(SystemExit) as end:
        train_net.main([str(word) for word in argv])
    assert end.value.code == 2
    said = capsys.readouterr().err
    assert "Traceback" not in said
    return said.strip().splitlines()[-1]


def test_command_line_is_that_of_detectron2(train_net):
    words = "--config-file a.yaml --resume --eval-only --num-gpus 2 --num-machines 3"
    words += " --machine-rank 1 --dist-url tcp://127.0.0.1:5 --device cpu SOLVER.MAX_ITER 5"
    args = train_net.parse_args(words.split())
    assert (args.config_file, args.resume, args.eval_only) == ("a.yaml", True, True)
    assert (args.num_gpus, args.num_machines, args.machine_rank) == (2, 3, 1)
    assert (args.dist_url, args.device) == ("tcp://127.0.0.1:5", "cpu")
    assert args.opts == ["SOLVER.MAX_ITER", "5"]
    assert train_net.parse_args([]).dist_url == "auto"  # no port; Detectron2's is a guessable one


def test_user_errors_end_with_one_line(train_net, capsys, tmp_path, tiny_videos):
    base = ["--config-file", CONFIG]
    options = tiny_options(tiny_videos, tmp_path / "out")
    missing = tmp_path / "gone.yaml"
    assert str(missing) in _fails(train_net, capsys, "--config-file", missing)
    assert "SOLVER.LR" in _fails(train_net, capsys, *base, *options, "SOLVER.LR", 1)
    assert "VideoMaskFormer" in _fails(train_net, capsys)  # Detectron2's defaults are for images
    line = _fails(train_net, capsys, *base, *options, "MODEL.WEIGHTS", "no.pth")
    assert line.startswith("CheckpointError:")
    assert "no.pth" in line


def test_evaluation_needs_weights(train_net, capsys, tmp_path, tiny_videos):
    options = tiny_options(tiny_videos, tmp_path / "out")
    for extra in ([], ["--resume"]):
        argv = ["--config-file", CONFIG, "--eval-only", *extra, *options]
        line = _fails(train_net, capsys, *argv)
        assert line.startswith("ConfigError: MODEL.WEIGHTS")
        assert "--eval-only" in line


def test_malicious_weights_end_with_one_line(train_net, capsys, tmp_path, tiny_videos):
    class _Runs:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path / 'ran'}",)

    path = tmp_path / "weights.pkl"
    path.write_bytes(pickle.dumps({"model": _Runs()}))
    options = [*tiny_options(tiny_videos, tmp_path / "out"), "MODEL.WEIGHTS", path]
    for extra in ([], ["--eval-only"]):
        line = _fails(train_net, capsys, "--config-file", CONFIG, *extra, *options)
        assert "posix.system" in line
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("workers", [0, 1])
def test_unreadable_frame_in_a_worker_is_one_line(train_net, capsys, tmp_path, workers):
    videos = write_videos(tmp_path / "videos")
    frames = sorted((videos / "train" / "JPEGImages").rglob("*.jpg"))
    for frame in frames:
        content = frame.read_bytes()
        frame.write_bytes(content[: len(content) // 2])
    names = {"train": f"broken_train_{workers}", "val": f"broken_val_{workers}"}
    more = ["DATALOADER.NUM_WORKERS", workers]
    options = tiny_options(videos, tmp_path / "out", *more, **names)
    line = _fails(train_net, capsys, "--config-file", CONFIG, *options)
    assert line.startswith("DataError:")
    assert ".jpg" in line


def test_evaluation_refuses_weights_that_fit_in_part(train_net, capsys, tmp_path, tiny_videos):
    cfg = load_config(CONFIG, tiny_options(tiny_videos, tmp_path / "out"))
    weights = build_model(cfg).state_dict()
    part = {name: value for name, value in weights.items() if not name.startswith("backbone.")}
    torch.save({"model": part}, tmp_path / "part.pth")
    options = ["MODEL.WEIGHTS", str(tmp_path / "part.pth")]
    options = ["--eval-only", *tiny_options(tiny_videos, tmp_path / "out", *options)]
    line = _fails(train_net, capsys, "--config-file", CONFIG, *options)
    assert line.startswith("CheckpointError: The weights fit the model only in part.")
    assert "backbone." in line
    train_net.main(["--config-file", CONFIG, *options, "TEST.PARTIAL_WEIGHTS", "True"])


def test_wrong_size_of_a_test_frame_ends_the_training_before_it_starts(train_net, capsys, tmp_path):
    videos = write_videos(tmp_path / "videos")
    frame = sorted((videos / "val" / "JPEGImages").rglob("*.jpg"))[-1]
    Image.new("RGB", (32, 64)).save(frame)
    names = {"train": "good_train", "val": "wrong_size_val"}
    options = tiny_options(videos, tmp_path / "out", **names)
    line = _fails(train_net, capsys, "--config-file", CONFIG, *options)
    assert line.startswith("DataError: DATASETS.TEST wrong_size_val: 1 of 8 frames")
    assert "expected 64 x 64 pixels (width x height) as the JSON says, got 32 x 64" in line


def test_evaluation_by_class_names(train_net, capsys, tmp_path, tiny_videos):
    cfg = load_config(CONFIG, tiny_options(tiny_videos, tmp_path / "out"))
    weights = build_model(cfg).state_dict()

    def command(names: list[str] | None) -> list[str]:
        torch.save({"model": weights, "class_names": names}, tmp_path / "named.pth")
        options = ["MODEL.WEIGHTS", str(tmp_path / "named.pth")]
        argv = ["--eval-only", *tiny_options(tiny_videos, tmp_path / "out", *options)]
        return ["--config-file", CONFIG, *argv]

    line = _fails(train_net, capsys, *command(["car", "bus", "van"]))
    assert line.startswith("ConfigError: DATASETS.TEST: no class of 'tiny_val', ['circle', ")
    assert "['car', 'bus', 'van']" in line
    assert not (tmp_path / "out" / "inference").exists()
    for names, told in (
        (["star", "circle", "triangle"], "by name: 3 of 3"),
        (None, "no class names"),
    ):
        train_net.main(command(names))
        assert told in capsys.readouterr().out


def test_weights_that_are_not_finite_are_refused(train_net, capsys, tmp_path, tiny_videos):
    cfg = load_config(CONFIG, tiny_options(tiny_videos, tmp_path / "out"))
    weights = build_model(cfg).state_dict()
    weights["sem_seg_head.predictor.class_embed.bias"][0] = float("nan")
    torch.save({"model": weights}, tmp_path / "nan.pth")
    for extra in ([], ["--eval-only"]):
        options = tiny_options(tiny_videos, tmp_path / "out", "MODEL.WEIGHTS", tmp_path / "nan.pth")
        line = _fails(train_net, capsys, "--config-file", CONFIG, *extra, *options)
        assert line.startswith("NumericError: Weights file")
        assert "class_embed.bias" in line
