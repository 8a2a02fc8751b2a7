"""The local engine against transformers' own path, its cancel points, and folders that must not load."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

pytest.importorskip("transformers", reason="the local engine needs transformers")

import transformers
from support.chat_folders import edit_json

from llmga.chat.conversation import Conversation, Picture
from llmga.chat.engines import stream
from llmga.chat.engines.base import ChatEngine, Sampling
from llmga.chat.engines.local import LocalEngine
from llmga.chat.folders import load_local_engine
from miniworld.models.random_language import (
    CHATML_TEMPLATE,
    write_tiny_llava,
    write_tiny_qwen_vl,
    write_tiny_text,
)

pytestmark = pytest.mark.usefixtures("one_thread")

WRITERS = {"llava": write_tiny_llava, "qwen-vl": write_tiny_qwen_vl, "text": write_tiny_text}
GREEDY = Sampling(temperature=0, max_new_tokens=12)
WARM = Sampling(temperature=1, max_new_tokens=12)
FOX = Picture.from_pil(Image.radial_gradient("L").resize((60, 40)))
SEA = Picture.from_pil(Image.linear_gradient("L").rotate(90).resize((30, 70)))

TEXT_CHAT = (
    Conversation(system="You paint with words.").say("user", "A red fox").say("assistant", "in the snow")
)
CHATS = {
    "one turn": Conversation().say("user", "A red fox, é 狐"),
    "system and two turns": TEXT_CHAT.say("user", "Make it blue"),
    "picture first": Conversation()
    .say("user", "Like this", (FOX,))
    .say("assistant", "A fox")
    .say("user", "Bigger"),
    "picture in turn 2": TEXT_CHAT.say("user", "Like this", (SEA,)),
    "two turns, three pictures": Conversation()
    .say("user", "These", (FOX, SEA))
    .say("assistant", "A fox at sea")
    .say("user", "And this?", (FOX,)),
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("models")
    return {kind: write(root / f"tiny-{kind}", seed=1) for kind, write in WRITERS.items()}


@pytest.fixture(scope="module")
def engines(folders: dict[str, Path]) -> dict[str, LocalEngine]:
    return {kind: load_local_engine(folder) for kind, folder in folders.items()}


@pytest.fixture
def text_folder(folders: dict[str, Path], tmp_path: Path) -> Path:
    """A copy of the text model that a test may damage."""
    return Path(shutil.copytree(folders["text"], tmp_path / "model"))


@pytest.fixture
def punctual(monkeypatch: pytest.MonkeyPatch) -> None:
    """No call of on_text between two tokens, however busy the machine is."""
    monkeypatch.setattr(stream, "QUIET", float("inf"))


def say_nothing(_: str) -> None:
    pass


def reference(folder: Path, chat: Conversation) -> str:
    """The same reply by transformers alone: its template with tokenisation, its greedy search."""
    sees = "text" not in folder.name
    auto = transformers.AutoModelForImageTextToText if sees else transformers.AutoModelForCausalLM
    net = auto.from_pretrained(folder, local_files_only=True).eval()
    reader = transformers.AutoProcessor if sees else transformers.AutoTokenizer
    processor = reader.from_pretrained(folder, local_files_only=True)
    messages: list[dict[str, Any]] = [{"role": "system", "content": chat.system}] if chat.system else []
    messages += [{"role": turn.role, "content": turn.text} for turn in chat.turns]
    if sees:
        pictures = [()] * bool(chat.system) + [turn.pictures for turn in chat.turns]
        for message, shown in zip(messages, pictures, strict=True):
            parts: list[dict[str, Any]] = [{"type": "image", "image": picture.to_pil()} for picture in shown]
            message["content"] = [*parts, {"type": "text", "text": message["content"]}]
    inputs = processor.apply_chat_template(
        messages, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
    )
    ids = net.generate(**inputs, do_sample=False, max_new_tokens=12)[0, inputs["input_ids"].shape[1] :]
    return getattr(processor, "tokenizer", processor).decode(ids, skip_special_tokens=True).strip()


@pytest.mark.parametrize("kind", WRITERS)
def test_greedy_replies_equal_those_of_transformers(engines, folders, kind: str) -> None:
    chats = [chat for chat in CHATS.values() if engines[kind].supports_pictures or not chat.pictures]
    replies = [engines[kind].generate(chat, GREEDY, say_nothing).answer for chat in chats]
    assert replies == [reference(folders[kind], chat) for chat in chats]
    assert len(set(replies)) == len(chats)


@pytest.mark.parametrize("kind", WRITERS)
def test_an_engine_tells_what_it_is(engines, kind: str) -> None:
    assert isinstance(engines[kind], ChatEngine)
    assert engines[kind].name == f"tiny-{kind}"
    assert engines[kind].supports_pictures == (kind != "text")


def test_pictures_and_unfinished_conversations_are_refused(engines) -> None:
    with pytest.raises(ValueError, match="cannot see pictures"):
        engines["text"].generate(CHATS["picture first"], GREEDY, say_nothing)
    with pytest.raises(ValueError, match="end with a user turn"):
        engines["text"].generate(TEXT_CHAT, GREEDY, say_nothing)


@pytest.mark.parametrize("kind", WRITERS)
def test_a_seed_is_a_reply_and_the_global_generator_rests(engines, kind: str) -> None:
    chat = CHATS["one turn"]
    before = torch.get_rng_state()
    first = engines[kind].generate(chat, WARM, say_nothing)
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(3)
    assert engines[kind].generate(chat, WARM, say_nothing) == first
    others = {engines[kind].generate(chat, Sampling(seed, 1.0, 1.0, 12), say_nothing) for seed in range(1, 5)}
    assert len(others | {first}) == 5
    assert engines[kind].generate(chat, Sampling(0, 1e-9, 1.0, 12), say_nothing) == engines[kind].generate(
        chat, GREEDY, say_nothing
    )


def test_draws_follow_the_tempered_nucleus() -> None:
    logits = torch.tensor([[2.0, 1.0, 0.5, 0.0, -1.0]])
    draw = stream.GumbelMaxSampler(Sampling(seed=5, temperature=0.7, top_p=0.9))
    counts = torch.bincount(torch.stack([draw(logits, logits).argmax() for _ in range(8000)]), minlength=5)
    probs = (logits[0] / 0.7).softmax(0)
    expected = torch.where(
        torch.tensor([True, True, True, False, False]), probs, 0.0
    )  # 0.71 + 0.17 + 0.08 >= 0.9
    torch.testing.assert_close(
        counts / 8000, expected / expected.sum(), rtol=0, atol=0.02
    )  # 4 standard errors
    assert counts[3:].sum() == 0


def test_a_folder_changes_top_k_and_the_repetition_penalty_alone(engines, text_folder: Path) -> None:
    leftovers = {
        "do_sample": True,
        "temperature": 0.01,
        "num_beams": 3,
    }
    leftovers |= {"min_new_tokens": 60, "max_length": 5}
    edit_json(text_folder / "generation_config.json", **leftovers)
    stubborn = load_local_engine(text_folder)
    for sampling in (GREEDY, WARM):
        mine = engines["text"].generate(CHATS["one turn"], sampling, say_nothing)
        assert stubborn.generate(CHATS["one turn"], sampling, say_nothing) == mine


def test_the_turn_end_of_the_template_ends_the_reply(punctual, text_folder: Path) -> None:
    """Many folders name only the end of text; the model says the end of turn."""
    edit_json(text_folder / "tokenizer_config.json", eos_token="<|endoftext|>")
    edit_json(text_folder / "generation_config.json", eos_token_id=0)
    edit_json(text_folder / "config.json", eos_token_id=0)
    engine = load_local_engine(text_folder)
    assert engine._tokenizer.eos_token_id != (end := engine._tokenizer.convert_tokens_to_ids("<|im_end|>"))
    with torch.no_grad():
        engine.net.lm_head.weight[end, 0] = 200
    heard: list[str] = []
    assert engine.generate(CHATS["one turn"], GREEDY, heard.append).answer == ""
    assert heard == ["", ""]  # at the start, and at the end token


class Stop(BaseException):
    """Like the host's interrupt, no Exception."""


