"""Training samples of the language model, made from records: turns, the image, and the hole in it.

All randomness comes from one generator, so a sample is a function of record and generator.

Source: LLMGA 7e32eb6, ``llava/datasets/*.py``. Deviations: an edit shows its picture (the released loader
loads it and inserts no ``<image>``, as ``edit_picture`` 0 does) or, as in the paper, begins with the caption of the
picture instead; of an instruction only a full stop is dropped (theirs: any last character); the hole fits pictures
of any shape (theirs: squares).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, get_args

import numpy as np
from PIL import Image

from ..images import read_picture
from ..paint.masks import MIXES, Borders, MaskMix, MaskShape
from .schemas import IMAGE_MARK, Caption, Dialogue, Edit, Record, Refinement
from .templates import Language, TemplateRole, pick, tagged

DataTask = Literal["vqa", "qa", "t2i", "sg", "inpainting", "edit"]


@dataclass(frozen=True)
class SampleTurn:
    """One turn of a sample. With ``shows_image`` the image comes before the text."""

    role: Literal["user", "assistant"]
    text: str
    shows_image: bool = False


@dataclass(frozen=True)
class RandomHole:
    """A random hole that is drawn once the size of its image is known."""

    shape: MaskShape
    seed: int

    def mask(self, height: int, width: int) -> np.ndarray:
        """(height, width) float32, 1 = hole; the same for the same size."""
        return self.shape.draw(np.random.default_rng(self.seed), height, width)


@dataclass(frozen=True)
class Sample:
    """One training conversation: user and assistant take turns, the assistant's are learned.

    Args:
        turns: user first, assistant last.
        image: the file of the picture that one user turn shows, or None.
        hole: what is painted black in it, or None.
        system: the record's own system text; empty where it has none.
    """

    turns: tuple[SampleTurn, ...]
    image: Path | None = None
    hole: RandomHole | None = None
    system: str = ""

    def picture(self) -> Image.Image | None:
        """The picture as the model sees it: RGB, upright, its hole black; size and aspect as in the file."""
        if self.image is None:
            return None
        picture = read_picture(self.image)
        if self.hole is not None:
            hole = self.hole.mask(picture.height, picture.width)
            picture.paste((0, 0, 0), mask=Image.fromarray((hole * 255).astype(np.uint8)))
        return picture


@dataclass(frozen=True)
class SampleOptions:
    """Probabilities and choices of the wording when a record becomes a sample.

    Args:
        tag: ``gen_image`` (released code and weights) or ``gen_img`` (paper).
        languages: of the instructions, all equally likely; the records bring the captions.
        similar: probability that ``sg`` asks for a similar picture; else for a description, answered without
            tags.
        generate: probability that ``t2i`` asks for a picture; else to write the caption out, without tags.
        behind: probability that the ``t2i`` instruction comes behind the short caption.
        edit_caption: probability that an edit begins with the caption, where the record has one; else with
            the picture.
        edit_picture: probability that an edit that begins with no caption shows its picture; else it is words alone,
            as in the released code.
        holes: of ``inpainting``; borders are asked for as outpainting.
    """

    tag: Literal["gen_image", "gen_img"] = "gen_image"
    languages: tuple[Language, ...] = ("en",)
    similar: float = 0.7
    generate: float = 0.5
    behind: float = 0.5
    edit_caption: float = 0.5
    edit_picture: float = 1.0
    holes: MaskMix = MIXES["stage1"]

    def __post_init__(self) -> None:
        if self.tag not in ("gen_image", "gen_img"):
            raise ValueError(f"'tag' must be 'gen_image' or 'gen_img', got {self.tag!r}")
        if not self.languages or not set(self.languages) <= set(get_args(Language)):
            raise ValueError(f"'languages' must hold some of {get_args(Language)}, got {self.languages!r}")
        for name in ("similar", "generate", "behind", "edit_caption", "edit_picture"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name!r} must be a probability, got {getattr(self, name)!r}")


def make_sample(
    task: DataTask, record: Record, images: Path, recipe: SampleOptions, rng: np.random.Generator
) -> Sample:
    """Make the sample of a task from a record of its schema (see ``SCHEMAS``).

    Args:
        images: the folder that the record's ``image`` lies under; it is not looked at.

    Raises:
        ValueError: the dialogue holds no answer.
    """
    return _MAKERS[task](record, images, recipe, rng)


def _dialogue(record: Dialogue, images: Path, recipe: SampleOptions, rng: np.random.Generator) -> Sample:
    # Long ShareGPT talks were cut into pieces, so one may begin with an answer or end with a question.
    messages = list(record.messages)
    if messages[0].speaker == "gpt":
        messages.pop(0)
    if messages and messages[-1].speaker == "human":
        messages.pop()
    if not messages:
        raise ValueError(f"the dialogue {record.id!r} holds no question with an answer")
    turns = []
    for message in messages:
        if message.speaker == "gpt":
            turns.append(SampleTurn("assistant", message.value))
        elif record.image and IMAGE_MARK in message.value:
            turns.append(SampleTurn("user", message.value.replace(IMAGE_MARK, "").strip(), shows_image=True))
        else:
            turns.append(SampleTurn("user", message.value))
    shown = any(turn.shows_image for turn in turns)
    image = images / record.image if record.image and shown else None
    return Sample(tuple(turns), image, system=record.system or "")


def _refinement(record: Refinement, images: Path, recipe: SampleOptions, rng: np.random.Generator) -> Sample:
    generate, behind = rng.random() < recipe.generate, rng.random() < recipe.behind
    role: TemplateRole = "expand" if not generate else "generate_behind" if behind else "generate_before"
    parts = (record.ori_caption, _say(role, recipe, rng))
    asked = " ".join(parts if behind else reversed(parts))
    return Sample(_exchange(asked, record.caption, recipe, tags=generate))


def _similar(record: Caption, images: Path, recipe: SampleOptions, rng: np.random.Generator) -> Sample:
    generate = rng.random() < recipe.similar
    asked = _say("similar" if generate else "describe", recipe, rng)
    return Sample(_exchange(asked, record.caption, recipe, tags=generate, image=True), images / record.image)


def _inpainting(record: Caption, images: Path, recipe: SampleOptions, rng: np.random.Generator) -> Sample:
    hole = RandomHole(recipe.holes.pick(rng), int(rng.integers(2**63)))
    asked = _say("outpaint" if isinstance(hole.shape, Borders) else "inpaint", recipe, rng)
    return Sample(_exchange(asked, record.caption, recipe, image=True), images / record.image, hole)


def _edit(record: Edit, images: Path, recipe: SampleOptions, rng: np.random.Generator) -> Sample:
    instruction = record.instruction.strip().rstrip(".。")
    if rng.random() < recipe.edit_caption and record.caption is not None:
        return Sample(_exchange(f"{record.caption} {instruction}", record.new_caption, recipe))
    if recipe.edit_picture < 1 and rng.random() >= recipe.edit_picture:  # without a choice nothing is drawn
        return Sample(_exchange(instruction, record.new_caption, recipe))
    return Sample(_exchange(instruction, record.new_caption, recipe, image=True), images / record.image)


def _say(role: TemplateRole, recipe: SampleOptions, rng: np.random.Generator) -> str:
    return pick(role, recipe.languages[rng.integers(len(recipe.languages))], rng)


def _exchange(
    asked: str, caption: str, recipe: SampleOptions, *, tags: bool = True, image: bool = False
) -> tuple[SampleTurn, ...]:
    answer = tagged(caption, recipe.tag) if tags else caption
    return SampleTurn("user", asked, image), SampleTurn("assistant", answer)


SCHEMAS: Mapping[DataTask, type[Record]] = MappingProxyType(
    {"vqa": Dialogue, "qa": Dialogue, "t2i": Refinement, "sg": Caption, "inpainting": Caption, "edit": Edit}
)
"""The record type that each task reads."""

_MAKERS: Mapping[DataTask, Callable[[Any, Path, SampleOptions, np.random.Generator], Sample]] = (
    MappingProxyType(
        {
            "vqa": _dialogue,
            "qa": _dialogue,
            "t2i": _refinement,
            "sg": _similar,
            "inpainting": _inpainting,
            "edit": _edit,
        }
    )
)
