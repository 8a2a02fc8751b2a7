"""Prompt-to-prompt's options resolved into token positions, and the heat maps of words."""

from __future__ import annotations

import pytest
import torch

from llmga.diffusion import Schedule, Site, StopForward
from llmga.diffusion.attention import token_attention
from llmga.edit.blend import LocalBlend
from llmga.edit.control import Blend
from llmga.edit.heatmaps import HeatTaps, paint_heatmap, word_maps
from llmga.edit.inversion import Trajectory
from llmga.edit.prompt_to_prompt import (
    PromptToPromptOptions,
    align_auto,
    build_control,
    read_phrases,
    read_spans,
    read_weights,
)
from llmga.text import clip_tokenizer, plan_prompt

TOKENIZER = clip_tokenizer()
SOURCE, TARGET = "a large red star on snow", "a large blue star on snow"
SIZE = (16, 16)


def plan(text: str):
    return plan_prompt(text, lambda part: TOKENIZER(part, add_special_tokens=False, verbose=False).input_ids)


def resolved(
    options: PromptToPromptOptions | None = None, source: str = SOURCE, target: str = TARGET, **more
):
    return build_control(
        options or PromptToPromptOptions(), plan(source), plan(target), "llmga", size=SIZE, **more
    )


def test_entries_are_read_as_they_are_written() -> None:
    assert read_phrases(" red fox, snow;\n\ntree ") == ("red fox", "snow", "tree")
    assert read_weights("snow: 2, tall tree = .5\nfog:-1") == (
        ("snow", 2.0),
        ("tall tree", 0.5),
        ("fog", -1.0),
    )
    assert read_spans("lion: 0.2, red fox: 0.1 to 0.5\nowl: 0.3-1") == (
        ("lion", 0.0, 0.2),
        ("red fox", 0.1, 0.5),
        ("owl", 0.3, 1.0),
    )
    for text in ("", " ", ",;\n"):
        assert read_phrases(text) == () and read_weights(text) == ()


@pytest.mark.parametrize("text", ["snow", ": 2", "snow: two", "snow: 1e3", "snow: inf", "snow 2"])
def test_another_form_is_an_error(text: str) -> None:
    with pytest.raises(ValueError, match="word_weights must hold entries such as"):
        read_weights(text)


def test_the_words_that_differ_are_where_the_picture_may_change() -> None:
    edit = resolved()
    assert edit.control.blend is not None
    assert edit.control.blend.source == edit.control.blend.target == (3,)  # BOS, a, large, red
    assert "gone: red; new: blue" in edit.notes[0] and len(edit.notes) == 1
    assert resolved(local_blend="off").control.blend is None
    chosen = resolved(
        PromptToPromptOptions(blend=("snow",), subtract=("Stars!",), threshold=0.5, start=0.1)
    ).control.blend
    assert chosen is not None
    assert (chosen.source, chosen.target, chosen.subtract_source) == ((6,), (6,), (4,))
    assert (chosen.threshold, chosen.start) == (0.5, 0.1)


def test_without_a_difference_the_weighted_words_are() -> None:
    edit = resolved(PromptToPromptOptions(weights=(("star", 3.0),)), target=SOURCE)
    assert edit.control.blend is not None and edit.control.blend.target == (4,)
    assert edit.control.equalizer is not None and edit.control.equalizer[4] == 3
    assert edit.control.equalizer.sum() == 3 + 76
    same = resolved(target=SOURCE)
    assert (
        same.control.blend is None
        and "the whole picture may" in same.notes[1]
        and "no word differs" in same.notes[0]
    )


def test_a_word_has_steps_of_its_own() -> None:
    control = resolved(PromptToPromptOptions(spans=(("blue star", 0.5, 1.0),)), cross_replace=0.2).control
    early, late = (control.cross(step, 10) for step in (0, 9))
    assert early is not None and late is not None
    assert early[0][6, 6] == 1 and early[0][:, 4].sum() == 0
    assert late[0][6, 6] == 0 and late[0][4, 4] == 1


