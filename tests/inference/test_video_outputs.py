"""Paths of outputs, and that they are completed whatever happens."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from maskfreevis_ext.errors import ConfigError, DataError
from maskfreevis_ext.files import check_outputs
from maskfreevis_ext.inference.frame_tracks import FrameTracks
from maskfreevis_ext.inference.track_files import YtvisFile
from maskfreevis_ext.inference.video_io import FrameList, TimedFrame, open_frames, write_image
from maskfreevis_ext.inference.video_outputs import KINDS, VideoOutputs, plan_outputs


def source_of(folder: Path, count: int = 3) -> FrameList:
    paths = [folder / f"img{t}.png" for t in range(count)]
    for path in paths:
        write_image(path, np.full((20, 30, 3), 90, np.uint8))
    return FrameList(paths, "walk")


def tracks(index: int) -> FrameTracks:
    masks = np.zeros((1, 20, 30), bool)
    masks[0, 5:15, 5 + index : 15 + index] = True
    ids = np.array([3], np.int64)
    return FrameTracks(index, ids, ids - 3, np.array([0.5], np.float32), masks)


def write(plan, source, count: int | None = None, error: Exception | None = None) -> VideoOutputs:
    options = {"fps": None, "class_names": ["cat"], "category_ids": {0: 8}, "video_id": 1}
    with VideoOutputs(plan, source, **options) as outputs:
        for frame in list(source.timed())[:count]:
            outputs.write(frame, tracks(frame.number))
        if error is not None:
            raise error
    return outputs


class TestPlan:
    """File names."""

    def test_outputs_of_a_file_stand_beside_it(self):
        (plan,) = plan_outputs(["walk"], "out/a.mp4", KINDS)

        assert {kind: str(path) for kind, path in plan.paths.items()} == {
            "mp4": "out/a.mp4",
            "frames": "out/a",
            "davis": "out/a_davis",
            "ytvis": "out/a.json",
            "coco": "out/a_coco.json",
            "mots": "out/a_mots.txt",
        }
        assert [path.name for path in plan.folders] == ["a", "a_davis"]

    def test_names_with_dots_are_kept_whole(self):
        (plan,) = plan_outputs(["walk.v2"], "out", ["mp4", "ytvis"])

        assert [str(path) for path in plan.files] == ["out/walk.v2.mp4", "out/walk.v2.json"]

    def test_equal_names_are_numbered(self):
        plans = plan_outputs(["a", "b", "a"], "out", ["mp4"])

        assert [plan.files[0].name for plan in plans] == ["a.mp4", "b.mp4", "a_2.mp4"]

    def test_one_file_for_two_videos_is_refused(self):
        with pytest.raises(ConfigError, match="expected a folder for 2 videos"):
            plan_outputs(["a", "b"], "x.mp4", ["mp4"])

    @pytest.mark.parametrize("name", ["x.avi", "x.MOV", "x.gif"])
    def test_other_kinds_of_video_are_refused(self, name):
        with pytest.raises(
            ConfigError, match=r"--output x\..*: expected a file that ends in \.mp4"
        ):
            plan_outputs(["a"], name, ["mp4"])


class TestOutputs:
    """What is written."""

    def test_all_kinds_are_written_and_marked(self, tmp_path):
        source = source_of(tmp_path / "in")
        (plan,) = plan_outputs(["walk"], str(tmp_path / "out"), KINDS)

        outputs = write(plan, source)

        assert (outputs.num_frames, outputs.track_ids) == (3, {3})
        for path in plan.paths.values():
            assert path.exists()
        names = sorted(path.name for path in plan.paths["davis"].glob("*.png"))
        assert names == ["img0.png", "img1.png", "img2.png"]  # as the frames are called
        drawn = list(open_frames(plan.paths["frames"]))
        assert [frame.shape for frame in drawn] == [(20, 30, 3)] * 3
        assert (drawn[0][8, 8] != 90).any()
        check_outputs(plan.files, source.inputs, folders=plan.folders)  # may be written again

    def test_shorter_run_leaves_no_old_pictures(self, tmp_path):
        source = source_of(tmp_path / "in")
        (plan,) = plan_outputs(["walk"], str(tmp_path / "out"), ["frames", "davis"])
        write(plan, source)

        write(plan, source, 2)

        for folder in plan.folders:
            assert len(list(folder.glob("*.png"))) == 2

    def test_error_leaves_complete_files_of_the_frames_before_it(self, tmp_path):
        source = source_of(tmp_path / "in")
        (plan,) = plan_outputs(["walk"], str(tmp_path / "out"), KINDS)

        with pytest.raises(DataError, match="broken frame"):
            write(plan, source, 2, DataError("broken frame"))

        assert len(list(open_frames(plan.paths["mp4"]))) == 2
        (entry,) = json.loads(plan.paths["ytvis"].read_text())
        assert len(entry["segmentations"]) == 2
        assert len(plan.paths["mots"].read_text().splitlines()) == 2
        assert len(json.loads(plan.paths["coco"].read_text())["images"]) == 2
        check_outputs(plan.files, folders=plan.folders)

    def test_no_frame_makes_no_file(self, tmp_path):
        source = source_of(tmp_path / "in")
        (plan,) = plan_outputs(["walk"], str(tmp_path / "out"), KINDS)

        with pytest.raises(DataError, match="broken"):
            write(plan, source, 0, DataError("broken"))

        assert not (tmp_path / "out").exists()

    def test_full_disk_is_told_and_other_files_are_completed(self, tmp_path, monkeypatch):
        source = source_of(tmp_path / "in")
        (plan,) = plan_outputs(["walk"], str(tmp_path / "out"), ["mp4", "ytvis", "mots"])

        def no_space(self: YtvisFile) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(YtvisFile, "_end", no_space)
        with pytest.raises(DataError, match="cannot be written: No space left on device"):
            write(plan, source)

        assert not plan.paths["ytvis"].exists()
        assert len(list(open_frames(plan.paths["mp4"]))) == 3
        assert plan.paths["mots"].exists()

    def test_times_reach_the_video(self, tmp_path):
        source = source_of(tmp_path / "in")
        (plan,) = plan_outputs(["walk"], str(tmp_path / "a.mp4"), ["mp4"])
        options = {"fps": None, "class_names": None, "category_ids": {0: 1}, "video_id": 1}
        with VideoOutputs(plan, source, **options) as outputs:
            for number, time in enumerate((0.0, 0.1, 0.7)):
                picture = np.zeros((20, 30, 3), np.uint8)
                outputs.write(TimedFrame(number, picture, time, 0.3), tracks(number))

        *_, last = open_frames(tmp_path / "a.mp4").timed()
        assert last.time + last.duration == pytest.approx(1.0, abs=0.01)
