"""Creates, completes and repairs the Python environment that the commands run in.

A stamp inside it remembers, part by part, a hash of what was asked of pip: a start with nothing new to
install costs a few file reads, and after an interrupted one the missing part is taken up.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from . import ROOT
from .terminal import run_logged, say, tail

LOG = ROOT / ".dev" / "setup.log"
STAMP = "llmga-installed.json"
# nms is compiled against one torch version: it fails at once where the pair does not match.
TORCH_CHECK = (
    "import torch, torchaudio, torchvision; torchvision.ops.nms(torch.zeros(1, 4), torch.zeros(1), 0.5)"
)

RELEASES = 4
"""How many releases of torchaudio are tried before the package index is given up."""


class SetupError(RuntimeError):
    """The environment could not be made; the message says what to do."""


def folder() -> Path:
    """``LLMGA_ENV``, else ``.venv`` in this checkout."""
    return Path(os.environ.get("LLMGA_ENV") or ROOT / ".venv").expanduser().absolute()


def python_in(home: Path) -> Path:
    return home / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def ensure(comfyui: Path | None) -> Path:
    """The environment's Python, with torch, ComfyUI's requirements (where there is one) and ours installed.

    Raises:
        SetupError: a step failed; the message ends with pip's last lines and names the log.
    """
    home = folder()
    parts = _parts(comfyui)
    if _missing(home, parts):
        say(f"environment: {home}")
        _make(home)
        for name in _missing(home, parts):
            arguments, _ = parts[name]
            if name == "torch":
                _install_torch(python_in(home))
            else:
                _pip(python_in(home), name, arguments)
            _write_stamp(home, {**_read_stamp(home), name: _digest(home, parts[name])})
    return python_in(home)


Part = tuple[Sequence[str], str]
"""What pip is given, and the text that decides whether it must be given again."""


def _parts(comfyui: Path | None) -> dict[str, Part]:
    """In the order of installation: torch first, so that nothing else chooses it."""
    parts: dict[str, Part] = {"torch": ((), "torch torchvision torchaudio")}
    if comfyui is not None:
        file = comfyui / "requirements.txt"
        parts["ComfyUI's requirements"] = (("-r", str(file)), file.read_text(encoding="utf-8"))
    file = ROOT / "requirements.txt"
    ours = ("-r", str(file), *extra("dev"))
    parts["LLMGA's requirements"] = (ours, file.read_text(encoding="utf-8") + " ".join(extra("dev")))
    return parts


def _missing(home: Path, parts: dict[str, Part]) -> list[str]:
    installed = _read_stamp(home)
    return [name for name, part in parts.items() if installed.get(name) != _digest(home, part)]


def extra(name: str) -> tuple[str, ...]:
    """The packages of one extra in pyproject.toml (read by pattern: Python 3.10 has no tomllib).

    ``llmga[other]`` stands for the packages of another extra.
    """
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    found = re.search(rf"^{name} = \[(.*?)\]$", text, re.MULTILINE | re.DOTALL)
    if found is None:
        raise SetupError(f"pyproject.toml has no extra {name!r}")
    packages: list[str] = []
    for package in re.findall(r'"([^"]+)"', found[1]):
        other = re.fullmatch(r"llmga\[(\w+)\]", package)
        packages += extra(other[1]) if other else [package]
    return tuple(packages)


def has_nvidia_gpu() -> bool:
    """True when nvidia-smi lists a GPU."""
    if shutil.which("nvidia-smi") is None:
        return False
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return listed.returncode == 0 and "GPU" in listed.stdout


def torch_index() -> str | None:
    """The package index to try first for torch; None is pip's own (CUDA on Linux, Metal on macOS)."""
    if sys.platform == "darwin":
        return None
    if not has_nvidia_gpu():
        return "https://download.pytorch.org/whl/cpu"
    # PyPI has no CUDA torch for Windows; this is the index that ComfyUI's README names.
    return "https://download.pytorch.org/whl/cu130" if sys.platform == "win32" else None


