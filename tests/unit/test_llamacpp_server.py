"""A real server of llama.cpp that speaks with the miniature: its text, the grammar of prompts, a schema, and unloading."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.llamacpp_server import LlamaCppServer, skip_reason

from llmga.chat.conversation import Conversation
from llmga.chat.dialect import Dialect
from llmga.chat.endpoints import Endpoint
from llmga.chat.engines.base import MAX_NEW_TOKENS, Sampling
from llmga.chat.engines.endpoint import EndpointEngine, EndpointError
from llmga.chat.folders import load_local_engine
from llmga.chat.tags import count_closed, parse
from llmga.scene.request import PLAN_SCHEMA
from miniworld.models.gguf_file import write_gguf
from tools import ROOT

REASON = skip_reason()
pytestmark = [
    pytest.mark.skipif(REASON is not None, reason=str(REASON)),
    pytest.mark.usefixtures("one_thread"),
]
SAID = (
    "Generate an image of a large red star on snow.",
    "Generate an image of two blue circles  on sand.",
    "a small green heart",
)
HOT = Sampling(temperature=2.0, max_new_tokens=96)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LlamaCppServer]:
    server = LlamaCppServer(tmp_path_factory.mktemp("llamacpp"))
    yield server
    server.close()


def engine(server: LlamaCppServer, **dialect: Any) -> EndpointEngine:
    return EndpointEngine(Endpoint("llama", f"{server.root}/v1", "mini", dialect=Dialect(**dialect)))


def say(subject: Any, words: str, sampling: Sampling) -> str:
    return subject.generate(Conversation().say("user", words), sampling, lambda text: None).answer


def test_the_server_writes_what_the_local_engine_writes(server: LlamaCppServer) -> None:
    """Over three turns, with two spaces in a row: the file's weights, tokens and template are the folder's."""
    here, there = load_local_engine(ROOT / "miniature" / "LLM" / "llmga-mini"), engine(server)
    talk, sampling, said = Conversation(), Sampling(temperature=0.0, max_new_tokens=96), ""
    for words in SAID:
        talk = talk.say("user", words)
        answer = here.generate(talk, sampling, lambda text: None).answer
        assert there.generate(talk, sampling, lambda text: None).answer == answer
        said += answer
        talk = talk.say("assistant", answer)
    assert len(said) > 120


def test_only_a_piece_without_a_meaning_is_unknown_in_the_file(tmp_path: Path) -> None:
    """llama.cpp writes nothing for the unknown token; the tokenizer's own is the exclamation mark."""
    import gguf

    write_gguf(ROOT / "miniature" / "LLM" / "llmga-mini", tmp_path / "mini.gguf")
    fields = gguf.GGUFReader(tmp_path / "mini.gguf").fields
    pieces, kinds = (fields[f"tokenizer.ggml.{name}"].contents() for name in ("tokens", "token_type"))
    unknown = [piece for piece, kind in zip(pieces, kinds, strict=True) if kind == gguf.TokenType.UNKNOWN]
    assert unknown == [pieces[fields["tokenizer.ggml.unknown_token_id"].contents()]]
    assert unknown[0].startswith("<unused ")


def test_its_grammar_holds_a_hot_model_to_the_form(server: LlamaCppServer) -> None:
    held, free = engine(server, constrain="llamacpp"), engine(server)
    for seed in range(20):
        answer = say(held, "hello there", replace(HOT, seed=seed, min_prompts=1))
        assert count_closed(answer) >= 1 and parse(answer).prompts[0].strip()
    assert not all(count_closed(say(free, "hello there", replace(HOT, seed=seed))) for seed in range(20))


def test_it_takes_the_grammar_of_the_longest_reply(server: LlamaCppServer) -> None:
    held = engine(server, constrain="llamacpp")
    say(held, SAID[0], Sampling(temperature=0.0, max_new_tokens=MAX_NEW_TOKENS, min_prompts=1))
    assert held._dialect.constrain == "llamacpp"  # a server that refuses it is asked without


def test_several_prompts_by_its_grammar(server: LlamaCppServer) -> None:
    sampling = replace(HOT, max_new_tokens=400, min_prompts=3)
    assert len(parse(say(engine(server, constrain="llamacpp"), "a story", sampling)).prompts) >= 3


def test_a_plan_of_a_scene_by_its_schema(server: LlamaCppServer) -> None:
    """The miniature never learned to plan: that its reply can be read is the server's work."""
    talk = Conversation().say("user", "a red star and a blue ring")
    sampling = Sampling(temperature=0.7, max_new_tokens=1600, seed=1)
    begun = replace(sampling, max_new_tokens=192)
    answer = engine(server).generate_json(talk, begun, lambda text: None, PLAN_SCHEMA).answer
    assert re.match(r'\s*{\s*"objects"\s*:\s*\[\s*{\s*"name"\s*:\s*"', answer)
    short = json.loads(re.sub(r'"maxLength": \d+', '"maxLength": 20', json.dumps(PLAN_SCHEMA)))
    short["properties"]["objects"]["maxItems"] = 2
    answer = engine(server).generate_json(talk, sampling, lambda text: None, short).answer
    assert set(json.loads(answer)) == {"objects", "background", "negative"}
    for one in json.loads(answer)[
        "objects"
    ]:  # llama.cpp holds numbers to no bounds, so no plan need come of it
        assert len(one["box"]) == 4 and len(one["descriptions"]) == 3


def test_how_likely_a_word_is_by_its_logprobs(server: LlamaCppServer) -> None:
    here, there = load_local_engine(ROOT / "miniature" / "LLM" / "llmga-mini"), engine(server)
    words = ("a", "yes", "no", "there")
    for said in ("Is there a red star?", "How many objects are there?", "What do you see?"):
        talk, sampling = Conversation().say("user", said), Sampling(temperature=0.0, max_new_tokens=4)
        ours, theirs = (
            one.generate_with_probabilities(talk, sampling, lambda text: None, words) for one in (here, there)
        )
        assert theirs[0] == ours[0]
        for a, b in zip(ours[1], theirs[1], strict=True):
            assert b == pytest.approx(
                a, rel=0.02, abs=0.005
            )  # its keys and values are float16; the unlikely count as 0
        assert sum(theirs[1]) > 0.1


def test_a_server_of_one_model_cannot_unload_and_the_error_says_what_would(server: LlamaCppServer) -> None:
    with pytest.raises(EndpointError, match=r"'llama' did not free its memory.*router mode"):
        engine(server, unload="llamacpp").unload()
