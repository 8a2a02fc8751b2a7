"""The prompts of a scene, the places of objects' names in them, and what of them is cut."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from support.tiny_clip import clip_l
from support.tiny_scene import PLAN, SETTINGS, SIZE, tiny_denoiser, tiny_encoder

from llmga.diffusion import DiffusersDenoiser
from llmga.edit.positions import text_positions
from llmga.scene import GuidanceSettings, SceneSession
from llmga.scene.assess import assess, clip_states
from llmga.scene.plan import MAX_DESCRIPTION, SceneBox, SceneObject, ScenePlan
from llmga.scene.prompts import all_text, long_prompt, object_prompt, scene_prompt
from llmga.text import CLIPPromptEncoder, Whole, clip_tokenizer

pytestmark = pytest.mark.usefixtures("one_thread")

EMBEDDING = (49000, 49001, 49002)
BOX = SceneBox(0.05, 0.45, 0.4, 0.5)


class WithEmbedding(CLIPPromptEncoder):
    """Reads the word "style" as a textual inversion of three vectors, as the host reads ``embedding:style``."""

    def tokenize(self, encoder: str, text: str) -> list[Any]:
        ids: list[Any] = []
        for number, part in enumerate(text.split("style")):
            ids += [Whole(EMBEDDING)] * (number > 0) + super().tokenize(encoder, part)
        return ids


def test_phrases_are_the_names_behind_a_textual_inversion_and_around_one() -> None:
    encoder, tokenizer = WithEmbedding((clip_tokenizer(),), (clip_l(),)), clip_tokenizer()
    objects = (SceneObject("a style fox", BOX, ("leaping",)), SceneObject("an old owl", BOX))
    prompt = scene_prompt(encoder, ScenePlan(objects, "style, a forest"))
    ids = [token.id for chunk in prompt.plans["l"].chunks for token in chunk]
    where = text_positions(prompt.plans["l"], encoder.layout)
    fox, owl = ([ids[where.index(position)] for position in phrase] for phrase in prompt.phrases)
    assert fox == [*tokenizer("a").input_ids[1:-1], *EMBEDDING, *tokenizer("fox").input_ids[1:-1]]
    assert owl == tokenizer("an old owl").input_ids[1:-1]


@pytest.fixture(scope="module")
def encoder() -> CLIPPromptEncoder:
    return tiny_encoder()


@pytest.fixture(scope="module")
def denoiser() -> DiffusersDenoiser:
    return tiny_denoiser()


def test_phrases_are_the_tokens_of_the_names(encoder: CLIPPromptEncoder) -> None:
    tokenizer: Any = clip_tokenizer()
    background = (
        "a background of many words, with an old owl of stone in it, " * 6
    )  # a second chunk, and the name in it
    for plan in (PLAN, replace(PLAN, background=""), replace(PLAN, background=background)):
        whole = scene_prompt(encoder, plan)
        prompts = [(whole, i, one) for i, one in enumerate(plan.objects)]
        prompts += [(object_prompt(encoder, plan, i), 0, one) for i, one in enumerate(plan.objects)]
        for prompt, i, one in prompts:
            ids = [token.id for chunk in prompt.plans["l"].chunks for token in chunk]
            where = text_positions(prompt.plans["l"], encoder.layout)
            at = [where.index(position) for position in prompt.phrases[i]]
            assert tokenizer.decode([ids[n] for n in at]).strip() == one.name
            assert one.descriptions[0].startswith(tokenizer.decode([ids[at[-1] + 1]]).strip())
    assert scene_prompt(encoder, replace(PLAN, background=background)).chunks > 1
    assert whole.text.startswith("a background of many words")
    assert long_prompt(PLAN) == (
        "a red fox leaping, its tail up at the bottom left, an old owl asleep at the top right, a snowy forest at dawn"
    )


def test_an_object_beyond_the_prompt_that_is_read_is_refused(denoiser: DiffusersDenoiser) -> None:
    short = CLIPPromptEncoder((clip_tokenizer(),), (clip_l(),), max_chunks=1)
    long = replace(PLAN, background="word " * 74)
    with pytest.raises(ValueError, match=r"'a red fox' lies beyond the 1 × 75 tokens .* \(it has 8\d\)"):
        SceneSession(denoiser, short).paint(long, SIZE, SETTINGS)


def test_all_text_of_a_plan_holds_the_words_that_are_encoded(encoder: CLIPPromptEncoder) -> None:
    for plan in (PLAN, replace(PLAN, background=" BREAK "), replace(PLAN, objects=()), ScenePlan()):
        encoded = f"{scene_prompt(encoder, plan).text} {plan.negative}"
        words = [text.replace(",", "").replace(" with ", " ").split() for text in (all_text(plan), encoded)]
        assert words[0] == words[1]


def test_what_negative_prompts_lose_is_noted(denoiser: DiffusersDenoiser, encoder: CLIPPromptEncoder) -> None:
    session = SceneSession(denoiser, encoder)
    off = replace(SETTINGS, alone=GuidanceSettings(scale=0), together=GuidanceSettings(scale=0), steps=1)
    negative = " ".join(["rain"] * 70)
    cut = replace(off, alone_negative="snow wind hail storm fog mist dust")
    notes = [
        note for note in session.paint(replace(PLAN, negative=negative), SIZE, cut).notes if "DROPPED" in note
    ]
    limit = "tokens beyond the 1 × 75 tokens of its prompt"
    assert notes == [f"the negative prompt of a red fox, an old owl: DROPPED 3 {limit}: fog mist dust"]
    long = replace(PLAN, negative=negative + " snow" * 6, background="a forest of many trees, " * 14)
    notes = session.paint(long, SIZE, replace(off, alone_negative="")).notes
    assert not any("DROPPED" in note for note in notes), "two chunks hold it"
    notes = session.paint(replace(long, background=""), SIZE, replace(off, alone_negative="")).notes
    assert (
        f"the negative prompt of a red fox, an old owl, the scene: DROPPED 1 {limit.replace('tokens', 'token', 1)}: snow"
        in notes
    )


@pytest.mark.parametrize("rule", ["all", "rfnet"])
def test_chosen_descriptions_too_long_for_one_stay_apart(encoder: CLIPPromptEncoder, rule: Any) -> None:
    texts = tuple(f"{word} " * 66 + word for word in ("leaping", "resting", "running"))
    fox = SceneObject("a fox", SceneBox(0, 0, 0.5, 0.5), texts)
    plan = ScenePlan((fox, SceneObject("an owl", SceneBox(0.5, 0, 0.5, 0.5), ("old", "awake", "grey"))))
    found = assess(plan, clip_states(encoder, lambda context: context.states), rule)
    taken = tuple(texts[i] for i in found.chosen[0])
    assert len(", ".join(taken)) > MAX_DESCRIPTION and len(taken) == {"all": 3, "rfnet": 2}[rule]
    assert found.plan.objects[0].descriptions == taken
    assert len(found.plan.objects[1].descriptions) == 1
    assert object_prompt(encoder, found.plan, 0).text == f"a fox {', '.join(taken)}"
    assert all(f"a fox: {text}" in found.report() for text in taken)
