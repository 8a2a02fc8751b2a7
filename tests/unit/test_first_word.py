"""How likely a word is as the first of a local model's reply: the network's own probabilities, and the same reply."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

pytest.importorskip("transformers", reason="the local engine needs transformers")

from llmga.chat.conversation import Conversation, Picture
from llmga.chat.engines.base import ChatEngine, HasWordProbabilities, Sampling
from llmga.chat.engines.local import LocalEngine
from llmga.chat.folders import load_local_engine
from miniworld.models.random_language import write_tiny_llava
from miniworld.world.render import render
from miniworld.world.scene import sample_scene
from tools import ROOT

pytestmark = pytest.mark.usefixtures("one_thread")


def silent(text: str) -> None:
    """Nobody reads along."""


@pytest.fixture(scope="module")
def engine() -> LocalEngine:
    return load_local_engine(ROOT / "miniature" / "LLM" / "llmga-mini")


@pytest.fixture(scope="module")
def asked() -> list[Conversation]:
    scene = sample_scene(5, (2, 2), "validation")
    picture = Picture.from_pil(render(scene, 256).image)
    things = [f"a {one.colour} {one.shape}" for one in scene.objects] + ["a purple cross", "a white ring"]
    return [Conversation().say("user", f"Is there {thing}?", (picture,)) for thing in things]


@pytest.mark.parametrize("lookup", [0, 4])
def test_they_are_the_networks_own(engine: LocalEngine, asked: list[Conversation], lookup: int) -> None:
    """Those of one pass over the conversation, for every spelling of a word, at any temperature."""
    engine.lookup = lookup
    spelled = {"yes": [" Yes"], "no": [" No", " no"]}
    found = []
    for talk in asked:
        engine.forget()
        inputs = engine._encode(talk)
        with torch.no_grad():
            logits = engine.net(
                **{k: engine._place(v, torch.device("cpu")) for k, v in inputs.items()}
            ).logits
        likely = logits[0, -1].float().softmax(-1)
        expected = [
            sum(
                float(likely[engine._tokenizer(text, add_special_tokens=False)["input_ids"][0]])
                for text in texts
            )
            for texts in spelled.values()
        ]
        for temperature in (0.0, 1.5):
            sampling = Sampling(3, temperature, max_new_tokens=8)
            said, each = engine.generate_with_probabilities(talk, sampling, silent, ("yes", "no"))
            assert each == pytest.approx(expected, rel=1e-4)
            assert said == engine.generate(talk, sampling, silent)
        found.append(each)
    assert max(yes for yes, _ in found) > 0.5 > min(yes for yes, _ in found)


def test_a_word_that_is_no_token_is_not_likely(engine: LocalEngine, asked: list[Conversation]) -> None:
    _, each = engine.generate_with_probabilities(
        asked[0], Sampling(max_new_tokens=1), silent, ("perhaps", "yes")
    )
    assert each[0] == 0 < each[1]


def test_who_has_them(engine: LocalEngine, tmp_path: Path) -> None:
    assert isinstance(engine, HasWordProbabilities) and isinstance(engine, ChatEngine)
    random = load_local_engine(write_tiny_llava(tmp_path / "tiny", seed=1))
    _, each = random.generate_with_probabilities(
        Conversation().say("user", "?"), Sampling(max_new_tokens=1), silent, ("yes",)
    )
    assert 0 <= each[0] < 1
