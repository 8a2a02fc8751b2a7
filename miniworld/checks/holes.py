"""Check of inpainting, outpainting and restoring: what the chat's prompts gain, and how much the borders show.

A user says in a few words what is missing. The same UNet paints these words, and the prompt that the chat makes of them
and the picture, from the same noise; what then stands in the hole is read. The outpaintings of the chat's prompts are
restored, as in the paper's Table 4, and their borders measured.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from llmga.data.degradations import shift_colour
from llmga.evaluate import (
    Estimate,
    contact_sheet,
    frechet_distance,
    mean,
    perceptual_distance,
    rate,
    resampled,
    table,
    write_json,
)
from llmga.restore import load_restorer, restore
from llmga.restore.colour import match_colour
from llmga.restore.seam import seam
from llmga.train import derive

from ..files import LANGUAGE, READER, RESTORERS
from ..models.inpainter import Painter
from ..models.reader import Reader, Reading, halved, load_reader
from ..models.restorer import MILD
from ..models.sampling import PaintConfig
from ..world.facts import Facts, Mention, caption_facts, kept
from .edits import seen
from .sampled_holes import KINDS, Hole, HolesConfig, masks_of, pasted, prompters, sample_holes, truth_of

RESULT = "check_holes.json"
RESTORED = ("as painted", "no reference", "no colour", "restorer", "colour match", "as it was")
"""In the order of the paper's Table 4, whose rows are none, DiffIR, with a reference, with shifted colours;
``match_colour``, a gain and a bias for each channel; and the truth, whose borders aren't without disparity, for objects
lie there."""
_BATCH = 64
_RESAMPLED = 30

Results = dict[str, dict[str, dict[str, Estimate]]]


def check_holes(
    out: Path,
    config: HolesConfig,
    chat: Path | None = None,
    workers: int = 0,
    on_step: Callable[..., object] | None = None,
) -> Results:
    """Fill every hole by every prompt, restore the outpaintings of the chat's, and measure.

    Writes ``check_holes.json`` after each set of pictures, and sheets of the first ones.

    Args:
        out: the folder of the models.
        chat: a transformers folder, instead of the miniature's chat.
        workers: processes that chat; 0 takes one per core.
        on_step: ``on_step(i, n)`` after each set of pictures; may raise.

    Returns:
        ``painted``: by kind and prompt what ``score_holes`` gives. ``restored``: by condition what ``compare`` gives;
        ``shifted``: the same after a shift of the painted pictures' colours, against which the paper trains.

    Raises:
        FileNotFoundError: a model is missing.
    """
    painter, reader = Painter(out), load_reader(out / READER)
    nets = {name: load_restorer(out / file, dtype=torch.float32).restorer for name, file in RESTORERS.items()}
    ways = prompters(chat or out / LANGUAGE, config, workers)
    results: Results = {"painted": {}, "restored": {}, "shifted": {}}
    done, total = 0, len(KINDS) * len(ways) + 2

    def step() -> None:
        nonlocal done
        done += 1
        write_json(out / RESULT, {"config": config, "results": results})
        if on_step:
            on_step(done, total)

    settings = PaintConfig(config.steps, config.guidance, config.batch, config.seed)
    for kind in KINDS:
        holes, rows = sample_holes(kind, config, painter.picture), {}
        for name, way in ways.items():
            made = painter.fill(truth_of(holes), masks_of(holes), way(holes), settings)
            rows[name] = made
            whole = pasted(made, holes)
            results["painted"][f"{kind}, {name}"] = score_holes(reader.read(whole * 2 - 1), holes)
            step()
        _write_sheet([pasted(made, holes) for made in rows.values()], holes, out / "pictures" / f"{kind}.png")
        if kind == "outpaint":
            for name, made in (("restored", rows["chat"]), ("shifted", shifted(rows["chat"], holes))):
                mended = restored(made, holes, nets)
                results[name] = compare(mended, holes, reader)
                mended.pop("as it was")  # which ends a sheet of itself
                _write_sheet([*mended.values()], holes, out / "pictures" / f"outpaint-{name}.png")
                step()
    return results


def score_holes(reading: Reading, holes: Sequence[Hole]) -> dict[str, Estimate]:
    """What stands in the holes of (B) filled pictures.

    Returns:
        ``asked``: of the facts that the user's words state of missing objects, those that the hole holds, matched as
        ``facts.kept`` does, textures aside, which the autoencoder blurs; ``number``: holes with as many objects as are
        missing; ``truth``: places that read as in the true scene (colour and shape, or nothing).
    """
    asked, number, right = [], [], []
    for i, hole in enumerate(holes):
        there = {place: seen(reading, place, i) for place in hole.places}
        found = [
            Mention(one["shape"], one["colour"], one["size"], None, place)
            for place, one in there.items()
            if one
        ]
        stated = [Mention(m.shape, m.colour, m.size, None, m.place) for m in caption_facts(hole.wish).objects]
        asked.append(kept(Facts(tuple(stated)), Facts(tuple(found))))
        number.append(len(found) == len(hole.missing))
        true = {thing.place: (thing.colour, thing.shape) for thing in hole.missing}
        said = {place: one and (one["colour"], one["shape"]) for place, one in there.items()}
        right.append((sum(said[place] == true.get(place) for place in said), len(said)))
    return {
        "asked": rate(*torch.tensor(asked).T),
        "number": rate(number),
        "truth": rate(*torch.tensor(right).T),
    }


def shifted(made: torch.Tensor, holes: Sequence[Hole]) -> torch.Tensor:
    """Pictures with the contrast and brightness of each off by what the restorer was trained on."""
    draws = [np.random.default_rng(derive(hole.number, 0, "colours")) for hole in holes]
    gain = torch.tensor([1 + rng.uniform(-MILD.gain, MILD.gain) for rng in draws])
    bias = torch.tensor([rng.uniform(-MILD.bias, MILD.bias) for rng in draws])
    return shift_colour(made, gain.float().view(-1, 1, 1, 1), bias.float().view(-1, 1, 1, 1))


def restored(made: torch.Tensor, holes: Sequence[Hole], nets: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """Whole pictures by condition, from what the painter gave, (B, 3, S, S) in 0 .. 1; ``nets`` as in ``RESTORERS``."""
    truth, mask = truth_of(holes), masks_of(holes)
    mended = {"as painted": pasted(made, holes)}
    mended |= {name: restore(net, made, truth, mask) for name, net in nets.items()}
    mended |= {"colour match": match_colour(made, truth, mask).image, "as it was": truth}
    return {name: mended[name] for name in RESTORED}


def compare(
    pictures: Mapping[str, torch.Tensor], holes: Sequence[Hole], reader: Reader
) -> dict[str, dict[str, Estimate]]:
    """``measure`` and ``frechet`` of each condition, and of the restorer minus each other.

    The Fréchet distance is of all pictures together; its error is that of ``_RESAMPLED`` bootstrap samples.
    """
    found = {name: measure(images, holes, reader) for name, images in pictures.items()}
    distances = _resampled(pictures, truth_of(holes), reader)
    rows: dict[str, dict[str, Estimate]] = {}

    def with_error(values: torch.Tensor) -> Estimate:
        return resampled(float(values[0]), values[1:], len(holes))

    for other in found:
        rows[other] = {key: mean(values) for key, values in found[other].items()}
        rows[other]["frechet"] = with_error(distances[other])
    for other in [name for name in found if name != "restorer"]:
        rows[f"restorer − {other}"] = {
            key: mean(found["restorer"][key] - values) for key, values in found[other].items()
        }
        difference = distances["restorer"] - distances[other]
        rows[f"restorer − {other}"]["frechet"] = with_error(difference)
    return rows


def measure(images: torch.Tensor, holes: Sequence[Hole], reader: Reader) -> dict[str, torch.Tensor]:
    """How much the borders of the holes show, and how far pictures are from the truth; (B,) each, the less the better.

    Returns:
        The disparities of ``seam`` in 1/255, and ``perceptual``: LPIPS with the reader in the place of VGG.
    """
    borders = [one.disparity for one in seam(images, masks_of(holes))]
    figures = [asdict(border) for border in borders if border]
    rows = {name: torch.tensor([255 * figure[name] for figure in figures]) for name in figures[0]}
    return {**rows, "perceptual": perceptual(images, truth_of(holes), reader)}


def perceptual(images: torch.Tensor, truth: torch.Tensor, reader: Reader) -> torch.Tensor:
    """LPIPS, without learned weights, of the reader's layers; pictures are (B, 3, S, S) in 0 .. 1."""

    def layers(pictures: torch.Tensor) -> list[torch.Tensor]:
        found = [halved(pictures * 2 - 1)]
        for layer in reader.trunk:
            found.append(layer(found[-1]))
        return found[1:]

    parts = zip(images.split(_BATCH), truth.split(_BATCH), strict=True)
    return torch.cat([perceptual_distance(a, b, layers) for a, b in parts])


