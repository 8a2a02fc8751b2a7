"""The scene nodes in this process, on tiny models: plans, painted scenes, photographs, and every odd input."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from support import comfy_inprocess as comfy
from support import tiny_edit as tiny

REASON = comfy.skip_reason()
pytestmark = pytest.mark.skipif(REASON is not None, reason=str(REASON))

PLAN = {
    "format": "llmga-scene",
    "version": 1,
    "objects": [
        {"name": "a red fox", "box": [0.1, 0.4, 0.4, 0.5], "descriptions": ["leaping", "asleep", "old"]},
        {"name": "an owl", "box": [0.55, 0.1, 0.3, 0.4], "descriptions": ["awake", "asleep", "young"]},
    ],
    "background": "a forest",
    "negative": "rain",
}
WRITE = {"seed": 0, "temperature": 0.2, "max_new_tokens": 256, "separate": False, "width": 128, "height": 128}
PAINT = {
    **{"seed": 1, "steps": 3, "cfg": 4.0, "width": 128, "height": 128, "guidance": 5.0, "replaced": 0.5},
    **{"suppression": 10.0, "keep_attention": 30.0, "threshold": 0.35, "margin": 1, "layout": "llmga"},
    **{"alone_at": "middle", "alone_negative": "two, many", "layers": "published", "phrase": "tokens"},
}
NEW = ("alone_at", "alone_negative", "layers", "phrase")
WIDGETS = {name: value for name, value in PAINT.items() if name != "seed"}


@pytest.fixture(scope="module")
def trio() -> Any:
    comfy.start()
    return tiny.trio("sd15")


@pytest.fixture(autouse=True)
def _empty_cache() -> None:
    _forget()


def _forget() -> None:
    module = comfy.pack("nodes.scene_synthesis")
    module._CACHE = comfy.pack("llmga.scene").ObjectCache()


def output(module: str, node: str, *values: Any, **options: Any) -> Any:
    with torch.inference_mode():
        return getattr(comfy.pack(f"nodes.{module}"), node).execute(*values, **options)


def plan(text: str = "", prompt: str = "", **options: Any) -> Any:
    return output("scene", "ScenePlanner", prompt, text or json.dumps(PLAN), **{**WRITE, **options})


def paint(trio: Any, scene: Any = None, **options: Any) -> Any:
    scene = scene or plan().result[0]
    return output("scene_synthesis", "SceneSynthesis", *trio, scene, **{**PAINT, **options}).result


def engine(*replies: str) -> Any:
    said = comfy.pack("llmga.chat").Said

    class Engine:
        name, supports_pictures = "scripted", False
        asked: list[Any] = []

        def generate(self, conversation: Any, sampling: Any, on_text: Any) -> Any:
            self.asked.append(conversation)
            on_text("…")
            return said(replies[len(self.asked) - 1])

    return Engine()


# --- plan, assess, preview ----------------------------------------------------------------------


def test_a_plan_by_hand() -> None:
    made = plan()
    scene, prompt, negative, bboxes, elements, history, report = made.result
    assert [one.name for one in scene.objects] == ["a red fox", "an owl"] and negative == "rain"
    assert prompt.startswith("a red fox leaping") and prompt.endswith("a forest")
    assert bboxes[0]["x"] == 13 and bboxes[1]["metadata"]["desc"] == "an owl, awake"
    assert elements[0]["bbox"] == [400, 100, 900, 500]
    assert history.turns == () and report == "2 objects"
    assert comfy.pack("llmga.scene").ScenePlan.from_json(made.ui["llmga_scene"][0]) == scene
    apart = plan(
        json.dumps({**PLAN, "objects": [{**PLAN["objects"][0], "name": n} for n in "ab"]}), separate=True
    )
    boxes = [one.box for one in apart.result[0].objects]
    assert min(boxes[0].overlap(boxes[1])) <= 1e-5


def test_core_boxes_and_elements_make_a_plan() -> None:
    boxes = plan().result[3]
    made = output("scene", "ScenePlanner", "", "", **WRITE, boxes=boxes).result[0]
    assert [one.name for one in made.objects] == ["a red fox", "an owl"]
    assert [one.name for one in plan(json.dumps(plan().result[4])).result[0].objects] == [
        "a red fox",
        "an owl",
    ]


def test_boxes_of_a_larger_canvas_name_the_sizes_to_set() -> None:
    boxes = [{"x": 100, "y": 0, "width": 900, "height": 900, "metadata": {"desc": "a fox"}}]
    with pytest.raises(
        ValueError, match="^boxes: the boxes reach to 1000×900, and width and height are 128×128"
    ):
        plan(" ", boxes=boxes)
    assert plan(" ", boxes=boxes, width=1024, height=1024).result[6] == "1 objects"


def test_labels_of_detected_boxes_are_names_and_further_pictures_are_reported() -> None:
    found = [{"x": 8, "y": 8, "width": 64, "height": 64, "label": "dog", "score": 0.9}]
    scene, *_, report = plan(" ", boxes=[found, found]).result
    assert [one.name for one in scene.objects] == ["dog"]
    assert report == "1 objects\nthe boxes of the first of 2 pictures were taken"


def test_boxes_beside_a_written_plan_are_reported_as_unused() -> None:
    boxes = [{"x": 8, "y": 8, "width": 64, "height": 64, "label": "dog"}]
    scene, *_, report = plan(boxes=boxes).result
    assert [one.name for one in scene.objects] == ["a red fox", "an owl"]
    assert report == "2 objects\nboxes is not used, because plan is not empty"
    assert "not used" not in plan(" ", boxes=boxes).result[6] and "not used" not in plan().result[6]


def test_a_language_model_plans_and_is_asked_again_once() -> None:
    subject = engine("no plan", json.dumps(PLAN))
    made = output("scene", "ScenePlanner", "a fox below an owl", "", **WRITE, engine=subject).result
    assert made[0].prompt == "a fox below an owl" and "asked again" in made[6]
    assert len(made[5].turns) == 6 and len(subject.asked) == 2
    changed = engine(json.dumps(PLAN).replace("red", "blue"))
    next_one = output(
        "scene", "ScenePlanner", "make it blue", "", **WRITE, engine=changed, history=made[5]
    ).result
    assert next_one[0].objects[0].name == "a blue fox"
    assert changed.asked[0].turns[:-1] == made[5].turns


def test_a_plan_cut_off_by_its_tokens_says_so_in_the_report() -> None:
    whole = json.dumps(PLAN)
    subject = engine(whole[: whole.index("an owl")])
    made = output("scene", "ScenePlanner", "a fox below an owl", "", **WRITE, engine=subject).result
    assert [one.name for one in made[0].objects] == ["a red fox"]
    assert "the reply was cut off" in made[6] and "no background and no negative prompt" in made[6]
    assert "raise max_new_tokens" in made[6]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"text": " "}, "there is nothing to plan with: connect a language model to 'engine'"),
        ({"text": "a fox"}, "^plan: there is no JSON object"),
        ({"text": '{"format": "llmga-scene", "version": 9}'}, "version 9"),
        ({"width": 8}, "width must be a whole number from 64"),
        ({"separate": 1}, "separate must be true or false"),
        ({"text": " ", "engine": 7}, "engine must come from an LLMGA loader"),
        ({"history": 7}, "history must come from LLMGA Scene Plan"),
        ({"text": " ", "boxes": 7}, "^boxes: the boxes must be a list"),
        ({"text": 7}, "plan must be text"),
    ],
)
def test_wrong_plans(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        plan(**options)


@pytest.mark.parametrize("rule", ["joint", "rfnet", "all"])
def test_descriptions_are_chosen(trio: Any, rule: str) -> None:
    scene = plan().result[0]
    chosen, report = output("scene", "SceneAssess", scene, trio[1], rule).result
    texts = [one.descriptions[0].split(", ") for one in chosen.objects]
    assert [len(each) for each in texts] == [{"joint": 1, "rfnet": 2, "all": 3}[rule]] * 2
    assert f"rule {rule}" in report and "a red fox" in report and "taken" in report
    assert [one.box for one in chosen.objects] == [one.box for one in scene.objects]
    with pytest.raises(ValueError, match="rule must be one of"):
        output("scene", "SceneAssess", scene, trio[1], "best")
    with pytest.raises(ValueError, match="clip must be the text encoder of SD1.5 or SDXL"):
        output("scene", "SceneAssess", scene, comfy.tiny_clip("flux"), rule)


# --- synthesis ----------------------------------------------------------------------------------


def test_objects_are_painted_again_for_a_model_with_another_patch(trio: Any) -> None:
    model, *others = trio
    patched = model.clone()  # as FreeU patches it, which leaves the identity of the weights as it is
    patched.set_model_output_block_patch(lambda h, skipped, options: (h * 1.2, skipped))
    paint(trio)
    beside = paint((patched, *others))
    assert "objects were painted before" in paint((patched, *others))[-1]
    _forget()
    assert torch.equal(beside[0], paint((patched, *others))[0])


def test_a_scene_is_painted_cached_and_shown(trio: Any) -> None:
    image, samples, masks, changed, painted, report = paint(trio)
    assert image.shape == (1, 128, 128, 3) and 0 <= image.min() and image.max() <= 1
    assert samples["samples"].shape == (1, 4, 16, 16) and masks.shape == (2, 128, 128)
    assert changed.min() == 1 and "gradient passes" in report
    again = paint(trio)
    assert torch.equal(again[0], image) and "2 of 2 objects were painted before" in again[5]
    assert not torch.equal(paint(trio, seed=2)[0], image)
    shown = output("scene", "ScenePreview", 128, 128, painted=painted, image=image)
    assert shown.result[0].shape == (3, 128, 128, 3) and "attention to an owl" in shown.ui["text"][0]
    boxes = output("scene", "ScenePreview", 200, 100, scene=plan().result[0]).result[0]
    assert boxes.shape == (1, 100, 200, 3)
    for given in ({}, {"scene": plan().result[0], "painted": painted}):
        with pytest.raises(ValueError, match="connect either scene or painted"):
            output("scene", "ScenePreview", 128, 128, **given)


def test_a_moved_object_is_not_painted_again_and_a_lora_is_other_weights(trio: Any) -> None:
    paint(trio)
    moved = json.loads(json.dumps(PLAN))
    moved["objects"][0]["box"][0] = 0.4
    assert "2 of 2 objects were painted before" in paint(trio, plan(json.dumps(moved)).result[0])[5]
    model = trio[0].clone()
    name = next(name for name in model.model.diffusion_model.state_dict() if name.endswith("to_v.weight"))
    weight = model.model.diffusion_model.state_dict()[name]
    model.add_patches({f"diffusion_model.{name}": ("diff", (weight.clone(),))}, 1.0)
    assert "painted before" not in paint((model, *trio[1:]))[5]


def test_objects_are_put_into_a_photograph(trio: Any) -> None:
    coarse = torch.rand(1, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    photograph = torch.nn.functional.interpolate(coarse, (128, 128), mode="bilinear").movedim(1, -1)
    inversion = output(
        "inversion", "Invert", *trio, "a forest", steps=3, layout="llmga", max_chunks=4, image=photograph
    ).result[0]
    _, samples, _, changed, _, report = paint(trio, inversion=inversion, width=64, steps=20)
    codec = comfy.pack("nodes.edit_inputs").HostCodec(trio[0], trio[2])
    latent = codec.from_samples(samples["samples"])
    cells = torch.nn.functional.max_pool2d(changed[:, None], 8)[0, 0] == 0
    assert cells.any() and not cells.all()
    original = inversion.trajectory.latents[0]
    assert (latent - original)[..., cells].abs().max() <= 1e-6 * original.abs().max()
    assert (latent - original)[..., ~cells].abs().max() > 1e-3
    assert "gradient passes" in report


def test_masks_that_are_given(trio: Any) -> None:
    masks = torch.zeros(2, 64, 64)
    masks[0, 24:40, 24:40] = 1
    found = paint(trio, masks=masks)[2]
    assert float(found[0].mean()) == pytest.approx(float(masks[0].mean()), abs=0.02)
    assert found[1].any()
    with pytest.raises(ValueError, match="masks holds 1 masks for 2 objects"):
        paint(trio, masks=masks[:1])


def test_thin_and_soft_masks_that_are_not_used_are_reported(trio: Any) -> None:
    masks, quick = torch.zeros(2, 128, 128), {"guidance": 0.0, "steps": 1}
    masks[0, 40:80, 64:67], masks[1, 32:96, 32:96] = 1, 0.4
    found, *_, report = paint(trio, masks=masks, **quick)
    for number, name in enumerate(("a red fox", "an owl"), 1):
        assert f"masks: mask {number} ({name}) covers no cell of 8×8 pixels by more than half" in report
    assert torch.equal(found, paint(trio, **quick)[0])
    masks[0, 40:80, 64:80], masks[1] = 1, 1 / 256
    assert "covers no cell" not in paint(trio, masks=masks, **quick)[5], "one is used, and one is empty"


def test_embeddings_missing_anywhere_in_a_scene_and_cut_negatives_are_reported(
    trio: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trio[1].tokenizer.clip_l, "embedding_directory", str(tmp_path))
    words = json.loads(json.dumps(PLAN))
    words["background"], words["negative"] = "a forest embedding:bg", "rain embedding:neg"
    words["objects"][0]["descriptions"] = ["leaping embedding:how"]
    quick = {"guidance": 0.0, "steps": 1}
    report = paint(trio, plan(json.dumps(words)).result[0], alone_negative="two embedding:two", **quick)[5]
    lines = [line for line in report.splitlines() if "LEFT OUT" in line]
    assert lines[0].startswith("scene: LEFT OUT: no embedding bg, how, neg in models/embeddings")
    assert lines[1].startswith("alone_negative: LEFT OUT: no embedding two in")
    assert not any("LEFT OUT" in line or "DROPPED" in line for line in paint(trio, **quick)[5].splitlines())
    report = paint(trio, alone_negative=" ".join(["fog"] * 80), **quick)[5]
    assert "the negative prompt of a red fox, an owl: DROPPED " in report and "1 × 75 tokens" in report


def test_an_object_may_be_painted_in_its_box_at_once_and_by_other_layers(trio: Any) -> None:
    """What a model whose captions say places wants; each choice changes the picture. An API prompt from before these inputs
    paints what their defaults do."""
    before = {name: value for name, value in PAINT.items() if name not in NEW}
    scene_plan, synthesis = plan().result[0], ("scene_synthesis", "SceneSynthesis")
    negative = comfy.pack("llmga.scene.prompts").ALONE_NEGATIVE
    old = output(*synthesis, *trio, scene_plan, **before).result[0]
    assert torch.equal(old, paint(trio, alone_negative=negative)[0])
    usual, said = paint(trio)[0], {"alone_at": "box", "layers": "up", "phrase": "sum", "alone_negative": ""}
    for name, value in said.items():
        assert not torch.equal(paint(trio, **{name: value})[0], usual), name
    scene = comfy.pack("llmga.scene")
    settings = comfy.pack("nodes.scene_inputs").SynthesisInputs(**{**WIDGETS, **said}).settings
    assert (settings.alone_at, settings.layers, settings.phrase, settings.alone_negative) == (
        "box",
        "up",
        "sum",
        "",
    )
    assert (
        settings.alone
        == settings.together
        == scene.GuidanceSettings(5.0, weights=scene.LossWeights(suppression=10.0, guidance=30.0))
    )


def test_sides_are_cut_to_whole_cells_and_that_is_said(trio: Any) -> None:
    image, *_, report = paint(trio, width=133, height=128, guidance=0.0, steps=2)
    assert image.shape == (1, 128, 128, 3)
    assert report.startswith("133×128 was cut to 128×128")
    assert "was cut" not in paint(trio, guidance=0.0, steps=2)[5]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scene": 7}, "scene must come from LLMGA Scene Plan"),
        ({"steps": 0}, "steps must be a whole number"),
        ({"cfg": float("nan")}, "cfg must be a number"),
        ({"width": 8}, "width must be a whole number from 64"),
        ({"guidance": -1}, "guidance must be a number from 0"),
        ({"replaced": 2}, "replaced must be a number from 0 to 1"),
        ({"layout": "x"}, "layout must be one of"),
        ({"alone_at": "x"}, "alone_at must be one of"),
        ({"layers": "x"}, "layers must be one of"),
        ({"phrase": "x"}, "phrase must be one of"),
        ({"alone_negative": 7}, "alone_negative must be text"),
        ({"seed": -1}, "seed must be a whole number"),
        ({"inversion": 7}, "inversion must come from Invert"),
        ({"masks": 7}, "masks must be a MASK"),
    ],
)
def test_wrong_inputs_of_a_synthesis(trio: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        paint(trio, **options)


def test_a_wrong_vae_is_refused_before_anything_is_painted(
    trio: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, clip, vae = trio
    session = comfy.pack("nodes.scene_synthesis").SceneSession
    monkeypatch.setattr(session, "paint", lambda *_, **__: pytest.fail("it painted"))
    with pytest.raises(ValueError, match="vae must be a VAE, got str"):
        paint((model, clip, "a name"))
    monkeypatch.setattr(vae, "latent_channels", 16)
    with pytest.raises(ValueError, match="vae makes latents of 16 channels and 'model' reads 4"):
        paint(trio)


def test_a_cancel_stops_at_the_next_step(trio: Any) -> None:
    management: Any = importlib.import_module("comfy.model_management")
    before = paint(trio)[0]
    management.interrupt_current_processing(True)
    try:
        with pytest.raises(management.InterruptProcessingException):
            paint(trio, seed=9)
    finally:
        management.interrupt_current_processing(False)
    assert torch.equal(paint(trio)[0], before)
