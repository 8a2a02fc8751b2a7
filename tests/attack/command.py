"""``python dev.py attack``: every section in a process and a temporary folder of its own, then the scoreboard."""

from __future__ import annotations

import argparse
import importlib
import math
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from tools import ROOT
from tools.comfyui import find
from tools.terminal import say

from . import isolated
from .budget import Budget
from .report import Counts, Finding, clipped, grouped, read, write
from .scoreboard import failed, rows, written
from .sections import SECTIONS, WHOLE, Section

SHORT = 15.0  # minutes below which what depends on the machine's speed is reported and fails nothing
SETUP = 240.0  # seconds that a section may take beside its share: imports, models, a server's start and end
LEAST = 8.0
SPENT = "seconds of {}"


def main(argv: Sequence[str]) -> int:
    options = _parser().parse_args(argv)
    if options.section:
        return _section(options)
    chosen = [one for one in SECTIONS if not options.only or one.name in options.only]
    chosen = [one for one in chosen if one.alike or not options.alike]
    timing = options.strict_timing or options.minutes >= SHORT
    host = find()
    say(f"attack with seed {options.seed} for {options.minutes:g} minutes")
    findings: list[Finding] = []
    counts = Counts()
    possible = []
    for section in chosen:
        reason = _impossible(section, host.path, host.note)
        if reason:
            say(f"== {section.name}: SKIPPED, {reason}")
            counts.skipped.append(f"{section.name}: {reason}")
        else:
            possible.append(section)
    left = 60 * options.minutes
    for i, section in enumerate(possible):
        seconds, most = shared_out(left, section, possible[i + 1 :])
        found, ran = _process(section, options, seconds, most)
        findings += found
        counts.add(ran)
        left -= sum(ran.measured.get(SPENT.format(section.name), [seconds]))
    if numbers := tried(counts, possible, options.minutes):
        say(f"\ntried: {numbers}")
    return _reported(findings, counts, timing, options.report)


def shared_out(left: float, section: Section, later: Sequence[Section]) -> tuple[float, float]:
    """A section's seconds of those that are left, and the most that it may take to reach its goals.

    Half of what the later ones would have stays theirs.
    """
    seconds = max(LEAST, left * section.share / (section.share + sum(one.share for one in later)))
    return seconds, max(seconds, (left + seconds) / 2 if later else left)


def tried(counts: Counts, ran: Sequence[Section], minutes: float) -> str:
    """How many of what the sections had to try, in words."""
    return ", ".join(
        f"{counts.ran[name]:,} of {math.ceil(wanted * minutes / WHOLE):,} {name}"
        for section in ran
        for name, wanted in section.goals.items()
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="dev.py attack", description=__doc__)
    parser.add_argument(
        "--minutes", type=float, default=5.0, help="of attacking; loading comes on top (default: 5)"
    )
    parser.add_argument(
        "--seed", type=int, default=1, help="the same seed makes the same cases in the same order"
    )
    parser.add_argument(
        "--only",
        action="append",
        choices=[one.name for one in SECTIONS],
        help="run this section; may be repeated",
    )
    parser.add_argument(
        "--alike",
        action="store_true",
        help="only sections that find the same on every machine, however fast and idle",
    )
    parser.add_argument(
        "--strict-timing",
        action="store_true",
        help=f"goals of time fail the run also below {SHORT:g} minutes",
    )
    parser.add_argument("--report", type=Path, help="write all findings and counts to this JSON file")
    parser.add_argument("--section", choices=[one.name for one in SECTIONS], help=argparse.SUPPRESS)
    parser.add_argument("--seconds", type=float, default=10.0, help=argparse.SUPPRESS)
    parser.add_argument("--most", type=float, default=10.0, help=argparse.SUPPRESS)
    parser.add_argument("--result", type=Path, help=argparse.SUPPRESS)
    return parser


def _impossible(section: Section, comfyui: Path | None, note: str) -> str:
    """Why a section cannot run here, or ''."""
    if section.host and comfyui is None:
        return f"it needs ComfyUI: {note}"
    return "" if isolated.POSSIBLE else isolated.WHY_NOT


