"""The pictures of the help pages: each is there, is small, and is what the template's card shows."""

from __future__ import annotations

import re

import numpy as np
import pytest
from PIL import Image

from tools import ROOT
from tools.help_pictures import DOCS, SHOWN, painted
from tools.template_list import TEMPLATES

PICTURE = re.compile(r"!\[(.+?)\]\((.+?)\)")
PAGES = sorted(path.stem for path in DOCS.glob("LLMGA_*.md"))
LARGEST, ALL = 100_000, 1_000_000
"""Bytes of one picture and of all together: they come with every installed pack."""
JPEG = 4.0
"""Mean difference, in 8-bit values, between a picture and the same compressed once more."""


def shown_by(page: str) -> list[str]:
    return [name for _, name in PICTURE.findall((DOCS / page).read_text("utf-8"))]


def test_both_languages_show_the_same_pictures_and_none_is_shown_by_no_page() -> None:
    shown = {page: shown_by(f"{page}.md") for page in PAGES}
    assert {page: shown_by(f"{page}/zh.md") for page in PAGES} == shown
    # ComfyUI takes a picture's place from the folder of the pages, in every language.
    assert {name for names in shown.values() for name in names} == {path.name for path in DOCS.glob("*.jpg")}
    assert len({*PAGES} - {page for page, names in shown.items() if not names}) >= 8


def test_the_pictures_are_small() -> None:
    sizes = {path.name: path.stat().st_size for path in DOCS.glob("*.jpg")}
    assert max(sizes.values()) < LARGEST and sum(sizes.values()) < ALL, sizes


@pytest.mark.parametrize("name", SHOWN)
def test_a_picture_is_what_the_card_shows(name: str) -> None:
    with Image.open(ROOT / "workflows" / f"{TEMPLATES[name].title}.jpg") as card:
        cut = painted(card)
        assert cut.width == card.width and card.height / 5 < cut.height < card.height / 2
    for node in SHOWN[name]:
        with Image.open(DOCS / f"{node}.jpg") as picture:
            assert picture.size == cut.size
            assert np.abs(np.asarray(picture, float) - np.asarray(cut, float)).mean() < JPEG
