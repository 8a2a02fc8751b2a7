"""The ways to edit a picture of the miniature world that are compared: this package's own, and what they must beat."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from llmga.diffusion import DiffusersContext, DiffusersDenoiser, ddim_step
from llmga.diffusion.denoiser import predict_noise
from llmga.edit import Blend, Control, EditSession, Inversion
from llmga.edit.alignment import Alignment, align
from llmga.edit.diffedit import difference_mask
from llmga.edit.edit_friendly import EditFriendly, edit_friendly
from llmga.text import CLIPPromptEncoder, EncodedPrompt, Plan, longest
from llmga.text.tokenizer import decode

from ..files import CHECKPOINT, READER, UNETS
from ..models.architecture import picture_size
from ..models.narrow_taesd import narrowed
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
    blend_threshold: float = 0.3
    """Of the LocalBlend variant."""
    seed: int = 17
    """Of the edits and the noise; the settings above were found on edits of other seeds."""


@dataclass(frozen=True, eq=False)
class EditCase:
    """One edit to be made: its session, the picture as a latent and inverted, and its prompts at one length."""

    number: int
    edit: Edit
    session: EditSession[EncodedPrompt]
    target_prompt: str
    plans: tuple[Plan, Plan]
    alignment: Alignment
    contexts: dict[str, DiffusersContext]
    """``source``, ``target`` and ``negative``."""
    latent: torch.Tensor
    """(1, 4, h, w)"""
    mask: torch.Tensor
    """(1, 1, h, w): where the prompts differ, as ``difference_mask`` finds it."""
    inversion: Inversion

    @property
    def denoiser(self) -> DiffusersDenoiser:
        return self.session.runner  # type: ignore[return-value] # made in MiniatureEditor


class MiniatureEditor:
    """The miniature's networks, as an edit needs them."""

    def __init__(self, out: Path) -> None:
        pipeline = load_pipeline(out / CHECKPOINT)
        self.picture = picture_size(pipeline.unet)
        self.autoencoder = narrowed(pipeline.vae)
        self.reader: Reader = load_reader(out / READER)
        encoder = CLIPPromptEncoder((pipeline.tokenizer,), (pipeline.text_encoder,))
        # Stage 2 has learnt to read long captions.
        self._sessions = {
            False: EditSession(DiffusersDenoiser(pipeline.unet), encoder),
            True: EditSession(DiffusersDenoiser(load_unet(out / UNETS["stage2"])), encoder),
        }

    @torch.no_grad()
    def case(self, number: int, found: Edit, detailed: bool, config: EditsConfig) -> EditCase:
        session = self._sessions[detailed]
        source_prompt, target_prompt = found.detailed if detailed else found.short
        source, target = session.encoder.plan(source_prompt), session.encoder.plan(target_prompt)
        latent = self.encode(picture(found.source, self.picture))
        contexts = session.runner.run(
            session.encode_prompts(source, target), latent.shape, lambda _, contexts: contexts
        )
        mask = difference_mask(
            session.runner,  # type: ignore[arg-type] # a DiffusersDenoiser
            latent,
            contexts["source"],
            contexts["target"],
            generator=torch.Generator().manual_seed(config.seed),
            maps=config.maps,
            ratio=config.mask_ratio,
            everywhere=config.everywhere,
        )
        inversion = session.invert(latent, source_prompt, config.steps, min_chunks=longest(source, target))
        return EditCase(
            number,
            found,
            session,
            target_prompt,
            (source["l"], target["l"]),
            align(source["l"], target["l"], session.encoder.layout),
            contexts,
            latent,
            mask,
            inversion,
        )

    def encode(self, images: torch.Tensor) -> torch.Tensor:
        """(B, 3, H, W) in -1 .. 1 -> (B, 4, H / 8, W / 8)."""
        return self.autoencoder.encode(images).latents * self.autoencoder.config.scaling_factor

    @torch.no_grad()
    def decode(self, latent: torch.Tensor) -> torch.Tensor:
        """(B, 4, h, w) -> (B, 3, 8 h, 8 w) in -1 .. 1."""
        return self.autoencoder.decode(latent / self.autoencoder.config.scaling_factor).sample.clamp(-1, 1)


def picture(scene: Scene, size: int) -> torch.Tensor:
    """(1, 3, size, size) in -1 .. 1."""
    return as_images(torch.from_numpy(np.asarray(render(scene, size).image).copy())[None])


