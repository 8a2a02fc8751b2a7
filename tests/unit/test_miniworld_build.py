"""The miniature's painter: its data, its single file, how it is scored, and the recipe from end to end."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("diffusers", reason="the painter's networks are diffusers'")

from llmga.text import clip_tokenizer
from llmga.train import read_config
from miniworld.build.build import build
from miniworld.build.recipe import RECIPES, Recipe
from miniworld.checks.painter import late_places, of_size, score, truth_of
from miniworld.files import AUTOENCODER, BASE, CHECKPOINT, CONTROLNET, MANIFEST
from miniworld.models.architecture import picture_size, picture_size_of_checkpoint
from miniworld.models.controlnet import load_controlnet
from miniworld.models.painter import (
    load_pipeline,
    new_autoencoder,
    new_text_encoder,
    new_unet,
    vocabulary,
    write_single_file,
)
from miniworld.models.reader import Reading
from miniworld.world.captions import detailed_caption, short_caption, vague_caption
from miniworld.world.dataset import ATTRIBUTES, Mix, Scenes, captions_of, labels_of, painted
from miniworld.world.facts import caption_facts
from miniworld.world.render import render
from miniworld.world.scene import PLACES, sample_scene


def test_painted_scenes_are_the_renderers_with_their_labels(tmp_path: Path) -> None:
    scenes = Scenes(600, seed=3)  # more than one process takes at a time
    source = painted(scenes, tmp_path, workers=1)
    for i in (0, 511, 512, 599):
        np.testing.assert_array_equal(source.pictures[i], np.asarray(render(scenes[i]).image))
        assert source.labels[i].tolist() == labels_of(scenes[i])
    changed = source.pictures[0].sum()
    source.pictures[0] = 0  # a copy on write: the cache stays what it is
    assert painted(scenes, tmp_path, workers=1).pictures[0].sum() == changed


def test_processes_give_what_one_gives() -> None:
    scenes, mix = Scenes(600), Mix(0.5, 0.3, 0.2)
    assert captions_of(scenes, mix, workers=2) == captions_of(scenes, mix, workers=1)


def test_the_parts_of_scenes_and_captions_are_as_asked() -> None:
    scenes = Scenes(1000, few=0.7)
    few = sum(len(scenes[i].objects) <= 3 for i in range(1000))
    assert abs(few - 700) < 4 * (1000 * 0.7 * 0.3) ** 0.5
    seeds = range(1000)
    short = sum(Mix(0.6, 0.4).caption(scenes[i], i) == short_caption(scenes[i], i) for i in seeds)
    assert abs(short - 600) < 4 * (1000 * 0.6 * 0.4) ** 0.5
    with pytest.raises(ValueError, match="add up to 1"):
        Mix(0.5, 0.4)


def test_every_word_has_a_row_and_float8_holds_it() -> None:
    used, tokenizer = vocabulary(), clip_tokenizer()
    for i in range(300):
        scene = sample_scene(i)
        for text in (
            short_caption(scene, i, held_out=i % 2 == 1),
            detailed_caption(scene, i, held_out=i % 2 == 1),
            vague_caption(scene, i),
        ):
            assert set(tokenizer(text, verbose=False).input_ids) <= used
    table = new_text_encoder(0).get_input_embeddings().weight
    assert not table.requires_grad
    assert torch.equal(table.to(torch.float8_e4m3fn).float(), table)
    assert torch.equal(
        table.abs().sum(1) > 0, torch.isin(torch.arange(len(table)), torch.tensor(sorted(used)))
    )


@pytest.mark.parametrize("picture", [128, 256])
def test_the_single_file_gives_the_networks_back(tmp_path: Path, picture: int) -> None:
    nets = new_unet(1, picture), new_text_encoder(1), new_autoencoder()
    path = tmp_path / "mini.safetensors"
    write_single_file(path, *(net.state_dict() for net in nets))
    assert path.stat().st_size < 20e6
    loaded = load_pipeline(path)
    assert picture_size(loaded.unet) == picture_size_of_checkpoint(path) == picture
    for net, other in zip(nets, (loaded.unet, loaded.text_encoder, loaded.vae), strict=True):
        for name, value in net.state_dict().items():
            torch.testing.assert_close(other.state_dict()[name], value, atol=6e-4, rtol=1e-3)  # float16
    assert torch.equal(
        nets[1].get_input_embeddings().weight, loaded.text_encoder.get_input_embeddings().weight
    )


def test_a_perfect_reading_scores_one_and_a_wrong_colour_costs_the_colour() -> None:
    scenes = [sample_scene(i, (1, 3)) for i in range(40)]
    truth = truth_of(scenes)
    grid = truth[:, :-1].unflatten(1, (9, 4))
    attributes = {name: grid[..., k].clone() for k, name in enumerate(ATTRIBUTES)}
    reading = Reading(grid[..., 0] >= 0, attributes, truth[:, -1])
    assert all(rate.value == 1 and 0 < rate.error < 0.05 for rate in score(reading, truth).values())
    attributes["colour"][:20] += 1
    rates = score(reading, truth)
    objects = [len(scene.objects) for scene in scenes]
    assert rates["colour"].value == pytest.approx(sum(objects[20:]) / sum(objects))
    assert rates["colour"].error > 0 and rates["colour"].count == sum(objects)
    assert rates["shape"].value == 1
    nothing = Reading(torch.zeros(40, 9, dtype=torch.bool), attributes, truth[:, -1])
    rates = score(nothing, truth)
    assert rates["place"].value == rates["shape"].value == 0 and rates["empty"].value == 1
    assert rates["number"].value == 0 and rates["number"].count == 40
    small = of_size(truth, "small")
    assert torch.equal(small, grid[..., 2] == 0) and small.any()
    assert score(reading, truth, small)["colour"].count == int(small.sum())


def test_what_is_late_is_what_the_first_75_tokens_leave_out() -> None:
    tokenizer = clip_tokenizer()
    scenes = [sample_scene(i, (2, 8)) for i in range(30)]
    captions = [detailed_caption(scene, i) for i, scene in enumerate(scenes)]
    late = late_places(tokenizer, scenes, captions)
    for scene, caption, row in zip(scenes, captions, late, strict=True):
        ids = tokenizer(caption, add_special_tokens=False, verbose=False).input_ids
        told = {mention.place for mention in caption_facts(tokenizer.decode(ids[:75])).objects}
        standing = {thing.place for thing in scene.objects}
        assert {place for place, is_late in zip(PLACES, row, strict=True) if is_late} == standing - told
        assert row.any()  # detailed captions promise one


def test_the_recipes_are_valid() -> None:
    for path in RECIPES.glob("*.yaml"):
        recipe = read_config(Recipe, path)
        assert recipe.language.dialogues
        assert not recipe.base.training.flip and not recipe.stage2.training.flip  # places have sides


TINY = [
    "scenes.count=8",
    "encoder.pictures=8",
    "decoder.pictures=8",
    "reader.pictures=8",
    "words.scenes=8",
    "base.scenes=8",
    "stage2.scenes=8",
    "inpainting.scenes=8",
    "stage2_inpainting.scenes=8",
    "controlnet.scenes=8",
]


STAGES = (
    "encoder",
    "decoder",
    "words",
    "base",
    "pack",
    "stage2",
    "inpainting",
    "stage2_inpainting",
    "controlnet",
    "restorers",
)


@pytest.fixture(scope="module")
def tiny_recipe() -> Recipe:
    return read_config(Recipe, RECIPES / "smoke.yaml", TINY)


@pytest.fixture(scope="module")
def made_in_turn(tiny_recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a miniature whose stages were made one after the other."""
    folder = tmp_path_factory.mktemp("turn")
    torch.set_num_threads(1)
    build(tiny_recipe, folder, STAGES, False, ["build"])
    return folder


