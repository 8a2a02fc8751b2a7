"""Held-out pictures with holes, and the words of a user for what is missing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import torch
from PIL import Image

from ..world.captions import detailed_caption, short_caption, vague_caption
from ..world.dataset import as_images
from ..world.records import covered, hidden, sample_hole
from ..world.render import Masks, render
from ..world.scene import PLACES, UNIT, Scene, Thing, sample_scene
from .chat import each_in_processes, prompt_for

Kind = Literal["inpaint", "outpaint"]
KINDS: tuple[Kind, ...] = get_args(Kind)


@dataclass(frozen=True)
class HolesConfig:
    pictures: int = 512
    """Of either kind of hole."""
    steps: int = 20
    guidance: float = 4.0
    batch: int = 32
    temperature: float = 0.2
    """Of the chat."""
    seed: int = 19


@dataclass(frozen=True, eq=False)
class Hole:
    """A picture with a hole.

    Args:
        picture: (S, S, 3) uint8, whole.
        mask: (S, S), True in the hole.
        missing: the objects that it hides.
    """

    kind: Kind
    number: int
    scene: Scene
    picture: np.ndarray
    mask: Masks
    missing: tuple[Thing, ...]

    @property
    def wish(self) -> str:
        """What a user says is missing: the shapes, and about half of what else there is to say of them."""
        return vague_caption(replace(self.scene, objects=self.missing), self.number)

    @property
    def masked(self) -> Image.Image:
        """The picture with its hole in black."""
        return Image.fromarray(np.where(self.mask[..., None], 0, self.picture).astype(np.uint8))

    @property
    def places(self) -> tuple[str, ...]:
        """Those in the hole: where objects are missing, and empty ones whose middle it covers."""
        missing = {thing.place for thing in self.missing}
        free = {*covered(self.mask)}.difference(thing.place for thing in self.scene.objects)
        return tuple(place for place in PLACES if place in missing | free)


def sample_holes(kind: Kind, config: HolesConfig, size: int = UNIT) -> list[Hole]:
    """Validation scenes of two to six objects, with holes that hide one of them at least, in pictures of
    ``size`` pixels."""
    found: list[Hole] = []
    seed = config.seed * 10_000_000
    while len(found) < config.pictures:
        seed += 1
        scene, mask = sample_scene(seed, (2, 6), "validation"), sample_hole(kind, seed, size)
        rendering = render(scene, size)
        if missing := hidden(scene, rendering, mask):
            found.append(Hole(kind, seed, scene, np.asarray(rendering.image), mask, missing))
    return found


Prompts = Callable[[Sequence[Hole]], list[str]]


def prompters(chat: Path, config: HolesConfig, workers: int = 0) -> dict[str, Prompts]:
    """Ways to a prompt, by name: the user's words as they are; what the chat, a transformers folder, makes of these and
    the picture; and two that are told the truth, in one line and in detail."""
    ask = partial(prompt_for, chat, config.temperature)
    return {
        "short": lambda holes: [hole.wish for hole in holes],
        "chat": lambda holes: each_in_processes(
            ask, [(hole.kind, hole.wish, hole.masked, hole.number) for hole in holes], workers, "prompts"
        ),
        "truth, short": lambda holes: [short_caption(hole.scene, hole.number) for hole in holes],
        "truth, detailed": lambda holes: [
            detailed_caption(hole.scene, hole.number, order="reading") for hole in holes
        ],
    }


def truth_of(holes: Sequence[Hole]) -> torch.Tensor:
    """The pictures as they were, (B, 3, S, S) in 0 .. 1."""
    return as_images(torch.from_numpy(np.stack([hole.picture for hole in holes]))) / 2 + 0.5


def masks_of(holes: Sequence[Hole]) -> torch.Tensor:
    """(B, 1, S, S), 1 in the hole."""
    return torch.from_numpy(np.stack([hole.mask for hole in holes]))[:, None].float()


def pasted(made: torch.Tensor, holes: Sequence[Hole]) -> torch.Tensor:
    """Pictures as they were, with what was made in their holes."""
    return torch.where(masks_of(holes) > 0, made, truth_of(holes))