def test_prompts_that_share_little_keep_the_layout_alone() -> None:
    edit = resolved(target="an old photograph of two dogs in a harbour at night")
    assert all(edit.control.cross(step, 10) is None for step in range(10))
    assert edit.control.replaces_self(0, 10) and edit.control.blend is None
    assert edit.notes[1].startswith("WARNING the prompts share too few words")
    assert resolved(source="").notes[1].startswith("WARNING")
    chosen = resolved(
        PromptToPromptOptions(blend=("snow",)), target="snow, and nothing else at all of it"
    ).control.blend
    assert chosen is not None, "words that were named still count"


def test_words_that_do_not_occur_are_noted_and_left_out() -> None:
    words = PromptToPromptOptions(
        weights=(("tiger", 2.0),), spans=(("lion", 0.0, 0.5),), blend=("emu",), subtract=("owl",)
    )
    edit = resolved(words)
    assert edit.control.equalizer is None and edit.control.blend is None
    assert [note.split(" does")[0].split(" occurs")[0] for note in edit.notes[-4:]] == [
        "word_weights: 'tiger'",
        "word_steps: 'lion'",
        "blend_words: 'emu'",
        "subtract_words: 'owl'",
    ]


def test_auto_replaces_only_where_words_were_swapped() -> None:
    def mode_of(target: str) -> str:
        found = align_auto(plan(SOURCE), plan(target), "llmga")
        return "refine" if found.own.any() else "replace"

    assert mode_of(TARGET) == "replace"
    assert mode_of("a large blue fox on snow") == "replace"
    assert mode_of("a large red star with stripes on snow") == "refine"
    assert mode_of("a star, large, red, on snow") == "refine"
    assert align_auto(plan(SOURCE), plan(TARGET), "llmga").aligned_ratio == pytest.approx(5 / 6)
    with pytest.raises(ValueError, match="as many words"):
        resolved(PromptToPromptOptions(mode="replace"), target=f"{TARGET} and grass")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mode": "both"}, "mode must be one of"),
        ({"threshold": 1.1}, "threshold must be from 0 to 1"),
        ({"self_max": float("nan")}, "self_max must be from 0 to 1"),
        ({"weights": (("a", 21.0),)}, "'a' has weight 21"),
        ({"weights": (("a", float("nan")),)}, "'a' has weight nan"),
        ({"spans": (("a", 0.5, 0.2),)}, "'a' has 0.5 to 0.2"),
    ],
)
def test_values_out_of_range(options, message) -> None:
    with pytest.raises(ValueError, match=message):
        PromptToPromptOptions(**options)


SITES = [
    Site("input", 1, 0, "self"),
    Site("input", 1, 0, "cross"),
    Site("output", 2, 0, "cross"),
    Site("output", 3, 0, "self"),
]


