"""Finds a Chromium for the browser tests, or says why there is none."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from .terminal import say

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
INSTALL_SECONDS = 240
WHERE = """
from playwright.sync_api import sync_playwright
with sync_playwright() as playwright:
    print(playwright.chromium.executable_path)
"""


@dataclass(frozen=True)
class Chromium:
    """An executable, or None and the reason."""

    path: str | None
    reason: str = ""

    def environment(self) -> dict[str, str]:
        """The variables that let a child process find the same answer through ``find``."""
        return {"CHROMIUM_PATH": self.path} if self.path else {"CHROMIUM_MISSING": self.reason}


def find(python: str, install: bool = False) -> Chromium:
    """``CHROMIUM_PATH``, one on the PATH, or the one that playwright keeps, which ``install`` lets it fetch.

    Args:
        python: the interpreter that has playwright.
    """
    if os.environ.get("CHROMIUM_MISSING"):
        return Chromium(None, os.environ["CHROMIUM_MISSING"])
    on_path = next(filter(None, map(shutil.which, NAMES)), None)
    found = os.environ.get("CHROMIUM_PATH") or on_path or _playwright_path(python)
    if found:
        return Chromium(found)
    if not install:
        return Chromium(None, "no Chromium is on the PATH and playwright has none")
    say("chromium: none on the PATH; playwright installs its own …")
    reason = _install(python)
    found = _playwright_path(python)
    return Chromium(found, f"no Chromium is on the PATH and playwright could not install one: {reason}")


def _install(python: str) -> str:
    """Let playwright fetch its Chromium; the reason when it could not."""
    try:
        done = subprocess.run(
            [python, "-m", "playwright", "install", "chromium"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=INSTALL_SECONDS,
        )
    except subprocess.TimeoutExpired:
        return f"not finished within {INSTALL_SECONDS} s"
    return next((line.strip() for line in done.stderr.splitlines() if line.strip()), "no reason given")


def _playwright_path(python: str) -> str | None:
    try:
        asked = subprocess.run([python, "-c", WHERE], capture_output=True, text=True, timeout=60)
    except subprocess.TimeoutExpired:
        return None
    path = asked.stdout.strip()
    return path if path and Path(path).is_file() else None
