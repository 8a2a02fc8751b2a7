"""The miniature's language model, from nothing: words, eyes, then stage 1 with the eyes frozen.

The eyes are a CLIP-style tower that learns to name what stands where (a stand-in for CLIP's own training). Then the
real stage 1 trains projector and decoder together on conversations; a projector phase of its own would teach little,
for the decoder is as new as the projector.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from ..chat.tasks import SYSTEM_PROMPT
from ..train import LoopConfig, Metrics, Weights, train
from ..train.stage1 import Stage1, Stage1Config
from ..train.turns import IGNORED, Inputs, TurnEncoder
from .chat_folder import TOWER, new_llava, new_tower, write_processor
from .dataset import ATTRIBUTES, Painted, Scenes, as_images, in_processes, painted
from .dialogues import Shown, Talk
from .records import sample_hole
from .world import BACKGROUNDS, PLACES, SIDES, TONES, choose

_HOLES = 512
_TEXTS = 3000  # conversations that the words are taken from


@dataclass(frozen=True)
class LanguageConfig:
    scenes: Scenes
    dialogues: int
    eyes: LoopConfig
    loop: LoopConfig
    max_length: int = 1280
    """Tokens of a training conversation."""
    exchanges: int = 8
    """The most that one has."""
    workers: int = 0
    """Processes that write conversations; 0 takes one per core."""


def train_language(out: Path, config: LanguageConfig, cache: Path) -> Path:
    """Train everything from nothing, or go on where it was left.

    Args:
        out: gets ``processor/``, ``eyes/`` and ``stage1/``.
        cache: the folder that painted scenes are kept in.

    Returns:
        The finished model, a transformers folder in float16.
    """
    processor_folder = out / "processor"
    if not (processor_folder / "tokenizer.json").exists():
        texts = in_processes(partial(_texts, config), min(_TEXTS, config.dialogues), config.workers, "words")
        write_processor(processor_folder, texts)
    pictures = painted(config.scenes, cache, config.workers)
    eyes = out / "eyes" / "result"
    if not eyes.exists():
        train(EyesTrainer(config.eyes, pictures), config.eyes, out / "eyes")
    rows = in_processes(
        partial(_rows, config, processor_folder), config.dialogues, config.workers, "conversations"
    )
    encoder = _encoder(processor_folder, config.max_length)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.loop.seed)
        net = new_llava(encoder.processor.tokenizer)
    _give_eyes(net, eyes / "tower.safetensors")
    stage1 = Stage1Config(config.loop, max_length=config.max_length, export_dtype="float16")
    result = train(
        Stage1(stage1, net, encoder.processor, Dialogues(rows, pictures, encoder)),
        config.loop,
        out / "stage1",
    )
    # In the form that every transformers reads, instead of the installed version's.
    for path in processor_folder.iterdir():
        shutil.copyfile(path, result / path.name)
    (result / "chat_template.jinja").unlink(missing_ok=True)
    return result


@dataclass(frozen=True)
class Row:
    """A tokenised conversation: its tokens (T,), which of them are learned, and its pictures."""

    ids: np.ndarray
    learned: np.ndarray
    pictures: tuple[Shown, ...]


class Dialogues:
    """Conversations as stage 1 takes them (see ``stage1.Conversations``), with the pictures on the device."""

    def __init__(self, rows: Sequence[Row], source: Painted, encoder: TurnEncoder) -> None:
        self._rows, self._pad = rows, encoder.pad_id
        self._pictures = torch.from_numpy(source.pictures)
        holes = sorted(
            {(shown.hole, shown.hole_seed) for row in rows for shown in row.pictures if shown.hole}
        )
        self._hole_numbers = {hole: i + 1 for i, hole in enumerate(holes)}
        made = [np.zeros((1, 128, 128), bool), *(sample_hole(kind, seed)[None] for kind, seed in holes)]  # type: ignore[arg-type]
        self._holes = torch.from_numpy(np.concatenate(made))

    def __len__(self) -> int:
        return len(self._rows)

    def batch(self, indices: torch.Tensor, device: torch.device) -> Inputs:
        if self._pictures.device != device:
            self._pictures, self._holes = self._pictures.to(device), self._holes.to(device)
        rows = [self._rows[i] for i in indices.tolist()]
        ids = np.full((len(rows), max(len(row.ids) for row in rows)), self._pad, np.int64)
        labels = np.full_like(ids, IGNORED)
        for i, row in enumerate(rows):
            ids[i, : len(row.ids)] = row.ids
            labels[i, : len(row.ids)][row.learned] = row.ids[row.learned]
        shown = [picture for row in rows for picture in row.pictures]
        holes = [self._hole_numbers.get((picture.hole, picture.hole_seed), 0) for picture in shown]
        pixels = self._pictures[torch.tensor([p.scene for p in shown], dtype=torch.int64, device=device)]
        hidden = self._holes[torch.tensor(holes, dtype=torch.int64, device=device)]
        images = as_images(pixels.masked_fill(hidden[..., None], 0))
        return Inputs(torch.from_numpy(ids).to(device), torch.from_numpy(labels).to(device), images)


class EyesTrainer:
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
    """Linear readings of the patches (B, 64, d): at each place its own mean of them, and one mean of all."""

    def __init__(self) -> None:
        super().__init__()
        width = TOWER["hidden_size"]
        # At first each place looks around itself: from an even look, colours are found only after long.
        side = TOWER["image_size"] // TOWER["patch_size"]
        at = (torch.arange(side) + 0.5) * TOWER["patch_size"]
        x, y = torch.meshgrid(at, at, indexing="xy")
        far = [((x - px) ** 2 + (y - py) ** 2).flatten() for px, py in PLACES.values()]
        self.look = nn.Parameter(-torch.stack(far) / (2 * TOWER["patch_size"] ** 2))
        values = {name: len(words) for name, words in ATTRIBUTES.items()} | {"present": 2}
        self.things = nn.ModuleDict({name: nn.Linear(width, count) for name, count in values.items()})
        wholes = {"background": len(BACKGROUNDS), "tone": len(TONES), "light": len(SIDES)}
        self.wholes = nn.ModuleDict({name: nn.Linear(width, count) for name, count in wholes.items()})

    def forward(
        self, seen: torch.Tensor, labels: torch.Tensor
    ) -> list[tuple[str, torch.Tensor, torch.Tensor]]:
        """(name, logits (N, C), wanted (N,)) of each head; labels are those of ``labels_of``, tone and light."""
        at_places = self.look.softmax(-1).to(seen) @ seen  # (B, 9, d)
        things = labels[:, : 4 * len(PLACES)].unflatten(1, (len(PLACES), 4))
        out = []
        wanted = torch.cat([things, things[..., :1].ge(0).long()], -1)
        for i, (name, head) in enumerate(self.things.items()):
            out.append((name, head(at_places).flatten(0, 1), wanted[..., i].flatten()))
        for i, (name, head) in enumerate(self.wholes.items()):
            out.append((name, head(seen.mean(1)), labels[:, 4 * len(PLACES) + i]))
        return out


def _give_eyes(net: Any, path: Path) -> None:
    from safetensors.torch import load_file

    tower = next(module for name, module in net.named_modules() if name.rpartition(".")[2] == "vision_tower")
    tower.load_state_dict(load_file(path))


@lru_cache(maxsize=1)
def _encoder(folder: Path, max_length: int) -> TurnEncoder:
    from transformers import AutoProcessor

    return TurnEncoder(AutoProcessor.from_pretrained(folder, local_files_only=True), max_length)


def _texts(config: LanguageConfig, part: range) -> list[str]:
    texts = []
    for i in part:
        talk = Talk(config.scenes, i)
        exchanges = [talk.next() for _ in range(config.exchanges)]
        said = "".join(f"USER: {e.asked} ASSISTANT: {e.reply}" for e in exchanges)
        texts.append(f"{SYSTEM_PROMPT.splitlines()[0]} USER: \n{said}")
    return texts


def _rows(config: LanguageConfig, processor_folder: Path, part: range) -> list[Row]:
    encoder = _encoder(processor_folder, config.max_length)
    rows = []
    for i in part:
        talk = Talk(config.scenes, i)
        exchanges = [talk.next() for _ in range(choose(range(1, config.exchanges + 1), i, "exchanges"))]
        system = choose((SYSTEM_PROMPT, SYSTEM_PROMPT, SYSTEM_PROMPT, ""), i, "system")
        ids, labels = encoder.tokens([turn for exchange in exchanges for turn in exchange.turns], system)
        pictures = tuple(exchange.shown for exchange in exchanges if exchange.shown)
        learned = np.array(labels) != IGNORED
        rows.append(Row(np.array(ids, np.uint16), learned, pictures[: encoder.pictures_in(ids)]))
    return rows
