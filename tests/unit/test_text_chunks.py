"""Properties of the chunk plan: nothing lost, nothing split that need not be, counts that are true."""

from __future__ import annotations

from itertools import chain

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from llmga.text import (
    Plan,
    Token,
    chunk_ids,
    clip_tokenizer,
    join_chunks,
    longest,
    number_chunks,
    parse_weights,
    plan_chunks,
    plan_prompt,
    readout,
    spans,
)
from llmga.text.encoder import pad_plans

words = st.integers(1, 49405)
boundaries = st.sampled_from(["", "sentence", "break"])


def tokens(count: int, start: int = 1) -> list[Token]:
    return [Token(start + i) for i in range(count)]


def said(planned: Plan) -> list[Token]:
    return list(chain(*planned.chunks, planned.dropped))


@pytest.mark.parametrize(
    ("count", "sizes", "dropped"),
    [
        (0, [0], 0),
        (1, [1], 0),
        (74, [74], 0),
        (75, [75], 0),
        (76, [75, 1], 0),
        (150, [75, 75], 0),
        (300, [75] * 4, 0),
        (301, [75] * 4, 1),
    ],
)
def test_lengths(count, sizes, dropped):
    planned = plan_chunks([(tokens(count), "")])
    assert [len(chunk) for chunk in planned.chunks] == sizes
    assert len(planned.dropped) == dropped
    assert said(planned) == tokens(count)


@given(
    st.lists(st.tuples(st.lists(words.map(Token), max_size=90), boundaries), max_size=12), st.integers(1, 64)
)
def test_no_token_is_lost_or_moved(parts, max_chunks):
    planned = plan_chunks(parts, max_chunks)
    assert said(planned) == [token for part, _ in parts for token in part]
    assert 1 <= len(planned.chunks) <= max_chunks
    assert len(planned.cuts) == len(planned.chunks) - 1
    assert all(len(chunk) <= 75 for chunk in planned.chunks)
    assert all(planned.chunks) or len(planned.chunks) == 1
    if planned.dropped:
        assert len(planned.chunks) == max_chunks


@given(st.lists(st.integers(1, 75), min_size=1, max_size=12))
def test_a_sentence_that_fits_a_chunk_is_never_split(lengths):
    parts, start = [], 1
    for length in lengths:
        parts.append((tokens(length, start), "sentence"))
        start += length
    planned = plan_chunks(parts, 64)
    for sentence, _ in parts:
        assert any(set(sentence) <= set(chunk) for chunk in planned.chunks)
    assert set(planned.cuts) <= {"sentence"}


def test_a_longer_sentence_is_cut_where_the_chunk_is_full():
    planned = plan_chunks([(tokens(10), "sentence"), (tokens(100, 11), "sentence")])
    assert [len(chunk) for chunk in planned.chunks] == [75, 35]
    assert planned.cuts == ("hard",)


def test_break_ends_a_chunk_and_never_leaves_an_empty_one():
    parts = [([], "break"), (tokens(3), "break"), ([], "break"), (tokens(2, 4), "break")]
    planned = plan_chunks(parts)
    assert planned.chunks == (tuple(tokens(3)), tuple(tokens(2, 4)))
    assert planned.cuts == ("break",)


@given(st.lists(words.map(Token), max_size=75), st.sampled_from([0, 49407]))
def test_a_chunk_is_77_positions(chunk, pad):
    ids = chunk_ids(chunk, pad)
    assert len(ids) == 77
    assert (ids[0], ids[-1]) == (49406, 49407)
    assert ids[1 : 1 + len(chunk)] == [token.id for token in chunk]
    assert set(ids[1 + len(chunk) : -1]) <= {pad}


@pytest.mark.parametrize("n", [1, 2, 3, 4, 7])
def test_join_keeps_which_rows(n):
    hidden = torch.arange(77 * n).reshape(1, n, 77, 1)
    assert join_chunks(hidden, "llmga_lpw").flatten().tolist() == list(range(77 * n))
    inner = {77 * i for i in range(1, n)} | {77 * i + 76 for i in range(n - 1)}
    rows = join_chunks(hidden, "llmga")
    assert rows.shape == (1, 75 * n + 2, 1)
    assert rows.flatten().tolist() == [i for i in range(77 * n) if i not in inner]


def test_a_batch_is_joined_prompt_by_prompt():
    hidden = torch.arange(2 * 3 * 77.0).reshape(2, 3, 77, 1)
    for layout in ("llmga", "llmga_lpw"):
        together = join_chunks(hidden, layout)
        assert torch.equal(together, torch.cat([join_chunks(each[None], layout) for each in hidden]))


def test_prompts_are_padded_to_one_length_with_empty_chunks():
    long, short = ({"l": plan_chunks([(tokens(count), "")])} for count in (160, 5))
    padded = pad_plans([long, short], 2)
    assert [[len(chunk) for chunk in each["l"].chunks] for each in padded] == [[75, 75, 10], [5, 0, 0]]
    assert longest(*padded) == longest(long, short) == 3
    assert len(pad_plans([short], 2)[0]["l"].chunks) == 2
    with pytest.raises(ValueError, match="min_chunks must be a whole number"):
        pad_plans([short], 0)


def test_different_chunks_are_numbered_once_as_they_come():
    assert number_chunks([["a", "b", "a"], ["c", "b"]]) == ([[0, 1, 0], [2, 1]], ["a", "b", "c"])
    assert number_chunks([["a"], []], known=[()]) == ([[1], []], [(), "a"])


