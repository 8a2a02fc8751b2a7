"""Language models of under a megabyte with random weights, as folders that any transformers loader takes.

They say nothing sensible, but in words: each reads any text and any picture, depends on all of it, and
answers with a salad of ``WORDS``. The same seed writes the same bytes.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from tokenizers import Tokenizer

WORDS = (
    "a the of in on with and under over near behind beside old young tiny giant red blue green golden "
    "silver pale dark bright warm cold soft misty quiet wild fox cat dog bird horse owl whale tree "
    "forest river lake sea mountain valley garden meadow castle tower house bridge street lantern "
    "window door boat train moon sun star cloud rain snow wind fire morning evening night winter summer "
    "autumn spring painting photo drawing watercolor portrait landscape light shadow reflection detail "
    "texture color style flower rose leaf stone wood glass paper gold child woman man robot dancer "
    "knight queen"
).split()
HIDDEN = 64
GAINS = {"q_proj": 2.0, "k_proj": 2.0, "o_proj": 4.0, "down_proj": 2.0, "lm_head": 3.0}
"""Sharp attention that outweighs the last token, so that the reply depends on the whole prompt."""
MUTE = -200.0  # a muted token's weight on hidden channel 0, which is 1 at every token before the last norm
END = -20.0  # the end token's: a reply has some dozens of words

VICUNA_TEMPLATE = (
    "{% for m in messages %}"
    "{{ (m['role'] | upper + ': ') if m['role'] != 'system' }}"
    "{% for part in m['content'] %}{{ '<image>\n' if part['type'] == 'image' else part['text'] }}{% endfor %}"
    "{{ eos_token if m['role'] == 'assistant' else ' ' }}"
    "{% endfor %}{{ 'ASSISTANT:' if add_generation_prompt }}"
)
CHATML_TOKENS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
CHATML_TEMPLATE = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' }}"
    "{% if m['content'] is string %}{{ m['content'] }}{% else %}{% for part in m['content'] %}"
    "{{ '<|vision_start|><|image_pad|><|vision_end|>' if part['type'] == 'image' else part['text'] }}"
    "{% endfor %}{% endif %}{{ '<|im_end|>\n' }}"
    "{% endfor %}{{ '<|im_start|>assistant\n' if add_generation_prompt }}"
)


def write_tiny_llava(folder: Path, seed: int = 0) -> Path:
    """Write a LLaVA: a Vicuna-like template, pictures of 28 px and 4 tokens; returns ``folder``."""
    from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

    tokenizer = _write_tokenizer(
        folder, "PreTrainedTokenizerFast", "</s>", ["<unk>", "<s>", "</s>", "<image>"], bos="<s>"
    )
    vision = CLIPVisionConfig(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=3,
        num_attention_heads=4,
        image_size=28,
        patch_size=14,
        projection_dim=32,
    )
    config = LlavaConfig(
        vision_config=vision.to_dict(),
        text_config=LlamaConfig(**_decoder(tokenizer, "</s>")).to_dict(),
        image_token_index=_id(tokenizer, "<image>"),
        image_seq_length=4,
    )
    _write_json(
        folder / "preprocessor_config.json",
        image_processor_type="CLIPImageProcessor",
        size={"shortest_edge": 28},
        crop_size={"height": 28, "width": 28},
    )
    _write_json(
        folder / "processor_config.json",
        processor_class="LlavaProcessor",
        image_token="<image>",
        patch_size=14,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
    )
    _write_json(folder / "chat_template.json", chat_template=VICUNA_TEMPLATE)
    return _write_model(folder, LlavaForConditionalGeneration, config, tokenizer, seed)


def write_tiny_qwen_vl(folder: Path, seed: int = 0) -> Path:
    """Write a Qwen2-VL: ChatML, pictures of 1 to 16 tokens of 28 px; returns ``folder``."""
    from transformers import Qwen2VLConfig, Qwen2VLForConditionalGeneration

    vision_tokens = ["<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"]
    tokenizer = _write_tokenizer(folder, "Qwen2Tokenizer", "<|im_end|>", [*CHATML_TOKENS, *vision_tokens])
    start, end, image, video = (_id(tokenizer, token) for token in vision_tokens)
    text: dict[str, Any] = _decoder(tokenizer, "<|im_end|>")
    text["rope_scaling"] = {"type": "mrope", "mrope_section": [2, 3, 3]}
    config = Qwen2VLConfig(
        **text,
        vision_config={"depth": 2, "embed_dim": 32, "hidden_size": HIDDEN, "num_heads": 2, "mlp_ratio": 2},
        vision_start_token_id=start,
        vision_end_token_id=end,
        image_token_id=image,
        video_token_id=video,
    )
    _write_json(
        folder / "preprocessor_config.json",
        processor_class="Qwen2VLProcessor",
        image_processor_type="Qwen2VLImageProcessor",
        min_pixels=28 * 28,
        max_pixels=16 * 28 * 28,
    )
    _write_json(folder / "chat_template.json", chat_template=CHATML_TEMPLATE)
    return _write_model(folder, Qwen2VLForConditionalGeneration, config, tokenizer, seed)


def write_tiny_text(folder: Path, seed: int = 0) -> Path:
    """Write a text-only Qwen2: ChatML; returns ``folder``."""
    return write_text_model(folder, CHATML_TEMPLATE, "<|im_end|>", CHATML_TOKENS, seed=seed)


def write_text_model(
    folder: Path, template: str, end: str, special: Sequence[str], added: Sequence[str] = (), seed: int = 0
) -> Path:
    """Write a text-only Qwen2 with another model's chat template and tokens; returns ``folder``.

    Args:
        end: the token that ends a reply, one of ``special``.
        special: control tokens, which usual decoding drops.
        added: further tokens that are text.
    """
    from transformers import Qwen2Config, Qwen2ForCausalLM

    tokenizer = _write_tokenizer(
        folder, "Qwen2Tokenizer", end, list(special), added=added, chat_template=template
    )
    config = Qwen2Config(**_decoder(tokenizer, end))
    return _write_model(folder, Qwen2ForCausalLM, config, tokenizer, seed)


def _write_tokenizer(
    folder: Path,
    kind: str,
    eos: str,
    control: list[str],
    bos: str | None = None,
    added: Sequence[str] = (),
    **settings: str,
) -> Tokenizer:
    """Write a byte-level BPE that also knows ``WORDS``.

    Like all of a folder but weights and configs, it is written in the form that model pages hold, which every
    transformers reads; the form of ``save_pretrained`` is the installed version's.
    """
    from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

    # A word is merged letter by letter behind its space, so no other merge can come between.
    starts = sorted({(word[:i], word[i]) for word in map(_piece, WORDS) for i in range(1, len(word))})
    starts.sort(key=lambda merge: len(merge[0]))
    pieces = sorted(pre_tokenizers.ByteLevel.alphabet()) + [left + right for left, right in starts]
    tokenizer = Tokenizer(models.BPE({piece: i for i, piece in enumerate(pieces)}, starts))
    tokenizer.normalizer = normalizers.NFC()  # as Qwen's; transformers 5 adds it where it is not
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, normalized=False) for token in control])
    tokenizer.add_tokens([AddedToken(token, normalized=False) for token in added])
    if bos:
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A", special_tokens=[(bos, tokenizer.token_to_id(bos))]
        )
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    _write_json(
        folder / "tokenizer_config.json",
        tokenizer_class=kind,
        bos_token=bos,
        eos_token=eos,
        pad_token=eos,
        additional_special_tokens=control,
        model_input_names=["input_ids", "attention_mask"],
        clean_up_tokenization_spaces=False,
        **settings,
    )
    return tokenizer


def _piece(word: str) -> str:
    """A word with the space before it, as byte-level tokenizers write it."""
    return f"Ġ{word}"


def _write_json(path: Path, **values: Any) -> None:
    path.write_text(json.dumps(values, indent=1), encoding="utf-8")


def _decoder(tokenizer: Tokenizer, end: str) -> dict[str, Any]:
    return {
        "vocab_size": tokenizer.get_vocab_size(),
        "hidden_size": HIDDEN,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 8192,
        "tie_word_embeddings": False,
        "bos_token_id": None,
        "eos_token_id": tokenizer.token_to_id(end),
        "pad_token_id": tokenizer.token_to_id(end),
    }


def _id(tokenizer: Tokenizer, token: str) -> int:
    found = tokenizer.token_to_id(token)
    if found is None:
        raise ValueError(f"the tokenizer has no token {token!r}")
    return found


def _write_model(folder: Path, kind: Any, config: Any, tokenizer: Tokenizer, seed: int) -> Path:
    from transformers import GenerationConfig

    with torch.random.fork_rng(devices=[]):  # building a model initialises it from the global generator
        net = kind(config)
    end = config.get_text_config().eos_token_id
    _fill(net, seed)
    _mute(net, [_id(tokenizer, _piece(word)) for word in WORDS], end)
    net.generation_config = GenerationConfig(eos_token_id=end, pad_token_id=end)
    net.save_pretrained(folder)
    return folder


@torch.no_grad()
def _fill(net: torch.nn.Module, seed: int) -> None:
    """Matrices that keep the variance (times ``GAINS``), norms of about 1, small biases."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in sorted(net.named_parameters()):
        noise = torch.randn(parameter.shape, generator=generator)
        if parameter.dim() == 1:
            parameter.copy_(noise * 0.1 + (1 if "norm" in name and name.endswith("weight") else 0))
        else:
            is_table = "embed" in name and parameter.dim() == 2
            gain = max((gain for layer, gain in GAINS.items() if layer in name), default=1.0)
            parameter.copy_(noise * gain / (1 if is_table else parameter[0].numel() ** 0.5))


@torch.no_grad()
def _mute(net: Any, words: list[int], end: int) -> None:
    """Leave only these tokens to be said.

    No head of these models has a bias, so hidden channel 0 becomes one: every token and picture enters with 1
    in it, no block writes to it, and the head weighs it with ``MUTE`` for all other tokens.
    """
    picture_exits = ("projector.linear_2", "merger.mlp.2")
    for name, parameter in net.named_parameters():
        layer, _, kind = name.rpartition(".")
        if layer.endswith("embed_tokens"):
            parameter[:, 0] = 1
        elif layer.endswith(picture_exits):
            parameter[0] = 1 if kind == "bias" else 0
        elif layer.endswith(("o_proj", "down_proj")):
            parameter[0] = 0
        elif layer.endswith("lm_head"):
            parameter[:, 0] = MUTE
            parameter[words, 0] = 0
            parameter[end, 0] = END
