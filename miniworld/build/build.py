"""Building the miniature from nothing: stages in dependency order, entered into a manifest.

A stage reads files of ``out``, writes files of ``out``, and enters both into ``manifest.json``; one that stands there
with the same configuration and the same files is not made again. What is only needed on the way is in ``work``, from
where a killed stage goes on.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shlex
import shutil
import time
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

from llmga.evaluate import plain
from llmga.files.writing import write_text
from llmga.train.log import read_log

from ..files import MANIFEST
from .recipe import BuildContext, Recipe
from .stages import STAGES


def build(
    recipe: Recipe,
    out: Path,
    stages: Sequence[str],
    again: bool,
    command: Sequence[str],
    work: Path | None = None,
    jobs: int = 1,
) -> None:
    """Make the results of stages, in their order, that are not there yet.

    Args:
        again: make them even if they are there.
        command: what was typed, for the manifest.
        work: default ``out/work``.
        jobs: how many stages may be made at the same time, each in a process with its part of the cores; none begins
            before those that it needs are made.

    Raises:
        ValueError: a stage is unknown.
        FileNotFoundError: a stage needs the result of one that was not made.
    """
    if unknown := set(stages) - STAGES.keys():
        raise ValueError(f"only must name stages of {', '.join(STAGES)}; got {', '.join(sorted(unknown))}")
    context = BuildContext(recipe, out, work or out / "work")
    out.mkdir(parents=True, exist_ok=True)
    waiting = [name for name in STAGES if name in stages]
    make = partial(_make, context, again=again, command=command)
    if jobs == 1:
        for name in waiting:
            _enter(out, name, make(name))
        return
    threads = max(1, (os.cpu_count() or 1) // jobs)
    with ProcessPoolExecutor(jobs, get_context("spawn"), torch.set_num_threads, (threads,)) as pool:
        making: dict[Future[dict[str, Any] | None], str] = {}
        while waiting or making:
            for name in [name for name in waiting if not _needed(name) & {*waiting, *making.values()}]:
                waiting.remove(name)
                making[pool.submit(make, name)] = name
            for made in wait(making, return_when=FIRST_COMPLETED).done:
                _enter(out, making.pop(made), made.result())


def _needed(name: str) -> set[str]:
    """The stages that make what a stage needs."""
    return {other for other, stage in STAGES.items() if {*stage.gives} & {*STAGES[name].needs}}


def _make(context: BuildContext, name: str, *, again: bool, command: Sequence[str]) -> dict[str, Any] | None:
    """Make what a stage gives; returns its entry in the manifest, None if it stands there."""
    torch.backends.cudnn.benchmark = True  # every batch has the same shape
    stage, out = STAGES[name], context.out
    inputs = {file: _sha256(_present(out, file)) for file in stage.needs}
    key = plain({"config": _config_of(name, context.recipe), "inputs": inputs})
    fingerprint = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()
    if not again and _is_made(out, name, fingerprint):
        return None
    begun = time.perf_counter()
    folder = context.work / f"{name}-{fingerprint[:12]}"
    if again:
        shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    figures = stage.make(context, folder)
    return {
        **key,
        "fingerprint": fingerprint,
        "command": "python -m miniworld " + shlex.join(command),
        "minutes": round(max(time.perf_counter() - begun, _trained(folder)) / 60, 2),
        "machine": _machine(),
        "figures": plain(figures),
        "files": {file: _sha256(out / file) for file in stage.gives},
    }


def _trained(folder: Path) -> float:
    """The seconds of training that all runs in a folder logged: a run that goes on began earlier."""
    return sum(row["seconds"] for log in folder.glob("**/log.jsonl") for row in read_log(log))


def _config_of(name: str, recipe: Recipe) -> dict[str, Any]:
    if name == "pack":
        return {}
    config = {name: getattr(recipe, name)}
    return (
        config
        if name == "check"
        else {**config, "scenes": recipe.scenes, "minutes": getattr(recipe.minutes, name, 0.0)}
    )


def _is_made(out: Path, name: str, fingerprint: str) -> bool:
    entry = _manifest(out).get(name)
    if entry is None or entry["fingerprint"] != fingerprint:
        return False
    return all((out / file).is_file() and _sha256(out / file) == sha for file, sha in entry["files"].items())


def _manifest(out: Path) -> dict[str, Any]:
    path = out / MANIFEST
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def _enter(out: Path, name: str, entry: dict[str, Any] | None) -> None:
    if entry is None:
        return
    manifest = {**_manifest(out), name: entry}
    ordered = {stage: manifest[stage] for stage in STAGES if stage in manifest}
    write_text(out / MANIFEST, json.dumps(ordered, indent=1) + "\n")


def _present(out: Path, file: str) -> Path:
    if not (out / file).is_file():
        maker = next(name for name, stage in STAGES.items() if file in stage.gives)
        raise FileNotFoundError(f"{out / file} does not exist; the stage {maker} makes it")
    return out / file


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _machine() -> str:
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"{platform.machine()} CPU"
    return f"{device}, {os.cpu_count()} cores, torch {torch.__version__}"
