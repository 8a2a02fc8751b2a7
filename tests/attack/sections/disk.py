"""Disks that fail at any step, and processes killed while they save: what is there is whole, what is left is swept."""

from __future__ import annotations

import errno
import os
import random
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

from support import comfy_inprocess as comfy

from tools import ROOT

from ..budget import Budget
from ..isolated import Ended, each
from ..outcome import classify, place_of
from ..report import Counts, Finding, clipped

LIMIT = 20.0
PART = ".part"
FAULTS = ("file size limit", "full tmpfs", "mkstemp", "fsync", "replace", "fdopen", "mkdir")
CODES = (errno.ENOSPC, errno.EIO, errno.EROFS, errno.EACCES, errno.EDQUOT)


@dataclass(frozen=True)
class Case:
    writer: str
    fault: str
    code: int
    size: int

    def __str__(self) -> str:
        return (
            f"{self.writer} with {self.fault} failing by {errno.errorcode[self.code]}, {self.size} characters"
        )


@dataclass(frozen=True)
class Result:
    outcome: str
    where: str = ""
    said: str = ""
    left: int = 0
    whole: bool = True


def run(budget: Budget, rng: random.Random) -> tuple[list[Finding], Counts]:
    comfy.start()
    writers = _writers()
    findings, counts = [], Counts()
    cases = [Case(w, f, c, n) for w in writers for f in FAULTS for c in CODES for n in (100, 100_000)]
    rng.shuffle(cases)
    cases += [
        Case(rng.choice(list(writers)), rng.choice(FAULTS), rng.choice(CODES), rng.randrange(150_000))
        for _ in range(5000)
    ]
    budget.restart(counts.ran)
    for case, result in each(
        cases, lambda one: attempt(writers[one.writer], one), budget.part(0.5, "disk faults"), limit=LIMIT
    ):
        counts.ran["disk faults"] += 1
        findings += _judged(case, result, counts)
    findings += _kills(budget, rng, counts)
    return findings, counts


def _writers() -> dict[str, Callable[[str, Path], None]]:
    """What writes: each takes a text and the folder that it writes below."""
    history, panel, host = (comfy.pack(f"nodes.{name}") for name in ("history", "panel", "host"))
    chat = comfy.pack("llmga.chat")

    def save(text: str, folder: Path) -> None:
        with mock.patch.object(host, "private_directory", lambda: folder):
            history.SaveHistory.execute(chat.Conversation().say("user", text), "a chat")

    def show(text: str, folder: Path) -> None:
        from PIL import Image

        noise = random.Random(len(text)).randbytes(3 * 200 * 200)
        picture = chat.Picture.from_pil(Image.frombytes("RGB", (200, 200), noise))
        with mock.patch.object(host, "shown_picture", lambda sha256: folder / "llmga" / f"{sha256}.png"):
            panel.record(_reply(chat, text, picture), (), "chat", text)

    return {"Save History": save, "the panel's pictures": show}


def _reply(chat: Any, text: str, picture: Any) -> Any:
    conversation = chat.Conversation().say("user", text, (picture,)).say("assistant", "a reply")
    return chat.Reply("a reply", (), conversation)


def attempt(write: Callable[[str, Path], None], case: Case) -> Result:
    """A first save that works, and a second whose disk fails."""
    folder = Path(tempfile.mkdtemp(prefix="attack-disk-"))
    try:
        with _place(folder, case) as place:
            if case.writer == "Save History":
                write("before", place)
            before = _read(place)
            outcome, where, said = "ok", "", ""
            try:
                with _failing(case):
                    write("x" * case.size, place)
            except BaseException as error:
                kind = classify(type(error).__name__, str(error), ("name", "history", "disk", "a chat"))
                outcome = kind if isinstance(error, Exception) else "bare"
                where, said = (
                    place_of(error, (ROOT / "nodes", ROOT / "llmga")),
                    f"{type(error).__name__}: {error}",
                )
            after = _read(place)
            whole = outcome == "ok" or case.writer != "Save History" or before == after
            return Result(outcome, where, said, sum(PART in path.name for path in place.rglob("*")), whole)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _read(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.rglob("*.json")}


