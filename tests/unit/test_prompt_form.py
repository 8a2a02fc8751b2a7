"""A reply that must hold prompts holds them: the local engine token by token, servers by a grammar or a structural tag."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import Any

import pytest
from PIL import Image
from support.openai_behaviours import document
from support.recorded_server import RecordedServer

pytest.importorskip("transformers", reason="the local engine needs transformers")

from llmga.chat import respond
from llmga.chat.conversation import Conversation, Picture
from llmga.chat.dialect import Constraint, Dialect
from llmga.chat.endpoints import Endpoint
from llmga.chat.engines.base import Said, Sampling
from llmga.chat.engines.endpoint import EndpointEngine
from llmga.chat.engines.local import LocalEngine
from llmga.chat.engines.prompt_grammar import form_parameters, prompt_grammar
from llmga.chat.folders import load_local_engine
from llmga.chat.tags import count_closed, open_block, parse
from miniworld.models.random_language import write_tiny_llava, write_tiny_text

pytestmark = pytest.mark.usefixtures("one_thread")

ASK = Conversation().say("user", "a red fox in the snow")
HOT = Sampling(temperature=2.0, max_new_tokens=64, min_prompts=1)


@pytest.fixture(scope="module", params=["text", "llava"])
def engine(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> LocalEngine:
    write = {"text": write_tiny_text, "llava": write_tiny_llava}[request.param]
    return load_local_engine(write(tmp_path_factory.mktemp("models") / request.param, seed=1))


def say(engine: LocalEngine, sampling: Sampling, conversation: Conversation = ASK) -> Said:
    return engine.generate(conversation, sampling, lambda text: None)


def has_form(answer: str, count: int = 1) -> bool:
    return count_closed(answer) >= count and len(parse(answer).prompts) >= count


def test_fifty_of_fifty_hot_replies_of_random_weights_have_the_form(engine: LocalEngine) -> None:
    short = replace(HOT, max_new_tokens=40)
    free = [say(engine, replace(short, seed=seed, min_prompts=0)).answer for seed in range(5)]
    assert not any(map(has_form, free))
    answers = [say(engine, replace(short, seed=seed)).answer for seed in range(50)]
    assert all(map(has_form, answers)) and len(set(answers)) == 50


@pytest.mark.parametrize("count", [2, 3])
def test_several_prompts(engine: LocalEngine, count: int) -> None:
    for seed in range(5):
        sampling = replace(HOT, seed=seed, min_prompts=count, max_new_tokens=96)
        assert has_form(say(engine, sampling).answer, count)


def test_greedy_replies_with_and_without_guessed_tokens_are_the_same(engine: LocalEngine) -> None:
    chat = ASK.say("assistant", "<gen_image> a red fox in the snow </gen_image>").say("user", "again")
    sampling = Sampling(temperature=0, max_new_tokens=70, min_prompts=1)
    engine.forget()
    plain = say(engine, sampling, chat).answer
    engine.forget()
    engine.lookup = 4
    try:
        assert say(engine, sampling, chat).answer == plain and has_form(plain)
    finally:
        engine.lookup = 0


def test_a_reply_that_has_the_form_is_the_same_with_and_without(engine: LocalEngine) -> None:
    words = engine._tokenizer("Well: <gen_image> a fox </gen_image> So.", add_special_tokens=False)[
        "input_ids"
    ]
    end = min(engine._end_ids)
    script = [*words, end]
    with scripted(engine, script):
        free, held = (say(engine, replace(HOT, temperature=0, min_prompts=n)).answer for n in (0, 1))
    assert free == held and parse(held).prompt == "a fox" and held.endswith("So.")


@pytest.mark.parametrize(
    ("reply", "prompt"),
    [("A fox.", None), ("", None), ("So: <gen_image> a fox", "a fox"), ("<gen_image>", None)],
    ids=["no tag", "nothing", "not closed", "empty block"],
)  # fmt: skip
def test_an_early_end_is_put_off(engine: LocalEngine, reply: str, prompt: str | None) -> None:
    ids = engine._tokenizer(reply, add_special_tokens=False)["input_ids"] if reply else []
    with scripted(engine, [*ids, *[min(engine._end_ids)] * 100]):
        answer = say(engine, replace(HOT, temperature=0)).answer
    assert has_form(answer) and answer.startswith(reply)
    if prompt:
        assert parse(answer).prompt == prompt


def test_a_refusal_may_end(engine: LocalEngine) -> None:
    words = "I'm sorry, but I can't help with that."
    ids = engine._tokenizer(words, add_special_tokens=False)["input_ids"]
    with scripted(engine, [*ids, min(engine._end_ids)]):
        assert say(engine, replace(HOT, temperature=0)).answer == words


class scripted:  # noqa: N801 - a context manager
    """The model's likeliest tokens are those of a script, one after the other; behind it, the last again."""

    def __init__(self, engine: LocalEngine, script: list[int]) -> None:
        self.engine, self.script = engine, script

    def __enter__(self) -> None:
        self.engine.forget()
        self.written = 0
        self.hook = self.engine.net.register_forward_hook(self.change)

    def change(self, net: Any, inputs: Any, output: Any) -> Any:
        script = self.script
        position = self.engine._stream.received if self.engine._stream else 0
        output.logits[:, -1] = 0
        output.logits[:, -1, script[min(position, len(script) - 1)]] = 100
        return output

    def __exit__(self, *_: Any) -> None:
        self.hook.remove()
        self.engine.forget()


