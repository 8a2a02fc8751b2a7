"""Figure 5 of the LLMGA paper on the miniature: quality by turn of words, of an embedding for them, and of GILL."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from llmga.chat import Conversation, Sampling, respond
from llmga.chat.folders import load_local_engine
from llmga.evaluate import Estimate, rate, table, write_json
from llmga.evaluate.plots import plot_lines
from llmga.gill import GILL
from llmga.gill.embedding import EmbeddingEngine, load_embedding_head
from llmga.gill.transcript import prompt_of

from ..files import CHECKPOINT, EMBEDDING, LANGUAGE, READER
from ..models.embedding import TURNS, EditTurn, conversation_of_edits, without_words
from ..models.narrow_taesd import narrowed
from ..models.painter import load_pipeline
from ..models.reader import Reading, load_reader
from ..models.sampling import PaintConfig, paint
from ..world.dataset import ATTRIBUTES
from ..world.scene import PLACES
from .gill import conditioning_of, load_miniature_gill
from .painter import truth_of

RESULT = "check_turns.json"
HISTORY = 5
"""Earlier exchanges that the chat is shown: with its reply an exchange has about 300 tokens, and it reads 2,048 in all."""
METHODS_OF_TURNS = ("LLMGA", "LLMGA Embedding", "GILL")
OnDone = Callable[[int, int], object]


@dataclass(frozen=True)
class TurnsConfig(PaintConfig):
    count: int = 64
    """Conversations; each gives one picture of each method at each turn."""
    turns: int = TURNS


def check_turns(
    out: Path, config: TurnsConfig, on_done: OnDone = lambda done, of: None
) -> dict[str, list[Estimate]]:
    """The share of what was asked for that is in the picture of each turn, for each method, from the same noise; writes
    ``check_turns.json``.

    What is asked for is each object, at its place, in its colour and shape, and the background.

    Raises:
        FileNotFoundError: one of the miniature's files is missing.
    """
    pipeline, reader = load_pipeline(out / CHECKPOINT), load_reader(out / READER)
    narrowed(pipeline.vae)
    talks = whole_talks(config.count, config.turns, config.seed)
    made = prompts_by_method(out, talks, on_done)
    results: dict[str, list[Estimate]] = {name: [] for name in METHODS_OF_TURNS}
    for turn in range(config.turns):
        truth = truth_of([talk[turn].scene for talk in talks])
        for name in METHODS_OF_TURNS:
            pictures = [_painted(pipeline, made[name][i][turn], i, config) for i in range(len(talks))]
            results[name].append(agreement(reader.read(torch.cat(pictures)), truth))
    write_json(out / RESULT, {"config": config, "results": results})
    return results


def prompts_by_method(
    out: Path, talks: Sequence[Sequence[EditTurn]], on_done: OnDone = lambda done, of: None
) -> dict[str, list[list[str | torch.Tensor]]]:
    """What each method gives the painter at each turn: a prompt in words, or text states (rows, dim)."""
    engine = load_local_engine(out / LANGUAGE, torch.float32)
    embedding = EmbeddingEngine(engine, load_embedding_head(out / EMBEDDING))
    gill = load_miniature_gill(out)
    made: dict[str, list[list[str | torch.Tensor]]] = {name: [] for name in METHODS_OF_TURNS}
    for number, talk in enumerate(talks):
        on_done(number, len(talks))
        made["LLMGA"].append(in_words(engine, talk))
        made["LLMGA Embedding"].append(
            [embedding.prompt_embedding(without_words(talk[: turn + 1])) for turn in range(len(talk))]
        )
        made["GILL"].append(
            [conditioning_of(gill, gill_prompt(gill, talk[: turn + 1])) for turn in range(len(talk))]
        )
    on_done(len(talks), len(talks))
    return made


def in_words(engine: Any, talk: Sequence[EditTurn]) -> list[str | torch.Tensor]:
    """The prompt of each turn, in a conversation with the model's own last replies; a reply without one is the prompt."""
    chat, prompts = Conversation(), []
    sampling = Sampling(temperature=0.0, max_new_tokens=400)
    for turn in talk:
        options: dict[str, Any] = {"task": "chat", "instruction": turn.asked, "policy": "whole_reply"}
        reply = respond(engine, chat, sampling=sampling, on_text=lambda _: None, **options)
        chat = replace(reply.conversation, turns=reply.conversation.turns[-2 * HISTORY :])
        prompts.append(reply.prompt or reply.text)
    return prompts


def gill_prompt(gill: GILL, talk: Sequence[EditTurn]) -> list[Any]:
    """The requests one behind the other, with GILL's own picture tokens between them."""
    chat = Conversation()
    for number, turn in enumerate(talk):
        chat = chat.say("assistant", gill.img_text) if number else chat
        chat = chat.say("user", turn.asked)
    return prompt_of(gill, chat, "plain")


def agreement(reading: Reading, truth: torch.Tensor) -> Estimate:
    """Of what (B) pictures were asked to hold, the share that is read: objects as a whole, and backgrounds."""
    asked = truth[:, :-1].unflatten(1, (len(PLACES), len(ATTRIBUTES)))
    wanted = asked[..., 0] >= 0
    right = reading.present & wanted
    for k, (name, values) in enumerate(reading.attributes.items()):
        if name in ("shape", "colour"):
            right = right & (values == asked[..., k])
    background = (reading.background == truth[:, -1]).long()
    return rate(right.sum(1) + background, wanted.sum(1) + 1)


def turns_table(results: Mapping[str, Sequence[Estimate]]) -> str:
    """A line for each method, a column for each turn."""
    rows = {
        name: {f"turn {i + 1}": value for i, value in enumerate(values)} for name, values in results.items()
    }
    return table(rows)


def plot_turns(results: Mapping[str, Sequence[Estimate]], path: Path) -> None:
    """Draw quality by turn as PNG, one line for each method, with a bar of one standard error up and down."""
    title = "share of what was asked for that is in the picture, ± one standard error"
    ticks = [str(turn + 1) for turn in range(max(map(len, results.values())))]
    plot_lines(results, path, title, ticks, "turn", (0.0, 1.0))


def whole_talks(count: int, turns: int, seed: int) -> list[list[EditTurn]]:
    """So many conversations that reach the last turn.

    Raises:
        ValueError: too few do.
    """
    talks: list[list[EditTurn]] = []
    number = 0
    while len(talks) < count:
        talk = conversation_of_edits(seed * 70_000_000 + number, turns, "validation")
        talks += [talk] * (len(talk) == turns)
        number += 1
        if number > 50 * count:
            raise ValueError(f"of {number} conversations only {len(talks)} reach turn {turns}; lower 'turns'")
    return talks


def _painted(pipeline: Any, given: str | torch.Tensor, number: int, config: TurnsConfig) -> torch.Tensor:
    """One picture (1, 3, H, W); its noise follows from the conversation's number alone."""
    one = PaintConfig(config.steps, config.guidance, config.batch, config.seed * 1_000_003 + number)
    if isinstance(given, str):
        return paint(pipeline, [given], one)
    return paint(pipeline, [""], one, contexts=given[None])
