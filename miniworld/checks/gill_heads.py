"""Ablation of GILL's generation head: each kind, trained on what the language model makes of captions, and painted."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from llmga.evaluate import Estimate, mean, write_json
from llmga.gill import GILL, GILLParts
from llmga.gill.heads import HEAD_KINDS, HeadKind
from llmga.train import train
from llmga.train.loop import LoopConfig, Metrics, Weights

from ..files import CHECKPOINT, READER
from ..models.gill import text_of
from ..models.narrow_taesd import narrowed
from ..models.painter import load_pipeline
from ..models.reader import load_reader
from ..models.sampling import PaintConfig, paint
from ..world.captions import caption_of
from ..world.dataset import Scenes
from ..world.scene import Scene, sample_scene
from .gill import columns, load_miniature_gill
from .painter import score, truth_of

RESULT = "check_gill_heads.json"
_AT_ONCE = 32  # captions that are read or encoded together


@dataclass(frozen=True)
class HeadsConfig(PaintConfig):
    captions: int = 8000
    """That the heads learn from, of scenes that the painter was trained on."""
    count: int = 96
    """Captions of held-out scenes that are painted."""
    training: LoopConfig = field(
        default_factory=lambda: LoopConfig(
            steps=1500, batch=64, micro_batch=64, lr=2e-3, schedule="cosine", warmup=100, betas=(0.9, 0.95),
            mixed_precision="no", cpu=True, log_every=50, save_every=500,
        )
    )  # fmt: skip


@dataclass(frozen=True)
class CaptionStates:
    """[IMG] states (N, tokens, language) of captions and what the painter's text encoder makes of them (N, rows, text)."""

    states: torch.Tensor
    targets: torch.Tensor


class HeadTrainer:
    """The trainer (see ``llmga.train.loop.Trainer``) of a generation head alone, by the distance that GILL trains it with.

    The [IMG] rows stay those that were trained with the mapper: what differs between the heads is the head.
    """

    def __init__(self, parts: GILLParts, data: CaptionStates) -> None:
        self.parts, self.data = parts, data

    def __len__(self) -> int:
        return len(self.data.states)

    def modules(self) -> Mapping[str, nn.Module]:
        return {"head": self.parts.generation_head}

    def prepare(self, device: torch.device, rank: int, world: int, barrier: Callable[[], None]) -> None:
        self.parts.to(device)
        self.device = device

    def batch(self, indices: torch.Tensor, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        return self.data.states[indices].to(self.device), self.data.targets[indices].to(self.device)

    def loss(
        self, inputs: tuple[torch.Tensor, torch.Tensor], generator: torch.Generator
    ) -> tuple[torch.Tensor, Metrics]:
        states, targets = inputs
        distance = (targets - self.parts.conditioning(states)).norm(dim=-1).mean()
        return distance, {"distance": distance}

    def sample(self, step: int, folder: Path) -> None:
        """Nothing: the heads are painted when all are trained."""

    def export(self, folder: Path, weights: Weights) -> None:
        """Nothing but the parts in memory are used."""
        self.parts.generation_head.load_state_dict(weights["head"])


def check_heads(
    out: Path, config: HeadsConfig, work: Path, heads: tuple[HeadKind, ...] = HEAD_KINDS
) -> dict[str, dict[str, Estimate]]:
    """Train each kind of head from nothing and paint held-out captions with it; writes ``check_gill_heads.json``.

    Args:
        work: the folder of the trainings, which go on where they were.

    Returns:
        By row, what the reader finds, and the distance of the text states from the caption's own. The first row is the
        caption as a prompt.

    Raises:
        FileNotFoundError: one of the miniature's files is missing.
    """
    gill, pipeline, reader = (
        load_miniature_gill(out),
        load_pipeline(out / CHECKPOINT),
        load_reader(out / READER),
    )
    narrowed(pipeline.vae)
    learned = Scenes(config.captions, 1, 1.0)
    data = caption_states(gill, pipeline, [learned[i] for i in range(config.captions)])
    scenes = [sample_scene(config.seed * 10_000_000 + i, (1, 3), "validation") for i in range(config.count)]
    asked, truth = caption_states(gill, pipeline, scenes), truth_of(scenes)
    captions = [caption_of(scene) for scene in scenes]
    contexts: dict[str, torch.Tensor] = {"prompt": asked.targets}
    for head in heads:
        parts = with_head(gill.parts, head, config.training.seed)
        train(HeadTrainer(parts, data), config.training, work / head)
        with torch.no_grad():
            contexts[head] = parts.eval().conditioning(asked.states)
    results = {}
    for name, context in contexts.items():
        painted = paint(pipeline, captions, config, contexts=context)
        distances = (context - asked.targets).norm(dim=-1).mean(1)
        results[name] = columns(score(reader.read(painted), truth)) | {"distance": mean(distances.tolist())}
    write_json(out / RESULT, {"config": config, "results": results})
    return results


def with_head(parts: GILLParts, head: HeadKind, seed: int) -> GILLParts:
    """A copy of trained parts with an untrained generation head of this kind."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        made = GILLParts(replace(parts.sizes, head=head))
    others = {k: v for k, v in parts.state_dict().items() if not k.startswith("generation_head.")}
    made.load_state_dict(others, strict=False)
    return made


@torch.no_grad()
def caption_states(gill: GILL, pipeline: Any, scenes: list[Scene]) -> CaptionStates:
    """The two ends of the generation head, of the scenes' captions."""
    captions, text = [caption_of(scene) for scene in scenes], text_of(pipeline)
    parts = [captions[i : i + _AT_ONCE] for i in range(0, len(captions), _AT_ONCE)]
    states = torch.stack([gill.picture_states([caption]) for caption in captions])
    return CaptionStates(states, torch.cat([text(part) for part in parts]))
