"""The noise schedule of Stable Diffusion, and the DDIM step between any two of its noise levels."""

from __future__ import annotations

from dataclasses import dataclass

import torch

BETA_START, BETA_END, TRAIN_TIMESTEPS = 0.00085, 0.012, 1000
"""The values of SD1.x, SD2.x and SDXL."""


@dataclass(frozen=True, eq=False)
class Schedule:
    """The noise level of each timestep, variance preserving.

    Args:
        alphas_cumprod: (T,), descending from almost 1 towards 0; kept as float64 on the CPU. At timestep t a latent is
            √ᾱ[t] x0 + √(1 - ᾱ[t]) noise.

    Raises:
        ValueError: it has another shape.
    """

    alphas_cumprod: torch.Tensor

    def __post_init__(self) -> None:
        values = self.alphas_cumprod.detach().double().cpu()
        if values.ndim != 1 or len(values) < 2:
            raise ValueError(f"alphas_cumprod must be (T,) with T >= 2, got {tuple(values.shape)}")
        object.__setattr__(self, "alphas_cumprod", values)

    @classmethod
    def from_betas(
        cls, start: float = BETA_START, end: float = BETA_END, timesteps: int = TRAIN_TIMESTEPS
    ) -> Schedule:
        """The schedule whose betas' roots are linear in the timestep ("scaled linear")."""
        # In float32 as the networks were trained; alphas_cumprod of the references is float32 too.
        roots = torch.linspace(start**0.5, end**0.5, timesteps, dtype=torch.float32)
        return cls(torch.cumprod(1 - roots**2, 0))

    def timesteps(self, steps: int) -> list[int]:
        """``steps`` timesteps, descending, spaced by the whole number ``T // steps``; the last one is 1.

        Raises:
            ValueError: ``steps`` is not 1 to T - 1, or the first timestep is noise alone, see ``check_start``.

        Source: DDIM as diffusers spaces it ("leading", ``steps_offset`` 1): 981, 961, … 21, 1 for 50 steps.
        """
        stride = self.stride(steps)
        timesteps = [i * stride + 1 for i in reversed(range(steps))]
        self.check_start(timesteps[0])
        return timesteps

    def check_start(self, timestep: int) -> None:
        """
        Raises:
            ValueError: no picture can be predicted at this timestep, for its latents are noise alone.
        """
        if self.alphas_cumprod[timestep] <= 0:
            raise ValueError(
                f"at timestep {timestep} this schedule is noise alone (zero terminal SNR), and so many steps begin there; "
                "take another number of steps, such as 50"
            )

    def stride(self, steps: int) -> int:
        """The distance between two of ``timesteps(steps)``; raises as that does."""
        total = len(self.alphas_cumprod)
        if isinstance(steps, bool) or not isinstance(steps, int) or not 1 <= steps < total:
            raise ValueError(f"steps must be a whole number from 1 to {total - 1}, got {steps!r}")
        return total // steps

    def abar(self, timestep: int) -> float:
        """ᾱ of a timestep; for a negative one that of timestep 0, which counts as the level of the picture itself."""
        return float(self.alphas_cumprod[max(timestep, 0)])


def part_of(steps: int, share: float) -> int:
    """How many of ``steps`` a share of them is, 0 .. 1, rounded down: 0.7 of 90 is 63, though the product of these floats
    is a little less."""
    return int(share * steps + 1e-5)


def ddim_step(x: torch.Tensor, eps: torch.Tensor, a: float, b: float) -> torch.Tensor:
    """DDIM without noise: move a latent from level ᾱ = ``a`` to level ᾱ = ``b``, up or down, given the noise in it."""
    return b**0.5 * predict_x0(x, eps, a) + (1 - b) ** 0.5 * eps


def predict_x0(x: torch.Tensor, eps: torch.Tensor, a: float) -> torch.Tensor:
    """The latent without noise that a latent of level ᾱ = ``a`` comes from, if ``eps`` is the noise in it."""
    return (x - (1 - a) ** 0.5 * eps) / a**0.5
