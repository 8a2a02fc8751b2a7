"""Check of the chat: held-out scenes and wordings, asked through the library's own ``respond``."""

from __future__ import annotations

import multiprocessing
import os
import re
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, TypeVar

import torch
from PIL import Image

from llmga.chat import Conversation, Picture, Reply, Sampling, respond
from llmga.chat.engines.local import LocalEngine
from llmga.chat.folders import load_local_engine
from llmga.chat.tasks import TASKS
from llmga.evaluate import Estimate, rate, table

from ..world.captions import vague_caption
from ..world.dataset import Scenes
from ..world.dialogues import Asked, Shown, Talk
from ..world.edits import sample_edit
from ..world.facts import Facts, caption_facts, facts, kept
from ..world.records import RECORD_KINDS, sample_record
from ..world.render import render
from ..world.scene import choose
from ..world.small_talk import wish_of

T = TypeVar("T")

TURNS = 8
_SEED = 900_000_000  # far from the seeds of training
_SCENES = 100_000
_ONE = re.compile(r"<gen_image> [^<>]+ </gen_image>")
_SAID = re.compile(r"[^<>]*<gen_image> [^<>]+ </gen_image>")
_SEVERAL = re.compile(r"(?:[^<>]*<gen_image> [^<>]+ </gen_image>){2,}[^<>]*")
_NONE = re.compile(r"[^<>]+")
_EXPECTS = {
    "story": "several",
    "describe": "caption",
    "brief": "caption",
    "imagine": "caption",
    "complete": "caption",
    "talk": "anything",
}
_EXACT = ("question", "exists", "reading", "find", "changes")
_TAUGHT = tuple(TASKS[name] for name in (*RECORD_KINDS, "story", "change", "chat") if name in TASKS)
"""The chat node's tasks that the miniature knows; it was never taught logos and T-shirts."""
_TALKED: tuple[Asked, ...] = ("refine", "similar", "edit", "inpaint", "describe", "outpaint")


@dataclass(frozen=True)
class Answer:
    """One reply scored: whether it has the form that its task asks for, and the facts kept of those given."""

    name: str
    formed: bool
    kept: int
    given: int
    made: bool = False
    """Of an edit: it did what was asked (see ``edit_made``)."""


Results = dict[str, dict[str, Estimate | float]]


def check_chat(folder: Path, count: int, workers: int = 0, temperature: float = 0.2) -> Results:
    """Ask the model of a transformers folder ``count`` times for each task, and through ``count`` long conversations.

    Half of the scenes are validation scenes, half hold a colour-shape pair that training never shows; the requests are
    the chat node's own, edits and questions in held-out words, as all requests of long conversations are.

    Returns:
        By name of what was counted: its ``share``, of independent replies or conversations, and the ``target`` if it has
        one.
    """
    jobs = [(task.name, _SEED + i) for task in _TAUGHT for i in range(count)]
    answers = each_in_processes(partial(_answer, folder, temperature), jobs, workers, "answers")
    results: Results = {}
    for task in _TAUGHT:
        mine = [a for a in answers if a.name == task.name]
        results[f"form: {task.name}"] = {"share": rate([a.formed for a in mine])}
        if task.expects in ("one", "several"):
            results[f"form: {task.name}"]["target"] = 0.99
    targets = {"refine": 0.95, "describe": 0.80}
    for name in ("refine", "similar", "describe", "inpaint", "outpaint", "edit", "change", "chat"):
        shares = [a.kept / a.given for a in answers if a.name == name and a.given]
        results[f"facts kept: {name}"] = {"share": rate(shares)}
        if name in targets:
            results[f"facts kept: {name}"]["target"] = targets[name]
    for name, task in (("edits made", "edit"), ("changes made", "change")):
        results[name] = {"share": rate([a.made for a in answers if a.name == task]), "target": 0.80}
    seeds = [(_SEED + 500_000 + i,) for i in range(count)]
    talks = each_in_processes(partial(_talk, folder, temperature), seeds, workers, "conversations")
    for turn in range(TURNS):
        mine = [a for talk in talks for a in talk[turn : turn + 1]]
        results[f"turn {turn + 1}: form"] = {"share": rate([a.formed for a in mine]), "target": 0.99}
        shares = [a.kept / a.given for a in mine if a.given]
        results[f"turn {turn + 1}: facts kept"] = {"share": rate(shares)}
    return results


def chat_table(results: Results) -> str:
    """The results as text, a line for each."""
    return table(results, counts=True)


@lru_cache(maxsize=1)
def chat_engine(folder: Path) -> LocalEngine:
    torch.set_num_threads(1)
    return load_local_engine(folder, torch.float32)


def held_out_scenes(seed: int) -> Scenes:
    return Scenes(_SCENES, seed=seed, few=0.8, split="validation" if seed % 2 else "unseen_pair")


def each_in_processes(
    work: Callable[..., T], jobs: Sequence[tuple[Any, ...]], workers: int, name: str
) -> list[T]:
    """As ``dataset.in_processes``, for jobs of seconds."""
    from tqdm import tqdm

    workers = min(workers or os.cpu_count() or 1, len(jobs))
    if workers == 1:
        return [work(*job) for job in tqdm(jobs, desc=name)]
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
        waiting = [pool.submit(work, *job) for job in jobs]
        return [each.result() for each in tqdm(waiting, desc=name)]


