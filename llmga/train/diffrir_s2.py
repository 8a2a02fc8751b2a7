"""DiffRIR S2: train a diffusion to predict the prior of S1's encoder, then train all parts together.

The first phase is a run of its own in the folder ``prior``: fewer weights, its own learning rates.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from ..restore import DiffRIRS1, DiffRIRS2
from .degraded_images import Examples, RestorationBatch
from .diffrir import (
    RESULT,
    RestorerConfig,
    RestorerTrainer,
    degraded_images_of,
    l1_and_psnr,
    load_net,
    new_net,
)
from .loop import LoopConfig, Metrics, train
from .run_config import check_config


@dataclass(frozen=True)
class S2Config(RestorerConfig):
    s1: Path | None = None
    """``restorer.safetensors`` of S1, with the same ``network``; unused where S1 is passed in."""
    prior: LoopConfig | None = None
    """The first phase, which trains the diffusion alone; None leaves it out."""
    composite: bool = False
    """Put the truth around what was restored before the loss, so that only the hole is learnt."""


class S2Trainer(RestorerTrainer):
    """The loss is L1 over the picture plus L1 over the prior, through all steps of the diffusion.

    Args:
        s1: whose encoder says what the prior should be.
        net: what is trained on.
        only_prior: train the diffusion alone.

    Source: DiffRIR 9f3931e ``DiffRIR/models/DiffIR_S2_model.py:420-463``. (Its KL term is logged there only.)
    """

    net: DiffRIRS2
    config: S2Config

    def __init__(
        self, config: S2Config, examples: Examples, s1: DiffRIRS1, net: DiffRIRS2, only_prior: bool = False
    ) -> None:
        super().__init__(config, examples, net, s1)
        self.s1, self.only_prior = s1, only_prior

    def modules(self) -> Mapping[str, nn.Module]:
        found = super().modules()
        return {name: found[name] for name in ("condition", "denoise")} if self.only_prior else found

    def restored(self, part: RestorationBatch, generator: torch.Generator) -> torch.Tensor:
        return self.net(self.inputs(part), self.noise(part, generator))

    def predict(
        self, joined: torch.Tensor, truth: torch.Tensor, noise: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The prior (B, length) that the diffusion finds, starting from S1's made noisy, and its L1 from that."""
        with torch.no_grad():
            wanted = self.s1.prior(joined, truth)
        prior = self.net.prior(joined, self.net.diffusion.noisy(wanted, noise))
        return prior, F.l1_loss(prior.float(), wanted.float())

    def loss(self, inputs: RestorationBatch, generator: torch.Generator) -> tuple[torch.Tensor, Metrics]:
        joined, truth = self.inputs(inputs), inputs.truth
        prior, off = self.predict(joined, truth, self.noise(inputs, generator))
        if self.only_prior:
            return off, {}
        made = self.net.G(joined, prior).float()
        if self.config.composite:
            made = torch.where(inputs.mask > 0, made, truth)
        pixel, psnr = l1_and_psnr(made, truth)
        return pixel + off, {"pixel": pixel, "prior": off, "psnr": psnr}


def train_s2(
    config: S2Config, examples: Examples, s1: DiffRIRS1, output: Path, run_config: S2Config | None = None
) -> Path:
    """Both phases, starting from S1's restorer; returns the folder of the result.

    Each phase has an optimizer of its own, as theirs has; the second starts from the first one's average, where there is
    one, while theirs goes on with the weights behind it.
    """
    if run_config is not None:  # before the first phase replaces anything
        check_config(run_config, output)
    net = new_net(DiffRIRS2, config)
    net.G.load_state_dict(s1.G.state_dict())
    if config.prior:
        from safetensors.torch import load_file

        prior = S2Trainer(config, examples, s1, net, only_prior=True)
        first = train(prior, config.prior, output / "prior", run_config)
        net.load_state_dict(load_file(first / RESULT))
    return train(S2Trainer(config, examples, s1, net), config.loop, output, run_config)


def run(config: S2Config, output: Path) -> Path:
    """Train what a configuration alone describes; returns the folder of the result.

    Raises:
        ValueError: ``pictures`` or ``s1`` is missing, or see ``loop.train``.
        FileNotFoundError: there is no file ``s1``.
    """
    s1 = load_net(DiffRIRS1, config, config.s1, "s1")
    return train_s2(config, degraded_images_of(config), s1, output, config)
