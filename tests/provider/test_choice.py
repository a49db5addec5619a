"""Which Detectron2 is taken: environment variable, broken packages, order of imports."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import maskfreevis_ext
from maskfreevis_ext import _provider

REPO = Path(maskfreevis_ext.__file__).resolve().parents[1]
EMBEDDED = str(_provider.EMBEDDED_ROOT / "detectron2")
#: Parts of the real package, as empty modules, so that a fake one passes the check.
FAKE_PARTS = _provider._PROBED
#: Only the choice, without registering models: a fake package has none to register with.
CHOOSE = (
    "import sys, types; package = types.ModuleType('maskfreevis_ext'); "
    f"package.__path__ = [{str(REPO / 'maskfreevis_ext')!r}]; "
    "sys.modules['maskfreevis_ext'] = package; "
    "from maskfreevis_ext._provider import describe_provider, provider_info; "
)


def _run(code: str, choice: str | None, path: Path | None = None) -> subprocess.CompletedProcess:
    env = {name: value for name, value in os.environ.items() if name != _provider.ENV_VARIABLE}
    if choice is not None:
        env[_provider.ENV_VARIABLE] = choice
    env["PYTHONPATH"] = os.pathsep.join([str(p) for p in (path, REPO) if p is not None])
    return subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=600
    )


def _fake_package(folder: Path, init: str = "__version__ = '9.9'", **parts: str) -> Path:
    package = folder / "detectron2"
    package.mkdir()
    (package / "__init__.py").write_text(init)
    for name in FAKE_PARTS:
        (package / f"{name}.py").write_text(parts.get(name, ""))
    return folder


PRINT = "info = provider_info(); import detectron2; print(info.name, info.version, info.path)"


def test_embedded_can_be_forced_where_a_real_package_is(tmp_path: Path) -> None:
    result = _run(CHOOSE + PRINT, "embedded", _fake_package(tmp_path))
    assert result.returncode == 0, result.stderr
    name, version, path = result.stdout.split()
    assert (name, path) == ("embedded", EMBEDDED)
    assert version.startswith("0.6")


def test_auto_takes_a_working_package(tmp_path: Path) -> None:
    result = _run(CHOOSE + PRINT, None, _fake_package(tmp_path))
    assert result.stdout.split() == ["real", "9.9", str(tmp_path / "detectron2")], result.stderr


def test_auto_passes_over_a_package_that_fails_on_import(tmp_path: Path) -> None:
    broken = _fake_package(tmp_path, data="raise RuntimeError('operator torchvision::nms gone')")
    code = CHOOSE + PRINT + "; import detectron2.config as c; print(c.__file__)"
    result = _run(code, "auto", broken)
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("embedded ")
    assert EMBEDDED in result.stdout.splitlines()[1], "a part of the broken package was left over"
    assert "operator torchvision::nms gone" in result.stderr


def test_auto_passes_over_a_clone_in_the_working_directory(tmp_path: Path) -> None:
    (tmp_path / "detectron2" / "projects").mkdir(parents=True)
    result = _run(CHOOSE + PRINT, "auto", tmp_path)
    assert result.returncode == 0, result.stderr
    assert str(tmp_path) not in result.stdout


def test_real_forced_and_broken_says_why(tmp_path: Path) -> None:
    broken = _fake_package(tmp_path, init="raise OSError('libcudart.so.12 is missing')")
    result = _run(CHOOSE + PRINT, "real", broken)
    assert result.returncode != 0
    last = result.stderr.strip().splitlines()[-1]
    assert "ConfigError" in last
    assert "MASKFREEVIS_DETECTRON2=real" in last
    assert "libcudart.so.12 is missing" in last


def test_real_forced_and_absent_says_what_to_do() -> None:
    code = (
        "import sys, importlib.util as u; find = u.find_spec; "
        "u.find_spec = lambda name, *a: None if name == 'detectron2' else find(name, *a); "
        + CHOOSE
        + PRINT
    )
    result = _run(code, "real")
    assert result.returncode != 0
    last = result.stderr.strip().splitlines()[-1]
    assert "ConfigError" in last
    assert "not installed" in last
    assert "unset the variable" in last


def test_unknown_choice_is_refused() -> None:
    result = _run(CHOOSE + PRINT, "relay")
    assert result.returncode != 0
    assert "expected one of auto, real, embedded, got 'relay'" in result.stderr


@pytest.mark.parametrize("choice", ["auto", "embedded"])
def test_package_imported_before_stays(tmp_path: Path, choice: str) -> None:
    result = _run("import detectron2; " + CHOOSE + PRINT, choice, _fake_package(tmp_path))
    assert result.stdout.split()[0] == "real", result.stderr
    assert ("has no effect" in result.stderr) == (choice == "embedded")


def test_child_processes_find_the_same_package() -> None:
    code = (
        "import torch.multiprocessing as mp\n"
        "import maskfreevis_ext\n"
        "if __name__ == '__main__':\n"
        "    from detectron2.utils.comm import get_rank\n"
        "    with mp.get_context('spawn').Pool(1) as pool:\n"
        "        print('rank', pool.apply(get_rank))\n"
    )
    result = _run(code, "embedded")
    assert "rank 0" in result.stdout, result.stderr


def test_description_names_provider_and_version() -> None:
    info = maskfreevis_ext.provider_info()
    text = maskfreevis_ext.describe_provider()
    assert info.name in ("real", "embedded")
    assert f"{info.name} {info.version}" in text
    assert info.reason in text
    import detectron2

    assert detectron2.__version__ == info.version
