"""Long CLIP Encode: a prompt of any length becomes conditioning, in LLMGA's layouts or ComfyUI's own."""

from __future__ import annotations

import re
from functools import partial
from typing import Any, get_args

import torch
from comfy_api.latest import io

from ..llmga.text import BreakAt, Layout, Plan, chunk_ids, join, read, readout, weigh
from ..llmga.text.chunks import BOS, CONTENT, EOS, MAX_CHUNKS, TRAINED_CHUNKS
from . import check, host

LAYOUTS = (*get_args(Layout), "host")
EMPTY_NEGATIVE = ("auto", "encode", "zeros")
PADS = {"l": EOS, "g": 0}
"""The padding of SD1.5's and SDXL's encoders, by the names ComfyUI gives their tokens."""

NOT_CLIP = (
    "encoded as CLIP Text Encode does: this is not SD1.5's or SDXL's CLIP, and no option here applies to it"
)

Conditioning = list[list[Any]]
"""The host's: [rows (1, tokens, dim), {"pooled_output": …}] for each stretch of the schedule."""


class LongCLIPEncode(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="LLMGA_LongCLIPEncode",
            display_name="Long CLIP Encode",
            category="LLMGA/text",
            description="Encodes long prompts for SD1.5 and SDXL the way LLMGA's UNets were trained "
            "(layout llmga), the way its SD1.5 pipelines run (llmga_lpw), or as CLIP Text Encode does "
            "(host), and reports how many tokens and chunks there were, where the text was cut, and what "
            "was left out. Other text encoders (T5, Flux, Qwen …) always encode as host.",
            search_aliases=["CLIP Text Encode", "long prompt", "77 tokens", "BREAK", "lpw", "prompt chunks"],
            inputs=[
                io.Clip.Input("clip", tooltip="The text encoder, from a checkpoint or CLIP loader."),
                io.String.Input(
                    "text",
                    multiline=True,
                    dynamic_prompts=True,
                    tooltip="The prompt, up to 200,000 characters. In the LLMGA layouts the word BREAK, in "
                    "capitals between spaces, starts a new chunk.",
                ),
                io.Combo.Input(
                    "layout",
                    options=list(LAYOUTS),
                    default="llmga",
                    tooltip="llmga: as LLMGA was trained, 75·n + 2 rows; best for its UNets. llmga_lpw: as "
                    "LLMGA's SD1.5 pipelines run, 77·n rows; on SDXL the same as llmga, which LLMGA's SDXL "
                    "pipelines use. host: exactly ComfyUI's CLIP Text Encode; break_at, max_chunks and "
                    "BREAK have no effect.",
                ),
                io.Boolean.Input(
                    "weights",
                    default=False,
                    tooltip="Off: brackets are text, which is what a language model means by them. On: "
                    "(word:1.2) changes emphasis, read as A1111 does in the LLMGA layouts (SD1.5 only) and "
                    "as ComfyUI does in host.",
                ),
                io.Combo.Input(
                    "break_at",
                    options=list(get_args(BreakAt)),
                    default="hard",
                    tooltip="hard: cut every 75 tokens, as LLMGA does. sentence: a sentence that would be "
                    "cut moves to the next chunk, if it fits one; this can use more chunks.",
                ),
                io.Int.Input(
                    "max_chunks",
                    default=TRAINED_CHUNKS,
                    min=1,
                    max=MAX_CHUNKS,
                    tooltip="Text beyond this many chunks of 75 tokens is left out, and the readout says "
                    f"what; 1 to {MAX_CHUNKS}. LLMGA was trained on up to 4; its SD1.5 text-to-image runs "
                    "with 3.",
                ),
                io.Int.Input(
                    "min_chunks",
                    default=1,
                    min=1,
                    max=MAX_CHUNKS,
                    tooltip=f"Shorter prompts are padded with empty chunks to this many, 1 to {MAX_CHUNKS}; "
                    "LLMGA's training padded short prompts to the longest of their batch.",
                ),
                io.Combo.Input(
                    "empty_negative",
                    options=list(EMPTY_NEGATIVE),
                    default="auto",
                    tooltip="What an empty negative prompt becomes. encode: the encoding of nothing. "
                    "zeros: zeros, with the positive's shape. auto: zeros for SDXL in the LLMGA layouts, "
                    "as its pipelines do, else encode.",
                ),
                io.Boolean.Input(
                    "match_chunks",
                    default=True,
                    tooltip="Pads the shorter of positive and negative to the chunk count of the longer. "
                    "Without, the UNet may have to run twice per step. Has no effect where both have the "
                    "same count.",
                ),
                io.String.Input(
                    "negative_text",
                    multiline=True,
                    dynamic_prompts=True,
                    optional=True,
                    default="",
                    tooltip="The negative prompt, up to 200,000 characters; may be empty (see "
                    "empty_negative).",
                ),
            ],
            outputs=[
                io.Conditioning.Output(
                    display_name="positive", tooltip="For the positive input of a sampler."
                ),
                io.Conditioning.Output(
                    display_name="negative", tooltip="For the negative input of a sampler."
                ),
                io.String.Output(
                    display_name="readout",
                    tooltip="Tokens and chunks of both prompts, where they were cut, and what was left out.",
                ),
            ],
        )

    @classmethod
    @host.guarded
    def execute(
        cls,
        clip,
        text,
        layout,
        weights,
        break_at,
        max_chunks,
        min_chunks,
        empty_negative,
        match_chunks,
        negative_text="",
    ) -> io.NodeOutput:
        texts = [check.text("text", text), check.text("negative_text", negative_text)]
        check.choice("layout", layout, LAYOUTS)
        check.flag("weights", weights)
        check.choice("break_at", break_at, get_args(BreakAt))
        check.integer("max_chunks", max_chunks, 1, MAX_CHUNKS)
        check.integer("min_chunks", min_chunks, 1, MAX_CHUNKS)
        check.choice("empty_negative", empty_negative, EMPTY_NEGATIVE)
        check.flag("match_chunks", match_chunks)
        encoders = clip_encoders(clip)
        # LLMGA's SDXL pipelines force zeros for an empty negative prompt.
        forced = empty_negative == "auto" and "g" in encoders and layout != "host"
        zeros = not negative_text.strip() and (forced or empty_negative == "zeros")
        if zeros:
            texts.pop()
        if not encoders:
            encoded = [(clip.encode_from_tokens_scheduled(clip.tokenize(each)), NOT_CLIP) for each in texts]
        elif layout == "host":
            encoded = encode_host(clip, texts, weights, min_chunks, match_chunks)
        else:
            options = {"weights": weights, "break_at": break_at, "max_chunks": max_chunks}
            encoded = encode_llmga(clip, texts, encoders, layout, options, min_chunks, match_chunks)
        if zeros:
            encoded.append((zeros_like(encoded[0][0]), "zeros"))
        (positive, said), (negative, said_negative) = encoded
        return io.NodeOutput(positive, negative, f"positive: {said}\nnegative: {said_negative}")


