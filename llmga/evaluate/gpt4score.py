"""GPT4Score: a vision-language model describes a picture, and then says how well it shows a prompt, from 0 to 100.

Any ``ChatEngine`` that sees pictures is a judge. The answers are logged as they come, so that a run that was killed goes on.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch.nn.functional import cosine_similarity

from ..chat.conversation import Conversation, Picture
from ..chat.engines.base import ChatEngine, OnText, Sampling
from ..chat.engines.endpoint import EndpointError
from ..data.asking import Answer, AnswerLog
from ..files.lenient_json import read_lenient
from ..images import read_picture

JUDGE_SYSTEM = "You help to judge how well pictures correspond to the text that they were made from."
DESCRIBE = (
    "Describe this picture in at most 50 words: the objects in it with their colours, shapes and materials, where they are, "
    "and what they do to each other."
)
SCORE = (
    'By the picture and what you said of it, how well does it show this text: "{prompt}"? Give a score from 0 to 100:\n'
    "100: it shows all of the text, with nothing that differs.\n"
    "80: it shows most of what happens and of how things relate, with small differences.\n"
    "60: it shows some of the text, and leaves out key parts or details.\n"
    "40: it shows nothing that happens in the text.\n"
    "20: it does not convey the text at all.\n"
    'Answer with a JSON object with the keys "score" (such as 85) and "explanation" (at most 20 words).'
)
_NUMBER = re.compile(r"(\d{1,3}(?:\.\d{1,9})?)\s{0,3}(?:%|/\s{0,3}100|out of 100)?")
_STARTS = 20  # opening braces of an answer that are tried


class NoScoreError(ValueError):
    """A judge's answer holds no score."""


@dataclass(frozen=True)
class Judgement:
    """What a judge says of one picture."""

    score: float
    """0 .. 1."""
    explanation: str
    description: str
    """The first turn: what the picture shows."""


@dataclass(frozen=True)
class JudgedPicture:
    """A picture that is to be judged."""

    key: str
    """Its identity from run to run, such as ``id/number``."""
    prompt: str
    path: Path


def judge_picture(
    engine: ChatEngine, picture: Picture, prompt: str, *, sampling: Sampling, on_text: OnText
) -> Judgement:
    """Judge one picture in two turns.

    Raises:
        NoScoreError: the second answer holds no number from 0 to 100.
        ValueError: the engine cannot see pictures.

    Source: RFNet (ECCV 2024) and its ``gpt-score/gpt4_cot_eval.py`` (leo81005/Reality-and-Fantasy fa3eb4b), which follows
    T2I-CompBench: description first, then a score with these five anchors. The wording is ours. Deviation: the scores of all
    pictures are kept with their ids, and averaged by category; the script has constants in place of a list.
    """
    conversation = Conversation(system=JUDGE_SYSTEM).say("user", DESCRIBE, (picture,))
    description = engine.generate(conversation, sampling, on_text).answer.strip()
    conversation = conversation.say("assistant", description or "(nothing)").say(
        "user", SCORE.format(prompt=prompt)
    )
    answer = engine.generate(conversation, sampling, on_text).answer
    score, explanation = read_score(answer)
    return Judgement(score / 100, explanation, description)


def read_score(answer: str) -> tuple[float, str]:
    """The score, 0 to 100, and the explanation in a judge's answer.

    Raises:
        NoScoreError: there is none.
    """
    for start in [i for i, letter in enumerate(answer) if letter == "{"][:_STARTS]:
        try:
            value, _ = read_lenient(answer, start)
        except ValueError:
            continue
        score = value.get("score") if isinstance(value, Mapping) else None
        if isinstance(score, str) and (match := _NUMBER.fullmatch(score.strip())):
            score = float(match[1])
        if isinstance(score, (int, float)) and not isinstance(score, bool) and _is_on_scale(score):
            return float(score), str(value.get("explanation", ""))
    raise NoScoreError(f"the judge's answer holds no score from 0 to 100: {answer[:120]!r}")


def _is_on_scale(score: float) -> bool:
    """Whether a score is one of 0 to 100: what lies between 0 and 1 is counted on another scale, such as 0.85 for 85 %."""
    return score == 0 or 1 <= score <= 100


def judge_pictures(
    engine: ChatEngine,
    pictures: Sequence[JudgedPicture],
    log: Path,
    *,
    sampling: Sampling,
    on_step: Callable[[int, int], None],
) -> tuple[dict[str, Judgement], dict[str, str]]:
    """Judge pictures, and go on where an earlier run stopped.

    Args:
        log: JSON lines; made with the first answer, and kept for the same engine, sampling and wording alone.
        on_step: ``on_step(done, n)`` after each; may raise, which keeps the answers so far.

    Returns:
        The judgement of each picture by its key; and of each that has none, why.

    Raises:
        ValueError: the log was begun with other settings, or a key comes twice.
    """
    keys = [one.key for one in pictures]
    if len({*keys}) < len(keys):
        raise ValueError("each picture must have a key of its own")
    settings = {"engine": engine.name, "sampling": repr(sampling), "score": SCORE, "describe": DESCRIBE}
    answers = AnswerLog(log, settings)
    found: dict[str, Judgement] = {}
    failed: dict[str, str] = {}
    for done, one in enumerate(pictures, 1):
        identity = _identity(one)
        known = answers.answers.get(identity)
        try:
            if known is None:
                judgement = _judged(engine, one, sampling)
                answers.add(identity, Answer(json.dumps(vars(judgement), ensure_ascii=False)))
            else:
                judgement = Judgement(**json.loads(known.reply))
            found[one.key] = judgement
        except (NoScoreError, EndpointError, OSError, ValueError) as error:
            failed[one.key] = str(error)
        on_step(done, len(pictures))
    return found, failed


def caption_similarity(
    judgements: Mapping[str, Judgement],
    prompts: Mapping[str, str],
    encode: Callable[[Sequence[str]], torch.Tensor],
) -> dict[str, float]:
    """GPT4-CLIP: the cosine between what the judge says of each picture and its prompt, as a text encoder sees both.

    Args:
        judgements, prompts: by the same keys.
        encode: texts to (N, d) pooled vectors, such as CLIP's text projection.

    Source: the name and the scale of RFNet's table. Its code does not hold the measure; that it compares the caption with
    the prompt is an assumption, by analogy with T2I-CompBench's B-CLIP.
    """
    keys = [key for key in judgements if judgements[key].description]
    if not keys:
        return {}
    captions, texts = (
        encode([judgements[key].description for key in keys]),
        encode([prompts[key] for key in keys]),
    )
    alike = cosine_similarity(captions.double(), texts.double(), dim=1)
    return {key: float(value) for key, value in zip(keys, alike, strict=True) if math.isfinite(float(value))}


def _judged(engine: ChatEngine, one: JudgedPicture, sampling: Sampling) -> Judgement:
    picture = Picture.from_pil(read_picture(one.path))
    seed = int.from_bytes(hashlib.sha256(f"{sampling.seed}:{one.key}".encode()).digest()[:8], "big")

    def on_text(text: str) -> None:
        pass

    return judge_picture(engine, picture, one.prompt, sampling=replace(sampling, seed=seed), on_text=on_text)


def _identity(one: JudgedPicture) -> str:
    """The key with what was judged: another picture or prompt under the same key is judged again."""
    parts: list[Any] = [one.prompt]
    if one.path.is_file():
        parts.append(hashlib.sha256(one.path.read_bytes()).hexdigest())
    return f"{one.key} {hashlib.sha256(repr(parts).encode()).hexdigest()[:16]}"
