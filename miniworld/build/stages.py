"""Stages of the build: how each file of the miniature is made."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from llmga.evaluate import table, write_json
from llmga.files.writing import write_text
from llmga.gill.embedding import EMBEDDING_CONFIG, EMBEDDING_WEIGHTS
from llmga.train import LoopConfig, Stage2, Trainer, train
from llmga.train.components import Components
from llmga.train.controlnet import SINGLE_FILE, ControlNetStage
from llmga.train.gill import GILL_RESULT
from llmga.train.gill_decision import DECISION_RESULT
from llmga.train.log import read_log

from ..checks.attention import check_attention
from ..checks.painter import check_base, check_reader, check_stage2, painter_table, short_task
from ..checks.restorer import RestorerCheck, check_restorers
from ..files import (
    AUTOENCODER,
    BASE,
    CHECK,
    CHECKPOINT,
    CONTROLNET,
    EMBEDDING,
    ENCODER,
    GILL_DECISION_FILE,
    GILL_FILE,
    LANGUAGE,
    READER,
    RESTORERS,
    UNETS,
    WEIGHTS,
    WORDS,
)
from ..models.architecture import SCHEDULER, picture_size
from ..models.autoencoder import AutoencoderConfig, AutoencoderTrainer
from ..models.embedding import train_embedding
from ..models.gill import train_decision, train_gill
from ..models.inpainter import Painter
from ..models.language import figures, train_language
from ..models.narrow_taesd import InBf16, narrowed
from ..models.painter import (
    load_pipeline,
    load_text_encoder,
    load_unet,
    new_autoencoder,
    new_unet,
    write_float8,
    write_half,
    write_single_file,
)
from ..models.reader import ReaderTrainer, load_reader
from ..models.restorer import load_restorer, train_restorers, variants
from ..models.sampling import PaintConfig
from ..models.text_encoder import WordsTrainer
from ..world.dataset import WorldPictures, boxes_of, captions_of
from .recipe import BuildContext, PainterConfig, Recipe

_REHEARSED = 40  # steps


@dataclass(frozen=True)
class Stage:
    make: Callable[[BuildContext, Path], dict[str, Any]]
    """Writes the results into ``out``, with a folder of its own to work in; returns figures."""
    needs: tuple[str, ...]
    """Files of ``out``."""
    gives: tuple[str, ...]


def check(recipe: Recipe, out: Path) -> str:
    """Measure what was made, write ``check.json`` and contact sheets, and return the tables.

    Raises:
        FileNotFoundError: the checkpoint or the reader is missing.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    pipeline, reader = load_pipeline(out / CHECKPOINT), load_reader(out / READER).to(device)
    for net in (pipeline.unet, pipeline.text_encoder, narrowed(pipeline.vae)):
        net.to(device)
    pictures = out / "pictures"
    reading = check_reader(reader, pipeline.vae, recipe.check, picture_size(pipeline.unet))
    results = {f"reader on {name}": reading[name] for name in ("truth", "reconstruction")}
    results |= check_base(pipeline, reader, recipe.check, pictures)
    if (out / UNETS["stage2"]).exists():
        unet = load_unet(out / UNETS["stage2"]).to(device)
        results |= check_stage2(pipeline, unet, reader, recipe.check, pictures)
    scenes = short_task(recipe.check).scenes
    attention = check_attention(pipeline, scenes, recipe.check)
    document = {
        "config": asdict(recipe.check),
        "psnr": reading["psnr"],
        "results": results,
        "attention": attention,
    }
    write_json(out / CHECK, document)
    return (
        f"{painter_table(results)}\n{table(attention)}\n"
        f"autoencoder {reading['psnr']:.2f} dB, {recipe.check.pictures} pictures per line"
    )