def manifest_of(folder: Path) -> dict[str, Any]:
    return json.loads((folder / MANIFEST).read_text(encoding="utf-8"))


def test_a_stage_without_what_it_needs_names_the_one_that_makes_it(
    tiny_recipe: Recipe, tmp_path: Path
) -> None:
    for jobs in (1, 2):
        with pytest.raises(FileNotFoundError, match="the stage encoder makes it"):
            build(tiny_recipe, tmp_path, ["reader"], False, [], jobs=jobs)


def test_stages_at_the_same_time_give_what_they_give_in_turn(
    tiny_recipe: Recipe, made_in_turn: Path, tmp_path: Path
) -> None:
    stages = ["encoder", "decoder", "words"]
    build(tiny_recipe, tmp_path, stages, False, [], jobs=2)
    one, other = manifest_of(made_in_turn), manifest_of(tmp_path)
    assert list(other) == stages
    assert [other[name]["files"] for name in stages] == [one[name]["files"] for name in stages]


def test_the_recipe_runs_and_is_not_run_twice(tiny_recipe: Recipe, made_in_turn: Path) -> None:
    """What it damages it makes again, byte for byte, so that the folder stays what the other tests look at."""
    manifest = manifest_of(made_in_turn)
    assert list(manifest) == list(STAGES)
    assert manifest["base"]["command"] == "python -m miniworld build"
    assert manifest["pack"]["inputs"][BASE] == manifest["base"]["files"][BASE]
    assert load_controlnet(made_in_turn / CONTROLNET).config["conditioning_channels"] == 3
    before = (made_in_turn / CHECKPOINT).stat().st_mtime_ns
    build(tiny_recipe, made_in_turn, STAGES, False, [])
    assert (made_in_turn / CHECKPOINT).stat().st_mtime_ns == before
    (made_in_turn / AUTOENCODER).write_bytes(b"damaged")
    build(tiny_recipe, made_in_turn, ["decoder", "pack"], False, [])
    assert manifest_of(made_in_turn)["decoder"]["files"] == manifest["decoder"]["files"]
