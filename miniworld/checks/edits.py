"""Check of the editors: held-out edits, each made by each method, read back, and compared with what was to change."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from llmga.evaluate import Estimate, contact_sheet, mean, psnr, rate, table, transposed, write_json

from ..models.reader import Reader, Reading
from ..world.dataset import ATTRIBUTES
from ..world.edits import Edit, Kind, sample_edit
from ..world.scene import BACKGROUNDS, PLACES, Thing, sample_scene
from .editors import METHODS, EditsConfig, MiniatureEditor, picture

KINDS: tuple[Kind, ...] = ("recolour", "reshape", "resize", "add", "remove", "background")
RESULT = "check_edits.json"
_ASKED = {
    "recolour": ("colour",),
    "reshape": ("shape",),
    "resize": ("size",),
    "add": ("colour", "shape"),
}
_KEPT = ("colour", "shape", "size", "texture")
_SHEET = 12


@dataclass(frozen=True)
class EditScore:
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
) -> list[EditScore]:
    """Make every edit by every method and score it; writes ``check_edits.json`` and a sheet of the first edits.

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
        before, reconstruction = picture(wanted.source, editor.picture), editor.decode(case.latent)
        row = [before]
        for method in methods:
            made = editor.decode(METHODS[method](case, config))
            row.append(made)
            found.append(score_edit(method, wanted, detailed, editor.reader, made, before, reconstruction))
        if number < _SHEET:
            sheet.append(torch.cat(row) / 2 + 0.5)
        if number + 1 in (_SHEET, config.edits):
            contact_sheet(sheet, out / "pictures" / "edits.png", len(methods) + 1)
        if on_step:
            on_step(number + 1, config.edits)
        write_json(out / RESULT, {"config": config, "results": results(found), "edits": found})
    return found


def score_edit(
    method: str,
    wanted: Edit,
    detailed: bool,
    reader: Reader,
    made: torch.Tensor,
    before: torch.Tensor,
    reconstruction: torch.Tensor,
) -> EditScore:
    """Read a picture (1, 3, size, size) in -1 .. 1 and compare it with the edit's ground truth.

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
        right = _agrees(reading, changed[0], target[changed[0]], _ASKED[wanted.kind])
    others = [thing for place, thing in target.items() if place not in changed]
    kept = sum(_agrees(reading, thing.place, thing, _KEPT) for thing in others)
    outside = torch.from_numpy(~wanted.mask(made.shape[-1]))[None, None]
    decibels = [float(psnr(made, other, outside, peak=2)) for other in (before, reconstruction)]
    return EditScore(method, wanted.kind, detailed, right, kept, len(others), *decibels)


def seen(reading: Reading, place: str, number: int = 0) -> dict[str, str] | None:
    """What stands at a place of picture ``number``; None for nothing."""
    at = list(PLACES).index(place)
    if not reading.present[number, at]:
        return None
    return {name: ATTRIBUTES[name][int(values[number, at])] for name, values in reading.attributes.items()}


def _agrees(reading: Reading, place: str, thing: Thing, names: Sequence[str]) -> bool:
    there = seen(reading, place)
    return there is not None and all(there[name] == getattr(thing, name) for name in names)


def results(found: Sequence[EditScore]) -> dict[str, dict[str, Estimate]]:
    """For each method: how often the edit is right, in all, of each kind, of either length of caption; the objects kept;
    and the decibels."""
    rows: dict[str, dict[str, Estimate]] = {}
    for method in dict.fromkeys(one.method for one in found):
        mine = [one for one in found if one.method == method]
        row = {"right": rate([one.right for one in mine])}
        row |= {kind: rate([one.right for one in mine if one.kind == kind]) for kind in KINDS}
        row |= {
            name: rate([one.right for one in mine if one.detailed is detailed])
            for name, detailed in (("short", False), ("detailed", True))
        }
        row["kept"] = rate([one.kept / one.untouched for one in mine if one.untouched])
        for name, part in (("background", False), ("objects", True)):
            scored = [one for one in mine if (one.kind == "background") is part]
            row[f"{name} dB"] = mean([one.to_reconstruction for one in scored])
            row[f"{name} dB to input"] = mean([one.to_input for one in scored])
        rows[method] = row
    return rows


def report(found: Sequence[EditScore]) -> str:
    """The results as text, a column for each method."""
    return table(transposed(results(found)), counts=True)
