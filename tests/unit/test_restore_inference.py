"""Restoring pictures and masks of every size and kind."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch
from support.diffrir_weights import fill

from llmga.restore import Architecture, DiffRIRS2, restore

pytestmark = pytest.mark.usefixtures("one_thread")


def net_of(**values: Any) -> DiffRIRS2:
    sizes = {
        "dim": 8,
        "num_blocks": (1, 1, 1, 1),
        "num_refinement_blocks": 1,
        "n_feats": 4,
        "n_encoder_res": 1,
    }
    net = DiffRIRS2(Architecture(**{**sizes, **values}))
    fill(net.named_parameters())
    return net.eval()


def hole(height: int, width: int) -> torch.Tensor:
    mask = torch.zeros(1, 1, height, width)
    mask[..., height // 4 : height - height // 4, width // 4 : width - width // 4] = 1
    return mask


@pytest.mark.parametrize("scale", [1, 2, 4])
@pytest.mark.parametrize("size", [(1, 1), (7, 513), (513, 7), (33, 1), (64, 64)])
def test_pictures_of_any_size(scale: Any, size: tuple[int, int]) -> None:
    height, width = size
    reference, mask = torch.rand(1, 3, height, width), hole(height, width)
    image = torch.rand(1, 3, -(-height // scale), -(-width // scale))
    made = restore(net_of(scale=scale), image, reference, mask)
    inside = mask.expand_as(made) > 0
    assert made.shape == reference.shape and inside.any()
    assert torch.equal(made[~inside], reference[~inside]) and not torch.equal(made[inside], reference[inside])


def test_masks_that_are_empty_full_or_soft() -> None:
    net, image, reference = net_of(), torch.rand(1, 3, 40, 33), torch.rand(1, 3, 40, 33)
    soft = hole(40, 33) * 0.75
    soft[..., :3, :3] = 0.25
    # What the network sees is the same for these two.
    whole = restore(net, image, reference, torch.where(soft >= 0.5, 1.0, 0.0))
    made = restore(net, image, reference, soft)
    inside = (soft >= 0.5).expand_as(made)
    torch.testing.assert_close(made[inside], torch.lerp(reference, whole, soft)[inside])
    untouched = (soft == 0).expand_as(made)
    assert torch.equal(made[untouched], reference[untouched])
    assert not torch.equal(made[..., :3, :3], reference[..., :3, :3])
    assert torch.equal(restore(net, image, reference, soft, blend="hard"), whole)
    assert torch.equal(restore(net, image, reference, torch.zeros(1, 1, 40, 33)), reference)
    full = restore(net, image, reference, torch.ones(1, 1, 40, 33))
    assert torch.equal(full, restore(net, image, torch.zeros_like(reference), torch.ones(1, 1, 40, 33)))


@pytest.mark.parametrize("strip", [4, None])
def test_hard_replaces_from_one_half_on_and_keeps_what_is_just_below(strip: int | None) -> None:
    """One half itself is hole, for the network and for the blend; the next smaller float32 is not."""
    net, image, reference = net_of(), torch.rand(1, 3, 40, 33), torch.rand(1, 3, 40, 33)
    half = torch.tensor(0.5)
    mask = torch.zeros(1, 1, 40, 33)
    mask[..., 10:20, 5:15], mask[..., 10:20, 15:25] = half, torch.nextafter(half, torch.tensor(0.0))
    made = restore(net, image, reference, mask, blend="hard", strip=strip)
    inside = (mask == half).expand_as(made)
    assert torch.equal(made[~inside], reference[~inside])
    assert torch.equal(made, restore(net, image, reference, (mask == half).float(), strip=strip))
    assert not torch.isclose(made[inside], reference[inside]).all()


@pytest.mark.parametrize("blend", ["soft", "hard"])
@pytest.mark.parametrize("strip", [4, None])
@pytest.mark.parametrize("broken", [float("nan"), float("inf"), -float("inf")])
def test_what_is_outside_the_mask_survives_a_network_that_gives_no_numbers(
    broken: float, strip: int | None, blend: Any
) -> None:
    """As float16 does when it overflows: 0 · NaN is NaN, so mixing by a weight of 0 is not enough."""
    net, image, reference = net_of(), torch.rand(2, 3, 40, 33), torch.rand(2, 3, 40, 33)
    for weight in (net.G.patch_embed["proj"].weight, net.G.tail[1].weight):
        kept = weight.detach().clone()
        with torch.no_grad():
            weight[0, 0] = broken
        mask = hole(40, 33) * 0.75
        mask[..., :3, :3] = 0.25
        made = restore(net, image, reference, mask, blend=blend, strip=strip)
        outside = (mask < 0.5 if blend == "hard" else mask == 0).expand_as(made)
        assert torch.equal(made[outside], reference[outside])
        assert made[~outside].isnan().any()  # else nothing was tested
        with torch.no_grad():
            weight.copy_(kept)


def test_an_empty_mask_does_not_run_the_network() -> None:
    net, calls = net_of(), []
    net.denoise.register_forward_hook(lambda *_: calls.append(1))
    image, steps = torch.rand(3, 3, 32, 32), []
    masks = torch.cat([torch.zeros(1, 1, 32, 32), hole(32, 32), torch.zeros(1, 1, 32, 32)])
    restore(net, image, image, masks, on_step=lambda i, n: steps.append((i, n)))
    assert len(calls) == net.architecture.timesteps
    # The prior, then 1-1-1 blocks on both ways, one in the depth and one of refinement, for each picture.
    assert (
        steps[0] == (9, 27) and steps[1:10] == [(i, 27) for i in range(10, 19)] and steps[10:] == [(27, 27)]
    )


@pytest.mark.parametrize("strip", [4, 32, None])
def test_the_prior_is_found_once_for_each_picture(strip: int | None) -> None:
    net, calls = net_of(), []
    net.denoise.register_forward_hook(lambda *_: calls.append(1))
    image = torch.rand(5, 3, 64, 32)
    restore(net, image, image, hole(64, 32), strip=strip)
    assert len(calls) == 5 * net.architecture.timesteps


def test_a_batch_of_five_is_the_loop_and_one_serves_all() -> None:
    net = net_of(scale=2)
    image, reference = torch.rand(5, 3, 17, 20), torch.rand(5, 3, 34, 40)
    masks = torch.cat([hole(34, 40) * share for share in (0.2, 0.5, 0.7, 1.0, 0.0)])
    batch = restore(net, image, reference, masks, seed=7)
    loop = [restore(net, image[i : i + 1], reference[i : i + 1], masks[i : i + 1], seed=7) for i in range(5)]
    assert torch.equal(batch, torch.cat(loop))
    one = restore(net, image, reference[:1], masks[:1])
    assert torch.equal(
        one, restore(net, image, reference[:1].expand(5, -1, -1, -1), masks[:1].expand(5, -1, -1, -1))
    )
    assert torch.equal(
        restore(net, image[:1], reference, masks)[2:3], restore(net, image[:1], reference[2:3], masks[2:3])
    )


@pytest.mark.parametrize("strip", [None, 4, 16])
def test_the_same_seed_gives_the_same_bytes(strip: int | None) -> None:
    net, image = net_of(), torch.rand(1, 3, 64, 40)
    before = torch.get_rng_state()
    made = [restore(net, image, image, hole(64, 40), seed, strip=strip) for seed in (3, 3, 4)]
    assert torch.equal(made[0], made[1]) and not torch.equal(made[0], made[2])
    assert torch.equal(torch.get_rng_state(), before)
    torch.testing.assert_close(
        made[0], restore(net, image, image, hole(64, 40), 3, strip=32), atol=1e-5, rtol=0.0
    )


def test_alpha_is_dropped() -> None:
    net, image, reference = net_of(), torch.rand(1, 4, 32, 32), torch.rand(1, 4, 32, 32)
    made = restore(net, image, reference, hole(32, 32))
    assert torch.equal(made, restore(net, image[:, :3], reference[:, :3], hole(32, 32)))


def test_image_and_mask_are_brought_to_the_references_size() -> None:
    """The preserved picture stays as it is, bit for bit; a smooth image is the same at every size."""
    net = net_of()
    ramp = torch.linspace(0.2, 0.8, 64).expand(1, 3, 64, 64).contiguous()
    other = torch.linspace(0.2, 0.8, 128).expand(1, 3, 128, 128).contiguous()
    reference = torch.rand(1, 3, 64, 64)
    wanted = restore(net, ramp, reference, hole(64, 64))
    made = restore(net, other, reference, hole(64, 64))
    outside = (hole(64, 64) == 0).expand_as(made)
    assert made.shape == reference.shape and torch.equal(made[outside], reference[outside])
    assert (made - wanted).abs().mean() < 0.02
    # A hole of 32 × 32 in twice the size.
    again = restore(net, ramp, reference, hole(128, 128), blend="hard")
    assert torch.equal(again, wanted)
    # A painter gives multiples of 8.
    near = restore(net, torch.rand(1, 3, 8, 512), torch.rand(1, 3, 7, 513), hole(7, 513))
    assert near.shape == (1, 3, 7, 513)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_the_result_has_the_references_dtype(dtype: torch.dtype) -> None:
    reference, mask = torch.rand(1, 3, 32, 32).to(dtype), hole(32, 32)
    made = restore(net_of(), torch.rand(1, 3, 32, 32), reference, mask)
    outside = (mask == 0).expand_as(made)
    assert made.dtype == dtype and torch.equal(made[outside], reference[outside])


def test_an_interruption_passes_through() -> None:
    class StopHereError(Exception):
        pass

    def stop(i: int, n: int) -> None:
        if i == 3:
            raise StopHereError

    image = torch.rand(1, 3, 32, 32)
    with pytest.raises(StopHereError):
        restore(net_of(), image, image, hole(32, 32), on_step=stop)


def test_within_a_block_each_strip_is_announced() -> None:
    """The larger the picture the more often, in the prior's encoder, in every block and in the tail."""

    def strips(height: int) -> Counter[int]:
        """How many, by the count of steps that were done."""
        image, done, seen = torch.rand(1, 3, height, 32), [0], Counter[int]()

        def on_strip() -> None:
            seen[done[0]] += 1

        restore(
            net_of(), image, image, hole(height, 32), strip=16,
            on_step=lambda i, n: done.__setitem__(0, i), on_strip=on_strip,
        )  # fmt: skip
        return seen

    short, tall = strips(64), strips(256)
    assert set(short) == set(tall) == set(range(10))  # before the first step, and after each of the 9
    # The deepest level of the short one has two rows, less than a strip.
    assert [tall[i] // short[i] for i in range(10)] == [4, 4, 4, 4, 4, 2, 4, 4, 4, 4]


def test_a_strip_may_interrupt() -> None:
    def stop() -> None:
        raise KeyError("stop here")

    image = torch.rand(1, 3, 32, 32)
    with pytest.raises(KeyError, match="stop here"):
        restore(net_of(), image, image, hole(32, 32), on_strip=stop)


def test_what_does_not_fit_is_refused() -> None:
    net, image, mask = net_of(), torch.rand(2, 3, 96, 96), torch.ones(1, 1, 96, 96)
    for change, message in (
        ({"image": image[:, :2]}, r"image must be \(B, 3 or 4, height, width\).*got \(2, 2, 96, 96\)"),
        ({"reference": image[..., :0]}, "reference must be .*at least one pixel"),
        ({"mask": mask[0]}, r"mask must be \(B, 1, height, width\)"),
        ({"mask": mask.expand(3, -1, -1, -1)}, "largest batch, 3; got 2 in image, 2 in reference, 3 in mask"),
        (
            {"reference": torch.rand(1, 3, 96, 400)},
            r"image \(96×96\) and reference \(400×96\) have different shapes",
        ),
        ({"blend": "round"}, "blend must be soft or hard, got 'round'"),
        ({"strip": 3}, "strip must be at least 4 rows, got 3"),
    ):
        with pytest.raises(ValueError, match=message):
            restore(net, **{"image": image, "reference": image, "mask": mask, **change})