def _nothing(case: EditCase, config: EditsConfig) -> torch.Tensor:
    """No edit: the picture through the autoencoder, which bounds what the reader can find."""
    return case.latent


def _direct(case: EditCase, config: EditsConfig) -> torch.Tensor:
    return _edited(case, _control(case, config, mask=case.mask))


def _direct_blend(case: EditCase, config: EditsConfig) -> torch.Tensor:
    """As in prompt-to-prompt: the place is found in the attention of the words that differ, punctuation left out.

    A new background is no local edit and has no mask: the word that names one does not attend to all of it.
    """
    if case.edit.kind == "background":
        return _edited(case, _control(case, config))
    changed = (case.alignment.removed, case.alignment.added)
    source, target = (
        tuple(at for at in positions if any(map(str.isalnum, decode([token_at(plan, at)]))))
        for plan, positions in zip(case.plans, changed, strict=True)
    )
    blend = Blend(source, target, threshold=config.blend_threshold, up_only=True)
    return _edited(case, _control(case, config, blend=blend))


def token_at(plan: Plan, position: int) -> Any:
    """The id at a position of the layout ``llmga``, which must be one of text."""
    chunk, place = divmod(position - 1, 75)
    return plan.chunks[chunk][place].id


def _control(case: EditCase, config: EditsConfig, **more: Any) -> Control:
    return Control(
        matrix=case.alignment.matrix,
        own=case.alignment.own,
        cross_replace=config.cross_replace,
        self_replace=config.self_replace,
        cfg=config.cfg,
        **more,
    )


def _edited(case: EditCase, control: Control, inversion: Inversion | None = None) -> torch.Tensor:
    result = case.session.edit(inversion or case.inversion, case.target_prompt, control=control)
    return result.edited.latent


@torch.no_grad()
def _ddim(case: EditCase, config: EditsConfig) -> torch.Tensor:
    """DDIM inversion with prompt-to-prompt: the source is denoised again, with guidance, and drifts off.

    That is Direct Inversion on the path that the source takes then, instead of the one on which it was inverted.
    """
    trajectory = case.inversion.trajectory
    path = _denoised(case, trajectory.latents[-1], "source", config)
    drifted = replace(trajectory, latents=torch.stack(path[::-1]))
    control = _control(case, config, mask=case.mask)
    return _edited(case, control, replace(case.inversion, trajectory=drifted))


@torch.no_grad()
def _generate(case: EditCase, config: EditsConfig) -> torch.Tensor:
    """A new picture from the target prompt."""
    generator = torch.Generator().manual_seed(config.seed * 1_000_003 + case.number)
    return _denoised(case, torch.randn(case.latent.shape, generator=generator), "target", config)[-1]


def _denoised(case: EditCase, x: torch.Tensor, prompt: str, config: EditsConfig) -> list[torch.Tensor]:
    """All latents from ``x`` to the picture, by DDIM with guidance towards one of the prompts."""
    path = [x]
    schedule, stride = case.denoiser.schedule, case.denoiser.schedule.stride(config.steps)
    contexts = [case.contexts["negative"], case.contexts[prompt]]
    for t in case.inversion.trajectory.timesteps:
        eps = predict_noise(case.denoiser, path[-1].repeat(2, 1, 1, 1), t, contexts)
        eps_uncond, eps_cond = eps.chunk(2)
        eps = eps_uncond + config.cfg * (eps_cond - eps_uncond)
        path.append(ddim_step(path[-1], eps, schedule.abar(t), schedule.abar(t - stride)))
    return path


def _edit_friendly(case: EditCase, config: EditsConfig) -> torch.Tensor:
    """The editor of LLMGA's command line, with its own settings but the number of steps and the mask's noise maps."""
    settings = EditFriendly(steps=config.steps)
    source, target, negative = (case.contexts[name] for name in ("source", "target", "negative"))
    edited, _ = edit_friendly(
        case.denoiser, case.latent, source, target, negative, settings, seed=config.seed, mask=case.mask
    )
    return edited


METHODS: dict[str, Callable[[EditCase, EditsConfig], torch.Tensor]] = {
    "no edit": _nothing,
    "direct p2p": _direct,
    "direct p2p local blend": _direct_blend,
    "ddim p2p": _ddim,
    "generate": _generate,
    "edit-friendly": _edit_friendly,
}
