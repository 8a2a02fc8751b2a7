"""Writers: what turns the words of an evaluation set into generation prompts, a chat engine or nothing at all.

An engine is named in a configuration as ``folder:PATH`` (a transformers folder or an official LLMGA checkpoint),
``endpoint:FILE#NAME`` (a record of an endpoints file), or ``package.module:function:path`` for one of your own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch
from PIL import Image

from ..chat import Conversation, Picture
from ..chat.assistant import respond
from ..chat.batch import MAX_FAILURES_IN_A_ROW
from ..chat.engines.base import ChatEngine, Sampling
from ..chat.engines.endpoint import EndpointError
from ..edit.instruction import rewrite
from ..images import from_pil, paint_hole_black, to_pil
from .cache_keys import existing
from .embedders import Request, request_pictures, request_text
from .named import named_function

_T = TypeVar("_T")
_TURN_SEED = 1_000_003  # far from the seeds of the items beside


@dataclass(frozen=True)
class ChatConfig:
    """A chat engine and how it is sampled."""

    engine: str = ""
    """``folder:PATH``, ``endpoint:FILE#NAME`` or ``package.module:function:path``; empty takes the caption as the prompt."""
    temperature: float = 0.2
    """LLMGA's own command line samples at 0.2; the paper does not say."""
    max_new_tokens: int = 512
    seed: int = 0

    @property
    def depends_on(self) -> tuple[Any, ...]:
        """The engine's folder or file, or what stands for its endpoint; nothing of one that is not there."""
        kind, _, path = self.engine.partition(":")
        if kind == "endpoint":
            return _answering(path)
        return existing(path if kind == "folder" else path.partition(":")[2])


def _answering(record: str) -> tuple[Any, ...]:
    """Of an endpoint, ``FILE#NAME``, what its replies depend on; nothing if there is no such record."""
    from ..chat.endpoints import find_endpoint

    file, _, name = record.rpartition("#")
    try:
        found = find_endpoint(Path(file), name)
    except ValueError:  # whoever asks it says so
        return ()
    return found.url, found.model, found.dialect.system, found.dialect.thinking, dict(found.dialect.extra)


@dataclass(frozen=True)
class WrittenPrompt:
    """A prompt, and what had to be done for it."""

    prompt: str
    source: str = ""
    """For an edit: what the picture shows before it."""
    fault: str = ""
    """Why the caption, or nothing, stands in the place of the engine's prompt; empty if it does not."""


def load_engine(spec: str) -> ChatEngine:
    """The engine that a configuration names; see the module.

    Raises:
        ValueError: the name is not of that form, or the engine cannot be loaded.
        FileNotFoundError: there is no such folder or file.
    """
    kind, _, path = spec.partition(":")
    if kind == "folder" and path:
        from ..chat.folders.registry import load_local_engine

        return load_local_engine(Path(path))
    if kind == "endpoint" and "#" in path:
        from ..chat.endpoints import find_endpoint
        from ..chat.engines.endpoint import EndpointEngine

        file, _, name = path.rpartition("#")
        return EndpointEngine(find_endpoint(Path(file), name))
    function, colon, inner = path.partition(":")
    if "." in kind and colon:
        return named_function(f"{kind}:{function}", "an engine")(Path(inner))
    raise ValueError(
        f"an engine must be named as folder:PATH, endpoint:FILE#NAME or package.module:function:path, got {spec!r}"
    )


class EngineCalls:
    """Calls of a chat engine. A request that an endpoint fails costs its item alone; ``MAX_FAILURES_IN_A_ROW`` end the run.

    A success and an error of any other kind end the row.
    """

    def __init__(self) -> None:
        self.failed_in_a_row = 0

    def call(self, ask: Callable[[], _T]) -> _T:
        """``ask()``.

        Raises:
            ValueError: the endpoint failed; the message is its own.
            EndpointError: it failed so often in a row that asking on would replace every answer.
        """
        failed, self.failed_in_a_row = self.failed_in_a_row + 1, 0
        try:
            return ask()
        except EndpointError as error:
            self.failed_in_a_row = failed
            if failed >= MAX_FAILURES_IN_A_ROW:
                raise EndpointError(
                    f"{failed} requests in a row failed, the last one so: {error}; once the endpoint answers, start the "
                    "run again: it goes on where it was left",
                    error.retry_in,
                ) from error
            raise ValueError(str(error)) from error


