"""The evaluation of filling holes and of restoring: what it shows, how it judges, and that all of it runs."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from llmga.chat import Sampling
from miniworld.checks.edits import seen
from miniworld.checks.holes import (
    RESTORED,
    RESULT,
    check_holes,
    compare,
    holes_table,
    measure,
    perceptual,
    score_holes,
    shifted,
)
from miniworld.checks.sampled_holes import KINDS, Hole, HolesConfig, masks_of, pasted, sample_holes, truth_of
from miniworld.files import CHECKPOINT, LANGUAGE, READER, RESTORERS, UNETS
from miniworld.models.autoencoder import reconstruct
from miniworld.models.inpainter import LEFT_OUT, Painter
from miniworld.models.random_diffusion import write_checkpoint, write_inpainting_unet, write_restorer
from miniworld.models.random_language import write_tiny_llava
from miniworld.models.reader import Reader, Reading
from miniworld.models.sampling import PaintConfig
from miniworld.world.dataset import ATTRIBUTES, as_images, as_pixels
from miniworld.world.facts import caption_facts
from miniworld.world.scene import BACKGROUNDS, PLACES, Scene, split_of

SMALL = HolesConfig(pictures=3, steps=2, batch=2)


@pytest.fixture(scope="module")
def models(tmp_path_factory, one_thread):
    """A miniature with random weights."""
    out = tmp_path_factory.mktemp("models")
    write_checkpoint(out / CHECKPOINT)
    write_inpainting_unet((out / UNETS["stage2_inpainting"]).parent)
    for seed, file in enumerate(RESTORERS.values()):
        write_restorer(out / file, seed)
    write_tiny_llava(out / LANGUAGE)
    save_file({name: value.contiguous() for name, value in Reader().state_dict().items()}, out / READER)
    return out


def read(scenes: list[Scene]) -> Reading:
    """What a perfect reader sees."""
    at = [{thing.place: thing for thing in scene.objects} for scene in scenes]
    values = {
        name: torch.tensor(
            [[known.index(getattr(things[p], name)) if p in things else 0 for p in PLACES] for things in at]
        )
        for name, known in ATTRIBUTES.items()
    }
    present = torch.tensor([[place in things for place in PLACES] for things in at])
    return Reading(present, values, torch.tensor([BACKGROUNDS.index(scene.background) for scene in scenes]))


def figures(scene: Scene, hole: Hole) -> tuple[float, ...]:
    return tuple(rate.value for rate in score_holes(read([scene]), [hole]).values())


@pytest.mark.parametrize("kind", KINDS)
def test_every_hole_hides_something_of_a_held_out_scene(kind):
    holes = sample_holes(kind, HolesConfig(pictures=40))
    assert len(holes) == 40 and len({hole.number for hole in holes}) == 40
    for hole in holes:
        assert split_of(hole.scene) == "validation" and hole.missing
        assert not np.asarray(hole.masked)[hole.mask].any()
        assert {thing.place for thing in hole.missing} <= {*hole.places}
        others = {thing.place for thing in hole.scene.objects} - {thing.place for thing in hole.missing}
        assert not others & {*hole.places}
        assert sorted(m.shape for m in caption_facts(hole.wish).objects) == sorted(
            thing.shape for thing in hole.missing
        )


@pytest.mark.parametrize("kind", KINDS)
def test_the_true_scene_is_right_and_an_empty_hole_is_not(kind):
    for hole in sample_holes(kind, HolesConfig(pictures=8)):
        assert figures(hole.scene, hole) == (1, 1, 1)
        others = [thing for thing in hole.scene.objects if thing not in hole.missing]
        if others:
            asked, number, truth = figures(replace(hole.scene, objects=tuple(others)), hole)
            assert asked == number == 0
            assert truth == pytest.approx(1 - len(hole.missing) / len(hole.places))


def test_what_was_asked_for_may_stand_elsewhere_in_the_hole_unless_its_place_was_said():
    moved = 0
    for hole in sample_holes("outpaint", HolesConfig(pictures=60)):
        free = [place for place in hole.places if place not in {thing.place for thing in hole.scene.objects}]
        told = caption_facts(hole.wish).objects
        if not free or len(hole.missing) != 1 or len(told) != 1:
            continue
        there = replace(hole.missing[0], place=free[0])
        objects = tuple(there if thing in hole.missing else thing for thing in hole.scene.objects)
        asked, number, truth = figures(replace(hole.scene, objects=objects), hole)
        assert number == 1 and truth < 1 and (asked == 1) == (told[0].place is None)
        moved += told[0].place is None
    assert moved > 3


def test_a_texture_is_not_judged():
    hole = sample_holes("inpaint", SMALL)[0]
    flip = {"plain": "dotted", "dotted": "striped", "striped": "plain"}
    objects = tuple(replace(thing, texture=flip[thing.texture]) for thing in hole.scene.objects)
    assert figures(replace(hole.scene, objects=objects), hole) == (1, 1, 1)
    assert seen(read([hole.scene]), hole.missing[0].place) is not None


def test_pictures_differ_in_their_holes_alone():
    holes = sample_holes("inpaint", SMALL)
    whole = pasted(torch.zeros(3, 3, 128, 128), holes)
    inside = masks_of(holes).expand_as(whole) > 0
    assert not whole[inside].any() and torch.equal(whole[~inside], truth_of(holes)[~inside])


def fill(painter: Painter, holes: list[Hole], prompts: list[str], config: HolesConfig) -> torch.Tensor:
    settings = PaintConfig(config.steps, config.guidance, config.batch, config.seed)
    return painter.fill(truth_of(holes), masks_of(holes), prompts, settings)


def test_the_painter_sees_the_mask_and_the_grey_hole(models):
    holes = sample_holes("outpaint", SMALL)
    painter = Painter(models)
    beside = painter._beside(truth_of(holes), masks_of(holes), 2)
    assert beside.shape == (3, 5, 16, 16) and {*beside[:, 0].unique().tolist()} == {0, 1}
    everywhere = torch.ones(1, 1, 128, 128)
    grey, other = (painter._beside(image[None], everywhere, 1) for image in truth_of(holes)[:2])
    assert torch.equal(grey, other)
    made = fill(painter, holes, ["a red star"] * 3, SMALL)
    assert made.shape == (3, 3, 128, 128) and 0 <= made.min() and made.max() <= 1
    assert torch.equal(made, fill(painter, holes, ["a red star"] * 3, SMALL))
    assert torch.allclose(fill(painter, holes[:1], ["a red star"], SMALL), made[:1], atol=1e-5)
    assert not torch.allclose(fill(painter, holes, ["a blue ring"] * 3, SMALL), made, atol=1e-3)


def test_a_picture_that_is_painted_again_is_what_is_left_of_it(models):
    """Without steps it is what the autoencoder makes of it; with more of them it's farther from that."""
    painter, count = Painter(models), len(LEFT_OUT)
    hole = sample_holes("inpaint", SMALL)[0]
    pixels, scenes = np.stack([hole.picture] * (count + 1)), [hole.scene] * (count + 1)
    config = PaintConfig(steps=10, batch=2)
    made = painter.repaint(pixels, scenes, config)
    assert made.dtype == np.uint8 and made.shape == pixels.shape
    np.testing.assert_array_equal(made, painter.repaint(pixels, scenes, config))
    given = as_pixels(reconstruct(painter.autoencoder, as_images(torch.from_numpy(pixels[:1]))))[0]
    off = [np.abs(one.astype(float) - given).mean() for one in made[:count]]
    assert off[-1] < 1 and off == sorted(off, reverse=True) and off[-2] > 1
    assert np.abs(made[count].astype(float) - made[0]).mean() > 1  # of another noise
    assert len(painter.repaint(pixels[:1], scenes[:1], config)) == 1


