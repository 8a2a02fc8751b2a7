"""DiffRIR S1: train the restorer together with an encoder that sees the ground truth."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from ..restore import DiffRIRS1
from .degraded_images import Examples, RestorationBatch
from .diffrir import RestorerConfig, RestorerTrainer, degraded_images_of, l1_and_psnr, new_net
from .loop import Metrics, train


@dataclass(frozen=True)
class S1Config(RestorerConfig):
    """Configuration of S1."""


class S1Trainer(RestorerTrainer):
    """The loss is L1 over the whole picture, hole or not.

    Source: DiffRIR 9f3931e ``DiffRIR/models/DiffIR_S1_model.py:342-352``.
    """

    net: DiffRIRS1

    def __init__(self, config: S1Config, examples: Examples) -> None:
        super().__init__(config, examples, new_net(DiffRIRS1, config))

    def restored(self, part: RestorationBatch, generator: torch.Generator) -> torch.Tensor:
        return self.net(self.inputs(part), part.truth)

    def loss(self, inputs: RestorationBatch, generator: torch.Generator) -> tuple[torch.Tensor, Metrics]:
        loss, psnr = l1_and_psnr(self.restored(inputs, generator).float(), inputs.truth)
        return loss, {"psnr": psnr}


def run(config: S1Config, output: Path) -> Path:
    """Train what a configuration alone describes; returns the folder of the result.

    Raises:
        ValueError: ``pictures`` is missing, or see ``loop.train``.
    """
    return train(S1Trainer(config, degraded_images_of(config)), config.loop, output, config)
