"""A prompt of four chunks in one encoder call against a call for each chunk: same rows, how much faster.

    python benchmarks/encode.py [rounds] [threads]

CLIP ViT-L/14's text model at full size with random weights. Through transformers in fp32, on the CPU and on a GPU
if there is one; through ComfyUI's own CLIP, as Long CLIP Encode calls it, where ``COMFYUI_PATH`` (or comfy-cli's
default workspace) holds one. The second row of each is a whole node: the prompt and its negative at one length, where
equal chunks of padding are encoded once. The two ways alternate within each round, medians over the rounds.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from types import SimpleNamespace

import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from support import comfy_inprocess  # noqa: E402

from llmga.text import chunk_ids, clip_tokenizer, encode_sd15, join_chunks, plan_prompt  # noqa: E402

Encode = Callable[[list[list[int]]], torch.Tensor]
"""n × 77 ids to (n, 77, 768)."""
Ways = tuple[Callable[[], torch.Tensor], Callable[[], torch.Tensor]]
"""Ours, and chunk by chunk."""

PROMPT = "an old stone bridge over a quiet river at dawn, mist between the willows, " * 20
NEGATIVE = "blurry, low quality, watermark"


def transformers_ways(device: str) -> tuple[Ways, Ways]:
    from transformers import CLIPTextConfig, CLIPTextModel

    torch.manual_seed(0)
    sizes = {
        "hidden_size": 768,
        "intermediate_size": 3072,
        "num_attention_heads": 12,
        "num_hidden_layers": 12,
    }
    net = CLIPTextModel(CLIPTextConfig(**sizes, vocab_size=49408)).eval().to(device)
    tokenizer = clip_tokenizer()

    def node() -> torch.Tensor:
        return encode_sd15(tokenizer, net, [PROMPT, NEGATIVE]).cpu()  # .cpu() waits for a GPU

    return ways(lambda ids: net(torch.tensor(ids, device=device))[0].cpu(), node)


def comfy_ways() -> tuple[Ways, Ways]:
    """A CLIP in the types that ComfyUI itself chooses (on the CPU: half-precision weights, cast in every call)."""
    import comfy.sd
    import comfy.sd1_clip

    torch.manual_seed(0)
    target = SimpleNamespace(
        params={}, clip=comfy.sd1_clip.SD1ClipModel, tokenizer=comfy.sd1_clip.SD1Tokenizer
    )
    clip = comfy.sd.CLIP(target)
    for parameter in clip.cond_stage_model.parameters():
        torch.nn.init.normal_(parameter, std=0.02)
    execute = comfy_inprocess.pack("nodes.encode").LongCLIPEncode.execute
    widgets = {"weights": False, "break_at": "hard", "max_chunks": 4, "min_chunks": 1, "match_chunks": True}

    def encode(ids: list[list[int]]) -> torch.Tensor:
        tokens = {"l": [[(i, 1.0) for i in row] for row in ids]}
        return clip.encode_from_tokens_scheduled(tokens)[0][0].unflatten(1, (-1, 77))[0]

    def node() -> torch.Tensor:
        output = execute(clip, PROMPT, "llmga", empty_negative="encode", negative_text=NEGATIVE, **widgets)
        return torch.cat([output[0][0][0], output[1][0][0]])

    return ways(encode, node)


def ways(encode: Encode, node: Callable[[], torch.Tensor]) -> tuple[Ways, Ways]:
    tokenizer = clip_tokenizer()
    texts = (PROMPT, NEGATIVE)
    plans = [
        plan_prompt(text, lambda part: tokenizer(part, add_special_tokens=False, verbose=False).input_ids)
        for text in texts
    ]
    count = max(len(each.chunks) for each in plans)
    prompt, negative = (
        [chunk_ids(chunk, pad=49407) for chunk in each.padded(count).chunks] for each in plans
    )

    def one_by_one(chunks: list[list[int]]) -> torch.Tensor:
        return join_chunks(torch.cat([encode([chunk]) for chunk in chunks])[None], "llmga")

    return (
        (lambda: join_chunks(encode(prompt)[None], "llmga"), lambda: one_by_one(prompt)),
        (node, lambda: torch.cat([one_by_one(prompt), one_by_one(negative)])),
    )


@torch.no_grad()
def compare(name: str, pair: Ways, rounds: int) -> str:
    ours, chunk_by_chunk = pair
    difference = (ours() - chunk_by_chunk()).abs().max().item()  # and a first, untimed run of both
    times: list[tuple[float, float]] = []
    for _ in range(rounds):
        start = time.perf_counter()
        ours()
        between = time.perf_counter()
        chunk_by_chunk()
        times.append((between - start, time.perf_counter() - between))
    fast, slow = (1000 * median(column) for column in zip(*times, strict=True))
    return f"{name:<44}{fast:>10.1f}{slow:>16.1f}{slow / fast:>9.2f}x{difference:>16.1e}"


def main(rounds: int = 15, threads: int = 2) -> None:
    torch.set_num_threads(threads)
    print(f"CLIP-L, {threads} CPU threads, median of {rounds} rounds")
    print(f"{'':<44}{'ours, ms':>10}{'one by one, ms':>16}{'faster':>10}{'max difference':>16}")
    kinds = ["transformers, CPU"]
    encoders = [transformers_ways("cpu")]
    if torch.cuda.is_available():
        kinds.append(f"transformers, {torch.cuda.get_device_name()}")
        encoders.append(transformers_ways("cuda"))
    if comfy_inprocess.comfy_path() is None:
        print(comfy_inprocess.skip_reason())
    else:
        comfy_inprocess.start()
        torch.set_num_threads(threads)  # it asks for one
        kinds.append("ComfyUI")
        encoders.append(comfy_ways())
    for kind, (four, both) in zip(kinds, encoders, strict=True):
        print(compare(f"{kind}: four chunks", four, rounds))
        print(compare(f"{kind}: they and a short negative", both, rounds))


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
