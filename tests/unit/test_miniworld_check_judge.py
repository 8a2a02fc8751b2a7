"""The check of the judge: which questions are asked of a scene, and what an answer is compared with."""

from __future__ import annotations

import torch

from miniworld.checks.judge import Asked, claims_about, judge_rates, seen_pairs
from miniworld.models.reader import Reading
from miniworld.world.dataset import ATTRIBUTES
from miniworld.world.scene import Scene, is_unseen_pair, sample_scene


def scene(seed: int) -> Scene:
    return sample_scene(seed, (2, 4), "validation")


def test_as_many_things_are_asked_for_that_are_not_there() -> None:
    for seed in range(30):
        one = scene(seed)
        drawn = {(thing.colour, thing.shape) for thing in one.objects}
        claims = claims_about(one, seed)
        absent = [pair for pair in claims if pair not in drawn]
        assert drawn <= set(claims) and len(claims) == len(set(claims))
        assert 1 <= len(absent) <= len(drawn) and not any(is_unseen_pair(*pair) for pair in absent)
        assert claims == claims_about(one, seed)


def test_the_reader_sees_the_pairs_at_the_places_where_something_is() -> None:
    present = torch.zeros(1, 9, dtype=torch.bool)
    present[0, [2, 4]] = True
    values = {name: torch.zeros(1, 9, dtype=torch.long) for name in ATTRIBUTES}
    values["colour"][0, 4] = 1
    values["shape"][0, 2] = 3
    values["shape"][0, 5] = 2  # where nothing is
    colours, shapes = ATTRIBUTES["colour"], ATTRIBUTES["shape"]
    found = seen_pairs(Reading(present, values, torch.zeros(1)))
    assert found == {(colours[0], shapes[3]), (colours[1], shapes[0])}


def test_an_answer_that_is_neither_agrees_with_nothing() -> None:
    asked = [
        Asked("one by one", True, True, True),
        Asked("one by one", None, False, False),
        Asked("one by one", False, False, True),
        Asked("one by one", True, False, False),
        Asked("describe first", True, True, True),
    ]
    found = judge_rates(asked)
    assert found["describe first"]["agrees with the reader"].value == 1.0
    rates = {name: share.value for name, share in found["one by one"].items()}
    assert rates["agrees with the reader"] == 0.5
    assert rates["… where the reader says yes"] == 1.0
    assert abs(rates["… where the reader says no"] - 1 / 3) < 1e-9
    assert rates["neither yes nor no"] == 0.25
    assert rates["the reader agrees with what was drawn"] == 0.75
