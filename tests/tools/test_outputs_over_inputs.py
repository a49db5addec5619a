"""No tool writes over what it reads: every output is put in the place of every input.

A new tool, or a new option that takes a path, has to be entered in ``TOOLS``.
"""

from __future__ import annotations

import argparse
import json
import runpy
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from maskfreevis_ext.files import mark_outputs
from maskfreevis_ext.inference.video_io import FrameWriter, write_image
from tests.helpers.training import CONFIG as MODEL_CONFIG
from tests.helpers.training import ROOT, own_loggers
from tests.helpers.videos import plain_content, unique_name

#: What a config makes a tool read.
CONFIG = ("config", "base", "weights", "json", "frame")
NO_PATHS = {"--opts", "--device", "opts", "words", "--seed"}


@dataclass(frozen=True)
class Tool:
    """How a tool is called.

    Attributes:
        words: The command line; ``{name}`` is an input, and outputs are in ``out``.
        outputs: Files that it writes.
        inputs: Inputs that one of the outputs could be.
        others: Further options that take a text, none of which is a path that is read or written.
    """

    words: str
    outputs: tuple[str, ...]
    inputs: tuple[str, ...]
    others: frozenset[str] = field(default=frozenset())


TOOLS: dict[str, tuple[Tool, ...]] = {
    "analyze_multimask.py": (
        Tool("--config-file {config} --json out/a.json", ("out/a.json",), CONFIG),
    ),
    "analyze_spatial_mask.py": (
        Tool(
            "--config-file {config} --json out/a.json --output out/maps",
            ("out/a.json", "out/maps/heat_maps.png"),
            CONFIG,
        ),
    ),
    "benchmark.py": (
        Tool(
            "data --config-file {config} --json out/a.json",
            ("out/a.json",),
            CONFIG,
            frozenset({"--pairs"}),
        ),
    ),
    "boxes_to_masks.py": (
        Tool(
            "--config-file {config} --weights {weights} --json {json} --images {root} --previous"
            " {extra} --output out/m.json --review out/r.html",
            ("out/m.json", "out/r.html", "out/m.json.partial/converted/boxes.json"),
            (*CONFIG, "extra"),
        ),
    ),
    "convert_dataset.py": (
        Tool(
            "--from coco --input {json} --images {root} --classes {extra} --to csv --output"
            " out/m.csv",
            ("out/m.csv",),
            ("json", "frame", "extra"),
        ),
        Tool(
            "--from coco --input {json} --images out/new --video {extra} --to ytvis --output"
            " out/m.json --split 0.5",
            ("out/m_train.json", "out/m_val.json"),
            ("json", "extra"),
        ),
    ),
    "convert_weights.py": (
        Tool(
            "--config-file {config} --input {extra} --output out/w.pth --report out/r.json",
            ("out/w.pth", "out/r.json"),
            (*CONFIG, "extra"),
        ),
    ),
    "demo.py": (
        Tool(
            "--config-file {config} --input {video} --output out/v.mp4"
            " --save mp4 frames davis ytvis coco mots",
            ("out/v.mp4", "out/v.json", "out/v_coco.json", "out/v_mots.txt", "out/v/00000.png"),
            (*CONFIG, "video"),
            frozenset({"--classes", "--onnx"}),
        ),
    ),
    "evaluate.py": (
        Tool("--gt {json} --results {extra} --json out/s.json", ("out/s.json",), ("json", "extra")),
        Tool(
            "--gt {json} --results {extra} --per-object --table out/t.csv",
            ("out/t.csv",),
            ("json", "extra"),
        ),
    ),
    "experiment.py": (
        Tool(
            "grid --spec {spec} --output out",
            ("out/experiment.json", "out/report.md", "out/report.html", "out/ap_by_iteration.png"),
            (*CONFIG, "spec"),
            frozenset({"--name", "--config-file", "--variant", "--reference", "--only", "folder"}),
        ),
        Tool(
            "real --json {json} --images {root} --boxes-json {extra} --output out",
            ("out/table.csv", "out/worst.jpg"),
            ("json", "frame", "extra"),
        ),
    ),
    "export_model.py": (
        Tool(
            "--config-file {config} --output out --formats torch",
            ("out/export.json", "out/config.yaml"),
            CONFIG,
            frozenset({"--classes"}),
        ),
    ),
    "make_synthetic.py": (Tool("--output out", (), ()),),  # reads nothing
    "replay_batch.py": (Tool("--config-file {config} --batch {extra}", (), ()),),  # writes nothing
    # OUTPUT_DIR: tests/engine/test_output_folder.py
    "train_net.py": (Tool("--config-file {config}", (), (), frozenset({"--dist-url"})),),
    "visualize_data.py": (
        Tool(
            "--config-file {config} --output out/look.png --html out/look.html",
            ("out/look.png", "out/look.html"),
            CONFIG,
        ),
        Tool("--dataset {name} --output out/look.png", ("out/look.png",), ("frame", "json")),
        Tool(
            "--json {json} --images {root} --output out/look.mp4",
            ("out/look.mp4",),
            ("frame", "json"),
        ),
    ),
    "visualize_results.py": (
        Tool(
            "--gt {json} --image-root {root} --results {extra} --output out",
            ("out/contact_sheet.png", "out/video_1.mp4"),
            ("json", "frame", "extra"),
        ),
    ),
}


