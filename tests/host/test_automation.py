"""Programs and own files: docs/automation.md really runs, requests are checked when queued, tasks come from files."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.graphs import chat, checkpoint, endpoint, image, local, node, preview, text_of
from support.openai_server import OpenAIServer

from tools import ROOT
from tools.comfy_client import PromptFailedError, PromptRejectedError
from tools.comfy_server import ComfyServer
from tools.props import CHECKPOINT, LANGUAGE_MODEL

BLOCKS = dict(
    re.findall(r"```(python|bash)\n(.*?)```", (ROOT / "docs" / "automation.md").read_text("utf-8"), re.S)
)
MODELS = {"LLM": LANGUAGE_MODEL, "CHECKPOINT": CHECKPOINT}
# What an automator must send: the rest has a default.
LEAST = {
    "1": node("LLMGA_Endpoint", endpoint="demo"),
    "2": node("LLMGA_Chat", engine=["1", 0], instruction="a fox"),
}


def environment(server: ComfyServer) -> dict[str, str]:
    return {**os.environ, **MODELS, "COMFYUI_URL": server.url, "PYTHONPATH": str(ROOT), "no_proxy": "*"}


def test_the_python_of_the_page_paints(server: ComfyServer, tmp_path: Path) -> None:
    """Word for word, but for the size and the steps of the picture, which the miniature model needs small."""
    (tmp_path / "workflows" / "api").mkdir(parents=True)
    prompt = json.loads((ROOT / "workflows" / "api" / "text_to_image.json").read_text("utf-8"))
    for one in prompt.values():
        one["inputs"] |= {
            name: value for name, value in small(one["class_type"]).items() if name in one["inputs"]
        }
    (tmp_path / "workflows" / "api" / "text_to_image.json").write_text(json.dumps(prompt))
    lines = [line for line in BLOCKS["python"].splitlines() if line.strip()]
    assert len(lines) <= 16
    done = subprocess.run(
        [sys.executable, "-c", BLOCKS["python"]],
        cwd=tmp_path,
        env=environment(server),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"^\d+ characters, [\d.]+ tokens a second$", done.stdout, re.M)
    (picture,) = tmp_path.glob("*.png")
    assert picture.read_bytes().startswith(b"\x89PNG")


def small(class_type: str) -> dict[str, Any]:
    sizes = {"EmptyLatentImage": {"width": 128, "height": 128}, "KSampler": {"steps": 2}}
    return {"LLMGA_Chat": {"policy": "whole_reply", "max_new_tokens": 32}, **sizes}.get(class_type, {})


@pytest.mark.skipif(
    shutil.which("curl") is None or shutil.which("bash") is None, reason="curl or bash is missing"
)
def test_the_curl_of_the_page_asks(server: ComfyServer, tmp_path: Path) -> None:
    done = subprocess.run(
        ["bash", "-euc", BLOCKS["bash"]],
        cwd=tmp_path,
        env=environment(server),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    queued, _, history = done.stdout.partition("\n")
    (entry,) = json.loads(history).values()
    assert queued.split()[1] in history and entry["status"]["status_str"] == "success"
    assert entry["outputs"]["2"]["llmga_chat"][0]["exchange"][0]["instruction"] == "a red fox at dawn"


def test_what_has_a_default_may_be_left_out(server: ComfyServer, assistant: OpenAIServer) -> None:
    with assistant.replying("<gen_image> a red fox </gen_image>"):
        entry = server.run({**LEAST, "3": preview(["2", 1])})
    assert text_of(entry, "3") == "a red fox"
    sent = assistant.requests[-1].body
    assert (sent["temperature"], sent["max_tokens"], sent["seed"]) == (0.2, 512, 0)
    encode = node("LLMGA_LongCLIPEncode", clip=["7", 1], text="a fox")
    server.run({"7": checkpoint(), "8": encode, "9": preview(["8", 2])})


def test_every_widget_with_a_default_is_optional(server: ComfyServer) -> None:
    required = {
        f"{name}.{one}"
        for name, info in server.object_info().items()
        if name.startswith("LLMGA_")
        for one, spec in info["input"].get("required", {}).items()
        if "default" in (spec[1] if len(spec) > 1 else {})
    }
    assert required == set()


@pytest.mark.parametrize(
    ("inputs", "complaint"),
    [
        ({"task": "inpaint"}, "the task 'inpaint' is about a picture; connect one to 'image'"),
        ({"task": "inpaint", "image": ["9", 0]}, "the task 'inpaint' fills a hole; connect a mask"),
        ({"instruction": " \n"}, "the task 'refine' needs words to work with, but 'instruction' is empty"),
        ({"task": "paint"}, "task must be one of refine, .*; got 'paint'"),
        ({"history": ["9", 0]}, r"Return type mismatch.*history, received_type\(IMAGE\)"),
        ({"policy": "never"}, "Value not in list: policy"),
    ],
)
def test_a_wrong_request_is_refused_when_it_is_queued(
    server: ComfyServer, inputs: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(PromptRejectedError, match=complaint):
        server.run({"1": endpoint(), "9": image(), "2": chat("1", **{"instruction": "a fox", **inputs})})


def test_a_picture_of_the_transcript_is_a_picture(server: ComfyServer) -> None:
    """The task needs no connected one, so that the request is queued; it fails later, for this picture is not there."""
    turns = [{"role": "user", "text": "a", "images": ["3" * 64]}, {"role": "assistant", "text": "b"}]
    with pytest.raises(PromptFailedError, match="is not there"):
        server.run({"1": endpoint(), "2": chat("1", "a fox", task="edit", transcript=json.dumps(turns))})


@pytest.mark.parametrize(
    ("inputs", "complaint"),
    [
        ({"transcript": "{"}, "not valid JSON: .*press Clear in the panel"),
        ({"temperature": float("nan")}, "temperature"),
    ],
)
def test_other_wrong_values_are_found_before_the_model_is_loaded(
    server: ComfyServer, inputs: dict[str, Any], complaint: str
) -> None:
    ran: set[str] = set()
    server.free()
    prompt = {
        "1": local(lookup=len(complaint) % 30),
        "2": chat("1", "a fox", **inputs),
    }  # a loader that is not cached
    with pytest.raises(PromptFailedError, match=complaint):
        server.run(
            prompt, on_event=lambda kind, data: ran.add(data.get("node")) if kind == "executing" else None
        )
    assert "1" not in ran


def test_an_edited_reply_is_painted_without_asking_or_loading_a_model(server: ComfyServer) -> None:
    ran: set[str] = set()
    prompt = {
        "1": local(lookup=31),
        "2": chat("1", "a fox", edited_reply="So: <gen_image> a blue fox </gen_image>", policy="ask_again"),
        "3": preview(["2", 1]),
        "4": preview(["2", 4]),
    }
    entry = server.run(
        prompt, on_event=lambda kind, data: ran.add(data.get("node")) if kind == "executing" else None
    )
    assert text_of(entry, "3") == "a blue fox" and "2" in ran and "1" not in ran
    (record,) = entry["outputs"]["2"]["llmga_chat"]
    assert record["edited"] is True and record["prompts"] == ["a blue fox"]
    assert text_of(entry, "4").endswith("LLMGA: So: <gen_image> a blue fox </gen_image>")


OWN = {
    "tasks/film poster": "---\nexpects: one\n---\nA film poster of {instruction}, please.",
    "tasks/broken": "no settings",
    "tasks/about it": "---\npicture: yes\n---\nWhat is it? {instruction}",
    "styles/haiku": "---\nreminder: In three lines.\n---\nA prompt is a haiku.",
}


@pytest.fixture
def own_files(server: ComfyServer) -> Iterator[None]:
    paths = [server.base / "user" / "__llmga" / f"{name}.md" for name in OWN]
    for path, text in zip(paths, OWN.values(), strict=True):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    yield
    for path in paths:
        path.unlink()


@pytest.mark.usefixtures("own_files")
def test_tasks_styles_and_system_prompts_of_ones_own(server: ComfyServer, assistant: OpenAIServer) -> None:
    info = server.object_info("LLMGA_Chat")["LLMGA_Chat"]["input"]["optional"]
    assert info["task"][1]["options"][-2:] == ["about it", "film poster"]
    assert info["style"][1]["options"] == ["default", "json", "prose", "tags", "haiku"]
    per_picture = server.object_info("LLMGA_ChatPerPicture")["LLMGA_ChatPerPicture"]["input"]["optional"]
    assert per_picture["task"][1]["options"][-1] == "about it"

    with assistant.replying("<gen_image> a fox </gen_image>"):
        own = {"task": "film poster", "style": "haiku", "system": "You rhyme. {default}"}
        entry = server.run({"1": endpoint(), "2": chat("1", "a fox", policy="error", **own)})
    system, request = (one["content"] for one in assistant.requests[-1].body["messages"])
    assert system.startswith("You rhyme. You are LLMGA") and "A prompt is a haiku." in system
    assert request == "A film poster of a fox, please.\nIn three lines."
    (note,) = entry["outputs"]["2"]["llmga_chat"][0]["notes"]
    assert note.startswith("tasks/broken.md is skipped: it must begin with settings")
    with pytest.raises(PromptRejectedError, match=r"tasks/broken\.md is skipped"):
        server.run({"1": endpoint(), "2": chat("1", "a fox", task="broken")})
    with pytest.raises(PromptRejectedError, match="the task 'about it' is about a picture"):
        server.run({"1": endpoint(), "2": chat("1", "a fox", task="about it")})


def test_what_a_socket_holds_is_text_for_a_person(server: ComfyServer) -> None:
    """Shown by Preview Any: no Python, and no path of the server."""
    entry = server.run(
        {
            "1": local(),
            "2": chat("1", "a fox"),
            "3": preview(["1", 0]),
            "4": preview(["2", 4]),
            "5": node("LLMGA_PromptToPromptOptions", blend_threshold=0.5),
            "6": preview(["5", 0]),
            "7": image(),
            "12": node("SolidMask", value=1.0, width=64, height=64),
            "8": node("LLMGA_CropForPainting", image=["7", 0], mask=["12", 0], width=64, height=64),
            "9": preview(["8", 2]),
            "10": endpoint(),
            "11": preview(["10", 0]),
        }
    )
    shown = {one: text_of(entry, one) for one in ("3", "4", "6", "9", "11")}
    assert shown["3"] == LANGUAGE_MODEL and shown["11"] == "demo"
    assert shown["4"].startswith("You: ") and "a fox" in shown["4"] and "\n\nLLMGA: " in shown["4"]
    assert shown["6"] == "prompt-to-prompt options: threshold 0.5"
    for text in shown.values():
        assert not re.search(r"object at 0x|[A-Z]\w+\(|tensor\(|/custom_nodes/", text), text


def test_progress_and_loading_are_reported(server: ComfyServer) -> None:
    """The node's bar counts tokens; the events name the rate and how much is loaded."""
    server.free()
    events: list[tuple[str, Any]] = []
    long = chat("1", "a long tale", max_new_tokens=64, seed=77)
    server.run({"1": local(lookup=29), "2": long}, on_event=lambda kind, data: events.append((kind, data)))
    loading = [data for kind, data in events if kind == "llmga.loading"]
    assert loading and all(one["gigabytes"] >= 0 and one["node"] in ("1", "2") for one in loading)
    texts = [data for kind, data in events if kind == "llmga.text"]
    assert texts and texts[-1]["tokens"] > 0
    bars = [data["nodes"]["2"] for kind, data in events if kind == "progress_state" and "2" in data["nodes"]]
    assert any(one["max"] == 64 and one["value"] > 0 for one in bars)


SEARCHED = {
    "image to prompt": "LLMGA_Chat",
    "describe image": "LLMGA_Chat",
    "interrogate": "LLMGA_Chat",
    "vqa": "LLMGA_Chat",
    "magic prompt": "LLMGA_Chat",
    "chatgpt": "LLMGA_Chat",
    "qwen": "LLMGA_Chat",
    "edit image": "LLMGA_EditInstruction",
    "change object": "LLMGA_EditInstruction",
    "remove object": "LLMGA_PrepareMask",
    "inpaint": "LLMGA_CropForPainting",
    "outpaint": "LLMGA_PrepareMask",
    "negative prompt": "LLMGA_LongCLIPEncode",
}


def test_what_artists_type_finds_a_node(server: ComfyServer) -> None:
    infos = server.object_info()
    missing = [
        words
        for words, name in SEARCHED.items()
        if words not in map(str.lower, infos[name]["search_aliases"])
    ]
    assert missing == []
