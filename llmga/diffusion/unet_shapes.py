"""Every weight that a Stable Diffusion UNet must have, by name and shape, from its sizes alone."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

Shape = tuple[int, ...]
Shapes = Mapping[str, Shape]


@dataclass(frozen=True)
class Sizes:
    """The sizes of a UNet in diffusers' terms, one entry per level where it says so."""

    widths: tuple[int, ...]
    """Channels of each level."""
    depths: tuple[int, ...]
    """Transformer blocks in each attention of a level; 0 is a level without attention."""
    layers: int
    """Residual blocks of a level on the way down; on the way up there is one more."""
    context: int
    """Width of the text's rows."""
    channels: int
    """Of the input: 4, or 9 with a mask and a masked picture."""
    pooled: int = 0
    """Width of SDXL's further condition, 0 for SD1.5."""


SD15 = Sizes((320, 640, 1280, 1280), (1, 1, 1, 0), 2, 768, 4)
SDXL = Sizes((320, 640, 1280), (0, 2, 10), 2, 2048, 4, 2816)


def shapes(sizes: Sizes) -> dict[str, Shape]:
    """The state dict's names and shapes, as ``UNet2DConditionModel`` has them.

    Source: diffusers ``unet_2d_condition.py``, ``unet_2d_blocks.py``; a test holds the two together.
    """
    return dict(_weights(sizes))


def _weights(s: Sizes) -> Iterator[tuple[str, Shape]]:
    first, time = s.widths[0], 4 * s.widths[0]
    yield from _layer("conv_in", first, s.channels, 3, 3)
    yield from _layer("time_embedding.linear_1", time, first)
    yield from _layer("time_embedding.linear_2", time, time)
    if s.pooled:
        yield from _layer("add_embedding.linear_1", time, s.pooled)
        yield from _layer("add_embedding.linear_2", time, time)
    skips, last = [first], len(s.widths) - 1
    for level, (width, depth) in enumerate(zip(s.widths, s.depths, strict=True)):
        at = f"down_blocks.{level}"
        for i in range(s.layers):
            yield from _residual(f"{at}.resnets.{i}", skips[-1], width, time)
            yield from _attention(f"{at}.attentions.{i}", width, depth, s)
            skips.append(width)
        if level < last:
            yield from _layer(f"{at}.downsamplers.0.conv", width, width, 3, 3)
            skips.append(width)
    width = s.widths[-1]
    for i in range(2):
        yield from _residual(f"mid_block.resnets.{i}", width, width, time)
    yield from _attention("mid_block.attentions.0", width, s.depths[-1] or 1, s)
    for block, level in enumerate(reversed(range(len(s.widths)))):
        at = f"up_blocks.{block}"
        for i in range(s.layers + 1):
            yield from _residual(f"{at}.resnets.{i}", width + skips.pop(), s.widths[level], time)
            width = s.widths[level]
            yield from _attention(f"{at}.attentions.{i}", width, s.depths[level], s)
        if level:
            yield from _layer(f"{at}.upsamplers.0.conv", width, width, 3, 3)
    yield from _layer("conv_norm_out", first)
    yield from _layer("conv_out", 4, first, 3, 3)


def _layer(name: str, out: int, *rest: int) -> Iterator[tuple[str, Shape]]:
    yield f"{name}.weight", (out, *rest)
    yield f"{name}.bias", (out,)


def _residual(name: str, taken: int, given: int, time: int) -> Iterator[tuple[str, Shape]]:
    yield from _layer(f"{name}.norm1", taken)
    yield from _layer(f"{name}.conv1", given, taken, 3, 3)
    yield from _layer(f"{name}.time_emb_proj", given, time)
    yield from _layer(f"{name}.norm2", given)
    yield from _layer(f"{name}.conv2", given, given, 3, 3)
    if taken != given:
        yield from _layer(f"{name}.conv_shortcut", given, taken, 1, 1)


def _attention(name: str, width: int, depth: int, s: Sizes) -> Iterator[tuple[str, Shape]]:
    if not depth:
        return
    ends = () if s.pooled else (1, 1)  # SDXL's projections are linear, SD1.5's are 1×1 convolutions
    yield from _layer(f"{name}.norm", width)
    yield from _layer(f"{name}.proj_in", width, width, *ends)
    for i in range(depth):
        block = f"{name}.transformer_blocks.{i}"
        for norm in ("norm1", "norm2", "norm3"):
            yield from _layer(f"{block}.{norm}", width)
        for kind, source in (("attn1", width), ("attn2", s.context)):
            yield f"{block}.{kind}.to_q.weight", (width, width)
            yield f"{block}.{kind}.to_k.weight", (width, source)
            yield f"{block}.{kind}.to_v.weight", (width, source)
            yield from _layer(f"{block}.{kind}.to_out.0", width, width)
        yield from _layer(f"{block}.ff.net.0.proj", 8 * width, width)
        yield from _layer(f"{block}.ff.net.2", width, 4 * width)
    yield from _layer(f"{name}.proj_out", width, width, *ends)


_DEPTH = re.compile(r"(down|up)_blocks\.(\d{1,2})\.attentions\.\d{1,2}\.transformer_blocks\.(\d{1,3})\.")
_LEVEL = re.compile(r"(down|up)_blocks\.(\d{1,2})\.resnets\.(\d{1,2})\.conv2\.weight")


def measured(found: Shapes) -> Sizes | None:
    """The sizes of a UNet of any width, from what there is of it under diffusers' names; None where too little is left.

    What stands on both ways, down and up, is looked for on both: half of a file does not pass for a whole of less.
    """
    levels = {(m[1], int(m[2]), int(m[3])): found[name] for name in found if (m := _LEVEL.fullmatch(name))}
    context = next((s[1] for name, s in found.items() if name.endswith(".attn2.to_k.weight")), None)
    stem = found.get("conv_in.weight")
    if not levels or context is None or stem is None:
        return None
    count = 1 + max(level for _, level, _ in levels)
    widths, depths = [0] * count, [0] * count
    for (way, level, _), shape in levels.items():
        widths[level if way == "down" else count - 1 - level] = shape[0]
    for match in map(_DEPTH.match, found):
        if match:
            level = int(match[2]) if match[1] == "down" else count - 1 - int(match[2])
            depths[level] = max(depths[level], 1 + int(match[3]))
    layers = max(index + (way == "down") for way, _, index in levels)
    pooled = found.get("add_embedding.linear_1.weight", (0, 0))[1]
    if 0 in widths:
        return None
    return Sizes(tuple(widths), tuple(depths), layers, context, stem[1], pooled)
