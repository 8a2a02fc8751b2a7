"""Aligning two prompts and finding phrases in them; against prompt-to-prompt's own aligner where that is right
(recorded by fixtures/edit_alignment_official.py, exact)."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.waiting import growth

from llmga.edit.alignment import align, common_runs
from llmga.edit.phrases import locate, words
from llmga.edit.positions import text_positions
from llmga.text import Plan, Token, clip_tokenizer, read

OFFICIAL = json.loads(
    (Path(__file__).parent / "fixtures" / "edit_alignment_official.json").read_text(encoding="utf-8")
)
LAYOUTS = ("llmga", "llmga_lpw")
LONG = (
    "This simple picture shows three objects on sand. At the top left there is a large striped red star. "
    "Warm light comes from the left, so the soft shadows fall to the right. The background is fine dry sand, "
    "which the wind has laid in long soft lines, like waves. All edges are thin and clean, and all of the surfaces "
    "look smooth. In the centre you find a small plain blue ring. A medium dotted green heart stands at the bottom "
    "right. The star is to the left of the heart."
)


@pytest.fixture(scope="module")
def plan():
    tokenizer = clip_tokenizer()

    def planned(text: str, max_chunks: int = 4) -> Plan:
        tokenize = lambda part: tokenizer(part, add_special_tokens=False, verbose=False).input_ids  # noqa: E731
        return read(text, tokenize, max_chunks=max_chunks)

    return planned


def text_of(plan: Plan) -> str:
    from llmga.text.tokenizer import decode

    return decode(token.id for chunk in plan.chunks for token in chunk)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("text", ["", "a cat", LONG])
def test_a_prompt_aligned_with_itself_is_the_identity(plan, layout, text):
    found = align(plan(text), plan(text), layout)
    length = (75 if layout == "llmga" else 77) * found.chunks + (2 if layout == "llmga" else 0)
    assert torch.equal(found.matrix, torch.eye(length)) and not found.own.any()
    assert (found.aligned_ratio, found.removed, found.added) == (1.0, (), ())


def test_the_long_prompt_has_more_than_one_chunk(plan):
    assert len(plan(LONG).chunks) == 2


@pytest.mark.parametrize("case", OFFICIAL["refine"], ids=lambda case: case["prompts"][1][:20] or "empty")
def test_refine_is_the_official_one_on_the_text(plan, case):
    source, target = (plan(prompt) for prompt in case["prompts"])
    found = align(source, target, "llmga")
    for n in [0, *text_positions(target, "llmga")]:
        column = torch.zeros(77)
        if case["alphas"][n]:
            column[case["mapper"][n]] = 1
        assert torch.equal(found.matrix[:, n], column) and found.own[n] == 1 - case["alphas"][n]
    if len(source.chunks[0]) == len(
        target.chunks[0]
    ):  # else the official one gives padding what was a word's
        padding = range(1 + len(target.chunks[0]), 77)
        assert [found.matrix[:, n].argmax() for n in padding] == case["mapper"][padding.start :]


@pytest.mark.parametrize("case", OFFICIAL["replace"], ids=lambda case: case["prompts"][1][:20])
def test_replace_is_the_official_one_up_to_the_last_swapped_word(plan, case):
    source, target = (plan(prompt) for prompt in case["prompts"])
    found = align(source, target, "llmga", "replace")
    last = max(found.added)
    theirs = torch.zeros(77, 77)
    for i, j, value in case["entries"]:
        theirs[i, j] = value
    torch.testing.assert_close(found.matrix[:, : last + 1], theirs[:, : last + 1], atol=1e-7, rtol=0)
    if len(source.chunks[0]) == len(target.chunks[0]):
        torch.testing.assert_close(found.matrix, theirs, atol=1e-7, rtol=0)
    assert not found.own.any() and found.aligned_ratio == 1


def test_replace_moves_what_follows_a_word_of_more_tokens(plan):
    source, target = plan("a cat eats a burger"), plan("a hippopotamus eats a burger")
    found = align(source, target, "llmga", "replace")
    shift = len(target.chunks[0]) - len(source.chunks[0])
    assert shift > 0
    for i in (3, 4, 5):
        assert found.matrix[i, i + shift] == 1


def test_replace_needs_as_many_words(plan):
    with pytest.raises(ValueError, match="source has 2, target 3"):
        align(plan("a cat"), plan("a black cat"), "llmga", "replace")


@pytest.mark.parametrize(("layout", "mode"), [("sdxl", "refine"), ("llmga", "swap")])
def test_unknown_options(plan, layout, mode):
    with pytest.raises(ValueError, match="must be one of"):
        align(plan("a"), plan("a"), layout, mode)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_an_insertion_keeps_all_attention(plan, layout):
    source = plan(LONG)
    target = plan(LONG.replace("a large striped", "a very large, softly striped"))
    found = align(source, target, layout)
    torch.testing.assert_close(found.matrix.sum(1), torch.ones(len(found.matrix)))
    assert text_of(target).count("very") == 1 and len(found.added) == 3 and found.removed == ()
    assert sorted(found.added) == found.own.nonzero().flatten().tolist()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_deletion_loses_the_attention_of_what_is_deleted_and_no_other(plan, layout):
    source, target = (
        plan(LONG),
        plan(LONG.replace(" A medium dotted green heart stands at the bottom right.", "")),
    )
    found = align(source, target, layout)
    gone = torch.ones(len(found.matrix))
    gone[list(found.removed)] = 0
    torch.testing.assert_close(found.matrix.sum(1), gone)
    assert len(found.removed) == 11 and not found.own.any() and found.added == ()


def test_text_flows_over_chunk_borders(plan):
    """An insertion at the start pushes words into the next chunk; each keeps its partner."""
    source = plan(LONG)
    target = plan("Here it is, one more time. " + LONG)
    found = align(source, target, "llmga_lpw")
    moved = {int(found.matrix[i].argmax()) // 77 - i // 77 for i in text_positions(source, "llmga_lpw")}
    assert moved == {0, 1} and found.removed == ()


def test_padding_of_a_longer_prompt_meets_padding_of_more_chunks(plan):
    found = align(plan("a cat"), plan(LONG), "llmga")
    assert found.chunks == 2 and found.matrix.shape == (152, 152)
    # The target's first chunk is full, so what followed "a cat" goes behind the text of its last.
    words_ = text_positions(plan(LONG), "llmga")
    assert not found.matrix[3:76, words_].any() and found.matrix[3:76, max(words_) + 1 :].sum() == 73
    sums = found.matrix.sum(1)
    kept = [i for i in range(152) if i not in found.removed]
    torch.testing.assert_close(sums[kept], torch.ones(len(kept)))
    assert found.aligned_ratio < 0.5


def test_padding_is_resampled_in_order(plan):
    """Source: 74 positions after one word; target: 72 after three. The first still meets the first, the last the last."""
    found = align(plan("cat"), plan("a black cat"), "llmga")
    part = found.matrix[2:, 4:]
    assert part[0, 0] == 1 and part[-1, -1] == 1 and not part[:37, 37:].any() and not part[38:, :36].any()


def test_a_run_is_found_as_a_whole():
    assert common_runs([1, 2], [1, 9, 1, 2]) == [(0, 2), (1, 3)]
    # Four scattered pairs are worth 4, a run of three 5.
    scattered = common_runs([5, 6, 7, 1, 0, 2, 0, 3, 0, 4], [1, 8, 2, 8, 3, 8, 4, 5, 6, 7])
    assert scattered == [(0, 7), (1, 8), (2, 9)]


def brute(a: list[int], b: list[int]) -> int:
    def score(pairs: list[tuple[int, int]]) -> int:
        return len(pairs) + sum((i + 1, j + 1) == p for (i, j), p in pairwise(pairs))

    def every(i: int, j: int) -> list[list[tuple[int, int]]]:
        found: list[list[tuple[int, int]]] = [[]]
        for x in range(i, len(a)):
            for y in range(j, len(b)):
                if a[x] == b[y]:
                    found += [[(x, y), *rest] for rest in every(x + 1, y + 1)]
        return found

    return max(map(score, every(0, 0)))


@settings(max_examples=100)
@given(st.lists(st.integers(0, 3), max_size=6), st.lists(st.integers(0, 3), max_size=6))
def test_no_pairs_score_higher(a, b):
    pairs = common_runs(a, b)
    assert all(a[i] == b[j] for i, j in pairs)
    assert all(i < k and j < m for (i, j), (k, m) in pairwise(pairs))
    score = len(pairs) + sum((i + 1, j + 1) == following for (i, j), following in pairwise(pairs))
    assert score == brute(a, b)


@settings(max_examples=60)
@given(
    st.lists(st.integers(300, 305), max_size=170),
    st.lists(st.integers(300, 305), max_size=170),
    st.sampled_from(LAYOUTS),
)
def test_rows_keep_their_mass_or_belong_to_a_removed_word(a, b, layout):
    source, target = (
        Plan(tuple(tuple(map(Token, ids[k : k + 75])) for k in range(0, max(len(ids), 1), 75)))
        for ids in (a, b)
    )
    found = align(source, target, layout)
    wanted = torch.ones(len(found.matrix))
    wanted[list(found.removed)] = 0
    torch.testing.assert_close(found.matrix.sum(1), wanted, atol=1e-5, rtol=0)
    assert (found.own > 0).nonzero().flatten().tolist() == list(found.added)
    for j in text_positions(target.padded(found.chunks), layout):
        assert found.matrix[:, j].sum() + found.own[j] == 1


def test_equal_vectors_of_a_textual_inversion_are_one_word():
    vector = torch.randn(4)
    source = Plan(((Token(320), Token(vector)),))
    target = Plan(((Token(320), Token(vector.clone(), 1.3)), (Token(torch.zeros(4)),)))
    found = align(source, target, "llmga")
    assert found.matrix[2, 2] == 1 and found.added == (76,)


def test_the_work_grows_as_the_square_of_the_length_at_most(plan):
    def work(count: int):
        source, target = plan("a red fox, " * count), plan("a blue, red ox " * count)
        return lambda: align(source, target, "llmga")

    assert growth(work(15), work(75), 75) < 75  # 5 times the text


def at(plan: Plan, places: tuple[int, ...]) -> str:
    from llmga.text.tokenizer import decode

    return decode(plan.chunks[0][p - 1].id for p in places)


@pytest.mark.parametrize(
    ("text", "phrase", "found"),
    [
        ("A Red fox and a red FOX", "red fox", ["red fox", "red fox"]),
        ("foxes, boxes and berries", "Fox", ["foxes"]),
        ("a fox", "foxes", ["fox"]),
        ("foxes, boxes and berries", "berry", ["berries"]),
        ("red (striped) star", "red, striped star!", ["red striped star"]),
        ("the hippopotamus's hat", "hippopotamus", ["hippopotamus"]),
        ("a catalogue of cats", "cat", ["cats"]),
        ("in 16:9, 1600 wide", "16:9", ["1 6 9"]),
        ("Gärtner und gärtner", "GÄRTNER", ["gärtner", "gärtner"]),
        ("a glass of grass", "glasses", ["glass"]),
        ("a glass of grass", "gras", []),
        ("a red fox", "blue fox", []),
        ("a red fox", "!?", []),
        ("", "fox", []),
    ],
)
def test_phrases(plan, text, phrase, found):
    planned = plan(text)
    assert [at(planned, places).replace(" ", "") for places in locate(planned, phrase, "llmga")] == [
        each.replace(" ", "") for each in found
    ]


def test_a_phrase_within_text_without_spaces(plan):
    planned = plan("猫在椅子上")
    (places,) = locate(planned, "椅子", "llmga")
    assert at(planned, places) == "椅子"
    assert locate(planned, "狗", "llmga") == []


@pytest.mark.parametrize("layout", LAYOUTS)
def test_phrases_of_later_chunks_and_over_a_border(plan, layout):
    text = "word " * 74 + "blue ring, then a green heart"
    planned = plan(text)
    ring, heart = locate(planned, "blue ring", layout), locate(planned, "green heart", layout)
    assert ring == [(75, 76)] if layout == "llmga" else ring == [(75, 78)]
    assert heart == [(80, 81)] if layout == "llmga" else heart == [(82, 83)]


def test_what_was_dropped_is_not_found(plan):
    assert locate(plan("word " * 80 + "fox", 1), "fox", "llmga") == []


def test_a_textual_inversion_is_a_word_that_nothing_names(plan):
    (fox,) = plan("red fox").chunks
    planned = Plan(((fox[0], Token(torch.zeros(4)), fox[1]),))
    assert locate(planned, "red fox", "llmga") == [] and locate(planned, "fox", "llmga") == [(3,)]
    assert words(planned) == [[0], [1], [2]]
