"""``python dev.py demo``: runs the shipped workflows and writes pictures, a transcript and one HTML page.

The story is the API prompts of ``workflows/api``, on the trained miniature: a language model that talks and sees, a
painter, and its stage-2 UNet. They run on a headless ComfyUI with this pack, or, where ComfyUI cannot be had, on the
embedded engine.
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

from . import ROOT, miniature
from .comfy_runner import comfy_runner
from .embedded import EmbeddedRunner, OnEvent, Prompt, Workspace
from .props import write_endpoints, write_example
from .report import Chapter, write_report
from .terminal import say

OUTPUT = ROOT / "demo_output"
STORY = {
    "text_to_image": "A short idea becomes a detailed prompt, and the prompt a picture.",
    "similar_image": "The model looks at a picture and writes the prompt of one like it.",
    "chat_with_endpoint": "Two turns with the model behind an OpenAI-compatible server; the second changes the picture.",
    "continue_conversation": "The saved conversation goes on where it was left.",
}
INTRO = (
    "Everything below ran on {runner}, with the miniature that comes with this repository: a language model and a painter "
    "of a few megabytes each, trained from nothing by llmga's own trainers on a world of paper shapes. You say something; "
    "the language model answers with a prompt; the prompt is painted twice from the same noise, by the base UNet and by "
    "the one that stage 2 taught to read long prompts. Beside them stands what the world's own renderer draws from the "
    "same prompt: the nearer a painting is to that, the better it was read."
)
DRAWN = "what the prompt asks for, drawn by rule"
SHOWN = "the picture that was shown"


class Runner(Protocol):
    name: str

    def run(self, prompt: Prompt, on_event: OnEvent) -> dict[str, dict[str, Any]]: ...


def main(argv: list[str]) -> int:
    argparse.ArgumentParser(prog="dev.py demo", description=__doc__).parse_args(argv)
    started = time.monotonic()
    try:
        models = miniature.find()
    except FileNotFoundError as error:
        say(f"demo: {error}")
        return 2
    shutil.rmtree(OUTPUT, ignore_errors=True)
    OUTPUT.mkdir()
    with assistant(models) as url, runner(models, url) as running:
        say(f"running on {running.name}")
        chapters = [run_chapter(running, name) for name in STORY]
    page = write_report(OUTPUT, INTRO.format(runner=running.name), chapters)
    count = sum(len(chapter.pictures) for chapter in chapters)
    say(f"{len(chapters)} workflows, {count} pictures in {time.monotonic() - started:.0f} s")
    say(f"open {page}")
    return 0


def run_chapter(running: Runner, name: str) -> Chapter:
    """Run one workflow with progress on the terminal; its conversation, prompt and pictures."""
    say(f"\n== {name}: {STORY[name]}")
    prompt = miniature.load_prompt(ROOT / "workflows" / "api" / f"{name}.json")
    titles: list[str] = []

    def on_event(title: str, text: str) -> None:
        if title not in titles:
            titles.append(title)
            say(f"  {title}")

    started = time.monotonic()
    shown = running.run(prompt, on_event)
    chapter = Chapter(name, STORY[name], time.monotonic() - started)
    collect(chapter, prompt, shown)
    say(f"  {chapter.seconds:.1f} s, {', '.join(path.name for _, path in chapter.pictures)}")
    return chapter


def collect(chapter: Chapter, prompt: Prompt, shown: dict[str, dict[str, Any]]) -> None:
    """Fill a chapter from the workflow and from what its nodes showed; draws what the last prompt asks for."""
    for node_id, node in prompt.items():
        ui, title = shown.get(node_id, {}), node["_meta"]["title"]
        texts = [str(text) for text in ui.get("text", [])]
        if node["class_type"] == "LLMGA_Chat":
            asked = (
                node["inputs"]["instruction"] or f"(shows a picture; the task is {node['inputs']['task']})"
            )
            chapter.said += [("you", asked), *(("LLMGA", text) for text in texts)]
        elif title == "Prompt":
            chapter.prompt = "\n".join(texts)
        elif texts:
            chapter.notes.append((title, "\n".join(texts)))
        if node["class_type"] == "LoadImage":
            path = OUTPUT / f"{chapter.name}_shown.png"
            write_example(path)
            chapter.pictures.insert(0, (SHOWN, path))
        chapter.pictures += [(title, path) for path in ui.get("images", [])]
    if scene := miniature.scene_of(chapter.prompt):
        from miniworld.world.render import render

        path = OUTPUT / f"{chapter.name}_drawn.png"
        render(scene, miniature.picture_size()).image.save(path)
        chapter.pictures.append((DRAWN, path))


@contextlib.contextmanager
def assistant(models: Path) -> Iterator[str]:
    """The miniature's language model behind a real OpenAI-compatible server on loopback; its address."""
    sys.path.insert(0, str(ROOT / "tests"))
    from support.openai_server import OpenAIServer

    with OpenAIServer(miniature.answerer(models)) as server:
        yield server.url


@contextlib.contextmanager
def runner(models: Path, endpoint_url: str) -> Iterator[Runner]:
    """ComfyUI with this pack if there is one, else the embedded engine; both with the miniature in place."""
    if os.environ.get("COMFYUI_PATH", "none") == "none":
        with tempfile.TemporaryDirectory() as folder:
            yield embedded_runner(models, Path(folder), endpoint_url)
    else:
        with comfy_runner(models, endpoint_url, OUTPUT) as running:
            yield running


def embedded_runner(models: Path, folder: Path, endpoint_url: str) -> EmbeddedRunner:
    write_endpoints(folder / "endpoints.json", endpoint_url)
    write_example(folder / "input" / "example.png")
    workspace = Workspace(models, folder / "endpoints.json", inputs=folder / "input", outputs=OUTPUT)
    return EmbeddedRunner(workspace)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
