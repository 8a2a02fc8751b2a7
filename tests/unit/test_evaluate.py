"""Estimates and their errors, metrics held to torchmetrics, tables, sheets and files of results."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import nn

from llmga.evaluate import (
    Estimate,
    contact_sheet,
    edges_found,
    frechet_distance,
    inception_score,
    mean,
    perceptual_distance,
    psnr,
    rate,
    resampled,
    table,
    transposed,
    write_json,
)
from llmga.evaluate.tasks.text_to_image import frechet_estimate

pytestmark = pytest.mark.usefixtures("one_thread")


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("hits, n", [(0, 5), (3, 7), (48, 48), (1, 1)])
def test_a_rate_of_single_things_has_the_binomial_error_by_laplaces_rule(hits: int, n: int) -> None:
    found = rate([1.0] * hits + [0.0] * (n - hits))
    p = (hits + 1) / (n + 2)
    assert found.value == pytest.approx(hits / n) and found.count == n
    assert found.error == pytest.approx(math.sqrt(p * (1 - p) / (n + 2)))


def test_no_rate_is_certain() -> None:
    for hits in (0, 1):
        assert 0 < rate([hits] * 50).error < 0.03
        assert 0 < rate([4 * hits] * 50, [4] * 50).error < 0.03


def test_a_rate_weighs_units_by_what_they_count() -> None:
    found = rate([1, 0, 0], [1, 3, 0])
    assert (found.value, found.count) == (0.25, 4)
    assert found == rate([1, 0], [1, 3])  # a unit that counts nothing says nothing
    assert rate([], []).count == 0 and math.isnan(rate([0.0], [0.0]).value)


def test_the_error_of_a_rate_is_what_repeating_shows() -> None:
    """Things of one unit agree with each other, so units and not things are what is independent."""
    draw = generator()
    counts = torch.randint(1, 6, (300,), generator=draw).double()
    right = (torch.rand(2000, 300, generator=draw) < 0.8).double()  # all or nothing of each unit
    spread = ((right * counts).sum(1) / counts.sum()).std()
    errors = [rate(row * counts, counts).error for row in right[:50]]
    assert sum(errors) / 50 == pytest.approx(float(spread), rel=0.1)


@pytest.mark.parametrize("hits, counts", [([2.0], [1.0]), ([-1.0], [1.0]), ([1.0], [1.0, 1.0])])
def test_a_rate_refuses_what_is_none(hits: list[float], counts: list[float]) -> None:
    with pytest.raises(ValueError, match="hits"):
        rate(hits, counts)


def test_a_mean_leaves_out_nan_and_has_the_error_of_n_minus_one() -> None:
    assert mean([1.0, 3.0, float("nan")]) == Estimate(2.0, pytest.approx(1.0), 2)
    assert math.isnan(mean([5.0]).error) and mean([float("nan")]).count == 0
    samples = torch.tensor([1.0, 2.0, 3.0])
    assert resampled(7, samples, 9) == Estimate(7.0, pytest.approx(1.0), 9)


@pytest.mark.parametrize("kind", ["rate", "mean"])
def test_a_difference_of_figures_of_the_same_units_errs_by_less_than_both(kind: str) -> None:
    """Two rows that share most of their luck: the error of their difference is its spread over other units."""
    draw = generator()
    shared = torch.rand(400, 200, generator=draw, dtype=torch.float64)
    rows = [shared + 0.2 * torch.rand(400, 200, generator=draw, dtype=torch.float64) for _ in range(2)]
    if kind == "rate":
        rows = [(row < 0.8).double() for row in rows]
    one, other = rows
    spread = float((one.mean(1) - other.mean(1)).std())
    estimate = rate if kind == "rate" else mean
    pairs = [(estimate(a), estimate(b)) for a, b in zip(one[:40], other[:40], strict=True)]
    errors = [a.minus(b).error for a, b in pairs]
    assert sum(errors) / 40 == pytest.approx(spread, rel=0.12)
    apart = [math.hypot(a.error, b.error) for a, b in pairs]
    assert sum(apart) / 40 > 1.5 * spread
    assert pairs[0][0].minus(pairs[0][1]).value == pytest.approx(float(one[0].mean() - other[0].mean()))


def test_a_difference_of_figures_of_other_units_errs_by_both() -> None:
    a, b = Estimate(3.0, 0.3, 9), mean([1.0, 2.0, 3.0])
    assert a.minus(b).error == pytest.approx(math.hypot(0.3, b.error))
    assert Estimate(3.0, math.nan, 9).minus(a).error == 0.3
    few, many = rate([1.0] * 3), rate([1.0] * 30)
    assert few.minus(many).error == pytest.approx(math.hypot(few.error, many.error))


def test_a_few_units_that_differ_one_way_decide_nothing() -> None:
    """Four pairs of twelve that all differ one way come about in one of eight tries where there is no difference."""
    all_right = rate([1.0] * 12)
    assert (
        all_right.minus(rate([1.0] * 8 + [0.0] * 4)).value
        < 2 * all_right.minus(rate([1.0] * 8 + [0.0] * 4)).error
    )
    few = all_right.minus(rate([1.0] * 6 + [0.0] * 6))
    assert few.value > 2 * few.error
    assert all_right.minus(all_right).error == pytest.approx(2**0.5 / 14)


def test_a_frechet_distance_is_resampled_with_its_real_pictures() -> None:
    """Painted and real pictures of the same items lie close together whichever items are drawn."""
    draw = generator()
    real = torch.randn(60, 8, generator=draw, dtype=torch.float64)
    near = real + 0.01 * torch.randn(60, 8, generator=draw, dtype=torch.float64)
    far = real * 1.3
    a, b = frechet_estimate(near, real, 50), frechet_estimate(far, real, 50)
    assert a.error < 0.01 and a.value == frechet_distance(near, real)
    assert b.minus(a).error <= math.hypot(a.error, b.error) and b.minus(a).value > 2 * b.minus(a).error
    with pytest.raises(ValueError, match="60 and 59"):
        frechet_estimate(near, real[:59], 50)


def test_psnr_is_torchmetrics() -> None:
    image = pytest.importorskip("torchmetrics.functional.image")
    a, b = torch.rand(2, 3, 3, 8, 9, generator=generator()).unbind(0)
    expected = image.peak_signal_noise_ratio(a, b, data_range=1.0, reduction="none", dim=(1, 2, 3))
    torch.testing.assert_close(psnr(a, b), expected)
    torch.testing.assert_close(psnr(2 * a - 1, 2 * b - 1, peak=2), expected)


def test_psnr_of_a_part_is_that_of_the_part_cut_out() -> None:
    a, b = torch.rand(2, 3, 3, 8, 9, generator=generator()).unbind(0)
    where = torch.zeros(1, 1, 8, 9)
    where[..., 2:5, 1:4] = 1
    torch.testing.assert_close(psnr(a, b, where), psnr(a[..., 2:5, 1:4], b[..., 2:5, 1:4]))
    assert psnr(a, b, 0 * where).isnan().all() and (psnr(a, a) == 60).all()


class Flat(nn.Module):
    """Two numbers per channel, as features of a picture."""

    num_features = 6

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return torch.cat([images.mean((2, 3)), images.square().mean((2, 3))], 1)


def test_the_frechet_distance_is_torchmetrics() -> None:
    fid = pytest.importorskip("torchmetrics.image.fid")
    draw = generator()
    real, fake = torch.rand(40, 3, 4, 4, generator=draw), torch.rand(30, 3, 4, 4, generator=draw) ** 2
    metric = fid.FrechetInceptionDistance(Flat(), normalize=True, input_img_size=(3, 4, 4)).set_dtype(
        torch.float64
    )
    metric.update(real.double(), real=True)
    metric.update(fake.double(), real=False)
    found = frechet_distance(Flat()(real.double()), Flat()(fake.double()))
    assert found == pytest.approx(float(metric.compute()), rel=1e-6)


def test_the_frechet_distance_of_normal_sets_is_known() -> None:
    """Of equal covariance it is the squared distance of the means; of equal means, that of the deviations."""
    x = torch.randn(4000, 3, generator=generator()).double()
    assert frechet_distance(x, x) == pytest.approx(0, abs=1e-9)
    assert frechet_distance(x, x + torch.tensor([3.0, 0.0, 4.0])) == pytest.approx(25, rel=1e-6)
    centred, scatter = x - x.mean(0), float(torch.cov(x.T).trace())
    assert frechet_distance(centred, 3 * centred) == pytest.approx(4 * scatter, rel=1e-6)
    for bad, said in ((x[:1], "at least two pictures"), (x * torch.nan, "of 4000 of 4000 pictures are not")):
        with pytest.raises(ValueError, match=said):
            frechet_distance(bad, x)


def test_the_perceptual_distance_is_torchmetrics_lpips() -> None:
    """Their AlexNet with random weights, and random weights of its channels, are injected into ours."""
    lpips: Any = pytest.importorskip("torchmetrics.functional.image.lpips")
    pytest.importorskip("torchvision")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        theirs = lpips._LPIPS(pretrained=False, pnet_rand=True, net="alex").eval()
    for head in theirs.lins:
        head.model[-1].weight.data.abs_()
    a, b = torch.rand(2, 2, 3, 64, 64, generator=generator()).unbind(0)
    weights = [head.model[-1].weight.detach().flatten() for head in theirs.lins]
    found = perceptual_distance(a, b, lambda images: theirs.net(theirs.scaling_layer(images)), weights)
    with torch.no_grad():
        torch.testing.assert_close(found, theirs(a, b).flatten(), rtol=1e-4, atol=0)
    assert not perceptual_distance(a, a, lambda images: [images]).any()


def test_the_inception_score_counts_classes() -> None:
    pytest.importorskip("torchmetrics")

    class Classes(nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return 20 * images[:, :, 0, 0]  # sure of one of the channels

    images = torch.eye(3).repeat(4, 1).view(12, 3, 1, 1)
    before = torch.random.get_rng_state()
    assert inception_score(images, Classes(), splits=1)[0] == pytest.approx(3, rel=1e-5)
    assert inception_score(images[:1].repeat(6, 1, 1, 1), Classes(), splits=2) == pytest.approx(
        (1, 0), abs=1e-5
    )
    assert torch.equal(torch.random.get_rng_state(), before)


def test_a_table_lines_up_what_there_is() -> None:
    rows = {
        "one": {"right": Estimate(0.5, 0.125, 4), "dB": Estimate(40.26, 1.5, 2)},
        "another": {"dB": Estimate(9.0, 0.0, 2), "goal": 0.99, "note": "x"},
    }
    lines = table(rows, counts=True).split("\n")
    assert lines[0].split() == ["right", "dB", "goal", "note"]
    assert lines[1].split() == "one 0.500 ±0.125 N 4 40.3 ±1.5 N 2".split()
    assert lines[2].split() == "another 9.000 ±0.000 N 2 0.99 x".split()
    assert {len(line) for line in lines} == {len(lines[0])}
    assert table(rows, ["dB"]).split("\n")[1].split() == "one 40.3 ±1.5".split()
    assert transposed(transposed(rows)) == rows


def test_a_sheet_shows_the_first_pictures_of_each_row(tmp_path: Path) -> None:
    rows = [torch.zeros(5, 3, 4, 6), torch.ones(2, 3, 4, 6)]
    contact_sheet(rows, tmp_path / "new" / "sheet.png", columns=3)
    with Image.open(tmp_path / "new" / "sheet.png") as sheet:
        assert sheet.size == (12, 8)
        assert sheet.getpixel((0, 0)) == (0, 0, 0) and sheet.getpixel((11, 7)) == (255, 255, 255)


def test_results_are_written_as_json(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    path.write_text("old")
    write_json(path, {"rows": {1: (Estimate(0.5, 0.1, 3), Path("a"))}})
    expected = {"rows": {"1": [{"value": 0.5, "error": 0.1, "count": 3}, "a"]}}
    assert json.loads(path.read_text()) == expected and [*tmp_path.iterdir()] == [path]


def test_an_edge_is_found_within_one_pixel_and_not_within_two() -> None:
    wanted, edges = torch.zeros(2, 2, 1, 9, 9)
    wanted[:, 0, 4, 2:7] = 1  # a line of 5 pixels
    edges[0, 0, 5, 2:5] = 1  # three beside it: with their neighbours they reach 4 of the 5
    edges[1, 0, 6, :] = 1  # two below it
    hits, counts = edges_found(edges, wanted)
    assert hits.tolist() == [4, 0] and counts.tolist() == [5, 5]
    assert edges_found(edges, wanted, 2)[0].tolist() == [5, 5]
    assert edges_found(edges, wanted, 0)[0].tolist() == [0, 0]
    precision = rate(*edges_found(wanted, edges))
    assert precision.value == pytest.approx(3 / (3 + 9)) and precision.count == 12
    assert [found.tolist() for found in edges_found(edges, edges * 0)] == [[0, 0], [0, 0]]
