"""Tasks and styles as files: what a good one says, and the sentence for each bad one."""

from __future__ import annotations

import os
import re
import unicodedata
from pathlib import Path

import pytest

from llmga.chat import Conversation, Said, Sampling, parse, read_styles, read_tasks, respond
from llmga.chat.task_files import MAX_FILE, MAX_FILES
from llmga.chat.tasks import PROMPT_RULES, SYSTEM_PROMPT, TASKS, render

POSTER = """---
expects: several
picture: yes
language: zh
---
请为它设计电影海报：{instruction}
***
{instruction}
做成海报。
"""
BAD = {
    "no settings": ("Just text.", "must begin with settings"),
    "empty": ("---\nexpects: one\n---\n", "no text below"),
    "unknown": ("---\ncolour: red\n---\nA {instruction}", "the setting 'colour'; known are expects, picture"),
    "expects": (
        "---\nexpects: two\n---\nA {instruction}",
        "expects must be one of one, several, .* got 'two'",
    ),
    "flag": ("---\npicture: maybe\n---\nA {instruction}", "picture must be one of yes, true, no, false"),
    "language": ("---\nlanguage: fr\n---\nA {instruction}", "language must be one of en, zh, got 'fr'"),
    "colon": ("---\nexpects\n---\nA {instruction}", "'expects' has no ':'"),
    "words": ("---\nwords: yes\n---\nNo place.", r"\{instruction\} must say where"),
    "refine": ("---\n---\nA {instruction}", "'refine' is built in"),
    "a..b": ("---\n---\nA {instruction}", "its name must be"),
}


class Engine:
    """Keeps the conversation that it was asked to continue."""

    name = "kept"
    supports_pictures = False

    def generate(self, conversation: Conversation, sampling: Sampling, on_text: object) -> Said:
        self.asked = conversation
        return Said("<gen_image> a fox </gen_image>")


def write(folder: Path, name: str, text: str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.md").write_text(text, encoding="utf-8")


def test_a_task_file_is_a_task(tmp_path: Path) -> None:
    write(tmp_path, "film poster", POSTER)
    write(tmp_path, "plain", "---\n---\r\nDescribe what you feel.\n")
    found, skipped = read_tasks(tmp_path)
    assert skipped == () and list(found) == ["film poster", "plain"]
    poster, plain = found.values()
    assert (poster.expects, poster.needs_picture, poster.needs_mask) == ("several", True, False)
    assert poster.needs_instruction and not plain.needs_instruction
    assert render(poster, " a fox ", 0, language="zh") == "请为它设计电影海报：a fox"
    assert render(poster, "a fox", 1) == "a fox\n做成海报。\nAnswer in English."
    assert render(plain, "", 5, language="zh") == "Describe what you feel."
    with pytest.raises(ValueError, match="the task 'film poster' needs words"):
        render(poster, " ", 0)


@pytest.mark.parametrize("name", BAD)
def test_a_bad_file_is_skipped_with_its_reason_and_costs_no_other(tmp_path: Path, name: str) -> None:
    text, reason = BAD[name]
    write(tmp_path, name, text)
    write(tmp_path, "good", "---\n---\nA {instruction}")
    found, skipped = read_tasks(tmp_path)
    assert list(found) == ["good"]
    (said,) = skipped
    assert said.startswith(f"{tmp_path.name}/{name}.md is skipped: ")
    assert re.search(reason, said), said


def test_files_are_bounded_and_a_missing_folder_holds_none(tmp_path: Path) -> None:
    assert read_tasks(tmp_path / "nowhere") == ({}, ())
    (tmp_path / "large.md").write_bytes(b"x" * (MAX_FILE + 1))
    (tmp_path / "latin.md").write_bytes("---\n---\nä {instruction}".encode("latin-1"))
    (tmp_path / "folder.md").mkdir()
    found, skipped = read_tasks(tmp_path)
    assert found == {} and len(skipped) == 3
    assert "larger than" in skipped[1] and "not UTF-8" in skipped[2]
    for i in range(MAX_FILES):
        write(tmp_path, f"a{i:04}", "---\n---\nA {instruction}")
    found, skipped = read_tasks(tmp_path)
    assert len(found) == MAX_FILES and "only the first" in skipped[-1]


def test_a_file_of_any_script_and_system_is_read_and_what_a_mac_adds_is_not(tmp_path: Path) -> None:
    names = ["café", "हिंदी", "ไทยสี่", "日本"]
    for name in names:
        write(tmp_path, unicodedata.normalize("NFD", name), "---\n---\nA {instruction}")
        (tmp_path / f"._{name}.md").write_bytes(b"\0\5\x16\7")
    (tmp_path / "FROM WINDOWS.MD").write_bytes(b"---\r\n---\r\nA {instruction}\r\n")
    found, skipped = read_tasks(tmp_path)
    assert skipped == () and set(found) == {*names, "FROM WINDOWS"}
    write(tmp_path, "café", "---\n---\nAnother {instruction}")
    found, (said,) = read_tasks(tmp_path)
    assert len(found) == 5 and "café.md is skipped: another file has the same name" in said


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.md")
    assert read_tasks(tmp_path) == ({}, (f"{tmp_path.name}/pipe.md is skipped: it is not a file",))


def test_styles_come_with_the_library_and_take_the_place_of_the_rules(tmp_path: Path) -> None:
    write(tmp_path, "haiku", "---\nreminder: Three lines.\n---\nA prompt is a haiku.")
    write(tmp_path, "tags", "---\n---\nMine.")
    found, skipped = read_styles(tmp_path)
    assert {"prose", "tags", "json", "haiku"} == found.keys()
    assert len(skipped) == 1 and "'tags' is built in" in skipped[0]
    engine = Engine()
    settings = {"task": "refine", "instruction": "a fox", "sampling": Sampling(), "policy": "error"}
    respond(engine, Conversation(), on_text=lambda text: None, style=found["haiku"], **settings)  # type: ignore[arg-type]
    assert engine.asked.system == SYSTEM_PROMPT.replace(PROMPT_RULES, "A prompt is a haiku.")
    assert engine.asked.turns[-1].text == f"{render('refine', 'a fox', 0)}\nThree lines."


def test_a_json_prompt_comes_through_whole() -> None:
    prompt = '{"scene": "a fox", "style": "oil", "subjects": [{"description": "a \\"red\\" fox"}]}'
    assert parse(f"Here: <gen_image> {prompt} </gen_image>").prompts == (prompt,)


def test_built_in_tasks_are_as_before() -> None:
    assert all(task.language == "" for task in TASKS.values())
