"""The two DiffRIR networks: S1, whose encoder reads the prior off the ground truth, and S2, which predicts it.

S1 is trained first. S2 is the restorer: a small diffusion model predicts the same prior from the degraded image and the
preserved pixels alone.

Source: LLMGA (arXiv 2311.16500, §3.4); DiffRIR 9f3931e ``DiffRIR/archs/S1_arch.py``, ``S2_arch.py``. The official
repository states no licence: this is written from the equations, and only the names of the weights are theirs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import nn

from .dirformer import DIRformer
from .prior import PriorDenoiser, PriorDiffusion, PriorEncoder


@dataclass(frozen=True)
class Architecture:
    """The sizes of a DiffRIR under their official names; the defaults are those of the released weights.

    Raises:
        ValueError: they do not fit each other.
    """

    scale: Literal[1, 2, 4] = 1
    """How many times larger the result is than the degraded picture."""
    reference: bool = True
    """Look at the preserved part. False is DiffIR, the paper's ablation."""
    dim: int = 64
    """Channels of the first level; each next one has twice as many."""
    num_blocks: tuple[int, int, int, int] = (13, 1, 1, 1)
    num_refinement_blocks: int = 13
    heads: tuple[int, int, int, int] = (1, 2, 4, 8)
    ffn_expansion_factor: float = 2.2
    n_feats: int = 64
    """Channels of the prior's encoder; the prior is four times as long."""
    n_encoder_res: int = 9
    n_denoise_res: int = 1
    timesteps: int = 4
    linear_start: float = 0.1
    linear_end: float = 0.99

    def __post_init__(self) -> None:
        if self.scale not in (1, 2, 4):
            raise ValueError(f"scale must be 1, 2 or 4, got {self.scale}")
        for level, heads in enumerate(self.heads):
            if self.dim % 2 or (self.dim * 2**level) % heads:
                raise ValueError(
                    f"dim ({self.dim}) must be even, and times 1, 2, 4, 8 a multiple of heads {self.heads}"
                )

    @property
    def prior(self) -> int:
        """Length of the prior."""
        return 4 * self.n_feats

    @property
    def multiple(self) -> int:
        """The sides of the degraded picture must be multiples of this."""
        return 32 // self.scale

    @property
    def channels(self) -> int:
        """Channels of the input, folded to a quarter of the result's size."""
        return (3 + (3 * self.scale**2 if self.reference else 0)) * (4 // self.scale) ** 2

    def former(self, operations: Any) -> DIRformer:
        return DIRformer(
            self.channels,
            self.scale,
            self.dim,
            self.num_blocks,
            self.num_refinement_blocks,
            self.heads,
            self.ffn_expansion_factor,
            self.prior,
            operations,
        )


class DiffRIRS1(nn.Module):
    """The first stage. It cannot restore, because its encoder needs the ground truth."""

    def __init__(self, architecture: Architecture, operations: Any = nn) -> None:
        super().__init__()
        a = self.architecture = architecture
        self.G = a.former(operations)
        self.E = PriorEncoder(a.channels + 3 * 16, a.n_feats, a.n_encoder_res, operations)

    def prior(self, inputs: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
        """(B, 4·n_feats) from what ``join_inputs`` gives and the true picture (B, 3, H, W), 0 .. 1."""
        folded = F.pixel_unshuffle(inputs, 4 // self.architecture.scale)
        return self.E(torch.cat([folded, F.pixel_unshuffle(truth, 4)], 1))

    def forward(self, inputs: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
        """The restored picture (B, 3, H, W), not clamped."""
        return self.G(inputs, self.prior(inputs, truth))


class DiffRIRS2(nn.Module):
    """The second stage, the restorer: DIRformer with a prior from ``PriorDiffusion``."""

    def __init__(self, architecture: Architecture, operations: Any = nn) -> None:
        super().__init__()
        a = self.architecture = architecture
        self.G = a.former(operations)
        self.condition = PriorEncoder(a.channels, a.n_feats, a.n_encoder_res, operations)
        self.denoise = PriorDenoiser(a.prior, a.n_denoise_res, a.timesteps, operations)
        self.diffusion = PriorDiffusion(a.timesteps, a.linear_start, a.linear_end)

    def prior(self, inputs: torch.Tensor, start: torch.Tensor) -> torch.Tensor:
        """(B, 4·n_feats) from what ``join_inputs`` gives and where the diffusion starts, (B, 4·n_feats)."""
        folded = F.pixel_unshuffle(inputs, 4 // self.architecture.scale)
        return self.diffusion(self.denoise, self.condition(folded), start)

    def forward(self, inputs: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        """The restored picture (B, 3, scale·h, scale·w), not clamped, from what ``join_inputs`` gives and noise
        (B, 4·n_feats) of variance 1."""
        return self.G(inputs, self.prior(inputs, noise))

    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False
    ) -> Any:
        """As of any module; it also accepts the state dict of an official file.

        Raises:
            ValueError: two copies of one tensor in such a file differ.
        """
        return super().load_state_dict(without_repetitions(state_dict), strict, assign)


def join_inputs(
    image: torch.Tensor, truth: torch.Tensor, mask: torch.Tensor, architecture: Architecture
) -> torch.Tensor:
    """Concatenate the degraded image and the reference with a black hole, unshuffled to the size of the image.

    Args:
        image: (B, 3, h, w), 0 .. 1, whole: with the truth pasted in, its change of colours could not be seen.
        truth: (B, 3, scale·h, scale·w), 0 .. 1; what it holds inside the hole does not matter.
        mask: (B, 1, scale·h, scale·w) of 0 and 1, 1 = generated.

    Returns:
        (B, 6, h, w), or 15 or 51 channels for scale 2 or 4; ``image`` alone where the network takes no reference.
    """
    if not architecture.reference:
        return image
    return torch.cat([image, F.pixel_unshuffle(truth * (1 - mask), architecture.scale)], 1)


def without_repetitions(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Drop what an official file repeats: two modules under second names, and the buffers that follow from β.

    Raises:
        ValueError: a copy differs from its original.
    """
    own = {}
    for name, value in state.items():
        twin = name.replace("diffusion.condition.", "condition.").replace("diffusion.model.", "denoise.")
        if twin != name:
            if twin not in state or not torch.equal(value, state[twin]):
                raise ValueError(f"{name} should repeat {twin} and does not: these weights are damaged")
        elif name not in _FOLLOWS_FROM_BETAS:
            own[name] = value
    return own


_FOLLOWS_FROM_BETAS = frozenset(
    "diffusion." + name
    for name in (
        "alphas_cumprod",
        "alphas_cumprod_prev",
        "sqrt_alphas_cumprod",
        "sqrt_one_minus_alphas_cumprod",
        "log_one_minus_alphas_cumprod",
        "sqrt_recip_alphas_cumprod",
        "sqrt_recipm1_alphas_cumprod",
        "posterior_variance",
        "posterior_log_variance_clipped",
        "posterior_mean_coef1",
        "posterior_mean_coef2",
    )
)
