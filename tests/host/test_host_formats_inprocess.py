"""Every language model that Load CLIP can load gets its family's published chat format, or is refused with the reason."""

from __future__ import annotations

import importlib
import re
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from support import chat_templates, comfy_inprocess, host_clips, host_tokenizers
from support.chat_templates import two_turns

pytestmark = pytest.mark.skipif(
    comfy_inprocess.skip_reason() is not None, reason=str(comfy_inprocess.skip_reason())
)

# What each (tokenizer, network) of ComfyUI is: a chat template, or what its refusal says.
NO_END = "text generation does not support qwen25_7b: it knows no token that ends its reply"
INNER_LAYER = "up to an inner layer, which its painter reads, and without an output layer"
NO_GENERATION = "has no text generation"
QWEN3, QWEN3_VL, QWEN35 = chat_templates.QWEN3, chat_templates.QWEN3_VL, chat_templates.QWEN35
GEMMA2, GEMMA3, GEMMA4 = chat_templates.GEMMA2, chat_templates.GEMMA3, chat_templates.GEMMA4
ROWS: dict[tuple[str, str], tuple[str, str]] = {
    ("ZImageTokenizer", "Qwen3_4B"): ("Qwen3", QWEN3),
    ("KleinTokenizer", "Qwen3_4B"): ("Qwen3", QWEN3),
    ("KleinTokenizer8B", "Qwen3_8B"): ("Qwen3", QWEN3),
    ("AnimaTokenizer", "Qwen3_06B"): ("Qwen3", QWEN3),
    ("Qwen3VLTokenizer_", "Qwen3VL_"): ("Qwen3-VL", QWEN3_VL),
    ("Ideogram4Qwen3VLTokenizer", "Qwen3VL_"): ("Qwen3-VL", QWEN3_VL),
    ("BooguTokenizer", "Qwen3VL_"): ("Qwen3-VL", QWEN3_VL),
    ("Krea2Tokenizer", "Qwen3VL_"): ("Qwen3-VL", QWEN3_VL),
    ("JoyImageTokenizer", "Qwen3VL8B_JoyImage"): ("Qwen3-VL", QWEN3_VL),
    ("MageFlowTokenizer", "Qwen3VL_"): ("Qwen3-VL", QWEN3_VL),
    ("Qwen35ImageTokenizer_", "Qwen35_"): ("Qwen3.5", QWEN35),
    ("LuminaTokenizer", "Gemma2_2B"): ("Gemma 2", GEMMA2),
    ("PixelDiTGemma2Tokenizer", "Gemma2_2B"): ("Gemma 2", GEMMA2),
    ("NTokenizer", "Gemma3_4B"): ("Gemma 3", GEMMA3),
    ("NTokenizer", "Gemma3_4B_Vision"): ("Gemma 3", GEMMA3),
    ("Gemma3_12BTokenizer", "Gemma3_12B"): ("Gemma 3", GEMMA3),
    ("LTXAVGemmaTokenizer", "Gemma3_12B"): ("Gemma 3", GEMMA3),
    ("Gemma4Tokenizer", "Variant"): ("Gemma 4", GEMMA4),
    ("Tokenizer", "Variant"): ("Gemma 4", GEMMA4),
    ("Gemma4UnifiedTokenizer", "Gemma4_12B"): ("Gemma 4", GEMMA4),
    ("LTXAVGemma4Tokenizer", "Variant"): ("Gemma 4", GEMMA4),
    ("LTXAVGemma4Tokenizer", "Gemma4_12B"): ("Gemma 4", GEMMA4),
    ("ErnieTokenizer", "Ministral3_3B"): ("Ministral 3", chat_templates.MISTRAL),
    ("QwenImageTokenizer", "Qwen25_7BVLI"): ("refused", NO_END),
    ("HunyuanImageTokenizer", "Qwen25_7BVLI"): ("refused", NO_END),
    ("HunyuanVideo15Tokenizer", "Qwen25_7BVLI"): ("refused", NO_END),
    ("Kandinsky5Tokenizer", "Qwen25_7BVLI"): ("refused", NO_END),
    ("Kandinsky5TokenizerImage", "Qwen25_7BVLI"): ("refused", NO_END),
    ("LongCatImageTokenizer", "Qwen25_7BVLI"): ("refused", NO_END),
    ("Ideogram4Tokenizer", "Qwen3_8B"): ("refused", INNER_LAYER),
    ("MiniMaxH3Tokenizer", "MiniMaxQwen3VL"): ("refused", INNER_LAYER),
    ("NewBieTokenizer", "Gemma3_4B"): ("refused", NO_GENERATION),
}
NOT_IN_EVERY_VERSION = {
    *(row for row in ROWS if row[0] in ("JoyImageTokenizer", "MageFlowTokenizer", "MiniMaxH3Tokenizer")),
    *(row for row in ROWS if row[0] in ("Gemma4UnifiedTokenizer", "LTXAVGemma4Tokenizer")),
}
CLIP_TYPES = set(
    "STABLE_DIFFUSION STABLE_CASCADE SD3 STABLE_AUDIO HUNYUAN_DIT FLUX MOCHI LTXV HUNYUAN_VIDEO PIXART COSMOS LUMINA2 WAN "
    "HIDREAM CHROMA ACE OMNIGEN2 QWEN_IMAGE HUNYUAN_IMAGE HUNYUAN_VIDEO_15 OVIS KANDINSKY5 KANDINSKY5_IMAGE NEWBIE FLUX2 "
    "LONGCAT_IMAGE COGVIDEOX LENS PIXELDIT IDEOGRAM4 BOOGU KREA2 JOYIMAGE MAGE MINIMAX".split()
)
LARGE_GEMMA4 = {"GEMMA_4_31B", "GEMMA_4_12B"}
PICTURES = [("red", (64, 64)), ("green", (96, 64)), ("blue", (64, 128))]


