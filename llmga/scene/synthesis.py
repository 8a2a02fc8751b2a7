"""Paint a planned scene in two stages: each object alone, then all of them in one picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ..diffusion.denoiser import Denoiser, Site, predict_noise
from ..diffusion.schedule import ddim_step, predict_x0
from ..edit.blend import blended
from ..edit.inversion import OnStep, Trajectory, silent
from .attention import (
    PhraseAttention,
    SceneLayers,
    WordAttention,
    WordTaps,
    guidance_sites,
    saliency_site,
    summed,
)
from .guidance import GuidanceSettings, LayoutGuidance
from .losses import Placed, alone_loss, scene_loss
from .plan import SceneBox

StepAttention = Sequence[Mapping[Site, WordAttention]]
"""For each guided step the attention of the guided layers to one word."""

_SALIENT_FROM = 0.2
"""The part of the steps after which an object's word map is looked at: before, it has no shape."""


@dataclass(frozen=True, eq=False)
class AloneRun:
    """One object, painted alone."""

    latents: torch.Tensor
    """(steps + 1, 1, 4, h, w) float32 on the CPU, the noise first."""
    word_map: torch.Tensor
    """(h', w'): the attention to the last word of its name, the mean over heads and the later steps."""
    word_maps: tuple[Mapping[Site, WordAttention], ...]
    """The attention to that word for each step that may be guided in the scene; of the guided layers alone."""
    box: SceneBox
    """Where it was painted."""
    guidance: LayoutGuidance
    """With the count of its passes."""
    rows: int
    """How many rows went through the whole UNet."""


@dataclass(frozen=True, eq=False)
class TogetherRun:
    """The scene, put together."""

    latent: torch.Tensor
    """(1, 4, h, w) float32 on the CPU."""
    word_maps: torch.Tensor
    """(objects, h', w'): the attention to each object's word, the mean over heads and the later steps."""
    guidance: LayoutGuidance
    rows: int


@torch.no_grad()
def paint_alone(
    denoiser: Denoiser,
    noise: torch.Tensor,
    context: Any,
    negative: Any,
    box: SceneBox,
    tokens: Sequence[int],
    *,
    steps: int,
    cfg: float,
    guidance: GuidanceSettings,
    kept_steps: int,
    layers: SceneLayers = "published",
    phrase: PhraseAttention = "tokens",
    on_step: OnStep = silent,
) -> AloneRun:
    """Paint one object, held in its box by the box constraint.

    Args:
        noise: (1, 4, h, w).
        context, negative: the object's encoded prompt and the negative one, of one length.
        box: where it is to be, in parts of the picture.
        tokens: the positions of its name in the prompt; the last is the word whose attention is kept.
        layers, phrase: see ``SceneLayers`` and ``PhraseAttention``.
        kept_steps: for how many of the first steps the attention to the word is kept, for ``paint_together``.
        on_step: ``on_step(i, steps, preview)`` after each step; may raise.

    Source: ``generate_semantic_guidance`` of the reference.
    """
    sites, salient = guidance_sites(denoiser.sites, layers), saliency_site(denoiser.sites, layers)
    layout = LayoutGuidance(guidance, sites, tokens)
    whole = [range(len(tokens))] if phrase == "sum" else None
    words = tokens if whole else tokens[-1:]
    x, latents = noise.float().cpu(), [noise.float().cpu()]
    kept: list[Mapping[Site, WordAttention]] = []
    total, counted = torch.zeros(()), 0
    for i, t in enumerate(denoiser.schedule.timesteps(steps)):
        most = guidance.passes_at(i, steps)
        x = layout.guide(
            denoiser,
            x,
            t,
            context,
            most,
            lambda found: alone_loss(_read(found, whole), box, guidance.weights),
        )
        maps = sites if i < kept_steps else []
        taps = WordTaps(list(dict.fromkeys([*maps, salient])), words, stop=False)
        x, preview = _denoised(denoiser, x, t, steps, context, negative, cfg, taps)
        latents.append(x)
        recorded = _read(taps.recorded, whole)
        if i < kept_steps:
            kept.append({site: _on_cpu(recorded[site]) for site in sites})
        if i >= int(_SALIENT_FROM * steps):
            found = recorded[salient]
            total, counted = total + found.maps[..., 0].mean(0).unflatten(0, found.size).cpu(), counted + 1
        on_step(i + 1, steps, preview)
    return AloneRun(torch.stack(latents), total / counted, tuple(kept), box, layout, _rows(cfg) * steps)


