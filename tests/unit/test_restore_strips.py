"""Strips of rows against the whole picture: the same numbers, and nothing that is as large as a hidden layer."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from support.diffrir_weights import SIZES, fill, inputs
from torch.utils._python_dispatch import TorchDispatchMode

from llmga.restore import Architecture, DiffRIRS2, join_inputs, restore, strip_rows
from llmga.restore.diffrir_strips import DIRformerInStrips, encode_prior
from llmga.restore.diffrir_tail import FoldedTail
from llmga.restore.row_streams import (
    add_residual,
    conv3x3,
    convolve_by_matmul,
    convolve_rows,
    regroup,
    split_rows,
    with_halo,
)

pytestmark = pytest.mark.usefixtures("one_thread")

FIXTURE = Path(__file__).parent / "fixtures" / "diffrir_official.safetensors"
TOLERANCE = {"atol": 1e-5, "rtol": 1e-5}


def net_of(**values: Any) -> DiffRIRS2:
    sizes = {
        "dim": 8,
        "num_blocks": (2, 1, 1, 1),
        "num_refinement_blocks": 2,
        "n_feats": 4,
        "n_encoder_res": 2,
    }
    net = DiffRIRS2(Architecture(**{**sizes, **values}))
    fill(net.named_parameters())
    return net.eval().requires_grad_(False)


def in_strips(net: DiffRIRS2, joined: torch.Tensor, noise: torch.Tensor, rows: int) -> torch.Tensor:
    folded = F.pixel_unshuffle(joined, 4 // net.architecture.scale).permute(0, 2, 3, 1).contiguous()
    _, height, width, _ = folded.shape
    prior = net.diffusion(net.denoise, encode_prior(net.condition, split_rows(folded, rows), height), noise)
    former = DIRformerInStrips(net.G, FoldedTail(net.G.tail, prior), prior, rows)
    made = torch.cat(list(former(split_rows(folded, rows), height, width)), 1).permute(0, 3, 1, 2)
    return made + F.interpolate(joined[:, :3], scale_factor=net.architecture.scale, mode="nearest")


@torch.no_grad()
@pytest.mark.parametrize("rows", [1, 3, 100])
@pytest.mark.parametrize("scale", [1, 2, 4])
def test_strips_give_what_the_official_network_gives(scale: Any, rows: int) -> None:
    architecture, given = Architecture(scale=scale, **SIZES), inputs(scale)
    net = DiffRIRS2(architecture)
    fill(net.named_parameters())
    joined = join_inputs(given["image"], given["truth"], given["mask"], architecture)
    wanted = load_file(FIXTURE)[f"x{scale}/s2"]
    assert wanted.std() > 0.1
    torch.testing.assert_close(in_strips(net, joined, given["noise"], rows), wanted, **TOLERANCE)


@torch.no_grad()
@pytest.mark.parametrize("rows", [1, 2, 5, 16])
@pytest.mark.parametrize("size", [(32, 32), (96, 64)])
@pytest.mark.parametrize(
    "values",
    [
        {},
        {"reference": False, "scale": 4},
        {"num_blocks": (1, 1, 0, 0), "num_refinement_blocks": 1},
        {"num_blocks": (0, 0, 0, 0), "num_refinement_blocks": 0, "n_encoder_res": 0},
        {"heads": (2, 2, 8, 4), "scale": 2},
    ],
)
def test_strips_of_any_height_give_what_the_network_gives(
    values: dict[str, Any], size: tuple[int, int], rows: int
) -> None:
    net = net_of(**values)
    scale, reference = net.architecture.scale, net.architecture.reference
    generator = torch.Generator().manual_seed(0)
    channels = 3 + (3 * scale**2 if reference else 0)
    joined = torch.rand(1, channels, size[0] // scale, size[1] // scale, generator=generator)
    noise = torch.randn(1, net.architecture.prior, generator=generator)
    torch.testing.assert_close(in_strips(net, joined, noise, rows), net(joined, noise), **TOLERANCE)


@torch.no_grad()
@pytest.mark.parametrize("size", [(8, 8), (8, 24), (17, 9)])
@pytest.mark.parametrize("rows", [1, 3, 100])
def test_the_tail_is_one_convolution_up_to_its_borders(size: tuple[int, int], rows: int) -> None:
    net = net_of(dim=12)
    x = torch.randn(1, 24, *size, generator=torch.Generator().manual_seed(0))
    made = torch.cat(list(FoldedTail(net.G.tail, x)(split_rows(x.permute(0, 2, 3, 1), rows), size[0])), 1)
    wanted = net.G.tail(x)
    assert wanted.std() > 0.1
    torch.testing.assert_close(made.permute(0, 3, 1, 2), wanted, **TOLERANCE)


def pieces(x: torch.Tensor, heights: list[int]) -> Iterator[torch.Tensor]:
    return iter(x.split(heights, 1))


@pytest.mark.parametrize("heights", [[7], [1] * 7, [3, 1, 3], [1, 6], [6, 1], [2, 2, 2, 1]])
@pytest.mark.parametrize("reach", [1, 2, 3])
def test_windows_see_each_row_and_its_neighbours_once(heights: list[int], reach: int) -> None:
    x = torch.arange(1.0, 43.0).view(1, 7, 3, 2)
    padded = F.pad(x, (0, 0, 0, 0, reach, reach))
    row = 0
    for block in with_halo(pieces(x, heights), 7, reach):
        n = block.shape[1] - 2 * reach
        assert 1 <= n <= max(heights) and torch.equal(block, padded[:, row : row + n + 2 * reach])
        row += n
    assert row == 7


@torch.no_grad()
@pytest.mark.parametrize("heights", [[7], [1] * 7, [3, 1, 3], [6, 1]])
def test_streams_of_any_heights_are_the_picture(heights: list[int]) -> None:
    torch.manual_seed(0)
    x, layer = torch.randn(1, 7, 5, 4), torch.nn.Conv2d(4, 4, 3, padding=1)
    nchw = x.permute(0, 3, 1, 2)
    double = add_residual(pieces(x, heights), lambda rows: conv3x3(conv3x3(rows, 7, layer, 0.1), 7, layer))
    wanted = nchw + layer(F.leaky_relu(layer(nchw), 0.1))
    torch.testing.assert_close(torch.cat(list(double), 1).permute(0, 3, 1, 2), wanted, **TOLERANCE)
    whole = pieces(torch.cat([x, x[:, :1]], 1), [*heights, 1])
    regrouped_rows = list(regroup(whole, 2))
    assert all(strip.shape[1] % 2 == 0 for strip in regrouped_rows)
    assert torch.equal(torch.cat(regrouped_rows, 1), torch.cat([x, x[:, :1]], 1))


def test_strips_do_not_grow_from_layer_to_layer() -> None:
    """Each layer has a row left over at the end, and behind twenty of them that would be twenty rows at once."""
    stream, layer = pieces(torch.ones(1, 32, 5, 4), [4] * 8), torch.nn.Conv2d(4, 4, 3, padding=1)
    for _ in range(20):
        stream = conv3x3(stream, 32, layer.requires_grad_(False))
    heights = [strip.shape[1] for strip in stream]
    assert max(heights) == 4 and sum(heights) == 32


@pytest.mark.parametrize("bias", [None, torch.arange(7.0)])
def test_few_pixels_are_convolved_by_a_matrix_product(bias: torch.Tensor | None) -> None:
    generator = torch.Generator().manual_seed(0)
    block = torch.randn(1, 4, 3, 5, generator=generator)
    weight = torch.randn(7, 5, 3, 3, generator=generator)
    torch.testing.assert_close(
        convolve_by_matmul(block, weight, bias, 1), convolve_rows(block, weight, bias, 1), **TOLERANCE
    )


class Largest(TorchDispatchMode):
    """The most bytes that any new tensor takes."""

    bytes = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        for value in result if isinstance(result, (tuple, list)) else [result]:
            if isinstance(value, torch.Tensor):
                self.bytes = max(self.bytes, value.untyped_storage().nbytes())
        return result


@torch.no_grad()
def test_nothing_is_larger_than_a_picture_of_the_first_level() -> None:
    """A hidden layer would be 4.4 times as large, and what the tail passes through 16 times."""
    net = net_of(dim=16)
    height, width = 256, 64
    prior, tail = torch.rand(1, 16), FoldedTail(net.G.tail, torch.zeros(1))
    with Largest() as largest:
        encode_prior(net.condition, (torch.rand(1, 2, width, 96) for _ in range(height // 2)), height)
        former = DIRformerInStrips(net.G, tail, prior, 2)
        for _ in former((torch.rand(1, 2, width, 96) for _ in range(height // 2)), height, width):
            pass
    assert largest.bytes == 4 * 2 * 16 * height * width


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.bfloat16, 0.03), (torch.float16, 0.004)])
def test_half_precision_is_as_close_as_it_can_be(dtype: torch.dtype, tolerance: float) -> None:
    generator = torch.Generator().manual_seed(0)
    image, reference = torch.rand(2, 1, 3, 64, 64, generator=generator)
    mask = torch.ones(1, 1, 64, 64)
    net = net_of()
    # Weights that move a picture by a tenth; with the others all would be clamped.
    net.G.tail[1].weight.mul_(0.2)
    wanted = restore(net, image, reference, mask)
    assert (wanted - image).abs().mean() > 0.03
    made = restore(net.to(dtype), image, reference, mask, strip=8)
    assert made.dtype == torch.float32
    assert (made - wanted).square().mean().sqrt() < tolerance


def test_sums_over_many_pixels_do_not_leave_half_precisions_range() -> None:
    """Σq² of activations around 30 over 64 × 64 pixels is far beyond 65504."""
    net = net_of(num_blocks=(1, 0, 0, 0), num_refinement_blocks=0)
    image, mask = torch.rand(1, 3, 256, 256), torch.ones(1, 1, 256, 256)
    net.G.encoder_level1[0].attn.qkv.weight.mul_(100)
    wanted = restore(net, image, image, mask)
    made = restore(net.half(), image, image, mask)
    assert made.isfinite().all() and (made - wanted).square().mean().sqrt() < 0.02


def test_the_height_of_a_strip_follows_the_memory() -> None:
    net = Architecture()
    weight = torch.zeros(1)
    heights = [strip_rows(net, 1024, weight, memory) for memory in (10**7, 10**8, 10**9, 10**10)]
    assert heights == sorted(set(heights)) and all(height & (height - 1) == 0 for height in heights)
    assert strip_rows(net, 1024, weight, 10**9) == 2 * strip_rows(net, 2048, weight, 10**9)
    assert strip_rows(net, 1024, weight.half(), 10**9) == 2 * strip_rows(net, 1024, weight, 10**9)
    assert strip_rows(net, 10**6, weight, 1) == 16


def test_strips_of_small_pictures_stay_small_on_a_cpu() -> None:
    """The numbers that benchmarks/README.md was measured with; they do not depend on free memory."""
    heights = [strip_rows(Architecture(), width, torch.zeros(1)) for width in (512, 1024, 4096)]
    assert heights == [24, 16, 16]
