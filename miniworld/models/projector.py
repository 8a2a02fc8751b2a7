"""Before any conversation, the projector learns to say each patch in words: the sum of what stands there and where.

LLaVA's stage 0 aligns the projector with a language model that can talk. Here that one is as new as the projector, and
its word embeddings are all there is to align with. It is enough: to copy a word from a picture is then what it is to
copy one from a text.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from llmga.train.example_order import generator

from ..world.dataset import ATTRIBUTES, Painted, as_images
from ..world.scene import BACKGROUNDS, PLACES, SIDES, TONES
from .vision import HUBS

_PICTURES, _BATCH, _RATE = 6000, 32, 2e-3
_OTHERS = [i for i in range(36) if i not in HUBS]


def align(net: Any, tokenizer: Any, source: Painted, steps: int, seed: int) -> float:
    """Train the projector of a new LLaVA alone, with its vision tower and word embeddings frozen.

    Returns:
        The part of the targets' variance that it leaves unexplained, over the last batches.
    """
    parts = {name.rpartition(".")[2]: module for name, module in net.named_modules()}
    tower, projector = parts["vision_tower"], parts["multi_modal_projector"]
    count = min(_PICTURES, len(source.pictures))
    seen = torch.cat([_seen(tower, source, part) for part in torch.arange(count).split(100)])
    say = _saying(tokenizer, net.get_input_embeddings().weight.detach(), source, count)
    with torch.no_grad():  # The tower's outputs are large, and a layer of small weights learns them slowly.
        projector.linear_1.weight.div_(seen.std())
    optimizer = torch.optim.Adam(projector.parameters(), lr=_RATE)
    draws, left = generator(seed, "align"), 1.0
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = _RATE * (1 - step / steps)
        part = torch.randint(count, (_BATCH,), generator=draws)
        wanted, got = say(part), projector(seen[part])
        lost = [(got - wanted)[:, i].square().mean() / wanted[:, i].var() for i in (HUBS, _OTHERS)]
        loss = torch.stack(lost).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        left += 0.02 * (loss.item() - left)
    optimizer.zero_grad()
    return left


def _saying(
    tokenizer: Any, words: torch.Tensor, source: Painted, count: int
) -> Callable[[torch.Tensor], torch.Tensor]:
    """From the numbers of pictures (B,), below ``count``, to what their patches are to say (B, 36, d)."""

    def of(*texts: str) -> torch.Tensor:
        ids = [tokenizer(f" {text}", add_special_tokens=False)["input_ids"] for text in texts]
        return torch.stack([words[i].sum(0) for i in ids])

    values, places, nothing = [of(*names) for names in ATTRIBUTES.values()], of(*PLACES), of("nothing")
    backgrounds, tones, sides = of(*BACKGROUNDS), of(*TONES), of(*SIDES)
    scenes = [source.scenes[i] for i in range(count)]
    light = torch.tensor([(TONES.index(scene.tone), SIDES.index(scene.light)) for scene in scenes])
    labels = torch.from_numpy(source.labels[:count]).long()

    def say(indices: torch.Tensor) -> torch.Tensor:
        whole = backgrounds[labels[indices, -1]] + tones[light[indices, 0]]  # (B, d)
        things = labels[indices, :-1].unflatten(1, (len(PLACES), len(ATTRIBUTES)))
        named = torch.stack([v[things[..., i].clamp(min=0)] for i, v in enumerate(values)]).sum(0)
        out = whole[:, None].repeat(1, len(HUBS) + len(_OTHERS), 1)
        out[:, -1] += sides[light[indices, 1]]  # by one patch only, for "left" is a place too
        out[:, HUBS] = torch.where(things[..., :1] >= 0, named, nothing) + places
        return out

    return say


@torch.no_grad()
def _seen(tower: Any, source: Painted, part: torch.Tensor) -> torch.Tensor:
    images = as_images(torch.from_numpy(source.pictures[part.numpy()]))
    return tower(pixel_values=images, output_hidden_states=True).hidden_states[-1][:, 1:]