@torch.no_grad()
def paint_together(
    denoiser: Denoiser,
    composed: torch.Tensor,
    frozen: torch.Tensor,
    context: Any,
    negative: Any,
    boxes: Sequence[SceneBox],
    phrases: Sequence[Sequence[int]],
    references: Sequence[StepAttention | None],
    *,
    steps: int,
    replaced_steps: int,
    cfg: float,
    guidance: GuidanceSettings,
    background: Trajectory | None = None,
    region: torch.Tensor | None = None,
    layers: SceneLayers = "published",
    phrase: PhraseAttention = "tokens",
    on_step: OnStep = silent,
) -> TogetherRun:
    """Put objects that were painted alone into one picture.

    Args:
        composed: (replaced_steps + 1 at least, 1, 4, h, w): the noise, then the objects' latents in their places.
        frozen: (1, 1, h, w), 1 where these replace the scene's for the first ``replaced_steps`` steps.
        context, negative: the scene's encoded prompt and the negative one, of one length.
        boxes, phrases: of each object; the last position of a phrase is its word.
        references: for each object its ``AloneRun.word_maps``, moved to its place; None guides it by no attention.
        background: an inverted photograph with as many steps: outside of ``region`` the latent is its trajectory, bit for
            bit, at every step.
        region: (1, 1, h, w) in 0 .. 1, with ``background``.
        layers, phrase: see ``SceneLayers`` and ``PhraseAttention``.
        on_step: ``on_step(i, steps, preview)`` after each step; may raise.

    Source: ``generate_partial_frozen`` of the reference; the photograph is ours, by Direct Inversion (Ju et al., 2024).
    """
    flat = list(dict.fromkeys(token for phrase in phrases for token in phrase))
    each = [[flat.index(token) for token in one] for one in phrases]
    whole = each if phrase == "sum" else None
    words = [(range(k, k + 1), k) if whole else (one, one[-1]) for k, one in enumerate(each)]
    placed = [Placed(box, *word) for box, word in zip(boxes, words, strict=True)]
    sites, salient = guidance_sites(denoiser.sites, layers), saliency_site(denoiser.sites, layers)
    layout = LayoutGuidance(guidance, sites, flat)
    x = composed[0].float().cpu()
    if background is not None and region is not None:
        x = blended(x, background.latents[steps], region)
    total, counted = torch.zeros(len(placed), 1, 1), 0
    for i, t in enumerate(denoiser.schedule.timesteps(steps)):
        most = guidance.passes_at(i, steps) if placed else 0
        known = [None if one is None or i >= len(one) else one[i] for one in references]
        x = layout.guide(
            denoiser,
            x,
            t,
            context,
            most,
            lambda found, known=known: scene_loss(_read(found, whole), placed, known, guidance.weights),
        )
        looked = placed and i >= int(_SALIENT_FROM * steps)
        looked_at = flat if whole else [one[-1] for one in phrases]
        taps = WordTaps([salient], looked_at, stop=False) if looked else None
        x, preview = _denoised(denoiser, x, t, steps, context, negative, cfg, taps)
        if i < replaced_steps:
            x = composed[i + 1] * frozen + x * (1 - frozen)
        if background is not None and region is not None:
            x = blended(x, background.latents[steps - i - 1], region)
        if taps is not None:
            found = _read(taps.recorded, whole)[salient]
            total = total + found.maps.mean(0).T.unflatten(1, found.size).cpu()  # (objects, h', w')
            counted += 1
        on_step(i + 1, steps, preview)
    return TogetherRun(x, total / max(counted, 1), layout, _rows(cfg) * steps)


def _denoised(
    denoiser: Denoiser,
    x: torch.Tensor,
    timestep: int,
    steps: int,
    context: Any,
    negative: Any,
    cfg: float,
    taps: WordTaps | None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """One DDIM step with guidance, and the predicted x0; taps look at the row of ``context``, which is the last."""
    contexts = [context] if cfg == 1 else [negative, context]
    eps = predict_noise(denoiser, x.repeat(len(contexts), 1, 1, 1), timestep, contexts, taps)
    if cfg != 1:
        eps_uncond, eps_cond = eps.chunk(2)
        eps = eps_uncond + cfg * (eps_cond - eps_uncond)
    schedule = denoiser.schedule
    level, next_level = schedule.abar(timestep), schedule.abar(timestep - schedule.stride(steps))
    return ddim_step(x, eps, level, next_level), predict_x0(x, eps, level)


def _read(
    recorded: Mapping[Site, WordAttention], phrases: Sequence[Sequence[int]] | None
) -> Mapping[Site, WordAttention]:
    return recorded if phrases is None else summed(recorded, phrases)


def _rows(cfg: float) -> int:
    return 1 if cfg == 1 else 2


def _on_cpu(attention: WordAttention) -> WordAttention:
    return WordAttention(attention.maps.cpu(), attention.size)
