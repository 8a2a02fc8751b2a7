"""Hostile files through every loader, each in a forked child under an audit hook, with a limit of time and memory."""

from __future__ import annotations

import random
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tools import ROOT

from .. import entry_points, file_corpus, folder_corpus
from ..audit import own_roots, watched
from ..budget import Budget
from ..file_corpus import Change
from ..isolated import Ended, each, peak
from ..outcome import classify, place_of
from ..report import Counts, Finding, clipped

LIMIT = 12.0
MEMORY = 4 * 2**30
SPARE = 256 * 2**20  # bytes beyond twice the files that a load may take
THINGS = ("template", "config", "tokenizer", "conversation", "transcript")
"""What an error may name in place of the file."""


@dataclass(frozen=True)
class Loader:
    """A way in: what writes a good input into a folder, and what reads it; ``weights`` is where weights are in it."""

    name: str
    place: str
    read: Callable[[Path], Any]
    weights: str = ""


@dataclass(frozen=True)
class Case:
    loader: str
    file: str
    change: str
    seed: int

    def __str__(self) -> str:
        return f"{self.loader}: {self.file} with {self.change!r} (seed {self.seed})"


@dataclass(frozen=True)
class Result:
    outcome: str
    where: str = ""
    said: str = ""
    seconds: float = 0.0
    memory: int = 0
    size: int = 0
    ran: bool = False
    touched: tuple[str, ...] = ()


def run(budget: Budget, rng: random.Random) -> tuple[list[Finding], Counts]:
    findings, counts = [], Counts()
    good = Path(tempfile.mkdtemp(prefix="attack-good-"))
    loaders = write_good(good)
    for loader in loaders.values():
        loader.read(good / loader.place)  # imports once, before children are forked; and the good one is good
    changes = {(one.loader, one.file, one.change): change for one, change in corpus(loaders, good)}
    cases = plan(changes, rng)
    budget.restart(counts.ran)

    def work(case: Case) -> Result:
        return attempt(loaders[case.loader], good, case, changes[case.loader, case.file, case.change])

    for case, result in each(cases, work, budget, limit=LIMIT, memory=MEMORY):
        counts.ran["hostile files"] += 1
        findings += judged(case, result, counts)
    return findings, counts


def write_good(folder: Path) -> dict[str, Loader]:
    """A good input of every loader."""
    from miniworld.models.random_diffusion import write_inpainting_unet, write_restorer
    from miniworld.models.random_language import write_tiny_llava, write_tiny_text

    write_tiny_llava(folder / "llava", seed=0)
    write_tiny_text(folder / "text", seed=0)
    write_restorer(folder / "restorer" / "restorer.safetensors")
    write_inpainting_unet(folder / "unet")
    (folder / "history").mkdir()
    (folder / "history" / "history.json").write_text(history(), encoding="utf-8")
    (folder / "endpoints").mkdir()
    (folder / "endpoints" / "endpoints.json").write_text(
        '{"endpoints": {"a": {"url": "http://127.0.0.1:9/v1", "model": "m"}}}', encoding="utf-8"
    )
    return {
        one.name: one
        for one in (
            Loader("Model Loader, LLaVA", "llava", load_and_chat, "model.safetensors"),
            Loader("Model Loader, text", "text", load_and_chat, "model.safetensors"),
            Loader(
                "DiffRIR Loader",
                "restorer/restorer.safetensors",
                entry_points.load_restorer,
                "restorer.safetensors",
            ),
            Loader("UNet Loader", "unet", entry_points.find_unet, "diffusion_pytorch_model.safetensors"),
            Loader("Load History", "history/history.json", entry_points.read_history),
            Loader("endpoints.json", "endpoints/endpoints.json", entry_points.read_endpoints),
        )
    }


def history() -> str:
    from PIL import Image

    from llmga.chat import Conversation, Picture

    picture = Picture.from_pil(Image.new("RGB", (8, 8), "red"))
    return (
        Conversation()
        .say("user", "a star", (picture,))
        .say("assistant", "<gen_image> a star </gen_image>")
        .to_json()
    )


def load_and_chat(folder: Path) -> None:
    """A folder that loads must also chat, or say what is wrong."""
    from llmga.chat import Conversation, Sampling

    engine = entry_points.load_language_model(folder)
    engine.generate(
        Conversation().say("user", "a star"), Sampling(max_new_tokens=2, temperature=0.0), lambda _: None
    )


def corpus(loaders: dict[str, Loader], good: Path) -> Iterator[tuple[Case, Change]]:
    for loader in loaders.values():
        place = good / loader.place
        root = place if place.is_dir() else place.parent
        for path in sorted(root.rglob("*")):
            if path.is_file():
                name = path.relative_to(root).as_posix()
                for change, apply in changes_of(name, loader).items():
                    yield Case(loader.name, name, change, 0), apply