def _autoencoder(name: str, start: str, file: str, context: BuildContext, folder: Path) -> dict[str, Any]:
    """One of the runs that make the autoencoder, from the file ``start`` or from nothing."""
    from safetensors.torch import load_file

    config: AutoencoderConfig = getattr(context.recipe, name)
    source, weights = context.painted(config.pictures), load_file(context.out / start) if start else None
    result = _run(
        getattr(context.recipe.minutes, name),
        config.loop,
        lambda c: AutoencoderTrainer(replace(config, loop=c), source, weights),
        folder,
    )
    write_half(load_file(result / "autoencoder.safetensors"), context.out / file)
    return _last_row(folder)


def _words(context: BuildContext, folder: Path) -> dict[str, Any]:
    config = context.recipe.words
    source = context.painted(config.scenes)
    captions = captions_of(source.scenes, config.captions, context.recipe.workers)
    result = _run(
        context.recipe.minutes.words,
        config.loop,
        lambda c: WordsTrainer(replace(config, loop=c), source, captions),
        folder,
    )
    _copy(result / "words.safetensors", context.out / WORDS)
    return _last_row(folder)


def _reader(context: BuildContext, folder: Path) -> dict[str, Any]:
    config, autoencoder = context.recipe.reader, _load_autoencoder(context.out / ENCODER)
    source = context.painted(config.pictures)
    result = _run(
        context.recipe.minutes.reader,
        config.loop,
        lambda c: ReaderTrainer(replace(config, loop=c), source, autoencoder),
        folder,
    )
    _copy(result / "reader.safetensors", context.out / READER)
    return _last_row(folder)


def _base(context: BuildContext, folder: Path) -> dict[str, Any]:
    from safetensors.torch import load_file

    config = context.recipe.base
    seed, autoencoder = config.training.loop.seed, _load_autoencoder(context.out / ENCODER)
    words = load_text_encoder(context.out / WORDS)

    def components() -> Components:
        return _components(new_unet(seed), words, autoencoder, config.training.loop)

    result = _paint(context, config, context.recipe.minutes.base, components, folder)
    write_single_file(
        context.out / BASE,
        load_file(result / "unet" / WEIGHTS),
        words.state_dict(),
        {},
    )
    return _last_row(folder)


def _pack(context: BuildContext, folder: Path) -> dict[str, Any]:
    from safetensors.torch import load_file, save_file

    autoencoder = folder / "autoencoder.safetensors"
    write_single_file(autoencoder, {}, {}, load_file(context.out / AUTOENCODER))
    (context.out / CHECKPOINT).parent.mkdir(parents=True, exist_ok=True)
    save_file({**load_file(context.out / BASE), **load_file(autoencoder)}, context.out / CHECKPOINT)
    return {"bytes": (context.out / CHECKPOINT).stat().st_size}


def _finetuned(name: str, start: str, context: BuildContext, folder: Path) -> dict[str, Any]:
    """Train a UNet further: the checkpoint's, or the result of the stage ``start``."""
    from safetensors.torch import load_file

    config: PainterConfig = getattr(context.recipe, name)

    def components() -> Components:
        pipeline = load_pipeline(context.out / CHECKPOINT)
        unet = load_unet(context.out / UNETS[start]) if start else pipeline.unet
        return _components(unet, pipeline.text_encoder, narrowed(pipeline.vae), config.training.loop)

    result = _paint(context, config, getattr(context.recipe.minutes, name), components, folder)
    unet = context.out / UNETS[name]
    _write_config(json.loads((result / "unet" / "config.json").read_text(encoding="utf-8")), unet)
    write_float8(load_file(result / "unet" / WEIGHTS), unet / WEIGHTS)
    return _last_row(folder)


def _write_config(config: dict[str, Any], unet: Path) -> None:
    """Write a UNet's configuration, without the folder that it was loaded from."""
    config.pop("_name_or_path", None)
    write_text(unet / "config.json", json.dumps(config, indent=2, sort_keys=True) + "\n")


