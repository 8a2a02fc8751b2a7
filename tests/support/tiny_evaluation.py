"""An evaluation small enough for a test: published layouts of a few pictures, random pipelines, plain extractors."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from llmga.evaluate.command import config_class, evaluate
from llmga.evaluate.data import DataConfig
from llmga.evaluate.estimates import Estimate, mean
from llmga.evaluate.extractors import Distance, Extractor, Images
from llmga.evaluate.results import TableResult
from llmga.evaluate.work import Alone, Processes, processes
from llmga.train import build
from support.tiny_training import components

SIDE = 64
COLOURS = ("red", "green", "blue", "white")


def picture(number: int, width: int = SIDE, height: int = SIDE) -> Image.Image:
    """A square of one colour on noise."""
    draw = np.random.default_rng(number)
    pixels = draw.integers(0, 90, (height, width, 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    image.paste(COLOURS[number % 4], (8, 8, 8 + width // 3, 8 + height // 3))
    return image


def write_coco(folder: Path, count: int = 5) -> Path:
    """Captions and pictures as COCO publishes them: two captions a picture, ids out of order, sizes that differ."""
    images, annotations = [], []
    (folder / "val").mkdir(parents=True)
    for i in reversed(range(count)):
        name = f"COCO_val2014_{i:012d}.jpg"
        picture(i, SIDE + 8 * (i % 2), SIDE).save(folder / "val" / name)
        images.append({"id": i, "file_name": name})
        for k in (1, 0):
            text = f"a {COLOURS[i % 4]} square \n" if k == 0 else "another caption"
            annotations.append({"id": 10 * i + k, "image_id": i, "caption": text})
    _write(folder / "captions.json", {"images": images, "annotations": annotations})
    return folder


def write_masked(folder: Path, count: int = 4) -> Path:
    """Pictures and masks as LaMa's scripts write them."""
    folder.mkdir(parents=True)
    for i in range(count):
        picture(i).save(folder / f"Places_{i:04d}.png")
        mask = Image.new("L", (SIDE, SIDE))
        mask.paste(255, (16, 16, 48, 48))
        mask.save(folder / f"Places_{i:04d}_mask000.png")
    return folder


def write_magicbrush(folder: Path) -> Path:
    """Two sessions, of one and of two turns, as MagicBrush's test set is laid out."""
    turns, described = [], {}
    for session, count in (("7", 1), ("23", 2)):
        place = folder / "images" / session
        place.mkdir(parents=True)
        picture(int(session)).save(place / f"{session}-input.png")
        described[session] = {}
        for turn in range(1, count + 1):
            name = f"{session}-output{turn}.png"
            picture(int(session) + turn, SIDE, SIDE).save(place / name)
            before = f"{session}-input.png" if turn == 1 else f"{session}-output{turn - 1}.png"
            turns.append({"input": before, "output": name, "instruction": f"make it {COLOURS[turn]}"})
            described[session][name] = f"a {COLOURS[turn]} square"
    _write(folder / "edit_turns.json", turns)
    _write(folder / "global_descriptions.json", described)
    return folder


