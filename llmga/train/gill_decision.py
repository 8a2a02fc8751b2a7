"""Train GILL's decision model: generate or retrieve, from the hidden state of [IMG0] behind a prompt."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from ..files.writing import write_text
from ..gill.checkpoint import load_parts, save_decision
from ..gill.language import load_language
from ..gill.model import GILL
from ..gill.parts import DecisionModel
from .cache import cache_folder, fill, open_table
from .components import weights_hash
from .gill_data import LabelledPrompts
from .loop import LoopConfig, Metrics, Weights, train

DECISION_RESULT = "decision.safetensors"


@dataclass(frozen=True)
class GILLDecisionConfig:
    loop: LoopConfig
    language: Path | None = None
    """A transformers folder of the frozen language model; unused where a GILL is passed in, as is ``gill``."""
    gill: Path | None = None
    """GILL's trained part."""
    prompts: Path | None = None
    """See ``LabelledPrompts.read``; unused where prompts are passed in."""
    train_on: int = 600
    """So many prompts from the first on are trained on; the rest measures."""
    cache: Path | None = None
    """The folder that keeps the hidden states; None reads all prompts again in every run."""


class DecisionPart(NamedTuple):
    states: torch.Tensor
    """(B, d)"""
    labels: torch.Tensor
    """(B,)"""


class GILLDecisionTrainer:
    """The trainer (see ``loop.Trainer``) of the decision model.

    Source: kohjingyu/gill 4600b71, TrainDecisionClassifier.ipynb.
    """

    def __init__(self, config: GILLDecisionConfig, gill: GILL, prompts: LabelledPrompts) -> None:
        if not 0 < config.train_on <= len(prompts.prompts):
            raise ValueError(
                f"train_on must be between 1 and {len(prompts.prompts)}, the prompts with a label; got {config.train_on}"
            )
        self.config, self.gill, self.prompts = config, gill, prompts
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.loop.seed)
            self.model = DecisionModel(gill.language.width)

    def __len__(self) -> int:
        return self.config.train_on

    def modules(self) -> Mapping[str, nn.Module]:
        return {"decision": self.model}

    def prepare(self, device: torch.device, rank: int, world: int, barrier: Callable[[], None]) -> None:
        self.model.to(device)
        self.gill.language.net.to(device)
        self.gill.parts.to(device)
        self.labels = torch.tensor(self.prompts.labels, device=device)
        if self.config.cache is None:
            self.states = self._states(0, len(self.labels))["states"].to(device)
            return
        inputs = {
            "prompts": list(self.prompts.prompts),
            "language": weights_hash(self.gill.language.net),
            "img_rows": self.gill.parts.img_rows.tolist(),
        }
        folder = cache_folder(self.config.cache, inputs)
        fill(folder, "states", len(self.labels), self._states, rank, world)
        barrier()
        table = open_table(folder, "states", len(self.labels))
        self.states = table.take(torch.arange(len(self.labels)), device)["states"]

    def _states(self, start: int, stop: int) -> dict[str, torch.Tensor]:
        return {
            "states": torch.stack(
                [self.gill.picture_states([p])[0] for p in self.prompts.prompts[start:stop]]
            )
        }

    def batch(self, indices: torch.Tensor, generator: torch.Generator) -> DecisionPart:
        own = indices.to(self.states.device)
        return DecisionPart(self.states[own], self.labels[own])

    def loss(self, inputs: DecisionPart, generator: torch.Generator) -> tuple[torch.Tensor, Metrics]:
        logits = self.model(inputs.states)
        return F.cross_entropy(logits, inputs.labels), {
            "accuracy": (logits.argmax(1) == inputs.labels).float().mean()
        }

    def sample(self, step: int, folder: Path) -> None:
        write_text(folder / f"step-{step:08d}.json", json.dumps(self.report(self.model)) + "\n")

    @torch.no_grad()
    def report(self, model: DecisionModel) -> dict[str, float | int]:
        """How good the model is on the prompts that it was not trained on: accuracy, F1 and what one answer alone gives."""
        own = slice(self.config.train_on, None)
        truth = self.labels[own]
        if not len(truth):
            return {"measured_on": 0}
        chosen = model.eval()(self.states[own]).argmax(1)
        return {
            "measured_on": len(truth),
            "accuracy": (chosen == truth).float().mean().item(),
            "macro_f1": macro_f1(chosen, truth),
            "always_generate": (truth == DecisionModel.GENERATE).float().mean().item(),
        }

    def export(self, folder: Path, weights: Weights) -> None:
        """``decision.safetensors``, under the released names, and ``report.json``."""
        save_decision(weights["decision"], folder / DECISION_RESULT)
        model = DecisionModel(self.gill.language.width)
        model.load_state_dict(weights["decision"])
        write_text(folder / "report.json", json.dumps(self.report(model.to(self.states.device))) + "\n")


def macro_f1(chosen: torch.Tensor, truth: torch.Tensor) -> float:
    """The mean over both classes of the harmonic mean of precision and recall, (B,) each; 0 for a class that is absent."""
    scores = []
    for label in (0, 1):
        hits = ((chosen == label) & (truth == label)).sum().item()
        total = (chosen == label).sum().item() + (truth == label).sum().item()
        scores.append(2 * hits / total if total else 0.0)
    return sum(scores) / 2


def run(config: GILLDecisionConfig, output: Path) -> Path:
    """Train what a configuration alone describes; returns the folder of the result.

    Raises:
        ValueError: a key that it needs is missing, or see ``loop.train``.
    """
    if config.language is None or config.gill is None or config.prompts is None:
        raise ValueError(
            "language (a folder), gill (GILL's trained part) and prompts (a labelled file) are needed"
        )
    gill = GILL(load_language(config.language, torch.float32), None, load_parts(config.gill))
    trainer = GILLDecisionTrainer(config, gill, LabelledPrompts.read(config.prompts))
    return train(trainer, config.loop, output, config)