@given(st.text(alphabet="ab .,!?。\n()[]'\"é猫", max_size=200))
@settings(max_examples=200)
def test_marking_sentences_changes_no_token(tokenize, text):
    whole = said(plan_prompt(text, tokenize, max_chunks=64))
    assert said(plan_prompt(text, tokenize, break_at="sentence", max_chunks=64)) == whole


@pytest.fixture(scope="module")
def tokenize():
    tokenizer = clip_tokenizer()
    return lambda text: tokenizer(text, add_special_tokens=False, verbose=False).input_ids


def test_sentences():
    text = 'He said "no." Then 16.9 km! 红。蓝 v1.5\nend'
    found = spans(text, break_at="sentence")
    assert [span.text for span in found] == ['He said "no."', " Then 16.9 km!", " 红。", "蓝 v1.5\n", "end"]
    assert [span.after for span in found] == ["sentence"] * 4 + [""]


def test_break_is_a_word_of_its_own_in_capitals():
    assert [
        s.text for s in spans("a BREAK b BREAKFAST break BREAK", break_word=True) if s.after != "break"
    ] == [
        "a ",
        " b BREAKFAST break ",
        "",
    ]


@pytest.mark.parametrize(
    ("text", "runs"),
    [
        ("", []),
        ("normal text", [("normal text", 1.0)]),
        ("an (important) word", [("an ", 1.0), ("important", 1.1), (" word", 1.0)]),
        ("(unbalanced", [("unbalanced", 1.1)]),
        ("closed) too]", [("closed) too]", 1.0)]),
        (r"\(literal\] \\", [(r"(literal] \ ".strip(), 1.0)]),
        ("(unnecessary)(parens)", [("unnecessaryparens", 1.1)]),
        ("[less]", [("less", 1 / 1.1)]),
        ("(zero:0)(minus:-.5)", [("zero", 0.0), ("minus", -0.5)]),
        ("(a:1.2.3)", [("a:1.2.3", 1.1)]),
        ("16:9)", [("16:9)", 1.0)]),
    ],
)
def test_weights_grammar(text, runs):
    assert parse_weights(text) == runs


def test_nested_weights_multiply():
    found = parse_weights("a (((house:1.3)) [on] a (hill:0.5), sun, (((sky))).")
    assert [text for text, _ in found] == ["a ", "house", " ", "on", " a ", "hill", ", sun, ", "sky", "."]
    weights = torch.tensor([weight for _, weight in found])
    torch.testing.assert_close(weights, torch.tensor([1, 1.573, 1.1, 1, 1.1, 0.55, 1.1, 1.4641, 1.1]))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("(" * 101, "nested deeper than 100"),
        ("(sun:1e9)" + "(moon:1000)", "'moon' has weight 1000, allowed is -100 to 100"),
        ("a" * 200_001, "text holds 200001 characters, at most 200000"),
    ],
)
def test_hostile_weights_are_refused(text, message):
    with pytest.raises(ValueError, match=message):
        spans(text, weights=True)


@pytest.mark.parametrize(
    "text",
    ["." * 200_000, '."' * 100_000, "(a" * 40 + "b)" * 90_000, "[(" * 20 + ":" * 190_000, "a. " * 60_000],
)
def test_200_000_hostile_characters_take_linear_time(text):
    # Untimed; quadratic code would hang here for minutes.
    no_brackets = str.maketrans("", "", "()[]")
    found = spans(text, weights=True, break_at="sentence")
    assert "".join(span.text for span in found).translate(no_brackets) == text.translate(no_brackets)


def test_readout_counts_are_true(tokenize):
    sentence = "a red fox runs over the old bridge. "  # 9 tokens, 8 in a chunk
    assert readout(plan_prompt(sentence * 3, tokenize)) == "27 tokens in 1 chunk (27)"
    planned = plan_prompt(
        sentence * 20 + "BREAK the end", tokenize, break_at="sentence", max_chunks=2, break_word=True
    )
    first, cut, dropped = readout(planned.padded(3)).split("\n")
    assert first == "144 tokens in 2 chunks (72 + 72), 1 chunk of padding"
    assert cut == "cut 1, at a sentence end: …runs over the old bridge . | a red fox runs over the…"
    assert dropped.startswith("DROPPED 38 tokens beyond max_chunks (2 × 75 tokens): a red fox")
    assert dropped.endswith("the end")


def test_readout_names_the_cut_and_the_untrained_length(tokenize):
    said_so = readout(plan_prompt("fox " * 76 + "BREAK cat", tokenize, break_word=True)).split("\n")
    assert said_so[0] == "77 tokens in 3 chunks (75 + 1 + 1)"
    assert [line.split(":")[0] for line in said_so[1:]] == ["cut 1, at 75 tokens", "cut 2, at BREAK"]
    assert "LLMGA was trained on at most 4 chunks" in readout(plan_chunks([(tokens(301), "")], 64))


def test_readout_stays_short(tokenize):
    assert len(readout(plan_prompt("fox " * 10_000, tokenize, max_chunks=1))) < 600


def test_readout_shows_a_textual_inversion():
    assert "<embedding>" in readout(plan_chunks([([Token(torch.zeros(8))] * 76, "")], 1))