@contextmanager
def _place(folder: Path, case: Case) -> Iterator[Path]:
    """The folder, or a file system of 60 kB mounted on it where that is allowed."""
    mounted = case.fault == "full tmpfs" and hasattr(os, "geteuid") and os.geteuid() == 0
    if mounted:
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=60k", "attack", str(folder)], capture_output=True
        )
        mounted = done.returncode == 0
    try:
        yield folder
    finally:
        if mounted:
            subprocess.run(["umount", str(folder)], capture_output=True)


@contextmanager
def _failing(case: Case) -> Iterator[None]:
    if case.fault == "file size limit":
        import resource

        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (case.size // 2, before[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        return
    targets = {
        "mkstemp": "tempfile.mkstemp", "fsync": "os.fsync", "replace": "os.replace", "fdopen": "os.fdopen",
        "mkdir": "pathlib.Path.mkdir",
    }  # fmt: skip
    if case.fault not in targets:
        yield
        return
    error = OSError(case.code, os.strerror(case.code))
    with mock.patch(targets[case.fault], side_effect=error):
        yield


def _judged(case: Case, result: Result | Ended, counts: Counts) -> list[Finding]:
    if isinstance(result, Ended):
        return [Finding(result.kind, f"{case.writer}: {case.fault}", str(case), result.said)]
    found = []
    if not result.whole:
        found.append(Finding("damaged file", f"{case.writer}: {case.fault}", str(case)))
    if result.left:
        counts.ran["files left by a failing disk"] += result.left
        found.append(
            Finding(
                "left file", f"{case.writer}: {case.fault}", str(case), f"{result.left} temporary files stay"
            )
        )
    if result.outcome == "bare":
        lost = case.writer != "Save History"
        found.append(
            Finding(
                "lost reply" if lost else "bare",
                f"{case.writer}: {case.fault}",
                str(case),
                clipped(result.said),
            )
        )
    return found


def _kills(budget: Budget, rng: random.Random, counts: Counts) -> list[Finding]:
    """Save and save again until killed; then the file must be whole, and the next start must have swept the rest."""
    findings, folder = [], Path(tempfile.mkdtemp(prefix="attack-kill-"))
    save = _writers()["Save History"]
    read = comfy.pack("llmga.chat").Conversation.from_json
    try:
        while budget and counts.ran["kills"] < 1000:
            size, after = rng.randrange(1000, 190_000), rng.uniform(0.0, 0.03)
            pid = os.fork()
            if pid == 0:
                _save_for_ever(save, size, folder)
            time.sleep(after + 0.01)
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            counts.ran["kills"] += 1
            for path in folder.rglob("*.json"):
                try:
                    read(path.read_text(encoding="utf-8"))
                except ValueError as error:
                    counts.ran["partial files"] += 1
                    findings.append(
                        Finding(
                            "damaged file", "Save History killed", f"killed after {after:.3f} s", str(error)
                        )
                    )
        left = sum(PART in path.name for path in folder.rglob("*"))
        counts.ran["temporary files left by kills"] += left
        swept = _after_next_start(folder)
        counts.ran["temporary files after the next start"] += swept
        if swept:
            said = f"{swept} of {left} temporary files of {counts.ran['kills']} killed saves stay after the next start"
            findings.append(
                Finding("left file", "Save History killed", "kill -9 while a history is saved", said)
            )
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return findings


def _save_for_ever(save: Callable[[str, Path], None], size: int, folder: Path) -> None:
    """In the child, which takes the pack for one that it has loaded itself: each server marks its temporary files."""
    try:
        with mock.patch.object(comfy.pack("llmga.files.writing"), "_OWN", os.urandom(3).hex()):
            for i in range(100_000):
                save(chr(97 + i % 26) * size, folder)
    finally:
        os._exit(0)


def _after_next_start(folder: Path) -> int:
    """How many temporary files are left once the pack has been loaded again over that folder, two hours later."""
    for path in folder.rglob("*"):
        if path.is_file():
            earlier = time.time() - 7200
            os.utime(path, (earlier, earlier))
    with mock.patch.object(comfy.pack("nodes.host"), "private_directory", lambda: folder):
        comfy.pack("nodes").extension()
    return sum(PART in path.name for path in folder.rglob("*"))