def _install_torch(python: Path) -> None:
    """Install the trio unless a matching one is there (an environment of the user's own keeps its torch)."""
    if not _torch_problem(python):
        return
    index = torch_index()
    if index is None or not _install_trio(python, "--retries", "0", "--timeout", "10", "--index-url", index):
        _install_trio(python)
    problem = _torch_problem(python)
    if problem:
        raise SetupError(
            f"torch, torchvision and torchaudio in {python.parents[1]} do not work together: {problem}\n"
            f"install a matching trio there, or delete that folder and start again\n{tail(LOG)}\n"
            f"the whole log: {LOG}"
        )


def _install_trio(python: Path, *source: str) -> bool:
    """Install the newest release number that torch and torchaudio share, and the torchvision that belongs to it.

    The newest of each need not match: torch 2.15.0 (CUDA 13.2) beside torchaudio 2.11.0 (CUDA 13.0) stops
    ComfyUI at its first import, torchaudio 2.11.1 (CUDA 13.2) does so beside torch 2.11.0, and there is no
    torch 2.11.1. So torchaudio, whose releases are fewer, goes back until torch has its number.
    """
    label = f"torch from {source[-1]}" if source else "torch"
    audio = "torchaudio"
    for _ in range(RELEASES):
        if not run_logged(f"{label}: its release", _pip_command(python, (*source, "--no-deps", audio)), LOG):
            return False
        asked = "from importlib.metadata import version; print(version('torchaudio').partition('+')[0])"
        done = subprocess.run([str(python), "-c", asked], capture_output=True, text=True)
        release = done.stdout.strip()
        trio = (f"torch=={release}", "torchvision", f"torchaudio=={release}")
        if run_logged(f"{label}: {release}", _pip_command(python, (*source, *trio)), LOG):
            return True
        audio = f"torchaudio<{release}"
    return False


def _torch_problem(python: Path) -> str:
    done = subprocess.run([str(python), "-c", TORCH_CHECK], capture_output=True, text=True, errors="replace")
    return (
        ""
        if done.returncode == 0
        else done.stderr.strip().rpartition("\n")[2] or f"exit code {done.returncode}"
    )


def _make(home: Path) -> None:
    """Create the environment unless a usable one is there; one that is half-made is cleared."""
    if _is_usable(python_in(home)):
        return
    if not (home / "pyvenv.cfg").is_file() and any(path.is_file() for path in home.rglob("*")):
        raise SetupError(f"{home} holds files but no Python environment; empty it or set LLMGA_ENV elsewhere")
    if not run_logged("new environment", [sys.executable, "-m", "venv", "--clear", str(home)], LOG):
        raise SetupError(
            "Python could not make an environment (on Debian or Ubuntu: apt install python3-venv)\n"
            f"{tail(LOG)}\nthe whole log: {LOG}"
        )


def _is_usable(python: Path) -> bool:
    check = "import sys, pip; raise SystemExit(sys.version_info < (3, 10))"
    try:
        return subprocess.run([str(python), "-c", check], capture_output=True, timeout=60).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def _pip(python: Path, name: str, packages: Sequence[str]) -> None:
    if not run_logged(name, _pip_command(python, packages), LOG):
        raise SetupError(f"pip could not install {name}:\n{tail(LOG)}\nthe whole log: {LOG}")


def _pip_command(python: Path, arguments: Iterable[str]) -> list[str]:
    options = ("--disable-pip-version-check", "--no-input", "--progress-bar", "off")
    return [str(python), "-m", "pip", "install", *options, *arguments]


def _digest(home: Path, part: Part) -> str:
    """Changes with what is asked for and with the environment's own Python."""
    configuration = home / "pyvenv.cfg"
    lines = configuration.read_text(encoding="utf-8").splitlines() if configuration.is_file() else []
    version = [line for line in lines if line.startswith("version")]
    return hashlib.sha256("\n".join([*version, part[1]]).encode()).hexdigest()


def _read_stamp(home: Path) -> dict[str, str]:
    try:
        stamp = json.loads((home / STAMP).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return stamp if isinstance(stamp, dict) and python_in(home).exists() else {}


def _write_stamp(home: Path, installed: dict[str, str]) -> None:
    part = home / (STAMP + ".part")
    part.write_text(json.dumps(installed, indent=1), encoding="utf-8")
    os.replace(part, home / STAMP)
