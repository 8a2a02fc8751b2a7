"""Chat templates as they were published, byte for byte: those that trl ships, and two more in ``fixtures/chat_templates``.

The two are of ServiceNow-AI/Apriel-1.6-15b-Thinker (MIT, with llama.cpp's fix) and ByteDance-Seed/Seed-OSS-36B-Instruct
(Apache 2.0), out of llama-cpp-python 0.3.36.
"""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest

pytest.importorskip("transformers", reason="the local engine needs transformers")

from PIL import Image
from support.chat_templates import BOS, PROCESSED, messages_of, two_turns

from llmga.chat.conversation import Conversation, Picture
from llmga.chat.engines.base import Said, Sampling
from llmga.chat.engines.chat_template import render_template
from llmga.chat.engines.thought import opens_thought, template_variables
from llmga.chat.folders import load_local_engine
from llmga.chat.formats import GEMMA4_LARGE, find_format
from llmga.chat.thinking import is_mark_token
from miniworld.models.random_language import write_tiny_llava, write_tiny_qwen_vl, write_tiny_text

FIXTURES = Path(__file__).parent / "fixtures/chat_templates"
_TRL = importlib.util.find_spec("trl")
SHIPPED = Path(_TRL.origin).parent / "chat_templates" if _TRL and _TRL.origin else None
PICTURE = Picture.from_pil(Image.new("RGB", (64, 64), "red"))
FORMATS = [
    *(("qwen25_7b", "qwen2_5_vl"), ("qwen3vl_4b", "qwen3_vl"), ("qwen3_4b", "qwen3"), ("gemma2_2b", "gemma")),
    *(("qwen35_2b", name) for name in ("qwen3_5_nothink", "qwen3_5_think", "qwen3_6")),
    *(("gemma3_12b", "gemma3"), ("llama", "llama3_1"), ("llama", "llama3_2")),
    *(("gemma4", name) for name in ("gemma4", "gemma4_v3", "gemma4_v4", "gemma4_v5")),
]
THINKING: dict[
    str, tuple[str, bool, str, bool]
] = {  # how a request ends with thinking off and on, and whether a thought is then open
    "qwen3": ("<think>\n\n</think>\n\n", False, "assistant\n", False),
    "qwen3_5_think": ("<think>\n\n</think>\n\n", False, "<think>\n", True),
    "qwen3_8": ("<think>\n\n</think>\n\n", False, "<think>\n", True),
    "glm4moe": ("<think></think>", False, "<|assistant|>", False),
    "deepseek_r1_distill": ("<think>\n", True, "<think>\n", True),
    "nemotron_3_nano": ("<think></think>", False, "<think>\n", True),
    "muse_glimmer": ("<|start|>assistant", False, "<|start|>assistant", False),
    "gptoss": ("<|start|>assistant", False, "<|start|>assistant", False),
    "apriel_1_6": ("reasoning steps:\n", True, "reasoning steps:\n", True),
    "seed_oss": ("</seed:think>", False, "<seed:bos>assistant\n", False),
}


def published(name: str) -> str:
    for folder in (FIXTURES, SHIPPED):
        if folder and (path := folder / f"{name}.jinja").is_file():
            return path.read_text(encoding="utf-8")
    pytest.skip(f"trl, which ships {name}.jinja, is not installed")


@pytest.mark.parametrize("thinking", [False, True])
@pytest.mark.parametrize(("family", "name"), FORMATS)
def test_formats_write_what_the_published_templates_write(family: str, name: str, thinking: bool) -> None:
    chat_format = find_format(family)
    bos = BOS.get(chat_format.name, "")
    pictures = (PICTURE, PICTURE) if chat_format.picture else ()
    conversations = [
        two_turns(pictures, pictures[:1], system=False),
        Conversation().say("user", "hello"),
        Conversation().say("user", "a").say("assistant", "").say("user", "b"),
    ]
    if family != "gemma2_2b":  # whose template refuses system prompts
        conversations += [two_turns(pictures), Conversation(system="  s \n").say("user", "a")]
    for conversation in conversations:
        text = render_template(
            published(name), messages_of(conversation), True, bos_token=bos, eos_token="</s>",
            enable_thinking=thinking, date_string="26 Jul 2024",
        )  # fmt: skip
        expected = text.removeprefix(bos).replace(*PROCESSED.get(chat_format.name, ("\0", "")))
        assert chat_format.render(conversation, thinking) == expected


