"""A diffusers UNet as a ``Denoiser``."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, cast, get_args

import torch

from .attention import attention
from .denoiser import CELL, Result, Site, StopForward, Taps
from .gradient import require_variable
from .schedule import Schedule

Prediction = Literal["epsilon", "v_prediction"]


@dataclass(frozen=True, eq=False)
class DiffusersContext:
    """One encoded prompt."""

    states: torch.Tensor
    """(1, T, dim): the text encoder's hidden states."""
    pooled: torch.Tensor | None = None
    """(1, dim): SDXL's pooled prompt."""
    time_ids: torch.Tensor | None = None
    """(1, 6): SDXL's sizes: original (h, w), crop (top, left), target (h, w), in pixels."""


class DiffusersDenoiser:
    """Any ``UNet2DConditionModel`` of SD1.x, SD2.x or SDXL, in any dtype and on any device; see ``Denoiser``.

    Its attention processors are exchanged only while ``eps`` runs with taps.

    Raises:
        ValueError: the UNet does not take latents of 4 channels, or ``prediction`` is unknown.
    """

    def __init__(
        self, unet: Any, schedule: Schedule | None = None, prediction: Prediction = "epsilon"
    ) -> None:
        if unet.config.in_channels != 4:
            raise ValueError(
                f"editing needs a UNet with 4 input channels, got {unet.config.in_channels}: an inpainting model"
            )
        if prediction not in get_args(Prediction):
            raise ValueError(
                f"prediction must be one of {', '.join(get_args(Prediction))}; got {prediction!r}"
            )
        self.unet, self.prediction = unet, prediction
        self.schedule = schedule or Schedule.from_betas()
        self._layers = attention_layers(unet)

    @property
    def sites(self) -> list[Site]:
        return list(self._layers)

    def run(
        self,
        prompts: Mapping[str, Any],
        shape: Sequence[int],
        work: Callable[[DiffusersDenoiser, dict[str, DiffusersContext]], Result],
    ) -> Result:
        """See ``DenoiserRunner``; a prompt is an ``EncodedPrompt``: ``states`` and, for SDXL, ``pooled``."""
        height, width = shape[-2] * CELL, shape[-1] * CELL
        contexts = {}
        for name, prompt in prompts.items():
            time_ids = None
            if prompt.pooled is not None:
                time_ids = torch.tensor([[height, width, 0, 0, height, width]], dtype=torch.float32)
            contexts[name] = DiffusersContext(prompt.states, prompt.pooled, time_ids)
        return work(self, contexts)

    @torch.no_grad()
    def eps(
        self,
        x: torch.Tensor,
        timestep: int,
        contexts: Sequence[DiffusersContext],
        taps: Taps | None = None,
    ) -> torch.Tensor | None:
        """See ``Denoiser``."""
        return self._predict(x, timestep, contexts, taps)

    def with_gradient(
        self,
        x: torch.Tensor,
        timestep: int,
        contexts: Sequence[DiffusersContext],
        taps: Taps | None = None,
    ) -> torch.Tensor | None:
        """See ``Denoiser``."""
        require_variable(x)
        with _frozen(self.unet):
            return self._predict(x, timestep, contexts, taps)

    def _predict(
        self, x: torch.Tensor, timestep: int, contexts: Sequence[DiffusersContext], taps: Taps | None
    ) -> torch.Tensor | None:
        if len(contexts) != len(x):
            raise ValueError(f"contexts must be one for each of {len(x)} rows, got {len(contexts)}")
        weight = next(self.unet.parameters())
        latents = x.to(weight)
        try:
            with _Tapped(self._layers, taps, (x.shape[-2], x.shape[-1])):
                out = self.unet(
                    latents,
                    timestep,
                    encoder_hidden_states=_states(contexts).to(weight),
                    added_cond_kwargs=_added(contexts, weight),
                    return_dict=False,
                )[0]
        except StopForward:
            return None
        out = out.to(x.device, torch.float32)
        if self.prediction == "epsilon":
            return out
        abar = self.schedule.abar(timestep)
        return abar**0.5 * out + (1 - abar) ** 0.5 * x