@pytest.mark.parametrize(
    ("policy", "task", "held"),
    [("ask_again", "refine", 1), ("error", "story", 1), ("ask_again", "picture_book", 3), ("whole_reply", "refine", 0),
     ("keep_previous", "refine", 0), ("ask_again", "describe", 0), ("error", "chat", 0)],
)  # fmt: skip
def test_a_task_that_needs_prompts_asks_for_the_form(policy: Any, task: str, held: int) -> None:
    seen: list[int] = []

    class Engine:
        name, supports_pictures = "scripted", True

        def generate(self, conversation: Any, sampling: Sampling, on_text: Any) -> Said:
            seen.append(sampling.min_prompts)
            return Said("<gen_image> a </gen_image> <gen_image> b </gen_image> <gen_image> c </gen_image>")

    picture = (Picture.from_pil(Image.new("RGB", (8, 8))),) if task == "describe" else ()
    respond(
        Engine(), Conversation(), task=task, instruction="a fox", pictures=picture, sampling=Sampling(), policy=policy,
        on_text=lambda text: None, pages=3,
    )  # fmt: skip
    assert seen == [held]


GOOD = (200, document({"content": "<gen_image> a fox </gen_image>"}))


def asked(kind: Constraint, sampling: Sampling, answers: Any = GOOD) -> list[dict[str, Any]]:
    with RecordedServer(InTurn({"/v1/chat/completions": answers})) as server:
        record = Endpoint("mine", server.root + "/v1", "tiny", dialect=Dialect(constrain=kind, stream=False))
        EndpointEngine(record).generate(ASK, sampling, lambda text: None)
    return [sent for _, sent, _ in server.asked]


FIELDS = {
    "llamacpp": "grammar",
    "vllm": "structured_outputs",
    "vllm_guided": "guided_grammar",
    "structural_tag": "response_format",
}


@pytest.mark.parametrize("kind", FIELDS)
def test_a_server_is_sent_its_own_kind_of_constraint(kind: Any) -> None:
    (sent,) = asked(kind, Sampling(min_prompts=2))
    assert sent[FIELDS[kind]] == form_parameters(kind, 2, Sampling().max_new_tokens)[FIELDS[kind]]
    for without in (Sampling(), Sampling(min_prompts=1, thinking=True)):
        (sent,) = asked(kind, without)
        assert not set(FIELDS.values()) & sent.keys()
    (sent,) = asked("", Sampling(min_prompts=1))
    assert not set(FIELDS.values()) & sent.keys()


class InTurn(dict[str, Any]):
    """Answers to a path one after the other; the last one stays."""

    def get(self, key: str, default: Any = None) -> Any:
        found = super().get(key, default)
        return (found.pop(0) if len(found) > 1 else found[0]) if isinstance(found, list) else found


