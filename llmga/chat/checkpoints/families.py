"""The families of LLMGA's language models, and the transcript that each was trained on, to the letter.

A transcript is a Jinja chat template, because that is what transformers and vLLM read from a converted folder; the
engine renders the same one. Its quirks are those of the training and are kept: Llama 3's assistant is headed
``system``, Qwen2 has no line break between turns, Mistral keeps an empty ``<<SYS>>`` block.

Source: LLMGA 7e32eb6, llmga/llava/conversation.py:50-138 and 348-520; ``--version`` of scripts/train_llmga_s1_*.sh.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

_log = logging.getLogger(__name__)

_LLAMA_2 = re.compile(r"llama[-_ ]?(?:v)?2(?![0-9.])", re.IGNORECASE)
"""``Llama-2``, ``llama2``, ``llama_2``, ``Llama 2``, and not ``Llama-21`` or ``Llama-2.5``."""
_LONGEST_NAME = 4096
_GUESSED = "a guess"

IMAGE = "<image>"
"""Where a picture stands in a transcript."""

VICUNA_SYSTEM = (
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions."
)
LLAMA_2_SYSTEM = (
    "You are LLMGA, a useful language and vision generation assistant. You can generate images according to the user's "
    "requirements. If the user wants you to inpaint or outpaint images, please imagine what is in the black mask parts of "
    "the image. If image generation is required, please provide a detailed description of the generated images in the "
    "form of <gen_image> DETAILED DESCRIPTION </gen_image>."
)
LLAMA_3_SYSTEM = (
    "You are a helpful language and vision assistant. You are able to understand the visual content that the user "
    "provides, and assist the user with a variety of tasks using natural language."
)
QWEN_2_SYSTEM = (
    "A conversation between a user and an LLM-based AI assistant. "
    "The assistant gives helpful and honest answers."
)


@dataclass(frozen=True)
class Family:
    """One base model's way of writing a chat.

    Args:
        name: the template's name in the official code.
        official: ``model_type`` of its checkpoints.
        text: ``model_type`` of its language model in transformers.
        system: the system prompt that it was trained with; another may be given where the template has a place.
        start, user, assistant: pieces of Jinja, which see ``ns.system``, the turn's ``ns.body``, and ``ns.opening``,
            true in the first user turn.
        ask: the text that opens the reply.
    """

    name: str
    official: str
    text: str
    system: str
    start: str
    user: str
    assistant: str
    ask: str


def _headed(role: str) -> str:
    return f"<|start_header_id|>{role}<|end_header_id|>\\n\\n"


def _llama_2(name: str, official: str, text: str, system: str) -> Family:
    # The official code strips the "<s>" before the first turn and leaves it to the tokenizer; later ones are text.
    block = "'<<SYS>>\\n' + ns.system + '\\n<</SYS>>\\n\\n' + ns.body if ns.opening else ns.body"
    user = f"{{{{ ('' if ns.opening else '<s>') + '[INST] ' + ({block}) + ' [/INST]' }}}}"
    return Family(name, official, text, system, "", user, "{{ ' ' + ns.body + ' </s>' }}", "")


_ALL = (
    Family(
        "vicuna_v1",
        "llava_llama",
        "llama",
        VICUNA_SYSTEM,
        "{{ ns.system + ' ' }}",
        "{{ 'USER: ' + ns.body + ' ' }}",
        "{{ 'ASSISTANT: ' + ns.body + '</s>' }}",
        "ASSISTANT:",
    ),
    Family(
        "llama_3",
        "llava_llama",
        "llama",
        LLAMA_3_SYSTEM,
        f"{{{{ '{_headed('system')}' + ns.system + '<|eot_id|>' }}}}",
        f"{{{{ '{_headed('user')}' + ns.body + '<|eot_id|>' }}}}",
        f"{{{{ '{_headed('system')}' + ns.body + '<|eot_id|>' }}}}",
        _headed("system"),
    ),
    _llama_2("llava_llama_2", "llava_llama", "llama", LLAMA_2_SYSTEM),
    _llama_2("mistral_instruct", "llava_mistral", "mistral", ""),
    Family(
        "qwen_2",
        "llava_Qwen2",
        "qwen2",
        QWEN_2_SYSTEM,
        "{{ '<|im_start|>system\\n' + ns.system + '<|im_end|>' }}",
        "{{ '<|im_start|>user\\n' + ns.body + '<|im_end|>' }}",
        "{{ '<|im_start|>assistant\\n' + ns.body + '<|im_end|>' }}",
        "<|im_start|>assistant\\n",
    ),
    Family(
        "phi_3",
        "llava_Phi3",
        "phi3",
        "",
        "",
        "{{ '<|user|>\\n' + ns.body + '<|end|>\\n' }}",
        "{{ '<|assistant|>\\n' + ns.body + '<|end|>\\n' }}",
        "<|assistant|>\\n",
    ),
    Family(
        "gemma",
        "llava_gemma",
        "gemma",
        "",
        "",
        "{{ '<start_of_turn>user\\n' + ns.body + '<end_of_turn>\\n' }}",
        "{{ '<start_of_turn>model\\n' + ns.body + '<end_of_turn>\\n<eos>' }}",
        "<start_of_turn>model\\n",
    ),
)
FAMILIES: Mapping[str, Family] = MappingProxyType({family.name: family for family in _ALL})


def find_family(
    config: Mapping[str, Any], tokenizer: Any, name: str | None = None, folder: str = ""
) -> Family:
    """The family of an official checkpoint; see ``choose_family``, whose reason goes to the log."""
    family, reason = choose_family(config, tokenizer, name, folder)
    log_choice(family, reason)
    return family


def log_choice(family: Family, reason: str) -> None:
    """Say in the log which family was taken where it was not certain."""
    if reason.startswith(_GUESSED):
        _log.warning(
            "%s: took the family %s; if replies look odd, give family='llava_llama_2'", reason, family.name
        )
    elif family.name == "llava_llama_2":
        _log.info("%s: took the family %s", reason, family.name)


def choose_family(
    config: Mapping[str, Any], tokenizer: Any, name: str | None = None, folder: str = ""
) -> tuple[Family, str]:
    """The family of an official checkpoint, and where it was read.

    Vicuna, Llama 2 and Llama 3 share one ``model_type``. Llama 3 has a tokenizer of its own; Vicuna and Llama 2 differ
    in nothing but the base model that transformers notes as ``_name_or_path``. Where that says neither, the folder's name
    is asked, as in the official code, and where that is silent too, it is Vicuna.

    Args:
        name: a key of ``FAMILIES`` that is known to be right.
        folder: the name of the checkpoint's folder.

    Raises:
        ValueError: the name or the ``model_type`` is unknown, or they contradict each other.

    Source: LLMGA 7e32eb6, llmga/serve/cli.py:33 (the folder's name).
    """
    kind = config.get("model_type")
    candidates = [family for family in _ALL if family.official == kind]
    if not candidates:
        known = ", ".join(sorted({family.official for family in _ALL}))
        raise ValueError(f"config.json: model_type must be one of {known}, got {kind!r}")
    if name is not None:
        if name not in {family.name for family in candidates}:
            raise ValueError(
                f"family must be {' or '.join(family.name for family in candidates)} for the model_type {kind!r}, "
                f"got {name!r}"
            )
        return FAMILIES[name], "it was asked for"
    if len(candidates) == 1:
        return candidates[0], f"model_type {kind}"
    if "<|eot_id|>" in tokenizer.get_vocab():
        return FAMILIES["llama_3"], "its tokenizer"
    origin = str(config.get("_name_or_path", ""))[:_LONGEST_NAME]
    for source, text in (("the base model's name", origin), ("the folder's name", folder)):
        if "vicuna" in text.lower():
            return FAMILIES["vicuna_v1"], source
        if _LLAMA_2.search(text):
            return FAMILIES["llava_llama_2"], source
    return FAMILIES[
        "vicuna_v1"
    ], f"{_GUESSED}: neither config.json nor the folder's name tells Vicuna from Llama 2"


def chat_template(family: Family, *, start: str = "", image: str = IMAGE, glue: str = "") -> str:
    """The family's Jinja template: pictures first in their turn, each with a line break.

    vLLM has to see a loop over ``m['content']``: it hands a template without one a text with a token of its own.

    Args:
        start: before everything, such as ``<s>`` where no tokenizer adds it.
        image: the token that stands for a picture.
        glue: between that token and the line break, for a tokenizer that needs it to read them apart.
    """
    return (
        f"{{% set ns = namespace(system='{_quoted(family.system)}', opening=true, body='') %}}"
        "{% for m in messages if m['role'] == 'system' %}{% set ns.system = "
        "m['content'] if m['content'] is string else m['content'] | map(attribute='text') | join %}{% endfor %}"
        f"{start}{family.start}"
        "{% for m in messages if m['role'] != 'system' %}"
        "{% if m['content'] is string %}{% set ns.body = m['content'] %}{% else %}{% set ns.body = '' %}"
        "{% for part in m['content'] if part['type'] != 'text' %}"
        f"{{% set ns.body = ns.body + '{image}{glue}\\n' %}}{{% endfor %}}"
        "{% for part in m['content'] if part['type'] == 'text' %}"
        "{% set ns.body = ns.body + part['text'] %}{% endfor %}{% endif %}"
        f"{{% if m['role'] == 'assistant' %}}{family.assistant}"
        f"{{% else %}}{family.user}{{% set ns.opening = false %}}{{% endif %}}"
        f"{{% endfor %}}{{% if add_generation_prompt %}}{{{{ '{family.ask}' }}}}{{% endif %}}"
    )


def _quoted(text: str) -> str:
    return text.replace("\\", "\\\\").replace("'", "\\'").replace("\n", "\\n")
