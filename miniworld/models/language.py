"""Training of the miniature's language model: vocabulary, vision tower, then stage 1 with the tower frozen.

The tower is CLIP-style and learns to name what stands where (a stand-in for CLIP's own training). Then the
real stage 1 trains projector and decoder together on conversations; a projector phase of its own would teach little,
for the decoder is as new as the projector.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import asdict, dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from llmga.chat.judge import YES_NO_SYSTEM_PROMPT
from llmga.chat.tasks import SYSTEM_PROMPT
from llmga.train import LoopConfig, train
from llmga.train.log import read_log
from llmga.train.stage1 import Stage1, Stage1Config
from llmga.train.turns import IGNORED, TurnEncoder

from ..world.dataset import Painted, Scenes, in_processes, painted
from ..world.dialogues import DATA_SETS, Asked, Talk
from ..world.scene import choose
from .chat_folder import new_llava, write_processor
from .projector import align
from .tokenised import Dialogues, Row, load_rows, save_rows
from .vision import VisionTrainer

_TEXTS = 3000  # conversations that the words are taken from
_PHASE = 10_000_000  # conversations that the seeds of a phase leave room for
_TOWER = "eyes/result/tower.safetensors"


@dataclass(frozen=True)
class TrainingPhase:
    """Conversations, and how long they are learned from."""

    dialogues: int
    loop: LoopConfig
    exchanges: int = 8
    """The most that a conversation has."""
    max_length: int = 2048
    """Tokens of a conversation."""
    tokens: int = 0
    """An example is a bundle of conversations of like length, together about so many tokens; 0: one conversation."""
    kinds: tuple[Asked, ...] = ()
    """Only such exchanges, each about a new scene; none: whatever a conversation brings."""
    objects: int = 8
    """The most that a scene may have."""

    def is_cut(self, cut: str) -> bool:
        """Whether it has less to learn of where one of ``dialogues.DATA_SETS`` is cut ("" cuts nothing)."""
        return bool(cut) and not (self.kinds and DATA_SETS[cut].isdisjoint(self.kinds))


@dataclass(frozen=True)
class LanguageConfig:
    scenes: Scenes
    dialogues: int
    eyes: LoopConfig
    loop: LoopConfig
    max_length: int = 1280
    """Tokens of a training conversation."""
    exchanges: int = 8
    """The most that one has."""
    tokens: int = 0
    """See ``TrainingPhase``."""
    first: tuple[TrainingPhase, ...] = ()
    """What is learned before that, such as short conversations: what they teach is learned faster from them."""
    facts: float = 1.0
    """How much more than others the words count that tell facts (see ``tokenised.counts_of``)."""
    align: int = 4000
    """Steps in which the projector alone learns to say the patches in words (see ``align``)."""
    workers: int = 0
    """Processes that write conversations; 0 takes one per core."""

    @property
    def phases(self) -> tuple[TrainingPhase, ...]:
        """All, in their order."""
        return *self.first, TrainingPhase(
            self.dialogues, self.loop, self.exchanges, self.max_length, self.tokens
        )

    def folder(self, number: int) -> str:
        """Where phase ``number`` leaves its checkpoints; the last is stage 1 as others know it."""
        return "stage1" if number == len(self.first) else f"lesson-{number}"


def train_language(
    out: Path, config: LanguageConfig, cache: Path, cut: str = "", common: Path | None = None
) -> Path:
    """Train everything from nothing, or go on where it was left.

    Args:
        out: gets ``processor/``, ``eyes/``, ``lesson-0/`` … for what comes ``first``, and ``stage1/``.
        cache: the folder that painted scenes are kept in.
        cut: one of ``dialogues.DATA_SETS``, of which a tenth is left.
        common: gets, in the place of ``out``, all that comes before the first phase that draws what is asked for, or that
            has less to learn for the cut; trainings that differ in ``cut`` alone share it.

    Returns:
        The finished model, a transformers folder in float16.
    """
    common = common or out
    processor_folder = common / "processor"
    if not (processor_folder / "tokenizer.json").exists():
        count = min(_TEXTS, config.dialogues)
        texts = in_processes(partial(_texts, config), count, config.workers, "words")
        write_processor(processor_folder, texts)
    pictures = painted(config.scenes, cache, config.workers)
    tower = common / _TOWER
    if not tower.exists():
        train(VisionTrainer(config.eyes, pictures), config.eyes, common / "eyes")
    encoder = _encoder(processor_folder, config.max_length)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.loop.seed)
        net = new_llava(encoder.processor.tokenizer)
    _load_tower(net, tower)
    _aligned(net, encoder.processor.tokenizer, pictures, config, common / "projector.safetensors")
    # The same net all the way; a phase that is over gives it what it had learned by its end.
    result = out
    for number, phase in enumerate(config.phases):
        common = common if phase.kinds and not phase.is_cut(cut) else out
        folder = common / config.folder(number)
        result = _teach(net, config, number, pictures, processor_folder, folder, cache, cut)
    # In the form that every transformers reads, instead of the installed version's.
    for path in processor_folder.iterdir():
        shutil.copyfile(path, result / path.name)
    (result / "chat_template.jinja").unlink(missing_ok=True)
    return result


def take_vision_and_words(chat: Path, out: Path) -> None:
    """Take the vision tower and the vocabulary of a finished chat, as ``train_language`` leaves them in ``out`` before the
    lessons.

    Raises:
        FileNotFoundError: ``chat`` holds no model.
        ValueError: ``out`` holds another vocabulary or tower, with which a training was begun.
    """
    from safetensors.torch import save
    from transformers import LlavaForConditionalGeneration

    if not (chat / "model.safetensors").is_file():
        raise FileNotFoundError(f"{chat} holds no chat: model.safetensors is missing")
    net = LlavaForConditionalGeneration.from_pretrained(chat, local_files_only=True).float()
    tower, words = save(_tower(net).state_dict()), (chat / "tokenizer.json").read_bytes()
    for path, wanted in ((out / _TOWER, tower), (out / "processor" / "tokenizer.json", words)):
        if path.exists() and path.read_bytes() != wanted:
            raise ValueError(
                f"{path} is not that of {chat}: a training was begun with it; give another --work"
            )
    (out / "processor").mkdir(parents=True, exist_ok=True)
    for path in chat.glob("*.json"):
        if path.name not in ("config.json", "generation_config.json"):
            shutil.copyfile(path, out / "processor" / path.name)
    (out / _TOWER).parent.mkdir(parents=True, exist_ok=True)
    (out / _TOWER).write_bytes(tower)


def figures(out: Path, config: LanguageConfig) -> dict[str, Any]:
    """Report of a finished ``train_language``, of types that JSON knows.

    Returns:
        Minutes of training (reading the data aside) and the last row of the log, of the vision tower and of each phase;
        the seed; and the bytes of the finished folder.
    """
    report: dict[str, Any] = {"seed": config.loop.seed}
    for name in ("eyes", *map(config.folder, range(len(config.phases)))):
        rows = read_log(out / name / "log.jsonl")
        report[name] = {"minutes": round(sum(row["seconds"] for row in rows) / 60, 1), **rows[-1]}
    report["bytes"] = sum(path.stat().st_size for path in (out / "stage1" / "result").iterdir())
    return report


def _teach(
    net: Any,
    config: LanguageConfig,
    number: int,
    pictures: Painted,
    processor: Path,
    folder: Path,
    cache: Path,
    cut: str,
) -> Path:
    phase = config.phases[number]
    rows = _kept_rows(config, processor, number, cache, cut if phase.is_cut(cut) else "")
    encoder = _encoder(processor, phase.max_length)
    stage1 = Stage1Config(phase.loop, max_length=phase.max_length, export_dtype="float16")
    conversations = Dialogues(rows, pictures, encoder, phase.tokens, config.facts)
    return train(Stage1(stage1, net, encoder.processor, conversations), phase.loop, folder)


def _load_tower(net: Any, path: Path) -> None:
    from safetensors.torch import load_file

    _tower(net).load_state_dict(load_file(path))


def _tower(net: Any) -> Any:
    return next(module for name, module in net.named_modules() if name.rpartition(".")[2] == "vision_tower")


def _aligned(net: Any, tokenizer: Any, pictures: Painted, config: LanguageConfig, path: Path) -> None:
    """Give the net the projector of ``align``, made once."""
    from safetensors.torch import load_file, save_file

    name = "multi_modal_projector"
    projector = next(module for path, module in net.named_modules() if path.rpartition(".")[2] == name)
    if not path.exists():
        align(net, tokenizer, pictures, config.align, config.loop.seed)
        save_file({key: value.contiguous() for key, value in projector.state_dict().items()}, path)
    projector.load_state_dict(load_file(path))


@lru_cache(maxsize=1)
def _encoder(folder: Path, max_length: int) -> TurnEncoder:
    from transformers import AutoProcessor

    return TurnEncoder(AutoProcessor.from_pretrained(folder, local_files_only=True), max_length)


def _texts(config: LanguageConfig, part: range) -> list[str]:
    texts = []
    for i in part:
        talk = Talk(config.scenes, i)
        exchanges = talk.lesson(config.exchanges)
        said = "".join(f"USER: {e.asked} ASSISTANT: {e.reply}" for e in exchanges)
        texts.append(f"{SYSTEM_PROMPT.splitlines()[0]} USER: \n{said}")
    return texts


def _kept_rows(config: LanguageConfig, processor: Path, number: int, cache: Path, cut: str = "") -> list[Row]:
    """The conversations of a phase, written once: a run that was killed goes on at once."""
    phase, words = config.phases[number], (processor / "tokenizer.json").read_bytes()
    what = [asdict(config.scenes), number, phase.dialogues, phase.exchanges, phase.max_length]
    what += [*phase.kinds, *[phase.objects] * (phase.objects < 8), *[f"cut {cut}"] * bool(cut)]
    name = hashlib.sha256(json.dumps(what).encode() + words).hexdigest()[:20]
    path = cache / f"conversations-{name}.npz"
    if not path.exists():
        rows = in_processes(
            partial(_rows, config, processor, number, cut=cut),
            phase.dialogues,
            config.workers,
            "conversations",
        )
        partial_path = path.with_name(f".{path.name}")
        save_rows(rows, partial_path)
        partial_path.rename(path)
    return load_rows(path)


def _rows(
    config: LanguageConfig, processor_folder: Path, number: int, part: range, cut: str = ""
) -> list[Row]:
    phase = config.phases[number]
    encoder = _encoder(processor_folder, phase.max_length)
    rows = []
    for i in part:
        seed = number * _PHASE + i
        talk = Talk(config.scenes, seed, objects=phase.objects, cut=DATA_SETS.get(cut, frozenset()))
        exchanges = talk.lesson(choose(range(1, phase.exchanges + 1), seed, "exchanges"), phase.kinds)
        asks_whether = all(exchange.kind == "exists" for exchange in exchanges)
        usual = YES_NO_SYSTEM_PROMPT if asks_whether else SYSTEM_PROMPT
        system = choose((usual, usual, SYSTEM_PROMPT, ""), seed, "system")
        ids, labels = encoder.tokens([turn for exchange in exchanges for turn in exchange.turns], system)
        pictures = tuple(exchange.shown for exchange in exchanges if exchange.shown)
        learned = np.array(labels) != IGNORED
        rows.append(Row(np.array(ids, np.uint16), learned, pictures[: encoder.pictures_in(ids)]))
    return rows