def main_of(tool: str) -> Callable[[list[str]], Any]:
    """The function that runs a tool in this process."""
    if tool == "benchmark.py":
        from benchmarks.command_line import main

        return main
    return runpy.run_path(str(ROOT / "tools" / tool))["main"]


def cases() -> Iterator[Any]:
    """Every output in the place of the first input, and the first output in that of every input."""
    for name, variants in TOOLS.items():
        for tool in variants:
            pairs = [(output, source) for output in tool.outputs for source in tool.inputs]
            for output, source in pairs:
                is_needed = output == tool.outputs[0] or source == tool.inputs[0]
                # A demo tells videos and pictures by their endings.
                if source == "video":
                    is_needed = output.endswith((".mp4", ".png"))
                if is_needed:
                    yield pytest.param(name, tool, output, source, id=f"{name}-{output}-{source}")


def write_world(folder: Path, source: str, place: Path) -> dict[str, str]:
    """Inputs of all kinds, the one that is named at a place of its own; their paths."""
    paths = {name: folder / name for name in (*CONFIG, "extra", "spec", "video")}
    paths["frame"], paths["video"] = folder / "root" / "0.png", folder / "video.mp4"
    paths[source] = place
    place.parent.mkdir(parents=True, exist_ok=True)
    root = paths["frame"].parent
    root.mkdir(exist_ok=True)
    name = unique_name()
    content = plain_content((1,), masks=True)
    content["videos"][0]["file_names"] = [paths["frame"].name]
    paths["json"].write_text(json.dumps(content))
    paths["weights"].write_bytes(b"weights")
    paths["extra"].write_text("[]")
    picture = np.zeros((64, 64, 3), np.uint8)
    if paths["frame"].suffix in (".png", ".jpg"):
        write_image(paths["frame"], picture)
    else:
        paths["frame"].write_bytes(b"frame")
    if source == "video" and place.suffix == ".png":
        write_image(place, picture)
    else:
        with FrameWriter(paths["video"]) as writer:
            writer.write(picture)
    paths["base"].write_text(json.dumps({"_BASE_": MODEL_CONFIG}))
    settings = {
        "_BASE_": str(paths["base"]),
        "INPUT": {"DATASETS": [[name, str(paths["json"]), str(root)]]},
        "DATASETS": {"TRAIN": [name], "TEST": [name]},
        "MODEL": {"WEIGHTS": str(paths["weights"]), "DEVICE": "cpu"},
    }
    paths["config"].write_text(json.dumps(settings))  # which is YAML, too
    variants = [{"name": "a", "config": str(paths["config"])}]
    paths["spec"].write_text(json.dumps({"name": "x", "variants": variants}))
    if source != "config":  # --dataset: as a program that registers its own
        from maskfreevis_ext import register_ytvis_instances

        register_ytvis_instances(name, {}, str(paths["json"]), str(root))
    return {key: str(path) for key, path in paths.items()} | {"root": str(root), "name": name}


