"""The recipe of the miniature's painter: from nothing to one checkpoint, a stage-2 UNet, and how good they are.

A stage reads files of ``out``, writes files of ``out``, and enters both into ``manifest.json``; one that stands there
with the same configuration and the same files is not made again. What is only needed on the way is in ``work``, from
where a killed stage goes on.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shlex
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, is_dataclass, replace
from pathlib import Path
from typing import Any

import torch

from ..train import LoopConfig, Stage2, Stage2Config, Trainer, train
from ..train.checkpoint import write_text
from ..train.components import Components
from ..train.log import read_log
from .architecture import SCHEDULER
from .autoencoder import AutoencoderConfig, AutoencoderTrainer
from .check import CheckConfig, check_base, check_reader, check_stage2, table
from .dataset import Mix, Painted, Scenes, WorldPictures, captions_of, painted
from .painter import (
    load_pipeline,
    load_unet,
    new_autoencoder,
    new_text_encoder,
    new_unet,
    write_half,
    write_single_file,
)
from .reader import ReaderConfig, ReaderTrainer, load_reader

CHECKPOINT = "llmga-mini.safetensors"
MANIFEST = "manifest.json"
_REHEARSED = 40  # steps


@dataclass(frozen=True)
class PainterConfig:
    """How a UNet is trained."""

    training: Stage2Config
    scenes: int
    """How many of the painted scenes it learns from."""
    captions: Mix = field(default_factory=Mix)


@dataclass(frozen=True)
class Minutes:
    """Training time of each stage; 0 takes ``loop.steps`` as given. The steps that fit are measured once, then kept."""

    autoencoder: float = 0.0
    reader: float = 0.0
    base: float = 0.0
    stage2: float = 0.0


@dataclass(frozen=True)
class Recipe:
    scenes: Scenes
    autoencoder: AutoencoderConfig
    reader: ReaderConfig
    base: PainterConfig
    stage2: PainterConfig
    check: CheckConfig = field(default_factory=CheckConfig)
    minutes: Minutes = field(default_factory=Minutes)
    workers: int = 0
    """Processes that paint scenes; 0 takes one per core."""


@dataclass(frozen=True)
class Workshop:
    """A recipe, where its results go, and where its stages may leave what only they need."""

    recipe: Recipe
    out: Path
    work: Path

    def painted(self, count: int) -> Painted:
        """The first ``count`` painted scenes."""
        return painted(replace(self.recipe.scenes, count=count), self.work / "cache", self.recipe.workers)


@dataclass(frozen=True)
class Stage:
    make: Callable[[Workshop, Path], dict[str, Any]]
    """Writes the results into ``out``, with a folder of its own to work in; returns figures."""
    needs: tuple[str, ...]
    """Files of ``out``."""
    gives: tuple[str, ...]


def build(
    recipe: Recipe,
    out: Path,
    stages: Sequence[str],
    again: bool,
    command: Sequence[str],
    work: Path | None = None,
) -> None:
    """Make the results of stages, in their order, that are not there yet.

    Args:
        again: make them even if they are there.
        command: what was typed, for the manifest.
        work: default ``out/work``.

    Raises:
        ValueError: a stage is unknown.
        FileNotFoundError: a stage needs the result of one that was not made.
    """
    if unknown := set(stages) - STAGES.keys():
        raise ValueError(f"only must name stages of {', '.join(STAGES)}; got {', '.join(sorted(unknown))}")
    torch.backends.cudnn.benchmark = True  # every batch has the same shape
    shop = Workshop(recipe, out, work or out / "work")
    for name in (name for name in STAGES if name in stages):
        stage = STAGES[name]
        inputs = {file: _sha256(_present(out, file)) for file in stage.needs}
        key = _plain({"config": _config_of(name, recipe), "inputs": inputs})
        fingerprint = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()
        if not again and _is_made(out, name, fingerprint):
            continue
        begun = time.perf_counter()
        folder = shop.work / f"{name}-{fingerprint[:12]}"
        if again:
            shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True, exist_ok=True)
        figures = stage.make(shop, folder)
        entry = {
            **key,
            "fingerprint": fingerprint,
            "command": "python -m llmga " + shlex.join(command),
            "minutes": round((time.perf_counter() - begun) / 60, 2),
            "machine": _machine(),
            "figures": _plain(figures),
            "files": {file: _sha256(out / file) for file in stage.gives},
        }
        _enter(out, name, entry)


def check(recipe: Recipe, out: Path) -> str:
    """Measure what was made, write ``check.json`` and contact sheets, and return the tables.

    Raises:
        FileNotFoundError: the checkpoint or the reader is missing.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    pipeline, reader = load_pipeline(out / CHECKPOINT), load_reader(out / "reader.safetensors").to(device)
    for net in (pipeline.unet, pipeline.text_encoder, pipeline.vae):
        net.to(device)
    pictures = out / "pictures"
    reading = check_reader(reader, pipeline.vae, recipe.check)
    results = {f"reader on {name}": reading[name] for name in ("truth", "reconstruction")}
    results |= check_base(pipeline, reader, recipe.check, pictures)
    if (out / "stage2" / "unet").exists():
        unet = load_unet(out / "stage2" / "unet").to(device)
        results |= check_stage2(pipeline, unet, reader, recipe.check, pictures)
    document = {"config": asdict(recipe.check), "psnr": reading["psnr"], "results": results}
    write_text(out / "check.json", json.dumps(_plain(document), indent=1))
    return (
        f"{table(results)}\nautoencoder {reading['psnr']:.2f} dB, {recipe.check.pictures} pictures per line"
    )