def has_writer(network: Any) -> bool:
    parts = [network, *dict(network.named_children()).values()]
    return any(hasattr(getattr(part, "transformer", None), "generate") for part in parts)


def transformer_of(network: Any) -> Any:
    parts = [network, *dict(network.named_children()).values()]
    return next(p.transformer for p in parts if hasattr(getattr(p, "transformer", None), "generate"))


@lru_cache(maxsize=1)
def language_rows() -> tuple[tuple[str, str, host_clips.Choice], ...]:
    comfy_inprocess.start()
    rows = []
    for choice in host_clips.choices():
        network = choice.network
        if has_writer(network):
            name = type(transformer_of(network)).__name__
            rows.append((choice.target.tokenizer.__name__, name, choice))
    return tuple(rows)


def rows_of(row: tuple[str, str]) -> list[host_clips.Choice]:
    found = [choice for tokenizer, network, choice in language_rows() if (tokenizer, network) == row]
    if not found and row in NOT_IN_EVERY_VERSION:
        pytest.skip(f"this ComfyUI has no {row[0]}")
    return found


def engine_of(choice: host_clips.Choice, writes: bool = False) -> Any:
    """The engine for a CLIP; ``writes`` gives it what ComfyUI's Qwen2.5-VL lacks, to see the format that it would get."""
    network = choice.build() if writes else choice.network
    if writes:
        transformer_of(network).model.config.stop_tokens = [151643, 151645]
    try:
        clip = choice.clip(network)
    except (OSError, TypeError, ValueError) as error:
        folder = (
            Path(str(importlib.import_module("comfy.sd").__file__)).parent
            / "text_encoders"
            / "qwen35_tokenizer"
        )
        if "Qwen35" in choice.target.tokenizer.__name__ and not (folder / "vocab.json").exists():
            pytest.skip(f"this copy of ComfyUI lacks qwen35_tokenizer/vocab.json ({type(error).__name__})")
        if "MistralConverter" in str(error):
            pytest.skip(f"this ComfyUI cannot read a tekken file with the installed transformers: {error}")
        raise
    return comfy_inprocess.pack("nodes.host_language").HostEngine(clip)


def conversation_of(turns: Any) -> Any:
    """A conversation of the pack's own class, which is another one than the library's."""
    return comfy_inprocess.pack("llmga.chat").Conversation.from_json(turns.to_json())


def pictures_of(count: int) -> tuple[Any, ...]:
    picture = importlib.import_module("llmga.chat.conversation").Picture
    return tuple(picture.from_pil(Image.new("RGB", size, colour)) for colour, size in PICTURES[:count])


def expected_text(family: str, template: str, choice: host_clips.Choice, turns: Any) -> str:
    if family == "Gemma 4" and choice.kinds & LARGE_GEMMA4:
        template = chat_templates.GEMMA4_LARGE
    if family == "Gemma 2":  # its template refuses a system prompt, which we put before the first turn
        first, *rest = turns.turns
        folded = type(turns)().say("user", f"{turns.system}\n\n{first.text.strip()}")
        for turn in rest:
            folded = folded.say(turn.role, turn.text)
        turns = folded
    return chat_templates.render(template, family, turns)