def stop_at(call: int) -> Callable[[str], None]:
    calls = iter(range(1, call + 1))

    def on_text(_: str) -> None:
        if next(calls) == call:
            raise Stop

    return on_text


def hooks(engine: LocalEngine) -> int:
    return sum(len(module._forward_pre_hooks) for module in engine.net.modules())


def test_text_arrives_token_by_token(engines, punctual) -> None:
    heard: list[str] = []
    reply = engines["text"].generate(CHATS["one turn"], GREEDY, heard.append).answer
    assert len(heard) == 1 + GREEDY.max_new_tokens
    assert all(longer.startswith(text) for text, longer in zip(heard, heard[1:], strict=False))
    assert heard[-1].strip() == reply


def test_half_a_character_waits_for_its_other_half(engines) -> None:
    heard: list[str] = []
    tokenizer = engines["text"]._tokenizer
    streamer = stream.Stream(engines["text"]._thoughts.decode, set(), heard.append, Sampling())
    for token in tokenizer("fox 狐!")["input_ids"]:
        streamer.put([token])
    assert heard == ["f", "fo", "fox", "fox", "fox", "fox", "fox 狐", "fox 狐!"]


@pytest.mark.parametrize("kind", WRITERS)
@pytest.mark.parametrize("call", [1, 2, 5])
def test_cancel_stops_within_a_token_and_the_engine_goes_on(engines, punctual, kind: str, call: int) -> None:
    engine, chat = engines[kind], CHATS["one turn"]
    heard: list[str] = []
    before = engine.generate(chat, GREEDY, heard.append)
    assert len(heard) > 5
    with pytest.raises(Stop):  # a call after that one would raise StopIteration
        engine.generate(chat, GREEDY, stop_at(call))
    assert hooks(engine) == 0
    assert engine.generate(chat, GREEDY, say_nothing) == before


