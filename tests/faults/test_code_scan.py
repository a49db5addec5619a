"""The package has one door each for weights and for YAML, and starts no programs."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.helpers.training import ROOT

FILES = [
    *sorted((ROOT / "maskfreevis_ext").rglob("*.py")),
    *sorted((ROOT / "tools").rglob("*.py")),
]

#: Calls that could run what a file says, and the only files that may make them.
GUARDED = {
    "torch.load": {"maskfreevis_ext/safe_load.py"},
    "torch.hub.load": set(),
    "torch.jit.load": set(),
    "torch.package.PackageImporter": set(),
    "pickle.load": set(),
    "pickle.loads": {
        # Their own bytes, from another process of the same program.
        "maskfreevis_ext/embedded/detectron2/utils/comm.py",
        "maskfreevis_ext/embedded/detectron2/data/common.py",
    },
    "pickle.Unpickler": {"maskfreevis_ext/safe_load.py"},
    "marshal.loads": set(),
    "shelve.open": set(),
    "dill.load": set(),
    "joblib.load": set(),
    "yaml.load": set(),
    "yaml.unsafe_load": set(),
    "yaml.full_load": set(),
    "eval": set(),
    "exec": set(),
    "compile": set(),
    "__import__": set(),
    "os.system": set(),
    "os.popen": set(),
    "subprocess.run": set(),
    "subprocess.Popen": set(),
    "subprocess.check_call": set(),
    "subprocess.check_output": set(),
}
#: Ends of names that unpickle what other processes send; maskfreevis_ext/exchange.py sends JSON.
UNPICKLING = (
    *(".comm.all_gather", ".comm.gather", ".shared_random_seed", ".all_gather_object"),
    *(".gather_object", "_object_list"),
)


def _dotted(node: ast.expr) -> str:
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        return f"{_dotted(node.value)}.{node.attr}"
    return ""


def _uses(path: Path) -> set[tuple[str, int]]:
    tree = ast.parse(path.read_text())
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            found.add((_dotted(node.func), node.lineno))
        elif isinstance(node, ast.ClassDef):
            found.update((_dotted(base), node.lineno) for base in node.bases)
        elif isinstance(node, ast.ImportFrom):
            found.update((f"{node.module}.{name.name}", node.lineno) for name in node.names)
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_file_calls_nothing_that_runs_data(path):
    name = path.relative_to(ROOT).as_posix()
    for call, line in _uses(path):
        if name not in GUARDED.get(call, {name}):
            pytest.fail(f"{name}:{line} calls {call}")


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_weights_only_and_allow_pickle_are_never_relaxed(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.keyword) and isinstance(node.value, ast.Constant):
            relaxed = {"weights_only": False, "allow_pickle": True, "allow_unsafe": True}
            assert relaxed.get(node.arg, ...) is not node.value.value, (path, node.value.lineno)


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_processes_send_each_other_no_pickles(path):
    if "embedded" not in path.parts:  # where Detectron2 does
        assert not [use for use in _uses(path) if f".{use[0]}".endswith(UNPICKLING)]


@pytest.mark.parametrize(
    "line",
    [
        "import detectron2.utils.comm as comm; comm.all_gather(1)",
        "from detectron2.utils.comm import gather",
        "torch.distributed.all_gather_object(x, 1)",
        "from torch.distributed import broadcast_object_list as send",
    ],
)
def test_pickles_between_processes_are_found(tmp_path, line):
    (tmp_path / "a.py").write_text(line)
    assert [use for use in _uses(tmp_path / "a.py") if f".{use[0]}".endswith(UNPICKLING)]


#: Calls of json.dumps whose values have no numbers that were computed, or are checked before.
PLAIN_JSON = {
    "maskfreevis_ext/engine/report/__init__.py",
    "maskfreevis_ext/exchange.py",  # between processes, which may tell each other of a NaN
    "maskfreevis_ext/safetensors_files.py",
}


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_json_has_no_nan(path):
    """``NaN`` is no JSON: everything is written by json.dumps(allow_nan=False)."""
    name = path.relative_to(ROOT).as_posix()
    if name in PLAIN_JSON or "/embedded/" in name:
        return
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and _dotted(node.func) in ("json.dump", "json.dumps"):
            strict = [k.value.value for k in node.keywords if k.arg == "allow_nan"]
            is_text = len(node.args) == 1 and _dotted(node.args[0]) in ("key", "name")
            assert strict == [False] or is_text, f"{name}:{node.lineno}"
