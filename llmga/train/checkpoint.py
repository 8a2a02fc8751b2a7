"""Atomic checkpoint folders: whole or absent, whenever the process dies."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

from ..files import writing
from ..files.writing import sync

STATE = "state.json"
_NAME = re.compile(r"step-(\d{8,18})")
_UNPUBLISHED = re.compile(r"\.(?:step-\d{8,18}|result)\.partial")


def folder_of(root: Path, step: int) -> Path:
    """Where the checkpoint after ``step`` optimizer steps lies."""
    return root / f"step-{step:08d}"


def begin(folder: Path) -> Path:
    """An empty folder to fill and then ``publish`` as ``folder``; what a dead run left there is removed."""
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    return partial


def sweep_run(output: Path) -> list[Path]:
    """Remove what killed runs left unfinished in the folder of a run, and return the paths: folders that were never
    published, of whatever step, and parts of files."""
    left = [
        path
        for root in (output, output / "checkpoints")
        for path in root.glob(".*.partial")
        if path.is_dir() and _UNPUBLISHED.fullmatch(path.name)
    ]
    for path in left:
        shutil.rmtree(path, ignore_errors=True)
    return left + writing.sweep(output, alone=True)


def publish(partial: Path, folder: Path, state: dict[str, Any] | None = None) -> None:
    """Bring a filled folder to the disk, then give it its name in one move, replacing what had it.

    ``state``, which must be JSON, is written with the size of every file, by which a damaged copy is known.
    """
    inside = [path for path in partial.rglob("*") if path.is_file()]
    if state is not None:
        sizes = {path.relative_to(partial).as_posix(): path.stat().st_size for path in inside}
        path = partial / STATE
        path.write_text(json.dumps({**state, "files": sizes}), encoding="utf-8")
        inside.append(path)
    for path in (*inside, *{path.parent for path in inside}):
        sync(path)
    if folder.exists():
        shutil.rmtree(folder)
    partial.rename(folder)
    sync(folder.parent)


def read_state(folder: Path) -> dict[str, Any] | None:
    """The state of a checkpoint, or None where it is not whole."""
    try:
        state = json.loads((folder / STATE).read_text(encoding="utf-8"))
        whole = all((folder / name).stat().st_size == size for name, size in state["files"].items())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return state if whole else None


def check_same_run(folder: Path, state: dict[str, Any], identity: dict[str, Any], wanted_steps: int) -> None:
    """Check that a run may go on from the checkpoint ``folder`` with that ``state``.

    Raises:
        ValueError: it was trained with another ``identity``, or for more steps than are wanted.
    """
    if state["identity"] != identity:
        raise ValueError(
            f"{folder} was trained with {state['identity']}, now asked is {identity}; "
            "give the old values or another output folder"
        )
    if state["step"] > wanted_steps:
        raise ValueError(
            f"{folder} was trained for {state['step']} steps, now asked are {wanted_steps}; raise steps, or delete the "
            "checkpoints behind the one to go on from, or give another output folder"
        )


def check_holds(folder: Path, *, ema: float, scaled: bool) -> None:
    """Check that the checkpoint ``folder`` holds what a run with these settings goes on from.

    Args:
        ema: decay of the average of the weights; 0 needs none.
        scaled: the loss is scaled, as it is for fp16.

    Raises:
        ValueError: it was saved by a run without an average, or without a scale.
    """
    if ema and not (folder / "ema.safetensors").is_file():
        raise ValueError(
            f"{folder} holds no average of the weights, since it was trained with ema 0; now asked is ema {ema:g}: set ema "
            "to 0, or give another output folder"
        )
    if scaled and not (folder / "scaler.pt").is_file():
        raise ValueError(
            f"{folder} holds no scale of the loss, since it was trained without fp16; now asked is mixed_precision fp16: "
            "set mixed_precision to what it was, to no or to bf16, or give another output folder"
        )


def steps(root: Path) -> list[int]:
    """The steps of the checkpoints under ``root`` by name, ascending, whole or not."""
    if not root.is_dir():
        return []
    return sorted(int(found[1]) for path in root.iterdir() if (found := _NAME.fullmatch(path.name)))


def latest(root: Path) -> Path | None:
    """The whole checkpoint of the highest step."""
    return next(
        (f for step in reversed(steps(root)) if read_state(f := folder_of(root, step)) is not None), None
    )


def damaged(root: Path) -> list[Path]:
    """The checkpoints that are not whole and behind the newest whole one: those that ``latest`` passes over."""
    whole = latest(root)
    return [
        f
        for step in steps(root)
        if (f := folder_of(root, step)) != whole and (whole is None or f.name > whole.name)
    ]


def prune(root: Path, keep: int) -> None:
    """Delete what is older than the ``keep`` newest whole checkpoints; damaged ones of later steps push none out."""
    whole = [step for step in steps(root) if read_state(folder_of(root, step)) is not None]
    for step in steps(root):
        if whole and step < whole[-keep:][0]:
            shutil.rmtree(folder_of(root, step), ignore_errors=True)