class Looking:
    """A denoiser of three tokens: each layer's queries look at token 1 in the left half and at token 2 in the right."""

    schedule = Schedule.from_betas()
    sites = SITES

    def __init__(self) -> None:
        self.rows, self.timesteps, self.visited = 0, [], []

    def eps(self, x, timestep, contexts, taps=None):
        self.rows += len(x)
        self.timesteps.append(timestep)
        for site in SITES:
            self.visited.append(site)
            width = 2 if site.number == 1 else 4
            right = (torch.arange(width) >= width // 2).repeat(width).long() + 1
            q = torch.eye(3)[right].repeat(len(x), 1, 2) * 50
            k = torch.eye(3).repeat(len(x), 1, 2)
            try:
                taps.attend(site, q, k, k, 2, (width, width))
            except StopForward:
                return None
        return x


def test_heat_maps_show_where_each_word_is_seen() -> None:
    denoiser, seen = Looking(), []
    trajectory = Trajectory(torch.zeros(11, 2, 4, 8, 8), tuple(denoiser.schedule.timesteps(10)))
    maps = word_maps(denoiser, trajectory, "context", [[1], [2], [1, 2]], 3, lambda i, n: seen.append((i, n)))
    assert maps.shape == (3, 2, 8, 8) and seen == [(1, 3), (2, 3), (3, 3)]
    assert (maps[0, :, :, :2] > 0.99).all() and (maps[0, :, :, 6:] < 0.01).all()
    assert (maps[1, :, :, :2] < 0.01).all() and (maps[1, :, :, 6:] > 0.99).all()
    torch.testing.assert_close(maps[2], torch.ones(2, 8, 8))
    assert denoiser.rows == 6 and denoiser.timesteps == [901, 501, 1]
    assert SITES[3] not in denoiser.visited, "the pass stops at the last cross-attention"
    everything = Looking()
    word_maps(everything, trajectory, "context", [[1]], 999)
    assert len(everything.timesteps) == 10
    for words in ([], [[]], [[1], []]):
        with pytest.raises(ValueError, match="words must be token positions"):
            word_maps(denoiser, trajectory, "context", words, 3)
    with pytest.raises(ValueError, match="positions below 3, got 7"):
        word_maps(denoiser, trajectory, "context", [[7]], 3)


def test_maps_of_the_up_blocks_alone_leave_the_others_out() -> None:
    taps = HeatTaps([[1]], (4, 4), SITES[2], up_only=True)
    q, k = torch.randn(1, 16, 6), torch.randn(1, 3, 6)
    taps.attend(SITES[1], q, k, k, 2, (4, 4))
    assert taps.total is None
    with pytest.raises(StopForward):
        taps.attend(SITES[2], q, k, k, 2, (4, 4))
    assert taps.total is not None
    both = {
        Site("input", 4, 0, "cross"): (8, 8),
        Site("output", 0, 0, "cross"): (8, 8),
        Site("output", 2, 0, "cross"): (16, 16),
    }
    for up_only, wanted in ((False, ["input", "output"]), (True, ["output"])):
        blend = LocalBlend(Blend((1,), (1,), up_only=up_only), (3, 3), (32, 32))
        assert sorted(site.block for site in blend.sites(dict(both))) == wanted
        assert all(both[site] == (8, 8) for site in blend.sites(dict(both)))
    for local_blend, up_only in (("auto", False), ("up blocks", True)):
        control = resolved(local_blend=local_blend).control
        assert control.blend is not None and control.blend.up_only is up_only


def test_heat_is_the_probability_of_a_words_tokens() -> None:
    generator = torch.Generator().manual_seed(0)
    q, k = torch.randn(2, 12, 8, generator=generator), torch.randn(2, 7, 8, generator=generator)
    words = [[1], [2, 5], [0], [6], [3, 4], [1]]  # more words than a head is wide
    heads = torch.stack(
        [(q1 @ k1.mT / 4**0.5).softmax(-1) for q1, k1 in zip(q.chunk(2, -1), k.chunk(2, -1), strict=True)]
    ).mean(0)
    expected = torch.stack([heads[..., tokens].sum(-1) for tokens in words], -1)
    chosen = torch.zeros(7, len(words))
    for channel, tokens in enumerate(words):
        chosen[tokens, channel] = 1
    torch.testing.assert_close(token_attention(q, k, chosen, 2), expected, atol=1e-6, rtol=0)


def test_heat_is_painted_over_a_grey_picture() -> None:
    image = torch.rand(2, 16, 24, 4, generator=torch.Generator().manual_seed(0))
    heat = torch.zeros(2, 2, 3)
    heat[:, :, 2] = 1
    painted = paint_heatmap(image, heat)
    assert painted.shape == (2, 16, 24, 3) and 0 <= painted.min() and painted.max() <= 1
    assert (painted[:, :, :4, 2] > painted[:, :, :4, 0]).all(), "cold is blue"
    assert (painted[:, :, -4:, 0] > painted[:, :, -4:, 2]).all(), "hot is red"
    assert paint_heatmap(image[..., :1], heat).shape == (2, 16, 24, 3)
