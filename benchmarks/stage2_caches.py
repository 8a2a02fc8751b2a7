"""Stage 2 with cached latents and text states against the same loop that encodes in every step.

    python benchmarks/stage2_caches.py [--steps 30] [--batch 8] [--size 128] [--task inpainting]

The miniature architecture with random weights learns to paint bars from captions of two chunks. Rates are per CPU second
where there is no GPU, because other work on the machine then falsifies the clock.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from llmga.train import Stage2, Stage2Config, build, train
from llmga.train.components import from_pipeline
from llmga.train.log import read_log
from miniworld.models.random_diffusion import random_pipeline

EXAMPLES = 64
COLOURS = ("red", "green", "blue")


class Bars:
    def __init__(self, size: int) -> None:
        self.size = size

    def __len__(self) -> int:
        return EXAMPLES

    def image(self, i: int) -> torch.Tensor:
        image = torch.full((3, self.size, self.size), -1.0)
        start = i * self.size // EXAMPLES
        image[i % 3, :, start : start + self.size // 8] = 1.0
        return image

    def caption(self, i: int, rng: random.Random) -> str:
        return f"picture {i}: " + f"a {COLOURS[i % 3]} bar on a black ground, {i} pixels from the edge, " * 8

    def mask(self, i: int, generator: torch.Generator) -> torch.Tensor:
        mask = torch.zeros(1, self.size, self.size)
        mask[..., : int(torch.randint(self.size, (), generator=generator))] = 1.0
        return mask

    def fingerprint(self) -> str:
        return f"bars of {self.size}"


class Timed(Stage2):
    """Notes the time at which each step asks for its inputs."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.times: list[float] = []

    def batch(self, indices: torch.Tensor, generator: torch.Generator) -> Any:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.times.append(time.perf_counter() if torch.cuda.is_available() else time.process_time())
        return super().batch(indices, generator)

    @property
    def rate(self) -> float:
        """Examples per second after the third step."""
        return (len(self.times) - 4) * self.config.loop.batch / (self.times[-1] - self.times[3])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--task", default="t2i")
    options = parser.parse_args()
    rates, curves = {}, {}
    with tempfile.TemporaryDirectory() as folder:
        for name, extra in {
            "encoding": {},
            "cached": {"cache": f"{folder}/cache", "cache_in_memory": True},
        }.items():
            loop = {
                "steps": options.steps,
                "batch": options.batch,
                "micro_batch": options.batch,
                "lr": 1e-4,
                "log_every": 1,
                "save_every": options.steps,
            }
            values = {"task": options.task, "cache_dtype": "float32", "variants": 2, "caption_dropout": 0.1}
            config = build(Stage2Config, {"loop": loop, **values, **extra})
            trainer = Timed(config, from_pipeline(random_pipeline()), Bars(options.size))
            train(trainer, config.loop, Path(folder, name))
            rates[name] = trainer.rate
            curves[name] = [row["loss"] for row in read_log(Path(folder, name, "log.jsonl"))]
    unit = "s" if torch.cuda.is_available() else "CPU-second"
    for name, rate in rates.items():
        print(f"{name:10} {rate:8.2f} examples/{unit}   loss {curves[name][0]:.6f} … {curves[name][-1]:.6f}")
    furthest = max(abs(a - b) / a for a, b in zip(*curves.values(), strict=True))
    print(
        f"speed-up   {rates['cached'] / rates['encoding']:8.2f}   largest relative difference of a loss {furthest:.1e}"
    )


if __name__ == "__main__":
    main()
