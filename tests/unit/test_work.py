"""The check of linear work sees a pass that is not linear."""

from __future__ import annotations

from support.work import grows_linearly


def test_a_linear_and_a_quadratic_pass_are_told_apart() -> None:
    def text_of(length: int) -> str:
        return "x" * length

    assert grows_linearly(lambda text: [text[i] for i in range(len(text))], text_of, 40_000)
    assert not grows_linearly(lambda text: [text[:i] for i in range(len(text))], text_of, 40_000)
