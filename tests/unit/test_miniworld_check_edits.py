"""The evaluation of editing: which edits it takes, how it judges a picture, and that every method runs."""

from __future__ import annotations

import json
import math
from collections import Counter
from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file

from llmga.text import clip_tokenizer
from miniworld.checks.editors import METHODS, EditsConfig, MiniatureEditor, picture, token_at
from miniworld.checks.edits import (
    KINDS,
    RESULT,
    EditScore,
    check_edits,
    report,
    results,
    sample_edits,
    score_edit,
)
from miniworld.files import CHECKPOINT, READER, UNETS
from miniworld.models.painter import new_unet
from miniworld.models.random_diffusion import write_checkpoint
from miniworld.models.reader import Reader, Reading
from miniworld.world.dataset import ATTRIBUTES
from miniworld.world.edits import Edit, sample_edit
from miniworld.world.scene import BACKGROUNDS, PLACES, UNIT, Scene, sample_scene, split_of

SMALL = EditsConfig(edits=2, steps=2, maps=1)


@pytest.fixture(scope="module")
def models(tmp_path_factory, one_thread):
    """A miniature with random weights."""
    out = tmp_path_factory.mktemp("models")
    write_checkpoint(out / CHECKPOINT)
    new_unet(1).save_pretrained(out / UNETS["stage2"])
    save_file({name: value.contiguous() for name, value in Reader().state_dict().items()}, out / READER)
    return out


class Truth:
    """A reader that sees a scene, whatever the picture."""

    def __init__(self, scene: Scene) -> None:
        self.scene = scene

    def read(self, images: torch.Tensor) -> Reading:
        at = {thing.place: thing for thing in self.scene.objects}
        values = {
            name: torch.tensor([[known.index(getattr(at[p], name)) if p in at else 0 for p in PLACES]])
            for name, known in ATTRIBUTES.items()
        }
        present = torch.tensor([[place in at for place in PLACES]])
        return Reading(present, values, torch.tensor([BACKGROUNDS.index(self.scene.background)]))


def scored(wanted: Edit, scene: Scene) -> EditScore:
    images = picture(wanted.source, UNIT)
    return score_edit("", wanted, False, Truth(scene), picture(wanted.target, UNIT), images, images)  # type: ignore[arg-type]


def an_edit(kind: str) -> Edit:
    for seed in range(100):
        try:
            return sample_edit(sample_scene(seed, (2, 3)), seed, kind)  # type: ignore[arg-type]
        except ValueError:
            continue
    raise AssertionError(kind)


def test_the_edits_are_held_out_and_a_third_of_each_kind_is_long():
    found = list(sample_edits(EditsConfig()))
    assert len(found) == 216 and all(split_of(edit.source) == "validation" for edit, _ in found)
    assert Counter(edit.kind for edit, _ in found) == dict.fromkeys(KINDS, 36)
    assert Counter(edit.kind for edit, detailed in found if detailed) == dict.fromkeys(KINDS, 12)
    tokenizer = clip_tokenizer()
    for edit, detailed in found:
        prompts = edit.detailed if detailed else edit.short
        lengths = [
            len(tokenizer(text, add_special_tokens=False, verbose=False).input_ids) for text in prompts
        ]
        assert all(80 <= length <= 200 for length in lengths) if detailed else max(lengths) <= 75
    assert found == list(sample_edits(EditsConfig())) and found != list(sample_edits(EditsConfig(seed=12)))


@pytest.mark.parametrize("kind", KINDS)
def test_the_target_scene_is_right_and_the_source_scene_is_not(kind):
    wanted = an_edit(kind)
    right, wrong = scored(wanted, wanted.target), scored(wanted, wanted.source)
    assert right.right and not wrong.right
    others = len({*wanted.source.objects} & {*wanted.target.objects})
    assert right.kept == right.untouched == wrong.kept == others


def test_an_untouched_object_that_changes_is_not_kept():
    wanted = an_edit("recolour")
    old = next(thing for thing in wanted.source.objects if thing in wanted.target.objects)
    other = (
        {"colour": "red" if old.colour != "red" else "blue"},
        {"size": "small" if old.size != "small" else "large"},
        {"texture": "dotted" if old.texture != "dotted" else "striped"},
    )
    for change in other:
        scene = replace(
            wanted.target,
            objects=tuple(replace(o, **change) if o == old else o for o in wanted.target.objects),
        )
        found = scored(wanted, scene)
        assert found.right and found.kept == found.untouched - 1


def test_of_what_was_edited_only_what_was_asked_for_is_judged():
    wanted = an_edit("reshape")
    flip = {"plain": "dotted", "dotted": "striped", "striped": "plain"}
    objects = tuple(
        o if o in wanted.source.objects else replace(o, texture=flip[o.texture])
        for o in wanted.target.objects
    )
    assert objects != wanted.target.objects
    found = scored(wanted, replace(wanted.target, objects=objects))
    assert found.right and found.kept == found.untouched