@torch.no_grad()
def features(images: torch.Tensor, reader: Reader) -> torch.Tensor:
    """(B, 96) double: the means over each picture (B, 3, S, S) in 0 .. 1 of the reader's last channels."""
    parts = [reader.trunk(halved(part * 2 - 1)).mean((2, 3)) for part in images.split(_BATCH)]
    return torch.cat(parts).double()


def _resampled(
    pictures: Mapping[str, torch.Tensor], truth: torch.Tensor, reader: Reader
) -> dict[str, torch.Tensor]:
    """For each condition (1 + ``_RESAMPLED``,) Fréchet distances from the truth: of all pictures, and of samples of them
    that are the same for every condition."""
    draw = torch.Generator().manual_seed(0)
    count = len(truth)
    picks = [
        torch.arange(count),
        *(torch.randint(count, (count,), generator=draw) for _ in range(_RESAMPLED)),
    ]
    true = features(truth, reader)
    made = {name: features(images, reader) for name, images in pictures.items()}
    return {
        name: torch.tensor([frechet_distance(values[pick], true[pick]) for pick in picks])
        for name, values in made.items()
    }


def holes_table(results: Results) -> str:
    """The results as text, a line for each condition."""
    return "\n".join(table(rows) for rows in results.values() if rows)


def _write_sheet(rows: Sequence[torch.Tensor], holes: Sequence[Hole], path: Path) -> None:
    """The first holes: the picture with its hole, what each condition made, the truth."""
    truth = truth_of(holes)
    contact_sheet([truth * (1 - masks_of(holes)), *rows, truth], path)
