"""Training conversations of the language model: up to eight exchanges about scenes of the world."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, Protocol

from llmga.chat.tasks import TASKS
from llmga.data.samples import SampleTurn
from llmga.data.templates import TEMPLATES

from .captions import Order, vague_caption
from .edits import KINDS, Edit, sample_edit
from .facts import Facts, facts
from .instructions import EDIT_REQUESTS
from .phrases import REQUESTS
from .records import Kind, edited_reply, outcome_of, sample_record
from .scene import Scene, choose
from .small_talk import small_talk, story, wish_of

Asked = Literal[Kind, "talk", "story"]
WEIGHTS: dict[Asked, int] = {
    "refine": 5,
    "imagine": 1,
    "complete": 1,
    "brief": 2,
    "similar": 3,
    "describe": 5,
    "inpaint": 3,
    "outpaint": 3,
    "edit": 8,
    "question": 4,
    "exists": 4,
    "find": 4,
    "changes": 4,
    "outcome": 4,
    "reading": 1,
    "story": 1,
    "talk": 1,
}
"""How often each is asked for; beside them, half of the exchanges go on from the one before, where it can be."""
_DRAWN: tuple[Asked, ...] = tuple(kind for kind, weight in WEIGHTS.items() for _ in range(weight))
_DRAWS = 1000
DATA_SETS: dict[str, frozenset[Asked]] = {
    "refinement": frozenset({"refine", "imagine", "complete"}),
    "filling": frozenset({"inpaint", "outpaint", "outcome"}),
    "similar": frozenset({"similar"}),
    "editing": frozenset({"edit", "changes", "outcome"}),
}
"""The four data sets of the paper's Table 6, as what is asked for here; an outcome is that of a hole or of an edit."""
_CUT = 10  # of what is cut, one in so many is left
_FOLLOW: tuple[Asked, ...] = (
    "question",
    "question",
    "describe",
    "describe",
    "similar",
    "edit",
    "edit",
    "exists",
)
OFTEN = ("exists", "find", "changes")
"""Of these several are asked of one picture: so short an answer teaches little alone."""
_ROLES = {"similar": "similar", "describe": "describe", "inpaint": "inpaint", "outpaint": "outpaint"}


@dataclass(frozen=True)
class Shown:
    """A picture: a scene by its number, and the hole that is cut into it (see ``records.sample_hole``)."""

    scene: int
    hole: Literal["", "inpaint", "outpaint"] = ""
    hole_seed: int = 0


@dataclass(frozen=True)
class Exchange:
    """A request and its reply. ``given`` is what a good reply keeps, as in ``records.Record``."""

    kind: Asked
    asked: str
    reply: str
    given: Facts = Facts(())
    shown: Shown | None = None
    again: bool = False
    """It goes on from the exchange before."""

    @property
    def turns(self) -> tuple[SampleTurn, SampleTurn]:
        return SampleTurn("user", self.asked, self.shown is not None), SampleTurn("assistant", self.reply)


@dataclass(frozen=True)
class _State:
    """What the conversation is about: a scene in a picture, or in a prompt that was just written."""

    scene: Scene
    seed: int
    in_picture: bool
    order: Order
    """In which its caption names the objects."""


class SceneSource(Protocol):
    """Scenes by number; see ``dataset.Scenes``."""

    def __len__(self) -> int: ...
    def __getitem__(self, i: int, /) -> Scene: ...