def _controlnet(context: BuildContext, folder: Path) -> dict[str, Any]:
    from safetensors.torch import load_file

    config, minutes = context.recipe.controlnet, context.recipe.minutes.controlnet

    def components() -> Components:
        pipeline = load_pipeline(context.out / CHECKPOINT)
        return _components(pipeline.unet, pipeline.text_encoder, narrowed(pipeline.vae), config.training.loop)

    result = _paint(context, config, minutes, components, folder, ControlNetStage)
    write_half(load_file(result / SINGLE_FILE), context.out / CONTROLNET)
    return _last_row(folder)


def _restorers(context: BuildContext, folder: Path) -> dict[str, Any]:
    config, painter = context.recipe.restorers, Painter(context.out)
    repaint = partial(painter.repaint, config=PaintConfig(steps=20, batch=32, seed=config.s1.seed))
    made = train_restorers(config, context.painted(config.pictures), folder, repaint)
    for name, file in made.items():
        _copy(file, context.out / RESTORERS[name])
    kinds = variants(config)
    nets = {name: load_restorer(file, kinds[name].network) for name, file in made.items()}
    checked = RestorerCheck(pictures=context.recipe.check.pictures, size=painter.picture)
    return {
        "degraded": check_restorers(nets, checked),
        "painted": check_restorers(nets, checked, painter.autoencoder, context.out / "pictures"),
    }


def _language(context: BuildContext, folder: Path) -> dict[str, Any]:
    result = train_language(folder, context.recipe.language, context.work / "cache")
    for file in result.iterdir():
        _copy(file, context.out / LANGUAGE / file.name)
    return figures(folder, context.recipe.language)


def _gill(context: BuildContext, folder: Path) -> dict[str, Any]:
    config, pipeline = context.recipe.gill, load_pipeline(context.out / CHECKPOINT)
    source, cache = context.painted(config.scenes), context.work / "cache" / "gill"
    result = train_gill(config, source, context.out / LANGUAGE, pipeline, folder / "parts", cache)
    _copy(result / GILL_RESULT, context.out / GILL_FILE)
    result = train_decision(config, context.out / LANGUAGE, context.out / GILL_FILE, folder / "decision")
    _copy(result / DECISION_RESULT, context.out / GILL_DECISION_FILE)
    return {
        "parts": _last_row(folder / "parts"),
        "decision": json.loads((result / "report.json").read_text()),
    }


def _embedding(context: BuildContext, folder: Path) -> dict[str, Any]:
    pipeline = load_pipeline(context.out / CHECKPOINT)
    result = train_embedding(context.recipe.embedding, context.out / LANGUAGE, pipeline, folder)
    for name in (EMBEDDING_WEIGHTS, EMBEDDING_CONFIG):
        _copy(result / name, context.out / EMBEDDING / name)
    return _last_row(folder)


def _check(context: BuildContext, folder: Path) -> dict[str, Any]:
    from tqdm import tqdm

    tqdm.write(check(context.recipe, context.out))
    return json.loads((context.out / CHECK).read_text(encoding="utf-8"))["results"]


