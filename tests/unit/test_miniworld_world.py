import hashlib
import json
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from miniworld.world.captions import short_caption
from miniworld.world.scene import (
    COLOURS,
    PLACES,
    SHAPES,
    SIZES,
    UNIT,
    Scene,
    Thing,
    choose,
    is_unseen_pair,
    sample_scene,
    shuffled,
    split_of,
)

STAR = Thing("star", "red", "large", "plain", "top left")
SCENE = Scene((STAR,), "sand", "warm", "left", 7)


def test_a_seed_is_one_scene_on_every_machine() -> None:
    scenes = "\n".join(sample_scene(seed).to_json() for seed in range(50))
    # A change of this number makes every published data set another one.
    assert hashlib.sha256(scenes.encode()).hexdigest()[:16] == "2af0d9ac79991202"


def test_scenes_survive_json() -> None:
    for seed in range(100):
        scene = sample_scene(seed)
        assert Scene.from_json(scene.to_json()) == scene


@pytest.mark.parametrize(
    "damage",
    [
        lambda document: document.pop("background"),
        lambda document: document.update(background="moon"),
        lambda document: document.update(backdrop=256),
        lambda document: document.update(tone=["warm"]),
        lambda document: document.update(weather="rain"),
        lambda document: document["objects"].append(document["objects"][0]),
        lambda document: document["objects"].clear(),
        lambda document: document["objects"][0].update(colour="pink"),
        lambda document: document["objects"][0].update(shift=[0.5, 0]),
        lambda document: document["objects"][0].update(shift=[0, 40]),
        lambda document: document["objects"][0].update(shift=None),
    ],
)
def test_damaged_json_is_refused(damage) -> None:
    document = json.loads(SCENE.to_json())
    damage(document)
    with pytest.raises(ValueError):
        Scene.from_json(json.dumps(document))


@pytest.mark.parametrize("text", ["", "[]", "3", '{"objects": 3}', '{"objects": [3]}'])
def test_other_json_is_no_scene(text: str) -> None:
    with pytest.raises(ValueError, match="no scene"):
        Scene.from_json(text)


@pytest.mark.parametrize("objects", [(0, 3), (4, 3), (1, 9)])
def test_impossible_number_of_objects(objects: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="within 1 to 8"):
        sample_scene(0, objects)


def test_impossible_split() -> None:
    with pytest.raises(ValueError, match="train, validation, unseen_pair"):
        sample_scene(0, split="val")  # pyright: ignore[reportArgumentType]


def test_seeds_of_numpy_are_the_same_seeds() -> None:
    assert sample_scene(np.int64(5)) == sample_scene(5)  # pyright: ignore[reportArgumentType]


def test_every_choice_is_drawn_evenly() -> None:
    things = [thing for seed in range(1500) for thing in sample_scene(seed).objects]
    for name, values in (("shape", SHAPES), ("colour", COLOURS), ("size", SIZES), ("place", PLACES)):
        counts = Counter(getattr(thing, name) for thing in things)
        assert set(counts) == set(values)
        expected = len(things) / len(values)
        assert all(abs(count - expected) < 5 * expected**0.5 for count in counts.values()), name


@pytest.mark.parametrize("split", ["train", "validation", "unseen_pair"])
def test_the_split_does_not_change_how_many_objects_there_are(split) -> None:
    scenes = [sample_scene(seed, (1, 4), split) for seed in range(200)]
    assert {split_of(scene) for scene in scenes} == {split}
    counts = Counter(len(scene.objects) for scene in scenes)
    assert all(25 <= counts[number] <= 80 for number in (1, 2, 3, 4))


def test_each_colour_and_each_shape_is_in_one_unseen_pair() -> None:
    unseen = [(colour, shape) for colour in COLOURS for shape in SHAPES if is_unseen_pair(colour, shape)]
    assert sorted(colour for colour, _ in unseen) == sorted(COLOURS)
    assert sorted(shape for _, shape in unseen) == sorted(SHAPES)


def test_no_caption_and_no_pair_is_in_two_splits() -> None:
    captions: dict[str, set[str]] = {"train": set(), "validation": set(), "unseen_pair": set()}
    pairs: dict[str, set[tuple[str, str]]] = {name: set() for name in captions}
    for seed in range(20_000):
        scene = sample_scene(seed, (1, 2))
        split = split_of(scene)
        # One phrasing for all: only then do equal scenes give equal captions, sizes and textures aside.
        bare = replace(scene, objects=tuple(replace(t, size="small", texture="plain") for t in scene.objects))
        captions[split].add(short_caption(bare, 0))
        pairs[split] |= {(thing.colour, thing.shape) for thing in scene.objects}
    assert len(captions["train"]) > 8000 and len(captions["validation"]) > 500
    assert not captions["train"] & captions["validation"]
    assert not any(is_unseen_pair(*pair) for pair in pairs["train"] | pairs["validation"])
    assert len(pairs["train"]) == len(pairs["validation"]) == 56


def test_the_split_depends_on_what_every_caption_says_alone() -> None:
    for seed in range(200):
        scene = sample_scene(seed)
        other = replace(
            scene,
            objects=tuple(replace(thing, size="small", shift=(0, 0)) for thing in reversed(scene.objects)),
            tone="cool",
            light="right",
            backdrop=0,
        )
        assert split_of(other) == split_of(scene)


def test_objects_keep_to_their_places_and_overlap_only_in_pairs() -> None:
    pairs = 0
    for seed in range(1500):
        scene = sample_scene(seed)
        for thing in scene.objects:
            nearest = min(
                PLACES,
                key=lambda place: sum(abs(a - b) for a, b in zip(PLACES[place], thing.centre, strict=True)),
            )
            assert nearest == thing.place
            half = SIZES[thing.size] / 2
            assert all(half <= step <= UNIT - half for step in thing.centre)
        assert len(scene.behind) <= 1
        pairs += len(scene.behind)
    assert pairs > 50


def test_choices_are_stable_and_leaving_out_keeps_the_order() -> None:
    assert choose(SHAPES, 1, "a") == choose(SHAPES, 1, "a")
    assert len({choose(SHAPES, seed, "a") for seed in range(100)}) == len(SHAPES)
    whole = shuffled(SHAPES, 5)
    assert sorted(whole) == sorted(SHAPES)
    assert shuffled(SHAPES[2:], 5) == [shape for shape in whole if shape in SHAPES[2:]]
