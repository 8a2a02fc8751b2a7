"""The miniature's language model as a GGUF file, for servers of llama.cpp; its vision would be a file of its own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

_SPACE = "\N{LOWER ONE EIGHTH BLOCK}"
"""What stands for a space in the pieces of a GGUF's unigram tokenizer."""
_TEMPLATE = (
    "{% for m in messages %}{% if m['role'] == 'system' %}{{ m['content'].split('\\n')[0] + ' ' }}{% else %}"
    "{{ m['role'] | upper + ': ' + m['content'] }}{{ '</s>' if m['role'] == 'assistant' else ' ' }}{% endif %}{% endfor %}"
    "{{ 'ASSISTANT:' if add_generation_prompt }}"
)
"""The folder's own template, of messages whose content is text."""
_NAMES = {
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
_MODEL = "language_model.model."


def write_gguf(folder: Path, path: Path) -> None:
    """Write the language model of the miniature's folder, in float32.

    Its tokenizer joins bytes that are spelled as letters, and llama.cpp's unigram tokenizer joins letters: pieces that are
    no whole letters are marked as unused, so text beyond ASCII that the miniature has no piece for becomes unknown tokens.

    Source: GGUF's specification and the Python package ``gguf``, whose constants name the keys; the order of rows of queries
    and keys is that of llama.cpp's rotary positions, ``(head, half, 2)`` for the ``(head, 2, half)`` of transformers.
    """
    import gguf
    from safetensors.numpy import load_file

    config = json.loads((folder / "config.json").read_text("utf-8"))["text_config"]
    heads, size = config["num_attention_heads"], config["head_dim"]
    writer: Any = gguf.GGUFWriter(path, "llama")
    writer.add_name("llmga-mini")
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_rope_dimension_count(size)
    writer.add_rope_freq_base(config["rope_parameters"]["rope_theta"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_vocab_size(config["vocab_size"])
    _add_tokenizer(writer, json.loads((folder / "tokenizer.json").read_text("utf-8")), config["eos_token_id"])
    for name, value in load_file(folder / "model.safetensors").items():
        if not name.startswith(_MODEL):
            continue
        tensor = value.astype(np.float32)
        if "q_proj" in name or "k_proj" in name:
            tensor = tensor.reshape(-1, 2, size // 2, tensor.shape[1]).swapaxes(1, 2).reshape(tensor.shape)
        writer.add_tensor(_name(name.removeprefix(_MODEL)), tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _name(name: str) -> str:
    """GGUF's name of a tensor of transformers' Llama."""
    if name.startswith("layers."):
        _, layer, rest = name.split(".", 2)
        return f"blk.{layer}.{_NAMES[rest.removesuffix('.weight')]}.weight"
    return {"embed_tokens.weight": "token_embd.weight", "norm.weight": "output_norm.weight"}[name]


def _add_tokenizer(writer: Any, tokenizer: dict[str, Any], end: int) -> None:
    import gguf

    letters = {letter: byte for byte, letter in _byte_letters().items()}
    tokens, scores, kinds = [], [], []
    for number, (piece, score) in enumerate(tokenizer["model"]["vocab"]):
        text = (
            bytes(letters[letter] for letter in piece)
            .decode("utf-8", "ignore")
            .replace(" ", _SPACE)
            .strip("\0")
        )
        kind = gguf.TokenType.NORMAL if text else gguf.TokenType.UNUSED
        text = text or f"<unused {number}>"
        tokens.append(text)
        scores.append(score)
        kinds.append(kind)
    for added in tokenizer["added_tokens"]:
        tokens.append(added["content"])
        scores.append(0.0)
        kinds.append(gguf.TokenType.CONTROL)
    # The folder's own is "!", which byte-level text never needs for another piece; llama.cpp would write nothing for it.
    unknown = kinds.index(gguf.TokenType.UNUSED)
    kinds[unknown] = gguf.TokenType.UNKNOWN
    writer.add_tokenizer_model("t5")
    writer.add_token_list(tokens)
    writer.add_token_scores(scores)
    writer.add_token_types(kinds)
    writer.add_unk_token_id(unknown)
    writer.add_eos_token_id(end)
    writer.add_pad_token_id(end)
    writer.add_add_bos_token(False)
    writer.add_add_eos_token(False)
    writer.add_add_space_prefix(False)
    writer.add_remove_extra_whitespaces(False)
    writer.add_chat_template(_TEMPLATE)


def _byte_letters() -> dict[int, str]:
    """The letter for each byte, as GPT-2 spells them: printable ones as themselves, the others from 256 upward."""
    plain = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in plain]
    return {byte: chr(byte) for byte in plain} | {byte: chr(256 + i) for i, byte in enumerate(others)}