def attention_layers(unet: Any) -> dict[Site, Any]:
    """Every attention layer by ComfyUI's name for it, in the order in which they run.

    ComfyUI counts the blocks through: the first convolution is input 0, a downsampler an input of its own; an upsampler
    belongs to the last output of its level.
    """
    found: dict[Site, Any] = {}

    def add(block: Literal["input", "middle", "output"], number: int, transformer: Any) -> None:
        for index, layer in enumerate(transformer.transformer_blocks):
            found[Site(block, number, index, "self")] = layer.attn1
            if layer.attn2 is not None:
                found[Site(block, number, index, "cross")] = layer.attn2

    number = 1
    for down in unet.down_blocks:
        for j, transformer in enumerate(getattr(down, "attentions", ())):
            add("input", number + j, transformer)
        number += len(down.resnets) + 1
    for transformer in getattr(unet.mid_block, "attentions", ()):
        add("middle", 0, transformer)
    number = 0
    for up in unet.up_blocks:
        for j, transformer in enumerate(getattr(up, "attentions", ())):
            add("output", number + j, transformer)
        number += len(up.resnets)
    return found


@contextmanager
def _frozen(unet: Any) -> Iterator[None]:
    """Within it no parameter requires a gradient: autograd then keeps only what the gradient of x needs."""
    trained = [parameter for parameter in unet.parameters() if parameter.requires_grad]
    for parameter in trained:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)


class _Tapped:
    """A context in which the attention layers ask the taps first."""

    def __init__(self, layers: dict[Site, Any], taps: Taps | None, size: tuple[int, int]) -> None:
        self._layers = layers if taps is not None else {}
        self._taps, self._size = taps, size
        self._before: dict[Site, Any] = {}

    def __enter__(self) -> None:
        for site, layer in self._layers.items():
            self._before[site] = layer.processor
            layer.set_processor(_Processor(site, cast(Taps, self._taps), self._size))

    def __exit__(self, *_: object) -> None:
        for site, processor in self._before.items():
            self._layers[site].set_processor(processor)


class _Processor:
    """Diffusers' own attention processor, with the taps before it."""

    def __init__(self, site: Site, taps: Taps, size: tuple[int, int]) -> None:
        self._site, self._taps, self._size = site, taps, size

    def __call__(
        self,
        attn: Any,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor | None = None,
        **_: Any,
    ) -> torch.Tensor:
        context = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        q, k, v = attn.to_q(hidden_states), attn.to_k(context), attn.to_v(context)
        size = grid(q.shape[1], *self._size)
        out = self._taps.attend(self._site, q, k, v, attn.heads, size)
        if out is None:
            out = attention(q, k, v, attn.heads)
        return attn.to_out[1](attn.to_out[0](out))


def grid(queries: int, height: int, width: int) -> tuple[int, int]:
    """The (h, w) of a layer with so many queries: each level of a UNet halves the sides of the one above, rounding up.

    Raises:
        ValueError: no level has so many.
    """
    while height * width > queries:
        height, width = -(-height // 2), -(-width // 2)
    if height * width != queries:
        raise ValueError(f"a layer of {queries} queries is on no level of this UNet")
    return height, width


def _states(contexts: Sequence[DiffusersContext]) -> torch.Tensor:
    """(B, T, dim), shorter contexts repeated: attention does not change if all its tokens come twice."""
    total = math.lcm(*(context.states.shape[1] for context in contexts))
    rows = [context.states.repeat(1, total // context.states.shape[1], 1) for context in contexts]
    return torch.cat(rows)


def _added(contexts: Sequence[DiffusersContext], weight: torch.Tensor) -> dict[str, torch.Tensor] | None:
    pooled = [context.pooled for context in contexts if context.pooled is not None]
    time_ids = [context.time_ids for context in contexts if context.time_ids is not None]
    if not pooled or not time_ids:
        return None
    return {"text_embeds": torch.cat(pooled).to(weight), "time_ids": torch.cat(time_ids).to(weight)}