def _process(
    section: Section, options: argparse.Namespace, seconds: float, most: float
) -> tuple[list[Finding], Counts]:
    """Run a section in a process group that is ended when it does not end by itself; its temporary folder goes with it."""
    say(f"== {section.name} ({seconds:.0f} s, at most {most:.0f}): {section.what}")
    folder = Path(tempfile.mkdtemp(prefix="llmga-attack-"))
    result, log = folder / "result.json", folder / "log.txt"
    command = [sys.executable, "-m", "attack", "--section", section.name, "--seed", str(options.seed)]
    command += ["--minutes", str(options.minutes), "--seconds", str(seconds), "--most", str(most)]
    command += ["--result", str(result)]
    limit = 2 * most + SETUP
    (folder / "tmp").mkdir()
    started = time.monotonic()
    try:
        with log.open("wb") as output:
            process = subprocess.Popen(
                command, cwd=ROOT, env=environment(folder / "tmp"), stdin=subprocess.DEVNULL, stdout=output,
                stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip
            code = _awaited(process, limit)
        if result.is_file():
            findings, counts = read(result)
        else:
            end = clipped(" ".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-6:]))
            said = f"still running after {limit:.0f} s" if code is None else f"ended with code {code}"
            findings, counts = (
                [
                    Finding(
                        "harness",
                        section.name,
                        f"--only {section.name} --seed {options.seed}",
                        f"{said}: {end}",
                    )
                ],
                Counts(),
            )
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    for group in grouped(findings)[:3]:
        say(f"   {group.count} × {group.first.kind}: {group.first.where}")
    say(f"   {len(findings)} findings after {time.monotonic() - started:.0f} s")
    return findings, counts


def environment(temporary: Path) -> dict[str, str]:
    """Ours, with the checkout and its tests on the path, nothing fetched from anywhere, and a temporary folder."""
    path = os.pathsep.join(map(str, (ROOT, ROOT / "tests")))
    quiet = {
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "OMP_NUM_THREADS": "1",
        "PYTHONUTF8": "1",
    }
    return {
        **os.environ,
        **quiet,
        "PYTHONPATH": path,
        "TMPDIR": str(temporary),
        "PYTHONDONTWRITEBYTECODE": "1",
    }


def _awaited(process: subprocess.Popen[bytes], seconds: float) -> int | None:
    """The exit code, or None after the time; then nothing of the process's group is left."""
    try:
        code = process.wait(seconds)
    except subprocess.TimeoutExpired:
        code = None
    except BaseException:
        _end(process)
        raise
    _end(process)
    return code


def _end(process: subprocess.Popen[bytes]) -> None:
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        pass
    process.wait()


def _section(options: argparse.Namespace) -> int:
    """The child: one section, its result into a file."""
    module = importlib.import_module(f"{__package__}.sections.{options.section}")
    section = next(one for one in SECTIONS if one.name == options.section)
    goals = {name: wanted * options.minutes / WHOLE for name, wanted in section.goals.items()}
    budget = Budget(options.seconds, options.most, goals)
    findings, counts = module.run(budget, random.Random(f"{options.seed} {options.section}"))
    counts.measure(SPENT.format(options.section), budget.spent)
    write(options.result, findings, counts)
    return 0


def _reported(findings: list[Finding], counts: Counts, timing: bool, report: Path | None) -> int:
    if report is not None:
        write(report, findings, counts)
    say(f"\n{len(findings)} findings of {len(grouped(findings))} causes, worst first")
    for group in grouped(findings):
        one = group.first
        say(f"- {one.kind} ({group.count} ×), {one.where}\n    {clipped(one.case)}\n    {one.said}")
    for one in counts.skipped:
        say(f"skipped: {one}")
    table = rows(findings, counts)
    missed = failed(table, timing=timing)
    broken = [one for one in findings if one.kind == "harness"]
    say("\n" + written(table, timing=timing))
    say(
        f"{len(missed)} of {sum(row.n > 0 for row in table)} goals missed"
        + (", a section did not end" if broken else "")
    )
    return 1 if missed or broken else 0
