"""Finds a ComfyUI checkout or clones one, or says why there is none."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from . import ROOT

RELEASE = "v0.26.0"
URL = "https://github.com/comfyanonymous/ComfyUI"
ANSWER_SECONDS = 15  # for the repository to answer at all: offline is found out quickly
CLONE_SECONDS = 300


@dataclass(frozen=True)
class Host:
    """A ComfyUI checkout, or None and the reason."""

    path: Path | None
    note: str
    """Where it was found, or why there is none."""

    def environment(self) -> dict[str, str]:
        """The variables that let a child process find the same answer through ``find``."""
        if self.path is None:
            return {"COMFYUI_PATH": "none", "COMFYUI_MISSING": self.note}
        return {"COMFYUI_PATH": str(self.path)}


def find(fetch: bool = False) -> Host:
    """Look in ``COMFYUI_PATH``, around this checkout, where comfy-cli installs and in ``.dev`` here.

    ``COMFYUI_PATH=none`` says that there is none. With ``fetch`` the pinned release is cloned if need be.

    Raises:
        FileNotFoundError: ``COMFYUI_PATH`` names a folder that holds no ComfyUI.
    """
    named = os.environ.get("COMFYUI_PATH", "").strip()
    if named.lower() == "none":
        return Host(None, os.environ.get("COMFYUI_MISSING") or "COMFYUI_PATH=none says so")
    if named:
        path = Path(named).expanduser().absolute()
        if not _is_comfyui(path):
            raise FileNotFoundError(
                f"COMFYUI_PATH is {named!r}, which holds no ComfyUI (main.py and folder_paths.py); name the "
                "ComfyUI folder, or 'none', or unset it"
            )
        return Host(path, "COMFYUI_PATH")
    for note, path in _candidates():
        if _is_comfyui(path):
            return Host(path, note)
    return (
        _clone(ROOT / ".dev" / "ComfyUI") if fetch else Host(None, "no ComfyUI was found (set COMFYUI_PATH)")
    )


def _candidates() -> list[tuple[str, Path]]:
    places = [
        ("comfy-cli's workspace", Path.home() / "comfy" / "ComfyUI"),
        ("comfy-cli's workspace", Path.home() / "Documents" / "comfy" / "ComfyUI"),
        ("this checkout's own clone", ROOT / ".dev" / "ComfyUI"),
    ]
    if ROOT.parent.name == "custom_nodes":
        places.insert(0, ("the custom_nodes folder around this checkout", ROOT.parents[1]))
    return places


def _is_comfyui(path: Path) -> bool:
    return (path / "main.py").is_file() and (path / "folder_paths.py").is_file()


def _clone(into: Path) -> Host:
    if shutil.which("git") is None:
        return Host(None, f"no ComfyUI was found and git, which would clone {RELEASE}, is not installed")
    problem = _git(ANSWER_SECONDS, "ls-remote", "--exit-code", URL, f"refs/tags/{RELEASE}")
    if not problem:
        part = into.with_name(into.name + ".part")
        shutil.rmtree(part, ignore_errors=True)
        problem = _git(CLONE_SECONDS, "clone", "--quiet", "--depth", "1", "--branch", RELEASE, URL, str(part))
    if problem:
        return Host(None, f"no ComfyUI was found and {URL} {RELEASE} could not be cloned: {problem}")
    part.rename(into)
    return Host(into, f"cloned {RELEASE}")


def _git(seconds: int, *arguments: str) -> str:
    """Run git without a prompt; the reason of a failure, or ''."""
    quiet = {"GIT_TERMINAL_PROMPT": "0", "GIT_HTTP_LOW_SPEED_LIMIT": "1000", "GIT_HTTP_LOW_SPEED_TIME": "20"}
    try:
        done = subprocess.run(
            ["git", "-c", "advice.detachedHead=false", "-c", "core.askPass=", *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=seconds,
            env={**os.environ, **quiet},
        )
    except subprocess.TimeoutExpired:
        return f"git gave no answer within {seconds} s"
    if done.returncode == 0:
        return ""
    return done.stderr.strip().rpartition("\n")[2] or f"git returned {done.returncode}"