def contents(folder: Path) -> dict[Path, bytes]:
    """All files of a folder."""
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(("name", "tool", "output", "source"), list(cases()))
def test_output_over_an_input_is_refused_before_the_work(
    name, tool, output, source, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    paths = write_world(tmp_path, source, tmp_path / output)
    before = contents(tmp_path)

    said = refusal(name, tool.words.format(**paths).split(), capsys)

    assert f"{Path(output).name}: is an input" in said or "lies in an input folder" in said
    assert contents(tmp_path) == before


def refusal(name: str, words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The one line with which a tool ends."""
    with own_loggers(), pytest.raises(SystemExit) as end:
        main_of(name)([*words, "--overwrite"])
    said = capsys.readouterr().err.strip().splitlines()
    assert end.value.code == 2, said
    assert len(said) == 1, said
    return said[0]


def test_files_of_an_export_are_inputs_though_a_tool_made_them(tmp_path, capsys):
    paths = write_world(tmp_path, "config", tmp_path / "out" / "config.yaml")
    keys = ("pixel_mean", "pixel_std", "frame_size", "padded_size", "categories", "graphs")
    description = {"format": 1, **{key: [] for key in keys}}
    (tmp_path / "out" / "export.json").write_text(json.dumps(description))
    mark_outputs((tmp_path / "out").iterdir())
    before = contents(tmp_path)
    output = str(tmp_path / "out" / "export.mp4")
    words = ["--onnx", str(tmp_path / "out"), "--input", paths["video"], "--output", output]

    assert "export.json: is an input" in refusal("demo.py", [*words, "--save", "ytvis"], capsys)
    assert contents(tmp_path) == before


def test_video_is_not_cut_before_the_output_is_checked(tmp_path, capsys):
    paths = write_world(tmp_path, "video", tmp_path / "out" / "walk.mp4")
    words = ["--from", "coco", "--input", paths["json"], "--video", paths["video"]]
    words += ["--images", str(tmp_path / "new"), "--to", "csv", "--output", paths["video"]]
    before = contents(tmp_path)

    assert "walk.mp4: is an input" in refusal("convert_dataset.py", words, capsys)
    assert contents(tmp_path) == before


def test_every_tool_is_in_the_table():
    assert set(TOOLS) == {path.name for path in (ROOT / "tools").glob("*.py")}


def test_no_other_module_of_the_package_is_a_tool():
    package = ROOT / "maskfreevis_ext"
    mains = {path for path in package.rglob("*.py") if '"__main__"' in path.read_text()}
    # It reads nothing: tests/config/test_reference.py.
    assert mains == {package / "config" / "__main__.py"}


@pytest.mark.parametrize("name", TOOLS)
def test_every_option_that_may_take_a_path_is_in_the_table(name, monkeypatch):
    parsers: list[argparse.ArgumentParser] = []

    def stop(parser: argparse.ArgumentParser, *_: object, **__: object) -> None:
        parsers.append(parser)
        raise SystemExit

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", stop)
    with pytest.raises(SystemExit):
        main_of(name)([])

    (parser,) = parsers
    found: set[str] = set()
    for one in [parser, *_subparsers(parser)]:
        for action in one._actions:
            takes_text = action.type in (None, Path) and action.choices is None
            if takes_text and action.nargs != 0:
                found.add(action.option_strings[0] if action.option_strings else action.dest)
    named = {word for tool in TOOLS[name] for word in tool.words.split()}
    others = {option for tool in TOOLS[name] for option in tool.others}
    assert found <= named | others | NO_PATHS


def _subparsers(parser: argparse.ArgumentParser) -> list[argparse.ArgumentParser]:
    return [
        sub
        for action in parser._actions
        if isinstance(action, argparse._SubParsersAction)
        for sub in action.choices.values()
    ]
