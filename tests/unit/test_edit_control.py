from __future__ import annotations

from typing import Any

import pytest
import torch

from llmga.edit import Blend, Control
from llmga.edit.control import level_cells


def control(**values: Any) -> Control:
    return Control(**{"matrix": torch.eye(4, 5), "own": torch.tensor([0.0, 0, 0, 0, 1]), **values})


def test_replaced_tokens_follow_the_matrix_and_others_keep_their_own() -> None:
    schedule = torch.tensor([[0.0, 1.0], [0.0, 0.5], [0.5, 1.0], [0.0, 0.0], [0.0, 1.0]])
    weights = torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0])
    at = control(cross_replace=schedule, equalizer=weights).cross(0, 9)
    assert at is not None
    torch.testing.assert_close(at[0], torch.eye(4, 5) * torch.tensor([1.0, 2, 0, 0, 5]))
    torch.testing.assert_close(at[1], torch.tensor([0.0, 0, 1, 1, 5]))
    at = control(cross_replace=schedule, equalizer=weights).cross(5, 9)
    assert at is not None
    torch.testing.assert_close(at[0], torch.eye(4, 5) * torch.tensor([1.0, 0, 3, 0, 5]))
    torch.testing.assert_close(at[1], torch.tensor([0.0, 1, 0, 1, 5]))


def test_a_step_that_edits_nothing_says_so() -> None:
    assert control(cross_replace=0.0).cross(0, 50) is None
    edited = [control(cross_replace=0.4).cross(i, 50) is not None for i in range(50)]
    assert edited == [True] * 20 + [False] * 30
    edited = [control(cross_replace=torch.full((5,), 0.7)).cross(i, 9) is not None for i in range(9)]
    assert edited == [True] * 7 + [False] * 2  # 0.7 in float32 is less than 0.7
    edited = [control(cross_replace=(0.2, 0.4)).cross(i, 9) is not None for i in range(5)]
    assert edited == [False, False, True, True, False]


def test_self_attention_is_replaced_in_its_part_of_the_steps() -> None:
    assert [control().replaces_self(i, 50) for i in (0, 29, 30, 49)] == [True, True, False, False]
    assert [control(self_replace=(0.2, 0.4)).replaces_self(i, 10) for i in (1, 2, 3, 4)] == [
        False,
        True,
        True,
        False,
    ]
    assert not control(self_replace=0.0).replaces_self(0, 50)
    assert control(self_replace=1.0).replaces_self(49, 50)


def test_a_level_of_the_unet_is_a_quarter_of_the_one_above_whatever_its_sides() -> None:
    assert [level_cells(0.25, size) for size in ((64, 64), (65, 65), (9, 64), (2, 3))] == [1024, 1089, 160, 2]
    assert [level_cells(share, (65, 64)) for share in (1, 0.9, 0.3, 0.24, 0.0625)] == [
        4160,
        1056,
        1056,
        272,
        272,
    ]
    assert level_cells(0, (64, 64)) == 0


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"own": torch.zeros(4)}, r"own \(target tokens,\)"),
        ({"matrix": torch.zeros(4)}, "matrix must be"),
        ({"equalizer": torch.ones(4)}, "each of 5 target tokens"),
        ({"cross_replace": torch.ones(4)}, "each of 5 target tokens"),
        ({"cross_replace": 1.5}, "cross_replace must be from 0 to 1"),
        ({"cross_replace": torch.full((5,), torch.nan)}, "cross_replace must be from 0 to 1"),
        ({"self_replace": -0.1}, "self_replace must be from 0 to 1"),
        ({"self_max_pixels": -1}, "self_max_pixels must be at least 0"),
        ({"blend": Blend(source=(4,))}, r"blend source must be positions below 4, got \[4\]"),
        ({"blend": Blend(target=(1,), subtract_target=(-1,))}, "blend subtract_target"),
    ],
)
def test_what_does_not_fit_is_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        control(**values)


def test_a_blend_needs_a_word_and_thresholds_in_range() -> None:
    with pytest.raises(ValueError, match="at least one token"):
        Blend(subtract_target=(1,))
    for name in ("threshold", "subtract_threshold", "start"):
        wrong: dict[str, Any] = {name: 1.1}
        with pytest.raises(ValueError, match=f"blend {name}"):
            Blend(target=(1,), **wrong)