@pytest.mark.parametrize("kind", FIELDS)
def test_a_server_that_refuses_it_is_asked_without(kind: Any) -> None:
    words = f"unknown parameter: {FIELDS[kind]}"
    refused = (400, json.dumps({"error": {"message": words}}).encode())
    first, second = asked(kind, Sampling(min_prompts=1), [refused, GOOD])
    assert FIELDS[kind] in first and FIELDS[kind] not in second
    assert {**first, FIELDS[kind]: 0} == {**second, FIELDS[kind]: 0}


def test_a_record_may_name_it_and_no_other() -> None:
    assert Dialect(constrain="llamacpp").constrain == "llamacpp"
    with pytest.raises(
        ValueError, match="'constrain' must be one of llamacpp, vllm, vllm_guided, structural_tag"
    ):
        Dialect(constrain="gbnf")  # type: ignore[arg-type]


@pytest.mark.parametrize("count", [1, 3])
def test_the_grammar_takes_what_has_the_form_and_nothing_else(count: int) -> None:
    """Its rules as a regular expression, which they can be: there is no recursion."""
    pattern = as_regex(prompt_grammar(count, 1024))
    block = "<gen_image> a red fox, by the sea.\nAt dawn </gen_image>"
    assert pattern.fullmatch("Here:\n" + " and ".join([block] * count) + " Enjoy!")
    assert pattern.fullmatch(block * (count + 2))
    for wrong in ("", "a fox", block * (count - 1), f"<b>{block * count}", (block * count)[:-1],
                  "<gen_image> </gen_image>" * count, '<gen_image>""</gen_image>' * count):  # fmt: skip
        assert not pattern.fullmatch(wrong), wrong
    assert len(parse(block * count).prompts) == count


@pytest.mark.parametrize("room", [16, 96, 512, 32768])
@pytest.mark.parametrize("count", [1, 3])
def test_the_prompts_that_the_grammar_asks_for_have_room(count: int, room: int) -> None:
    """Four characters a token, as in English; the room of two tags and a short prompt at least."""
    pattern = as_regex(prompt_grammar(count, room))
    bounds = re.findall(r"{0,(\d+)}", prompt_grammar(count, room))
    assert all(int(bound) < 2000 for bound in bounds)  # llama.cpp takes no more
    most = min(4 * room, 2000)
    longest = max(n for n in range(most) if pattern.fullmatch("x" * n + "<gen_image>a</gen_image>" * count))
    prompt = max(n for n in range(most) if pattern.fullmatch(f"<gen_image>a{'x' * n}</gen_image>" * count))
    assert count * (longest + prompt) / 4 + 16 * count <= max(room, 20 * count)
    assert prompt > 2 * longest


def as_regex(grammar: str) -> re.Pattern[str]:
    rules = dict(line.split(" ::= ") for line in grammar.strip().splitlines())

    def expanded(rule: str) -> str:
        parts = re.findall(r'"[^"]*"\??|\[[^\]]*\](?:[*]|{[^}]*})?|\([^)]*\)\*|\w+', rules.get(rule, rule))
        return "".join(map(part_of, parts))

    def part_of(part: str) -> str:
        if part.startswith('"'):
            text, optional = part[1:].split('"')
            return f"(?:{re.escape(text)}){optional}"
        if part.startswith("("):
            return f"(?:{expanded(part[1:-2])})*"
        return part if part.startswith("[") else expanded(part)

    return re.compile(expanded("root"))


def test_the_block_that_is_open() -> None:
    assert open_block("So: <gen_image> a fox") == " a fox" and open_block("<gen_image>") == ""
    assert open_block("no tag") is None and open_block("<gen_image> a </gen_image> b") is None
    assert open_block("<gen_image> a </gen_image> <GEN_IMG> b") == " b"
    assert (
        count_closed('<gen_image> "" </gen_image>') == 0 == len(parse('<gen_image> "" </gen_image>').prompts)
    )


def test_a_prompt_whose_end_had_to_be_written_for_it_is_cut_off(engine: LocalEngine) -> None:
    said = [say(engine, replace(HOT, seed=seed)) for seed in range(5)]
    assert all(has_form(one.answer) and one.cut == "max_new_tokens" for one in said)
