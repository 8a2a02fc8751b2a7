"""The house: finding ComfyUI and Chromium, making the environment, counting what the suites did."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tools import ROOT, chromium, comfyui, environment, suites, terminal

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # pytest's own on 3.10


def fake_comfyui(folder: Path) -> Path:
    folder.mkdir(parents=True)
    for name in ("main.py", "folder_paths.py"):
        (folder / name).write_text("")
    (folder / "requirements.txt").write_text("einops\n")
    return folder


@pytest.fixture
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine where nothing is found: an empty home, and this checkout somewhere under tmp_path."""
    for name in ("COMFYUI_PATH", "COMFYUI_MISSING", "CHROMIUM_PATH", "CHROMIUM_MISSING", "LLMGA_ENV"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("USERPROFILE", str(tmp_path / "home"))
    monkeypatch.setattr(comfyui, "ROOT", tmp_path / "checkout")
    return tmp_path


class TestComfyUI:
    def test_nothing_to_find(self, bare: Path) -> None:
        host = comfyui.find()
        assert host.path is None
        assert "COMFYUI_PATH" in host.note

    def test_the_named_one_comes_first(self, bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        fake_comfyui(bare / "home" / "comfy" / "ComfyUI")
        named = fake_comfyui(bare / "named")
        monkeypatch.setenv("COMFYUI_PATH", str(named))
        assert comfyui.find().path == named

    def test_a_wrong_name_is_an_error_not_another_comfyui(
        self, bare: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        fake_comfyui(bare / "home" / "comfy" / "ComfyUI")
        monkeypatch.setenv("COMFYUI_PATH", str(bare / "typo"))
        with pytest.raises(FileNotFoundError, match="typo"):
            comfyui.find()

    def test_the_one_around_this_checkout(self, bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        around = fake_comfyui(bare / "around")
        fake_comfyui(bare / "home" / "comfy" / "ComfyUI")
        monkeypatch.setattr(comfyui, "ROOT", around / "custom_nodes" / "pack")
        assert comfyui.find().path == around

    @pytest.mark.parametrize(
        "place", ["home/comfy/ComfyUI", "home/Documents/comfy/ComfyUI", "checkout/.dev/ComfyUI"]
    )
    def test_the_usual_places(self, bare: Path, place: str) -> None:
        there = fake_comfyui(bare / place)
        assert comfyui.find().path == there

    def test_none_hides_every_place_and_passes_the_reason_on(
        self, bare: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        fake_comfyui(bare / "home" / "comfy" / "ComfyUI")
        for name, value in comfyui.Host(None, "the net is down").environment().items():
            monkeypatch.setenv(name, value)
        assert comfyui.find(fetch=True) == comfyui.Host(None, "the net is down")

    @pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
    def test_clones_the_release_or_says_why_not(self, bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        origin = fake_comfyui(bare / "origin")
        identity = ("-c", "user.name=a", "-c", "user.email=a@b.c", "-c", "commit.gpgsign=false")
        git = ("git", "-C", str(origin), *identity)
        for step in (("init", "-q"), ("add", "."), ("commit", "-qm", "x"), ("tag", comfyui.RELEASE)):
            subprocess.run([*git, *step], check=True, capture_output=True)
        monkeypatch.setattr(comfyui, "URL", str(bare / "nowhere"))
        missing = comfyui.find(fetch=True)
        assert missing.path is None
        assert comfyui.RELEASE in missing.note and "nowhere" in missing.note
        monkeypatch.setattr(comfyui, "URL", origin.as_uri())
        assert comfyui.find(fetch=True).path == bare / "checkout" / ".dev" / "ComfyUI"


class TestChromium:
    def test_the_reason_travels_to_the_suite(self, bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        for name, value in chromium.Chromium(None, "no such thing").environment().items():
            monkeypatch.setenv(name, value)
        assert chromium.find(sys.executable) == chromium.Chromium(None, "no such thing")

    def test_playwright_is_asked_last_and_once(self, bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(chromium, "NAMES", ())
        monkeypatch.setattr(chromium, "_playwright_path", lambda python: None)
        monkeypatch.setattr(chromium, "_install", lambda python: "offline")
        found = chromium.find(sys.executable, install=True)
        assert found.path is None
        assert found.environment()["CHROMIUM_MISSING"].endswith("offline")


@pytest.fixture
def home(bare: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An environment folder of the test's own, with its log beside it and a torch that counts as fine."""
    monkeypatch.setenv("LLMGA_ENV", str(bare / "env"))
    monkeypatch.setattr(environment, "LOG", bare / "setup.log")
    monkeypatch.setattr(environment, "_torch_problem", lambda python: "")
    return bare / "env"


def _wheel(folder: Path, name: str, version: str, *needs: str) -> None:
    """Write an empty package that pip can install."""
    information = f"{name}-{version}.dist-info"
    metadata = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}"]
    metadata += [f"Requires-Dist: {need}" for need in needs]
    files = {
        "METADATA": "\n".join(metadata) + "\n",
        "WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        "RECORD": "",
    }
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as wheel:
        for file, text in files.items():
            wheel.writestr(f"{information}/{file}", text)


class TestEnvironment:
    def test_is_made_once_and_completed_by_what_is_new(
        self, home: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        asked: list[str] = []
        monkeypatch.setattr(environment, "_pip", lambda python, name, packages: asked.append(name))
        python = environment.ensure(None)
        assert subprocess.run([str(python), "-c", "import pip"]).returncode == 0
        assert asked == ["LLMGA's requirements"]

        assert environment.ensure(None) == python
        assert asked == ["LLMGA's requirements"]

        host = fake_comfyui(home.parent / "ComfyUI")
        environment.ensure(host)
        environment.ensure(None)
        environment.ensure(host)
        assert asked == ["LLMGA's requirements", "ComfyUI's requirements"]

        (host / "requirements.txt").write_text("einops\nkornia\n")
        environment.ensure(host)
        assert asked[2:] == ["ComfyUI's requirements"]

    def test_goes_on_where_an_interrupted_start_stopped(
        self, home: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        host = fake_comfyui(home.parent / "ComfyUI")
        monkeypatch.setattr(
            environment, "_make", lambda home: environment.python_in(home).parent.mkdir(parents=True)
        )
        asked: list[str] = []

        def pip(python: Path, name: str, packages: Sequence[str]) -> None:
            asked.append(name)
            python.touch()
            if len(asked) == 2:
                raise environment.SetupError("the net went away")

        monkeypatch.setattr(environment, "_pip", pip)
        with pytest.raises(environment.SetupError):
            environment.ensure(host)
        monkeypatch.setattr(environment, "_make", lambda home: None)
        environment.ensure(host)
        assert asked == ["ComfyUI's requirements", "LLMGA's requirements", "LLMGA's requirements"]

    def test_a_half_made_environment_is_made_anew(self, home: Path) -> None:
        home.mkdir()
        (home / "pyvenv.cfg").write_text("version = 3.1\n")
        (home / "debris").write_text("")
        environment._make(home)
        assert environment._is_usable(environment.python_in(home))
        assert not (home / "debris").exists()

    def test_a_folder_that_is_no_environment_is_left_alone(self, home: Path) -> None:
        home.mkdir()
        (home / "thesis.tex").write_text("years of work")
        with pytest.raises(environment.SetupError, match="LLMGA_ENV"):
            environment._make(home)
        assert (home / "thesis.tex").exists()

    def test_pips_last_words_are_in_the_error(self, home: Path) -> None:
        python = Path(sys.executable)
        with pytest.raises(environment.SetupError, match=r"(?s)no-such-file.*setup\.log"):
            environment._pip(python, "a part", ("-r", "no-such-file.txt"))

    @pytest.mark.parametrize("found", [True, False])
    def test_torch_and_torchaudio_are_of_the_newest_release_that_both_have(
        self, home: Path, found: bool
    ) -> None:
        environment._make(home)
        wheels = home.parent / "wheels"
        wheels.mkdir()
        _wheel(wheels, "torch", "2.11.0" if found else "3.0.0")
        _wheel(wheels, "torch", "2.15.0")
        for release in ("2.10.0", "2.11.0", "2.11.1"):
            _wheel(wheels, "torchaudio", release)
        _wheel(wheels, "torchvision", "0.26.0", "torch==2.11.0")
        _wheel(wheels, "torchvision", "0.29.2", "torch==2.15.0")
        python = environment.python_in(home)
        source = ("--no-index", "--find-links", str(wheels))
        assert environment._install_trio(python, *source) is found
        if found:
            listed = subprocess.run([python, "-m", "pip", "freeze"], capture_output=True, text=True).stdout
            assert [line for line in listed.split() if "torch" in line and "==" in line] == [
                "torch==2.11.0",
                "torchaudio==2.11.0",
                "torchvision==0.26.0",
            ]

    @pytest.mark.parametrize(
        ("platform", "gpu", "ending"),
        [
            ("linux", False, "/cpu"),
            ("linux", True, None),
            ("win32", False, "/cpu"),
            ("win32", True, "/cu130"),
            ("darwin", False, None),
        ],
    )
    def test_torch_index(
        self, platform: str, gpu: bool, ending: str | None, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(sys, "platform", platform)
        monkeypatch.setattr(environment, "has_nvidia_gpu", lambda: gpu)
        index = environment.torch_index()
        assert index is None if ending is None else index is not None and index.endswith(ending)

    def test_the_dev_extra_is_read_as_pip_reads_it(self) -> None:
        project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        extras = project["optional-dependencies"]
        for name, packages in extras.items():
            expected = [
                one
                for package in packages
                for one in (extras[package[6:-1]] if package.startswith("llmga[") else [package])
            ]
            assert list(environment.extra(name)) == expected


SUITE = """
import pytest

def test_good(): pass
def test_also_good(): pass
def test_bad(): assert 1 == 2
@pytest.fixture
def broken(): raise OSError
def test_setup_error(broken): pass
@pytest.fixture
def untidy():
    yield
    raise OSError
def test_teardown_error(untidy): pass
@pytest.mark.skip(reason="no GPU here")
def test_skipped(): pass
def test_skips_itself(): pytest.skip("no GPU here")
"""


def run_pytest(folder: Path, source: str, *, narrowed: bool = False) -> suites.Outcome:
    (folder / "test_it.py").write_text(source)
    report = folder / "report.xml"
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        f"--junitxml={report}",
        "test_it.py",
    ]
    code = subprocess.run(command, cwd=folder, capture_output=True).returncode
    return suites.read_report("unit", report, code, narrowed=narrowed)


class TestSuites:
    def test_counts(self, tmp_path: Path) -> None:
        outcome = run_pytest(tmp_path, SUITE)
        assert (outcome.passed, outcome.failed, outcome.skipped) == (2, 3, {"no GPU here": 2})

    def test_suites_run_in_parallel_and_nothing_is_lost(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Two processes report as one; a later ``-n 0`` of the user's wins."""
        started: list[tuple[list[str], dict[str, str]]] = []

        def fake(command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
            started.append((command, options["env"]))
            return subprocess.CompletedProcess(command, suites.NO_TESTS)

        monkeypatch.setattr(suites.subprocess, "run", fake)
        monkeypatch.setattr(suites, "cores", lambda: 64)
        suites.run("unit", sys.executable, ["-n", "0"])
        suites.run("host", sys.executable, [])
        suites.run("browser", sys.executable, [])
        (unit, environ), (host, _), (browser, _) = started
        assert unit[unit.index("-n") + 1] == "8" and unit[-2:] == ["-n", "0"]
        assert environ["OMP_NUM_THREADS"] == "1" and browser[browser.index("-n") + 1] == "3"
        assert host[host.index("--dist") + 1] == "loadfile"

    @pytest.mark.parametrize("source", ["import os; os._exit(0)", "import nothing_of_this_name", ""])
    def test_a_suite_that_does_not_run_has_failed(self, tmp_path: Path, source: str) -> None:
        assert run_pytest(tmp_path, source).failed == 1

    def test_a_narrowed_suite_may_be_empty(self, tmp_path: Path) -> None:
        assert run_pytest(tmp_path, "", narrowed=True).failed == 0

    def test_reasons_and_totals_come_last(self) -> None:
        host = suites.Outcome("host", passed=1, failed=2)
        host.skipped.update({"no ComfyUI": 30})
        lines = suites.summary([suites.Outcome("unit", passed=10), host]).splitlines()
        assert lines[-2:] == ["host: 30 skipped: no ComfyUI", "11 passed, 2 failed, 30 skipped"]


def test_run_logged_keeps_the_words_and_tells_the_verdict(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = tmp_path / "folder" / "log"
    assert terminal.run_logged("good", [sys.executable, "-c", "print('Collecting wool')"], log)
    assert not terminal.run_logged("bad", [sys.executable, "-c", "raise SystemExit('torn')"], log)
    assert "Collecting wool" in log.read_text()
    assert "torn" in terminal.tail(log)
    assert "bad: failed" in capsys.readouterr().out


def test_dev_passes_unknown_arguments_on(tmp_path: Path) -> None:
    """The command line alone, in a process whose environment counts as made."""
    program = f"""
import sys, json
sys.path.insert(0, {str(ROOT)!r})
import dev
dev.environment.ensure = lambda comfyui: "python"
dev.suites.run = lambda *given: print(json.dumps(given)) or dev.suites.Outcome("unit", passed=1)
sys.exit(dev.main(["test", "--only", "unit", "-k", "tags", "-x"]))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.dumps(["unit", "python", ["-k", "tags", "-x"]]) in done.stdout
    assert done.stdout.splitlines()[-1] == "1 passed, 0 failed, 0 skipped"
