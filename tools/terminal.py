"""Output to the terminal, and commands whose own output goes to a log file."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

STEPS = (
    "Collecting",
    "Processing",
    "Downloading",
    "Building",
    "Installing",
)  # how the lines begin that show pip's progress
HEARTBEAT = 15.0  # seconds between two lines of progress where no terminal can rewrite one


def say(text: str = "") -> None:
    """Write a line at once; a character that the terminal lacks (cp1252 on Windows) becomes '?'."""
    encoding = sys.stdout.encoding or "utf-8"
    sys.stdout.write(text.encode(encoding, "replace").decode(encoding) + "\n")
    sys.stdout.flush()


def run_logged(label: str, command: Sequence[str], log: Path) -> bool:
    """Run a command, its output appended to ``log``, its progress here; True when it returned 0."""
    started = time.monotonic()
    say(f"{label} …")
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a", encoding="utf-8") as record:
        record.write(f"\n$ {' '.join(command)}\n")
        with subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
        ) as process:
            _follow(process.stdout or (), record.write)
    verdict = "done" if process.returncode == 0 else "failed"
    say(f"{label}: {verdict} after {time.monotonic() - started:.0f} s")
    return process.returncode == 0


def _follow(lines: Iterable[str], record: Callable[[str], object]) -> None:
    """Record every line; show the newest step, rewritten in place on a terminal, now and then elsewhere."""
    live = sys.stdout.isatty()
    width = shutil.get_terminal_size().columns - 1
    shown = time.monotonic()
    for line in lines:
        record(line)
        if not line.lstrip().startswith(STEPS):
            continue
        if live:
            sys.stdout.write("\r" + f"  {line.strip()}"[:width].ljust(width))
            sys.stdout.flush()
        elif time.monotonic() - shown > HEARTBEAT:
            say(f"  {line.strip()[:100]}")
            shown = time.monotonic()
    if live:
        sys.stdout.write("\r" + " " * width + "\r")


def tail(log: Path, count: int = 15) -> str:
    """The last lines of a log, indented."""
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines() if log.is_file() else []
    return "\n".join(f"    {line}" for line in lines[-count:])
