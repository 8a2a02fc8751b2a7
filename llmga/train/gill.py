"""Train GILL: its three losses in one step, on frozen language and vision models."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn

from ..files.writing import write_text
from ..gill.checkpoint import save_parts
from ..gill.heads import HeadKind
from ..gill.language import FrozenLanguage, load_language
from ..gill.model import GILL
from ..gill.parts import GILLParts, GILLSizes
from ..gill.vision import FrozenVision, load_vision
from .cache import Table, TableRows, cache_folder, fill, open_table
from .components import load_components, weights_hash
from .config import check_samples
from .gill_data import CaptionedExamples, CaptionTable, StableDiffusionText, TextStates
from .gill_losses import Captions, GILLLossWeights, gill_losses, tokenise, total_loss
from .loop import LoopConfig, Metrics, Weights, train

GILL_RESULT = "gill.safetensors"
_AT_ONCE = 16
"""Captions in one encoder call while the cache is filled."""


@dataclass(frozen=True)
class CaptionsConfig:
    """See ``CaptionTable``."""

    table: Path
    root: Path


@dataclass(frozen=True)
class HeadConfig:
    """Sizes of what is trained; see ``GILLSizes``."""

    img_tokens: int = 8
    visual_tokens: int = 4
    retrieval: int = 256
    head: HeadKind = "gill_mapper"
    """What makes text states of the [IMG] tokens; the others are the paper's ablations."""
    grid: int = 0
    """0 takes the vision encoder's class token; else see ``FrozenVision.use_grid``."""
    width: int = 512
    layers: int = 4


@dataclass(frozen=True)
class GILLConfig:
    loop: LoopConfig
    language: Path | None = None
    """A transformers folder of the frozen language model; unused where it is passed in, as are the next three."""
    vision: Path | None = None
    """A transformers folder or a file of the frozen CLIP."""
    base: str = ""
    """A diffusers folder (or Hub name) of SD1.5, whose text encoder gives the targets."""
    captions: CaptionsConfig | None = None
    sizes: HeadConfig = field(default_factory=HeadConfig)
    weights: GILLLossWeights = field(default_factory=GILLLossWeights)
    max_length: int = 32
    """Tokens of a caption with its [IMG] tokens; longer ones are cut."""
    pairs: float = 0.5
    """How often two captions stand in one sequence, drawn for each loss."""
    cache: Path | None = None
    """The folder that keeps what the vision and text encoders give; None encodes in every step."""
    cache_in_memory: bool = False
    """Hold the whole cache on the device."""
    samples: int = 4
    """Pictures whose captions are written by ``sample_every``."""

    def __post_init__(self) -> None:
        check_samples(self)
        if not 0 <= self.pairs <= 1:
            raise ValueError(f"pairs is a probability, got {self.pairs}")
        if self.pairs and self.loop.micro_batch % 2:
            raise ValueError(
                f"captions stand in pairs: micro_batch must be even, got {self.loop.micro_batch}; or set pairs=0"
            )
        if self.cache_in_memory and not self.cache:
            raise ValueError("cache_in_memory needs cache, the folder it is read from")


class GILLPart(NamedTuple):
    """A part of a batch on the device; see ``gill_losses``."""

    captions: Captions
    pooled: torch.Tensor
    targets: torch.Tensor
    in_pairs: tuple[bool, bool, bool]


