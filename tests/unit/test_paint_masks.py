import numpy as np
import pytest

from llmga.paint.masks import MIXES, Borders, Boxes, MaskMix, Strokes

SIZES = [(1, 1), (7, 513), (513, 7), (2, 3), (64, 64), (96, 32), (300, 900)]
TRAINING = ["stage1", "stage2", "diffrir"]


@pytest.mark.parametrize("name", TRAINING)
@pytest.mark.parametrize("size", SIZES)
def test_a_mask_is_binary_never_empty_and_of_the_size_asked_for(name, size):
    rng = np.random.default_rng(0)
    for _ in range(40):
        mask = MIXES[name].draw(rng, *size)
        assert mask.shape == size and mask.dtype == np.float32
        assert set(np.unique(mask)) <= {0.0, 1.0} and mask.any()


@pytest.mark.parametrize("name", MIXES)
def test_the_same_generator_gives_the_same_masks(name):
    first, second = np.random.default_rng(5), np.random.default_rng(5)
    draws = [(MIXES[name].draw(first, 60, 90), MIXES[name].draw(second, 60, 90)) for _ in range(10)]
    assert all(np.array_equal(one, other) for one, other in draws)
    assert not np.array_equal(draws[0][0], draws[1][0])


@pytest.mark.parametrize(
    ("name", "weights"),
    [("stage1", (0.25, 0.25, 0.5)), ("diffrir", (0.35, 0.3, 0.35)), ("wide", (10 / 13, 3 / 13))],
)
def test_kinds_come_as_often_as_the_released_configs_say(name, weights):
    rng, mix = np.random.default_rng(0), MIXES[name]
    picked = [mix.pick(rng) for _ in range(4000)]
    shares = [picked.count(shape) / 4000 for _, shape in mix.shapes]
    assert shares == pytest.approx(weights, abs=0.03)  # s.e. .008


def test_stage_2_hides_everything_every_fourth_time():
    rng = np.random.default_rng(0)
    assert np.mean([MIXES["stage2"].draw(rng, 16, 16).all() for _ in range(2000)]) == pytest.approx(
        0.25, abs=0.04
    )


# Mean hole of the released generators (OpenCV drawing) over 3000 masks at 512²; s.e. at most .004.
@pytest.mark.parametrize(
    ("shape", "area"),
    [
        (Strokes((1, 5), (10, 249), (5, 104)), 0.184),
        (Strokes((4, 71), (10, 109), (5, 24)), 0.296),
        (Strokes((1, 6), (10, 459), (5, 254)), 0.521),
        (Boxes((1, 4), (35, 160)), 0.087),
        (Boxes((1, 4), (30, 300)), 0.220),
        (Borders((0.35, 0.4)), 0.624),
    ],
)
@pytest.mark.parametrize("size", [(512, 512), (128, 128), (128, 512)])
def test_holes_are_as_large_as_the_released_generators_at_any_size(shape, area, size):
    rng = np.random.default_rng(1)
    mean = np.mean([shape.draw(rng, *size).mean() for _ in range(500)])
    # Long thin pictures cut strokes and boxes off more often.
    assert mean == pytest.approx(area, rel=0.08 if size[0] == size[1] else 0.17)


@pytest.mark.parametrize("size", [(40, 200), (200, 40), (100, 100)])
def test_borders_are_shares_of_the_side_they_cut(size):
    rng, sides = np.random.default_rng(0), []
    for _ in range(400):
        mask = Borders((0.35, 0.4)).draw(rng, *size)
        height, width = size
        kept_rows, kept_columns = np.flatnonzero((mask == 0).any(1)), np.flatnonzero((mask == 0).any(0))
        top, bottom = kept_rows[0] / height, 1 - (kept_rows[-1] + 1) / height
        left, right = kept_columns[0] / width, 1 - (kept_columns[-1] + 1) / width
        cut = [share for share in (left, top, right, bottom) if share > 0]
        assert cut and all(0.33 <= share <= 0.42 for share in cut)
        assert mask[kept_rows[0] : kept_rows[-1] + 1, kept_columns[0] : kept_columns[-1] + 1].sum() == 0
        sides.append([share > 0 for share in (left, top, right, bottom)])
    # Each with probability ½, or one of four when none was: ½ + (½)⁴/4.
    assert np.mean(sides, axis=0) == pytest.approx([0.516] * 4, abs=0.09)


def test_boxes_are_upright_and_keep_their_margin():
    rng = np.random.default_rng(0)
    for _ in range(100):
        mask = Boxes((1, 1), (35, 160)).draw(rng, 512, 512)
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        assert mask.sum() == len(rows) * len(columns)
        assert 35 <= len(rows) <= 160 and 35 <= len(columns) <= 160
        assert rows[0] >= 10 and columns[0] >= 10 and rows[-1] < 502 and columns[-1] < 502


def test_figures_hold_at_the_side_they_were_given_for():
    sides = [shape.side for _, shape in MIXES["diffrir"].shapes if isinstance(shape, Strokes | Boxes)]
    assert sides == [400, 400]
    at_400, at_800 = (
        np.mean(
            [
                Boxes((1, 1), (100, 100), side=400).draw(np.random.default_rng(i), size, size).sum() ** 0.5
                for i in range(5)
            ]
        )
        for size in (400, 800)
    )
    assert (at_400, at_800) == (100, 200)


@pytest.mark.parametrize("name", ["narrow", "wide"])
def test_evaluation_masks_hide_at_most_half(name):
    rng = np.random.default_rng(0)
    areas = [MIXES[name].draw(rng, 256, 256).mean() for _ in range(150)]
    assert 0 < min(areas) and max(areas) <= 0.5 and np.mean(areas) == pytest.approx(0.26, abs=0.05)


def test_what_cannot_be_drawn_is_refused():
    with pytest.raises(ValueError, match="hides at most 50% of a picture of 1×1"):
        MIXES["wide"].draw(np.random.default_rng(0), 1, 1)
    with pytest.raises(ValueError, match="got 0×5"):
        MaskMix(((1.0, Borders((0.3, 0.4))),)).draw(np.random.default_rng(0), 5, 0)
