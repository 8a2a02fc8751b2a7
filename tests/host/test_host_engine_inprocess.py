"""ComfyUI's own language model classes, tiny, as chat engines: live text, cancel, ends, seeds, pictures."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image
from support import comfy_inprocess, host_tokenizers

pytestmark = pytest.mark.skipif(
    comfy_inprocess.skip_reason() is not None, reason=str(comfy_inprocess.skip_reason())
)

SIZE = {
    "hidden_size": 64,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
}
TINY_VISION = {"hidden_size": 32, "intermediate_size": 32, "depth": 2, "deepstack_visual_indexes": [0]}


def engine_of(module: str, network: Callable[[Any], Any], tokenizer: Callable[[Any], Any], key: str) -> Any:
    comfy_inprocess.start()
    source = importlib.import_module(f"comfy.text_encoders.{module}")
    target = SimpleNamespace(params={}, clip=network(source), tokenizer=tokenizer(source))
    options = {"dtype": torch.float32, f"{key}_model_config": SIZE}
    sd = importlib.import_module("comfy.sd")
    clip = sd.CLIP(target, tokenizer_data=host_tokenizers.tokenizer_data(), model_options=options)
    generator = torch.Generator().manual_seed(0)
    for parameter in clip.cond_stage_model.parameters():
        parameter.data.normal_(0, 0.2, generator=generator)
    return comfy_inprocess.pack("nodes.host_language").HostEngine(clip)


@pytest.fixture(scope="module")
def qwen3() -> Any:
    return engine_of("z_image", lambda s: s.ZImageTEModel, lambda s: s.ZImageTokenizer, "qwen3_4b")


@pytest.fixture(scope="module")
def gemma2() -> Any:
    return engine_of("lumina2", lambda s: s.LuminaModel, lambda s: s.LuminaTokenizer, "gemma2_2b")


@pytest.fixture(scope="module")
def qwen3_vl() -> Any:
    comfy_inprocess.start()
    source = importlib.import_module("comfy.text_encoders.qwen3vl")
    common = {**source.QWEN3VL_VISION_COMMON, "num_heads": 2}
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(source.QWEN3VL_VISION, "qwen3vl_4b", TINY_VISION)
        patch.setattr(source, "QWEN3VL_VISION_COMMON", common)
        model = "qwen3vl_4b"
        return engine_of("qwen3vl", lambda s: s.te(model_type=model), lambda s: s.tokenizer(model), model)


def ask(text: str = "a fox", pictures: tuple[Any, ...] = ()) -> Any:
    return comfy_inprocess.pack("llmga.chat").Conversation(system="Be short.").say("user", text, pictures)


def sampling(**values: Any) -> Any:
    return comfy_inprocess.pack("llmga.chat").Sampling(**values)


def picture(colour: str, size: tuple[int, int] = (64, 64)) -> Any:
    made = comfy_inprocess.pack("llmga.chat.conversation").Picture
    return made.from_pil(Image.new("RGB", size, colour))


def write(engine: Any, monkeypatch: pytest.MonkeyPatch, ids: list[int]) -> list[int]:
    """Make the network write these tokens, then the last of them for ever; returns the list of its steps."""
    steps: list[int] = []
    vocabulary = engine._network.model.embed_tokens.weight.shape[0]

    def logits(x: torch.Tensor) -> torch.Tensor:
        token = ids[min(len(steps), len(ids) - 1)]
        steps.append(token)
        return torch.nn.functional.one_hot(torch.tensor([[token]]), vocabulary) * 1e6

    monkeypatch.setattr(engine._network, "logits", logits, raising=False)
    return steps


def test_text_is_live_token_by_token(qwen3: Any) -> None:
    texts: list[str] = []
    reply = qwen3.generate(ask(), sampling(max_new_tokens=12, temperature=0.9, seed=3), texts.append).answer
    assert texts[0] == ""
    assert len(texts) >= 13
    assert texts[-1].strip() == reply
    assert len(set(texts)) > 3


def test_nothing_is_left_on_the_network(qwen3: Any) -> None:
    def hooks() -> int:
        return sum(len(module._forward_pre_hooks) for module in qwen3._network.modules())

    before = hooks()
    during = []
    qwen3.generate(ask(), sampling(max_new_tokens=2), lambda _: during.append(hooks()))
    assert max(during) > before
    assert "sample_token" not in vars(qwen3._network)
    assert hooks() == before


def test_what_another_pack_has_put_there_stays(qwen3: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    real = qwen3._network.sample_token

    def theirs(*args: Any, **kwargs: Any) -> Any:
        calls.append(1)
        return real(*args, **kwargs)

    monkeypatch.setattr(qwen3._network, "sample_token", theirs)
    qwen3.generate(ask(), sampling(max_new_tokens=3), lambda _: None)
    assert vars(qwen3._network)["sample_token"] is theirs
    assert calls


class Cancelled(BaseException):
    pass


@pytest.mark.parametrize("token", [1, 3])
def test_cancel_ends_it_within_a_token(qwen3: Any, monkeypatch: pytest.MonkeyPatch, token: int) -> None:
    steps = write(qwen3, monkeypatch, [64, 65, 66])

    def on_text(_: str) -> None:
        if len(steps) == token:
            raise Cancelled

    with pytest.raises(Cancelled):
        qwen3.generate(ask(), sampling(max_new_tokens=50), on_text)
    assert len(steps) == token
    assert "sample_token" not in vars(qwen3._network)


def test_an_end_that_comfyui_does_not_know_ends_the_reply(
    gemma2: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    end_of_turn = 107
    assert end_of_turn not in gemma2._network.model.config.stop_tokens
    letters = gemma2._tokenizer.tokenizer.tokenizer.encode("fox")
    steps = write(gemma2, monkeypatch, [*letters, end_of_turn])
    assert gemma2.generate(ask(), sampling(max_new_tokens=50), lambda _: None).answer == "fox"
    assert len(steps) == len(letters) + 1


def test_comfyuis_own_end_ends_the_reply(qwen3: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    letters = qwen3._tokenizer.tokenizer("a red fox")["input_ids"]
    steps = write(qwen3, monkeypatch, [*letters, 151645])
    said = qwen3.generate(ask(), sampling(max_new_tokens=50), lambda _: None)
    assert (said.answer, said.cut) == ("a red fox", "")
    assert len(steps) == len(letters) + 1


def test_it_stops_after_the_prompts_that_are_wanted(qwen3: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "<gen_image> a fox </gen_image> and then more and more"
    steps = write(qwen3, monkeypatch, qwen3._tokenizer.tokenizer(text)["input_ids"])
    reply = qwen3.generate(ask(), sampling(max_new_tokens=200, stop_after=1), lambda _: None).answer
    assert reply.startswith("<gen_image> a fox </gen_image>")
    assert "more" not in reply
    assert len(steps) < 20


def test_a_thought_that_the_request_opens_paints_nothing(qwen3: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    formats = comfy_inprocess.pack("llmga.chat.formats")
    monkeypatch.setattr(qwen3, "format", formats.find_format("qwen35"))
    reply = "Maybe <gen_image> a dog </gen_image>?\n</think>\n\n<gen_image> a fox </gen_image>"
    write(qwen3, monkeypatch, [*qwen3._tokenizer.tokenizer(reply)["input_ids"], 151645])
    shown: list[str] = []
    said = qwen3.generate(ask(), sampling(thinking=True, stop_after=1, max_new_tokens=16), shown.append)
    assert said.answer == "<gen_image> a fox </gen_image>" and "a dog" in said.thought
    assert all(text.startswith("<think>") for text in filter(None, shown))


@pytest.mark.parametrize("most", [1, 7])
def test_it_writes_at_most_so_many_tokens(qwen3: Any, monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    steps = write(qwen3, monkeypatch, [64])
    assert qwen3.generate(ask(), sampling(max_new_tokens=most), lambda _: None).cut == "max_new_tokens"
    assert len(steps) == most


def test_the_seed_alone_decides_and_the_global_state_is_left_alone(qwen3: Any) -> None:
    torch.manual_seed(7)
    state = torch.get_rng_state()
    replies = [
        qwen3.generate(ask(), sampling(max_new_tokens=8, temperature=1.0, seed=seed), lambda _: None)
        for seed in (1, 1, 2)
    ]
    assert replies[0] == replies[1] != replies[2]
    assert torch.equal(torch.get_rng_state(), state)


def test_a_conversation_without_room_is_an_error(qwen3: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    used = len(qwen3._encode(ask()))
    config = qwen3._network.model.config
    monkeypatch.setattr(config, "max_position_embeddings", used + 2)
    steps = write(qwen3, monkeypatch, [64])
    assert qwen3.generate(ask(), sampling(max_new_tokens=50), lambda _: None).cut == "context"
    assert len(steps) == 2
    monkeypatch.setattr(config, "max_position_embeddings", used)
    with pytest.raises(ValueError, match=f"has {used} tokens and Qwen3 reads {used}, the reply included"):
        qwen3.generate(ask(), sampling(), lambda _: None)


def read_by(engine: Any, monkeypatch: pytest.MonkeyPatch, turns: Any) -> torch.Tensor:
    """What the network reads of the conversation: (1, positions, width)."""
    read: list[torch.Tensor] = []
    forward = engine._network.model.forward

    def watched(*args: Any, embeds: torch.Tensor, **kwargs: Any) -> Any:
        read.append(embeds.clone())
        return forward(*args, embeds=embeds, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(engine._network.model, "forward", watched)
        engine.generate(turns, sampling(max_new_tokens=1), lambda _: None)
    return read[0]


def test_each_picture_of_each_turn_is_read(qwen3_vl: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    turns = ask("one", (picture("red"), picture("blue", (128, 64)))).say("assistant", "ok")
    turns = turns.say("user", "two", (picture("green"),))
    positions = [64 * 64 // 32**2, 128 * 64 // 32**2, 64 * 64 // 32**2]
    tokens = len(qwen3_vl._encode(turns)) - len(positions)
    assert read_by(qwen3_vl, monkeypatch, turns).shape[1] == tokens + sum(positions)


def test_another_picture_is_read_as_another(qwen3_vl: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    red, again, blue = (
        read_by(qwen3_vl, monkeypatch, ask("what", (picture(colour),))) for colour in ("red", "red", "blue")
    )
    assert torch.equal(red, again)
    changed = (red != blue).any(-1)[0].nonzero().flatten().tolist()
    start = [token for token, _ in qwen3_vl._encode(ask("what", (picture("red"),)))].index(151652) + 1
    assert changed == list(range(start, start + 4))


def test_a_tokenizer_that_takes_no_picture_is_an_error(
    qwen3_vl: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(qwen3_vl.clip, "tokenize", lambda *_, **__: {"qwen3vl_4b": [[(1, 1.0)]]})
    with pytest.raises(ValueError, match="takes no picture for Qwen3-VL; disconnect 'image' and 'mask'"):
        qwen3_vl.generate(ask("what", (picture("red"),)), sampling(), str)


def test_a_picture_token_that_the_tokenizer_loses_is_an_error(
    qwen3_vl: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(qwen3_vl, "_single_id", lambda _: 1)
    with pytest.raises(ValueError, match="made 0 picture tokens of 1 pictures"):
        qwen3_vl.generate(ask("what", (picture("red"),)), sampling(), str)


@pytest.mark.parametrize("clip", [None, SimpleNamespace(), SimpleNamespace(cond_stage_model=None)])
def test_what_is_no_clip_is_refused(clip: Any) -> None:
    with pytest.raises(ValueError, match="clip is a text encoder that cannot write text"):
        comfy_inprocess.pack("nodes.host_language").HostEngine(clip)


def test_hidream_o1_is_refused() -> None:
    """Its CLIP is a tokenizer alone: the language model is inside the diffusion model."""
    comfy_inprocess.start()
    source = importlib.import_module("comfy.text_encoders.hidream_o1")
    clip = SimpleNamespace(cond_stage_model=source.HiDreamO1TE(), tokenizer=source.HiDreamO1Tokenizer())
    with pytest.raises(ValueError, match="HiDreamO1TE has no text generation"):
        comfy_inprocess.pack("nodes.host_language").HostEngine(clip)


class Uppercase:
    """A tokenizer of a family that came after this was written."""

    embedding_key = "phi5_mini"
    start_token = None

    def tokenizer(self, text: str) -> dict[str, list[int]]:
        return {"input_ids": list(text.encode())}


def test_a_family_of_the_future_is_refused_by_name(qwen3: Any) -> None:
    module = torch.nn.Module()
    module.phi5_mini = qwen3.clip.cond_stage_model.qwen3_4b
    module.generate = qwen3.clip.cond_stage_model.generate
    clip = SimpleNamespace(cond_stage_model=module, tokenizer=SimpleNamespace(phi5_mini=Uppercase()))
    with pytest.raises(ValueError, match="model family 'phi5_mini' is not known here; known are Qwen2.5-VL"):
        comfy_inprocess.pack("nodes.host_language").HostEngine(clip)


def test_a_tokenizer_of_another_kind_is_refused(qwen3: Any) -> None:
    clip = SimpleNamespace(cond_stage_model=qwen3.clip.cond_stage_model, tokenizer=object())
    with pytest.raises(ValueError, match=r"has a tokenizer that LLMGA does not know \(object\)"):
        comfy_inprocess.pack("nodes.host_language").HostEngine(clip)