class GILLTrainer:
    """The trainer (see ``loop.Trainer``) of GILL's parts.

    After each step every [IMG] row gets the mean length of the language model's own rows. The pictures that a caption is
    compared with are those of its part, ``micro_batch``; the released code gathers those of all processes.

    Source: kohjingyu/gill 4600b71, main.py:460-610.
    """

    def __init__(
        self,
        config: GILLConfig,
        language: FrozenLanguage,
        vision: FrozenVision,
        examples: CaptionedExamples,
        text: TextStates,
    ) -> None:
        self.config, self.language, self.vision = config, language, vision
        self.examples, self.text = examples, text
        rows, width = text([""]).shape[1:]
        s = config.sizes
        vision.use_grid(s.grid)
        sizes = GILLSizes(
            language.width,
            vision.width,
            s.img_tokens,
            s.visual_tokens,
            s.retrieval,
            rows,
            width,
            s.head,
            s.width,
            s.layers,
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.loop.seed)
            self.parts = GILLParts(sizes)
        self._table: Table | None = None

    def __len__(self) -> int:
        return len(self.examples)

    def modules(self) -> Mapping[str, nn.Module]:
        return {"parts": self.parts}

    def prepare(self, device: torch.device, rank: int, world: int, barrier: Callable[[], None]) -> None:
        self.device = device
        self.parts.to(device)
        self.language.net.to(device)
        self.vision.net.to(device)
        self.text.to(device)
        self._row_length = self.language.mean_row_norm()
        if self.config.cache is None:
            return
        inputs = {
            "examples": self.examples.fingerprint(),
            "vision": weights_hash(self.vision.net),
            "text": self.text.fingerprint(),
        }
        folder = cache_folder(self.config.cache, inputs)
        fill(folder, "gill", len(self), self._encoded_range, rank, world)
        barrier()
        table = open_table(folder, "gill", len(self))
        self._table = table.to(device) if self.config.cache_in_memory else table

    def _encoded_range(self, start: int, stop: int) -> TableRows:
        groups = [
            self._encoded(range(first, min(first + _AT_ONCE, stop))) for first in range(start, stop, _AT_ONCE)
        ]
        return {name: torch.cat([group[name] for group in groups]) for name in groups[0]}

    def _encoded(self, numbers: range | list[int]) -> TableRows:
        """``pooled`` (n, vision) and ``text`` (n, rows, width), the latter in half precision, cached or not."""
        pixels = torch.stack([self.vision.pixels(self.examples.picture(i)) for i in numbers])
        text = self.text([self.examples.caption(i) for i in numbers])
        return {"pooled": self.vision.pooled(pixels), "text": text.half()}

    def batch(self, indices: torch.Tensor, generator: torch.Generator) -> GILLPart:
        drawn = (torch.rand(3, generator=generator) < self.config.pairs).tolist()
        numbers = indices.tolist()
        rows = self._encoded(numbers) if self._table is None else self._table.take(indices, self.device)
        captions = tokenise(
            self.language,
            [self.examples.caption(i) for i in numbers],
            self.config.sizes.img_tokens,
            self.config.max_length,
        )
        pooled, targets = (rows[name].to(self.device).float() for name in ("pooled", "text"))
        return GILLPart(captions.to(self.device), pooled, targets, (drawn[0], drawn[1], drawn[2]))

    def loss(self, inputs: GILLPart, generator: torch.Generator) -> tuple[torch.Tensor, Metrics]:
        losses = gill_losses(
            self.language, self.parts, inputs.captions, inputs.pooled, inputs.targets, inputs.in_pairs
        )
        return total_loss(losses, self.config.weights), losses._asdict()

    def after_step(self) -> None:
        self.parts.scale_img_rows(self._row_length)

    def sample(self, step: int, folder: Path) -> None:
        """What is written about the first pictures, as JSON."""
        gill = GILL(self.language, self.vision, self.parts)
        count = min(self.config.samples, len(self))
        lines = [
            {
                "caption": self.examples.caption(i),
                "written": self.language.text_of(list(gill.write([self.examples.picture(i)]).ids)),
            }
            for i in range(count)
        ]
        write_text(folder / f"step-{step:08d}.json", json.dumps(lines, ensure_ascii=False, indent=1) + "\n")

    def export(self, folder: Path, weights: Weights) -> None:
        """``gill.safetensors``, under the released names."""
        save_parts(weights["parts"], folder / GILL_RESULT)


def run(config: GILLConfig, output: Path) -> Path:
    """Train what a configuration alone describes; returns the folder of the result.

    Raises:
        ValueError: a key that it needs is missing, or see ``loop.train``.
    """
    if config.language is None or config.vision is None or not config.base or config.captions is None:
        raise ValueError(
            "language and vision (folders of the frozen models), base (a diffusers folder of SD1.5) and captions (table, "
            "root) are needed"
        )
    examples = CaptionTable(config.captions.table, config.captions.root)
    language, vision = (
        load_language(config.language, torch.float32),
        load_vision(config.vision, torch.float32),
    )
    trainer = GILLTrainer(
        config, language, vision, examples, StableDiffusionText(load_components(config.base))
    )
    return train(trainer, config.loop, output, config)
