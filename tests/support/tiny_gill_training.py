"""A training of GILL small enough for a test: the recorded OPT and CLIP, a tiny text encoder, eight pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from llmga.gill import load_language, load_vision
from llmga.train import build, train
from llmga.train.gill import GILLConfig, GILLTrainer
from llmga.train.gill_data import CaptionTable, StableDiffusionText
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
        write_captions(data / "captions")
    language = load_language(data / "models" / "facebook" / "opt-tiny")
    vision = load_vision(data / "models" / "clip-tiny")
    captions = CaptionTable(data / "captions" / "captions.tsv", data / "captions")
    return GILLTrainer(config, language, vision, captions, StableDiffusionText(components()))


def train_gill_tiny(output: Path, data: Path, loop: dict[str, Any] | None = None, **values: Any) -> Path:
    config = gill_config(loop, **values)
    return train(gill_trainer(data, config), config.loop, output)
