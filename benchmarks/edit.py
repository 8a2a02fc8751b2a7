"""An edit against the procedure as published (its 13 rows a step, probabilities as matrices), and its memory.

    python benchmarks/edit.py [--steps 50] [--size 32] [--threads 2]

Time: Direct Inversion with prompt-to-prompt of one picture, inversion included, on the same tiny random weights in one run.
Memory: one step of an edit's attention as in an SDXL UNet at 1024 × 1024 (self-attention of 4096 queries, cross-attention to
77 tokens, 10 heads of 64, float32), each way in a process of its own: how far the peak of its resident memory rises over
its inputs. The matrix of probabilities of one row is 640 MiB in that layer.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from support.published_edit import Edit, published_edit  # noqa: E402
from support.tiny_clip import WIDTH_L  # noqa: E402
from support.tiny_unet import SD15, noise, tiny_unet  # noqa: E402

from llmga.diffusion import DiffusersContext, DiffusersDenoiser, Site, StopForward  # noqa: E402
from llmga.edit import Blend, Control, edit, invert  # noqa: E402
from llmga.edit.attention_taps import SourceTaps, Step, TargetTaps  # noqa: E402

TOKENS = 77
SIDE, HEADS, WIDTH = 64, 10, 640
"""Of SDXL's larger attention layers at 1024 × 1024."""


class Counting(DiffusersDenoiser):
    rows = 0

    def eps(self, x: torch.Tensor, *rest: Any, **named: Any) -> torch.Tensor | None:
        self.rows += len(x)
        return super().eps(x, *rest, **named)


def control(blend: bool) -> Control:
    own = torch.zeros(TOKENS)
    own[5] = 1
    return Control(torch.eye(TOKENS) - torch.diag(own), own, blend=Blend((3,), (5,)) if blend else None)


def compare_times(steps: int, size: int) -> None:
    denoiser = Counting(tiny_unet(SD15))
    latent = noise("latent", 1, 4, size, size)
    source, target, negative = (DiffusersContext(noise(name, 1, TOKENS, WIDTH_L)) for name in "stn")
    print(
        f"{'':<22}{'ours, s':>10}{'rows':>7}{'published, s':>15}{'rows':>7}{'ratio':>8}{'max difference':>17}"
    )
    for name, chosen in (("refine", control(False)), ("refine, LocalBlend", control(True))):
        # CPU seconds: other work on the machine then does not falsify them.
        denoiser.rows, start = 0, time.process_time()
        edited = edit(denoiser, invert(denoiser, latent, source, steps), source, target, negative, chosen)
        ours, rows = time.process_time() - start, denoiser.rows
        denoiser.rows, start = 0, time.process_time()
        reference, _ = published_edit(
            denoiser, latent, source, target, negative, chosen, steps, reconstruct=True
        )
        theirs = time.process_time() - start
        off = float((edited.latent - reference[1]).abs().max())
        print(
            f"{name:<22}{ours:>10.1f}{rows:>7}{theirs:>15.1f}{denoiser.rows:>7}{ours / theirs:>8.2f}{off:>17.1e}"
        )


@torch.no_grad()
def attend(way: str, kind: Any) -> None:
    """One layer of one step; prints by how many MiB the peak of resident memory rises."""
    site, keys = Site("input", 4, 0, kind), SIDE**2 if kind == "self" else TOKENS
    source_q, source_k = torch.randn(1, SIDE**2, WIDTH), torch.randn(1, keys, WIDTH)
    q, k, v = torch.randn(2, SIDE**2, WIDTH), torch.randn(2, keys, WIDTH), torch.randn(2, keys, WIDTH)
    before = resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts again from here
    if way == "ours":
        cross = control(False).cross(0, 50)
        taps = SourceTaps([site], SIDE**2, None)
        taps.begin(Step(cross, True, False))
        try:
            taps.attend(site, source_q, source_k, source_k, HEADS, (SIDE, SIDE))
        except StopForward:
            TargetTaps(taps, (TOKENS, TOKENS)).attend(site, q, k, v, HEADS, (SIDE, SIDE))
    else:
        rows = [torch.cat([x[:1], x[:1], y, x[1:]]) for x, y in ((q, source_q), (k, source_k), (v, v[:1]))]
        Edit(control(False), (2 * SIDE, 2 * SIDE), 50).attend(site, *rows, HEADS, (SIDE, SIDE))
    print(resident("VmHWM") - before)


def resident(name: str) -> int:
    """A figure of this process, in MiB; on Linux."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:")) // 1024


def compare_memory(threads: int) -> None:
    print(f"\n{'peak over the inputs':<22}{'ours, MiB':>10}{'published, MiB':>17}{'one matrix, MiB':>18}")
    for kind in ("self", "cross"):
        command = [sys.executable, __file__, "--threads", str(threads), "--attend", kind, "--way"]
        ours, theirs = (
            int(subprocess.run([*command, way], check=True, capture_output=True, text=True).stdout)
            for way in ("ours", "published")
        )
        matrix = HEADS * SIDE**2 * (SIDE**2 if kind == "self" else TOKENS) * 4 // 2**20
        print(f"{f'{kind}-attention':<22}{ours:>10}{theirs:>17}{matrix:>18}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--size", type=int, default=32, help="side of the latent")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--attend", choices=("self", "cross"), help=argparse.SUPPRESS)
    parser.add_argument("--way", choices=("ours", "published"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.attend:
        attend(options.way, options.attend)
        return
    compare_times(options.steps, options.size)
    compare_memory(options.threads)


if __name__ == "__main__":
    main()
