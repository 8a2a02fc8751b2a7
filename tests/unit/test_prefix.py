"""Reading on where the last turn ended: the same replies, without reading anything twice."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

pytest.importorskip("transformers", reason="the local engine needs transformers")

from support.tiny_official import KINDS, write_official

from llmga.chat.conversation import Conversation, Picture
from llmga.chat.engines.base import Sampling
from llmga.chat.engines.local import LocalEngine
from llmga.chat.engines.lookup import guess
from llmga.chat.engines.prefix import PrefixCache, positions_of
from llmga.chat.folders import load_local_engine
from miniworld.models.random_language import write_tiny_llava, write_tiny_qwen_vl, write_tiny_text

pytestmark = pytest.mark.usefixtures("one_thread")

GREEDY = Sampling(temperature=0, max_new_tokens=8)
WARM = Sampling(seed=4, temperature=1, max_new_tokens=8)
FOX = Picture.from_pil(Image.radial_gradient("L").resize((60, 40)))
SEA = Picture.from_pil(Image.linear_gradient("L").rotate(90).resize((30, 70)))
WRITERS = {"llava": write_tiny_llava, "qwen-vl": write_tiny_qwen_vl, "text": write_tiny_text}
NAMES = (*WRITERS, *KINDS)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("models")
    written = {kind: write(root / f"tiny-{kind}", seed=1) for kind, write in WRITERS.items()}
    return written | {name: write_official(root / name, name, seed=2) for name in KINDS}


@pytest.fixture(scope="module")
def loaded(folders: dict[str, Path]) -> dict[str, LocalEngine]:
    return {name: load_local_engine(folder) for name, folder in folders.items()}


@pytest.fixture
def engines(loaded: dict[str, LocalEngine]) -> Iterator[dict[str, LocalEngine]]:
    yield loaded
    for engine in loaded.values():
        engine.forget()
        engine.lookup = 0


def say_nothing(_: str) -> None:
    pass


class Watch:
    """Counts the tokens and the pictures that a network is made to read."""

    def __init__(self, engine: LocalEngine) -> None:
        self.tokens = self.pictures = 0
        tower = [m for n, m in engine.net.named_modules() if n.endswith(("vision_tower", "visual"))]
        decoder = [m for n, m in engine.net.named_modules() if n.endswith("layers.0") and "vision" not in n]
        self._hooks = [m.register_forward_pre_hook(self._see, with_kwargs=True) for m in tower]
        self._hooks += [m.register_forward_pre_hook(self._read, with_kwargs=True) for m in decoder]

    def _see(self, _: object, args: tuple, kwargs: dict) -> None:
        self.pictures += len(args[0] if args else kwargs["pixel_values"])

    def _read(self, _: object, args: tuple, kwargs: dict) -> None:
        self.tokens += (args[0] if args else kwargs["hidden_states"]).shape[1]

    def count(self) -> tuple[int, int]:
        seen = self.tokens, self.pictures
        self.tokens = self.pictures = 0
        return seen


def chats(engine: LocalEngine) -> list[Conversation]:
    """Turn after turn, then a rerun, an edited turn, another picture, the first chat again, and one of its own."""
    pictures = (FOX, SEA) if engine.supports_pictures else ()
    first = Conversation().say("user", "a red fox", pictures)
    second = first.say("assistant", "in the snow").say("user", "a cat")
    third = second.say("assistant", "on a tree").say("user", "blue", pictures[:1])
    other = replace(third, turns=(*third.turns[:2], replace(third.turns[2], text="a dog"), *third.turns[3:]))
    swapped = replace(second, turns=(replace(second.turns[0], pictures=pictures[::-1]), *second.turns[1:]))
    return [first, second, third, third, other, swapped, first, Conversation().say("user", "a red fox")]


@pytest.mark.parametrize(
    ("name", "sampling"), [*((name, GREEDY) for name in NAMES), *((name, WARM) for name in NAMES[::3])]
)
def test_replies_are_those_of_an_engine_that_forgets(engines, name: str, sampling: Sampling) -> None:
    engine = engines[name]
    fresh = []
    for chat in chats(engine):
        engine.forget()
        fresh.append(engine.generate(chat, sampling, say_nothing))
    engine.forget()
    assert [engine.generate(chat, sampling, say_nothing) for chat in chats(engine)] == fresh
    assert len(set(fresh)) > 2


@pytest.mark.parametrize("name", [name for name in NAMES if name != "qwen-vl"])
def test_nothing_is_read_twice(engines, name: str) -> None:
    engine = engines[name]
    first, second, third, *_ = chats(engine)
    watch = Watch(engine)
    pictures = len(first.pictures)
    reply = engine.generate(first, GREEDY, say_nothing).answer
    read, seen = watch.count()
    whole = engine._encode(first)["input_ids"].shape[1]
    assert read >= whole and seen == pictures
    answered = first.say("assistant", reply).say("user", "a cat")
    engine.generate(answered, GREEDY, say_nothing)
    more = engine._encode(answered)["input_ids"].shape[1] - whole
    read, seen = watch.count()
    assert read <= more + GREEDY.max_new_tokens and seen == 0
    engine.generate(answered, GREEDY, say_nothing)  # a re-run
    read, seen = watch.count()
    assert read <= GREEDY.max_new_tokens and seen == 0
    later = answered.say("assistant", "x").say("user", "blue", first.pictures[:1])
    engine.generate(later, GREEDY, say_nothing)
    assert watch.count()[1] == len(first.pictures[:1])


def test_a_model_that_counts_positions_by_pictures_reads_everything(engines) -> None:
    engine = engines["qwen-vl"]
    for chat in chats(engine)[:2]:
        engine.generate(chat, GREEDY, say_nothing)
    assert engine.prefixes.nbytes == 0


def test_forgetting_frees_the_memory_and_cancel_leaves_nothing(engines) -> None:
    engine = engines["llava"]
    chat = chats(engine)[0]
    before = engine.generate(chat, GREEDY, say_nothing)
    assert engine.prefixes.nbytes > 0
    engine.forget()
    assert engine.prefixes.nbytes == 0
    engine.generate(chat, GREEDY, say_nothing)

    class Stop(BaseException):
        pass

    def stop(text: str) -> None:
        if text:
            raise Stop

    with pytest.raises(Stop):
        engine.generate(chat, GREEDY, stop)
    assert engine.prefixes.nbytes == 0
    assert engine.generate(chat, GREEDY, say_nothing) == before


def test_few_conversations_and_few_bytes_are_kept(engines) -> None:
    engine = engines["text"]
    asked = [Conversation().say("user", letter * 40) for letter in "abcdef"]
    engine.generate(asked[0], GREEDY, say_nothing)
    one = engine.prefixes.nbytes
    for chat in asked[1:]:
        engine.generate(chat, GREEDY, say_nothing)
    assert engine.prefixes.nbytes <= engine.prefixes.conversations * one
    engine.prefixes.max_bytes = one - 1
    try:
        engine.forget()
        engine.generate(asked[0], GREEDY, say_nothing)
        assert engine.prefixes.nbytes == 0
    finally:
        engine.prefixes.max_bytes = 2**31


def test_another_device_is_not_read_on(engines) -> None:
    engine = engines["text"]
    engine.generate(Conversation().say("user", "a red fox"), GREEDY, say_nothing)
    positions = engine.prefixes._kept[0].positions
    assert engine.prefixes.take(positions, 100, torch.device("meta")) == (None, 0)
    assert engine.prefixes.nbytes == 0


def test_a_rope_that_depends_on_the_length_is_read_on_only_where_it_does_not(engines) -> None:
    engine = engines["phi_3"]
    assert engine.prefixes._stable_up_to == 1024
    chat = Conversation().say("user", "a red fox")
    engine.generate(chat, GREEDY, say_nothing)
    watch = Watch(engine)
    engine.generate(chat, replace(GREEDY, max_new_tokens=1024), say_nothing)
    assert watch.count()[0] >= engine._encode(chat)["input_ids"].shape[1]


def test_positions_know_their_picture() -> None:
    ids = [1, 9, 9, 2, 9, 9, 3]
    assert positions_of(ids, 9, ["a", "b"]) == [1, (9, "a"), (9, "a"), 2, (9, "b"), (9, "b"), 3]
    assert positions_of(ids, 9, []) == ids
    assert positions_of(ids, 9, ["a", "b", "c"]) is None
    assert positions_of([1, 2], 9, ["a"]) is None


def test_a_guess_is_what_followed_last() -> None:
    assert guess([1, 2, 3, 4, 5, 2, 3], 2) == [4, 5]
    assert guess([2, 3, 7, 0, 2, 3, 8, 2, 3], 1) == [8]
    assert guess([1, 2, 3], 4) == []
    assert guess([1, 2, 1, 2], 0) == []


@pytest.mark.parametrize("name", NAMES)
def test_lookup_says_the_same(engines, name: str) -> None:
    engine = engines[name]
    long = replace(GREEDY, max_new_tokens=20)
    expected = []
    for chat in chats(engine):
        expected.append(engine.generate(chat, long, say_nothing))
    engine.forget()
    engine.lookup = 6
    assert [engine.generate(chat, long, say_nothing) for chat in chats(engine)] == expected


def test_lookup_takes_fewer_steps_where_the_reply_repeats(engines) -> None:
    engine = engines["text"]
    with torch.no_grad():
        saved = engine.net.lm_head.weight.clone()
    steps = 0

    def count(*_: object) -> None:
        nonlocal steps
        steps += 1

    hook = engine.net.register_forward_pre_hook(count)
    try:
        ids = engine._tokenizer("fox cat dog")["input_ids"]
        with torch.no_grad():  # always the same token
            engine.net.lm_head.weight.zero_()
            engine.net.lm_head.weight[ids[0], 0] = 1.0
        chat = Conversation().say("user", "a red fox")
        long = replace(GREEDY, max_new_tokens=40)
        plain = engine.generate(chat, long, say_nothing)
        one_by_one, steps = steps, 0
        engine.forget()
        engine.lookup = 8
        assert engine.generate(chat, long, say_nothing) == plain
        assert one_by_one == 40 and steps < 15
    finally:
        hook.remove()
        with torch.no_grad():
            engine.net.lm_head.weight.copy_(saved)


def test_the_reply_ends_with_its_closed_prompt(engines, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = engines["text"]
    words = "ok <gen_image> a fox </gen_image> and <gen_image> a cat </gen_image> and more"
    ids = iter(engine._tokenizer(words)["input_ids"] * 4)
    monkeypatch.setattr(
        "llmga.chat.engines.stream.GumbelMaxSampler.__call__",
        lambda self, input_ids, scores: torch.nn.functional.one_hot(
            torch.tensor([next(ids)]), scores.shape[1]
        ).float(),
    )
    chat = Conversation().say("user", "draw")
    for prompts, said in ((1, words[: words.index(" and")]), (2, words[: words.index(" and more")])):
        ids = iter(engine._tokenizer(words)["input_ids"])
        once = Sampling(temperature=1, max_new_tokens=200, stop_after=prompts)
        assert engine.generate(chat, once, say_nothing).answer == said
    assert PrefixCache(engine.net).nbytes == 0
