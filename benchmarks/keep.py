"""Keep the Rest on made edits of real photographs, beside a difference mask with and without a colour transfer.

    python benchmarks/keep.py [--cases 200] [--threads 1]

Each case is a photograph of scikit-image's or scikit-learn's with a true local change (pasted, recoloured or removed), and
then shifted by up to 6 pixels, zoomed by up to 2 %, cast, blurred and compressed as a whole
(``tests/support/local_edits.py``). The others are what people build of ComfyUI's own nodes: the difference of both pictures,
blurred, cut at a threshold and feathered, as the mask of a composite; once as it is, once after Transfer Color (mkl_lab,
written anew here from its equation). Both have the best threshold of five over all cases.

IoU: the mask from one half on against the region where the local change is visible. kept: how much of the change the mask
lets through. equal: pixels outside of that region that are the original's bit for bit. PSNR: the result against the original
with the local change and nothing else.
"""

from __future__ import annotations

import argparse
import sys
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from support.local_edits import KINDS, Edit, make_edit, photographs  # noqa: E402

from llmga.evaluate.metrics import psnr  # noqa: E402
from llmga.images import channels_last  # noqa: E402
from llmga.paint.keep import keep_rest  # noqa: E402
from llmga.paint.registration import blur  # noqa: E402

THRESHOLDS = (0.05, 0.1, 0.15, 0.2, 0.3)
OURS, BLENDED, TRANSFERRED = "Keep the Rest", "difference mask", "colour transfer, difference mask"
WHITE = torch.tensor([0.95047, 1.0, 1.08883])  # D65
TO_XYZ = torch.tensor(
    [[0.412453, 0.357580, 0.180423], [0.212671, 0.715160, 0.072169], [0.019334, 0.119193, 0.950227]]
)


@dataclass(frozen=True)
class Score:
    iou: float
    kept: float
    equal: float
    psnr: float


def lab(rgb: torch.Tensor) -> torch.Tensor:
    """CIE Lab (3, N) of sRGB (3, N)."""
    linear = torch.where(rgb > 0.04045, ((rgb + 0.055) / 1.055) ** 2.4, rgb / 12.92)
    xyz = (TO_XYZ @ linear) / WHITE[:, None]
    f = torch.where(xyz > 0.008856, xyz.clamp_min(1e-9) ** (1 / 3), 7.787 * xyz + 4 / 29)
    return torch.stack([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def rgb_of(values: torch.Tensor) -> torch.Tensor:
    """The inverse of ``lab``, 0 .. 1."""
    y = (values[0] + 16) / 116
    f = torch.stack([y + values[1] / 500, y, y - values[2] / 200])
    xyz = torch.where(f > 0.2068966, f**3, (f - 4 / 29) / 7.787) * WHITE[:, None]
    linear = torch.linalg.solve(TO_XYZ, xyz).clamp(0, 1)
    return torch.where(linear > 0.0031308, 1.055 * linear ** (1 / 2.4) - 0.055, 12.92 * linear)


def transferred(edited: torch.Tensor, original: torch.Tensor) -> torch.Tensor:
    """Monge-Kantorovich: the linear map that gives the edited picture the mean and covariance of the original, in Lab."""
    source, reference = (lab(image[0].flatten(1)) for image in (edited, original))
    (mean_s, cov_s), (mean_r, cov_r) = ((x.mean(1, keepdim=True), torch.cov(x)) for x in (source, reference))
    root = power(cov_s, 0.5)
    back = power(cov_s, -0.5)
    matrix = back @ power(root @ cov_r @ root, 0.5) @ back
    return rgb_of(matrix @ (source - mean_s) + mean_r).view_as(edited)


def power(matrix: torch.Tensor, exponent: float) -> torch.Tensor:
    values, vectors = torch.linalg.eigh(matrix)
    return (vectors * values.clamp_min(1e-6) ** exponent) @ vectors.T


def differences(
    original: torch.Tensor, edited: torch.Tensor
) -> Iterator[tuple[float, torch.Tensor, torch.Tensor]]:
    """Threshold, mask and composite of a difference mask."""
    difference = blur((original - edited).abs().amax(1, keepdim=True), 2)
    for threshold in THRESHOLDS:
        mask = blur((difference > threshold).float(), 2)
        mask = torch.where(mask < 1 / 255, 0.0, mask)
        yield threshold, mask, torch.where(mask > 0, torch.lerp(original, edited, mask), original)


def score(edit: Edit, mask: torch.Tensor, result: torch.Tensor) -> Score:
    found, change = mask >= 0.5, (edit.ideal - edit.original).abs().sum(1, keepdim=True)
    union = (found | edit.region).sum().item()
    equal = (result == edit.original).all(1, keepdim=True)
    assert equal[mask == 0].all(), "outside its mask a result is the original, bit for bit"
    return Score(
        (found & edit.region).sum().item() / union,
        (change * mask).sum().item() / change.sum().item(),
        equal[~edit.region].float().mean().item(),
        psnr(result, edit.ideal).item(),
    )


def ours(edit: Edit) -> tuple[torch.Tensor, torch.Tensor]:
    (found,) = keep_rest(channels_last(edit.original), channels_last(edit.edited))
    return found.mask[None, None], found.image.movedim(-1, 0)[None]


def line(name: str, scores: list[Score]) -> str:
    iou, kept, equal, db = (
        torch.tensor([getattr(one, field) for one in scores]) for field in ("iou", "kept", "equal", "psnr")
    )
    return (
        f"| {name} | {len(scores)} | {iou.mean():.3f} | {(iou >= 0.8).float().mean():.1%} | {kept.mean():.3f} | "
        f"{(kept >= 0.95).float().mean():.1%} | {equal.mean():.1%} | {db.mean():.1f} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cases", type=int, default=200)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--list", action="store_true", help="also every case below the mark")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    photos = photographs()
    scores: dict[str, list[Score]] = defaultdict(list)
    for i in range(options.cases):
        kind = KINDS[i % len(KINDS)]
        edit = make_edit(photos, i, kind)
        found = score(edit, *ours(edit))
        if options.list and (found.iou < 0.8 or found.kept < 0.95):
            sys.stderr.write(f"case {i} {kind}: {found}\n")
        scores[OURS].append(found)
        scores[f"  {kind}"].append(found)
        nothing = torch.ones_like(edit.edited[:, :1])
        scores["as edited"].append(score(edit, nothing, edit.edited))
        for name, edited in ((BLENDED, edit.edited), (TRANSFERRED, transferred(edit.edited, edit.original))):
            for threshold, mask, result in differences(edit.original, edited):
                scores[f"{name} > {threshold}"].append(score(edit, mask, result))
    rows = [line("as edited", scores["as edited"])]
    for name in (BLENDED, TRANSFERRED):
        best = max(
            (key for key in scores if key.startswith(f"{name} >")),
            key=lambda key: sum(one.iou for one in scores[key]),
        )
        rows.append(line(best, scores[best]))
    rows += [line(name, scores[name]) for name in (OURS, *(f"  {kind}" for kind in KINDS))]
    head = "| | cases | IoU | IoU ≥ .8 | kept | kept ≥ .95 | equal outside | PSNR, dB |"
    sys.stdout.write("\n".join([f"{len(photos)} photographs", head, "|---" * 8 + "|", *rows]) + "\n")


if __name__ == "__main__":
    main()
