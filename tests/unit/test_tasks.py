import pytest

from llmga.chat.tags import parse
from llmga.chat.tasks import SYSTEM_PROMPT, TASKS, TRAINED, check_pictures, render

NAMES = ("refine", "similar", "inpaint", "outpaint", "edit", "describe", "story", "chat")
DESIGN = ("logo", "poster", "character", "tshirt", "infographic")


def test_tasks_are_the_documented_ones_in_the_order_of_the_menu() -> None:
    assert tuple(TASKS) == (*NAMES, *DESIGN, "picture_book", "change", "scene")


@pytest.mark.parametrize("name", NAMES)
def test_each_phrasing_places_the_instruction_once(name: str) -> None:
    words = "a {red} fox, {instruction}"  # braces are the user's own
    task = TASKS[name]
    assert len(task.phrasings) == len(set(task.phrasings))
    assert len(task.phrasings) >= 4 or name == "chat"
    said = [render(name, f"  {words} ", phrasing) for phrasing in range(len(task.phrasings))]
    assert all(text.count(words) == 1 for text in said)
    assert len(set(said)) == len(task.phrasings)


@pytest.mark.parametrize("name", [name for name in NAMES if not TASKS[name].needs_instruction])
def test_optional_instruction_leaves_no_trace(name: str) -> None:
    for phrasing in range(len(TASKS[name].phrasings)):
        text = render(name, " \n", phrasing)
        assert text == text.strip() and text.endswith((".", "?")) and "{" not in text


def test_phrasing_counts_modulo_and_repeats() -> None:
    count = len(TASKS["edit"].phrasings)
    assert render("edit", "make it snow", 2**64 - 1) == render("edit", "make it snow", (2**64 - 1) % count)
    assert render("edit", "make it snow", 1) == render("edit", "make it snow", 1 + count)


def test_chat_is_verbatim() -> None:
    assert render("chat", "  Hi!\n", 3) == "  Hi!\n"


def test_what_each_task_expects_and_needs() -> None:
    assert {name: task.expects for name, task in TASKS.items() if task.expects != "one"} == {
        "describe": "caption",
        "story": "several",
        "chat": "anything",
        "picture_book": "pages",
        "scene": "anything",
    }
    assert {name for name, task in TASKS.items() if task.needs_picture} == {
        "similar",
        "inpaint",
        "outpaint",
        "edit",
        "describe",
    }
    assert {name for name, task in TASKS.items() if task.needs_mask} == {"inpaint", "outpaint"}


def test_unknown_task_lists_the_known() -> None:
    with pytest.raises(
        ValueError,
        match="'task' must be one of refine, similar, .*, picture_book, change, scene, got 'paint'",
    ):
        render("paint", "a fox", 0)
    with pytest.raises(ValueError, match="'task'"):
        check_pictures("paint", image=True)


@pytest.mark.parametrize("name", ["refine", "edit", "story", "chat"])
def test_empty_instruction_is_named(name: str) -> None:
    with pytest.raises(ValueError, match=f"'{name}'.*'instruction' is empty"):
        render(name, " \t\n", 0)


@pytest.mark.parametrize("name", NAMES)
def test_missing_picture_and_mask_are_named(name: str) -> None:
    task = TASKS[name]
    check_pictures(name, image=True, mask=True)
    if task.needs_picture:
        with pytest.raises(ValueError, match=f"'{name}'.*'image'"):
            check_pictures(name, image=False, mask=True)
    else:
        check_pictures(name, image=False, mask=False)
    if task.needs_mask:
        with pytest.raises(ValueError, match=f"'{name}'.*'mask'"):
            check_pictures(name, image=True, mask=False)


def test_system_prompt_shows_the_format_that_the_parser_reads() -> None:
    assert parse(SYSTEM_PROMPT).prompts == ("the prompt",)
    assert "  " not in SYSTEM_PROMPT and "\\" not in SYSTEM_PROMPT
    for word in ("50 to 150 words", "minimal rewrite", "black area is the hole", "block after each part"):
        assert word in SYSTEM_PROMPT


def test_llmgas_own_models_are_asked_as_they_were_trained() -> None:
    assert render("edit", "Make the fox blue", 3, trained=True) == "Make the fox blue"
    assert render("similar", "", 0, trained=True) == "Generate a similar image."
    assert render("inpaint", "", 0, trained=True) == "Inpaint this image."
    assert render("story", "a fox", 0, trained=True) == render("story", "a fox", 0)
    assert render("edit", "变蓝", 0, language="zh", trained=True) == render("edit", "变蓝", 0, language="zh")
    assert set(TRAINED) < set(TASKS)
