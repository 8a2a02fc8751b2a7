"""The library's public names, its version and its command line."""

from __future__ import annotations

import ast
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

import llmga
from llmga.__main__ import VERBS, main
from llmga.version import find_version
from tools import ROOT
from tools.environment import extra

INIT = ROOT / "llmga" / "__init__.py"


@pytest.mark.parametrize("name", llmga.__all__)
def test_a_name_is_what_its_module_defines(name: str) -> None:
    value = getattr(llmga, name)
    assert value.__module__ == f"llmga.{llmga.NAMES[name]}"
    assert value.__doc__


def test_the_names_are_few_and_no_rooms() -> None:
    assert 20 <= len(llmga.__all__) <= 32
    assert not {*llmga.ROOMS} & {*llmga.__all__}
    assert all(find_spec(f"llmga.{room}") for room in llmga.ROOMS)
    assert {*llmga.__all__, *llmga.ROOMS, "__version__"} <= {*dir(llmga)}
    with pytest.raises(AttributeError, match="has no attribute 'responds'"):
        llmga.responds  # noqa: B018 - the access is the test


def test_type_checkers_read_the_same_table() -> None:
    blocks = [
        node
        for node in ast.parse(INIT.read_text(encoding="utf-8")).body
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
    ]
    (block,) = blocks
    imports = [node for node in block.body if isinstance(node, ast.ImportFrom)]
    assert all(alias.asname == alias.name for node in imports for alias in node.names)  # this re-exports
    seen = {alias.name: node.module for node in imports for alias in node.names}
    assert seen == {**llmga.NAMES, **dict.fromkeys(llmga.ROOMS)}


def test_importing_the_library_imports_nothing_else() -> None:
    program = (
        "import sys; before = {*sys.modules}; import llmga; dir(llmga); llmga.__version__\n"
        "print(*({name.partition('.')[0] for name in {*sys.modules} - before} - {*sys.stdlib_module_names}))"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["llmga"]


def test_every_name_is_there_without_the_training_packages() -> None:
    program = (
        "import sys; sys.modules.update(dict.fromkeys(['diffusers', 'accelerate', 'peft']))\n"
        "import llmga; [getattr(llmga, name) for name in llmga.__all__]"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_version_is_that_of_pyproject(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert f'\nversion = "{llmga.__version__}"\n' in (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    (tmp_path / "pyproject.toml").write_text('name = "llmga"\nversion = "7.8.9"\n')
    assert find_version(tmp_path) == "7.8.9"
    # Some wheels leave a pyproject.toml of their own in site-packages.
    (tmp_path / "pyproject.toml").write_text('name = "other"\nversion = "7.8.9"\n')
    monkeypatch.setattr("importlib.metadata.version", lambda name: f"installed {name}")
    assert find_version(tmp_path) == "installed llmga"


@pytest.mark.parametrize("arguments", [["--version"], *([verb, "--version"] for verb in VERBS)])
def test_every_verb_tells_the_version(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 0
    assert capsys.readouterr().out == f"llmga {llmga.__version__}\n"


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([verb, "--help"])
    assert ended.value.code == 0
    assert f"usage: llmga {verb}" in capsys.readouterr().out


def test_help_names_the_verbs(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    out = capsys.readouterr().out
    assert all(f"\n  {verb} " in out for verb in VERBS)
    for wrong, message in (([], "a verb is missing"), (["paint"], "'paint' is not a verb")):
        assert main(wrong) == 2
        assert message in capsys.readouterr().err


def test_a_missing_package_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object) -> None:
        raise ModuleNotFoundError("No module named 'torch'", name="torch")

    monkeypatch.setattr("llmga.__main__.import_module", fail)
    assert main(["train", "plot", "x"]) == 1
    assert capsys.readouterr().err == (
        "llmga train needs torch, which is not installed: pip install torch -e '.[train]' in a clone\n"
    )


def test_an_extra_may_contain_another() -> None:
    assert {*extra("train")} < {*extra("dev")}
    assert not any(package.startswith("llmga") for package in extra("dev"))


def test_ctrl_c_ends_a_verb_with_a_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("llmga.__main__.import_module", stop)
    assert main(["caption", "pictures"]) == 130
    assert capsys.readouterr().err == "\nllmga caption was stopped\n"
