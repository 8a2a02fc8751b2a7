"""DiffRIR S2-GAN: fine-tune the finished restorer with a discriminator and a perceptual loss."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from ..restore import DiffRIRS1, DiffRIRS2
from .critic import UNetCritic, vgg_distance
from .degraded_images import Examples, RestorationBatch
from .diffrir import degraded_images_of, l1_and_psnr, load_net
from .diffrir_s2 import S2Config, S2Trainer
from .loop import LoopConfig, Metrics, Weights, train


@dataclass(frozen=True)
class GanConfig(S2Config):
    s2: Path | None = None
    """``restorer.safetensors`` of S2; unused where S2 is passed in."""
    vgg: Path | None = None
    """torchvision's VGG19 weights, ``vgg19-dcbb9e9d.pth``; unused where a distance is passed in."""
    perceptual_weight: float = 1.0
    gan_weight: float = 1.0
    critic_features: int = 64
    critic_milestones: tuple[int, ...] | None = None
    """The critic's own ``loop.milestones``; None is those of ``loop``."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.prior is not None or self.composite:
            raise ValueError("prior and composite are settings of S2; this stage has neither")


class GanTrainer(S2Trainer):
    """The loss is S2's, over the whole picture, plus a perceptual one and the critic's.

    Args:
        s2: the restorer that goes on.
        distance: gives the perceptual loss of (made, truth), (B, 3, H, W) each, 0 .. 1; None takes none.

    Source: DiffRIR 9f3931e ``DiffRIR/models/DiffRIR_GAN_S2_model.py:336-415``, which cannot run as published.
    """

    config: GanConfig

    def __init__(
        self,
        config: GanConfig,
        examples: Examples,
        s1: DiffRIRS1,
        s2: DiffRIRS2,
        distance: nn.Module | None = None,
    ) -> None:
        super().__init__(config, examples, s1, s2)
        if distance is not None:
            self._frozen = (*self._frozen, distance.requires_grad_(False).eval())
        self.distance = distance
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.loop.seed)
            self.adversary = Adversary(UNetCritic(config.critic_features))
        if config.critic_milestones is not None:
            self.adversary.loop = replace(config.loop, milestones=config.critic_milestones)

    def loss(self, inputs: RestorationBatch, generator: torch.Generator) -> tuple[torch.Tensor, Metrics]:
        config = self.config
        joined = self.inputs(inputs)
        prior, off = self.predict(joined, inputs.truth, self.noise(inputs, generator))
        made = self.net.G(joined, prior).float()
        inputs.made = made.detach()
        pixel, psnr = l1_and_psnr(made, inputs.truth)
        gan = self.adversary.generator_loss(made)
        loss = pixel + off + config.gan_weight * gan
        metrics = {"pixel": pixel, "prior": off, "psnr": psnr, "fooled": gan}
        if self.distance is not None:
            metrics["perceptual"] = self.distance(made, inputs.truth)
            loss = loss + config.perceptual_weight * metrics["perceptual"]
        return loss, metrics

    def export(self, folder: Path, weights: Weights) -> None:
        """S2's, and ``critic.safetensors`` under torch's names."""
        from safetensors.torch import save_file

        super().export(folder, weights)
        save_file(weights["critic"], folder / "critic.safetensors", metadata={"format": "pt"})


class Adversary:
    """The discriminator's objective (see ``loop.Objective``): tell real images from restored ones."""

    loop: LoopConfig | None = None
    """Whose learning rate it has; None is the restorer's."""

    def __init__(self, critic: UNetCritic) -> None:
        self.critic = critic

    def modules(self) -> Mapping[str, nn.Module]:
        return {"critic": self.critic}

    def generator_loss(self, made: torch.Tensor) -> torch.Tensor:
        """The generator's loss: cross-entropy of the critic's logits with "real"; the critic gets no gradient."""
        self.critic.requires_grad_(False)
        logits = self.critic(made).float()
        self.critic.requires_grad_(True)
        return _cross_entropy(logits, 1.0)

    def loss(self, inputs: RestorationBatch, generator: torch.Generator) -> tuple[torch.Tensor, Metrics]:
        if inputs.made is None:
            raise ValueError("the critic's loss comes after the restorer's, on the same part")
        real, made = self.critic(inputs.real).float(), self.critic(inputs.made).float()
        metrics = {"critic_real": real.mean(), "critic_made": made.mean()}
        return _cross_entropy(real, 1.0) + _cross_entropy(made, 0.0), metrics


def _cross_entropy(logits: torch.Tensor, label: float) -> torch.Tensor:
    return F.binary_cross_entropy_with_logits(logits, torch.full_like(logits, label))


def run(config: GanConfig, output: Path) -> Path:
    """Train what a configuration alone describes; returns the folder of the result.

    Raises:
        ValueError: ``pictures``, ``s1``, ``s2`` or ``vgg`` is missing, or see ``loop.train``.
        FileNotFoundError: one of these files does not exist.
    """
    distance = None
    if config.perceptual_weight:
        if config.vgg is None:
            raise ValueError(
                "vgg (torchvision's VGG19 weights) is needed; perceptual_weight=0 trains without"
            )
        distance = vgg_distance(config.vgg)
    s1 = load_net(DiffRIRS1, config, config.s1, "s1")
    s2 = load_net(DiffRIRS2, config, config.s2, "s2")
    return train(
        GanTrainer(config, degraded_images_of(config), s1, s2, distance), config.loop, output, config
    )
