"""A training of GILL small enough for a test: the recorded OPT and CLIP, a tiny text encoder, eight pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from llmga.gill import GILL, load_language, load_parts, load_vision
from llmga.train import build, train
from llmga.train.gill import GILLConfig, GILLTrainer
from llmga.train.gill_data import CaptionTable, LabelledPrompts, StableDiffusionText
from llmga.train.gill_decision import GILLDecisionConfig, GILLDecisionTrainer
from support.tiny_gill import recorder, write_gill
from support.tiny_training import components

SIZES = {"retrieval": 20, "width": 16, "layers": 2}


def write_captions(folder: Path) -> Path:
    """The pictures and ``captions.tsv``."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = ["caption\timage"]
    for i, caption in enumerate(recorder().CAPTIONS):
        recorder().picture(i).save(folder / f"{i}.png")
        lines.append(f"{caption}\t{i}.png")
    (folder / "captions.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def gill_config(loop: dict[str, Any] | None = None, **values: Any) -> GILLConfig:
    plain = {"steps": 6, "batch": 8, "micro_batch": 4, "lr": 1e-2, "save_every": 3, "log_every": 2}
    run_on = {"deterministic": True, "cpu": True}
    return build(GILLConfig, {"loop": {**plain, **run_on, **(loop or {})}, "sizes": SIZES, **values})


def gill_trainer(data: Path, config: GILLConfig) -> GILLTrainer:
    """The trainer, from the files in ``data``, which are written if need be."""
    if not (data / "models").exists():
        write_gill(data / "models")
    if not (data / "captions").exists():
        write_captions(data / "captions")
    language = load_language(data / "models" / "facebook" / "opt-tiny")
    vision = load_vision(data / "models" / "clip-tiny")
    captions = CaptionTable(data / "captions" / "captions.tsv", data / "captions")
    return GILLTrainer(config, language, vision, captions, StableDiffusionText(components()))


def train_gill_tiny(output: Path, data: Path, loop: dict[str, Any] | None = None, **values: Any) -> Path:
    config = gill_config(loop, **values)
    return train(gill_trainer(data, config), config.loop, output)


def prompts() -> LabelledPrompts:
    """Prompts of snow are to be generated, others retrieved."""
    words = [
        f"{a} {b}"
        for a in ("snow", "the lake", "a red fox", "an old chair")
        for b in ("under", "on", "in", "with", "of")
    ]
    words = [words[i * 7 % len(words)] for i in range(len(words))]
    return LabelledPrompts(tuple(words), tuple(int("snow" not in word) for word in words))


def decision_config(loop: dict[str, Any] | None = None) -> GILLDecisionConfig:
    plain = {
        "steps": 60,
        "batch": 14,
        "micro_batch": 14,
        "lr": 5e-2,
        "weight_decay": 0.0,
        "clip": 0.0,
        "cpu": True,
    }
    return build(GILLDecisionConfig, {"loop": {**plain, "save_every": 20, **(loop or {})}, "train_on": 14})


def train_decision_tiny(output: Path, data: Path, loop: dict[str, Any] | None = None) -> Path:
    if not (data / "models").exists():
        write_gill(data / "models")
    models = data / "models"
    parts = load_parts(models / "pretrained_ckpt.pth.tar")
    gill = GILL(load_language(models / "facebook" / "opt-tiny"), None, parts)
    config = decision_config(loop)
    return train(GILLDecisionTrainer(config, gill, prompts()), config.loop, output)
