"""DiffRIR in row strips against the official network with the same random weights: CPU time, memory, largest difference.

    python benchmarks/restore.py <clone of Zj-BinXia/DiffRIR> [--sizes 512 1024] [--threads 1]
    python benchmarks/restore.py --large 4096 [--blocks 1]

Both restore a hole in the middle of a picture at scale 1 in the released sizes. The official sources are run as they are
(needs einops), nothing of them is kept here. Each measurement is a process of its own: CPU seconds over all threads, and
by how much the peak of resident memory exceeds that before the call (Linux only). The weights are random, so the
pictures mean nothing; the difference does.

``--large`` measures ours alone, and with ``--blocks`` fewer of the repeated blocks at the full width: memory does not
depend on how many there are.
"""

from __future__ import annotations

import argparse
import ctypes
import importlib.util
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from support.diffrir_weights import fill  # noqa: E402

from llmga.restore import Architecture, DiffRIRS2, restore  # noqa: E402

Way = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


def ours(blocks: int | None, dtype: torch.dtype, strip: int | None) -> Way:
    architecture = Architecture()
    if blocks is not None:
        architecture = replace(architecture, num_blocks=(blocks, 1, 1, 1), num_refinement_blocks=blocks)
    net = DiffRIRS2(architecture)
    fill(net.named_parameters())
    net.to(dtype).eval()
    return lambda image, reference, mask: restore(net, image, reference, mask, strip=strip)


def official(clone: Path) -> Way:
    path = ROOT / "tests/unit/fixtures/diffrir_official.py"
    spec = importlib.util.spec_from_file_location("diffrir_official", path)
    assert spec is not None and spec.loader is not None
    loader = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loader)
    a = Architecture()
    net = loader.official(clone).s2(
        n_encoder_res=a.n_encoder_res,
        dim=a.dim,
        num_blocks=list(a.num_blocks),
        num_refinement_blocks=a.num_refinement_blocks,
        heads=list(a.heads),
        ffn_expansion_factor=a.ffn_expansion_factor,
        LayerNorm_type="BiasFree",
        n_denoise_res=a.n_denoise_res,
        scale=a.scale,
    )
    fill(net.named_parameters())
    net.eval()
    start = torch.randn(1, a.prior, generator=torch.Generator().manual_seed(0))
    torch.randn = lambda *_, **__: start  # the one draw that matters

    def run(image: torch.Tensor, reference: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        made = net(torch.cat([image, (1 - mask) * reference], 1))
        return (made * mask + (1 - mask) * reference).clamp(0, 1)

    return run


@torch.no_grad()
def measure(way: Way, size: int, result: Path) -> None:
    image, reference = torch.rand(2, 1, 3, size, size, generator=torch.Generator().manual_seed(1))
    mask = torch.zeros(1, 1, size, size)
    mask[..., size // 8 : -size // 8, size // 8 : -size // 8] = 1
    way(image[..., :64, :64], reference[..., :64, :64], torch.ones(1, 1, 64, 64))  # a first run, unmeasured
    ctypes.CDLL(None).malloc_trim(0)  # what was freed before must not serve unseen
    Path("/proc/self/clear_refs").write_text("5")
    before, start = resident("VmRSS"), time.process_time()
    made = way(image, reference, mask)
    seconds = time.process_time() - start
    torch.save(made, result)
    print(json.dumps({"seconds": seconds, "MiB": resident("VmHWM") - before}))


def resident(field: str) -> float:
    """MiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(field)).split()[1]) / 1024


def in_a_process(arguments: argparse.Namespace, way: str, size: int) -> tuple[dict[str, float], torch.Tensor]:
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / "made.pt"
        options = [f"--way={way}", f"--sizes={size}", f"--result={result}", f"--threads={arguments.threads}"]
        options += [
            f"--{name}={value}"
            for name in ("blocks", "strip", "dtype")
            if (value := getattr(arguments, name))
        ]
        command = [sys.executable, __file__, *options, *([str(arguments.clone)] if arguments.clone else [])]
        printed = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
        return json.loads(printed.splitlines()[-1]), torch.load(result, weights_only=True)


def compare(arguments: argparse.Namespace) -> None:
    print(f"DiffRIR x1, {arguments.threads} CPU threads, {arguments.dtype or 'float32'}")
    print(
        f"{'':<12}{'CPU s':>12}{'official':>12}{'less':>8}{'MiB':>10}{'official':>12}{'part':>8}{'difference':>14}"
    )
    for size in arguments.sizes:
        ours, made = in_a_process(arguments, "ours", size)
        theirs, wanted = in_a_process(arguments, "official", size)
        print(
            f"{size}²".ljust(12)
            + f"{ours['seconds']:>12.1f}{theirs['seconds']:>12.1f}{theirs['seconds'] / ours['seconds']:>7.2f}x"
            + f"{ours['MiB']:>10.1f}{theirs['MiB']:>12.1f}{ours['MiB'] / theirs['MiB']:>8.3f}"
            + f"{(made - wanted).abs().max().item():>14.1e}",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "clone", nargs="?", type=Path, help="git clone of the official repository, bare or not"
    )
    parser.add_argument("--sizes", nargs="+", type=int, default=[512, 1024])
    parser.add_argument("--large", type=int, help="measure ours alone at this size")
    parser.add_argument("--blocks", type=int, help="of the first level, on each way, and of refinement")
    parser.add_argument("--strip", type=int, help="rows of a strip; chosen by default")
    parser.add_argument("--dtype", choices=["float32", "bfloat16", "float16"], help="of our weights")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--way", choices=["ours", "official"], help=argparse.SUPPRESS)
    parser.add_argument("--result", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.way:
        dtype = getattr(torch, arguments.dtype or "float32")
        way: Any = official(arguments.clone) if arguments.way == "official" else None
        measure(way or ours(arguments.blocks, dtype, arguments.strip), arguments.sizes[0], arguments.result)
    elif arguments.large:
        figures, _ = in_a_process(arguments, "ours", arguments.large)
        print(f"{arguments.large}²: {figures['seconds']:.0f} CPU s, {figures['MiB']:.0f} MiB")
    elif arguments.clone is None:
        print(
            "The official network is compared only when a clone of Zj-BinXia/DiffRIR is named: restore.py <clone>"
        )
    else:
        compare(arguments)


if __name__ == "__main__":
    main()