def _autoencoder(shop: Workshop, folder: Path) -> dict[str, Any]:
    from safetensors.torch import load_file

    config = shop.recipe.autoencoder
    source = shop.painted(config.pictures)
    loop = _within(
        shop.recipe.minutes.autoencoder,
        config.loop,
        lambda c: AutoencoderTrainer(replace(config, loop=c), source),
        folder,
    )
    result = train(AutoencoderTrainer(replace(config, loop=loop), source), loop, folder)
    write_half(load_file(result / "autoencoder.safetensors"), shop.out / "autoencoder.safetensors")
    return _last_row(folder)


def _reader(shop: Workshop, folder: Path) -> dict[str, Any]:
    config, autoencoder = shop.recipe.reader, _load_autoencoder(shop.out)
    source = shop.painted(config.pictures)
    loop = _within(
        shop.recipe.minutes.reader,
        config.loop,
        lambda c: ReaderTrainer(replace(config, loop=c), source, autoencoder),
        folder,
    )
    result = train(ReaderTrainer(replace(config, loop=loop), source, autoencoder), loop, folder)
    (shop.out / "reader.safetensors").write_bytes((result / "reader.safetensors").read_bytes())
    autoencoder.cpu()
    checked = check_reader(load_reader(shop.out / "reader.safetensors"), autoencoder, shop.recipe.check)
    return {**_last_row(folder), "checked": checked}


def _base(shop: Workshop, folder: Path) -> dict[str, Any]:
    from safetensors.torch import load_file
    from transformers import CLIPTextModel

    config = shop.recipe.base
    seed, autoencoder = config.training.loop.seed, _load_autoencoder(shop.out)

    def components() -> Components:
        return _components(new_unet(seed), new_text_encoder(seed), autoencoder)

    result = _paint(shop, config, shop.recipe.minutes.base, components, folder)
    write_single_file(
        shop.out / "base.safetensors",
        load_file(result / "unet" / "diffusion_pytorch_model.safetensors"),
        CLIPTextModel.from_pretrained(result / "text_encoder").state_dict(),
        {},
    )
    return _last_row(folder)


def _pack(shop: Workshop, folder: Path) -> dict[str, Any]:
    from safetensors.torch import load_file, save_file

    autoencoder = folder / "autoencoder.safetensors"
    write_single_file(autoencoder, {}, {}, load_file(shop.out / "autoencoder.safetensors"))
    save_file({**load_file(shop.out / "base.safetensors"), **load_file(autoencoder)}, shop.out / CHECKPOINT)
    return {"bytes": (shop.out / CHECKPOINT).stat().st_size}


def _stage2(shop: Workshop, folder: Path) -> dict[str, Any]:
    from safetensors.torch import load_file

    config = shop.recipe.stage2

    def components() -> Components:
        pipeline = load_pipeline(shop.out / CHECKPOINT)
        return _components(pipeline.unet, pipeline.text_encoder, pipeline.vae)

    result = _paint(shop, config, shop.recipe.minutes.stage2, components, folder)
    unet = shop.out / "stage2" / "unet"
    unet.mkdir(parents=True, exist_ok=True)
    (unet / "config.json").write_bytes((result / "unet" / "config.json").read_bytes())
    name = "diffusion_pytorch_model.safetensors"
    write_half(load_file(result / "unet" / name), unet / name)
    return _last_row(folder)


