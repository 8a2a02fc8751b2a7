import pytest
from hypothesis import given
from hypothesis import strategies as st

from miniworld.world.facts import Facts, Mention, caption_facts, facts, kept
from miniworld.world.scene import sample_scene


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a red star", Facts((Mention("star", "red"),))),
        ("A large, red star in the CENTER", Facts((Mention("star", "red", "large", None, "centre"),))),
        (
            "an orange heart and another orange heart",
            Facts((Mention("heart", "orange"), Mention("heart", "orange"))),
        ),
        (
            "at the top, a ring; at the bottom right a black cross on a brick wall",
            Facts((Mention("ring", place="top"), Mention("cross", "black", place="bottom right")), "brick"),
        ),
        (
            "a star, a ring at the left",
            Facts((Mention("ring", place="left"), Mention("star"))),
        ),
        ("The red star is above the ring.", Facts(())),
        ("a red car at the top", Facts(())),
        ("a circle in the night sky", Facts((Mention("circle"),), "night")),
        ("a circle in the sky", Facts((Mention("circle"),), "sky")),
        ("Cool light from the right.", Facts((), tone="cool", light="right")),
        ("", Facts(())),
    ],
)
def test_reading(text: str, expected: Facts) -> None:
    assert caption_facts(text) == expected


@given(st.text())
def test_any_text_can_be_read(text: str) -> None:
    caption_facts(text)


def test_order_of_mention_does_not_matter() -> None:
    one, two = Mention("star", "red", place="top"), Mention("ring", place="left")
    assert Facts((one, two)) == Facts((two, one))


def test_kept_counts_attributes() -> None:
    asked = caption_facts("a red star at the top and a ring on sand")
    assert kept(asked, asked) == (5, 5)
    assert kept(asked, caption_facts("a blue star at the top and a large ring on sand")) == (4, 5)
    assert kept(asked, caption_facts("a red star on snow")) == (2, 5)
    assert kept(asked, Facts(())) == (0, 5)
    assert kept(Facts(()), asked) == (0, 0)
    assert kept(Facts((), tone="warm", light="left"), Facts((), tone="warm", light="right")) == (1, 2)


def test_kept_finds_the_best_match() -> None:
    # Taken one after the other, the square would claim the only small square.
    asked = Facts((Mention("square"), Mention("square", size="small")))
    there = Facts(
        (Mention("square", size="small", place="top"), Mention("square", size="large", place="left"))
    )
    assert kept(asked, there) == (3, 3)


def test_one_object_is_matched_once() -> None:
    assert kept(caption_facts("a star and a star"), caption_facts("a star")) == (1, 2)


def test_a_full_scene_keeps_itself() -> None:
    for seed in range(5):
        whole = facts(sample_scene(seed, (8, 8)))
        assert kept(whole, whole) == (43, 43)
