"""The transcripts of the training, against a record of the official code; who belongs to which family."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

pytest.importorskip("transformers", reason="chat templates are transformers'")

from transformers.utils.chat_template_utils import render_jinja_template

from llmga.chat.checkpoints import FAMILIES, chat_template, find_family

RECORD = json.loads(
    (Path(__file__).parent / "fixtures/chat_templates_official.json").read_text(encoding="utf-8")
)
TALKS = {
    "one turn": [("A red fox", 0)],
    "a picture": [("A red fox", 1)],
    "three turns": [
        ("Like this?\nPlease.", 1),
        ("<gen_image> a fox </gen_image>", 0),
        ("Bigger", 0),
        ("So it is.", 0),
        ("In snow", 0),
    ],
}


def render(template: str, messages: list[dict]) -> str:
    return render_jinja_template([messages], chat_template=template, add_generation_prompt=True)[0][0]


def messages(talk: str, as_text: bool) -> list[dict]:
    said = []
    for i, (text, pictures) in enumerate(TALKS[talk]):
        parts = [{"type": "image"}] * pictures + [{"type": "text", "text": text}]
        said.append(
            {"role": ("user", "assistant")[i % 2], "content": text if as_text and not pictures else parts}
        )
    return said


@pytest.mark.parametrize("as_text", [True, False])
@pytest.mark.parametrize("talk", TALKS)
@pytest.mark.parametrize("name", FAMILIES)
def test_transcripts_are_those_of_the_official_code(name: str, talk: str, as_text: bool) -> None:
    assert render(chat_template(FAMILIES[name]), messages(talk, as_text)) == RECORD[name][talk]


@pytest.mark.parametrize("name", ["vicuna_v1", "llama_3", "llava_llama_2", "mistral_instruct", "qwen_2"])
def test_another_system_prompt_takes_the_place_of_the_trained_one(name: str) -> None:
    family = FAMILIES[name]
    asked = [{"role": "system", "content": "It's {{ 7 * 7 }}."}, *messages("one turn", True)]
    rendered = render(chat_template(family), asked)
    assert rendered == (
        RECORD[name]["one turn"].replace(family.system, "It's {{ 7 * 7 }}.")
        if family.system
        else RECORD[name]["one turn"].replace("<<SYS>>\n\n", "<<SYS>>\nIt's {{ 7 * 7 }}.\n")
    )


def tokenizer(*tokens: str) -> SimpleNamespace:
    return SimpleNamespace(get_vocab=lambda: {token: i for i, token in enumerate(tokens)})


@pytest.mark.parametrize(
    ("config", "tokens", "name"),
    [
        ({"model_type": "llava_llama"}, (), "vicuna_v1"),
        ({"model_type": "llava_llama", "_name_or_path": "./base_models/vicuna-7b-v1.5"}, (), "vicuna_v1"),
        (
            {"model_type": "llava_llama", "_name_or_path": "meta-llama/Llama-2-7b-chat-hf"},
            (),
            "llava_llama_2",
        ),
        ({"model_type": "llava_llama", "_name_or_path": "x/llama-2"}, ("<|eot_id|>",), "llama_3"),
        ({"model_type": "llava_Qwen2"}, (), "qwen_2"),
        ({"model_type": "llava_Phi3"}, (), "phi_3"),
    ],
)
def test_the_family(config: dict, tokens: tuple[str, ...], name: str) -> None:
    assert find_family(config, tokenizer(*tokens)).name == name


def test_a_family_may_be_named_where_it_can_be() -> None:
    assert find_family({"model_type": "llava_llama"}, tokenizer(), "llava_llama_2").name == "llava_llama_2"
    with pytest.raises(
        ValueError, match=r"family must be qwen_2 for the model_type 'llava_Qwen2', got 'gemma'"
    ):
        find_family({"model_type": "llava_Qwen2"}, tokenizer(), "gemma")
    with pytest.raises(ValueError, match=r"model_type must be one of .*llava_Phi3.*, got 'llava_mpt'"):
        find_family({"model_type": "llava_mpt"}, tokenizer())
