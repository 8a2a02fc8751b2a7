"""The published chat templates of thinking models, cut down to what text turns need: how a reply opens, and its switch.

``special`` are the marks that the published tokenizer holds as special tokens, so that usual decoding drops them; ``added``
those that it holds as added tokens that are not special. ``off`` and ``on`` are how a reply opens with thinking off and on;
``thinks_off`` says whether a thought is then open, ``thinks_on`` likewise. ``reply`` is what such a model writes, with a
draft in its thought.
"""

from __future__ import annotations

from dataclasses import dataclass

DRAFT = "a draft: <gen_image> the prompt </gen_image> or not"
ANSWER = "Here: <gen_image> a red fox </gen_image>"
_CHATML = "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\\n' + m['content'] + '<|im_end|>\\n' }}{% endfor %}"
_CHATML_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")


@dataclass(frozen=True)
class ThinkingTemplate:
    source: str
    template: str
    end: str
    special: tuple[str, ...]
    off: str
    on: str
    reply: str
    added: tuple[str, ...] = ()
    thinks_off: bool = False
    thinks_on: bool = False


TEMPLATES = {
    "qwen3": ThinkingTemplate(
        # Thinks unless it is told not to; the template then writes an empty thought.
        "Qwen/Qwen3-8B tokenizer_config.json",
        _CHATML + "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}"
        "{%- if enable_thinking is defined and enable_thinking is false %}{{- '<think>\\n\\n</think>\\n\\n' }}{%- endif %}"
        "{%- endif %}",
        "<|im_end|>",
        _CHATML_TOKENS,
        "<|im_start|>assistant\n<think>\n\n</think>\n\n",
        "<|im_start|>assistant\n",
        f"<think>\n{DRAFT}\n</think>\n\n{ANSWER}",
        added=("<think>", "</think>"),
    ),
    "qwen3.5": ThinkingTemplate(
        # The template opens the thought, and closes it where thinking is off.
        "Qwen/Qwen3.5-9B chat_template.jinja",
        _CHATML + "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}"
        "{%- if enable_thinking is defined and enable_thinking is false %}{{- '<think>\\n\\n</think>\\n\\n' }}"
        "{%- else %}{{- '<think>\\n' }}{%- endif %}{%- endif %}",
        "<|im_end|>",
        _CHATML_TOKENS,
        "<|im_start|>assistant\n<think>\n\n</think>\n\n",
        "<|im_start|>assistant\n<think>\n",
        f"{DRAFT}\n</think>\n\n{ANSWER}",
        added=("<think>", "</think>"),
        thinks_on=True,
    ),
    "qwen3-vl-thinking": ThinkingTemplate(
        # There is no switch: the template always opens a thought.
        "Qwen/Qwen3-VL-8B-Thinking chat_template.json",
        _CHATML + "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n<think>\\n' }}{%- endif %}",
        "<|im_end|>",
        _CHATML_TOKENS,
        "<|im_start|>assistant\n<think>\n",
        "<|im_start|>assistant\n<think>\n",
        f"{DRAFT}\n</think>\n\n{ANSWER}",
        added=("<think>", "</think>"),
        thinks_off=True,
        thinks_on=True,
    ),
    "deepseek-r1": ThinkingTemplate(
        # Since May 2025; earlier copies leave the opener to the model.
        "deepseek-ai/DeepSeek-R1-Distill-Qwen-7B tokenizer_config.json",
        "{{ bos_token or '' }}{%- for m in messages %}{%- if m['role'] == 'system' %}{{ m['content'] }}"
        "{%- elif m['role'] == 'user' %}{{ '<｜User｜>' + m['content'] }}"
        "{%- else %}{{ '<｜Assistant｜>' + m['content'].split('</think>')[-1] + '<｜end▁of▁sentence｜>' }}{%- endif %}"
        "{%- endfor %}{%- if add_generation_prompt %}{{ '<｜Assistant｜><think>\\n' }}{%- endif %}",
        "<｜end▁of▁sentence｜>",
        ("<｜end▁of▁sentence｜>", "<｜User｜>", "<｜Assistant｜>"),
        "<｜Assistant｜><think>\n",
        "<｜Assistant｜><think>\n",
        f"{DRAFT}\n</think>\n\n{ANSWER}",
        added=("<think>", "</think>"),
        thinks_off=True,
        thinks_on=True,
    ),
    "deepseek-v3.1": ThinkingTemplate(
        # Its switch is called "thinking"; off, the reply begins with a closer.
        "deepseek-ai/DeepSeek-V3.1 tokenizer_config.json",
        "{% if not thinking is defined %}{% set thinking = false %}{% endif %}"
        "{%- for m in messages %}{%- if m['role'] == 'system' %}{{ m['content'] }}"
        "{%- elif m['role'] == 'user' %}{{ '<｜User｜>' + m['content'] }}"
        "{%- else %}{{ '<｜Assistant｜></think>' + m['content'] + '<｜end▁of▁sentence｜>' }}{%- endif %}{%- endfor %}"
        "{%- if add_generation_prompt %}{{ '<｜Assistant｜>' }}"
        "{%- if not thinking %}{{ '</think>' }}{%- else %}{{ '<think>' }}{%- endif %}{%- endif %}",
        "<｜end▁of▁sentence｜>",
        ("<｜end▁of▁sentence｜>", "<｜User｜>", "<｜Assistant｜>"),
        "<｜Assistant｜></think>",
        "<｜Assistant｜><think>",
        f"{DRAFT}</think>{ANSWER}",
        added=("<think>", "</think>"),
        thinks_on=True,
    ),
    "magistral": ThinkingTemplate(
        # Its system prompt asks for thinking; ours takes its place. The marks are control tokens of the vocabulary.
        "mistralai/Magistral-Small-2509 chat_template.jinja",
        "{{ bos_token or '' }}{%- for m in messages %}"
        "{%- if m['role'] == 'system' %}{{ '[SYSTEM_PROMPT]' + m['content'] + '[/SYSTEM_PROMPT]' }}"
        "{%- elif m['role'] == 'user' %}{{ '[INST]' + m['content'] + '[/INST]' }}"
        "{%- else %}{{ m['content'] + '</s>' }}{%- endif %}{%- endfor %}",
        "</s>",
        ("</s>", "[INST]", "[/INST]", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]", "[THINK]", "[/THINK]"),
        "",
        "",
        f"[THINK]{DRAFT}[/THINK]{ANSWER}",
    ),
    "gpt-oss": ThinkingTemplate(
        # It always thinks, in a channel of its own; how long is a word of the system message.
        "openai/gpt-oss-20b chat_template.jinja",
        "{%- if reasoning_effort is not defined %}{%- set reasoning_effort = 'medium' %}{%- endif %}"
        "{{- '<|start|>system<|message|>Reasoning: ' + reasoning_effort + '<|end|>' }}"
        "{%- for m in messages %}{%- if m['role'] == 'assistant' %}"
        "{{- '<|start|>assistant<|channel|>final<|message|>' + m['content'] }}"
        "{%- if loop.last and not add_generation_prompt %}{{- '<|return|>' }}{%- else %}{{- '<|end|>' }}{%- endif %}"
        "{%- else %}{{- '<|start|>' + ('developer' if m['role'] == 'system' else 'user') }}"
        "{{- '<|message|>' + m['content'] + '<|end|>' }}{%- endif %}{%- endfor %}"
        "{%- if add_generation_prompt %}{{- '<|start|>assistant' }}{%- endif %}",
        "<|return|>",
        ("<|start|>", "<|end|>", "<|message|>", "<|channel|>", "<|constrain|>", "<|return|>", "<|call|>"),
        "<|start|>assistant",
        "<|start|>assistant",
        f"<|channel|>analysis<|message|>{DRAFT}<|end|><|start|>assistant<|channel|>final<|message|>{ANSWER}",
    ),
    "gemma-4": ThinkingTemplate(
        # Off, the template writes an empty thought; on, a token in the system turn asks for one.
        "google/gemma-4-31B-it chat_template.jinja",
        "{%- set loop_messages = messages -%}"
        "{%- if (enable_thinking is defined and enable_thinking) or messages[0]['role'] == 'system' -%}"
        "{{- '<|turn>system\\n' -}}"
        "{%- if enable_thinking is defined and enable_thinking -%}{{- '<|think|>' -}}{%- endif -%}"
        "{%- if messages[0]['role'] == 'system' -%}{{- messages[0]['content'] | trim -}}"
        "{%- set loop_messages = messages[1:] -%}{%- endif -%}{{- '<turn|>\\n' -}}{%- endif %}"
        "{%- for m in loop_messages -%}{{- '<|turn>' + ('model' if m['role'] == 'assistant' else m['role']) + '\\n' }}"
        "{{- m['content'] | trim }}{{- '<turn|>\\n' }}{%- endfor -%}"
        "{%- if add_generation_prompt -%}{{- '<|turn>model\\n' -}}"
        "{%- if not enable_thinking | default(false) -%}{{- '<|channel>thought\\n<channel|>' -}}{%- endif -%}{%- endif -%}",
        "<turn|>",
        ("<eos>", "<|turn>", "<turn|>", "<|think|>", "<|channel>", "<channel|>"),
        "<|turn>model\n<|channel>thought\n<channel|>",
        "<|turn>model\n",
        f"<|channel>thought\n{DRAFT}<channel|>{ANSWER}",
    ),
    "cohere": ThinkingTemplate(
        "CohereLabs/command-a-reasoning-08-2025 tokenizer_config.json",
        "{%- for m in messages %}{{ '<|START_OF_TURN_TOKEN|>' + m['role'] + m['content'] + '<|END_OF_TURN_TOKEN|>' }}"
        "{%- endfor %}{%- if add_generation_prompt %}{{ '<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>' }}"
        "{%- if not reasoning | default(true) %}{{ '<|START_THINKING|><|END_THINKING|>' }}{%- endif %}{%- endif %}",
        "<|END_OF_TURN_TOKEN|>",
        (
            "<|START_OF_TURN_TOKEN|>",
            "<|END_OF_TURN_TOKEN|>",
            "<|CHATBOT_TOKEN|>",
            "<|START_THINKING|>",
            "<|END_THINKING|>",
            "<|START_RESPONSE|>",
            "<|END_RESPONSE|>",
        ),
        "<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|><|START_THINKING|><|END_THINKING|>",
        "<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>",
        f"<|START_THINKING|>{DRAFT}<|END_THINKING|><|START_RESPONSE|>{ANSWER}<|END_RESPONSE|>",
    ),
}