def write_pipeline(folder: Path, inpainting: bool = False) -> Path:
    """Stable Diffusion 1.5 of a few thousand random weights, as ``save_pretrained`` writes it."""
    from diffusers import (
        AutoencoderKL,
        DDIMScheduler,
        StableDiffusionInpaintPipeline,
        StableDiffusionPipeline,
    )

    parts = components(channels=9 if inpainting else 4)
    parts.unet.register_to_config(sample_size=64)  # diffusers asks whether it is old
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        vae = AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            block_out_channels=(8,) * 4,
            norm_num_groups=4,
            latent_channels=4,
            sample_size=SIDE,
        )
    kind: Any = StableDiffusionInpaintPipeline if inpainting else StableDiffusionPipeline
    pipeline = kind(
        vae=vae,
        text_encoder=parts.text_encoders[0],
        tokenizer=parts.tokenizers[0],
        unet=parts.unet,
        scheduler=DDIMScheduler(**parts.scheduler_config),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.save_pretrained(folder)
    return folder


def colours(path: Path, device: torch.device) -> Extractor:
    """An extractor that can be checked by eye: the mean colours of four parts of a picture; a text by its letters."""

    def images(pictures: Images) -> dict[str, torch.Tensor]:
        small = [
            np.asarray(p.convert("RGB").resize((2, 2), Image.Resampling.BOX), np.float32) for p in pictures
        ]
        features = torch.from_numpy(np.stack(small)).flatten(1) / 255
        return {"features": features, "logits": 8 * features[:, :3]}

    def texts(lines: Sequence[str]) -> torch.Tensor:
        return torch.stack([torch.tensor([float(line.count(c)) for c in "redgnbluwhit"]) for line in lines])

    return Extractor("colours", hashlib.sha256(path.read_bytes()).hexdigest(), "2 by 2", images, texts)


def differences(path: Path, device: torch.device) -> Distance:
    """The mean absolute difference of two pictures."""

    def pairs(some: Images, others: Images) -> torch.Tensor:
        arrays = [[np.asarray(p, np.float32) / 255 for p in pictures] for pictures in (some, others)]
        return torch.tensor([float(np.abs(a - b).mean()) for a, b in zip(*arrays, strict=True)])

    return Distance("difference", hashlib.sha256(path.read_bytes()).hexdigest(), "own size", pairs)


def brightness(items: Sequence[Any], pictures: Sequence[Path]) -> dict[str, Estimate]:
    """A judge of one's own."""
    return {"brightness": mean([float(np.asarray(Image.open(path)).mean()) / 255 for path in pictures])}


def drawn(config: DataConfig, work: Path) -> list[Any]:
    """An evaluation set of one's own, drawn where it is told."""
    from llmga.evaluate.sources import read_coco

    if not work.exists():
        write_coco(work)
    return read_coco(work, "captions.json", "val", config.count)


def settings(task: str, base: Path, **more: Any) -> Any:
    """A task's configuration on what ``base`` holds: ``coco``, ``masked``, ``magicbrush``, ``sd``, ``inpaint``, ``net``."""
    painter = {"base": str(base / "sd"), "steps": 2, "batch": 2}
    network = f"support.tiny_evaluation:colours:{base / 'net'}"
    distance = f"support.tiny_evaluation:differences:{base / 'net'}"
    rows: list[dict[str, Any]] = [{"name": "short", "painter": painter}]
    if task == "t2i":
        data = {"kind": "coco", "folder": str(base / "coco"), "annotations": "captions.json", "images": "val"}
        values: dict[str, Any] = {"data": data, "network": network, "size": SIDE, "splits": 2, "bootstrap": 3}
    elif task == "edit":
        data = {"kind": "magicbrush", "folder": str(base / "magicbrush")}
        values = {"data": data, "clip": network, "dino": network, "size": SIDE}
    else:
        rows[0]["painter"] = {**painter, "base": str(base / "inpaint")}
        data = {"kind": "masked", "folder": str(base / "masked")}
        holes = [{"table": "outpaint-wide", "data": data, "task": "outpaint"}]
        values = {"holes": holes, "network": network, "distance": distance, "bootstrap": 3}
    return build(config_class(task), {**values, "rows": rows, **more})


@lru_cache
def base_folder(folder: Path) -> Path:
    """Everything that ``settings`` names, made once."""
    write_coco(folder / "coco")
    write_masked(folder / "masked")
    write_magicbrush(folder / "magicbrush")
    write_pipeline(folder / "sd")
    write_pipeline(folder / "inpaint", inpainting=True)
    (folder / "net").write_text("weights", encoding="utf-8")
    return folder


def measure(task: str, config: Any, output: Path, among: Processes | None = None) -> list[TableResult]:
    """Run a task on one thread."""
    torch.set_num_threads(1)
    return evaluate(task, config, output, among or Alone())


def run_t2i(base: Path, output: Path) -> None:
    """Table 1 from its beginning, or on from where it was left; here, so that another process can import it."""
    measure("t2i", settings("t2i", base), output)


def run_shared(base: Path, output: Path, rank: int, port: int) -> None:
    """As ``run_t2i``, as one of two processes with the environment that torchrun gives them."""
    os.environ |= {
        "WORLD_SIZE": "2",
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "ACCELERATE_USE_CPU": "true",
    }
    among = processes()
    assert (among.rank, among.count) == (rank, 2)
    measure("t2i", settings("t2i", base), output, among)


def _write(path: Path, document: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document), encoding="utf-8")
