"""API prompts for the host tests, written as a person would wire them, and which of their nodes ran."""

from __future__ import annotations

from typing import Any

from tools.comfy_server import ComfyServer
from tools.props import CHECKPOINT, ENDPOINT, LANGUAGE_MODEL

Prompt = dict[str, dict[str, Any]]


def node(class_type: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": class_type, "inputs": inputs, "_meta": {"title": class_type}}


def local(**inputs: Any) -> dict[str, Any]:
    return node("LLMGA_ModelLoader", **{"model": LANGUAGE_MODEL, "precision": "auto", **inputs})


def endpoint(**inputs: Any) -> dict[str, Any]:
    return node("LLMGA_Endpoint", **{"endpoint": ENDPOINT, **inputs})


def chat(engine: str, instruction: str = "a fox", **inputs: Any) -> dict[str, Any]:
    widgets = {
        "task": "refine",
        "seed": 0,
        "temperature": 0.0,
        "top_p": 1.0,
        "max_new_tokens": 24,
        "policy": "whole_reply",
    }
    return node("LLMGA_Chat", engine=[engine, 0], instruction=instruction, **{**widgets, **inputs})


def encode(clip: list[Any], text: Any, **inputs: Any) -> dict[str, Any]:
    widgets = {
        "negative_text": "",
        "layout": "llmga",
        "weights": False,
        "break_at": "hard",
        "min_chunks": 1,
        "max_chunks": 4,
        "empty_negative": "auto",
        "match_chunks": True,
    }
    return node("LLMGA_LongCLIPEncode", clip=clip, text=text, **{**widgets, **inputs})


def checkpoint() -> dict[str, Any]:
    return node("CheckpointLoaderSimple", ckpt_name=CHECKPOINT)


def preview(source: list[Any]) -> dict[str, Any]:
    return node("PreviewAny", source=source)


def image() -> dict[str, Any]:
    return node("LoadImage", image="example.png")


def text_of(entry: dict[str, Any], node_id: str) -> str:
    """What a node showed, from a history entry."""
    return entry["outputs"][node_id]["text"][0]


def executed(server: ComfyServer, prompt: dict[str, Any]) -> tuple[dict[str, Any], set[str]]:
    """The history entry, and which nodes really ran."""
    ran: set[str] = set()

    def on_event(kind: str, data: Any) -> None:
        if kind == "executing" and data.get("node"):
            ran.add(data["node"])

    return server.run(prompt, on_event=on_event), ran
