"""Vision tower of the miniature: CLIP-style, trained to name what stands where in place of CLIP's own training."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from llmga.train import LoopConfig, Metrics, Weights

from ..world.dataset import ATTRIBUTES, Painted, as_images
from ..world.records import sample_hole
from ..world.scene import BACKGROUNDS, PLACES, SIDES, TONES
from .chat_folder import TOWER, new_tower

_HOLES = 512
_PATCH = TOWER["patch_size"]
_SIDE = TOWER["image_size"] // _PATCH
HUBS = [(round(y / _PATCH) - 1) * _SIDE + round(x / _PATCH) - 1 for x, y in PLACES.values()]
"""The patch that tells what stands at each place: the upper left of the four that meet at its centre."""


class VisionTrainer:
    """The trainer (see ``loop.Trainer``) of the vision tower: what stands at each place, background and light.

    A quarter of the pictures has a hole, as in- and outpainting show.
    """

    def __init__(self, config: LoopConfig, source: Painted) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            self.tower, self.heads = new_tower(), Heads()
        self._pictures = torch.from_numpy(source.pictures)
        scenes = source.scenes
        light = [(TONES.index(s.tone), SIDES.index(s.light)) for s in (scenes[i] for i in range(len(scenes)))]
        self._labels = torch.cat([torch.from_numpy(source.labels[:]).long(), torch.tensor(light)], 1)
        kinds = ("inpaint", "outpaint")
        self._holes = torch.from_numpy(np.stack([sample_hole(kinds[i % 2], i) for i in range(_HOLES)]))

    def __len__(self) -> int:
        return len(self._pictures)

    def modules(self) -> Mapping[str, nn.Module]:
        return {"tower": self.tower, "heads": self.heads}

    def prepare(self, device: torch.device, rank: int, world: int, barrier: Callable[[], None]) -> None:
        self._pictures, self._labels = self._pictures.to(device), self._labels.to(device)
        self._holes = self._holes.to(device)

    def batch(self, indices: torch.Tensor, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        cut = torch.rand(len(indices), generator=generator) < 0.25
        holes = torch.randint(_HOLES, (len(indices),), generator=generator)
        device = self._pictures.device
        hidden = self._holes[holes.to(device)] & cut.to(device)[:, None, None]
        indices = indices.to(device)
        return as_images(self._pictures[indices].masked_fill(hidden[..., None], 0)), self._labels[indices]

    def loss(
        self, inputs: tuple[torch.Tensor, torch.Tensor], generator: torch.Generator
    ) -> tuple[torch.Tensor, Metrics]:
        images, labels = inputs
        seen = self.tower(pixel_values=images, output_hidden_states=True).hidden_states[-1][:, 1:]
        total, right = seen.new_zeros(()).float(), {}
        for name, logits, wanted in self.heads(seen, labels):
            total = total + F.cross_entropy(logits.float(), wanted, ignore_index=-1)
            known = wanted >= 0
            right[name] = ((logits.argmax(-1) == wanted) & known).sum() / known.sum().clamp(min=1)
        return total, right

    def sample(self, step: int, folder: Path) -> None:
        """There is nothing to look at."""

    def export(self, folder: Path, weights: Weights) -> None:
        """``tower.safetensors``; the heads have done their duty."""
        from safetensors.torch import save_file

        save_file(weights["tower"], folder / "tower.safetensors")


class Heads(nn.Module):
    """Linear readings of the patches (B, 36, d): of each place one patch, and of the whole the mean of all.

    One token tells all of a place. Each patch also says which one it is: unasked, the tower forgets that, and a decoder
    finds no place again.
    """

    def __init__(self) -> None:
        super().__init__()
        width = TOWER["hidden_size"]
        values = {name: len(words) for name, words in ATTRIBUTES.items()} | {"present": 2}
        self.things = nn.ModuleDict({name: nn.Linear(width, count) for name, count in values.items()})
        wholes = {"background": len(BACKGROUNDS), "tone": len(TONES), "light": len(SIDES)}
        self.wholes = nn.ModuleDict({name: nn.Linear(width, count) for name, count in wholes.items()})
        self.patch = nn.Linear(width, _SIDE**2)

    def forward(
        self, seen: torch.Tensor, labels: torch.Tensor
    ) -> list[tuple[str, torch.Tensor, torch.Tensor]]:
        """(name, logits (N, C), wanted (N,)) of each head; labels are those of ``labels_of``, tone and light."""
        at_places = seen[:, HUBS]  # (B, 9, d)
        things = labels[:, : 4 * len(PLACES)].unflatten(1, (len(PLACES), 4))
        out = []
        wanted = torch.cat([things, things[..., :1].ge(0).long()], -1)
        for i, (name, head) in enumerate(self.things.items()):
            out.append((name, head(at_places).flatten(0, 1), wanted[..., i].flatten()))
        for i, (name, head) in enumerate(self.wholes.items()):
            out.append((name, head(seen.mean(1)), labels[:, 4 * len(PLACES) + i]))
        which = torch.arange(seen.shape[1], device=seen.device).expand(len(seen), -1)
        return [*out, ("patch", self.patch(seen).flatten(0, 1), which.flatten())]