@pytest.mark.parametrize(("kind", "blocks"), [("llava", 3 + 2), ("qwen-vl", 2 + 2), ("text", 2)])
def test_cancel_reaches_every_block_of_the_prefill(engines, monkeypatch, kind: str, blocks: int) -> None:
    monkeypatch.setattr(stream, "QUIET", 0)
    engine = engines[kind]
    chat = CHATS["picture first"] if engine.supports_pictures else CHATS["one turn"]
    heard: list[str] = []
    before = engine.generate(chat, GREEDY, heard.append)
    assert heard.index(next(filter(None, heard))) == 1 + blocks
    for call in range(2, 2 + blocks):
        with pytest.raises(Stop):
            engine.generate(chat, GREEDY, stop_at(call))
        assert hooks(engine) == 0
    assert engine.generate(chat, GREEDY, say_nothing) == before


def input_ids(engine: LocalEngine, chat: Conversation) -> list[int]:
    return engine._encode(chat)["input_ids"][0].tolist()


FRAGMENTS = [
    "<image>",
    "</s>",
    "<s>",
    "<unk>",
    "<|im_end|>",
    "<|im_start|>",
    "<|image_pad|>",
    "<|vision_start|>",
]
FRAGMENTS += [
    "<",
    ">",
    "|",
    "<im",
    "age>",
    "<|im_",
    "end|>",
    " ",
    "\n",
    "system",
    "assistant\n",
    "fox",
    "{{ 7 * 7 }}",
]


@settings(max_examples=60)
@given(pieces=st.lists(st.sampled_from(FRAGMENTS), min_size=1, max_size=12))
@pytest.mark.parametrize("kind", WRITERS)
def test_text_is_text_whatever_it_spells(engines, kind: str, pieces: list[str]) -> None:
    engine, text = engines[kind], "".join(pieces)
    pictures = (FOX,) if engine.supports_pictures else ()

    def controls(words: str) -> list[int]:
        chat = (
            Conversation(system=words).say("user", words, pictures).say("assistant", words).say("user", words)
        )
        return [token for token in input_ids(engine, chat) if token in engine._tokenizer.all_special_ids]

    assert controls(text) == controls("plain")


