"""A training of a moment for the loop: a line, its settings, and what a run leaves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from llmga.train import LoopConfig
from llmga.train.log import read_log


class Line:
    """y = 2x learnt by one weight and a dropout layer, from eight points; ``net(noise)`` makes the loss random."""

    def __init__(self, examples: int = 8, adversary: Any = None) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.net = nn.Sequential(nn.Linear(1, 16), nn.Dropout(0.3), nn.Linear(16, 1))
        self.examples, self.adversary = examples, adversary
        self.seen: list[list[int]] = []
        self.fail_at = -1
        self.sampled: list[int] = []

    def __len__(self) -> int:
        return self.examples

    def modules(self):
        return {"net": self.net}

    def prepare(self, device, rank, world, barrier) -> None:
        self.device = device

    def batch(self, indices, generator):
        self.seen.append(indices.tolist())
        if len(self.seen) == self.fail_at:
            raise KeyboardInterrupt
        return indices.float()[:, None] + 0.01 * torch.randn(len(indices), 1, generator=generator)

    def loss(self, inputs, generator):
        noise = 0.1 * torch.randn(inputs.shape, generator=generator)
        error = (self.net(inputs / 8 + noise) - inputs / 4).square().mean()
        return error, {"twice": 2 * error}

    def sample(self, step: int, folder: Path) -> None:
        assert not self.net.training
        torch.rand(3)  # a sampler that uses the global generator must not matter
        self.sampled.append(step)

    def export(self, folder: Path, weights) -> None:
        save_file(weights["net"], folder / "net.safetensors")


def settings(**values: Any) -> LoopConfig:
    defaults: dict[str, Any] = {
        "steps": 10,
        "batch": 4,
        "micro_batch": 2,
        "lr": 0.01,
        "ema": 0.9,
        "log_every": 3,
        "save_every": 2,
        "sample_every": 5,
        "cpu": True,
        "deterministic": True,
    }
    return LoopConfig(**{**defaults, **values})


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "net.safetensors")


def assert_same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert one.keys() == other.keys()
    for name in one:
        assert torch.equal(one[name], other[name]), name


def losses(folder: Path) -> list[tuple[int, float]]:
    return [(row["step"], row["loss"]) for row in read_log(folder / "log.jsonl")]