_LANGUAGE_FILES = tuple(
    f"{LANGUAGE}/{name}" for name in ("config.json", "model.safetensors", "tokenizer.json")
)
_FILES = {name: f"{folder}/{WEIGHTS}" for name, folder in UNETS.items()}
STAGES = {
    "encoder": Stage(partial(_autoencoder, "encoder", "", ENCODER), (), (ENCODER,)),
    "decoder": Stage(partial(_autoencoder, "decoder", ENCODER, AUTOENCODER), (ENCODER,), (AUTOENCODER,)),
    "words": Stage(_words, (), (WORDS,)),
    "reader": Stage(_reader, (ENCODER,), (READER,)),
    "base": Stage(_base, (ENCODER, WORDS), (BASE,)),
    "pack": Stage(_pack, (BASE, AUTOENCODER), (CHECKPOINT,)),
    "stage2": Stage(partial(_finetuned, "stage2", ""), (CHECKPOINT,), (_FILES["stage2"],)),
    "inpainting": Stage(partial(_finetuned, "inpainting", ""), (CHECKPOINT,), (_FILES["inpainting"],)),
    "stage2_inpainting": Stage(
        partial(_finetuned, "stage2_inpainting", "inpainting"),
        (CHECKPOINT, _FILES["inpainting"]),
        (_FILES["stage2_inpainting"],),
    ),
    "controlnet": Stage(_controlnet, (CHECKPOINT,), (CONTROLNET,)),
    "restorers": Stage(_restorers, (CHECKPOINT, _FILES["stage2_inpainting"]), tuple(RESTORERS.values())),
    "language": Stage(
        _language,
        (),
        _LANGUAGE_FILES,
    ),
    "gill": Stage(_gill, (CHECKPOINT, *_LANGUAGE_FILES), (GILL_FILE, GILL_DECISION_FILE)),
    "embedding": Stage(
        _embedding,
        (CHECKPOINT, *_LANGUAGE_FILES),
        tuple(f"{EMBEDDING}/{name}" for name in (EMBEDDING_WEIGHTS, EMBEDDING_CONFIG)),
    ),
    "check": Stage(_check, (CHECKPOINT, READER, _FILES["stage2"]), (CHECK,)),
}


def _paint(
    context: BuildContext,
    config: PainterConfig,
    minutes: float,
    components: Callable[[], Components],
    folder: Path,
    stage: Callable[..., Trainer] = Stage2,
) -> Path:
    source = context.painted(config.scenes)
    captions = captions_of(source.scenes, config.captions, context.recipe.workers)
    boxes = boxes_of(source.scenes, captions, context.recipe.workers) if config.training.box_loss else None
    pictures = WorldPictures(source, captions, boxes)
    cache = context.work / "cache" / "stage2" if config.training.cache else None
    settings = replace(config.training, cache=cache)
    return _run(
        minutes, settings.loop, lambda c: stage(replace(settings, loop=c), components(), pictures), folder
    )


def _run(minutes: float, loop: LoopConfig, make: Callable[[LoopConfig], Trainer], folder: Path) -> Path:
    """Train, for the loop's steps or, if minutes are given, for as many as take so long here; returns the result.

    A rehearsal measures it, and a resumed run keeps it.
    """
    if not minutes:
        return train(make(loop), loop, folder)
    kept = folder / "steps.json"
    if not kept.exists():
        rehearsal = replace(
            loop, steps=_REHEARSED, log_every=_REHEARSED // 2, sample_every=0, save_every=_REHEARSED
        )
        train(make(rehearsal), rehearsal, folder / "rehearsal")
        rate = read_log(folder / "rehearsal" / "log.jsonl")[-1]["examples_per_second"]
        write_text(kept, json.dumps(max(int(minutes * 60 * rate / loop.batch), 1)))
    loop = replace(loop, steps=json.loads(kept.read_text(encoding="utf-8")))
    return train(make(loop), loop, folder)


def _components(unet: Any, text_encoder: Any, autoencoder: Any, loop: LoopConfig) -> Components:
    from llmga.text import clip_tokenizer

    if loop.mixed_precision == "bf16":
        autoencoder.encoder = InBf16(autoencoder.encoder)
    return Components(unet, autoencoder, (text_encoder,), (clip_tokenizer(),), dict(SCHEDULER))


def _load_autoencoder(path: Path) -> Any:
    from safetensors.torch import load_file

    net = new_autoencoder()
    net.load_state_dict({name: value.float() for name, value in load_file(path).items()})
    return narrowed(net.eval())


def _copy(file: Path, to: Path) -> None:
    to.parent.mkdir(parents=True, exist_ok=True)
    to.write_bytes(file.read_bytes())


def _last_row(folder: Path) -> dict[str, Any]:
    return read_log(folder / "log.jsonl")[-1]
