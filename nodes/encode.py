"""Long CLIP Encode: a prompt of any length becomes conditioning, in LLMGA's layouts or ComfyUI's own."""

from __future__ import annotations

from typing import Any, get_args

from comfy_api.latest import io

from ..llmga.text import BreakAt, has_break, longest, readout
from ..llmga.text.chunks import MAX_CHUNKS, TRAINED_CHUNKS
from . import check, embeddings, host
from .prompt_encoder import LAYOUTS as LLMGA_LAYOUTS
from .prompt_encoder import Conditioning, HostPromptEncoder, clip_encoders, encode_tokens, zeros_like

LAYOUTS = (*LLMGA_LAYOUTS, "host")
EMPTY_NEGATIVE = ("auto", "encode", "zeros")

BREAK_IS_A_WORD = "BREAK is read as a word; switch break_word on to start a new chunk there"
EMPTY_POSITIVE = (
    "The prompt is empty, so anything may be painted: write a text, or look at what is connected to text."
)
NOT_CLIP = (
    "encoded as CLIP Text Encode does: this is not SD1.5's or SDXL's CLIP, and no option here applies to it"
)


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
            search_aliases=[
                "CLIP Text Encode",
                "long prompt",
                "negative prompt",
                "77 tokens",
                "BREAK",
                "lpw",
                "prompt chunks",
            ],
            inputs=[
                io.Clip.Input("clip", tooltip="The text encoder, from a checkpoint or CLIP loader."),
                io.String.Input(
                    "text",
                    multiline=True,
                    dynamic_prompts=True,
                    tooltip="The prompt, up to 200,000 characters. embedding:name puts in a textual inversion, "
                    "which the readout names if it is left out.",
                ),
                io.Combo.Input(
                    "layout",
                    options=list(LAYOUTS),
                    default="llmga",
                    optional=True,
                    tooltip="llmga: as LLMGA was trained, 75·n + 2 rows; best for its UNets. llmga_lpw: as "
                    "LLMGA's SD1.5 pipelines run, 77·n rows; on SDXL the same as llmga, which LLMGA's SDXL "
                    "pipelines use. host: exactly ComfyUI's CLIP Text Encode; break_at, max_chunks and "
                    "break_word have no effect.",
                ),
                io.Boolean.Input(
                    "weights",
                    default=False,
                    optional=True,
                    tooltip="Off: brackets are text, which is what a language model means by them. On: "
                    "(word:1.2) changes emphasis, read as A1111 does in the LLMGA layouts (SD1.5 only) and "
                    "as ComfyUI does in host.",
                ),
                io.Combo.Input(
                    "break_at",
                    options=list(get_args(BreakAt)),
                    default="hard",
                    optional=True,
                    advanced=True,
                    tooltip="hard: cut every 75 tokens, as LLMGA does. sentence: a sentence that would be "
                    "cut moves to the next chunk, if it fits one; this can use more chunks.",
                ),
                io.Int.Input(
                    "max_chunks",
                    default=TRAINED_CHUNKS,
                    optional=True,
                    advanced=True,
                    min=1,
                    max=MAX_CHUNKS,
                    tooltip="Text beyond this many chunks of 75 tokens is left out, and the readout says "
                    f"what; 1 to {MAX_CHUNKS}. LLMGA was trained on up to 4; its SD1.5 text-to-image runs "
                    "with 3.",
                ),
                io.Int.Input(
                    "min_chunks",
                    default=1,
                    optional=True,
                    advanced=True,
                    min=1,
                    max=MAX_CHUNKS,
                    tooltip=f"Shorter prompts are padded with empty chunks to this many, 1 to {MAX_CHUNKS}; "
                    "LLMGA's training padded short prompts to the longest of their batch.",
                ),
                io.Combo.Input(
                    "empty_negative",
                    options=list(EMPTY_NEGATIVE),
                    default="auto",
                    optional=True,
                    advanced=True,
                    tooltip="What an empty negative prompt becomes. encode: the encoding of nothing. "
                    "zeros: zeros, with the positive's shape. auto: zeros for SDXL in the LLMGA layouts, "
                    "as its pipelines do, else encode.",
                ),
                io.Boolean.Input(
                    "match_chunks",
                    default=True,
                    optional=True,
                    advanced=True,
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
                io.Boolean.Input(
                    "break_word",
                    default=False,
                    optional=True,
                    advanced=True,
                    tooltip="On: the word BREAK, in capitals, starts a new chunk in the LLMGA layouts, as in A1111. Off: it "
                    "is a word like others, as for LLMGA's own encoders.",
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
    def fingerprint_inputs(cls, **inputs) -> str:
        return embeddings.fingerprint(inputs)

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
        break_word=False,
    ) -> io.NodeOutput:
        negative_text = check.optional_text("negative_text", negative_text)
        texts = {"text": check.text("text", text), "negative_text": negative_text}
        check.choice("layout", layout, LAYOUTS)
        check.flag("weights", weights)
        check.choice("break_at", break_at, get_args(BreakAt))
        check.integer("max_chunks", max_chunks, 1, MAX_CHUNKS)
        check.integer("min_chunks", min_chunks, 1, MAX_CHUNKS)
        check.choice("empty_negative", empty_negative, EMPTY_NEGATIVE)
        check.flag("match_chunks", match_chunks)
        break_word = check.flag("break_word", False if break_word is None else break_word)
        encoders = clip_encoders(clip)
        # LLMGA's SDXL pipelines force zeros for an empty negative prompt.
        forced = empty_negative == "auto" and "g" in encoders and layout != "host"
        zeros = not negative_text.strip() and (forced or empty_negative == "zeros")
        if zeros:
            del texts["negative_text"]
        # CLIP Text Encode reads weights always where no layout applies.
        notes = [
            embeddings.left_out(clip, name, each, weights or not encoders) for name, each in texts.items()
        ]
        if not encoders:
            encoded = [
                (encode_tokens(clip, name, embeddings.tokenize(clip, name, each)), NOT_CLIP)
                for name, each in texts.items()
            ]
        elif layout == "host":
            encoded = encode_host(clip, texts, weights, min_chunks, match_chunks)
        else:
            encoder = HostPromptEncoder(clip, encoders, layout, max_chunks)
            encoded = encode_llmga(
                encoder, [*texts.values()], weights, break_at, min_chunks, match_chunks, break_word
            )
            if not break_word:
                for lines, each in zip(notes, texts.values(), strict=True):
                    lines += [BREAK_IS_A_WORD] * has_break(each)
        if zeros:
            encoded.append((zeros_like(encoded[0][0]), "zeros"))
            notes.append([])
        readouts = [
            "\n".join([f"{name}: {line}", *lines])
            for name, (_, line), lines in zip(("positive", "negative"), encoded, notes, strict=True)
        ]
        (positive, _), (negative, _) = encoded
        report = "\n".join([*([] if text.strip() else [EMPTY_POSITIVE]), *readouts])
        return io.NodeOutput(positive, negative, report, ui={"text": [report]})


def encode_llmga(
    encoder: HostPromptEncoder,
    texts: list[str],
    weights: bool,
    break_at: BreakAt,
    min_chunks: int,
    match_chunks: bool,
    break_word: bool = False,
) -> list[tuple[Conditioning, str]]:
    """In LLMGA's layouts, with a readout of each prompt."""
    if encoder.is_sdxl and weights:
        raise ValueError("weights: LLMGA's SDXL layouts have none; turn weights off or set layout to host")
    prompts = [
        encoder.plan(text, weights=weights, break_at=break_at, break_word=break_word) for text in texts
    ]
    counts = chunk_counts([longest(plans) for plans in prompts], min_chunks, match_chunks)
    encoded = []
    for plans, count in zip(prompts, counts, strict=True):
        readouts = dict.fromkeys(readout(plan.padded(count)) for plan in plans.values())
        encoded.append((encoder.encode(plans, count), "\nsecond encoder: ".join(readouts)))
    return encoded


def encode_host(
    clip: Any, texts: dict[str, str], weights: bool, min_chunks: int, match_chunks: bool
) -> list[tuple[Conditioning, str]]:
    """CLIP Text Encode's own tokens; only a prompt that must become longer gets chunks of padding."""
    options = {"return_word_ids": True, **({} if weights else {"disable_weights": True})}
    tokens = {name: embeddings.tokenize(clip, name, text, **options) for name, text in texts.items()}
    sizes = [min(len(chunks) for chunks in each.values()) for each in tokens.values()]
    counts = chunk_counts(sizes, min_chunks, match_chunks)
    empty = clip.tokenize("")
    encoded = []
    for (name, each), size, count in zip(tokens.items(), sizes, counts, strict=True):
        length = sum(word != 0 for chunk in each["l"] for *_, word in chunk)
        pairs = {key: [[token[:2] for token in chunk] for chunk in chunks] for key, chunks in each.items()}
        if count > size:
            pairs = {key: chunks + empty[key] * (count - len(chunks)) for key, chunks in pairs.items()}
        line = f"{length} tokens in {size} chunks, {count - size} of padding, as CLIP Text Encode"
        encoded.append((encode_tokens(clip, name, pairs), line))
    return encoded


def chunk_counts(sizes: list[int], min_chunks: int, match_chunks: bool) -> list[int]:
    """How many chunks each prompt gets."""
    floor = max(min_chunks, *sizes) if match_chunks else min_chunks
    return [max(floor, size) for size in sizes]


NODES = [LongCLIPEncode]