def test_measures_are_least_for_the_truth_and_grow_with_a_shift_of_the_hole():
    reader = Reader().eval()
    holes = sample_holes("outpaint", HolesConfig(pictures=12))
    truth = truth_of(holes)
    rows = [measure(pasted((truth + by).clamp(0, 1), holes), holes, reader) for by in (0.0, 0.1, 0.2)]
    for less, more in zip(rows, rows[1:], strict=False):
        assert less["brightness"].mean() < more["brightness"].mean()
        assert (less["perceptual"] < more["perceptual"]).all()
    assert not rows[0]["perceptual"].any()


def test_the_perceptual_distance_is_symmetric_and_blind_to_a_layer_s_scale():
    reader = Reader().eval()
    a, b = torch.rand(2, 2, 3, 128, 128)
    found = perceptual(a, b, reader)
    assert found.shape == (2,) and torch.allclose(found, perceptual(b, a, reader)) and (found > 0).all()


def test_colours_are_shifted_as_the_restorer_was_trained():
    holes = sample_holes("outpaint", SMALL)
    made = shifted(torch.full((3, 3, 128, 128), 0.5), holes)
    assert all(one.unique().numel() == 1 for one in made) and made[:, 0, 0, 0].unique().numel() == 3
    assert ((made - 0.5).abs() <= 0.5 * 0.08 + 0.05 + 1e-6).all()
    assert torch.equal(made[1:], shifted(torch.full((2, 3, 128, 128), 0.5), holes[1:]))


def test_the_restorer_is_compared_picture_by_picture():
    reader, holes = Reader().eval(), sample_holes("outpaint", SMALL)
    truth = truth_of(holes)
    pictures = {name: pasted((truth + 0.02 * i).clamp(0, 1), holes) for i, name in enumerate(RESTORED)}
    rows = compare(pictures, holes, reader)
    assert len(rows) == 2 * len(RESTORED) - 1
    for name in RESTORED:
        if name != "restorer":
            for key in ("perceptual", "frechet", "brightness"):
                difference = rows["restorer"][key].value - rows[name][key].value
                assert rows[f"restorer − {name}"][key].value == pytest.approx(difference, abs=1e-4)
                assert rows[name][key].error > 0 or name == "as painted"


def test_the_check_runs_and_writes_what_it_found(models, monkeypatch):
    # Random weights never end a reply by themselves.
    monkeypatch.setattr("miniworld.checks.chat.Sampling", partial(Sampling, max_new_tokens=48))
    steps = []
    found = check_holes(models, SMALL, workers=1, on_step=lambda i, n: steps.append((i, n)))
    assert steps == [(i + 1, 10) for i in range(10)]
    document = json.loads((models / RESULT).read_text())
    assert document["config"]["pictures"] == 3
    assert {*document["results"]["painted"]} == {
        f"{kind}, {prompt}"
        for kind in KINDS
        for prompt in ("short", "chat", "truth, short", "truth, detailed")
    }
    for name in ("restored", "shifted"):
        assert {*RESTORED} < {*document["results"][name]}
    for name in ("inpaint", "outpaint", "outpaint-restored", "outpaint-shifted"):
        assert (models / "pictures" / f"{name}.png").exists()
    table = holes_table(found)
    assert "outpaint, chat" in table and "restorer − no colour" in table


def test_a_missing_model_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="does not exist"):
        check_holes(tmp_path, SMALL)
