"""A full or read-only disk costs no reply, and the node names the file and the next step."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from support import comfy_inprocess
from support.small_disk import small_disk

pytestmark = pytest.mark.skipif(
    comfy_inprocess.skip_reason() is not None, reason=str(comfy_inprocess.skip_reason())
)
REPLY = "Here. <gen_image> a red fox </gen_image>"


@pytest.fixture(scope="module")
def nodes() -> Any:
    comfy_inprocess.start()
    comfy_inprocess.pack("nodes").extension()
    return comfy_inprocess.pack("nodes.chat")


@pytest.fixture
def temp(nodes: Any) -> Iterator[Path]:
    """The folder of shown pictures, empty."""
    folder = comfy_inprocess.pack("nodes.host").shown_picture("x").parent
    if folder.exists():
        shutil.rmtree(folder)
    yield folder
    if folder.is_file():
        folder.unlink()


class Engine:
    name = "fake"
    supports_pictures = True

    def generate(self, conversation: Any, sampling: Any, on_text: Any) -> Any:
        return comfy_inprocess.pack("llmga.chat").Said(REPLY)


def picture(seed: int, size: int = 256) -> torch.Tensor:
    return torch.rand(1, size, size, 3, generator=torch.Generator().manual_seed(seed))


def ask(nodes: Any, image: torch.Tensor, history: Any = None) -> Any:
    return nodes.Chat.execute(
        Engine(), "a fox", "describe", 0, 0.2, 1.0, 16, "ask_again", image=image, history=history
    )


def record_of(output: Any) -> dict[str, Any]:
    (found,) = output.ui["llmga_chat"]
    return found


def test_a_full_disk_costs_no_reply(nodes: Any, temp: Path, caplog: pytest.LogCaptureFixture) -> None:
    with small_disk(temp, 65_536), caplog.at_level(logging.WARNING):
        output = ask(nodes, torch.cat([picture(0), picture(1)]))
        text, prompt, _, has_prompt, conversation, *_ = output.args
        assert (prompt, has_prompt) == ("a red fox", True) and "red fox" in text
        assert len(conversation.pictures) == 2
        (note,) = record_of(output)["notes"]
        for words in ("the disk is full: make room there", "temp folder", "Save History"):
            assert words in note
        assert note in caplog.text and list(temp.iterdir()) == []
        # A small one still fits, and the large ones of the history are said again.
        output = ask(nodes, picture(2, 16), conversation)
        assert [path.name for path in temp.iterdir()] == [f"{output.args[4].pictures[-1].sha256}.png"]
        assert len(record_of(output)["notes"]) == 1


def test_a_read_only_disk_costs_no_reply(nodes: Any, temp: Path) -> None:
    with small_disk(temp, 65_536, read_only=True):
        output = ask(nodes, picture(0))
    assert output.args[1] == "a red fox" and "read-only" in record_of(output)["notes"][0]


def test_another_thing_in_the_way_costs_no_reply(nodes: Any, temp: Path) -> None:
    temp.parent.mkdir(parents=True, exist_ok=True)
    temp.write_text("a file where the folder should be")
    output = ask(nodes, picture(0))
    assert output.args[1] == "a red fox" and "cannot be shown again" in record_of(output)["notes"][0]


def test_with_room_there_is_nothing_to_note(nodes: Any, temp: Path) -> None:
    assert "notes" not in record_of(ask(nodes, picture(0)))


@pytest.mark.parametrize("read_only", [False, True])
def test_a_history_that_does_not_fit_names_its_file(nodes: Any, read_only: bool) -> None:
    history = comfy_inprocess.pack("nodes.history")
    conversation = ask(nodes, picture(0)).args[4]
    folder = history.history_path("fox").parent
    with small_disk(folder, 65_536, read_only), pytest.raises(ValueError) as caught:
        history.SaveHistory.execute(conversation, "fox")
    said = str(caught.value)
    reason = "read-only: make it writable" if read_only else "full: make room there"
    for words in ("histories/fox.json", reason, "press Run again", "still in the chat"):
        assert words in said
    history.SaveHistory.execute(conversation, "fox")
    assert history.LoadHistory.execute("fox").args[0] == conversation


def test_what_a_killed_server_left_is_swept_at_start(nodes: Any, temp: Path) -> None:
    history, host = comfy_inprocess.pack("nodes.history"), comfy_inprocess.pack("nodes.host")
    places = [history.history_path("fox").parent, temp]
    for place in places:
        place.mkdir(parents=True, exist_ok=True)
        for name in (".fox.json.0123456789ab.part", "theirs.part"):
            (place / name).write_text("half")
            os.utime(place / name, (0, 0))
    comfy_inprocess.pack("nodes").extension()
    for place in places:
        assert not (place / ".fox.json.0123456789ab.part").exists()
        assert (place / "theirs.part").exists()
        (place / "theirs.part").unlink()
    assert host.private_directory().is_dir()
