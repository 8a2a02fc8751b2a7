"""The archives that people install: the registry's, which ``.comfyignore`` thins out, and the wheel."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tools import ROOT

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # pytest's own on 3.10

PICTURES = {".jpg", ".jpeg", ".png", ".webp", ".gif", ".svg"}
LIMIT = 1_200_000
LEFT_OUT = ("benchmarks/", "llmga/data/", "llmga/train/", "miniature/", "miniworld/", "tests/", "tools/")


def git_files(*options: str) -> set[str]:
    command = ["git", "ls-files", "-z", "--cached", *options]
    try:
        listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"not a git checkout: {error}")
    return {name for name in listed.split("\0") if name and (ROOT / name).is_file()}


@pytest.fixture(scope="module")
def shipped() -> list[str]:
    """What the registry's archive holds: tracked files without those that ``.comfyignore`` names."""
    return sorted(git_files() - git_files("--ignored", "--exclude-from=.comfyignore"))


def test_the_archive_is_small_and_holds_no_demonstration(shipped: list[str], tmp_path: Path) -> None:
    assert {"__init__.py", "pyproject.toml", "nodes/__init__.py", "llmga/__init__.py"} <= {*shipped}
    assert [name for name in shipped if name.startswith(LEFT_OUT)] == []
    path = tmp_path / "archive.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in shipped:
            if Path(name).suffix not in PICTURES:
                archive.write(ROOT / name, name)
    assert path.stat().st_size < LIMIT


def test_what_the_archive_holds_needs_nothing_that_it_leaves_out(shipped: list[str], tmp_path: Path) -> None:
    for name in shipped:
        if name.startswith("llmga/"):
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, tmp_path / name)
    program = """
import importlib, pkgutil, llmga
for module in pkgutil.walk_packages(llmga.__path__, "llmga."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
"""
    done = subprocess.run(
        [sys.executable, "-I", "-c", f"import sys; sys.path.insert(0, {str(tmp_path)!r})" + program],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


def test_the_wheel_holds_the_library_alone() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert project["tool"]["setuptools"]["packages"]["find"]["include"] == ["llmga*"]
    tops = {path.parent.name for path in ROOT.glob("*/__init__.py")}
    assert "miniworld" in tops and {name for name in tops if name.startswith("llmga")} == {"llmga"}
