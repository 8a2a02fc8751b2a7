"""The ways to edit a picture of the miniature world that are compared: this package's own, and what they must beat."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from llmga.diffusion import DiffusersContext, DiffusersDenoiser
from llmga.diffusion.denoiser import noise
from llmga.diffusion.schedule import transfer
from llmga.edit import Blend, Control, Trajectory, edit, invert
from llmga.edit.alignment import Alignment, align
from llmga.edit.diffedit import difference_mask
from llmga.edit.edit_friendly import EditFriendly, edit_friendly
from llmga.text import Plan, encode_sd15, read
from llmga.text.tokenizer import decode

from ..files import CHECKPOINT, READER, UNETS
from ..models.autoencoder import skip_idle_blocks
from ..models.painter import load_pipeline, load_unet
from ..models.reader import Reader, load_reader
from ..world.dataset import as_images
from ..world.edits import Edit
from ..world.render import render
from ..world.scene import Scene


@dataclass(frozen=True)
class EditsConfig:
    """Which edits, and how each editor is set."""

    edits: int = 216
    """As many of each kind; a third of each has detailed captions."""
    steps: int = 20
    cfg: float = 4.0
    cross_replace: float = 0.2
    self_replace: float = 0.2
    maps: int = 5
    """Of noise, from which the mask is found."""
    mask_ratio: float = 3.0
    everywhere: float = 0.4
    blend_threshold: float = 0.5
    """Of the LocalBlend variant."""
    seed: int = 17
    """Of the edits and the noise; the settings above were found on edits of other seeds."""


@dataclass(frozen=True, eq=False)
class Job:
    """One edit ready to be made: prompts encoded to one length, the picture as a latent."""

    number: int
    edit: Edit
    denoiser: DiffusersDenoiser
    source: DiffusersContext
    target: DiffusersContext
    negative: DiffusersContext
    alignment: Alignment
    plans: tuple[Plan, Plan]
    latent: torch.Tensor
    """(1, 4, 16, 16)"""
    mask: torch.Tensor
    """(1, 1, 16, 16): where the prompts differ, as ``difference_mask`` finds it."""
    trajectory: Trajectory


class Studio:
    """The miniature's networks, as an edit needs them."""

    def __init__(self, out: Path) -> None:
        self.pipeline = load_pipeline(out / CHECKPOINT)
        self.autoencoder = skip_idle_blocks(self.pipeline.vae)
        self.reader: Reader = load_reader(out / READER)
        # Stage 2 has learnt to read long captions.
        self._denoisers = {
            False: DiffusersDenoiser(self.pipeline.unet),
            True: DiffusersDenoiser(load_unet(out / UNETS["stage2"])),
        }

    @torch.no_grad()
    def job(self, number: int, found: Edit, detailed: bool, config: EditsConfig) -> Job:
        prompts = found.detailed if detailed else found.short
        source_plan, target_plan = (self._plan(prompt) for prompt in prompts)
        aligned = align(source_plan, target_plan, "llmga")
        source, target, negative = (self._context(text, aligned.chunks) for text in (*prompts, ""))
        denoiser = self._denoisers[detailed]
        latent = self.encode(picture(found.source))
        mask = difference_mask(
            denoiser,
            latent,
            source,
            target,
            generator=torch.Generator().manual_seed(config.seed),
            maps=config.maps,
            ratio=config.mask_ratio,
            everywhere=config.everywhere,
        )
        trajectory = invert(denoiser, latent, source, config.steps)
        plans = (source_plan, target_plan)
        return Job(
            number, found, denoiser, source, target, negative, aligned, plans, latent, mask, trajectory
        )

    def encode(self, images: torch.Tensor) -> torch.Tensor:
        return self.autoencoder.encode(images).latents * self.autoencoder.config.scaling_factor

    @torch.no_grad()
    def decode(self, latent: torch.Tensor) -> torch.Tensor:
        return self.autoencoder.decode(latent / self.autoencoder.config.scaling_factor).sample.clamp(-1, 1)

    def _plan(self, text: str) -> Plan:
        tokenizer = self.pipeline.tokenizer
        return read(text, lambda part: tokenizer(part, add_special_tokens=False, verbose=False).input_ids)

    def _context(self, text: str, chunks: int) -> DiffusersContext:
        parts = (self.pipeline.tokenizer, self.pipeline.text_encoder)
        return DiffusersContext(encode_sd15(*parts, text, min_chunks=chunks))


