"""A folder's own top_k and repetition penalty act as transformers' processors do, and change the reply as they should."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("transformers", reason="its processors are the reference")

import transformers

from llmga.chat import Conversation, Sampling
from llmga.chat.engines.local import LocalEngine
from llmga.chat.engines.stream import GumbelMaxSampler, RepetitionPenalty
from llmga.chat.folders import load_local_engine
from miniworld.models.random_language import write_tiny_text

pytestmark = pytest.mark.usefixtures("one_thread")
TALK = Conversation().say("user", "a red fox, a red fox")


@pytest.mark.parametrize("penalty", [0.5, 1.0, 1.05, 2.0])
@pytest.mark.parametrize("start", [0, 3, 9])
def test_the_penalty_is_transformers_own(penalty: float, start: int) -> None:
    generator = torch.Generator().manual_seed(3)
    ids = torch.randint(0, 50, (1, 9), generator=generator)
    scores = torch.randn(1, 50, generator=generator)
    reference: Any = transformers.RepetitionPenaltyLogitsProcessor(penalty)
    expected = reference(ids[:, start:], scores.clone()) if start < 9 else scores
    assert torch.equal(RepetitionPenalty(penalty, start)(ids, scores), expected)


@pytest.mark.parametrize("top_k", [1, 5, 49, 50, 1000])
def test_draws_are_between_the_tokens_that_transformers_keeps(top_k: int) -> None:
    scores = torch.randn(1, 50, generator=torch.Generator().manual_seed(7))
    warpers: list[Any] = [transformers.TopKLogitsWarper(top_k), transformers.TopPLogitsWarper(0.9)]
    left = scores / 1.5
    for warper in warpers:
        left = warper(None, left)
    possible = left[0] > -torch.inf
    draw = GumbelMaxSampler(Sampling(seed=1, temperature=1.5, top_p=0.9), top_k)
    drawn = {int(draw(torch.zeros(1, 1), scores).argmax()) for _ in range(4000)}
    likely = (scores / 1.5).softmax(-1)[0] > 0.005
    assert drawn <= set(possible.nonzero().flatten().tolist())
    assert set((possible & likely).nonzero().flatten().tolist()) <= drawn


def engine_with(folder: Path, **settings: Any) -> LocalEngine:
    (folder / "generation_config.json").write_text(json.dumps(settings))
    return load_local_engine(folder)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_tiny_text(tmp_path / "model")


@pytest.mark.parametrize("lookup", [0, 4])
def test_a_greedy_reply_is_that_of_generate_with_the_penalty(folder: Path, lookup: int) -> None:
    plain, engine = engine_with(folder), engine_with(folder, repetition_penalty=3.0)
    engine.lookup = lookup
    sampling = Sampling(temperature=0, max_new_tokens=16)
    inputs = engine._encode(TALK)
    expected = engine.net.generate(
        **inputs,
        do_sample=False,
        max_new_tokens=16,
        logits_processor=[engine._named, transformers.RepetitionPenaltyLogitsProcessor(3.0)],
    )[0, inputs["input_ids"].shape[1] :]
    text = engine._thoughts.decode([i for i in expected.tolist() if i not in engine._end_ids]).strip()
    said = engine.generate(TALK, sampling, lambda text: None).answer
    assert said == text
    assert said != plain.generate(TALK, sampling, lambda text: None).answer


def test_top_k_1_draws_what_a_greedy_reply_takes(folder: Path) -> None:
    engine = engine_with(folder, top_k=1)
    hot = engine.generate(TALK, Sampling(seed=3, temperature=2.0, max_new_tokens=12), lambda text: None)
    greedy = engine.generate(TALK, Sampling(temperature=0, max_new_tokens=12), lambda text: None)
    assert hot == greedy
    other = engine_with(folder).generate(
        TALK, Sampling(seed=3, temperature=2.0, max_new_tokens=12), lambda text: None
    )
    assert other != greedy
