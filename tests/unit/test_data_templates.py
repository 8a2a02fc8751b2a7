import re
from collections import Counter
from typing import get_args

import numpy as np
import pytest

from llmga.chat import parse
from llmga.data.templates import TEMPLATES, Language, TemplateRole, pick, tagged

# How many the released lists hold (prompt_temp.py, prompt_zh_temp.py).
COUNTS = {
    "en": [12, 10, 10, 10, 14, 12, 9, 11, 7],
    "zh": [11, 10, 10, 10, 13, 12, 9, 11, 7],
}


@pytest.mark.parametrize("language", get_args(Language))
def test_each_role_has_as_many_different_instructions_as_the_released_lists(language):
    roles = get_args(TemplateRole)
    assert tuple(TEMPLATES[language]) == roles
    assert [len(set(TEMPLATES[language][role])) for role in roles] == COUNTS[language]


def test_each_is_in_its_language_and_clean():
    for language, roles in TEMPLATES.items():
        for text in (text for texts in roles.values() for text in texts):
            assert text == text.strip() and "<" not in text
            assert bool(re.search("[\u4e00-\u9fff]", text)) == (language == "zh"), text
            assert bool(re.search("[A-Za-z]", text)) == (language == "en"), text


def test_the_trigger_words_of_the_released_data_are_there():
    for role, word in [("inpaint", "inpaint"), ("outpaint", "outpaint"), ("similar", "generate")]:
        assert sum(word in text.lower() for text in TEMPLATES["en"][role]) >= 3


def test_pick_is_uniform_and_seeded():
    rng = np.random.default_rng(0)
    drawn = Counter(pick("inpaint", "en", rng) for _ in range(5000))
    assert len(drawn) == 10 and min(drawn.values()) > 400
    again, first = np.random.default_rng(3), np.random.default_rng(3)
    assert [pick("expand", "zh", first) for _ in range(9)] == [pick("expand", "zh", again) for _ in range(9)]


@pytest.mark.parametrize("tag", ["gen_image", "gen_img"])
def test_an_answer_is_what_our_own_parser_reads(tag):
    assert tagged("a red bus", tag) == f"<{tag}> a red bus </{tag}>"
    assert parse(tagged("a red bus", tag)).prompts == ("a red bus",)