def test_decibels_are_of_what_may_not_change():
    """The target's own picture differs from the source's only where it may; an error elsewhere counts."""
    wanted = an_edit("recolour")
    before, made = picture(wanted.source, UNIT), picture(wanted.target, UNIT)
    reader = Truth(wanted.target)
    assert score_edit("", wanted, False, reader, made, before, before).to_input == 60  # type: ignore[arg-type]
    outside = torch.from_numpy(~wanted.mask())
    off = torch.where(outside, made + 0.2, made)
    found = score_edit("", wanted, False, reader, off, before, made)  # type: ignore[arg-type]
    assert found.to_input == pytest.approx(20, abs=0.01)  # 10 log10 of 4 / 0.04
    assert found.to_reconstruction == pytest.approx(20, abs=0.01)


def test_results_are_means_with_standard_errors():
    one = EditScore("m", "add", False, True, 1, 2, 20.0, 30.0)
    found = [
        one,
        replace(one, right=False, to_reconstruction=40.0),
        replace(one, kind="background", untouched=0),
    ]
    row = results(found)["m"]
    assert row["right"].value == pytest.approx(2 / 3) and row["right"].count == 3
    assert row["right"].error == pytest.approx(math.sqrt(3 / 5 * 2 / 5 / 5))
    assert (row["add"].count, row["background"].count, row["kept"].count) == (2, 1, 2)
    assert (row["background dB"].value, row["objects dB"].value) == (35, 30)
    assert row["recolour"].count == 0 and row["background"].error > 0
    assert "0.667 ±0.219 N 3" in report(found)


@pytest.fixture(scope="module")
def case(models):
    found, detailed = next(sample_edits(SMALL))
    return MiniatureEditor(models).case(0, found, detailed, SMALL)


def test_no_edit_is_the_picture_through_the_autoencoder(case):
    assert METHODS["no edit"](case, SMALL) is case.latent


@pytest.mark.parametrize("name", [name for name in METHODS if name != "no edit"])
def test_every_method_makes_a_latent_of_its_own(case, name):
    made = METHODS[name](case, SMALL)
    assert made.shape == case.latent.shape and made.isfinite().all()
    assert not torch.equal(made, case.latent) and torch.equal(made, METHODS[name](case, SMALL))


def test_outside_the_mask_direct_inversion_gives_the_latent_back(case):
    half = torch.zeros(1, 1, 16, 16)
    half[..., :8] = 1
    made = METHODS["direct p2p"](replace(case, mask=half), SMALL)
    assert torch.equal(made[..., 8:], case.latent[..., 8:]) and not torch.equal(
        made[..., :8], case.latent[..., :8]
    )


def test_local_blend_masks_an_edit_of_an_object_but_no_new_background(models):
    # Untrained attention is nearly even: at the usual threshold its mask is the whole picture.
    every, editor = EditsConfig(edits=6, steps=5, maps=1, blend_threshold=0.99), MiniatureEditor(models)
    for number, (wanted, detailed) in enumerate(sample_edits(every)):
        case = editor.case(number, wanted, detailed, every)
        unmasked = METHODS["direct p2p"](replace(case, mask=None), every)
        made = METHODS["direct p2p local blend"](case, every)
        assert torch.equal(made, unmasked) is (wanted.kind == "background")


def test_ddim_does_not(case):
    none = replace(case, mask=torch.zeros(1, 1, 16, 16))
    assert not torch.allclose(METHODS["ddim p2p"](none, SMALL), case.latent, atol=1e-3)


def test_a_token_of_a_later_chunk_has_its_place(case):
    plan = replace(case.plans[0], chunks=(case.plans[0].chunks[0][:1] * 75, case.plans[0].chunks[0][1:3]))
    assert [token_at(plan, at) for at in (75, 76, 77)] == [
        plan.chunks[0][74].id,
        *(token.id for token in plan.chunks[1]),
    ]


def test_the_check_runs_and_writes_what_it_found(models):
    steps = []
    methods = ("direct p2p", "generate")
    found = check_edits(models, SMALL, methods, lambda i, n: steps.append((i, n)))
    assert [one.method for one in found] == [*methods] * 2 and steps == [(1, 2), (2, 2)]
    document = json.loads((models / RESULT).read_text())
    assert document["config"]["steps"] == 2 and len(document["edits"]) == 4
    assert set(document["results"]) == set(methods) and (models / "pictures" / "edits.png").exists()


def test_an_unknown_method_is_named(models):
    with pytest.raises(ValueError, match="got paint"):
        check_edits(models, SMALL, ["paint"])


def test_a_missing_model_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="does not exist"):
        check_edits(tmp_path, SMALL)
