"""What the panel stands on: a transcript is a chain of nodes in one widget, and the record that is shown of it."""

from __future__ import annotations

import io
import json
import shutil
from typing import Any

import pytest
from PIL import Image
from support.graphs import chat, endpoint, image, local, node, preview, text_of
from support.openai_server import OpenAIServer

from tools.comfy_client import PromptFailedError
from tools.comfy_server import ComfyServer


def record(entry: dict[str, Any], node_id: str) -> dict[str, Any]:
    (found,) = entry["outputs"][node_id]["llmga_chat"]
    return found


def keep(server: ComfyServer, sha256: str) -> None:
    """What the page does when the conversation goes on: temp to input."""
    target = server.base / "input" / "llmga" / f"{sha256}.png"
    target.parent.mkdir(exist_ok=True)
    shutil.copy(server.base / "temp" / "llmga" / f"{sha256}.png", target)


def test_a_transcript_says_what_a_chain_of_nodes_says(server: ComfyServer) -> None:
    chain = server.run(
        {
            "1": local(),
            "9": image(),
            "2": chat("1", "one", task="similar", image=["9", 0]),
            "3": chat("1", "two", seed=3, temperature=0.8, history=["2", 4]),
            "4": preview(["3", 4]),
        }
    )
    exchange = record(chain, "2")["exchange"]
    assert [turn["role"] for turn in exchange] == ["user", "assistant"]
    assert exchange[0]["instruction"] == "one" and exchange[0]["task"] == "similar"
    (sha256,) = exchange[0]["images"]
    keep(server, sha256)
    second = {"seed": 3, "temperature": 0.8, "transcript": json.dumps(exchange)}
    one = server.run({"1": local(), "3": chat("1", "two", **second), "4": preview(["3", 4])})
    assert text_of(one, "3") == text_of(chain, "3")
    assert record(one, "3")["exchange"] == record(chain, "3")["exchange"]
    assert text_of(one, "4") == text_of(chain, "4")  # the whole conversation, pictures and all
    # Still connected, the same picture is not shown a second time.
    still = server.run({"1": local(), "9": image(), "3": chat("1", "two", image=["9", 0], **second)})
    assert record(still, "3")["exchange"][0]["images"] == []
    assert text_of(still, "3") == text_of(chain, "3")


def test_a_null_transcript_is_none(server: ComfyServer) -> None:
    outputs = server.run({"1": local(), "2": chat("1", "a fox", transcript=None), "3": preview(["2", 0])})
    assert text_of(outputs, "3")


def test_the_history_socket_comes_before_the_transcript(server: ComfyServer, assistant: OpenAIServer) -> None:
    turns = [{"role": "user", "text": "second?"}, {"role": "assistant", "text": "second!"}]
    entry = server.run(
        {
            "1": endpoint(),
            "2": chat("1", "first"),
            "3": chat("1", "third", task="chat", history=["2", 4], transcript=json.dumps(turns)),
        }
    )
    asked = [one["content"] for one in assistant.requests[-1].body["messages"] if one["role"] != "system"]
    assert "first" in asked[0] and asked[2:] == ["second?", "second!", "third"]
    earlier = record(entry, "3")["earlier"]
    assert len(earlier) == 2 and "first" in earlier[0]["text"]
    assert record(entry, "3")["omitted"] == 0


def test_a_long_history_is_shown_by_its_end(server: ComfyServer, assistant: OpenAIServer) -> None:
    with assistant.replying("long " * 15_000):
        entry = server.run(
            {
                "1": endpoint(),
                "2": chat("1", "a"),
                "3": chat("1", "b", history=["2", 4]),
                "4": chat("1", "c", history=["3", 4]),
            }
        )
    shown = record(entry, "4")
    assert [turn["role"] for turn in shown["earlier"]] == ["user", "assistant"] and shown["omitted"] == 2


