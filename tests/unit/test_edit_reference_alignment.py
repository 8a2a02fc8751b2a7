"""The published alignment of prompt-to-prompt, position by position against its own code's (recorded by
fixtures/edit_alignment_official.py, exact)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from llmga.edit.alignment import align
from llmga.edit.prompt_to_prompt import PromptToPromptOptions, align_auto, build_control
from llmga.edit.reference_alignment import align_as_published
from llmga.text import Plan, clip_tokenizer, plan_prompt

OFFICIAL = json.loads(
    (Path(__file__).parent / "fixtures" / "edit_alignment_official.json").read_text(encoding="utf-8")
)
LONG = "a quiet stone bridge over a river in soft light, " * 12


@pytest.fixture(scope="module")
def plan():
    tokenizer = clip_tokenizer()

    def planned(text: str) -> Plan:
        tokenize = lambda part: tokenizer(part, add_special_tokens=False, verbose=False).input_ids  # noqa: E731
        return plan_prompt(text, tokenize)

    return planned


@pytest.mark.parametrize("layout", ["llmga", "llmga_lpw"])  # the same for one chunk
@pytest.mark.parametrize("case", OFFICIAL["refine"], ids=lambda case: case["prompts"][1][:20] or "empty")
def test_refine_is_the_official_mapper_everywhere(plan, layout, case):
    found = align_as_published(*map(plan, case["prompts"]), layout)
    alphas = torch.tensor(case["alphas"])
    expected = torch.zeros(77, 77)
    for n, at in enumerate(case["mapper"]):
        if alphas[n]:
            expected[at, n] = 1
    assert torch.equal(found.matrix, expected) and torch.equal(found.own, 1 - alphas)


@pytest.mark.parametrize("case", OFFICIAL["replace"], ids=lambda case: case["prompts"][1][:20])
def test_replace_is_the_official_mapper_everywhere(plan, case):
    found = align_as_published(*map(plan, case["prompts"]), "llmga", "replace")
    expected = torch.zeros(77, 77)
    for i, j, share in case["entries"]:
        expected[i, j] = share
    torch.testing.assert_close(found.matrix, expected, atol=0, rtol=1e-6)
    assert not found.own.any()


def test_it_differs_from_ours_where_the_lengths_differ_and_only_there(plan):
    cases = {tuple(case["prompts"]) for case in OFFICIAL["refine"]}
    differ = {
        pair
        for pair in cases
        if not torch.equal(
            align_as_published(*map(plan, pair), "llmga").matrix, align(*map(plan, pair), "llmga").matrix
        )
    }
    unequal = {pair for pair in cases if len(plan(pair[0]).chunks[0]) != len(plan(pair[1]).chunks[0])}
    assert differ == unequal and len(unequal) > 3


@pytest.mark.parametrize("layout", ["llmga", "llmga_lpw"])
def test_long_prompts_go_on_by_the_same_rule(plan, layout):
    source, target = plan(LONG), plan(LONG.replace("river", "wide river", 1))
    assert len(source.chunks) == 2
    same = align_as_published(source, source, layout)
    assert torch.equal(same.matrix, torch.eye(len(same.own))) and not same.own.any()
    found = align_as_published(source, target, layout)
    assert (
        found.own.sum() == len(found.added) == 1 + (layout == "llmga_lpw")
    )  # "wide", and what crosses the border
    added = found.added[0]
    behind = found.matrix[:, added + 1].argmax()
    assert behind == added  # "river" of the target looks where the source's stood


def test_the_words_that_differ_are_found_as_by_ours(plan):
    source, target = plan("a large red star on snow"), plan("a large blue star on snow")
    found = align_as_published(source, target, "llmga")
    ours = align(source, target, "llmga")
    assert (found.removed, found.added) == (ours.removed, ours.added) == ((3,), (3,))
    assert found.aligned_ratio == ours.aligned_ratio


@pytest.mark.parametrize("mode", ["auto", "refine"])
def test_the_option_reaches_the_control_and_the_notes(plan, mode):
    source, target = plan("a star on snow"), plan("a large red star on fine white snow")
    options = {name: PromptToPromptOptions(mode=mode, alignment=name) for name in ("runs", "reference")}
    found = {
        name: build_control(each, source, target, "llmga", size=(8, 8)) for name, each in options.items()
    }
    assert torch.equal(found["reference"].control.matrix, align_as_published(source, target, "llmga").matrix)
    assert torch.equal(found["runs"].control.matrix, align_auto(source, target, "llmga", mode).matrix)
    assert any("aligned as published" in note for note in found["reference"].notes)
    assert not any("published" in note for note in found["runs"].notes)


def test_what_is_refused(plan):
    with pytest.raises(ValueError, match="alignment must be one of runs, reference; got 'paper'"):
        PromptToPromptOptions(alignment="paper")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="mode replace needs prompts of as many words"):
        align_as_published(plan("a cat"), plan("cat"), "llmga", "replace")
    with pytest.raises(ValueError, match="layout must be one of"):
        align_as_published(plan("a cat"), plan("a cat"), "host")  # type: ignore[arg-type]
