"""Does an edit do what it says and nothing else: held-out edits of the miniature world, by each way to edit."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

from ..images import to_pil
from ..train.checkpoint import write_text
from .check import Rate
from .dataset import ATTRIBUTES
from .editors import METHODS, EditsConfig, MiniatureEditor, picture
from .edits import Edit, Kind, sample_edit
from .reader import Reader, Reading
from .recipe import plain
from .world import BACKGROUNDS, PLACES, Thing, sample_scene

KINDS: tuple[Kind, ...] = ("recolour", "reshape", "resize", "add", "remove", "background")
RESULT = "check_edits.json"
_JUDGED = {
    "recolour": ("colour",),
    "reshape": ("shape",),
    "resize": ("size",),
    "add": ("colour", "shape"),
}
_KEPT = ("colour", "shape", "size")
"""Not the texture, which the autoencoder blurs: through it, the reader finds 0.68 of the true ones."""
_MOST = 60.0  # dB, beyond which no picture of 8 bits shows a difference
_SHEET = 12


@dataclass(frozen=True)
class Judgement:
    """One edited picture; decibels outside what the edit may change, for a new background on the objects."""

    method: str
    kind: str
    detailed: bool
    right: bool
    kept: int
    untouched: int
    to_input: float
    to_reconstruction: float


def sample_edits(config: EditsConfig) -> Iterator[tuple[Edit, bool]]:
    """Edits of validation scenes, and whether with detailed captions: 1 to 3 objects with short ones, 2 to 4 with
    detailed ones, all in turns."""
    seed = config.seed * 10_000_000
    for number in range(config.edits):
        kind, detailed = KINDS[number % len(KINDS)], number // len(KINDS) % 3 == 2
        while True:
            seed += 1
            scene = sample_scene(seed, (2, 4) if detailed else (1, 3), "validation")
            try:
                found = sample_edit(scene, seed, kind)
            except ValueError:  # this scene allows none of the kind
                continue
            yield found, detailed
            break


def check_edits(
    out: Path,
    config: EditsConfig,
    methods: Sequence[str] = tuple(METHODS),
    on_step: Callable[..., object] | None = None,
) -> list[Judgement]:
    """Make every edit by every method and judge it; writes ``check_edits.json`` and a sheet of the first edits.

    Args:
        out: the folder of the models.
        on_step: ``on_step(i, n)`` after each edit; may raise.

    Raises:
        FileNotFoundError: a model is missing.
        ValueError: a method is unknown.
    """
    unknown = [method for method in methods if method not in METHODS]
    if unknown:
        raise ValueError(f"methods must be of {', '.join(METHODS)}; got {', '.join(unknown)}")
    editor, found, sheet = MiniatureEditor(out), [], []
    for number, (wanted, detailed) in enumerate(sample_edits(config)):
        case = editor.case(number, wanted, detailed, config)
        before, reconstruction = picture(wanted.source), editor.decode(case.latent)
        row = [before]
        for method in methods:
            made = editor.decode(METHODS[method](case, config))
            row.append(made)
            found.append(judge(method, wanted, detailed, editor.reader, made, before, reconstruction))
        if number < _SHEET:
            sheet.append(torch.cat(row, -1))
        if number + 1 in (_SHEET, config.edits):
            _write_sheet(sheet, out / "pictures" / "edits.png")
        if on_step:
            on_step(number + 1, config.edits)
        document = {"config": asdict(config), "results": plain(results(found)), "edits": plain(found)}
        write_text(out / RESULT, json.dumps(document, indent=1))
    return found


def judge(
    method: str,
    wanted: Edit,
    detailed: bool,
    reader: Reader,
    made: torch.Tensor,
    before: torch.Tensor,
    reconstruction: torch.Tensor,
) -> Judgement:
    """Read a picture (1, 3, 128, 128) in -1 .. 1 and compare it with the edit's ground truth.

    Right is: what was changed reads as in the target scene (an added object: colour and shape; a removed one: nothing
    stands there). Kept is an untouched object that is there and has its colour, shape and size.
    """
    reading = reader.read(made)
    source, target = ({thing.place: thing for thing in s.objects} for s in (wanted.source, wanted.target))
    changed = [place for place in PLACES if source.get(place) != target.get(place)]
    if wanted.kind == "background":
        right = BACKGROUNDS[int(reading.background[0])] == wanted.target.background
    elif wanted.kind == "remove":
        right = seen(reading, changed[0]) is None
    else:
        right = _agrees(reading, changed[0], target[changed[0]], _JUDGED[wanted.kind])
    others = [thing for place, thing in target.items() if place not in changed]
    kept = sum(_agrees(reading, thing.place, thing, _KEPT) for thing in others)
    outside = torch.from_numpy(~wanted.mask())
    decibels = [_psnr(made, other, outside) for other in (before, reconstruction)]
    return Judgement(method, wanted.kind, detailed, right, kept, len(others), *decibels)


def seen(reading: Reading, place: str, number: int = 0) -> dict[str, str] | None:
    """What stands at a place of picture ``number``; None for nothing."""
    at = list(PLACES).index(place)
    if not reading.present[number, at]:
        return None
    return {name: ATTRIBUTES[name][int(values[number, at])] for name, values in reading.attributes.items()}


def _agrees(reading: Reading, place: str, thing: Thing, names: Sequence[str]) -> bool:
    there = seen(reading, place)
    return there is not None and all(there[name] == getattr(thing, name) for name in names)


def _psnr(made: torch.Tensor, other: torch.Tensor, where: torch.Tensor) -> float:
    """Decibels over some pixels (128, 128); NaN if there are none."""
    if not where.any():
        return float("nan")
    error = float((made - other)[0, :, where].square().mean()) / 4
    return min(-10 * np.log10(max(error, 1e-12)), _MOST)


def results(found: Sequence[Judgement]) -> dict[str, dict[str, Rate]]:
    """For each method: how often the edit is right, in all, of each kind, of either length of caption; the objects kept;
    and the decibels."""
    table_: dict[str, dict[str, Rate]] = {}
    for method in dict.fromkeys(one.method for one in found):
        mine = [one for one in found if one.method == method]
        row = {"right": _mean([one.right for one in mine])}
        row |= {kind: _mean([one.right for one in mine if one.kind == kind]) for kind in KINDS}
        row |= {
            name: _mean([one.right for one in mine if one.detailed is detailed])
            for name, detailed in (("short", False), ("detailed", True))
        }
        row["kept"] = _mean([one.kept / one.untouched for one in mine if one.untouched])
        for name, part in (("background", False), ("objects", True)):
            judged = [one for one in mine if (one.kind == "background") is part]
            row[f"{name} dB"] = _mean([one.to_reconstruction for one in judged])
            row[f"{name} dB to input"] = _mean([one.to_input for one in judged])
        table_[method] = row
    return table_


def _mean(values: Sequence[float]) -> Rate:
    """Mean and standard error over edits, NaN left out; of proportions at 0 or 1 by Laplace's rule, for none is certain."""
    kept = np.array([value for value in values if value == value], dtype=float)
    if not len(kept):
        return Rate(float("nan"), float("nan"), 0)
    spread = kept.var()
    if spread == 0 and kept[0] in (0, 1):
        guess = (kept.sum() + 1) / (len(kept) + 2)
        spread = guess * (1 - guess)
    return Rate(float(kept.mean()), float((spread / len(kept)) ** 0.5), len(kept))


def report(found: Sequence[Judgement]) -> str:
    """The results as text, a column for each method."""
    rows = results(found)
    names = list(next(iter(rows.values()))) if rows else []
    lines = [f"{'':22}" + "".join(f"{method[-22:]:>24}" for method in rows)]
    for name in names:
        cells = (_cell(name, row[name]) for row in rows.values())
        lines.append(f"{name:22}" + "".join(f"{cell:>24}" for cell in cells))
    return "\n".join(lines)


def _cell(name: str, rate: Rate) -> str:
    digits = 1 if "dB" in name else 3
    return f"{rate.value:.{digits}f} ±{rate.error:.{digits}f} N {rate.count}"


def _write_sheet(rows: Sequence[torch.Tensor], path: Path) -> None:
    """A line for each edit: the picture, then what each method made of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    to_pil(torch.cat(list(rows), -2).permute(0, 2, 3, 1) / 2 + 0.5)[0].save(path)
