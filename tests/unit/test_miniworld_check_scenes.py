"""The check of planned scenes: its plans are the world's scenes, and its sums are right."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from llmga.evaluate import Estimate
from llmga.scene import long_prompt
from miniworld.checks.scenes import (
    METHODS_OF_SCENES,
    RESULT_FILE,
    InsertionScore,
    ScenesConfig,
    SceneScore,
    check_scenes,
    name_of,
    plan_of,
    scene_results,
    scenes_table,
    score_scene,
    sentence_of,
    settings_of,
    without_descriptions,
)
from miniworld.files import CHECKPOINT, READER
from miniworld.models.random_diffusion import write_checkpoint
from miniworld.models.reader import Reader, Reading
from miniworld.world.dataset import ATTRIBUTES
from miniworld.world.phrases import ON, WHERE
from miniworld.world.scene import PLACES, sample_scene


def test_a_plan_says_what_the_scene_holds_and_where() -> None:
    conflicts = set()
    for number in range(30):
        scene = sample_scene(number, (2, 4), "unseen_pair")
        plan = plan_of(scene, number)
        assert len(plan.objects) == len(scene.objects) and plan.background
        for one, thing in zip(plan.objects, scene.objects, strict=True):
            assert (
                one.name.split()[1] == thing.size
                and one.name.endswith(thing.shape)
                and thing.colour in one.name
            )
            x, y = thing.centre
            assert one.box.centre == pytest.approx((x / 128, y / 128), abs=0.06)
            here = re.compile(rf"{WHERE[thing.place]},? {ON[scene.background]}")
            wrong = [i for i, text in enumerate(one.descriptions) if not here.fullmatch(text)]
            assert len(one.descriptions) == 3 and len(wrong) == 1
            assert one.descriptions[wrong[0]] in {
                f"{WHERE[p]} {ON[scene.background]}" for p in scene.free_places
            }
            conflicts.add(wrong[0])
        asked = sentence_of(scene)
        assert not any(where in asked for where in WHERE.values()), "places are the plan's"
        said = long_prompt(without_descriptions(plan))
        assert all(f"{name_of(one)} {WHERE[one.place]}" in said for one in scene.objects)
    assert conflicts == {0, 1, 2}


def test_the_ablation_turns_the_parts_off_one_by_one() -> None:
    guided = {name: settings_of(name, ScenesConfig(), 16).together for name in METHODS_OF_SCENES[2:]}
    assert [bool(one.scale) for one in guided.values()] == [False, False, True, True, True]
    assert [bool(guided[name].weights.suppression) for name in ("guidance", "+ suppression", "all")] == [
        False,
        True,
        True,
    ]
    # The last word of a name holds none of this painter's attention, and its prompts say places.
    whole = settings_of("all", ScenesConfig(), 16)
    assert (whole.phrase, whole.alone_at, whole.layers, whole.alone_negative) == ("sum", "box", "up", "")


class Fixed:
    """A reader that sees a red star in the centre and nothing else."""

    def read(self, images: torch.Tensor) -> Reading:
        present = torch.zeros(1, 9, dtype=torch.bool)
        present[0, list(PLACES).index("centre")] = True
        chosen = {"colour": "red", "shape": "star"}
        attributes = {
            name: torch.full((1, 9), list(values).index(chosen[name]) if name in chosen else 0)
            for name, values in ATTRIBUTES.items()
        }
        return Reading(present, attributes, torch.zeros(1, dtype=torch.long))


def test_an_object_is_right_only_where_it_was_planned() -> None:
    for number in range(200):
        scene = sample_scene(number, (2, 4), "validation")
        found = score_scene(Fixed(), "all", number, scene, torch.zeros(1, 3, 128, 128))  # type: ignore[arg-type]
        centre = [thing for thing in scene.objects if thing.place == "centre"]
        assert found.placed == len(centre) and found.objects == len(scene.objects)
        assert found.extra == 1 - len(centre)
        assert found.right == sum((one.colour, one.shape) == ("red", "star") for one in centre)


def test_results_are_by_method_with_errors(tmp_path: Path) -> None:
    scores = [SceneScore("all", 0, 2, 2, 2), SceneScore("all", 1, 4, 3, 1), SceneScore("none", 0, 2, 0, 0)]
    insertions = [InsertionScore(0, True, 2, 2, 40.0), InsertionScore(1, False, 0, 1, 30.0)]
    found = scene_results(scores, insertions)
    assert (found["all"]["object"].value, found["all"]["object"].count) == (0.5, 6)
    doubled = scene_results([SceneScore("all", 0, 2, 2, 2, 1), *scores[1:]], [])["all"]
    assert doubled["scene"].value == 0 and doubled["extra"].value == 0.5, (
        "what nobody planned is no part of a scene"
    )
    assert found["all"]["scene"].value == 0.5 and found["none"]["place"].value == 0
    assert isinstance(found["insertion"]["dB outside"], Estimate)
    assert found["insertion"]["dB outside"].value == 35 and found["insertion"]["others kept"].count == 3
    assert "insertion" in scenes_table(scores, insertions) and "insertion" not in scene_results(scores, [])
    with pytest.raises(ValueError, match="methods must be of sentence"):
        check_scenes(tmp_path, ScenesConfig(1, 0), ["best"])
    with pytest.raises(ValueError, match="got none"):
        check_scenes(tmp_path, ScenesConfig(1, 0), [])


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("side", [128, 256])
def test_scenes_are_painted_and_objects_inserted_at_the_miniatures_own_size(
    tmp_path: Path, side: int
) -> None:
    write_checkpoint(tmp_path / CHECKPOINT, picture=side)
    weights = {name: value.contiguous() for name, value in Reader().state_dict().items()}
    save_file(weights, tmp_path / READER)
    methods = ("sentence", "none")
    scores, insertions = check_scenes(tmp_path, ScenesConfig(scenes=1, insertions=1, steps=2), methods)
    assert [one.method for one in scores] == [*methods] and insertions[0].decibels > 0
    with Image.open(tmp_path / "pictures" / "scenes.png") as sheet:
        assert sheet.size == (3 * side, side)  # the true picture beside what the methods paint


@pytest.mark.usefixtures("one_thread")
def test_a_check_that_was_stopped_goes_on_where_it_was(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / CHECKPOINT, picture=128)
    torch.manual_seed(0)
    save_file({name: value.contiguous() for name, value in Reader().state_dict().items()}, tmp_path / READER)
    config, result = ScenesConfig(scenes=2, insertions=2, steps=2), tmp_path / RESULT_FILE
    whole = check_scenes(tmp_path, config, ("none",))
    in_one_go = result.read_bytes()

    def stop(done: int, total: int) -> None:
        steps.append(done)
        if done == stop_at:
            raise KeyboardInterrupt

    for stop_at, expected in ((1, [1]), (3, [1, 2, 3]), (0, [4])):  # the sheet of the first run lacks a scene
        if stop_at == 1:
            result.unlink()
        steps: list[int] = []
        with contextlib.suppress(KeyboardInterrupt):
            assert check_scenes(tmp_path, config, ("none",), stop) == whole
        assert steps == expected
    assert result.read_bytes() == in_one_go

    save_file({name: value * 0 for name, value in load_file(tmp_path / READER).items()}, tmp_path / READER)
    stop_at, steps = 0, []
    check_scenes(tmp_path, config, ("none",), stop)
    assert steps == [1, 2, 3, 4], "another reader's scores are not its own"