def picture(scene: Scene) -> torch.Tensor:
    """(1, 3, 128, 128) in -1 .. 1."""
    return as_images(torch.from_numpy(np.asarray(render(scene).image).copy())[None])


def _nothing(job: Job, config: EditsConfig) -> torch.Tensor:
    """The picture through the autoencoder: how much of it the reader can find at all."""
    return job.latent


def _direct(job: Job, config: EditsConfig) -> torch.Tensor:
    return _replayed(job, _control(job, config, mask=job.mask))


def _direct_blend(job: Job, config: EditsConfig) -> torch.Tensor:
    """As prompt-to-prompt has it: the place is found in the attention of the words that differ."""
    source, target = (
        tuple(at for at in positions if any(map(str.isalnum, decode([token_at(plan, at)]))))
        for plan, positions in zip(job.plans, (job.alignment.removed, job.alignment.added), strict=True)
    )
    return _replayed(
        job, _control(job, config, blend=Blend(source, target, threshold=config.blend_threshold))
    )


def token_at(plan: Plan, position: int) -> Any:
    """The id at a position of the layout ``llmga``, which must be one of text."""
    chunk, place = divmod(position - 1, 75)
    return plan.chunks[chunk][place].id


def _control(job: Job, config: EditsConfig, **more: Any) -> Control:
    return Control(
        matrix=job.alignment.matrix,
        own=job.alignment.own,
        cross_replace=config.cross_replace,
        self_replace=config.self_replace,
        cfg=config.cfg,
        **more,
    )


def _replayed(job: Job, control: Control, trajectory: Trajectory | None = None) -> torch.Tensor:
    return edit(
        job.denoiser, trajectory or job.trajectory, job.source, job.target, job.negative, control
    ).latent


@torch.no_grad()
def _ddim(job: Job, config: EditsConfig) -> torch.Tensor:
    """DDIM inversion with prompt-to-prompt: the source is denoised again, with guidance, and drifts off.

    That is Direct Inversion on the path that it takes then, instead of the one on which it was inverted.
    """
    way = [job.trajectory.latents[-1]]
    schedule, stride = job.denoiser.schedule, job.denoiser.schedule.stride(config.steps)
    for t in job.trajectory.timesteps:
        eps = _guided(job, way[-1], t, job.source, config.cfg)
        way.append(transfer(way[-1], eps, schedule.abar(t), schedule.abar(t - stride)))
    drifted = replace(job.trajectory, latents=torch.stack(way[::-1]))
    return _replayed(job, _control(job, config, mask=job.mask), drifted)


@torch.no_grad()
def _generate(job: Job, config: EditsConfig) -> torch.Tensor:
    """A new picture from the target prompt."""
    generator = torch.Generator().manual_seed(config.seed * 1_000_003 + job.number)
    x = torch.randn(job.latent.shape, generator=generator)
    schedule, stride = job.denoiser.schedule, job.denoiser.schedule.stride(config.steps)
    for t in job.trajectory.timesteps:
        eps = _guided(job, x, t, job.target, config.cfg)
        x = transfer(x, eps, schedule.abar(t), schedule.abar(t - stride))
    return x


def _edit_friendly(job: Job, config: EditsConfig) -> torch.Tensor:
    """The editor of LLMGA's command line, with its own settings but the number of steps and the mask's noise maps."""
    settings = EditFriendly(steps=config.steps)
    contexts = (job.source, job.target, job.negative)
    return edit_friendly(job.denoiser, job.latent, *contexts, settings, seed=config.seed, mask=job.mask)[0]


def _guided(job: Job, x: torch.Tensor, timestep: int, context: DiffusersContext, cfg: float) -> torch.Tensor:
    untold, told = noise(job.denoiser, x.repeat(2, 1, 1, 1), timestep, [job.negative, context]).chunk(2)
    return untold + cfg * (told - untold)


METHODS: dict[str, Callable[[Job, EditsConfig], torch.Tensor]] = {
    "no edit": _nothing,
    "direct p2p": _direct,
    "direct p2p local blend": _direct_blend,
    "ddim p2p": _ddim,
    "generate": _generate,
    "edit-friendly": _edit_friendly,
}
