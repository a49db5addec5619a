"""Files that are whole or absent, and strict JSON."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys

import pytest

from maskfreevis_ext.errors import DataError, NumericError
from maskfreevis_ext.files import (
    MARKS_FILE,
    atomic_write,
    check_outputs,
    find_input,
    mark_outputs,
    remove_unfinished,
    temporary_file,
    write_json,
    write_report,
)


def test_atomic_write_replaces_whole_files_only(tmp_path):
    path = tmp_path / "folder" / "a"
    with atomic_write(path) as file:
        file.write(b"old")

    def stop() -> None:
        with atomic_write(str(path)) as file:
            file.write(b"new")
            raise KeyError

    with pytest.raises(KeyError):
        stop()
    assert path.read_bytes() == b"old"
    assert [item.name for item in path.parent.iterdir()] == ["a"]


@pytest.mark.parametrize(
    ("content", "error"), [([object()], TypeError), ([math.nan], NumericError)]
)
def test_content_that_json_cannot_hold_leaves_the_old_file(tmp_path, content, error):
    path = tmp_path / "results.json"
    write_json([], path)

    with pytest.raises(error):
        write_json(content, path)

    assert json.loads(path.read_text()) == []
    assert [item.name for item in tmp_path.iterdir()] == ["results.json"]


def test_report_holds_null_for_what_is_not_finite(tmp_path):
    path = tmp_path / "report.json"

    write_report({"a": math.nan, "b": [1.5, -math.inf, {"c": (2, math.nan)}]}, path)

    text = path.read_text()
    assert json.loads(text) == {"a": None, "b": [1.5, None, {"c": [2, None]}]}
    assert text.endswith("}\n")


def test_folder_of_a_report_is_made_and_a_report_that_cannot_be_written_is_named(tmp_path):
    write_report({}, tmp_path / "new" / "r.json")

    assert (tmp_path / "new" / "r.json").read_text() == "{}\n"
    with pytest.raises(DataError, match=r"x\.json: cannot be written"):
        write_report({}, tmp_path / "new" / "r.json" / "x.json")


# A process that dies while it writes to the file that it is given.
KILLED = """
import os, signal, sys
from maskfreevis_ext.files import atomic_write
with atomic_write(sys.argv[1]) as file:
    file.write(b"half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


class TestUnfinished:
    """Files in work have names that nobody else gives."""

    def test_file_of_the_user_beside_the_output_stays(self, tmp_path):
        mine = [
            tmp_path / name for name in ("a.pth.tmp", ".a.pth.tmp", ".a.part.mp4", "a.pth.part")
        ]
        for path in mine:
            path.write_bytes(b"mine")

        write_json([1], tmp_path / "a.pth")
        remove_unfinished(tmp_path, with_subfolders=True)
        check_outputs([tmp_path / "b"])

        assert {path.read_bytes() for path in mine} == {b"mine"}
        assert len(list(tmp_path.iterdir())) == 5

    def test_two_at_work_on_one_file_do_not_meet(self, tmp_path):
        path = tmp_path / "a"
        with atomic_write(path) as first:
            first.write(b"first")
            with atomic_write(path) as second:
                second.write(b"second")

        assert path.read_bytes() == b"first"
        assert list(tmp_path.iterdir()) == [path]

    @pytest.mark.parametrize("ending", [".tmp", ".part.mp4"])
    def test_file_in_work_is_not_taken_for_what_is_left(self, tmp_path, ending):
        with temporary_file(tmp_path / "a", ending) as path:
            remove_unfinished(tmp_path)
            check_outputs([tmp_path / "a"], folders=[tmp_path])
            assert os.path.exists(path)

        assert list(tmp_path.iterdir()) == []

    def test_what_a_killed_process_left_is_removed(self, tmp_path):
        path = tmp_path / "inference" / "results.json"
        command = [sys.executable, "-c", KILLED, str(path)]
        assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
        (left,) = path.parent.iterdir()
        assert left.read_bytes() == b"half" or left.read_bytes() == b""

        remove_unfinished(tmp_path)
        assert left.exists()  # of a subfolder
        remove_unfinished(tmp_path, with_subfolders=True)
        remove_unfinished(tmp_path / "absent")

        assert list(path.parent.iterdir()) == []

    def test_long_names_can_be_written(self, tmp_path):
        write_json([], tmp_path / ("x" * 255))

        assert [len(path.name) for path in tmp_path.iterdir()] == [255]


class TestOutputs:
    """Nothing of the user's is replaced."""

    def test_new_paths_are_allowed_and_nothing_is_made(self, tmp_path):
        check_outputs([tmp_path / "a" / "b.mp4"], [tmp_path], folders=[tmp_path / "a" / "frames"])

        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize("overwrite", [False, True])
    def test_new_folder_is_absent_or_empty(self, tmp_path, overwrite):
        folder = tmp_path / "masks"
        check_outputs([], new_folders=[folder], overwrite=overwrite)
        folder.mkdir()
        check_outputs([], new_folders=[folder], overwrite=overwrite)
        (folder / "00000.png").write_bytes(b"made here")
        mark_outputs(folder.iterdir())

        with pytest.raises(DataError, match="masks: expected a new or empty folder"):
            check_outputs([], new_folders=[folder], overwrite=overwrite)

    @pytest.mark.parametrize("overwrite", [False, True])
    @pytest.mark.parametrize("way", ["same", "dots", "link", "hard link"])
    def test_an_input_is_never_an_output(self, tmp_path, way, overwrite):
        source, target = tmp_path / "a.mp4", tmp_path / "b.mp4"
        source.write_bytes(b"mine")
        if way == "same":
            target = source
        elif way == "dots":
            target = tmp_path / "x" / ".." / "a.mp4"
        elif way == "link":
            target.symlink_to(source)
        else:
            target.hardlink_to(source)

        with pytest.raises(DataError, match=r"\.mp4: is an input"):
            check_outputs([target], [source], overwrite=overwrite)

    def test_input_folder_is_no_output_folder(self, tmp_path):
        with pytest.raises(DataError, match="is an input"):
            check_outputs([], [tmp_path], folders=[tmp_path], overwrite=True)

    def test_file_of_an_input_folder_is_not_replaced(self, tmp_path):
        (tmp_path / "0.png").write_bytes(b"mine")

        with pytest.raises(DataError, match=r"0\.png: lies in an input folder"):
            check_outputs([tmp_path / "0.png"], [tmp_path], overwrite=True)

    def test_other_files_are_replaced_on_demand_only(self, tmp_path):
        path = tmp_path / "train.json"
        path.write_text("mine")

        with pytest.raises(DataError, match=r"train\.json: exists, .* add --overwrite"):
            check_outputs([path])
        check_outputs([path], overwrite=True)

        assert path.read_text() == "mine"

    def test_own_files_are_replaced_until_they_are_changed(self, tmp_path):
        path = tmp_path / "a.json"
        write_json([1], path)
        mark_outputs([path, tmp_path / "absent"])

        check_outputs([path], [tmp_path / "absent"])
        path.write_text("[1, 2]")  # corrected by hand

        with pytest.raises(DataError, match="was changed since"):
            check_outputs([path])

    def test_folder_is_own_while_all_its_files_are(self, tmp_path):
        for name in ("0.png", "1.png"):
            (tmp_path / name).write_bytes(b"x")
        mark_outputs([tmp_path / "0.png"])
        mark_outputs([tmp_path / "1.png"])

        check_outputs([], folders=[tmp_path])
        (tmp_path / "2.png").write_bytes(b"mine")

        with pytest.raises(DataError, match=r"2\.png: exists"):
            check_outputs([], folders=[tmp_path])
        check_outputs([], folders=[tmp_path], overwrite=True)

    def test_filled_folder_loses_what_an_earlier_run_made(self, tmp_path):
        for name in ("0.png", "1.png", "2.png"):
            (tmp_path / name).write_bytes(b"x")
        mark_outputs([tmp_path / f"{number}.png" for number in range(3)])
        (tmp_path / "1.png").write_bytes(b"changed")
        (tmp_path / "notes.png").write_bytes(b"mine")

        mark_outputs([tmp_path / "0.png"], folders=[tmp_path])

        left = sorted(path.name for path in tmp_path.iterdir())
        assert left == [MARKS_FILE, "0.png", "1.png", "notes.png"]
        assert list(json.loads((tmp_path / MARKS_FILE).read_text())) == ["0.png"]

    @pytest.mark.parametrize("content", ["", "[]", "{", '{"a.json": 3}'])
    def test_damaged_marks_protect_the_files(self, tmp_path, content):
        (tmp_path / "a.json").write_text("[]")
        (tmp_path / MARKS_FILE).write_text(content)

        with pytest.raises(DataError, match="exists"):
            check_outputs([tmp_path / "a.json"])

    def test_two_outputs_of_one_path_are_refused(self, tmp_path):
        with pytest.raises(DataError, match="two outputs"):
            check_outputs([tmp_path / "a", tmp_path / "x" / ".." / "a"])

    @pytest.mark.parametrize("path", ["/sys/x/y.mp4", "/proc/x.mp4", "/dev/null/x.mp4"])
    def test_paths_that_cannot_be_written_are_refused(self, path):
        with pytest.raises(DataError, match=rf"{path}: cannot be written"):
            check_outputs([path])

    def test_file_and_folder_are_not_confused(self, tmp_path):
        (tmp_path / "file").write_bytes(b"")
        (tmp_path / "folder").mkdir()

        for files, folders in (([tmp_path / "folder"], []), ([], [tmp_path / "file"])):
            with pytest.raises(DataError, match="cannot be written: expected a f"):
                check_outputs(files, folders=folders, overwrite=True)
        with pytest.raises(DataError, match="is a file, not a folder"):
            check_outputs([tmp_path / "file" / "a.mp4"])
        with pytest.raises(DataError, match="cannot be written"):
            check_outputs([tmp_path / ("x" * 300)])

    @pytest.mark.parametrize("overwrite", [False, True])
    def test_input_in_an_output_folder_is_not_replaced(self, tmp_path, overwrite):
        source = tmp_path / "00000.png"
        source.write_bytes(b"a frame")
        mark_outputs([source])  # drawn by a tool, and now the input of another

        with pytest.raises(DataError, match=r"00000\.png: is an input"):
            check_outputs([], [source], folders=[tmp_path], overwrite=overwrite)

    @pytest.mark.parametrize("overwrite", [False, True])
    def test_picture_that_a_tool_made_may_have_become_a_frame(self, tmp_path, overwrite):
        frame, other = tmp_path / "00000.jpg", tmp_path / "masks.json"
        for path in (frame, other):
            path.write_bytes(b"x")
        mark_outputs([frame, other])

        check_outputs([other], [tmp_path], overwrite=overwrite)
        with pytest.raises(DataError, match=r"00000\.jpg: lies in an input folder"):
            check_outputs([frame], [tmp_path], overwrite=overwrite)

    def test_hidden_file_of_the_user_is_not_replaced(self, tmp_path):
        (tmp_path / ".a.json").write_text("mine")

        with pytest.raises(DataError, match=r"\.a\.json: exists"):
            check_outputs([tmp_path / ".a.json"])

    @pytest.mark.parametrize("kind", ["files", "folders", "new_folders"])
    @pytest.mark.parametrize("folder", ["/sys", "/proc/self"])
    def test_existing_folder_is_probed_itself(self, kind, folder):
        paths = [f"{folder}/a.json"] if kind == "files" else [folder]

        with pytest.raises(DataError, match=rf"{paths[0]}: (cannot be written|expected a new)"):
            check_outputs(**{"files": [], kind: paths}, overwrite=True)

    def test_probe_leaves_nothing_behind(self, tmp_path):
        check_outputs([tmp_path / "a"], folders=[tmp_path], new_folders=[tmp_path / "new"])

        assert list(tmp_path.iterdir()) == []

    def test_device_is_not_replaced(self):
        with pytest.raises(DataError, match=r"/dev/null: cannot be written: .* a device"):
            check_outputs(["/dev/null"], overwrite=True)

    def test_input_of_another_name_is_named(self, tmp_path):
        mine, link = tmp_path / "mine.json", tmp_path / "link.json"
        mine.write_text("[]")
        link.symlink_to(mine)

        with pytest.raises(DataError, match=rf"link\.json: is an input \({mine}\)"):
            check_outputs([link], [mine])
        assert find_input([tmp_path / "a", link], [mine]) == (link, mine)
        assert find_input([tmp_path / "a"], [mine, tmp_path / "absent"]) is None

    def test_relative_and_absolute_names_are_compared(self, tmp_path, monkeypatch):
        (tmp_path / "a.json").write_text("[]")
        monkeypatch.chdir(tmp_path)

        for output, source in (("a.json", tmp_path / "a.json"), (tmp_path / "a.json", "./a.json")):
            with pytest.raises(DataError, match="is an input"):
                check_outputs([output], [source], overwrite=True)

    def test_links_in_a_circle_end_in_one_line(self, tmp_path):
        (tmp_path / "a").symlink_to(tmp_path / "b")
        (tmp_path / "b").symlink_to(tmp_path / "a")

        with pytest.raises(DataError, match="is an input"):
            check_outputs([tmp_path / "a"], [tmp_path / "a"])
        with pytest.raises(DataError, match="a is a link to nothing, not a folder"):
            check_outputs([tmp_path / "a" / "c"])

    @pytest.mark.parametrize("change", ["edited", "added", "removed"])
    def test_folder_that_a_tool_made_is_changed_when_a_file_in_it_is(self, tmp_path, change):
        frames = tmp_path / "root" / "video"
        frames.mkdir(parents=True)
        for name in ("0.jpg", "1.jpg"):
            (frames / name).write_bytes(b"x")
        mark_outputs([frames])
        check_outputs([], folders=[frames.parent])

        if change == "edited":  # in place, which the folder does not show
            (frames / "1.jpg").write_bytes(b"corrected")
        elif change == "added":
            (frames / "2.jpg").write_bytes(b"mine")
        else:
            (frames / "1.jpg").unlink()

        with pytest.raises(DataError, match=r"video: exists, .* was changed since"):
            check_outputs([], folders=[frames.parent])

    def test_link_to_nothing_in_an_output_folder_is_of_the_user(self, tmp_path):
        (tmp_path / "a.png").symlink_to(tmp_path / "absent")

        with pytest.raises(DataError, match=r"a\.png: exists, and was not made by this tool"):
            check_outputs([], folders=[tmp_path])