def _answer(folder: Path, temperature: float, task: str, seed: int) -> Answer:
    """The chat node's own request about one held-out scene; in "chat", a question about a picture."""
    scene = held_out_scenes(seed)[choose(range(_SCENES), seed, task)]
    instruction, pictures, given, answer = "", (), Facts(()), ""
    edit = None
    if task == "story":
        instruction = wish_of(scene)
    elif task == "refine":
        instruction = vague_caption(scene, seed)
        given = caption_facts(instruction)
    elif task in ("edit", "change"):
        edit = sample_edit(scene, seed, held_out=True)
        instruction, pictures, given = edit.instruction, (render(scene).image,), facts(edit.target)
    elif task == "chat":
        record = sample_record("question", scene, seed, held_out=True)
        instruction, pictures, answer = record.instruction, record.pictures, record.reply
    else:
        record = sample_record(task, scene, seed)  # type: ignore[arg-type]
        instruction, pictures, given = record.wish, record.pictures, record.given
    conversation = Conversation()
    if task == "change":  # of the picture that the turn before was about
        before = ask(folder, temperature, conversation, "similar", "", pictures, seed)
        conversation, pictures = before.conversation if before else conversation, ()
    reply = ask(folder, temperature, conversation, task, instruction, pictures, seed)
    if task == "chat":
        return Answer(task, reply is not None, int(reply is not None and reply.text == answer), 1)
    scored = _scored(task, TASKS[task].expects, reply, given)
    if edit and reply:
        found = caption_facts(reply.prompt or reply.text)
        return replace(scored, made=edit_made(facts(edit.source), facts(edit.target), found))
    return scored


def edit_made(source: Facts, target: Facts, found: Facts) -> bool:
    """Whether every object that an edit brings or changes is found, in full, none that it removes, and its background."""
    gone = {one.place for one in source.objects} - {one.place for one in target.objects}
    new = {*target.objects} - {*source.objects}
    same = found.background == target.background
    return same and new <= {*found.objects} and not gone & {one.place for one in found.objects}


def _talk(folder: Path, temperature: float, seed: int) -> list[Answer]:
    """A conversation of ``TURNS`` requests in held-out words, each about a new picture or wish or the one before.

    What the model said stays in it, right or wrong. Nothing goes on from a refined wish: the model has filled in what
    was open as it liked, so what would be right is not known.
    """
    scenes = held_out_scenes(seed)
    talk = Talk(scenes, seed, held_out=True)
    conversation, answers = Conversation(), []
    kind = None
    for number in range(TURNS):
        fresh = number % 2 == 0 or kind == "refine"
        exchange = talk.next(choose(_TALKED, seed, number) if fresh else None)
        kind = exchange.kind
        pictures = (_picture(exchange.shown, scenes),) if exchange.shown else ()
        reply = ask(folder, temperature, conversation, "chat", exchange.asked, pictures, seed)
        if exchange.kind in _EXACT:
            answers.append(
                Answer(kind, reply is not None, int(reply is not None and reply.text == exchange.reply), 1)
            )
        else:
            answers.append(_scored(kind, _EXPECTS.get(kind, "one"), reply, exchange.given))
        conversation = reply.conversation if reply else conversation
    return answers


def prompt_for(
    folder: Path, temperature: float, task: str, instruction: str, picture: Image.Image, seed: int
) -> str:
    """The prompt that a first request about a picture gets; the instruction itself where there is none."""
    reply = ask(folder, temperature, Conversation(), task, instruction, (picture,), seed)
    return reply.prompt if reply and reply.prompt else instruction


def ask(
    folder: Path,
    temperature: float,
    conversation: Conversation,
    task: str,
    instruction: str,
    pictures: Sequence[Image.Image],
    seed: int,
) -> Reply | None:
    """The reply, or None where ``respond`` finds what the task needs missing."""
    try:
        return respond(
            chat_engine(folder),
            conversation,
            task=task,
            instruction=instruction,
            pictures=tuple(map(Picture.from_pil, pictures)),
            sampling=Sampling(seed=seed, temperature=temperature),
            policy="error",
            on_text=lambda text: None,
        )
    except ValueError:
        return None


def _scored(name: str, expects: str, reply: Reply | None, given: Facts) -> Answer:
    """``expects`` is as in ``chat.tasks.Task``."""
    if reply is None:
        return Answer(name, False, *kept(given, Facts(())))
    raw = reply.conversation.turns[-1].text
    one = (
        _SAID if name in ("edit", "change", "inpaint", "outpaint") else _ONE
    )  # it may say first what is changed or missing
    formed = {"one": one, "several": _SEVERAL}.get(expects, _NONE).fullmatch(raw) is not None
    return Answer(name, formed, *kept(given, caption_facts(reply.prompt or reply.text)))


def _picture(shown: Shown, scenes: Scenes) -> Image.Image:
    scene = scenes[shown.scene]
    return sample_record(shown.hole or "describe", scene, shown.hole_seed).pictures[0]
