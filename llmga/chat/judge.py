"""Judge: does a picture show what was asked for? Yes/no questions that the language model derives from the request.

The request becomes claims, each with a question whose right answer is yes; the questions are answered about each picture,
and the score is the share of yes. What was answered no becomes a better prompt, so that painting can be repeated until it
is right. Any ``ChatEngine`` that sees pictures is a judge; one with structured output is held to a schema.

The method is that of TIFA (ICCV 2023, arXiv 2303.11897) and DSG (ICLR 2024, arXiv 2310.18235), in plain form: no graph of
dependencies, one model for questions and answers. The wording is ours. Asked alone, a model that gives the probability of
its answer is judged by that, as in VQAScore (ECCV 2024, arXiv 2404.01291): it tells two pictures apart that both pass.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal, get_args

from .assistant import respond
from .batch import StopAfterFailures
from .conversation import Conversation, Picture
from .engines.base import (
    CUT_REASONS,
    ChatEngine,
    HasStructuredOutput,
    HasWordProbabilities,
    OnText,
    Said,
    Sampling,
)
from .engines.endpoint import EndpointError
from .judge_replies import read_answers, read_questions, read_yes_no, without_number
from .refusal import is_refusal
from .tasks import TASKS

MOST_QUESTIONS = 24
Asking = Literal["together", "one by one", "describe first"]

_SYSTEM = "You check whether pictures show what was asked for. You go by what can be seen, and answer in the form asked for."
_QUESTIONS = (
    "A picture was asked for in these words:\n{request}\n\n"
    "Break them into at most {most} yes/no questions about the picture, each about one thing that can be seen: an object, "
    "its colour, how many there are, where it is, what it does, what it is made of, the style. Each question must stand on "
    "its own, must be answered with yes if the picture is right, and must not ask for anything that was not asked for. "
    'Answer with a JSON object: {{"questions": [{{"claim": "the star is red", "question": "Is the star red?"}}]}}'
)
_QUESTIONS_AGAIN = (
    'That cannot be read as questions. Answer with the JSON object alone, with the key "questions" and at most {most} '
    'entries, each with "claim" and "question".'
)
_ANSWERS = (
    "Answer each question about this picture with yes or no, by what can be seen in it.\n{questions}\n"
    'Answer with a JSON object: {{"answers": [{{"number": 1, "answer": "yes", "why": "at most ten words"}}]}}, with one '
    "entry for each question."
)
YES_NO_SYSTEM_PROMPT = "You look at pictures and answer questions about them with yes or no."
_DESCRIBE = TASKS["describe"].phrasings[0].format(instruction="").strip()
_YES_OR_NO = "Answer with yes or no."
_BETTER = (
    "A picture was asked for in these words:\n{request}\n\nIt was painted from this prompt:\n{prompt}\n\n"
    "In the picture this is wrong:\n{wrong}\n\n"
    "Rewrite the prompt so that the next picture is right. Keep what is right, say what is wrong more plainly and nearer to "
    "the beginning, and add nothing else. Write the result in exactly this form: <gen_image> the prompt </gen_image>"
)
_ANSWERED = 0.5  # of the probability on yes and no, from which a reply begins with one of them
_SECOND_SEED = 0x9E3779B97F4A7C15  # far from the seeds next to the first, which a batch uses
SEEDS = 2**64
_QUOTED = 200  # characters of a reply in an error


@dataclass(frozen=True)
class PictureClaim:
    """One thing that a picture must show, and the question whose right answer is yes."""

    text: str
    question: str


@dataclass(frozen=True)
class ClaimVerdict:
    """What was answered about one claim.

    Args:
        met: None if the reply holds neither yes nor no; it then counts as no.
        why: the model's reason, or "".
        likely: how likely yes is against no, 0 .. 1; None where the engine does not say.
    """

    claim: PictureClaim
    met: bool | None
    why: str = ""
    likely: float | None = None

    def __str__(self) -> str:
        word = {True: "yes", False: "no", None: "not answered"}[self.met]
        share = "" if self.likely is None else f" {self.likely:.2f}"
        return f"{word}{share}: {self.claim.text}" + (f" ({self.why})" if self.why else "")


@dataclass(frozen=True)
class PictureCheck:
    """What was answered about one picture; ``failure`` says why nothing was, or is "".

    Args:
        description: what the model said of the picture before it was asked, or "".
        remark: that the description was cut off.
    """

    verdicts: tuple[ClaimVerdict, ...] = ()
    failure: str = ""
    description: str = ""
    remark: str = ""

    @property
    def score(self) -> float:
        """The share of claims that are met, 0 .. 1."""
        return sum(one.met is True for one in self.verdicts) / len(self.verdicts) if self.verdicts else 0.0

    @property
    def likely(self) -> float:
        """The mean of how likely the claims are to be met, 0 .. 1; 1 or 0 for each of which only the answer is known."""
        each = [float(one.met is True) if one.likely is None else one.likely for one in self.verdicts]
        return sum(each) / len(each) if each else 0.0

    @property
    def wrong(self) -> tuple[ClaimVerdict, ...]:
        """The claims that are not met, those without an answer included."""
        return tuple(one for one in self.verdicts if one.met is not True)


@dataclass(frozen=True)
class DerivedClaims:
    """The outcome of ``derive_claims``."""

    claims: tuple[PictureClaim, ...]
    remark: str = ""
    """That the reply was cut off, so that questions may be missing."""


def given_claims(questions: str) -> tuple[PictureClaim, ...]:
    """Claims from questions that a person wrote, one a line, each to be answered with yes; numbers before them go.

    Raises:
        ValueError: there are more than ``MOST_QUESTIONS``.
    """
    lines = [without_number(line) for line in questions.splitlines() if line.strip()]
    if len(lines) > MOST_QUESTIONS:
        raise ValueError(f"questions holds {len(lines)} lines, and at most {MOST_QUESTIONS} can be asked")
    return tuple(PictureClaim(line, line) for line in lines)


def derive_claims(
    engine: ChatEngine, request: str, *, most: int = 8, sampling: Sampling, on_text: OnText
) -> DerivedClaims:
    """Ask the model for the questions that a request leads to; once more if its reply cannot be read.

    Args:
        request: what was asked for, in the user's words or as a prompt.
        most: 1 .. ``MOST_QUESTIONS``; further ones are left out.
        on_text: as in ``respond``.

    Raises:
        ValueError: the request is empty, or no reply holds questions.
    """
    if not request.strip():
        raise ValueError(
            "request is empty, so nothing can be asked about a picture; write what it should show"
        )
    asked = Conversation(system=_SYSTEM).say("user", _QUESTIONS.format(request=request.strip(), most=most))
    schema = _schema("questions", {"claim": {"type": "string"}, "question": {"type": "string"}}, most)
    said = _ask(engine, asked, sampling, on_text, schema)
    found = _whole_questions(said)
    if not found:
        again = asked.say("assistant", said.answer or "{}").say("user", _QUESTIONS_AGAIN.format(most=most))
        second = replace(sampling, seed=sampling.seed ^ _SECOND_SEED)
        said = _ask(engine, again, second, on_text, schema)
        found = _whole_questions(said)
    if not found:
        what = "refuses" if is_refusal(said.answer) else "holds no questions"
        raise ValueError(
            f"the reply of {engine.name!r} {what}, even when asked again; write the questions into 'questions', one a line, "
            f"change 'seed', or raise 'max_new_tokens'. It says: {said.answer[:_QUOTED]}"
        )
    claims = tuple(PictureClaim(claim or question, question) for claim, question in found[:most])
    lost = said.cut and len(claims) < most
    return DerivedClaims(claims, f"questions may be missing: {CUT_REASONS[said.cut]}" if lost else "")


def check_claims(
    engine: ChatEngine,
    picture: Picture,
    claims: Sequence[PictureClaim],
    *,
    asking: Asking = "together",
    sampling: Sampling,
    on_text: OnText,
) -> PictureCheck:
    """Ask the questions of claims about a picture.

    Args:
        asking: "together" asks all in one turn, and those that the reply leaves out alone; "one by one" each in a
            conversation of its own, which small models answer better; "describe first" each behind the model's own
            description of the picture, for models that describe better than they answer.

    Raises:
        ValueError: ``asking`` is none of these, the engine cannot see pictures, or its description is empty or ends inside
            a thought.
    """
    if asking not in get_args(Asking):
        raise ValueError(f"'asking' must be one of {', '.join(get_args(Asking))}, got {asking!r}")
    verdicts: dict[int, ClaimVerdict] = {}
    description, remark = "", ""
    start, shown = Conversation(system=YES_NO_SYSTEM_PROMPT), (picture,)
    if asking == "describe first":
        start, shown = Conversation().say("user", _DESCRIBE, (picture,)), ()
        description, remark = _described(engine, start, sampling, on_text)
        start = start.say("assistant", description)
    elif asking == "together" and len(claims) > 1:
        listed = "\n".join(f"{i}. {claim.question}" for i, claim in enumerate(claims, 1))
        asked = Conversation(system=_SYSTEM).say("user", _ANSWERS.format(questions=listed), (picture,))
        fields = {"number": {"type": "integer"}, "answer": {"enum": ["yes", "no"]}, "why": {"type": "string"}}
        reply = _ask(engine, asked, sampling, on_text, _schema("answers", fields, len(claims)))
        answers = read_answers(reply.answer, len(claims))
        verdicts = {i: ClaimVerdict(claims[i], *one) for i, one in answers.items()}
    for i, claim in enumerate(claims):
        if i not in verdicts or verdicts[i].met is None:
            asked = start.say("user", claim.question, shown)
            verdicts[i] = _ask_alone(engine, asked, claim, sampling, on_text)
    return PictureCheck(
        tuple(verdicts[i] for i in range(len(claims))), description=description, remark=remark
    )


def check_each(
    engine: ChatEngine,
    pictures: Sequence[Picture],
    claims: Sequence[PictureClaim],
    *,
    sampling: Sampling,
    **settings: Any,
) -> list[PictureCheck]:
    """``check_claims`` of each picture; one that fails does not stop the others, but an endpoint that fails three times in a
    row is not asked about the rest (see ``StopAfterFailures``).

    Args:
        settings: what else ``check_claims`` takes.

    Raises:
        ValueError: there is no picture or no claim; and, if every picture fails, what was raised for the first.
        EndpointError: likewise.
    """
    if not pictures or not claims:
        raise ValueError(f"a check needs pictures and questions, got {len(pictures)} and {len(claims)}")
    checks: list[PictureCheck] = []
    first: ValueError | EndpointError | None = None
    engine_calls = StopAfterFailures()
    for i, picture in enumerate(pictures):
        own = replace(sampling, seed=(sampling.seed + i) % SEEDS)
        try:
            ask = partial(check_claims, engine, picture, claims, sampling=own, **settings)
            checks.append(engine_calls.call(ask))
        except (ValueError, EndpointError) as error:
            first = first or error
            checks.append(PictureCheck(failure=str(error)))
    if first is not None and all(check.failure for check in checks):
        raise first
    return checks


def best_index(checks: Sequence[PictureCheck]) -> int:
    """The picture with the highest score, of equals the likeliest, then the first; one that could not be checked only if
    none could."""
    return max(
        range(len(checks)), key=lambda i: (not checks[i].failure, checks[i].score, checks[i].likely, -i)
    )


def better_prompt(
    engine: ChatEngine, request: str, prompt: str, check: PictureCheck, *, sampling: Sampling, on_text: OnText
) -> str:
    """Ask for a prompt that corrects what is wrong; "" if the reply holds none, and ``prompt`` if nothing is wrong.

    Raises:
        ValueError: the reply is empty, ends inside a thought or is cut off.
    """
    if not check.wrong:
        return prompt
    wrong = "\n".join(f"- {one}" for one in check.wrong)
    words = {"request": request.strip() or prompt, "prompt": prompt.strip() or request, "wrong": wrong}
    reply = respond(
        engine,
        Conversation(),
        task="chat",
        instruction=_BETTER.format(**words),
        sampling=sampling,
        policy="error",
        on_text=on_text,
    )
    if reply.cut:
        raise ValueError(CUT_REASONS[reply.cut])
    return reply.prompt


def _described(
    engine: ChatEngine, asked: Conversation, sampling: Sampling, on_text: OnText
) -> tuple[str, str]:
    """A description, and the remark that it was cut off, or ""."""
    said = engine.generate(asked, sampling, on_text)
    answer = _answer(engine, said).strip()
    if not answer:
        raise ValueError(
            f"{engine.name!r} describes the picture with an empty reply; choose another 'asking'"
        )
    return answer, f"the description is not whole: {CUT_REASONS[said.cut]}" if said.cut else ""


def _ask_alone(
    engine: ChatEngine, asked: Conversation, claim: PictureClaim, sampling: Sampling, on_text: OnText
) -> ClaimVerdict:
    """The bare question, which small models were trained on; a reply that is neither yes nor no is asked for once more."""
    if isinstance(engine, HasWordProbabilities) and not sampling.thinking:  # a thought would come first
        said, (yes, no) = engine.generate_with_probabilities(asked, sampling, on_text, ("yes", "no"))
        if yes + no >= _ANSWERED and not said.thought:
            return ClaimVerdict(claim, yes >= no, likely=yes / (yes + no))
    else:
        said = engine.generate(asked, sampling, on_text)
    answer = _answer(engine, said)
    met = read_yes_no(answer)
    if met is None:
        again = asked.say("assistant", answer or "…").say("user", _YES_OR_NO)
        met = read_yes_no(_answer(engine, engine.generate(again, sampling, on_text)))
    return ClaimVerdict(claim, met, "" if met is not None else answer[:_QUOTED].strip())


def _ask(
    engine: ChatEngine,
    conversation: Conversation,
    sampling: Sampling,
    on_text: OnText,
    schema: Mapping[str, Any],
) -> Said:
    if isinstance(engine, HasStructuredOutput):
        said = engine.generate_json(conversation, sampling, on_text, schema)
    else:
        said = engine.generate(conversation, sampling, on_text)
    return replace(said, answer=_answer(engine, said))


def _whole_questions(said: Said) -> list[tuple[str, str]]:
    """Those of a reply, without one that was cut in two."""
    found = read_questions(said.answer)
    if said.cut and found and not found[-1][1].endswith(("?", "？")):
        found.pop()
    return found


def _answer(engine: ChatEngine, said: Said) -> str:
    if not isinstance(said, Said):
        raise ValueError(f"the engine {engine.name!r} replied with {type(said).__name__} instead of a Said")
    if said.unfinished:
        raise ValueError(
            f"the reply of {engine.name!r} ends inside the model's thinking, before an answer; raise 'thought_tokens', or "
            "turn 'thinking' off"
        )
    return said.answer.encode("utf-8", "replace").decode()


def _schema(title: str, fields: Mapping[str, Any], most: int) -> dict[str, Any]:
    item = {
        "type": "object",
        "properties": dict(fields),
        "required": list(fields),
        "additionalProperties": False,
    }
    entries = {"type": "array", "items": item, "minItems": 1, "maxItems": most}
    return {
        "title": title,
        "type": "object",
        "properties": {title: entries},
        "required": [title],
        "additionalProperties": False,
    }
