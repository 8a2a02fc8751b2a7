"""The places of objects' names in prompts that name a textual inversion."""

from __future__ import annotations

from typing import Any

from support.tiny_clip import clip_l

from llmga.edit.positions import text_positions
from llmga.scene.plan import SceneBox, SceneObject, ScenePlan
from llmga.scene.prompts import scene_prompt
from llmga.text import CLIPPromptEncoder, Whole, clip_tokenizer

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
