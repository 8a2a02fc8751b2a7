"""The stages that every table goes through: prompts are written, pictures painted, features taken; each is kept as files.

Files are named after what they depend on (``cache_keys``), so rows that share a chat or a painter share its work, and a run
with other settings, weights or pictures beside an old one mixes nothing up.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from ..chat.engines.endpoint import EndpointError
from ..files.json_files import read_object
from ..files.writing import replacing, write_text
from ..images import read_picture
from .cache_keys import cache_key
from .embedders import EmbedderConfig, Request, load_embedder
from .extractors import Distance, Extractor
from .paint_jobs import JobPainter, PainterConfig, PaintJob
from .painters import load_painter
from .work import Alone, Processes, UnitProgress, chunked, run_units
from .writers import ChatConfig, EngineCalls, Writer, WrittenPrompt

FEATURE_CHUNK = 32
"""Pictures of one file of features."""

READING = "upright, 16 bits scaled"
"""How pictures are read; files that were made of pictures read in another way are not taken for these."""

Prepare = Callable[[Image.Image], Image.Image]
"""What is done to a picture before it is looked at."""


@dataclass(frozen=True)
class Row:
    """One line of a table: who writes the prompts and who paints them."""

    name: str
    chat: ChatConfig = field(default_factory=ChatConfig)
    painter: PainterConfig = field(default_factory=PainterConfig)
    embedder: EmbedderConfig = field(default_factory=EmbedderConfig)
    """Embeds what is asked for, instead of the chat. Only where pictures are painted from words."""
    restorer: str = ""
    """A DiffRIR file that restores what was filled in; empty for none. Only where holes are filled."""
    colour: bool = False
    """Match the colours of what was filled in to the picture, by a gain and a bias for each channel."""


@dataclass
class Stages:
    """The files of one run.

    Args:
        folder: holds all of them.
        among: the processes of the run.
        progress: from a stage's name to the callback for its progress.
    """

    folder: Path
    among: Processes = field(default_factory=Alone)
    progress: Callable[[str], UnitProgress] | None = None

    def __post_init__(self) -> None:
        self._painters: dict[str, JobPainter] = {}

    def write(
        self,
        name: str,
        keys: Sequence[str],
        chat: ChatConfig,
        write: Callable[[Writer, int], WrittenPrompt],
        *of: Any,
    ) -> list[WrittenPrompt]:
        """Prompts of all items, in their order.

        Args:
            name: of the stage, for a person.
            write: writes the prompt of the item of that number.
            of: what the prompts depend on beside the chat and the keys.
        """
        writer = Writer(chat)
        found = self.records(
            name, "prompts", keys, lambda i: asdict(write(writer, i)), chat, *of, calls=writer.calls
        )
        return [WrittenPrompt(**one) for one in found]

    def converse(
        self,
        name: str,
        keys: Sequence[str],
        chat: ChatConfig,
        converse: Callable[[Writer, int], list[WrittenPrompt]],
        *of: Any,
    ) -> list[list[WrittenPrompt]]:
        """As ``write``, of items that are conversations: the prompt of each of their turns."""
        writer = Writer(chat)

        def make(number: int) -> dict[str, Any]:
            return {"turns": [asdict(one) for one in converse(writer, number)]}

        found = self.records(name, "prompts", keys, make, chat, "turns", *of, calls=writer.calls)
        return [[WrittenPrompt(**turn) for turn in one["turns"]] for one in found]

    def embed(
        self,
        name: str,
        keys: Sequence[str],
        embedder: EmbedderConfig,
        requests: Callable[[int], Sequence[Request]],
        *of: Any,
    ) -> list[Path]:
        """Text states of all items, in their order: safetensors files that hold those of turn 0, 1, … under these names.

        Args:
            requests: the conversation of the item of that number.
        """
        folder = self.folder / "states" / cache_key(embedder, *of)
        paths = [folder / f"{safe(key)}.safetensors" for key in keys]
        load = lru_cache(1)(lambda: load_embedder(embedder))

        def do(number: int) -> None:
            from safetensors.torch import save_file

            asked = requests(number)
            states = {str(i): load().states(asked[: i + 1]).contiguous() for i in range(len(asked))}
            with replacing(paths[number]) as temporary:
                save_file(states, temporary)

        run_units(range(len(keys)), lambda i: paths[i].is_file(), do, self.among, self._hears(name))
        return paths

    def records(
        self,
        name: str,
        kind: str,
        keys: Sequence[str],
        make: Callable[[int], Mapping[str, Any]],
        *of: Any,
        calls: EngineCalls | None = None,
    ) -> list[dict[str, Any]]:
        """A JSON object for each item by a function of its number, in their order.

        Args:
            kind: the folder below this one that holds such files.
            calls: of the engine that ``make`` asks. Where they end the run, the items of the failing row are not kept, and
                are asked for again when the run goes on.
        """
        folder = self.folder / kind / cache_key(*of)
        paths = [folder / f"{safe(key)}.json" for key in keys]

        row: list[Path] = []  # of items that an endpoint failed, up to now

        def do(number: int) -> None:
            try:
                made = make(number)
            except EndpointError:
                for path in row:
                    path.unlink(missing_ok=True)
                raise
            write_text(paths[number], json.dumps(made, ensure_ascii=False))
            row[:] = [*row, paths[number]] if calls and calls.failed_in_a_row else []

        run_units(range(len(keys)), lambda i: paths[i].is_file(), do, self.among, self._hears(name))
        return [read_object(path) for path in paths]

    def paint(
        self,
        name: str,
        keys: Sequence[str],
        painter: PainterConfig,
        job: Callable[[int], PaintJob],
        finish: Callable[[int, Image.Image], Image.Image] | None = None,
        *of: Any,
    ) -> list[Path]:
        """Pictures of all items, in their order, as PNG files.

        Args:
            job: the job of the item of that number.
            finish: applied to the painted picture of that number, such as pasting; None leaves it as it is.
            of: what the pictures depend on beside painter and keys: prompts, sizes, seeds.
        """
        folder = self.folder / "pictures" / cache_key(painter, *of)
        paths = [folder / f"{safe(key)}.png" for key in keys]

        def do(unit: Sequence[int]) -> None:
            made = self._painter(painter).paint([job(number) for number in unit])
            for number, picture in zip(unit, made, strict=True):
                save_picture(paths[number], finish(number, picture) if finish else picture)

        units = chunked(range(len(keys)), painter.batch)
        run_units(
            units, lambda unit: all(paths[i].is_file() for i in unit), do, self.among, self._hears(name)
        )
        return paths

    def map_pictures(
        self, name: str, keys: Sequence[str], make: Callable[[int], Image.Image], *of: Any
    ) -> list[Path]:
        """One picture for each item by a function of its number, as ``paint`` keeps them."""
        folder = self.folder / "pictures" / cache_key(*of)
        paths = [folder / f"{safe(key)}.png" for key in keys]
        run_units(
            range(len(keys)),
            lambda i: paths[i].is_file(),
            lambda i: save_picture(paths[i], make(i)),
            self.among,
            self._hears(name),
        )
        return paths

    def features(
        self, extractor: Extractor, pictures: Sequence[Path], *of: Any, prepare: Prepare | None = None
    ) -> dict[str, torch.Tensor]:
        """The outputs (N, d) float64 of an extractor for pictures, in their order.

        Args:
            of: what the pictures depend on, where their paths do not say it.
            prepare: what is done to a picture first, such as resizing.
        """
        folder = self.folder / "features" / cache_key(READING, extractor.digest, [*pictures], *of)
        units = list(enumerate(chunked(pictures, FEATURE_CHUNK)))
        paths = [folder / f"{number:06d}.safetensors" for number, _ in units]

        def do(unit: tuple[int, list[Path]]) -> None:
            from safetensors.torch import save_file

            found: dict[str, list[torch.Tensor]] = {}
            # One at a time: sizes may differ, and a batch would change the last bits.
            for path in unit[1]:
                for key, value in extractor.images([_opened(path, prepare)]).items():
                    found.setdefault(key, []).append(value)
            with replacing(paths[unit[0]]) as temporary:
                save_file({key: torch.cat(values) for key, values in found.items()}, temporary)

        run_units(units, lambda unit: paths[unit[0]].is_file(), do, self.among, self._hears(extractor.name))
        return _joined_files(paths)

    def distances(
        self,
        metric: Distance,
        pictures: Sequence[Path],
        others: Sequence[Path],
        *of: Any,
        prepare: Prepare | None = None,
    ) -> torch.Tensor:
        """(N,) float64: the perceptual distance of each picture from its other; see ``features``."""
        key = cache_key(READING, metric.digest, [*pictures], [*others], *of)
        folder = self.folder / "distances" / key
        units = list(enumerate(chunked(list(zip(pictures, others, strict=True)), FEATURE_CHUNK)))
        paths = [folder / f"{number:06d}.safetensors" for number, _ in units]

        def do(unit: tuple[int, list[tuple[Path, Path]]]) -> None:
            from safetensors.torch import save_file

            found = []
            for pair in unit[1]:
                one, other = (_opened(path, prepare) for path in pair)
                found.append(metric.pairs([one], [other.resize(one.size, Image.Resampling.BICUBIC)]))
            with replacing(paths[unit[0]]) as temporary:
                save_file({"distance": torch.cat(found)}, temporary)

        run_units(units, lambda unit: paths[unit[0]].is_file(), do, self.among, self._hears(metric.name))
        return _joined_files(paths)["distance"]

    def _painter(self, config: PainterConfig) -> JobPainter:
        key = cache_key(config)
        if key not in self._painters:
            self._painters.clear()  # one at a time in memory
            self._painters[key] = load_painter(config)
        return self._painters[key]

    def _hears(self, name: str) -> UnitProgress | None:
        return self.progress(name) if self.progress else None


def safe(key: str) -> str:
    """A key as a file name: letters, digits, ``-`` and ``_`` stay, and a hash keeps keys with other characters apart."""
    kept = "".join(c if c.isascii() and (c.isalnum() or c in "-_.") else "_" for c in key)[:80].lstrip(".")
    return kept if kept == key else f"{kept}-{cache_key(key)[:8]}"


def save_picture(path: Path, picture: Image.Image) -> None:
    """Write an RGB picture as PNG in one move."""
    with replacing(path) as temporary:
        picture.convert("RGB").save(temporary, "PNG")


def centre_square(side: int) -> Prepare:
    """A function that cuts the largest square out of a picture's middle and resizes it to ``side`` pixels."""

    def prepare(picture: Image.Image) -> Image.Image:
        short = min(picture.size)
        left, top = ((length - short) // 2 for length in picture.size)
        square = picture.crop((left, top, left + short, top + short))
        return square if short == side else square.resize((side, side), Image.Resampling.LANCZOS)

    return prepare


def faults(written: Sequence[WrittenPrompt]) -> list[str]:
    """What a table must say of replies without a prompt: how many, and the first reason."""
    found = [one.fault for one in written if one.fault]
    return [f"{len(found)} of {len(written)} prompts were not written ({found[0][:120]})"] if found else []


def _opened(path: Path, prepare: Prepare | None) -> Image.Image:
    seen = read_picture(path)
    return prepare(seen) if prepare else seen


def _joined_files(paths: Iterable[Path]) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    parts = [load_file(path) for path in paths]
    return {key: torch.cat([part[key] for part in parts]).double() for key in (parts[0] if parts else {})}