def _check(shop: Workshop, folder: Path) -> dict[str, Any]:
    from tqdm import tqdm

    tqdm.write(check(shop.recipe, shop.out))
    return json.loads((shop.out / "check.json").read_text(encoding="utf-8"))["results"]


_UNET = "stage2/unet/diffusion_pytorch_model.safetensors"
STAGES = {
    "autoencoder": Stage(_autoencoder, (), ("autoencoder.safetensors",)),
    "reader": Stage(_reader, ("autoencoder.safetensors",), ("reader.safetensors",)),
    "base": Stage(_base, ("autoencoder.safetensors",), ("base.safetensors",)),
    "pack": Stage(_pack, ("base.safetensors", "autoencoder.safetensors"), (CHECKPOINT,)),
    "stage2": Stage(_stage2, (CHECKPOINT,), (_UNET,)),
    "check": Stage(_check, (CHECKPOINT, "reader.safetensors", _UNET), ("check.json",)),
}


def _paint(
    shop: Workshop, config: PainterConfig, minutes: float, components: Callable[[], Components], folder: Path
) -> Path:
    source = shop.painted(config.scenes)
    pictures = WorldPictures(source, captions_of(source.scenes, config.captions, shop.recipe.workers))
    cache = shop.work / "cache" / "stage2" if config.training.cache else None
    settings = replace(config.training, cache=cache)
    make = lambda c: Stage2(replace(settings, loop=c), components(), pictures)  # noqa: E731
    loop = _within(minutes, settings.loop, make, folder)
    return train(make(loop), loop, folder)


def _within(
    minutes: float, loop: LoopConfig, make: Callable[[LoopConfig], Trainer], folder: Path
) -> LoopConfig:
    """The loop with as many steps as take so long here; a rehearsal measures it, and a resumed run keeps it."""
    if not minutes:
        return loop
    kept = folder / "steps.json"
    if not kept.exists():
        rehearsal = replace(
            loop, steps=_REHEARSED, log_every=_REHEARSED // 2, sample_every=0, save_every=_REHEARSED
        )
        train(make(rehearsal), rehearsal, folder / "rehearsal")
        rate = read_log(folder / "rehearsal" / "log.jsonl")[-1]["examples_per_second"]
        write_text(kept, json.dumps(max(int(minutes * 60 * rate / loop.batch), 1)))
    return replace(loop, steps=json.loads(kept.read_text(encoding="utf-8")))


def _components(unet: Any, text_encoder: Any, autoencoder: Any) -> Components:
    from ..text import clip_tokenizer

    return Components(unet, autoencoder, (text_encoder,), (clip_tokenizer(),), dict(SCHEDULER))


def _load_autoencoder(out: Path) -> Any:
    from safetensors.torch import load_file

    net = new_autoencoder()
    net.load_state_dict(
        {name: value.float() for name, value in load_file(out / "autoencoder.safetensors").items()}
    )
    return net.eval()


def _last_row(folder: Path) -> dict[str, Any]:
    return read_log(folder / "log.jsonl")[-1]


def _config_of(name: str, recipe: Recipe) -> dict[str, Any]:
    if name == "pack":
        return {}
    config = {name: getattr(recipe, name)}
    return (
        config
        if name == "check"
        else {**config, "scenes": recipe.scenes, "minutes": getattr(recipe.minutes, name)}
    )


def _is_made(out: Path, name: str, fingerprint: str) -> bool:
    entry = _manifest(out).get(name)
    if entry is None or entry["fingerprint"] != fingerprint:
        return False
    return all((out / file).is_file() and _sha256(out / file) == sha for file, sha in entry["files"].items())


def _manifest(out: Path) -> dict[str, Any]:
    path = out / MANIFEST
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def _enter(out: Path, name: str, entry: dict[str, Any]) -> None:
    manifest = {**_manifest(out), name: entry}
    ordered = {stage: manifest[stage] for stage in STAGES if stage in manifest}
    write_text(out / MANIFEST, json.dumps(ordered, indent=1) + "\n")


def _present(out: Path, file: str) -> Path:
    if not (out / file).is_file():
        maker = next(name for name, stage in STAGES.items() if file in stage.gives)
        raise FileNotFoundError(f"{out / file} does not exist; the stage {maker} makes it")
    return out / file


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _machine() -> str:
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"{platform.machine()} CPU"
    return f"{device}, {os.cpu_count()} cores, torch {torch.__version__}"


def _plain(value: Any) -> Any:
    """Only what JSON knows."""
    if is_dataclass(value) and not isinstance(value, type):
        return _plain(asdict(value))
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value
