"""Keep the rest: of an edited picture only what was changed on purpose, everything else the original's, bit for bit.

Whatever editor made it, the edited picture is aligned with the original, its colours are matched on what did not change, the
change is found (or a person's mask says where it is), and it is put into the original with a soft border.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
import torch.nn.functional as F

from ..images import channels_first, fit_mask
from ..restore.seam import Disparity, seam
from ..windows import greatest_around
from .change import changed
from .colour_fit import ColourFit, fit_colours
from .prepare import inner_ramp, outer_ramp
from .registration import Registration, apply_registration, estimate_registration

BAND = 8
"""Pixels on each side of the border that seams are measured over."""
MAX_GROW = 256
"""Pixels that a found change may grow by, and that its border may be softened over."""
_ASPECT = 1.2
"""How far the sides' ratio of the edited picture may be from the original's: editors round sides, and cut a little off."""

FoundBy = Literal["search", "mask", "search, for the mask is empty"]
"""What says where a change is."""


@dataclass(frozen=True)
class KeptRest:
    """One picture of ``keep_rest``."""

    image: torch.Tensor
    """(H, W, 3 or 4): the original's values and type bit for bit where ``mask`` is 0; its alpha, if it has one."""
    mask: torch.Tensor
    """(H, W) float32, 0 .. 1: the share of the edited picture at each pixel."""
    matched: torch.Tensor
    """(H, W, 3) float32: the whole edited picture, aligned and colour-matched."""
    alignment: Registration
    colours: ColourFit
    share: float
    """Of the picture that was changed: the mean of ``mask``."""
    outside_before: float
    """PSNR in dB of the edited picture, as it came, against the original outside the change; infinite if equal."""
    outside_matched: float
    """The same once it was aligned and colour-matched. In ``image`` nothing differs there."""
    seam_before: Disparity | None
    """Of the edited picture pasted as it came; None where the change has no border."""
    seam_after: Disparity | None
    seam_usual: Disparity | None
    """What the same measure is beside the change, where nothing was pasted; None where there is too little of it."""
    uncovered: float
    """Share of the change that lies beyond the aligned edited picture, where its edge is repeated."""
    found_by: FoundBy = "search"

    def report(self) -> str:
        """The numbers in words, a few lines."""
        lines = ["its mask is empty, so the change was looked for"] * (
            self.found_by not in ("search", "mask")
        )
        if not self.share:
            return "\n".join([*lines, f"no change was found: this is the original; {self._moved()}"])
        lines.append(f"{self.share:.1%} of the picture changed; {self._moved()}")
        if (self.mask == 0).any():
            lines.append(self._outside())
        if self.seam_before and self.seam_after:
            usual = f"; beside it {_numbers(self.seam_usual)}" if self.seam_usual else ""
            lines.append(
                f"seam: {_numbers(self.seam_before)} pasted as it came; {_numbers(self.seam_after)} now{usual}"
            )
        if self.share > 0.5:
            advice = "make it smaller" if self.found_by == "mask" else "connect a mask of what was to change"
            whose = "its mask covers more than half of the picture"
            whose = whose if self.found_by == "mask" else "more than half of the picture counts as changed"
            lines.append(f"{whose}, so alignment and colours are guesses; {advice}")
        if self.uncovered > 0.01:
            lines.append(
                f"{self.uncovered:.0%} of the mask lies beyond what the edited picture shows; its edge is repeated there"
            )
        return "\n".join(lines)

    def _moved(self) -> str:
        (zoom_x, zoom_y), (x, y) = self.alignment.zoom, self.alignment.shift
        moved = (
            "the edited picture was not shifted"
            if self.alignment.is_identity()
            else f"the edited picture was shifted by {x:+.1f}, {y:+.1f} pixels and zoomed by {zoom_x:.4f} × {zoom_y:.4f}"
        )
        colours = ", ".join(
            f"{name} × {gain:.2f} {bias:+.3f}"
            for name, gain, bias in zip(
                "RGB", self.colours.matrix.diagonal().tolist(), self.colours.bias.tolist(), strict=True
            )
        )
        return f"{moved}; its colours were corrected by {colours}"

    def _outside(self) -> str:
        before, matched = (
            "nothing" if math.isinf(value) else f"{value:.1f} dB (PSNR)"
            for value in (self.outside_before, self.outside_matched)
        )
        return (
            f"outside the change it differed from the original by {before}, by {matched} once aligned and matched; now by "
            "nothing, bit for bit"
        )


def keep_rest(
    original: torch.Tensor,
    edited: torch.Tensor,
    mask: torch.Tensor | None = None,
    *,
    grow: int = 0,
    feather: int = 4,
    match_alignment: bool = True,
    match_colours: bool = True,
    on_part: Callable[[], Any] = lambda: None,
) -> list[KeptRest]:
    """Put what an editor changed on purpose into the original, and nothing else of what the editor did.

    Args:
        original: (B, H, W, C), C = 1, 3 or 4, any float type, 0 .. 1.
        edited: (N, h, w, C), resized to the original; N is B, or any number where B is 1, or 1.
        mask: (1 or as many as pictures come out, any, any), 1 = changed: says where the change is. An empty one says
            nothing: the change is then looked for.
        grow: a found change grows by so many pixels, so that no remnant of a border stays; a given mask does not.
        feather: the border is softened over so many pixels, that of a found change outwards, that of a given mask inwards
            so that nothing outside of it changes.
        match_alignment, match_colours: False leaves that step out.
        on_part: called several times for each picture; may raise.

    Returns:
        One for each pair. Where no change is found the original comes back, with an empty mask.

    Raises:
        ValueError: the numbers or shapes of pictures do not fit each other, or a value is not allowed.
    """
    _check(original, edited, grow, feather)
    count = max(len(original), len(edited))
    if mask is not None and len(mask) not in (1, count):
        raise ValueError(f"mask holds {len(mask)} masks for {count} edited pictures; give one, or one each")
    masks = None if mask is None else fit_mask(mask, original[:1].expand(count, -1, -1, -1))
    found = []
    for i in range(count):
        by: FoundBy = "search"
        if masks is not None:
            by = "mask" if masks[i].any() else "search, for the mask is empty"
        one = _keep(
            original[i % len(original)], edited[i % len(edited)], masks[i] if masks is not None and by == "mask" else None,
            grow, feather, match_alignment, match_colours, on_part,
        )  # fmt: skip
        found.append(replace(one, found_by=by))
    return found