def test_the_large_gemma_4_differs_in_its_empty_thought_alone() -> None:
    conversation = two_turns((PICTURE,))
    small = find_format("gemma4").render(conversation)
    assert GEMMA4_LARGE.render(conversation) == f"{small}<|channel>thought\n<channel|>"


@pytest.mark.parametrize("name", THINKING)
def test_published_templates_switch_thinking(name: str) -> None:
    template = published(name)
    asked = [{"role": "system", "content": "You paint."}, {"role": "user", "content": "a fox"}]
    off, opened_off, on, opened_on = THINKING[name]
    for thinking, ending, opened in ((False, off, opened_off), (True, on, opened_on)):
        names = {"bos_token": "<bos>", "eos_token": "<eos>", **template_variables(template, thinking)}
        said, request = (render_template(template, asked, asks, **names) for asks in (False, True))
        assert request.rstrip("\n").endswith(ending.rstrip("\n"))
        assert opens_thought(said, request) == opened


def test_marks_of_thinking_that_are_special_tokens_stay_visible() -> None:
    """[BEGIN FINAL RESPONSE] is one of Apriel 1.6, <|inner_prefix|> of Apertus, the rest of Muse and Solar."""
    marks = ["[BEGIN FINAL RESPONSE]", "<|inner_prefix|>", "<|inner_suffix|>", "<|message|>", "<|start|>"]
    marks += ["<|begin|>", "<|content|>", "<|think|>", "<think:opensource>"]
    assert all(map(is_mark_token, marks)) and not is_mark_token("<|eom|>")


def with_template(folder: Path, name: str) -> Path:
    """A folder as fine-tunes leave it: the template in tokenizer_config.json alone."""
    for other in ("chat_template.json", "chat_template.jinja"):
        (folder / other).unlink(missing_ok=True)
    path = folder / "tokenizer_config.json"
    settings = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**settings, "chat_template": published(name)}), encoding="utf-8")
    return folder


@pytest.mark.parametrize(
    ("name", "turn"),
    [
        ("llama3", "<|start_header_id|>user<|end_header_id|>\n\n<image>\na fox<|eot_id|>"),  # LLaVA-Llama-3
        ("gemma", "<start_of_turn>user\n<image>\na fox<end_of_turn>"),  # LLaVA-Gemma
        ("phi3", "<|user|>\n<image>\na fox<|end|>"),  # LLaVA-Phi-3
        ("qwen3", "<|im_start|>user\n<image>\na fox<|im_end|>"),
    ],
)
def test_a_llava_with_the_template_of_its_language_model_reads_pictures(
    tmp_path: Path, name: str, turn: str
) -> None:
    engine = load_local_engine(with_template(write_tiny_llava(tmp_path), name))
    asked = Conversation().say("user", "a fox", (PICTURE,))
    assert turn in engine._render(engine._messages(asked), True)
    said = engine.generate(asked, Sampling(max_new_tokens=3), lambda text: None)
    assert isinstance(said, Said) and said.answer


def test_a_template_that_loses_words_or_pictures_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="leaves out the text or the pictures of a message"):
        load_local_engine(with_template(write_tiny_qwen_vl(tmp_path / "qwen"), "qwen3"))
    engine = load_local_engine(with_template(write_tiny_text(tmp_path / "text"), "smolvlm"))
    assert "a fox" in engine._render(engine._messages(Conversation().say("user", "a fox")), True)
