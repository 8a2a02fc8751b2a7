"""Paints again from a better prompt until the judge finds a picture right."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from .conversation import Picture
from .engines.base import ChatEngine, OnText, Sampling
from .engines.endpoint import EndpointError
from .judge import SEEDS, Asking, PictureCheck, PictureClaim, best_index, better_prompt, check_each


@dataclass(frozen=True)
class Attempt:
    """One round of painting: the prompt, its pictures, what was answered about them, and which is the best."""

    prompt: str
    pictures: tuple[Picture, ...]
    checks: tuple[PictureCheck, ...]
    best: int
    remark: str = ""
    """Why the prompt was not written anew after it, though that was asked for."""

    @property
    def score(self) -> float:
        return self.checks[self.best].score


def repeat_until(
    engine: ChatEngine,
    paint: Callable[[str, int], Sequence[Picture]],
    prompt: str,
    claims: Sequence[PictureClaim],
    *,
    request: str = "",
    threshold: float = 1.0,
    attempts: int = 3,
    rewrite: bool = True,
    asking: Asking = "together",
    sampling: Sampling,
    on_text: OnText,
) -> list[Attempt]:
    """Paint, check, and paint again from a better prompt, until a picture is right or the attempts are used up.

    Args:
        paint: ``paint(prompt, attempt)`` gives the pictures of one round, attempt from 0; may raise.
        threshold: the score that ends it, 0 .. 1.
        attempts: at least 1.
        rewrite: whether the model rewrites the prompt after each attempt; else, or where that fails, the same prompt is
            painted again.

    Returns:
        Every attempt in order; the best picture is not always the last one's.

    Raises:
        ValueError: see ``check_each``.
    """
    made: list[Attempt] = []
    for number in range(attempts):
        own = replace(sampling, seed=(sampling.seed + number * len(claims)) % SEEDS)
        pictures = tuple(paint(prompt, number))
        checks = check_each(engine, pictures, claims, sampling=own, asking=asking, on_text=on_text)
        made.append(Attempt(prompt, pictures, tuple(checks), best_index(checks)))
        if made[-1].score >= threshold or number + 1 == attempts:
            break
        if rewrite:
            check = checks[made[-1].best]
            try:
                prompt = (
                    better_prompt(engine, request, prompt, check, sampling=own, on_text=on_text) or prompt
                )
            except (ValueError, EndpointError) as error:  # the attempts so far are whole
                made[-1] = replace(made[-1], remark=str(error))
    return made
