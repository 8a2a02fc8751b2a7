"""The hidden states that an engine offers are those of transformers' own forward pass."""

from __future__ import annotations

import pytest
import torch
from PIL import Image

pytest.importorskip("transformers", reason="the local engine needs transformers")

from llmga.chat.conversation import Conversation, Picture
from llmga.chat.engines.base import HasHiddenStates, Said, Sampling
from llmga.chat.engines.local import LocalEngine
from llmga.chat.folders import load_local_engine
from miniworld.models.random_language import write_tiny_llava, write_tiny_qwen_vl, write_tiny_text

pytestmark = pytest.mark.usefixtures("one_thread")

WRITERS = {"llava": write_tiny_llava, "qwen-vl": write_tiny_qwen_vl, "text": write_tiny_text}
GREEDY = Sampling(temperature=0, max_new_tokens=8)
FOX = Picture.from_pil(Image.radial_gradient("L").resize((60, 40)))
SEA = Picture.from_pil(Image.linear_gradient("L").rotate(90).resize((60, 40)))


@pytest.fixture(scope="module")
def engines(tmp_path_factory: pytest.TempPathFactory) -> dict[str, LocalEngine]:
    root = tmp_path_factory.mktemp("models")
    return {kind: load_local_engine(write(root / kind, seed=1)) for kind, write in WRITERS.items()}


def chat_for(engine: LocalEngine) -> Conversation:
    pictures = (FOX, SEA) if engine.supports_pictures else ()
    first = Conversation().say("user", "a red fox", pictures[:1]).say("assistant", "in the snow")
    return first.say("user", "blue", pictures[1:])


@torch.no_grad()
def plain_states(engine: LocalEngine, chat: Conversation) -> tuple[list[int], torch.Tensor]:
    """Token ids and last states by transformers' processor, template and network alone."""
    processor = engine._processor
    messages = []
    for turn in chat.turns:
        parts = [{"type": "image"}] * len(turn.pictures) + [{"type": "text", "text": turn.text}]
        messages.append({"role": turn.role, "content": parts if engine.supports_pictures else turn.text})
    asks = chat.turns[-1].role == "user"
    prompt = processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=asks)
    if engine.supports_pictures:
        images = [picture.to_pil() for picture in chat.pictures] or None
        inputs = processor(text=[prompt], images=images, return_tensors="pt")
    else:
        inputs = processor(prompt, add_special_tokens=False, return_tensors="pt")
        inputs.pop("token_type_ids", None)
    output = engine.net(**inputs, output_hidden_states=True)
    return inputs["input_ids"][0].tolist(), output.hidden_states[-1][0]


@pytest.mark.parametrize("answered", [False, True], ids=["asked", "answered"])
@pytest.mark.parametrize("kind", WRITERS)
def test_they_equal_a_plain_forward_pass(engines, kind: str, answered: bool) -> None:
    engine = engines[kind]
    assert isinstance(engine, HasHiddenStates)
    chat = chat_for(engine).say("assistant", "a whale") if answered else chat_for(engine)
    ids, expected = plain_states(engine, chat)
    assert engine.token_ids(chat) == ids
    states = engine.hidden(chat)
    assert states.shape == (len(ids), engine.net.config.get_text_config().hidden_size)
    assert states.dtype == torch.float32 and not states.requires_grad
    torch.testing.assert_close(states, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("lookup", [0, 4])
@pytest.mark.parametrize("kind", WRITERS)
def test_kept_beginnings_and_states_leave_each_other_alone(engines, kind: str, lookup: int) -> None:
    engine, chat = engines[kind], chat_for(engines[kind])
    engine.forget()
    engine.lookup = lookup
    expected = engine.hidden(chat)
    reply = engine.generate(chat, GREEDY, lambda text: None).answer
    kept = engine.prefixes.nbytes
    assert torch.equal(engine.hidden(chat), expected)
    assert engine.prefixes.nbytes == kept
    assert engine.generate(chat, GREEDY, lambda text: None).answer == reply
    longer = chat.say("assistant", reply).say("user", "old")
    engine.hidden(longer)
    continued = engine.generate(longer, GREEDY, lambda text: None)
    engine.forget()
    assert engine.generate(longer, GREEDY, lambda text: None) == continued
    engine.lookup = 0


def test_the_states_of_an_answers_own_tokens_are_found_by_their_ids(engines) -> None:
    """As GILL's [IMG] tokens are: words of the vocabulary that the reply holds."""
    engine = engines["text"]
    before = Conversation().say("user", "a red")
    answered = before.say("assistant", "in the snow, whale!")
    wanted = set(engine._tokenizer("!")["input_ids"])
    places = [i for i, token in enumerate(engine.token_ids(answered)) if token in wanted]
    assert len(places) == 1
    states = engine.hidden(answered)[places]
    torch.testing.assert_close(states, plain_states(engine, answered)[1][places], rtol=1e-5, atol=1e-6)
    assert len(engine.token_ids(answered)) > len(engine.token_ids(before))


def test_what_cannot_be_read(engines) -> None:
    with pytest.raises(ValueError, match="holds no turn"):
        engines["text"].hidden(Conversation())
    with pytest.raises(ValueError, match="cannot see pictures"):
        engines["text"].hidden(Conversation().say("user", "x", (FOX,)))
    with pytest.raises(ValueError, match=r"has \d+ tokens"):
        engines["text"].hidden(Conversation().say("user", "x" * 100_000))


class Plain:
    name = "plain"
    supports_pictures = False

    def generate(self, conversation, sampling, on_text) -> Said:
        return Said("")


def test_an_engine_need_not_offer_them() -> None:
    assert not isinstance(Plain(), HasHiddenStates)
