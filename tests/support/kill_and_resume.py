"""Kill a training process at random moments, resume it each time, and compare with the run that was left alone.

PYTHONPATH=.:tests python -m support.kill_and_resume --kills 20
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from support.fork_server import fork_server
from support.tiny_training import result, train_tiny

Training = Callable[[Path], Any]
"""A picklable function that trains, from the newest checkpoint in a folder, to the end."""


def long_run(output: Path) -> None:
    train_tiny(output, steps=30, save_every=1, log_every=5)


def kill_and_resume(training: Training, folder: Path, kills: int, seed: int = 0) -> tuple[Path, list[Path]]:
    """Train once left alone, then again and again with a SIGKILL at ``kills`` random moments, up to the end.

    Returns the folder of the run left alone, and those of the runs that were killed on their way: a new one is begun where
    one ends before all kills are done. Raises RuntimeError if a run fails.
    """
    # It has everything imported once: a kill hits training, not imports.
    context = fork_server()
    _run(context, _nothing, folder, None)  # so that imports count in no measured time
    rng = random.Random(seed)
    alone = folder / "alone"
    whole = _run(context, training, alone, None) or 0.0
    killed, runs = 0, [folder / "killed-0"]
    while True:
        if _run(context, training, runs[-1], rng.uniform(0, whole) if killed < kills else None) is None:
            killed += 1
        elif killed == kills:
            return alone, runs
        else:
            runs.append(folder / f"killed-{len(runs)}")


def _nothing(output: Path) -> None:
    pass


def _run(context: Any, training: Training, output: Path, limit: float | None) -> float | None:
    """The seconds it took; None if it was killed at the limit."""
    process = context.Process(target=training, args=(output,))
    start = time.perf_counter()
    process.start()
    process.join(limit)
    if process.exitcode is None:
        process.kill()
        process.join()
        return None
    if process.exitcode:
        raise RuntimeError(f"training ended with {process.exitcode}")
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        alone, runs = kill_and_resume(long_run, Path(folder), options.kills, options.seed)
        same = [same_weights(alone / "result", run / "result") for run in runs]
    sys.stdout.write(f"{options.kills} kills over {len(runs)} runs; equal to the run left alone: {same}\n")
    sys.exit(not all(same))


def same_weights(one: Path, other: Path) -> bool:
    mine, theirs = result(one), result(other)
    return mine.keys() == theirs.keys() and all(torch.equal(mine[name], theirs[name]) for name in mine)


if __name__ == "__main__":
    main()