def clip_encoders(clip: Any) -> tuple[str, ...]:
    """The encoders of SD1.5's CLIP, ("l",), of SDXL's, ("l", "g"), or () for any other text encoder.

    Told by what the tokenizer makes of nothing: SD3 and Flux have more encoders, Long-CLIP more positions.
    """
    if not hasattr(clip, "tokenize") or not hasattr(clip, "encode_from_tokens_scheduled"):
        raise ValueError(
            f"clip must be a CLIP from a checkpoint or CLIP loader, got {type(clip).__name__}; "
            "the checkpoint may hold no text encoder"
        )
    empty = clip.tokenize("")
    for encoders in (("l",), ("l", "g")):
        if empty.keys() == set(encoders) and all(
            [[token[0] for token in chunk] for chunk in empty[key]] == [[BOS, EOS, *[PADS[key]] * CONTENT]]
            for key in encoders
        ):
            return encoders
    return ()


def encode_llmga(
    clip: Any,
    texts: list[str],
    encoders: tuple[str, ...],
    layout: Layout,
    options: dict[str, Any],
    min_chunks: int,
    match_chunks: bool,
) -> list[tuple[Conditioning, str]]:
    if "g" in encoders and options["weights"]:
        raise ValueError("weights: LLMGA's SDXL layouts have none; turn weights off or set layout to host")
    plans = [
        {key: read(text, partial(content_tokens, clip, key), **options) for key in encoders} for text in texts
    ]
    counts = targets(
        [max(len(each.chunks) for each in plan.values()) for plan in plans], min_chunks, match_chunks
    )
    encoded = []
    for plan, count in zip(plans, counts, strict=True):
        plan = {key: each.padded(count) for key, each in plan.items()}
        said = dict.fromkeys(readout(each) for each in plan.values())
        encoded.append((encode_plan(clip, plan, layout), "\nsecond encoder: ".join(said)))
    return encoded


