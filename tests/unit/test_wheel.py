"""What ``pip install llmga`` brings: the wheel is built, installed into an empty folder and used from there."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from email.parser import HeaderParser
from importlib.metadata import version
from pathlib import Path
from zipfile import ZipFile

import pytest

from tools import ROOT

SOURCES = ("llmga", "nodes", "miniworld", "tests/support", "tools")
FILES = ("pyproject.toml", "README.md", "LICENSE", "__init__.py", "dev.py")
USES = """
import llmga
from llmga import Conversation, Sampling

reveal_type(llmga.respond)
reveal_type(llmga.restore.restore)
reveal_type(Conversation().say("user", "hello"))
Sampling(temperature="warm")
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy, so that no earlier build's files come in and the checkout stays clean."""
    if int(version("setuptools").partition(".")[0]) < 77:
        pytest.skip("setuptools is older than 77, which pyproject.toml asks for")
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("dist")
    for name in SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in FILES:
        shutil.copy(ROOT / name, source / name)
    options = ["--no-deps", "--no-build-isolation", "--disable-pip-version-check", "--wheel-dir", str(out)]
    run_python("-m", "pip", "wheel", *options, str(source))
    (built,) = out.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def site(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    options = ["--no-deps", "--no-index", "--disable-pip-version-check", "--target", str(folder)]
    run_python("-m", "pip", "install", *options, str(wheel))
    return folder


def run_python(*arguments: str, cwd: Path | None = None) -> str:
    """Run Python without this checkout on its path; its standard output."""
    done = subprocess.run(
        [sys.executable, "-I", *arguments], cwd=cwd, capture_output=True, encoding="utf-8", errors="replace"
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def bare(site: Path, program: str, *flags: str) -> str:
    """Run a program that finds ``site`` first and has no torch, diffusers or accelerate."""
    blocked = "sys.modules.update(dict.fromkeys(['torch', 'diffusers', 'accelerate']))"
    return run_python(
        *flags, "-c", f"import sys; sys.path.insert(0, {str(site)!r}); {blocked}\n{program}", cwd=site
    )


def test_it_holds_the_library_alone(wheel: Path) -> None:
    with ZipFile(wheel) as archive:
        names = archive.namelist()
        metadata = HeaderParser().parsestr(archive.read(one(names, r"[^/]+\.dist-info/METADATA")).decode())
    assert {name.partition("/")[0].split("-")[0] for name in names} == {"llmga"}
    assert {"llmga/py.typed", "llmga/text/clip_merges.txt", "llmga/text/NOTICE"} <= {*names}
    packed = {name for name in names if name.endswith((".py", ".yaml"))}
    kept = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "llmga").rglob("*")
        if path.suffix in (".py", ".yaml")
    }
    assert packed == kept
    assert metadata["License-Expression"] == "Apache-2.0" and metadata["License"] is None
    assert {*metadata.get_all("License-File")} == {"LICENSE", "llmga/text/NOTICE"}
    needed = [line for line in metadata.get_all("Requires-Dist") if "extra ==" not in line]
    assert not [line for line in needed if line.startswith(("torch", "diffusers", "accelerate"))]


def one(names: list[str], pattern: str) -> str:
    (found,) = (name for name in names if re.fullmatch(pattern, name))
    return found


def test_the_command_runs_without_any_other_package(site: Path) -> None:
    """-S leaves the environment's own packages out."""
    (script,) = (path for path in (site / "bin", site / "Scripts") if path.is_dir())
    assert [path.stem for path in script.iterdir()] == ["llmga"]
    call = "sys.argv[:] = ['llmga', {!r}]; from llmga.__main__ import main; main()"
    assert bare(site, call.format("--help"), "-S").startswith("usage: llmga ")
    assert bare(site, call.format("--version"), "-S") == bare(
        site, "from importlib.metadata import version; print('llmga', version('llmga'))", "-S"
    )


def test_the_front_door_opens_without_torch(site: Path) -> None:
    said = bare(site, "import llmga; print(llmga.__file__); print(llmga.respond.__module__)").splitlines()
    assert said == [str(site / "llmga" / "__init__.py"), "llmga.chat.assistant"]


def test_a_type_checker_sees_the_types(site: Path, tmp_path: Path) -> None:
    (tmp_path / "uses.py").write_text(USES, encoding="utf-8")
    # The installed package may come from anywhere but a folder of the project, or it counts as source.
    settings = {"include": ["uses.py"], "extraPaths": [str(site)], "reportMissingModuleSource": False}
    (tmp_path / "pyrightconfig.json").write_text(json.dumps(settings), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "pyright", "--outputjson", "--pythonpath", sys.executable],
        cwd=tmp_path,
        capture_output=True,
        encoding="utf-8",
        errors="replace",
    )
    try:
        report = json.loads(done.stdout)["generalDiagnostics"]
    except ValueError:
        pytest.skip(f"pyright cannot run here: {(done.stdout + done.stderr).strip()[-200:]}")
    shown = [line["message"] for line in report if line["severity"] == "information"]
    errors = [line["message"] for line in report if line["severity"] == "error"]
    assert len(shown) == 3
    assert "-> Reply" in shown[0] and "-> Tensor" in shown[1] and shown[2].endswith('is "Conversation"')
    assert len(errors) == 1 and '"temperature"' in errors[0]