def test_a_broken_token_stays_readable(engines) -> None:
    chat = Conversation().say("user", "say <|im_end|> & <gen_image>")
    assert "user\nsay < |im_end|> & <gen_image><|im_end|>" in engines["text"]._tokenizer.decode(
        input_ids(engines["text"], chat)
    )


@pytest.mark.parametrize("role", ["raise_exception('System role not supported')", "''"])
def test_a_template_without_a_system_role_gets_the_system_prompt_in_the_first_turn(
    engines, text_folder: Path, role: str
) -> None:
    rule = "{% for m in messages if m['role'] == 'system' %}{{ " + role + " }}{% endfor %}"
    rule += "{% set messages = messages | rejectattr('role', 'equalto', 'system') | list %}"
    edit_json(text_folder / "tokenizer_config.json", chat_template=rule + CHATML_TEMPLATE)
    folded = Conversation().say("user", "You paint with words.\n\nA red fox").say("assistant", "in the snow")
    assert load_local_engine(text_folder).generate(TEXT_CHAT.say("user", "Go"), GREEDY, say_nothing) == (
        engines["text"].generate(folded.say("user", "Go"), GREEDY, say_nothing)
    )


def test_a_template_may_refuse_a_conversation(text_folder: Path) -> None:
    rule = "{% if messages | length == 3 %}{{ raise_exception('roles must alternate') }}{% endif %}"
    edit_json(text_folder / "tokenizer_config.json", chat_template=rule + CHATML_TEMPLATE)
    with pytest.raises(
        ValueError, match="chat template of 'model' refuses this conversation: roles must alternate"
    ):
        load_local_engine(text_folder).generate(
            Conversation().say("user", "a").say("user", "b").say("user", "c"), GREEDY, say_nothing
        )


def test_a_full_context_is_an_error_and_a_nearly_full_one_a_shorter_reply(
    engines, punctual, text_folder: Path
) -> None:
    used = len(input_ids(engines["text"], CHATS["one turn"]))
    edit_json(text_folder / "config.json", max_position_embeddings=used + 3)
    heard: list[str] = []
    load_local_engine(text_folder).generate(CHATS["one turn"], GREEDY, heard.append)
    assert len(heard) == 1 + 3
    edit_json(text_folder / "config.json", max_position_embeddings=used)
    with pytest.raises(ValueError, match=rf"has {used} tokens .* reads {used}, .* shorten 'history'"):
        load_local_engine(text_folder).generate(CHATS["one turn"], GREEDY, say_nothing)


@pytest.mark.parametrize("kind", WRITERS)
def test_inference_mode_changes_nothing(engines, folders, kind: str) -> None:
    """ComfyUI loads and runs under inference_mode; a script does not."""
    chat = CHATS["one turn"]
    expected = engines[kind].generate(chat, WARM, say_nothing)
    with torch.inference_mode():
        assert engines[kind].generate(chat, WARM, say_nothing) == expected
        loaded_inside = load_local_engine(folders[kind])
        assert loaded_inside.generate(chat, WARM, say_nothing) == expected
    assert loaded_inside.generate(chat, WARM, say_nothing) == expected


@pytest.mark.parametrize("kind", WRITERS)
def test_the_host_places_the_model_right_before_it_is_used(folders, kind: str) -> None:
    engine = load_local_engine(folders[kind], torch.bfloat16)
    assert {parameter.dtype for parameter in engine.net.parameters()} == {torch.bfloat16}
    order: list[str] = []

    def load() -> torch.device:
        order.append("load")
        return torch.device("cpu")

    engine.load = load
    chat = CHATS["picture first"] if engine.supports_pictures else CHATS["one turn"]
    seen: dict[str, Any] = {}
    generate = engine.net.generate
    engine.net.generate = lambda **inputs: seen.update(inputs) or generate(**inputs)
    assert engine.generate(chat, GREEDY, order.append)
    assert seen["input_ids"].dtype == torch.int64
    assert "pixel_values" not in seen or seen["pixel_values"].dtype == torch.bfloat16
    assert order[:2] == ["", "load"] and order.count("load") == 1
