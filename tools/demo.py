"""``python dev.py demo``: the shipped workflows, run for real, and what they leave: pictures, transcript, one page.

The story is the API prompts of ``workflows/api``. They run on a headless ComfyUI with this pack, or, where ComfyUI cannot
be had, on the embedded engine. Both use miniature models made on the spot.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

from . import ROOT
from .embedded import EmbeddedRunner, OnEvent, Prompt, Workspace
from .report import Chapter, write_report
from .terminal import say

OUTPUT = ROOT / "demo_output"
CHECKPOINT = "llmga-mini-random.safetensors"
LANGUAGE_MODEL = "llmga-mini-random"
ENDPOINT = "demo"
STORY = {
    "text_to_image": "A short idea becomes a detailed prompt, and the prompt a picture.",
    "similar_image": "The model looks at a picture and writes the prompt of one like it.",
    "chat_with_endpoint": "Two turns with a model behind an OpenAI-compatible server; the conversation is saved.",
}
# The workflows name the models that a person would use; the demo has small ones of its own.
SUBSTITUTES = {
    ("CheckpointLoaderSimple", "ckpt_name"): CHECKPOINT,
    ("LLMGA_ModelLoader", "model"): LANGUAGE_MODEL,
    ("LLMGA_Endpoint", "endpoint"): ENDPOINT,
    ("LLMGA_Chat", "policy"): "whole_reply",
    ("LLMGA_Chat", "max_new_tokens"): 96,
    ("EmptyLatentImage", "width"): 128,
    ("EmptyLatentImage", "height"): 128,
    ("KSampler", "steps"): 12,
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


def load_prompt(path: Path) -> Prompt:
    """A shipped API prompt with the demo's models in place of those it names."""
    prompt = json.loads(path.read_text(encoding="utf-8"))
    for node in prompt.values():
        for name in node["inputs"]:
            node["inputs"][name] = SUBSTITUTES.get((node["class_type"], name), node["inputs"][name])
    return prompt


@contextlib.contextmanager
def assistant() -> Iterator[str]:
    """A rule-based program that answers in the tag format, behind a real OpenAI-compatible server on loopback."""
    sys.path.insert(0, str(ROOT / "tests"))
    from support.openai_server import OpenAIServer

    with OpenAIServer(answer) as server:
        yield server.url


def answer(request: dict[str, Any]) -> str:
    """Take what the user asked for, this turn and before, and spell it out."""
    said = [message["content"] for message in request["messages"] if message["role"] == "user"]
    wishes = [text.rpartition(":")[2].strip().rstrip(".") for text in said if isinstance(text, str)]
    prompt = (
        f"{wishes[0].capitalize()}, the one clear subject of the picture, seen from a low viewpoint a few steps away. "
        "Soft light falls in from the left and leaves long gentle shadows; the near things are crisp, the far ones "
        "melt into a pale haze. Warm ochre and deep green carry the colours, with one small accent of red. Every "
        "surface shows its material: worn wood, woven wool, cool glass with tiny scratches. The composition is calm, "
        "with open space above the subject and a quiet rhythm of verticals behind it. "
        + "".join(f"And, most of all: {wish}. " for wish in wishes[1:])
        + "A detailed oil painting with visible brushwork, painted from life."
    )
    return f"Here is how I would paint it.\n<gen_image> {prompt} </gen_image>\nTell me what to change."


@contextlib.contextmanager
def runner(endpoint_url: str) -> Iterator[Runner]:
    """ComfyUI with this pack if there is one, else the embedded engine; both with the demo's models in place."""
    if os.environ.get("COMFYUI_PATH", "none") == "none":
        with tempfile.TemporaryDirectory() as folder:
            yield embedded_runner(Path(folder), endpoint_url)
    else:
        from .comfy_runner import comfy_runner

        with comfy_runner(endpoint_url) as running:
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


def write_models(models: Path, *, checkpoint: bool = True) -> None:
    """The miniature models, random weights, where ComfyUI looks for them."""
    from llmga.mini.random_diffusion import write_checkpoint
    from llmga.mini.random_language import write_tiny_llava

    write_tiny_llava(models / "LLM" / LANGUAGE_MODEL, seed=0)
    if checkpoint:
        write_checkpoint(models / "checkpoints" / CHECKPOINT)


def write_endpoints(path: Path, url: str, key_env: str = "") -> None:
    record = {"url": url, "model": "demo", "key_env": key_env}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"endpoints": {ENDPOINT: record}}), encoding="utf-8")


def write_example(path: Path) -> None:
    """A picture to talk about: a red ball on sand under a blue sky."""
    from PIL import Image, ImageDraw

    picture = Image.new("RGB", (256, 256), "#8ec9f0")
    draw = ImageDraw.Draw(picture)
    draw.rectangle((0, 160, 256, 256), fill="#e3c98f")
    draw.ellipse((96, 196, 190, 222), fill="#b89c66")
    draw.ellipse((88, 104, 192, 208), fill="#d0392f")
    draw.ellipse((112, 122, 138, 146), fill="#f0867c")
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