def changes_of(name: str, loader: Loader) -> dict[str, Change]:
    found: dict[str, Change] = dict(file_corpus.ANY_FILE)
    last = name.rpartition("/")[2]
    if name.endswith(".safetensors"):
        found |= file_corpus.SAFETENSORS
    if name.endswith(".json"):
        found |= {**folder_corpus.JSON_FILE, "BOM": folder_corpus.with_bom}
    sets = {
        "config.json": folder_corpus.CONFIG if loader.name == "Model Loader, LLaVA" else {},
        "processor_config.json": folder_corpus.PROCESSOR,
        "preprocessor_config.json": folder_corpus.PREPROCESSOR,
        "tokenizer.json": folder_corpus.TOKENIZER,
    }
    found |= {key: folder_corpus.edited(**values) for key, values in sets.get(last, {}).items()}
    if last == "chat_template.json":
        found |= {key: folder_corpus.template(text) for key, text in folder_corpus.TEMPLATES.items()}
    return found


def plan(changes: dict[tuple[str, str, str], Change], rng: random.Random) -> list[Case]:
    """Each change once in a random order, then those with chance in them again and again."""
    once = [Case(*key, rng.randrange(2**32)) for key in changes]
    rng.shuffle(once)
    chance = [key for key in changes if key[2] in ("cut", "flipped bits", "something after its end")]
    return once + [Case(*rng.choice(chance), rng.randrange(2**32)) for _ in range(20_000)]


def attempt(loader: Loader, good: Path, case: Case, change: Change) -> Result:
    """One load in this (forked) process."""
    folder = Path(tempfile.mkdtemp(prefix="attack-files-"))
    try:
        source = good / loader.place
        root = source if source.is_dir() else source.parent
        broken = folder / root.name
        file_corpus.copied(root, broken)
        change(broken / case.file, random.Random(case.seed))
        place = broken if source.is_dir() else broken / source.name
        size = sum(path.stat().st_size for path in broken.rglob("*") if path.is_file())
        return watch(loader, place, broken, size)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def watch(loader: Loader, place: Path, broken: Path, size: int) -> Result:
    before, started, error = peak(), time.perf_counter(), None
    with watched() as seen:
        try:
            loader.read(place)
        except BaseException as caught:
            error = caught
    seconds, memory = time.perf_counter() - started, peak() - before
    ran = bool(seen.started) or any(broken.rglob(file_corpus.CANARY))
    touched = tuple(sorted({*seen.outside(own_roots(ROOT)), *seen.outside_loopback()}))
    facts = {"seconds": seconds, "memory": memory, "size": size, "ran": ran, "touched": touched}
    if error is None:
        return Result("ok", **facts)
    names = [
        broken.name,
        place.name,
        *(path.name for path in broken.rglob("*")),
        "template",
        "config",
        "tokenizer",
    ]
    kind = classify(type(error).__name__, str(error), names) if isinstance(error, Exception) else "bare"
    where = place_of(error, (ROOT / "llmga",))
    return Result(kind, where, f"{type(error).__name__}: {error}"[:2000], **facts)


def judged(case: Case, result: Result | Ended, counts: Counts) -> list[Finding]:
    if isinstance(result, Ended):
        counts.ran[f"files {result.kind}"] += 1
        return [Finding(result.kind, f"{case.loader}: {case.change}", str(case), result.said)]
    counts.ran[f"files {result.outcome}"] += 1
    counts.measure(
        "seconds to refuse a file" if result.outcome != "ok" else "seconds to load", result.seconds
    )
    found = []
    if result.ran:
        found.append(Finding("code ran", case.loader, str(case)))
    found += [Finding("open outside", f"{case.loader}: {one}", str(case)) for one in result.touched]
    if result.memory > 2 * result.size + SPARE:
        said = f"{result.memory / 1e6:.0f} MB for {result.size / 1e6:.1f} MB of files"
        found.append(Finding("memory", f"{case.loader}: {case.change}", str(case), said))
    if result.outcome == "ok" and case.change in file_corpus.MUST_REFUSE and is_weights(case):
        found.append(Finding("wrongly accepted", f"{case.loader}: {case.change}", str(case)))
    if result.outcome in ("bare", "unnamed"):
        found.append(
            Finding(result.outcome, f"{case.loader}: {result.where}", str(case), clipped(result.said))
        )
    return found


def is_weights(case: Case) -> bool:
    """Whether the broken file holds weights; a tokenizer's file may be missing or cut and another one serve."""
    return case.file.endswith(".safetensors")