class Talk:
    """A conversation as it goes on, decided by its seed.

    Args:
        held_out: word all requests as training never does.
        objects: the most that a scene may have which it is about; an edit may add one.
        cut: what is asked for a tenth as often; something else is asked for instead.

    Raises:
        ValueError: when it looks for a scene of so few objects, and finds none.
    """

    def __init__(
        self,
        scenes: SceneSource,
        seed: int,
        *,
        held_out: bool = False,
        objects: int = 8,
        cut: frozenset[Asked] = frozenset(),
    ) -> None:
        self._scenes, self._seed, self._held_out, self._objects = scenes, seed, held_out, objects
        self._cut = cut
        self._number = 0
        self._state: _State | None = None

    def next(self, kind: Asked | None = None) -> Exchange:
        """The next exchange; one of this kind about a new scene, if a kind is given."""
        seed = self._seed * 64 + self._number
        self._number += 1
        if kind is None and self._state and choose((True, False), seed, "follow"):
            follow: Asked = choose(_FOLLOW, seed, "follow kind") if self._state.in_picture else "edit"
            if self._stays(follow, seed):
                return self._augmented(self._going_on(self._state, follow, seed), seed)
        number, scene = self._scene(seed)
        return self._augmented(self._anew(kind or self._drawn(seed), number, scene, seed), seed)

    def lesson(self, count: int, kinds: Sequence[Asked] = ()) -> list[Exchange]:
        """``count`` exchanges, each of one of ``kinds`` if any are given.

        Where one is of a kind in ``OFTEN``, two to six more of it are about the same picture. As many questions whether
        something is there, as a judge asks them (``llmga.chat.judge``), follow a description.
        """
        exchanges: list[Exchange] = []
        for number in range(count):
            kind: Asked | None = choose(kinds, self._seed, "kinds", number) if kinds else None
            if kind and not self._stays(kind, self._seed * 64 + self._number):
                kind = choose(
                    [other for other in kinds if other not in self._cut], self._seed, "other", number
                )
            exchanges.append(self.next(kind))
            kind = "exists" if exchanges[-1].kind == "describe" else exchanges[-1].kind
            if kind in OFTEN:
                more = choose(range(2, 7), self._seed, "more", number)
                exchanges += [self._once_more(kind) for _ in range(more)]
        return exchanges

    def _once_more(self, kind: Asked) -> Exchange:
        assert self._state is not None
        seed = self._seed * 64 + self._number
        self._number += 1
        return self._augmented(self._going_on(self._state, kind, seed), seed)

    def _drawn(self, seed: int) -> Asked:
        kind = choose(_DRAWN, seed, "kind")
        if self._stays(kind, seed):
            return kind
        return choose([other for other in _DRAWN if other not in self._cut], seed, "instead")

    def _stays(self, kind: Asked, seed: int) -> bool:
        return kind not in self._cut or choose(range(_CUT), seed, "cut") == 0

    def _scene(self, seed: int) -> tuple[int, Scene]:
        for again in range(_DRAWS):
            number = choose(range(len(self._scenes)), seed, "scene", *[again] * bool(again))
            scene = self._scenes[number]
            if len(scene.objects) <= self._objects:
                return number, scene
        raise ValueError(f"of {_DRAWS} scenes none has at most {self._objects} objects; raise objects or few")

    def _anew(self, kind: Asked, number: int, scene: Scene, seed: int) -> Exchange:
        if kind == "talk":
            return Exchange(kind, *small_talk(seed))
        if kind == "story":
            self._state = None
            asked = choose(TASKS["story"].phrasings, seed, "request").format(instruction=wish_of(scene))
            return Exchange(kind, asked, story(scene, seed))
        record = sample_record(kind, scene, seed, held_out=self._held_out, size=32)
        asked = record.instruction
        if not self._held_out and choose(range(4), seed, "wording") == 0:
            asked = _other_wording(kind, scene, seed, record.wish) or asked
        shown = Shown(number) if record.pictures else None
        self._state = None
        if kind in ("inpaint", "outpaint"):
            shown = Shown(number, kind, seed)  # type: ignore[arg-type]
        elif kind == "outcome" and (of := outcome_of(seed)) != "edit":
            shown = Shown(number, of, seed)
        elif kind in ("similar", "describe", "brief", "question", *OFTEN):
            self._state = _State(scene, seed, True, "reading")
        elif kind == "refine":
            self._state = _State(scene, seed, False, "wish")
        elif kind == "edit":
            order: Order = "reading" if record.pictures else "any"
            self._state = _State(sample_edit(scene, seed).target, seed, False, order)
        return Exchange(kind, asked, record.reply, record.given, shown)

    def _going_on(self, state: _State, kind: Asked, seed: int) -> Exchange:
        if kind == "edit":
            # The seed of the words that are changed: only what the edit concerns is worded anew.
            edit = _some_edit(state, seed, self._held_out)
            shown, unseen = REQUESTS["edit"]
            shown += TASKS["edit"].phrasings + TASKS["change"].phrasings + EDIT_REQUESTS
            template = choose(unseen if self._held_out else shown, seed, "request")
            self._state = replace(state, scene=edit.target, in_picture=False)
            reply = edited_reply(edit, state.seed, order=state.order, moved=edit.moved)
            return Exchange(
                kind, template.format(instruction=edit.instruction), reply, facts(edit.target), again=True
            )
        record = sample_record(kind, state.scene, seed, held_out=self._held_out, size=32)  # type: ignore[arg-type]
        if kind not in ("question", *OFTEN):
            self._state = replace(state, seed=seed)
        return Exchange(kind, record.instruction, record.reply, record.given, again=True)

    def _augmented(self, exchange: Exchange, seed: int) -> Exchange:
        """Now and then the request as people type: without capitals, with many, without the last full stop."""
        if self._held_out:
            return exchange
        asked = exchange.asked
        match choose(range(16), seed, "typed"):
            case 0 | 1:
                asked = asked.lower()
            case 2:
                asked = re.sub(r"\b[a-z]", lambda match: match[0].upper(), asked)
            case 3 | 4:
                asked = asked.rstrip(".!? ")
        return replace(exchange, asked=asked)


def _some_edit(state: _State, seed: int, held_out: bool) -> Edit:
    for kind in (choose(KINDS, seed, "edit kind"), None):
        try:
            edit = sample_edit(state.scene, state.seed, kind, held_out=held_out, order=state.order)
        except ValueError:
            continue
        if held_out:
            plain = sample_edit(state.scene, state.seed, edit.kind, order=state.order)
            return replace(edit, detailed=plain.detailed)
        return edit
    raise ValueError("a scene allows no edit at all")


def _other_wording(kind: Asked, scene: Scene, seed: int, hole_wish: str) -> str | None:
    """The request in the words of ``llmga.data.templates``."""
    words = TEMPLATES["en"]
    if kind in _ROLES:
        return f"{choose(words[_ROLES[kind]], seed, 'role')} {hole_wish}".strip()
    wish = vague_caption(scene, seed)
    if kind == "refine":
        if choose((True, False), seed, "before"):
            return f"{choose(words['generate_before'], seed, 'role')} {wish}"
        return f"{wish} {choose(words['generate_behind'], seed, 'role')}"
    if kind == "imagine":
        return f"{wish} {choose(words['expand'], seed, 'role')}"
    return None