def published_ids(family: str, text: str) -> list[int]:
    """The text's token ids by the family's own tokenizer, not through ComfyUI's."""
    if family in ("Gemma 2", "Gemma 3"):
        return gemma_ids(text, 107 if family == "Gemma 2" else 106)
    if family == "Gemma 4":
        tokenizers = importlib.import_module("tokenizers")
        tokenizer = tokenizers.Tokenizer.from_str(host_tokenizers.gemma4_json().decode())
        return [2, *tokenizer.encode(text, add_special_tokens=False).ids]
    if family == "Ministral 3":
        return [1, *tekken_ids(text)]
    name = "qwen35_tokenizer" if family == "Qwen3.5" else "qwen25_tokenizer"
    return qwen_tokenizer(name)(text, add_special_tokens=False)["input_ids"]


@lru_cache(maxsize=2)
def qwen_tokenizer(name: str) -> Any:
    folder = Path(str(importlib.import_module("comfy.sd").__file__)).parent / "text_encoders" / name
    return importlib.import_module("transformers").Qwen2Tokenizer.from_pretrained(folder)


def gemma_ids(text: str, end_of_turn: int) -> list[int]:
    """One pass of SentencePiece with every control token as a piece; two pieces have other ids in the real vocabulary."""
    sentencepiece = importlib.import_module("sentencepiece")
    pieces: Any = sentencepiece.SentencePieceProcessor(model_proto=host_tokenizers.gemma_pieces())
    real = {
        pieces.piece_to_id("<end_of_turn>"): end_of_turn,
        pieces.piece_to_id("<image_soft_token>"): 262144,
    }
    encoded: list[int] = pieces.encode(text)
    return [2, *(real.get(token, token) for token in encoded)]


def tekken_ids(text: str) -> list[int]:
    special = {token: rank for rank, token in enumerate(host_tokenizers.TEKKEN)}
    parts = re.split("(" + "|".join(map(re.escape, special)) + ")", text)
    offset = len(special)
    return [
        token
        for part in parts
        for token in ([special[part]] if part in special else (byte + offset for byte in part.encode()))
    ]


def test_every_clip_type_is_known_here() -> None:
    """A new CLIP type: look at what its tokenizer does, then add it here and its row above."""
    comfy_inprocess.start()
    assert {found.name for found in importlib.import_module("comfy.sd").CLIPType} <= CLIP_TYPES


def test_every_language_model_of_every_clip_type_has_its_row() -> None:
    found = host_clips.types_by_row(list(language_rows()))
    assert set(found) <= set(ROWS), "a language model without a row"
    assert set(ROWS) - set(found) <= NOT_IN_EVERY_VERSION


def test_every_other_clip_is_refused_with_the_reason() -> None:
    comfy_inprocess.start()
    module = comfy_inprocess.pack("nodes.host_language")
    refused = set()
    for choice in host_clips.choices():
        network = choice.network
        if not has_writer(network):
            clip = object.__new__(importlib.import_module("comfy.sd").CLIP)
            clip.cond_stage_model, clip.tokenizer = network, None
            with pytest.raises(
                ValueError, match=r"cannot write text \(ComfyUI's \w+ has no text generation\)"
            ):
                module.HostEngine(clip)
            refused |= choice.types
    assert {"OMNIGEN2", "OVIS", "HIDREAM", "LENS", "HUNYUAN_VIDEO", "FLUX2", "ACE"} <= refused


@pytest.mark.parametrize("row", [row for row in ROWS if ROWS[row][0] != "refused"], ids="-".join)
def test_two_turns_are_the_published_template_token_for_token(row: tuple[str, str]) -> None:
    family, template = ROWS[row]
    for choice in rows_of(row):
        engine = engine_of(choice)
        turns = two_turns()
        got = engine._encode(conversation_of(turns))
        assert [token for token, _ in got] == published_ids(
            family, expected_text(family, template, choice, turns)
        )
        assert {weight for _, weight in got} == {1.0}
        assert engine.format.name == family
        assert engine._eos_ids


