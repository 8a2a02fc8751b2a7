"""``python dev.py demo``: the shipped workflows, run for real, and what they leave: pictures, transcript, one page.

The story is the API prompts of ``workflows/api``. They run on a headless ComfyUI with this pack, or, where ComfyUI cannot
be had, on the embedded engine. Both use miniature models made on the spot.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

from . import ROOT
from .comfy_runner import comfy_runner
from .embedded import EmbeddedRunner, OnEvent, Prompt, Workspace
from .props import (
    CHECKPOINT,
    answer,
    load_prompt,
    write_endpoints,
    write_example,
    write_models,
)
from .report import Chapter, write_report
from .terminal import say

OUTPUT = ROOT / "demo_output"
STORY = {
    "text_to_image": "A short idea becomes a detailed prompt, and the prompt a picture.",
    "similar_image": "The model looks at a picture and writes the prompt of one like it.",
    "chat_with_endpoint": "Two turns with a model behind an OpenAI-compatible server; the conversation is saved.",
    "continue_conversation": "The saved conversation goes on where it was left.",
}
INTRO = (
    "Everything below ran on {runner}. The painter and the local language model are miniatures with random weights, so "
    "they show that each step is connected and not what it can do: the pictures are noise and the local replies word "
    "salad. The endpoint is a small rule-based program behind a real HTTP server; its replies follow the tag format."
)


class Runner(Protocol):
    name: str

    def run(self, prompt: Prompt, on_event: OnEvent) -> dict[str, dict[str, Any]]: ...


def main(argv: list[str]) -> int:
    argparse.ArgumentParser(prog="dev.py demo", description=__doc__).parse_args(argv)
    started = time.monotonic()
    shutil.rmtree(OUTPUT, ignore_errors=True)
    OUTPUT.mkdir()
    with assistant() as url, runner(url) as running:
        say(f"running on {running.name}")
        chapters = [tell(running, name) for name in STORY]
    page = write_report(OUTPUT, INTRO.format(runner=running.name), chapters)
    count = sum(len(chapter.pictures) for chapter in chapters)
    say(f"{len(chapters)} workflows, {count} pictures in {time.monotonic() - started:.0f} s")
    say(f"open {page}")
    return 0


def tell(running: Runner, name: str) -> Chapter:
    """Run one workflow with progress on the terminal and collect what it showed."""
    say(f"\n== {name}: {STORY[name]}")
    prompt = load_prompt(ROOT / "workflows" / "api" / f"{name}.json")
    titles: list[str] = []

    def on_event(title: str, text: str) -> None:
        if title not in titles:
            titles.append(title)
            say(f"  {title}")

    started = time.monotonic()
    shown = running.run(prompt, on_event)
    chapter = Chapter(name, STORY[name], time.monotonic() - started)
    for node_id, node in prompt.items():
        ui = shown.get(node_id, {})
        if node["class_type"] == "LLMGA_Chat":
            chapter.texts.append((f"{node['_meta']['title']}: instruction", node["inputs"]["instruction"]))
        chapter.texts += [(node["_meta"]["title"], str(text)) for text in ui.get("text", [])]
        chapter.pictures += ui.get("images", [])
    say(f"  {chapter.seconds:.1f} s, {', '.join(path.name for path in chapter.pictures)}")
    return chapter


@contextlib.contextmanager
def assistant() -> Iterator[str]:
    """A rule-based program that answers in the tag format, behind a real OpenAI-compatible server on loopback."""
    sys.path.insert(0, str(ROOT / "tests"))
    from support.openai_server import OpenAIServer

    with OpenAIServer(answer) as server:
        yield server.url


@contextlib.contextmanager
def runner(endpoint_url: str) -> Iterator[Runner]:
    """ComfyUI with this pack if there is one, else the embedded engine; both with the demo's models in place."""
    if os.environ.get("COMFYUI_PATH", "none") == "none":
        with tempfile.TemporaryDirectory() as folder:
            yield embedded_runner(Path(folder), endpoint_url)
    else:
        with comfy_runner(endpoint_url, OUTPUT) as running:
            yield running


def embedded_runner(folder: Path, endpoint_url: str) -> EmbeddedRunner:
    from llmga.mini.random_diffusion import random_pipeline

    write_models(folder, checkpoint=False)
    write_endpoints(folder / "endpoints.json", endpoint_url)
    write_example(folder / "input" / "example.png")
    workspace = Workspace(
        language_models=folder / "LLM",
        checkpoints={CHECKPOINT: random_pipeline},
        endpoints=folder / "endpoints.json",
        inputs=folder / "input",
        outputs=OUTPUT,
    )
    return EmbeddedRunner(workspace)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
