"""Kill an evaluation at random moments, go on each time, and compare its JSON with that of the run that was left alone.

PYTHONPATH=.:tests python -m support.kill_evaluations --kills 20
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from llmga.evaluate.writers import ChatConfig
from support.kill_and_resume import kill_and_resume
from support.tiny_contexts import NETWORK, full_size, published_folder
from support.tiny_evaluation import base_folder, measure, run_t2i


def run_turns(base: Path, output: Path) -> None:
    """Figure 5 of two turns: words, LLMGA Embedding and GILL; from its beginning, or on from where it was left."""
    os.chdir(base)
    config: Any = full_size("turns", f"network={NETWORK}", "turns=2", "data.count=3", "bootstrap=3")
    rows = (replace(config.rows[0], chat=ChatConfig()), *config.rows[1:])
    measure("turns", replace(config, rows=rows), output)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "base").mkdir()
        runs = {
            "t2i": partial(run_t2i, base_folder(folder / "base")),
            "turns": partial(run_turns, published_folder(folder / "published")),
        }
        same = True
        for task, run in runs.items():
            alone, killed = kill_and_resume(run, folder / task, options.kills // 2, options.seed)
            expected = (alone / f"{task}.json").read_bytes()
            equal = [(one / f"{task}.json").read_bytes() == expected for one in killed]
            same &= all(equal)
            sys.stdout.write(f"{task}: {options.kills // 2} kills over {len(killed)} runs; equal: {equal}\n")
            sys.stdout.flush()
    sys.exit(not same)


if __name__ == "__main__":
    main()
