"""A stage 1 small enough to train in a test: a LLaVA of under a megabyte, three files of records."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from llmga.data.schemas import Caption, Dialogue, Message, Refinement, write_records
from miniworld.models.random_language import write_tiny_llava

PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 255, (20, 60, 3), dtype=np.uint8))


def write_base(folder: Path) -> Path:
    return write_tiny_llava(folder)


def write_data(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    PICTURE.save(folder / "a.png")
    dialogue = Dialogue((Message("human", "<image>\nWhat is it?"), Message("gpt", "Noise.")), image="a.png")
    plain = Dialogue((Message("human", "Hello"), Message("gpt", "Good day.")))
    write_records(folder / "vqa.json", [dialogue, plain])
    write_records(folder / "t2i.json", [Refinement("a.png", "a small red fox in the snow", "a fox")])
    write_records(folder / "inpainting.json", [Caption("a.png", "a forest with an old tower")])
    return folder


def values(data: Path, base: Path, loop: dict[str, Any] | None = None, **other: Any) -> dict[str, Any]:
    plain = {"steps": 4, "batch": 4, "micro_batch": 2, "lr": 1e-3, "save_every": 2, "log_every": 1}
    run_on = {"deterministic": True, "cpu": True}
    parts = [
        {"name": name, "path": str(data / f"{name}.json"), "images": str(data), "task": name}
        for name in ("vqa", "t2i", "inpainting")
    ]
    return {
        "loop": {**plain, **run_on, **(loop or {})},
        "base": str(base),
        "mixture": {"parts": parts, "mode": "fraction"},
        "max_length": 200,
        "export_dtype": "float32",
        **other,
    }
