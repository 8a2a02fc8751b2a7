from dataclasses import replace
from itertools import count, product

import numpy as np
import pytest

from miniworld.world.render import PALETTE, box, changed, render
from miniworld.world.scene import (
    BACKGROUNDS,
    COLOURS,
    PLACES,
    SHAPES,
    SIDES,
    SIZES,
    TEXTURES,
    TONES,
    Scene,
    Thing,
    sample_scene,
)
from miniworld.world.textures import backdrop

CENTRE = Thing("circle", "red", "large", "plain", "centre")
SCENE = Scene((CENTRE,), "sand", "warm", "left", 7)


def pixels(scene: Scene, size: int = 128) -> np.ndarray:
    return np.asarray(render(scene, size).image).astype(int)


def test_same_scene_same_bytes() -> None:
    for seed in range(5):
        assert render(sample_scene(seed)).image.tobytes() == render(sample_scene(seed)).image.tobytes()


def test_too_small() -> None:
    with pytest.raises(ValueError, match="at least 32"):
        render(SCENE, 16)


@pytest.mark.parametrize("size", [64, 128, 200])
def test_masks_lie_where_the_scene_says(size: int) -> None:
    for shape, name, place in product(SHAPES, SIZES, PLACES):
        thing = Thing(shape, "blue", name, "striped", place)
        left, top, right, bottom = box(render(replace(SCENE, objects=(thing,)), size).amodal[0])
        centre = (left + right) / 2, (top + bottom) / 2
        expected = [step * size / 128 for step in thing.centre]
        assert np.abs(np.subtract(centre, expected)).max() <= 2 * size / 128, (shape, name)
        longer = max(right - left, bottom - top)
        assert 0.85 * SIZES[name] * size / 128 - 1 <= longer <= SIZES[name] * size / 128 + 1, (shape, name)


def test_sizes_differ_by_a_third_in_every_shape() -> None:
    for shape in SHAPES:
        widths = []
        for name in SIZES:
            thing = replace(CENTRE, shape=shape, size=name)
            left, _, right, _ = box(render(replace(SCENE, objects=(thing,))).amodal[0])
            widths.append(right - left)
        assert widths[1] / widths[0] > 1.33 and widths[2] / widths[1] > 1.33, (shape, widths)


def test_colours_stay_themselves_on_every_background_in_every_light() -> None:
    palette = np.array(list(PALETTE.values()))
    for background, tone, light, texture in product(BACKGROUNDS, TONES, SIDES, TEXTURES):
        things = tuple(
            Thing(SHAPES[i], colour, "small", texture, place)
            for i, (colour, place) in enumerate(zip(COLOURS, PLACES, strict=False))
        )
        rendering = render(Scene(things, background, tone, light, 0))
        picture = np.asarray(rendering.image).astype(int)
        for i, colour in enumerate(COLOURS):
            inside = picture[rendering.visible[i]]
            distance = np.abs(inside[:, None] - palette).max(-1)
            # Pixels between two colours are neither; white stripes and dots are white.
            counts = np.bincount(distance.argmin(1)[distance.min(1) < 50], minlength=len(COLOURS))
            if colour != "white":
                counts[COLOURS.index("white")] = 0
            assert counts[i] > 2 * np.delete(counts, i).max(), (background, tone, light, texture, colour)


def test_the_mark_of_a_texture_can_be_seen() -> None:
    for colour, name in product(COLOURS, SIZES):
        plain, striped, dotted = (
            pixels(
                replace(
                    SCENE, objects=(replace(CENTRE, shape="square", colour=colour, size=name, texture=t),)
                )
            )
            for t in TEXTURES
        )
        for other in (striped, dotted):
            assert 0.1 < (np.abs(plain - other).max(-1) > 60).sum() / SIZES[name] ** 2 < 0.6
        assert (np.abs(striped - dotted).max(-1) > 60).sum() / SIZES[name] ** 2 > 0.1


def test_shadows_fall_away_from_the_light() -> None:
    ground = np.rint(backdrop("sand", "warm", 7, 128)).astype(int)
    for light, side in (("left", slice(64, None)), ("right", slice(None, 64))):
        rendering = render(replace(SCENE, light=light))
        shadow = (np.asarray(rendering.image).astype(int) - ground).sum(-1) < -30
        shadow &= ~rendering.amodal[0]
        assert shadow[:, side].sum() > 0.75 * shadow.sum() > 50


def test_tone_changes_the_picture_and_each_backdrop_is_another() -> None:
    warm, cool = (pixels(replace(SCENE, tone=tone)).mean((0, 1)) for tone in TONES)
    assert warm[0] > cool[0] + 10 and warm[2] < cool[2] - 10
    for background in BACKGROUNDS:
        a, b = (pixels(replace(SCENE, background=background, backdrop=i)) for i in (3, 200))
        assert (a != b).any(-1).mean() > 0.3, background


def test_what_stands_in_front_hides_what_stands_behind() -> None:
    hidden = []
    for sizes in (("medium", "medium"), ("large", "medium"), ("large", "large")):
        pair = _pair(sizes)
        for back, front in product(SHAPES, SHAPES):
            things = (replace(pair.objects[0], shape=back), replace(pair.objects[1], shape=front))
            rendering = render(replace(pair, objects=things))
            assert (rendering.visible[1] == rendering.amodal[1]).all()
            assert (rendering.visible[0] == (rendering.amodal[0] & ~rendering.amodal[1])).all()
            hidden.append(1 - rendering.visible[0].sum() / rendering.amodal[0].sum())
    assert min(hidden) > 0.05 and max(hidden) < 0.5


def _pair(sizes: tuple[str, str]) -> Scene:
    """The world's first scene in which an object of the first size stands behind one of the second."""
    scenes = (sample_scene(seed, (2, 2)) for seed in count())
    return next(s for s in scenes if s.behind and tuple(thing.size for thing in s.objects) == sizes)


def test_changes_stay_inside_the_mask() -> None:
    other = Thing("star", "green", "medium", "dotted", "top")
    for size, after in product(
        (64, 128),
        (
            replace(SCENE, objects=(replace(CENTRE, colour="blue"),)),
            replace(SCENE, objects=(replace(CENTRE, size="small", shape="ring"),)),
            replace(SCENE, objects=(replace(CENTRE, place="right"),)),
            replace(SCENE, objects=(CENTRE, other)),
            replace(SCENE, background="night"),
            replace(SCENE, backdrop=99),
        ),
    ):
        differ = (pixels(SCENE, size) != pixels(after, size)).any(-1)
        mask = changed(SCENE, after, size)
        assert (mask == changed(after, SCENE, size)).all()
        assert not (differ & ~mask).any()
        assert differ.any() and mask.mean() < 4 * differ.mean()
    assert not changed(SCENE, SCENE).any()
    assert (
        changed(SCENE, replace(SCENE, light="right")).all()
        and changed(SCENE, replace(SCENE, tone="cool")).all()
    )


def test_a_new_background_leaves_the_inside_of_objects() -> None:
    mask = changed(SCENE, replace(SCENE, background="snow"))
    inside = render(SCENE).amodal[0]
    assert not mask[64, 64] and mask[~inside].all()
    assert (inside & ~mask).sum() > 0.85 * inside.sum()
