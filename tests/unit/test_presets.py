"""The design expert, the picture book and the Chinese phrasings, up to the reply that comes of them."""

from __future__ import annotations

import re

import pytest

from llmga.chat import TASKS, Conversation, Reply, Said, Sampling, parse, respond
from llmga.chat.presets import CHINESE, DESIGN, LANGUAGES, MAX_PAGES
from llmga.chat.tasks import render

# What LLMGA was trained or shown for: prompts from ideas, similar pictures, in- and outpainting, edits, descriptions,
# conversation, stories and picture books, and the design expert.
OFFICIAL = {
    "refine",
    "similar",
    "inpaint",
    "outpaint",
    "edit",
    "describe",
    "chat",
    "story",
    "picture_book",
} | {
    "logo",
    "poster",
    "character",
    "tshirt",
    "infographic",
}
WORDS = "a {red} fox for {pages} friends, {instruction}"  # braces are the user's own


class Script:
    """Says its replies one after the other."""

    name, supports_pictures = "script", False

    def __init__(self, *replies: str) -> None:
        self.replies, self.heard = list(replies), []

    def generate(self, conversation, sampling, on_text) -> Said:
        self.heard.append(conversation.turns[-1].text)
        return Said.of(self.replies.pop(0))


def book(*replies: str, pages: int = 2, policy="ask_again", **more) -> tuple[Reply, Script]:
    engine = Script(*replies)
    reply = respond(
        engine, Conversation(), task="picture_book", instruction="a fox", sampling=Sampling(), policy=policy,
        on_text=lambda text: None, pages=pages, **more,
    )  # fmt: skip
    return reply, engine


def page(i: int) -> str:
    return f"Page {i}. <gen_image> picture {i} </gen_image>"


def test_every_official_task_has_its_name() -> None:
    assert OFFICIAL | {"change", "scene"} == set(TASKS)
    assert set(CHINESE) == set(TASKS) - {"chat"}  # whose words are the user's alone


@pytest.mark.parametrize("name", [*DESIGN, "picture_book"])
def test_each_phrasing_places_the_instruction_once(name: str) -> None:
    said = [render(name, WORDS, i, pages=3) for i in range(len(TASKS[name].phrasings))]
    assert len(set(said)) == len(said) >= 3
    assert all(text.count(WORDS) == 1 for text in said)


@pytest.mark.parametrize("name", sorted(CHINESE))
def test_each_chinese_phrasing_places_the_instruction_once_and_is_chinese(name: str) -> None:
    for i in range(len(CHINESE[name])):
        text = render(name, WORDS, i, language="zh")
        assert text.count(WORDS) == 1
        assert re.search("[\u4e00-\u9fff]", text)
        keys = r'"[a-z]+"|JSON|\[x, y, width, height\]'  # of the answer that a scene asks for
        assert not re.search(r"[A-Za-z]{2,}", re.sub(keys, "", text.replace(WORDS, "")))


def test_only_pages_of_the_template_are_counted() -> None:
    assert "exactly 7 pages" in render("picture_book", WORDS, 0, pages=7)
    assert "正好 7 页" in render("picture_book", WORDS, 0, pages=7, language="zh")


def test_the_chat_is_verbatim_in_every_language() -> None:
    assert {render("chat", " Hi\n", 1, language=language) for language in LANGUAGES} == {" Hi\n"}


@pytest.mark.parametrize("pages", [0, MAX_PAGES + 1, True, 2.0, "2"])
def test_pages_are_counted_from_1_to_12(pages) -> None:
    with pytest.raises(ValueError, match="'pages' must be a whole number from 1 to 12"):
        render("picture_book", "a fox", 0, pages=pages)


def test_an_unknown_language_lists_the_known() -> None:
    with pytest.raises(ValueError, match="'language' must be one of en, zh, got 'fr'"):
        render("refine", "a fox", 0, language="fr")


def test_a_picture_book_gives_each_page_its_words() -> None:
    reply, _ = book(f"{page(1)}\n{page(2)}\nThe end.")
    assert reply.prompts == ("picture 1", "picture 2")
    assert reply.passages == ("Page 1.", "Page 2.\n\nThe end.")


def test_pages_too_many_are_dropped() -> None:
    reply, engine = book(" ".join(map(page, range(1, 6))))
    assert reply.prompts == ("picture 1", "picture 2") and reply.passages == ("Page 1.", "Page 2.")
    assert len(engine.heard) == 1


def test_pages_too_few_are_asked_for_again() -> None:
    reply, engine = book(page(1), f"{page(3)} {page(4)}")
    assert "exactly 2 pages" in engine.heard[1]
    assert reply.prompts == ("picture 3", "picture 4") and reply.asked_again
    assert [turn.text for turn in reply.conversation.turns][1] == f"{page(3)} {page(4)}"


def test_the_longer_of_two_short_books_is_kept() -> None:
    reply, _ = book(f"{page(1)} {page(2)}", page(3), pages=3)
    assert reply.prompts == ("picture 1", "picture 2")


def test_a_short_book_is_an_error_where_the_policy_says_so() -> None:
    with pytest.raises(ValueError, match="holds only 1 of the pages"):
        book(page(1), policy="error")
    assert book(page(1), policy="whole_reply")[0].prompts == ("picture 1",)


@pytest.mark.parametrize("reply", ["no tags", "", "<gen_image> a </gen_image>", "</gen_image> a <gen_img> b"])
def test_there_are_as_many_passages_as_prompts(reply: str) -> None:
    parsed = parse(reply)
    assert len(parsed.passages) == len(parsed.prompts)


def test_a_prompt_that_is_no_block_has_an_empty_passage() -> None:
    reply, _ = book("just words", policy="whole_reply")
    assert reply.prompts == ("just words",) and reply.passages == ("",)