def _check(original: torch.Tensor, edited: torch.Tensor, grow: int, feather: int) -> None:
    for name, image in (("original", original), ("edited", edited)):
        if image.ndim != 4 or image.shape[-1] not in (1, 3, 4) or 0 in image.shape:
            raise ValueError(
                f"{name} must be (pictures, height, width, 1, 3 or 4), with a pixel; got {tuple(image.shape)}"
            )
    if len(original) != len(edited) and 1 not in (len(original), len(edited)):
        raise ValueError(
            f"edited holds {len(edited)} pictures and original {len(original)}; give one edited picture for each, or a "
            "single one of either"
        )
    first, second = (image.shape[2] / image.shape[1] for image in (original, edited))
    if max(first / second, second / first) > _ASPECT:
        sizes = [f"{image.shape[2]}×{image.shape[1]}" for image in (original, edited)]
        raise ValueError(
            f"original is {sizes[0]} and edited is {sizes[1]}: they have different shapes, so one was cropped; give the "
            "editor the whole original, or crop the original as the editor did"
        )
    for name, value in (("grow", grow), ("feather", feather)):
        if not 0 <= value <= MAX_GROW:
            raise ValueError(f"{name} must be 0 to {MAX_GROW} pixels, got {value}")


def _keep(
    original: torch.Tensor, edited: torch.Tensor, mask: torch.Tensor | None, grow: int, feather: int,
    match_alignment: bool, match_colours: bool, on_part: Callable[[], Any],
) -> KeptRest:  # fmt: skip
    on_part()
    kept = channels_first(original[None].float())
    given = channels_first(edited[None].to(kept))
    if given.shape[-2:] != kept.shape[-2:]:
        given = F.interpolate(given, kept.shape[-2:], mode="bicubic", antialias=True).clamp(0, 1)
    hole = None if mask is None else mask[None, None].to(kept)
    how = estimate_registration(kept, given, hole) if match_alignment else Registration()
    made, valid = apply_registration(given, how)
    on_part()
    where = valid if hole is None else valid & (hole == 0)
    colours = fit_colours(kept, made, where) if match_colours else ColourFit(torch.eye(3), torch.zeros(3))
    matched = colours.apply(made)
    on_part()
    if hole is None:
        found = changed(colours.as_shown(kept), matched, valid).float()
        weight = outer_ramp(greatest_around(found, grow) if grow else found, (feather + 1) // 2)
        weight = torch.where(valid, weight, 0.0)
    else:
        weight = inner_ramp(hole[0], (feather + 1) // 2)[None]
    on_part()
    return _composed(original, kept, given, matched, weight, valid, how, colours)


def _composed(
    original: torch.Tensor, kept: torch.Tensor, given: torch.Tensor, matched: torch.Tensor, weight: torch.Tensor,
    valid: torch.Tensor, how: Registration, colours: ColourFit,
) -> KeptRest:  # fmt: skip
    weight = torch.where(weight < 1 / 255, 0.0, weight)
    colour = original.expand(-1, -1, 3) if original.shape[-1] == 1 else original[..., :3]
    mixed = torch.lerp(kept, matched, weight)[0].movedim(0, -1).to(original)
    result = torch.where((weight > 0)[0, 0, ..., None], mixed, colour)
    if original.shape[-1] == 4:
        result = torch.cat([result, original[..., 3:]], -1)
    outside = weight == 0
    seams = [
        seam(image, weight, BAND)[0]
        for image in (torch.lerp(kept, given, weight), torch.lerp(kept, matched, weight))
    ]
    total = weight.sum().item()
    return KeptRest(
        image=result,
        mask=weight[0, 0],
        matched=matched[0].movedim(0, -1).contiguous(),
        alignment=how,
        colours=colours,
        share=weight.mean().item(),
        outside_before=_psnr(kept, given, outside),
        outside_matched=_psnr(kept, matched, outside & valid),
        seam_before=seams[0].disparity,
        seam_after=seams[1].disparity,
        seam_usual=seams[1].baseline,
        uncovered=(weight * ~valid).sum().item() / total if total else 0.0,
    )


def _psnr(first: torch.Tensor, second: torch.Tensor, where: torch.Tensor) -> float:
    """Peak signal-to-noise ratio in dB of the pixels ``where``; infinite where they are equal or there is none."""
    if not where.any():
        return math.inf
    square = (first - second).double().square().mean(1, keepdim=True)[where].mean().item()
    return math.inf if square == 0 else -10 * math.log10(square)


def _numbers(found: Disparity) -> str:
    return f"texture {found.texture:.4f}, brightness {found.brightness:.4f}, contrast {found.contrast:.4f}"