class Writer:
    """Writes prompts by a chat engine, which is loaded at the first one, or takes captions as they are.

    A reply without a prompt never stops an evaluation, nor does a request that fails: the caption is taken in its place,
    and the fault is said. Several failing requests in a row do, see ``EngineCalls``, and an engine that cannot be loaded.
    """

    def __init__(self, config: ChatConfig) -> None:
        self.config = config
        self._engine = lru_cache(1)(lambda: load_engine(config.engine))
        self.calls = EngineCalls()

    @property
    def asks(self) -> bool:
        """Whether an engine is asked at all."""
        return bool(self.config.engine)

    def converse(
        self, requests: Sequence[Request], plain: Sequence[str], task: str, seed: int
    ) -> list[WrittenPrompt]:
        """A prompt for each request of a conversation that goes on with the engine's own replies.

        Args:
            plain: the words that stand in the place of a prompt, one for each request.
            task: what each request is rendered as; ``chat`` says it as it is.
        """
        if not self.asks:
            return [WrittenPrompt(words) for words in plain]
        chat, written = Conversation(), []
        for turn, (request, words) in enumerate(zip(requests, plain, strict=True)):
            found, chat = self._reply(
                chat, task, request_text(request), request_pictures(request), words, seed + turn * _TURN_SEED
            )
            written.append(found)
        return written

    def plan(self, prompt: str, seed: int) -> WrittenPrompt:
        """The plan of a scene as JSON; without an engine, or if its reply is none, all of the prompt is background."""
        from ..scene.plan import ScenePlan
        from ..scene.request import plan_scene

        bare = ScenePlan(background=prompt, prompt=prompt).to_json()
        if not self.asks:
            return WrittenPrompt(bare)
        engine = self._engine()
        try:
            found = self.calls.call(
                lambda: plan_scene(engine, prompt, sampling=self._sampling(seed), on_text=_silent)
            )
        except ValueError as error:
            return WrittenPrompt(bare, fault=str(error))
        return WrittenPrompt(found.plan.to_json())

    def fill(
        self, task: Literal["inpaint", "outpaint"], picture: Image.Image, mask: Image.Image, seed: int
    ) -> WrittenPrompt:
        """A prompt of the whole picture, from the picture with its hole in black; without an engine an empty one."""
        if not self.asks:
            return WrittenPrompt("")
        hole = torch.from_numpy(_levels(mask))[None]
        (shown,) = to_pil(paint_hole_black(from_pil([picture]), hole))
        return self._asked(task, "", (Picture.from_pil(shown),), "", seed)

    def edit(self, picture: Image.Image, instruction: str, seed: int) -> WrittenPrompt:
        """The prompts of a picture before and after an edit; without an engine the instruction is the second."""
        if not self.asks:
            return WrittenPrompt(instruction, "")
        ask = partial(
            rewrite,
            self._engine(),
            Conversation(),
            instruction,
            picture=Picture.from_pil(picture),
            sampling=self._sampling(seed),
            on_text=_silent,
        )
        try:
            found = self.calls.call(ask)
        except ValueError as error:
            return WrittenPrompt(instruction, "", str(error))
        return WrittenPrompt(found.target, found.source)

    def _asked(
        self, task: str, instruction: str, pictures: tuple[Picture, ...], otherwise: str, seed: int
    ) -> WrittenPrompt:
        return self._reply(Conversation(), task, instruction, pictures, otherwise, seed)[0]

    def _reply(
        self,
        chat: Conversation,
        task: str,
        instruction: str,
        pictures: tuple[Picture, ...],
        otherwise: str,
        seed: int,
    ) -> tuple[WrittenPrompt, Conversation]:
        """The prompt of one reply and the conversation with it; without the request if the engine fails."""
        ask = partial(
            respond,
            self._engine(),
            chat,
            task=task,
            instruction=instruction,
            pictures=pictures,
            sampling=self._sampling(seed),
            policy="ask_again",
            on_text=_silent,
        )
        try:
            reply = self.calls.call(ask)
        except ValueError as error:
            return WrittenPrompt(otherwise, fault=str(error)), chat
        if not reply.has_prompt:
            return WrittenPrompt(otherwise, fault="no prompt in the reply"), reply.conversation
        return WrittenPrompt(reply.prompt), reply.conversation

    def _sampling(self, seed: int) -> Sampling:
        return Sampling(
            seed=seed, temperature=self.config.temperature, max_new_tokens=self.config.max_new_tokens
        )


def _silent(text: str) -> None:
    pass


def _levels(mask: Image.Image) -> Any:
    import numpy as np

    return np.asarray(mask.convert("L"), dtype=np.float32) / 255
