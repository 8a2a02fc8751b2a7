"""Kill every trainer at random moments, resume it each time, and compare with the run that was left alone.

PYTHONPATH=.:tests python -m support.kill_each_trainer --kills 20 [--only stage1-lora,diffrir-s2]
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

from llmga.train.refiner import require_trl
from support.kill_and_resume import Training, kill_and_resume
from support.tiny_refiner import BASES
from support.tiny_restoration import train_gan_tiny, train_s1_tiny, train_s2_tiny
from support.tiny_stage1 import write_base, write_data
from support.tiny_training import World, components

STEPS = 12
LOOP: dict[str, Any] = {"steps": STEPS, "save_every": 1, "log_every": 4}
STAGE1: dict[str, dict[str, Any]] = {
    f"stage1-{part}": {"train": part} for part in ("full", "lora", "projector")
}


def trainings(folder: Path) -> dict[str, Training]:
    """A picklable function for each trainer; ``folder`` gets what stage 1 reads."""
    base, data = write_base(folder / "base"), write_data(folder / "data")
    named: dict[str, Callable[..., Any]] = {
        name: partial(_stage1, data=data, base=base, **settings) for name, settings in STAGE1.items()
    }
    try:
        require_trl()
        named["refiner"] = partial(_refiner, data=data, base=BASES["qwen3-vl"](folder / "qwen3-vl"))
    except ValueError as missing:
        sys.stderr.write(f"refiner skipped: {missing}\n")
    named |= {"stage2-t2i": _stage2, "stage2-inpainting": partial(_stage2, task="inpainting")}
    named["controlnet"] = _controlnet
    named |= {
        "gill": partial(_gill, data=folder / "gill"),
        "gill-decision": partial(_gill_decision, data=folder / "gill"),
    }
    restorers = {"s1": train_s1_tiny, "s2": train_s2_tiny, "gan": train_gan_tiny}
    return named | {f"diffrir-{name}": partial(train, **LOOP) for name, train in restorers.items()}


def _stage1(output: Path, *, data: Path, base: Path, **settings: Any) -> None:
    from llmga.train import build
    from llmga.train.stage1 import Stage1Config, run
    from support.tiny_stage1 import values

    torch.set_num_threads(1)
    run(build(Stage1Config, values(data, base, LOOP, **settings)), output)


def _refiner(output: Path, *, data: Path, base: Path) -> None:
    from llmga.train import build
    from llmga.train.refiner import RefinerConfig, run
    from support.tiny_stage1 import values

    torch.set_num_threads(1)
    run(build(RefinerConfig, values(data, base, LOOP, lora_dropout=0.1)), output)


def _stage2(output: Path, **settings: Any) -> None:
    from llmga.train import Stage2, train
    from support.tiny_training import config

    torch.set_num_threads(1)
    made = config(LOOP, **settings)
    train(Stage2(made, components(dropout=0.1), World()), made.loop, output)


def _controlnet(output: Path) -> None:
    from llmga.train import build, train
    from llmga.train.controlnet import ControlNetConfig, ControlNetStage

    torch.set_num_threads(1)
    loop = {"batch": 4, "micro_batch": 2, "lr": 1e-3, "ema": 0.99, "deterministic": True, "cpu": True, **LOOP}
    made = build(ControlNetConfig, {"loop": loop, "caption_dropout": 0.2, "variants": 2})
    train(ControlNetStage(made, components(), World()), made.loop, output)


def _gill(output: Path, *, data: Path) -> None:
    from support.tiny_gill_training import train_gill_tiny

    torch.set_num_threads(1)
    train_gill_tiny(output, data, LOOP)


def _gill_decision(output: Path, *, data: Path) -> None:
    from support.tiny_gill_training import train_decision_tiny

    torch.set_num_threads(1)
    train_decision_tiny(output, data, LOOP)


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    """Every tensor of a result, under its file's name."""
    from safetensors.torch import load_file

    return {
        f"{path.relative_to(folder)}/{name}": value
        for path in sorted(folder.rglob("*.safetensors"))
        for name, value in load_file(path).items()
    }


def same(one: Path, other: Path) -> bool:
    mine, theirs = tensors(one), tensors(other)
    return (
        bool(mine)
        and mine.keys() == theirs.keys()
        and all(torch.equal(mine[name], theirs[name]) for name in mine)
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", help="trainers, with commas")
    options = parser.parse_args()
    equal = []
    with tempfile.TemporaryDirectory() as folder:
        known = trainings(Path(folder))
        for name in options.only.split(",") if options.only else known:
            alone, runs = kill_and_resume(known[name], Path(folder) / name, options.kills, options.seed)
            equal += [same(alone / "result", run / "result") for run in runs]
            sys.stdout.write(
                f"{name:20} {options.kills} kills over {len(runs)} runs, equal to the run left alone: "
                f"{sum(equal[-len(runs) :])} of {len(runs)}\n"
            )
            sys.stdout.flush()
    sys.exit(not all(equal))


if __name__ == "__main__":
    main()