@pytest.mark.parametrize("row", [row for row in ROWS if ROWS[row][0] != "refused"], ids="-".join)
def test_pictures_reach_the_model_or_are_refused(row: tuple[str, str]) -> None:
    family, template = ROWS[row]
    first, second, third = pictures_of(3)
    turns = two_turns((first, second), (third,))
    for choice in rows_of(row):
        engine = engine_of(choice)
        sees = any(hasattr(transformer_of(choice.network), name) for name in ("visual", "vision_model"))
        assert engine.supports_pictures is sees
        if not sees:
            with pytest.raises(ValueError, match="cannot see pictures"):
                engine.generate(conversation_of(turns), sampling(), lambda _: None)
            continue
        got = engine._encode(conversation_of(turns))
        seen = [token for token, _ in got if isinstance(token, dict)]
        assert [token["type"] for token in seen] == ["image"] * 3
        colours = [token["data"].reshape(-1, 3).mean(0).argmax().item() for token in seen]
        assert colours == [0, 1, 2]
        shapes = [token["data"].shape[2] / token["data"].shape[1] for token in seen]
        assert shapes == pytest.approx([1, 1.5, 0.5], rel=0.1)
        marker = published_ids(family, engine.format.picture)[-1]
        text = expected_text(family, template, choice, turns)
        ids = [marker if isinstance(token, dict) else token for token, _ in got]
        assert ids == published_ids(family, text)


@pytest.mark.parametrize("row", [row for row in ROWS if ROWS[row][0] == "refused"], ids="-".join)
def test_what_cannot_write_is_refused_with_the_reason(row: tuple[str, str]) -> None:
    for choice in rows_of(row):
        with pytest.raises(
            ValueError, match=f"clip is a text encoder that cannot write text .*{ROWS[row][1]}"
        ):
            engine_of(choice)


@pytest.mark.parametrize("row", [row for row in ROWS if row[1] == "Qwen25_7BVLI"], ids="-".join)
def test_qwen25_would_get_its_format_and_its_pictures(row: tuple[str, str]) -> None:
    """As soon as ComfyUI loads what its Qwen2.5-VL needs to write."""
    first, second, third = pictures_of(3)
    for choice in rows_of(row):
        engine = engine_of(choice, writes=True)
        for turns in (two_turns(), two_turns((first, second), (third,)), two_turns(system=False)):
            got = engine._encode(conversation_of(turns))
            expected = published_ids(
                "Qwen2.5-VL", chat_templates.render(chat_templates.QWEN25_VL, "Qwen2.5-VL", turns)
            )
            assert [151655 if isinstance(token, dict) else token for token, _ in got] == expected


@pytest.mark.parametrize("row", [row for row in ROWS if ROWS[row][0] != "refused"], ids="-".join)
def test_control_tokens_in_text_open_no_turn(row: tuple[str, str]) -> None:
    for choice in rows_of(row):
        engine = engine_of(choice)
        attack = "x".join(engine.format.tokens)
        turns = two_turns()
        hostile = type(turns)(system=attack).say("user", attack).say("assistant", attack).say("user", attack)
        control = {engine._single_id(token) for token in engine.format.tokens} - {None}
        ids = [
            [token for token, _ in engine._encode(conversation_of(found)) if token in control]
            for found in (turns, hostile)
        ]
        assert ids[0] == ids[1]


@pytest.mark.parametrize("row", [row for row in ROWS if ROWS[row][0] != "refused"], ids="-".join)
def test_the_network_reads_every_token(row: tuple[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of ComfyUI's networks takes its tokens in its own way: all but the transformer is run here."""
    for choice in rows_of(row):
        engine = engine_of(choice)
        network = choice.network
        read: list[int] = []

        def generate(tokens: Any, network: Any = network, **options: Any) -> list[int]:
            network.reset_clip_options()
            network.set_clip_options({"layer": None, "execution_device": torch.device("meta")})
            return network.generate(tokens, presence_penalty=0.0, **options)

        def transformer(embeds: torch.Tensor, *_: Any, read: list[int] = read, **__: Any) -> list[int]:
            read.append(embeds.shape[-2])
            return []

        monkeypatch.setattr(engine.clip, "generate", generate)
        monkeypatch.setattr(engine._network, "generate", transformer)
        turns = conversation_of(two_turns())
        engine.generate(turns, sampling(), lambda _: None)
        assert read == [len(engine._encode(turns))]


def sampling(**values: Any) -> Any:
    return comfy_inprocess.pack("llmga.chat").Sampling(**values)
