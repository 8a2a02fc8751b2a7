"""Concurrent requests to a language model with a resumable answer log.

Each raw reply is appended to a file as soon as it arrives. A build that was killed resumes from there; a line that
the kill cut off is dropped and its question is asked again.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

from PIL import Image

from ..chat.conversation import Conversation, Picture
from ..chat.engines.base import ChatEngine, Sampling
from ..chat.engines.endpoint import EndpointError
from ..files.writing import write_bytes
from ..images import read_picture

PICTURE_SIDE = 1024  # pixels; vision models see no more
MAX_FAILURES = 5

OnAnswer = Callable[[int, int], None]
"""``on_step(done, total)``, called after each answer; an exception ends the build and keeps the answers."""


@dataclass(frozen=True)
class Question:
    """One request; ``key`` is its identity from run to run."""

    key: str
    text: str
    picture: Path | None = None


@dataclass(frozen=True)
class Answer:
    """Outcome of a question: the raw reply, or why its image cannot be read.

    Args:
        picture_sha256: of the file that was shown; "" where none was.
        cut: the reply was cut off before the model had finished (see ``Said.cut``).
    """

    reply: str = ""
    unreadable: str = ""
    picture_sha256: str = ""
    cut: bool = False


class AnswerLog:
    """The answers so far, as a JSON-lines file on disk.

    Raises:
        ValueError: the file was begun with other settings, or is damaged before its last line.
    """

    def __init__(self, path: Path, settings: Mapping[str, Any]) -> None:
        self._path = path
        self.answers: dict[str, Answer] = {}
        head = json.dumps({"settings": settings}, ensure_ascii=False)
        whole = self._read_whole_lines()
        if not whole:
            path.write_text(head + "\n", encoding="utf-8", newline="\n")
            return
        begun, *lines = whole
        if begun != head:
            raise ValueError(
                f"{path} was begun with other settings; choose another 'out', or restore {begun[:500]}"
            )
        for number, line in enumerate(lines, start=2):
            try:
                entry = json.loads(line)
                key = entry.pop("key")
                self.answers[key] = Answer(**entry)
            except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
                raise ValueError(f"{path} is damaged in line {number}: {error}") from error

    def add(self, key: str, answer: Answer) -> None:
        self.answers[key] = answer
        with self._path.open("a", encoding="utf-8", newline="\n") as file:
            file.write(json.dumps({"key": key, **asdict(answer)}, ensure_ascii=False) + "\n")

    def _read_whole_lines(self) -> list[str]:
        if not self._path.exists():
            return []
        whole, _, cut = self._path.read_bytes().rpartition(b"\n")
        if cut:
            write_bytes(self._path, whole + b"\n" if whole else b"")
        return whole.decode("utf-8").split("\n") if whole else []


class _Stopped(BaseException):
    """Raised inside running requests to end them when the build ends."""


class _MissingPictureError(Exception):
    """Raised for a question whose picture file is not there or may not be read; the file says nothing of itself."""


def ask_all(
    questions: Sequence[Question],
    engine: ChatEngine,
    log: AnswerLog,
    *,
    sampling: Sampling,
    concurrency: int,
    on_step: OnAnswer,
) -> dict[str, str]:
    """Ask the questions that the log does not answer yet; return those that failed, each with its error.

    A failed question is not in the log, so the next run asks it again. So is one whose answer in the log is about another
    picture, by the file's SHA-256; a question whose picture file is missing fails. The seed of each follows from its key.

    Raises:
        ValueError: the engine cannot see pictures.
        EndpointError: ``MAX_FAILURES`` questions failed in a row, so the endpoint is taken to be down.
    """
    if not 1 <= concurrency <= 64:
        raise ValueError(f"'concurrency' must be between 1 and 64, got {concurrency}")
    open_questions = [question for question in questions if not _is_answered(question, log)]
    waiting = iter(open_questions)
    stop = threading.Event()
    failed: dict[str, str] = {}
    in_a_row, done = 0, len(questions) - len(open_questions)
    running: dict[Future[Answer], Question] = {}
    with ThreadPoolExecutor(concurrency) as pool:
        try:
            while True:
                for question in islice(waiting, concurrency - len(running)):
                    before = log.answers.get(question.key)
                    running[pool.submit(_ask, question, before, engine, sampling, stop)] = question
                if not running:
                    return failed
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    question = running.pop(future)
                    try:
                        answer = future.result()
                    except _MissingPictureError as error:
                        failed[question.key] = str(error)
                    except EndpointError as error:
                        failed[question.key] = str(error)
                        in_a_row += 1
                        if in_a_row == MAX_FAILURES:
                            raise
                    else:
                        if answer is not log.answers.get(question.key):
                            log.add(question.key, answer)
                            in_a_row = 0
                    done += 1
                    on_step(done, len(questions))
        finally:
            stop.set()


def _is_answered(question: Question, log: AnswerLog) -> bool:
    """Whether the log's answer stands without a look at a file: one about a picture is compared with it first."""
    answer = log.answers.get(question.key)
    return answer is not None and question.picture is None and not answer.picture_sha256


def _ask(
    question: Question, before: Answer | None, engine: ChatEngine, sampling: Sampling, stop: threading.Event
) -> Answer:
    """The answer to a question: ``before``, if the same picture was shown for it, else a new one."""

    def on_text(_: str) -> None:
        if stop.is_set():
            raise _Stopped

    pictures, sha256 = (), ""
    if question.picture is not None:
        try:
            sha256 = hashlib.sha256(question.picture.read_bytes()).hexdigest()
            if before is not None and before.picture_sha256 == sha256:
                return before
            pictures = (_load_picture(question.picture),)
        except OSError as error:
            raise _MissingPictureError(f"the picture cannot be read: {error}") from error
        except ValueError as error:
            return Answer(unreadable=type(error.__cause__ or error).__name__, picture_sha256=sha256)
    asked = Conversation().say("user", question.text, pictures)
    seed = int.from_bytes(hashlib.sha256(f"{sampling.seed}:{question.key}".encode()).digest()[:8], "big")
    said = engine.generate(asked, replace(sampling, seed=seed), on_text)
    # Of an unfinished thought nothing is a caption; the empty reply is then cleaned away.
    return Answer("" if said.unfinished else said.answer, picture_sha256=sha256, cut=bool(said.cut))


def _load_picture(path: Path) -> Picture:
    image = read_picture(path)
    image.thumbnail((PICTURE_SIDE, PICTURE_SIDE), Image.Resampling.LANCZOS)
    return Picture.from_pil(image)
