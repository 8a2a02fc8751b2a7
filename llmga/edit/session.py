"""EditSession: edit a real picture by two prompts in one call, from the picture to the edited picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Generic

import torch

from ..diffusion.denoiser import CELL, Denoiser, DenoiserRunner
from ..diffusion.diffusers_unet import DiffusersDenoiser
from ..diffusion.schedule import Schedule
from ..text import CLIPPromptEncoder, JoinLayout, Plans, PromptEncoder, dropped_line, longest, readout
from ..text.chunks import CONTENT, TRAINED_CHUNKS
from ..text.encoder import Context
from .codec import DiffusersCodec, LatentCodec
from .control import Control
from .editor import Edited, edit
from .fit import fit_edit_mask, fit_image, mask_cells
from .heatmaps import word_maps
from .inversion import OnStep, Trajectory, invert, silent
from .phrases import locate
from .prompt_to_prompt import BlendOption, PromptToPromptOptions, ResolvedEdit, build_control

STEPS = 50
"""The number of steps that the method was published with."""


@dataclass(frozen=True)
class EditSettings:
    """How strongly an edit changes a picture; see ``Control``."""

    cfg: float = 7.5
    cross_replace: float = 0.4
    self_replace: float = 0.6
    local_blend: BlendOption = "auto"
    options: PromptToPromptOptions = field(default_factory=PromptToPromptOptions)


@dataclass(frozen=True, eq=False)
class Inversion:
    """Inverted pictures, and how their prompt was read."""

    trajectory: Trajectory
    prompt: str
    layout: JoinLayout
    max_chunks: int
    readout: str
    """How many tokens and chunks the prompt has, where it was cut, and what was left out."""

    def __str__(self) -> str:
        """What was inverted, for a person to read."""
        height, width = self.pixels
        return f"an inversion of {width}×{height} pixels: {self.prompt}\n{self.readout}"

    @property
    def pixels(self) -> tuple[int, int]:
        """Height and width of the pictures."""
        height, width = self.trajectory.latents.shape[-2:]
        return height * CELL, width * CELL

    @property
    def report(self) -> str:
        """The steps and the prompt in words."""
        lines = [f"{self.trajectory.steps} steps", f"source prompt: {self.readout}"]
        if not self.prompt.strip():
            lines.append("source_prompt is empty: no word can be kept or changed by an edit")
        return "\n".join(lines)


@dataclass(frozen=True, eq=False)
class EditResult:
    """An edited latent, and how the prompts were read."""

    edited: Edited
    notes: tuple[str, ...]
    """Which words were carried over, and what was not found."""


@dataclass(frozen=True, eq=False)
class WordMaps:
    """Heat maps of the phrases that occur in a prompt."""

    heat: torch.Tensor
    """(phrases, B, h, w) in 0 .. 1, each map divided by its largest value."""
    tokens: dict[str, int]
    """How many tokens each phrase has, all its occurrences together; in the order of the maps."""
    missing: tuple[str, ...]
    """The phrases that do not occur."""

    @property
    def report(self) -> str:
        """Which map is of which phrase, and which phrases were not found."""
        lines = [
            f"map {i}: {phrase} ({count} tokens)" for i, (phrase, count) in enumerate(self.tokens.items(), 1)
        ]
        lines += [f"{phrase!r} does not occur in the source prompt" for phrase in self.missing]
        return "\n".join(lines)


class EditSession(Generic[Context]):
    """A model, its text encoder and its autoencoder, set up to edit pictures.

    Args:
        runner: runs work on a denoiser, with prompts as ``encoder`` encodes them; a ``DiffusersDenoiser`` is one.
        encoder: also says in which layout prompts are read, and how many chunks of them.
        codec: pictures to latents and back; only ``edit_image`` needs it.
    """

    def __init__(
        self, runner: DenoiserRunner, encoder: PromptEncoder[Context], codec: LatentCodec | None = None
    ) -> None:
        self.runner, self.encoder, self.codec = runner, encoder, codec

    @classmethod
    def from_pipeline(
        cls, pipeline: Any, layout: JoinLayout = "llmga", max_chunks: int = TRAINED_CHUNKS
    ) -> EditSession[Any]:
        """A session on the networks of a diffusers Stable Diffusion or Stable Diffusion XL pipeline.

        Raises:
            ValueError: its UNet does not take latents of 4 channels, or it predicts neither noise nor v.
        """
        second = getattr(pipeline, "text_encoder_2", None) is not None
        tokenizers = (pipeline.tokenizer, pipeline.tokenizer_2) if second else (pipeline.tokenizer,)
        text_encoders = (
            (pipeline.text_encoder, pipeline.text_encoder_2) if second else (pipeline.text_encoder,)
        )
        schedule = Schedule(pipeline.scheduler.alphas_cumprod)
        prediction = pipeline.scheduler.config.prediction_type
        return EditSession(
            DiffusersDenoiser(pipeline.unet, schedule, prediction),
            CLIPPromptEncoder(tokenizers, text_encoders, layout, max_chunks),
            DiffusersCodec(pipeline.vae),
        )

    def edit_image(
        self,
        image: torch.Tensor,
        source_prompt: str,
        target_prompt: str,
        settings: EditSettings | None = None,
        *,
        steps: int = STEPS,
        negative_prompt: str = "",
        mask: torch.Tensor | None = None,
        on_step: OnStep = silent,
    ) -> tuple[torch.Tensor, EditResult]:
        """Change pictures as their prompt is changed: invert them, and denoise them again with the target prompt.

        Args:
            image: (B, H, W, 3) in 0 .. 1; its sides are cut to multiples of 8 pixels.
            source_prompt: what the pictures show.
            target_prompt: what they shall show; best the source prompt with few words changed.
            mask: (B or 1, H, W), above 0 where the picture may change; None: everywhere.
            on_step: ``on_step(i, 2 · steps, preview)`` after each step; may raise.

        Returns:
            (B, H', W', 3) float32 in 0 .. 1, and the result as a latent with its mask and notes.

        Raises:
            ValueError: there is no codec, the picture is too small, or a setting is out of range.
        """
        if self.codec is None:
            raise ValueError("this session has no codec, so it edits latents: use invert and edit")
        pixels, _ = fit_image(image)
        inversion = self.invert(
            self.codec.encode(pixels),
            source_prompt,
            steps,
            min_chunks=longest(self.encoder.plan(target_prompt)),
            on_step=lambda i, n, preview=None: on_step(i, 2 * n, preview),
        )
        result = self.edit(
            inversion,
            target_prompt,
            settings,
            negative_prompt=negative_prompt,
            mask=None if mask is None else fit_edit_mask(mask, inversion.pixels),
            on_step=lambda i, n, preview=None: on_step(n + i, 2 * n, preview),
        )
        return self.codec.decode(result.edited.latent), result

    def invert(
        self,
        latent: torch.Tensor,
        prompt: str,
        steps: int = STEPS,
        *,
        min_chunks: int = 1,
        on_step: OnStep = silent,
    ) -> Inversion:
        """Invert pictures.

        Args:
            latent: (B, 4, h, w).
            prompt: what the pictures show.
            min_chunks: pads the prompt to so many chunks, so that it is read as beside a longer one.
            on_step: ``on_step(i, steps)`` after each step; may raise.

        Raises:
            ValueError: see ``inversion.invert``.
        """
        plans = self.encoder.plan(prompt)
        prompts = {"source": self.encoder.encode(plans, max(min_chunks, longest(plans)))}

        def work(denoiser: Denoiser, contexts: dict[str, Any]) -> Trajectory:
            return invert(denoiser, latent, contexts["source"], steps, on_step)

        trajectory = self.runner.run(prompts, latent.shape, work)
        return Inversion(
            trajectory, prompt, self.encoder.layout, self.encoder.max_chunks, readout(plans["l"])
        )

    def edit(
        self,
        inversion: Inversion,
        target_prompt: str,
        settings: EditSettings | None = None,
        *,
        negative_prompt: str = "",
        mask: torch.Tensor | None = None,
        control: Control | None = None,
        on_step: OnStep = silent,
    ) -> EditResult:
        """Edit inverted pictures; where nothing differs between the prompts they are given back as they were.

        Args:
            mask: (B or 1, H, W) at any size, above 0 where the picture may change; None: everywhere.
            control: instead of the one that ``settings``, ``mask`` and the prompts resolve to.
            on_step: ``on_step(i, steps, preview)`` after each step; may raise.

        Raises:
            ValueError: the inversion was made in another layout, ``mask`` and ``control`` are both given, or see
                ``build_control`` and ``editor.edit``.
        """
        if inversion.layout != self.encoder.layout:
            raise ValueError(
                f"the inversion was made in the layout {inversion.layout}, and this session has {self.encoder.layout}"
            )
        trajectory = inversion.trajectory
        source, target = self.encoder.plan(inversion.prompt), self.encoder.plan(target_prompt)
        notes = self._left_out(source, target, negative_prompt)
        if control is None:
            resolved = self._resolve(source, target, settings or EditSettings(), trajectory, mask)
            if resolved.changes_nothing and not negative_prompt.strip():
                return _unchanged(trajectory, notes)
            control, notes = resolved.control, resolved.notes + notes
        elif mask is not None:
            raise ValueError("mask and control are both given; a control has a mask of its own")

        if control.cfg == 1 and negative_prompt.strip():
            notes += ("the negative prompt has no effect at cfg 1",)

        def work(denoiser: Denoiser, contexts: dict[str, Any]) -> Edited:
            chosen = (contexts["source"], contexts["target"], contexts["negative"])
            return edit(denoiser, trajectory, *chosen, control, on_step)

        prompts = self.encode_prompts(source, target, negative_prompt)
        return EditResult(self.runner.run(prompts, trajectory.latents.shape[1:], work), notes)

    def encode_prompts(self, source: Plans, target: Plans, negative_prompt: str = "") -> dict[str, Context]:
        """Encode the prompts of an edit at one length: ``source``, ``target`` and ``negative``."""
        chunks = longest(source, target)
        prompts = {
            "source": self.encoder.encode(source, chunks),
            "target": self.encoder.encode(target, chunks),
        }
        prompts["negative"] = self.encoder.encode_negative(negative_prompt, chunks, prompts["target"])
        return prompts

    def word_maps(
        self,
        inversion: Inversion,
        phrases: Sequence[str],
        steps: int = 10,
        on_step: OnStep = silent,
        up_only: bool = False,
    ) -> WordMaps:
        """Compute a heat map of each phrase that occurs in the prompt of inverted pictures.

        Args:
            steps: how many steps of the inversion are evaluated, evenly spread.
            on_step: ``on_step(i, n)`` after each; may raise.
            up_only: look at the UNet's up blocks alone, see ``heatmaps.word_maps``.

        Raises:
            ValueError: none of the phrases occurs.
        """
        plans = self.encoder.plan(inversion.prompt)
        found: dict[str, list[int]] = {}
        for phrase in dict.fromkeys(phrases):
            places = locate(plans["l"], phrase, self.encoder.layout)
            found[phrase] = [position for place in places for position in place]
        positions = {phrase: at for phrase, at in found.items() if at}
        if not positions:
            raise ValueError(
                f"words must name words of the source prompt, got {', '.join(phrases)[:60]!r}, none of which occurs in it"
            )

        def work(denoiser: Denoiser, contexts: dict[str, Any]) -> torch.Tensor:
            chosen = list(positions.values())
            return word_maps(
                denoiser, inversion.trajectory, contexts["source"], chosen, steps, on_step, up_only
            )

        prompts = {"source": self.encoder.encode(plans)}
        heat = self.runner.run(prompts, inversion.trajectory.latents.shape[1:], work)
        missing = tuple(phrase for phrase, at in found.items() if not at)
        return WordMaps(heat, {phrase: len(at) for phrase, at in positions.items()}, missing)

    def _left_out(self, source: Plans, target: Plans, negative_prompt: str) -> tuple[str, ...]:
        """What of the target and the negative prompt is not encoded; the inversion's report says it of the source."""
        chunks = longest(source, target)
        negative = self.encoder.plan_negative(negative_prompt, chunks)
        limits = {
            "target": (
                target,
                f"the {self.encoder.max_chunks} chunks of {CONTENT} tokens that a prompt may have",
            ),
            "negative": (negative, f"the {chunks} × {CONTENT} tokens of source and target prompt"),
        }
        return tuple(
            f"{name} prompt: {dropped_line(plans['l'], limit)}"
            for name, (plans, limit) in limits.items()
            if plans["l"].dropped
        )

    def _resolve(
        self,
        source: Plans,
        target: Plans,
        settings: EditSettings,
        trajectory: Trajectory,
        mask: torch.Tensor | None,
    ) -> ResolvedEdit:
        height, width = trajectory.latents.shape[-2:]
        return build_control(
            settings.options,
            source["l"],
            target["l"],
            self.encoder.layout,
            size=(height, width),
            cross_replace=settings.cross_replace,
            self_replace=settings.self_replace,
            cfg=settings.cfg,
            local_blend=settings.local_blend,
            mask=None if mask is None else mask_cells(mask, (height, width)),
        )


def _unchanged(trajectory: Trajectory, notes: tuple[str, ...]) -> EditResult:
    latent = trajectory.latents[0].clone()  # the inversion is kept for further edits
    mask = torch.zeros(len(latent), 1, *latent.shape[-2:])
    note = "no word differs and none has a weight: the picture is kept as it is"
    return EditResult(Edited(latent, mask, rows=0), (note, *notes))
