"""Captions for a folder of pictures, as ``NAME.txt`` beside each, which is what trainers of LoRAs read.

A caption is written as soon as there is one, so an interrupted run goes on where it stopped; a picture that cannot be read
or described is listed with its reason, and the others still get their captions.
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from ..files.writing import write_text
from ..images import read_picture
from .assistant import Reply, respond
from .batch import MAX_FAILURES_IN_A_ROW, StopAfterFailures
from .conversation import Conversation, Picture
from .engines.base import CUT_REASONS, ChatEngine, OnText, Sampling
from .engines.endpoint import EndpointError
from .refusal import is_refusal
from .tags import count_closed

CAPTIONED = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff"})
"""Suffixes of the files that get a caption."""
MAX_EXCLUDED = 100
_UNSPACED = (
    "\u0e00-\u109f\u1100-\u11ff\u1780-\u17ff"
    "\u3005-\u30ff\u3400-\u9fff\uac00-\ud7ff\uf900-\ufaff\U00020000-\U0003ffff"
)
"""Thai, Lao, Tibetan, Burmese, Khmer, Chinese, Japanese; and Korean, whose particles stand at the word."""
_SEEDS = 2**64
_ANOTHER_SEED = 0x9E3779B97F4A7C15
"""Added to the seed where a caption is asked for again."""


@dataclass(frozen=True)
class CaptionedFolder:
    """What ``caption_folder`` did; pictures are named by their path below the folder."""

    written: dict[str, str]
    """The new captions by picture."""
    skipped: tuple[str, ...]
    """Pictures that had a caption already."""
    failures: tuple[str, ...]
    """A line for each picture without a caption: its name and why."""

    def report(self) -> str:
        """The counts and the failures, for a person."""
        counts = f"{len(self.written)} captions written, {len(self.skipped)} pictures had one, {len(self.failures)} failed"
        return "\n".join([counts, *self.failures])


def caption_folder(
    engine: ChatEngine,
    folder: Path,
    *,
    sampling: Sampling,
    trigger: str = "",
    exclude: Sequence[str] = (),
    overwrite: bool = False,
    task: Any = "describe",
    instruction: str = "",
    on_step: Callable[[int, int], Any] = lambda i, n: None,
    on_text: OnText = lambda text: None,
    **settings: Any,
) -> CaptionedFolder:
    """Describe every picture in a folder and the folders in it, and write each caption beside its picture.

    Picture ``i`` in the order of paths has the seed ``seed + i``, also where earlier ones are skipped, so a run that was
    interrupted and one that was not give the same captions. A caption is one line.

    Args:
        trigger: put in front of each caption with a comma, unless the caption says it.
        exclude: words and phrases that no caption may hold. They are named in the request; a caption that holds one is asked
            for once more, and is a failure if it still does. So is a refusal. A caption that is cut off in the middle is a
            failure at once, and not written: with more ``max_new_tokens`` the next run asks again.
        overwrite: also where there is a caption.
        task, instruction: as ``respond`` takes them.
        on_step: called before each picture and at the end with how many are done, and of how many; may raise.
        on_text: as ``respond`` has it.
        settings: what else ``respond`` takes: policy, language, style.

    Returns:
        What was written, skipped and failed. After three endpoint errors in a row, or three captions in a row that could
        not be written, the rest is not asked.

    Raises:
        NotADirectoryError: there is no such folder.
        ValueError: it holds no picture, or a value is not allowed.
    """
    if not folder.is_dir():
        raise NotADirectoryError(f"there is no folder {folder}; 'folder' must hold the pictures")
    excluded = _checked(exclude)
    pictures = list(pictures_below(folder))
    if not pictures:
        raise ValueError(f"folder {folder.name!r} holds no picture ({', '.join(sorted(CAPTIONED))})")
    settings.setdefault("policy", "whole_reply")
    job = _Job(engine, task, _request(instruction, excluded), excluded, on_text, settings)
    written: dict[str, str] = {}
    skipped: list[str] = []
    failures: list[str] = []
    owners: dict[str, str] = {}
    unwritten = 0  # in a row
    engine_calls = StopAfterFailures()
    for i, path in enumerate(pictures):
        on_step(i, len(pictures))
        name, place = path.relative_to(folder).as_posix(), path.with_suffix(".txt")
        first = owners.setdefault(file_key(place, like=path), name)
        if first != name:
            failures.append(f"{name}: {place.name} is the caption of {first}; rename one of the two pictures")
        elif place.exists() and not overwrite:
            skipped.append(name)
        elif unwritten == MAX_FAILURES_IN_A_ROW:
            failures.append(f"{name}: not asked, because {unwritten} captions in a row could not be written")
        else:
            own = replace(sampling, seed=(sampling.seed + i) % _SEEDS)
            try:
                caption = with_trigger(engine_calls.call(partial(job.caption, path, own)), trigger)
            except (EndpointError, ValueError, OSError) as error:
                failures.append(f"{name}: {error}")
                continue
            try:
                write_text(place, caption + "\n")
                written[name] = caption
                unwritten = 0
            except OSError as error:
                failures.append(f"{name}: {error}")
                unwritten += 1
    on_step(len(pictures), len(pictures))
    return CaptionedFolder(written, tuple(skipped), tuple(failures))


def pictures_below(folder: Path) -> Iterator[Path]:
    """The picture files of a folder and the folders in it, in the order of their paths, without hidden ones."""
    for root, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            path = Path(root) / name
            if not name.startswith(".") and path.suffix.lower() in CAPTIONED and path.is_file():
                yield path


def file_key(path: Path, like: Path) -> str:
    """What two paths of one file have in common on the disk of ``like``, a file in the same folder.

    Disks of Windows and macOS, and many that are shared, take "A.txt" and "a.txt" for one file.
    """
    other_case = like.with_name(like.name.swapcase())
    try:
        ignores_case = other_case.samefile(like) and other_case.name not in os.listdir(like.parent)
    except OSError:
        ignores_case = False
    return unicodedata.normalize("NFC", str(path)).casefold() if ignores_case else str(path)


def with_trigger(caption: str, trigger: str) -> str:
    """The caption with the trigger word in front, unless it holds it."""
    trigger = " ".join(trigger.split()).strip(" ,")
    return caption if not trigger or _holds(caption, trigger) else f"{trigger}, {caption}"


@dataclass(frozen=True)
class _Job:
    engine: ChatEngine
    task: Any
    instruction: str
    excluded: tuple[str, ...]
    on_text: OnText
    settings: dict[str, Any]

    def caption(self, path: Path, sampling: Sampling) -> str:
        """One line about the picture.

        Raises:
            ValueError: the picture cannot be read, the model refuses, both of its captions hold an excluded phrase, or one
                is cut off.
        """
        picture = Picture.from_pil(read_picture(path, background="white"))
        again = replace(sampling, seed=(sampling.seed + _ANOTHER_SEED) % _SEEDS)
        problem = ""
        for own in (sampling, again):
            reply = respond(
                self.engine, Conversation(), task=self.task, instruction=self.instruction, pictures=(picture,),
                sampling=own, on_text=self.on_text, **self.settings,
            )  # fmt: skip
            if reply.cut and not self._is_whole(reply):
                raise ValueError(f"the caption is cut off and not written: {CUT_REASONS[reply.cut]}")
            caption = " ".join((reply.prompt or reply.text).split())
            problem = self._problem(caption)
            if not problem:
                return caption
        raise ValueError(f"{problem}, also when asked again; try another seed")

    def _is_whole(self, reply: Reply) -> bool:
        """Whether the caption of a reply that was cut off stands between two tags, before that place.

        A closing tag counts only where the engine was not made to write it, as two policies do where the room ends.
        """
        free = self.settings["policy"] not in ("ask_again", "error")
        return free and count_closed(reply.conversation.turns[-1].text) > 0

    def _problem(self, caption: str) -> str:
        """Why this must not be a caption, or ""."""
        if is_refusal(caption):
            return f"the model refuses ({caption[:120]!r})"
        found = [phrase for phrase in self.excluded if _holds(caption, phrase)]
        return f"the caption says {', '.join(map(repr, found))}, which is excluded" if found else ""


def _request(instruction: str, excluded: Sequence[str]) -> str:
    avoid = f"Do not mention any of these: {'; '.join(excluded)}." if excluded else ""
    return "\n".join(filter(None, [instruction.strip(), avoid]))


def _checked(exclude: Sequence[str]) -> tuple[str, ...]:
    phrases = tuple(dict.fromkeys(filter(None, (" ".join(one.split()) for one in exclude))))
    if len(phrases) > MAX_EXCLUDED:
        raise ValueError(f"exclude names {len(phrases)} phrases, at most {MAX_EXCLUDED} are allowed")
    return phrases


def _holds(text: str, phrase: str) -> bool:
    """Whether the phrase stands in the text as whole words, upper or lower case.

    A letter of a script that writes its words together neither begins nor ends one: there the phrase counts anywhere.
    """
    letter = rf"[^\W{_UNSPACED}]"
    begins, ends = (re.match(letter, edge) is not None for edge in (phrase[0], phrase[-1]))
    before, behind = rf"(?<!{letter})" * begins, rf"(?!{letter})" * ends
    return re.search(f"{before}{re.escape(phrase)}{behind}", text, re.IGNORECASE) is not None
