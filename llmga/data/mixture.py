"""Weighted mixture of datasets as a pure function of seed and index.

A trainer needs no iterator state: sample ``i`` is the same in every process, in every order, before and after a
restart. Within an epoch every part has exactly its share, and no record of a part repeats before all others came.

The paper gives "training ratios" (VQA 1, the others 0.3) and does not say of what. ``weights`` takes them as
probabilities, with an epoch that passes once over the first part; ``fraction`` as the share of each file that
an epoch sees. The released code joins its files once each, in full.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass, fields
from functools import lru_cache
from itertools import accumulate
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import numpy as np

from ..images import check_files
from .samples import SCHEMAS, DataTask, Sample, SampleOptions, make_sample
from .schemas import Edit, Record, Records

MixtureMode = Literal["weights", "fraction"]


@dataclass(frozen=True)
class Part:
    """One file of the mixture.

    Args:
        path: its json file.
        images: the folder of its pictures.
        task: what is made of its records.
        ratio: its weight, or the share of it that an epoch sees (above 1: several times); 0 leaves it out.
        fraction: the share of its records that is used at all: the same ones for every seed, and a smaller
            fraction uses a subset of a larger one's. For ablations on the amount of data.
    """

    path: Path
    images: Path
    task: DataTask
    ratio: float = 1.0
    fraction: float = 1.0

    def __post_init__(self) -> None:
        if self.task not in get_args(DataTask):
            raise ValueError(f"'task' must be one of {', '.join(get_args(DataTask))}, got {self.task!r}")
        if not _is_number(self.ratio) or not 0 <= self.ratio < math.inf:
            raise ValueError(f"'ratio' must be 0 or more, got {self.ratio!r}")
        if not _is_number(self.fraction) or not 0 < self.fraction <= 1:
            raise ValueError(f"'fraction' must be above 0 and at most 1, got {self.fraction!r}")


class Place(NamedTuple):
    """Where a sample comes from: a part's name and the record's index in its file."""

    part: str
    record: int


class Mixture:
    """Samples of several files; ``mixture[i]`` for any i ≥ 0, epoch after epoch of ``len(mixture)``.

    Raises:
        ValueError: there is nothing to mix, or a file is not as its task's schema says.
    """

    def __init__(
        self,
        parts: Mapping[str, Part],
        *,
        mode: MixtureMode = "weights",
        seed: int = 0,
        recipe: SampleOptions | None = None,
    ) -> None:
        if mode not in get_args(MixtureMode):
            raise ValueError(f"'mode' must be one of {', '.join(get_args(MixtureMode))}, got {mode!r}")
        if seed < 0:
            raise ValueError(f"'seed' must be 0 or more, got {seed}")
        self._parts = {name: part for name, part in parts.items() if part.ratio > 0}
        self._names = list(self._parts)
        self._seed = seed
        self._recipe = recipe or SampleOptions()
        self._records = {name: Records(part.path, SCHEMAS[part.task]) for name, part in self._parts.items()}
        self._sizes = [
            math.ceil(part.fraction * len(self._records[name])) for name, part in self._parts.items()
        ]
        if not self._parts or 0 in self._sizes:
            empty = next(
                (name for name, size in zip(self._names, self._sizes, strict=True) if not size), None
            )
            raise ValueError(
                f"{empty!r} holds no records" if empty else "the mixture holds no part with a ratio"
            )
        self._quotas = self._shares(mode)
        self._bounds = list(accumulate(self._quotas, initial=0))

    def __len__(self) -> int:
        """Samples in an epoch."""
        return self._bounds[-1]

    def __getitem__(self, index: int) -> Sample:
        """Sample number ``index`` since the start of training; beyond ``len`` it belongs to a later epoch.

        Raises:
            ValueError: the record is not as its schema says; the message names file, record and field.
        """
        name, number = self.place(index)
        part = self._parts[name]
        rng = np.random.default_rng((self._seed, len(self._parts) + 1, index))
        return make_sample(part.task, self._records[name][number], Path(part.images), self._recipe, rng)

    def __iter__(self) -> Iterator[Sample]:
        """The first epoch."""
        return (self[index] for index in range(len(self)))

    def check(self, pictures: bool = True) -> None:
        """Read every record of every file once, and look for the pictures of those that are used, so that a bad one is told
        before a run and not hours into it.

        Args:
            pictures: whether samples may show pictures.

        Raises:
            ValueError: one is not as its task's schema says, holds no answer, or shows a picture where none may be; the
                message names file and record.
            FileNotFoundError: pictures of a part are missing; the message says how many, and names its file.
        """
        rng = np.random.default_rng(0)
        for name, part in self._parts.items():
            used = self._used(name)
            wanted: list[Path] = []
            for index, record in enumerate(self._records[name].scan()):
                try:
                    sample = make_sample(part.task, record, Path(part.images), self._recipe, rng)
                except ValueError as error:
                    raise ValueError(f"{part.path}, record {index}: {error}") from error
                if sample.image is not None and not pictures:
                    raise ValueError(
                        f"{part.path}, record {index}: its {part.task} sample shows a picture, and the base reads words "
                        f"alone; set base to a model with a vision tower, or leave the part {name!r} out of mixture"
                    )
                if index in used and (path := self._picture(part, record, sample)):
                    wanted.append(path)
            check_files(wanted, part.path)

    def _used(self, name: str) -> Container[int]:
        """The numbers of the records of a part that its fraction leaves."""
        size, total = self._sizes[self._names.index(name)], len(self._records[name])
        return range(total) if size == total else set(_permutation(total, 0)[:size].tolist())

    def _picture(self, part: Part, record: Record, sample: Sample) -> Path | None:
        """The picture that samples of a record show, some of them at least; None if none does."""
        options = self._recipe
        if sample.image is None and isinstance(record, Edit) and options.edit_picture > 0:
            shows = record.caption is None or options.edit_caption < 1
            return Path(part.images) / record.image if shows else None
        return sample.image

    @property
    def quotas(self) -> dict[str, int]:
        """Samples of each part in an epoch."""
        return dict(zip(self._names, self._quotas, strict=True))

    def place(self, index: int) -> Place:
        """Where sample number ``index`` comes from."""
        if index < 0:
            raise IndexError(f"samples are counted from 0, got {index}")
        epoch, step = divmod(index, len(self))
        slot = int(_permutation(len(self), self._seed, 0, epoch)[step])
        k = bisect_right(self._bounds, slot) - 1
        # A part's own count goes on from epoch to epoch, round and round its records.
        draw = epoch * self._quotas[k] + slot - self._bounds[k]
        record = int(_permutation(self._sizes[k], self._seed, k + 1)[draw % self._sizes[k]])
        total = len(self._records[self._names[k]])
        if self._sizes[k] < total:
            record = int(_permutation(total, 0)[record])
        return Place(self._names[k], record)

    def path(self, part: str) -> Path:
        """The file of a part."""
        return self._parts[part].path

    def first_samples(self, count: int) -> dict[str, list[int]]:
        """By part the numbers of its first samples of an epoch, at most ``count`` of each."""
        found: dict[str, list[int]] = {name: [] for name in self._names}
        for index in range(len(self)):
            numbers = found[self.place(index).part]
            if len(numbers) < count:
                numbers.append(index)
                if all(len(found[n]) >= min(count, self.quotas[n]) for n in found):
                    break
        return found

    def _shares(self, mode: MixtureMode) -> list[int]:
        ratios = [part.ratio for part in self._parts.values()]
        per_ratio = [self._sizes[0] / ratios[0]] * len(ratios) if mode == "weights" else self._sizes
        return [max(1, round(ratio * count)) for ratio, count in zip(ratios, per_ratio, strict=True)]


def parts_from_dict(document: Mapping[str, Any], base: Path) -> dict[str, Part]:
    """Read ``{name: {"path": …, "ratio": …}}``, optionally with ``images``, ``task`` and ``fraction``.

    Paths are taken from ``base``; ``images`` defaults to it, and ``task`` to the name.

    Raises:
        ValueError: an entry is not as said; the message names it.
    """
    known = {field.name for field in fields(Part)}
    parts = {}
    for name, entry in document.items():
        if not isinstance(entry, Mapping) or not isinstance(entry.get("path"), str):
            raise ValueError(f"the mixture's {name!r} must be an object with a 'path'")
        if unknown := entry.keys() - known:
            raise ValueError(
                f"the mixture's {name!r} has an unknown field {min(unknown)!r}; known: {sorted(known)}"
            )
        if not isinstance(entry.get("images", ""), str):
            raise ValueError(f"the mixture's {name!r}: 'images' must be a folder, got {entry['images']!r}")
        paths = {"path": base / entry["path"], "images": base / entry.get("images", "")}
        try:
            parts[name] = Part(**{"task": name, **entry, **paths})
        except ValueError as error:
            raise ValueError(f"the mixture's {name!r}: {error}") from error
    return parts


class Preset(NamedTuple):
    """A published mixture, to be given to ``Mixture``."""

    parts: dict[str, Part]
    mode: MixtureMode


def preset(name: Literal["paper", "released-code"], data: Path) -> Preset:
    """The paper's mixture, or what its released code samples, over the folder ``data`` laid out as its README
    says.

    The released code loads Alpaca and never samples it; its questions and answers are LIMA and OASST2.
    """
    jsons, pictures = data / "jsons", data / "llmga-imgs"
    vqa = Part(jsons / "llava_v1_5_mix665k.json", data / "llava-imgs", "vqa")

    def text(file: str, ratio: float) -> Part:
        return Part(jsons / "text-data" / file, data, "qa", ratio)

    def tasks(ratio: float) -> dict[str, Part]:
        folders: dict[str, DataTask] = {"T2I": "t2i", "SG": "sg", "inpainting": "inpainting", "Edit": "edit"}
        return {
            task: Part(jsons / "llmga-data" / folder / "train.json", pictures, task, ratio)
            for folder, task in folders.items()
        }

    match name:
        case "paper":
            qa = text("alpaca_gpt4_sharegpt_en_clean2.json", 0.3)
            return Preset({"vqa": vqa, "qa": qa, **tasks(0.3)}, "weights")
        case "released-code":
            qas = {"lima": text("lima.json", 1.0), "oasst2": text("oasst2.json", 1.0)}
            return Preset({"vqa": vqa, **qas, **tasks(1.0)}, "fraction")
        case _:
            raise ValueError(f"the mixture preset must be 'paper' or 'released-code', got {name!r}")


# One for each part, and one for each epoch that is walked through at a time.
@lru_cache(maxsize=64)
def _permutation(count: int, *key: int) -> np.ndarray:
    return np.random.default_rng(key).permutation(count).astype(np.uint32)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
