"""Runs the linters and the three test suites, each in its own process, and summarises the results."""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
import time
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from . import ROOT
from .terminal import say

SUITES = ("lint", "unit", "host", "browser")
PARALLEL = {"unit": ("worksteal", 8), "host": ("loadfile", 8), "browser": ("worksteal", 3)}
"""How pytest-xdist shares a suite's tests out, a host file keeping its server, and to how many processes at most.

Each holds torch, 0.5 to 1 GB; in the browser suite a ComfyUI and a Chromium besides.
"""
NO_TESTS = 5  # pytest's exit code


@dataclass
class Outcome:
    """The results of one suite."""

    name: str
    passed: int = 0
    failed: int = 0
    skipped: Counter[str] = field(default_factory=Counter)
    """How many tests were skipped, by reason."""
    seconds: float = 0.0


def lint(python: str) -> Outcome:
    """ruff's two checks and pyright, over the whole checkout."""
    outcome = Outcome("lint")
    started = time.monotonic()
    checks = {
        "ruff check": ["ruff", "check", "."],
        "ruff format": ["ruff", "format", "--check", "."],
        "pyright": ["pyright", "--pythonpath", python],
    }
    for name, arguments in checks.items():
        done = subprocess.run(
            [python, "-m", *arguments],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
        )
        if done.returncode == 0:
            outcome.passed += 1
            say(f"{name}: ok")
        elif name == "pyright" and not re.search(r"^\d+ errors?,", done.stdout, re.MULTILINE):
            # pyright fetches its own Node; without a network it never gets to look at the code.
            reason = done.stdout.strip().rpartition("\n")[2][:200]
            outcome.skipped[f"pyright cannot run here: {reason}"] += 1
            say(f"{name}: cannot run here")
        else:
            outcome.failed += 1
            say(f"{name}: failed\n{done.stdout.rstrip()}")
    outcome.seconds = time.monotonic() - started
    return outcome


def run(name: str, python: str, arguments: Sequence[str]) -> Outcome:
    """One suite under pytest, its progress passed through."""
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        command = [python, "-m", "pytest", f"tests/{name}", "-q", f"--junitxml={report}"]
        env = {**os.environ, "HF_HUB_OFFLINE": "1"}  # a test that would fetch a model fails instead
        share, most = PARALLEL[name]
        command += ["-n", str(min(cores(), most)), "--dist", share]
        env["OMP_NUM_THREADS"] = "1"  # the processes would take each other's cores
        code = subprocess.run([*command, *arguments], cwd=ROOT, stdin=subprocess.DEVNULL, env=env).returncode
        outcome = read_report(name, report, code, narrowed=bool(arguments))
    outcome.seconds = time.monotonic() - started
    return outcome


def cores() -> int:
    """How many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def read_report(name: str, report: Path, code: int, narrowed: bool) -> Outcome:
    """Count what pytest wrote; a suite that died, or collected nothing unasked, counts as one failure."""
    outcome = Outcome(name)
    for case in ET.parse(report).getroot().iter("testcase") if report.is_file() else ():
        skipped = case.find("skipped")
        if case.find("failure") is not None or case.find("error") is not None:
            outcome.failed += 1
        elif skipped is not None:
            outcome.skipped[skipped.get("message") or "no reason given"] += 1
        else:
            outcome.passed += 1
    healthy = report.is_file() and (code == 0 or (code == NO_TESTS and narrowed))
    if not healthy and not outcome.failed:
        say(f"{name}: pytest ended with code {code} and named no failed test; counted as one failure")
        outcome.failed += 1
    return outcome


def summary(outcomes: Sequence[Outcome]) -> str:
    """The table, why anything was skipped, and the totals alone on the last line."""
    rows = [f"{'suite':<10}{'passed':>8}{'failed':>8}{'skipped':>9}{'seconds':>9}"]
    reasons = []
    for one in outcomes:
        rows.append(
            f"{one.name:<10}{one.passed:>8}{one.failed:>8}{one.skipped.total():>9}{one.seconds:>9.1f}"
        )
        reasons += [f"{one.name}: {count} skipped: {reason}" for reason, count in one.skipped.most_common()]
    passed, failed = sum(one.passed for one in outcomes), sum(one.failed for one in outcomes)
    total = f"{passed} passed, {failed} failed, {sum(one.skipped.total() for one in outcomes)} skipped"
    return "\n".join([*rows, "", *reasons, total])
