"""Local thinking models: published templates and special tokens on tiny networks, whose replies are dictated."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
import torch

pytest.importorskip("transformers", reason="the local engine needs transformers")

from support.thinking_templates import ANSWER, DRAFT, TEMPLATES, ThinkingTemplate

from llmga.chat.assistant import respond
from llmga.chat.conversation import Conversation
from llmga.chat.engines.base import Said, Sampling
from llmga.chat.engines.local import LocalEngine
from llmga.chat.engines.thought import opens_thought, template_variables
from llmga.chat.folders import load_local_engine
from miniworld.models.random_language import write_text_model

pytestmark = pytest.mark.usefixtures("one_thread")

ASK = Conversation(system="You paint.").say("user", "a fox")
WARM = Sampling(temperature=1, max_new_tokens=100, stop_after=1, thought_tokens=400)


@pytest.fixture(scope="module")
def engines(tmp_path_factory: pytest.TempPathFactory) -> dict[str, LocalEngine]:
    root = tmp_path_factory.mktemp("thinking")
    return {
        name: load_local_engine(write_text_model(root / name, one.template, one.end, one.special, one.added))
        for name, one in TEMPLATES.items()
    }


@pytest.fixture
def dictate(monkeypatch: pytest.MonkeyPatch) -> Callable[[LocalEngine, str], None]:
    """Make the next reply of a model what a text says, token by token."""
    ids: Iterator[int] = iter(())

    def sample(self: object, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.one_hot(torch.tensor([next(ids)]), scores.shape[1]).float()

    monkeypatch.setattr("llmga.chat.engines.stream.GumbelMaxSampler.__call__", sample)

    def begin(engine: LocalEngine, reply: str) -> None:
        nonlocal ids
        said = engine._tokenizer(reply, add_special_tokens=False)["input_ids"]
        ids = iter([*said, min(engine._end_ids), *[0] * 10])

    return begin


def opening(engine: LocalEngine, thinking: bool) -> str:
    messages = engine._messages(ASK)
    return engine._render(messages, True, thinking)[len(engine._render(messages, False, thinking)) :]


@pytest.mark.parametrize(("name", "one"), TEMPLATES.items(), ids=TEMPLATES)
def test_thinking_is_switched_where_the_template_can(engines, name: str, one: ThinkingTemplate) -> None:
    if name == "cohere":
        assert opening(engines[name], True) == one.on
        assert opening(engines[name], False) == one.off
    for thinking, expected, opened in ((False, one.off, one.thinks_off), (True, one.on, one.thinks_on)):
        assert opening(engines[name], thinking) == expected
        assert opens_thought("", expected) == opened


@pytest.mark.parametrize("thinking", [False, True])
@pytest.mark.parametrize(("name", "one"), TEMPLATES.items(), ids=TEMPLATES)
def test_a_draft_in_a_thought_is_neither_answer_nor_end(
    engines, dictate, name: str, one: ThinkingTemplate, thinking: bool
) -> None:
    opened = one.thinks_on if thinking else one.thinks_off
    reply = one.reply if opened or not one.thinks_on else "<think>\n" + one.reply
    heard: list[str] = []
    dictate(engines[name], reply)
    said = engines[name].generate(ASK, replace(WARM, thinking=thinking), heard.append)
    assert said == Said(ANSWER, DRAFT)
    assert heard[-1] == f"<think>{DRAFT}</think>{ANSWER}"
    assert all(text.startswith("<think>") for text in heard if "draft" in text)
    dictate(engines[name], reply)
    painted = respond(
        engines[name], Conversation(), task="refine", instruction="a fox", sampling=replace(WARM, thinking=thinking),
        policy="error", on_text=lambda text: None,
    )  # fmt: skip
    assert (painted.prompts, painted.thought) == (("a red fox",), DRAFT)


@pytest.mark.parametrize(("name", "one"), TEMPLATES.items(), ids=TEMPLATES)
def test_a_thought_ends_at_its_own_budget_and_paints_nothing(
    engines, dictate, name: str, one: ThinkingTemplate
) -> None:
    reply = one.reply if one.thinks_off or not one.thinks_on else "<think>\n" + one.reply
    dictate(engines[name], reply)
    said = engines[name].generate(ASK, replace(WARM, thought_tokens=12), lambda text: None)
    assert said.unfinished and said.answer == "" and DRAFT.startswith(said.thought.strip())
    dictate(engines[name], reply)
    with pytest.raises(ValueError, match="ends inside the model's thinking.*raise 'thought_tokens'"):
        respond(
            engines[name], Conversation(), task="chat", instruction="a fox", policy="whole_reply",
            sampling=replace(WARM, thought_tokens=12), on_text=lambda text: None,
        )  # fmt: skip


@pytest.mark.parametrize(("name", "one"), TEMPLATES.items(), ids=TEMPLATES)
def test_an_answer_has_all_its_tokens_after_a_thought(
    engines, dictate, name: str, one: ThinkingTemplate
) -> None:
    reply = one.reply if one.thinks_off or not one.thinks_on else "<think>\n" + one.reply
    dictate(engines[name], reply)
    longer = len(engines[name]._tokenizer(ANSWER)["input_ids"]) + 15  # and the marks themselves
    said = engines[name].generate(ASK, replace(WARM, max_new_tokens=longer), lambda text: None)
    assert said.answer == ANSWER
    assert len(engines[name]._tokenizer(DRAFT)["input_ids"]) > 15


def test_words_of_a_user_open_no_thought(engines, dictate) -> None:
    for words in ("what does <think> mean?", "[THINK]", "<|channel>thought", "</think>"):
        dictate(engines["qwen3"], ANSWER)
        said = engines["qwen3"].generate(Conversation().say("user", words), WARM, lambda text: None)
        assert said == Said(ANSWER)


def test_other_special_tokens_vanish_as_before(engines, dictate) -> None:
    dictate(engines["magistral"], "[INST]a[/INST] fox")
    assert engines["magistral"].generate(ASK, WARM, lambda text: None) == Said("a fox")


@pytest.mark.parametrize(
    ("template", "off", "on"),
    [
        ("{{ messages }}", {}, {}),
        ("{{ message.thinking }}{{ message['thinking'] }}{{ m.reasoning_effort }}", {}, {}),
        ("{% if enable_thinking %}", {"enable_thinking": False}, {"enable_thinking": True}),
        ("{% if thinking and x %}", {"thinking": False}, {"thinking": True}),
        ("{% if not reasoning | default(true) %}", {"reasoning": False}, {"reasoning": True}),
        ("{{ 'Reasoning: ' + reasoning_effort }}", {"reasoning_effort": "low"}, {}),
        (
            "{% if reasoning_effort not in ['none', 'high'] %}",
            {"reasoning_effort": "none"},
            {"reasoning_effort": "high"},
        ),
    ],
)
def test_a_template_is_told_what_it_reads(template: str, off: dict, on: dict) -> None:
    assert template_variables(template, False) == off
    assert template_variables(template, True) == on