def encode_plan(clip: Any, plan: dict[str, Plan], layout: Layout) -> Conditioning:
    """One encoder call for all chunks, and the host's rows put into LLMGA's order.

    The host keeps the pooled vector of the first chunk and LLMGA that of the last: the chunks go in
    backwards. The host itself cuts, pads, pools and weighs nothing here, so that clip skip, hooks and
    schedules work as ever.
    """
    if "g" in plan:
        layout = "llmga"  # LLMGA's SDXL runs as it was trained
    ids = {key: [tuple(chunk_ids(chunk, PADS[key])) for chunk in each.chunks] for key, each in plan.items()}
    chunks = list(zip(*ids.values(), strict=True))
    # A prompt padded to another's length ends in equal chunks: each is encoded once.
    order = {chunk: i for i, chunk in enumerate(dict.fromkeys(reversed(chunks)))}
    where = [order[chunk] for chunk in chunks]
    tokens = {key: [[(token, 1.0) for token in chunk[i]] for chunk in order] for i, key in enumerate(ids)}
    return [
        [weigh(join(cond[0].unflatten(0, (-1, CONTENT + 2))[where], layout), plan["l"], layout), extra]
        for cond, extra in clip.encode_from_tokens_scheduled(tokens)
    ]


def content_tokens(clip: Any, key: str, text: str) -> list[Any]:
    """A text's tokens for one encoder, textual inversions included, without BOS, EOS and padding (word 0)."""
    # The host reads \( as ( even with weights off; doubled, the backslash stays the text it is.
    literal = re.sub(r"\\([()])", r"\\\\\1", text)
    chunks = clip.tokenize(literal, return_word_ids=True, disable_weights=True)[key]
    return [token for chunk in chunks for token, _, word in chunk if word]


def encode_host(
    clip: Any, texts: list[str], weights: bool, min_chunks: int, match_chunks: bool
) -> list[tuple[Conditioning, str]]:
    """CLIP Text Encode's own tokens; only a prompt that must become longer gets chunks of padding."""
    off = {} if weights else {"disable_weights": True}
    tokens = [clip.tokenize(text, return_word_ids=True, **off) for text in texts]
    sizes = [min(len(chunks) for chunks in each.values()) for each in tokens]
    empty = clip.tokenize("")
    encoded = []
    for each, size, count in zip(tokens, sizes, targets(sizes, min_chunks, match_chunks), strict=True):
        said = sum(word != 0 for chunk in each["l"] for *_, word in chunk)
        pairs = {key: [[token[:2] for token in chunk] for chunk in chunks] for key, chunks in each.items()}
        if count > size:
            pairs = {key: chunks + empty[key] * (count - len(chunks)) for key, chunks in pairs.items()}
        line = f"{said} tokens in {size} chunks, {count - size} of padding, as CLIP Text Encode"
        encoded.append((clip.encode_from_tokens_scheduled(pairs), line))
    return encoded


def targets(counts: list[int], min_chunks: int, match_chunks: bool) -> list[int]:
    """How many chunks each prompt gets."""
    floor = max(min_chunks, *counts) if match_chunks else min_chunks
    return [max(floor, count) for count in counts]


def zeros_like(conditioning: Conditioning) -> Conditioning:
    """Zeros in the shape of a conditioning, its pooled vector included, as the host's ConditioningZeroOut."""
    return [
        [torch.zeros_like(cond), extra | {"pooled_output": torch.zeros_like(extra["pooled_output"])}]
        if extra.get("pooled_output") is not None
        else [torch.zeros_like(cond), extra]
        for cond, extra in conditioning
    ]


NODES = [LongCLIPEncode]