def test_a_saved_picture_brings_the_last_reply_along(server: ComfyServer, assistant: OpenAIServer) -> None:
    """The page's workflow was written before there was a reply; the picture's has it, inside a subgraph too."""
    chatting = {"id": 7, "type": "LLMGA_Chat", "properties": {"cnr_id": "llmga"}}
    workflow = {
        "nodes": [{"id": 3, "type": "graph-in-it"}, {"id": 5, "type": "SaveImage"}],
        "definitions": {"subgraphs": [{"id": "graph-in-it", "nodes": [chatting]}]},
    }
    prompt = {
        "1": endpoint(),
        "3:7": chat("1", "remember me"),
        "4": node("EmptyImage", width=8, height=8, batch_size=1, color=0),
        # Saved after the chat has spoken: a node of its own kind would wait for the prompt in the same way.
        "5": node("SaveImage", images=["4", 0], filename_prefix=["3:7", 1]),
    }
    with assistant.replying("<gen_image> kept </gen_image>"):
        entry = server.wait(server.queue(prompt, extra_data={"extra_pnginfo": {"workflow": workflow}}))
    (picture,) = entry["outputs"]["5"]["images"]
    saved = json.loads(Image.open(io.BytesIO(server.view(picture))).info["workflow"])
    properties = saved["definitions"]["subgraphs"][0]["nodes"][0]["properties"]
    assert properties["cnr_id"] == "llmga"
    assert properties["llmga_chat"]["exchange"][1]["text"] == "<gen_image> kept </gen_image>"


@pytest.mark.parametrize(
    "workflow", [None, 7, {"nodes": 7}, {"nodes": [7, {"id": "2"}]}, {"definitions": []}]
)
def test_a_strange_workflow_stops_nothing(server: ComfyServer, workflow: Any) -> None:
    prompt = {"1": endpoint(), "2": chat("1", f"with {workflow}")}
    entry = server.wait(server.queue(prompt, extra_data={"extra_pnginfo": {"workflow": workflow}}))
    assert entry["status"]["status_str"] == "success"


@pytest.mark.parametrize(
    ("inputs", "complaint"),
    [
        ({"transcript": "{"}, "'transcript' is not valid JSON"),
        (
            {"transcript": '[{"role": "user", "text": "a"}]'},
            "'transcript' must end with a turn of the assistant",
        ),
        ({"pages": ["8", 0]}, "pages must be a whole number from 1 to 12, got 99"),
    ],
)
def test_wrong_values_are_named(server: ComfyServer, inputs: dict[str, Any], complaint: str) -> None:
    # By link, past ComfyUI's own check of widgets.
    sources = {"8": node("PrimitiveInt", value=99)}
    with pytest.raises(PromptFailedError, match=complaint):
        server.run({"1": endpoint(), **sources, "2": chat("1", "wrong", **inputs)})


def test_a_picture_that_is_gone_or_another_is_named(server: ComfyServer) -> None:
    folder = server.base / "input" / "llmga"
    folder.mkdir(exist_ok=True)
    missing, wrong, broken = "0" * 64, "1" * 64, "2" * 64
    Image.new("RGB", (4, 4), "red").save(folder / f"{wrong}.png")
    (folder / f"{broken}.png").write_bytes(b"\x89PNG\r\n\x1a\n nothing")
    for sha256, complaint in (
        (missing, "is not there"),
        (wrong, "holds other pixels"),
        (broken, "cannot be read"),
    ):
        turns = [{"role": "user", "text": "a", "images": [sha256]}, {"role": "assistant", "text": "b"}]
        with pytest.raises(PromptFailedError, match=complaint):
            server.run({"1": local(), "2": chat("1", "c", transcript=json.dumps(turns))})


def test_a_picture_book_is_two_lists_of_one_length(server: ComfyServer, assistant: OpenAIServer) -> None:
    entry = server.run(
        {
            "1": endpoint(),
            "2": chat("1", "a hedgehog", task="picture_book", pages=3, language="zh"),
            "3": preview(["2", 2]),
            "4": preview(["2", 5]),
        }
    )
    assert "正好 3 页" in assistant.requests[-1].body["messages"][-1]["content"]
    assert entry["outputs"]["3"]["text"] == [f"page {i} of a book" for i in (1, 2, 3)]
    assert entry["outputs"]["4"]["text"] == [f"Page {i}." for i in (1, 2, 3)]
