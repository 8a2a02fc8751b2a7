"""``python dev.py demo``: runs the shipped workflows and writes pictures, a transcript and one HTML page.

The story is the API prompts of ``workflows/api``, on the trained miniature: a language model that talks and sees, a
painter, and its stage-2 UNet. They run on a headless ComfyUI with this pack, or, where ComfyUI cannot be had, on the
embedded engine.
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

from PIL import Image

from . import ROOT, miniature
from .assistant import assistant
from .comfy_runner import comfy_runner
from .embedded import EmbeddedRunner, OnEvent, Prompt, Workspace
from .miniature_base import furnish, write_pictures
from .report import Chapter, write_report
from .terminal import say

OUTPUT = ROOT / "demo_output"
# In the order of the report; some use what one before saved.
STORY = {
    "text_to_image": (
        "A few words become a picture",
        "The language model writes a detailed prompt, and it is painted.",
    ),
    "similar_image": (
        "A picture like this one",
        "The model looks at a picture and writes the prompt of one like it.",
    ),
    "similar_images": (
        "One like each of these",
        "Several pictures at once, the same asked of each; one of them is shown here.",
    ),
    "chat_with_endpoint": (
        "Two turns of one conversation",
        "The second turn changes what the first one asked for. The model answers from behind an OpenAI-like server.",
    ),
    "continue_conversation": ("And later, a third", "The saved conversation goes on where it was left."),
    "chat_many_turns": (
        "A conversation in one node",
        "The turns so far stand in the panel of LLMGA Chat, an input of the graph; the last one is answered and painted.",
    ),
    "controlnet": (
        "The lines stay, the rest is new",
        "A ControlNet, a network beside the painter, keeps to the edges of the picture.",
    ),
    "instruction_edit_multi_turn": (
        "A picture changed by words, twice",
        "The model captions the picture and changes the caption as you ask; inversion finds the noise that the picture "
        "comes from, and from it the new words are painted. The second edit starts from the first; shown is what came of "
        "both.",
    ),
    "edit_with_mask": (
        "Changed inside a mask",
        "Both captions are written by hand and differ in a colour. Outside the mask nothing is painted; what blurs there is "
        "the small models' own autoencoder.",
    ),
    "inpaint": ("A hole filled", "The model sees the picture with its hole and writes what belongs there."),
    "outpaint": ("A picture continued", "The same beyond the borders, left and right."),
    "restore_only": (
        "A seam taken out",
        "A hole that was painted with the wrong colours, before and after DiffRIR, LLMGA's network against seams.",
    ),
    "scene_by_hand": (
        "A scene from boxes",
        "Each object is painted alone in its box, then all in one picture; no language model takes part.",
    ),
    "scene_into_photo": (
        "An object into a picture",
        "A star is painted into its box; outside of it the picture is kept.",
    ),
    "gill_story": (
        "A story's next picture, by GILL",
        "GILL is another method: its language model gives the painter numbers, an embedding, and no prompt. Here it "
        "keeps a sentence's place and colour, often not its shape, and little of a longer story.",
    ),
    "language_or_embedding": (
        "The same request in words and as an embedding",
        "LLMGA's prompt on the one side, GILL's embedding on the other, from the same noise.",
    ),
    "picture_book": ("A story in pictures", "One request, several prompts, a picture for each."),
}
TWICE = ("text_to_image", "similar_image", "chat_with_endpoint", "continue_conversation")
"""Painted by the base painter too, beside the one that was trained on long prompts (stage 2)."""
INTRO = (
    "A language model that sees pictures works together with a painter, a diffusion model: you say what you want, the "
    "language model writes a long prompt of it, the painter paints that, and you go on talking. Everything on this page was "
    "just made on {runner} by models of a few megabytes that come with the repository. They know one small world, paper "
    "shapes on a few backgrounds, drawn by code. So it can be checked: a picture that is “drawn by rule” shows exactly what "
    "the prompt asks for, and the painted ones should look like it."
)
DRAWN = "drawn by rule from the same prompt"
SHOWN = "the picture that was given"
HOLED = "the picture that was given, its mask black"
WITHOUT_WORDS = {"similar": "(gives a picture and asks for one like it)"}
"""What is asked without an instruction, by task."""
WRITTEN = {"source_prompt": "The picture shows: {}", "target_prompt": "It shall show: {}"}
"""Prompts that a person wrote in a graph, by input."""
PAINTED = {
    "First picture": "the first picture",
    "Changed picture": "the changed picture",
    "Save Image": "painted",
}


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
        chapters = [run_chapter(running, name, models) for name in STORY]
    page = write_report(OUTPUT, INTRO.format(runner=running.name), chapters)
    count = sum(len(chapter.pictures) for chapter in chapters)
    say(f"{len(chapters)} workflows, {count} pictures in {time.monotonic() - started:.0f} s")
    say(f"open {page}")
    return 0


def run_chapter(running: Runner, name: str, models: Path) -> Chapter:
    """Run one workflow with progress on the terminal; its conversation, prompt and pictures."""
    title, about = STORY[name]
    say(f"\n== {title} ({name})")
    prompt = miniature.load_prompt(miniature.API / f"{name}.json")
    if missing := miniature.missing_models(models, prompt):
        say(f"  left out: the miniature has no {', '.join(missing)} yet")
        return Chapter(name, title, f"Left out: the miniature has no {', '.join(missing)} yet.", 0.0)
    if name in TWICE:
        prompt = miniature.with_stage2(prompt)
    titles: list[str] = []

    def on_event(node: str, text: str) -> None:
        if node not in titles:
            titles.append(node)
            say(f"  {node}")

    started = time.monotonic()
    shown = running.run(prompt, on_event)
    chapter = Chapter(name, title, about, time.monotonic() - started)
    collect(chapter, prompt, shown)
    say(f"  {chapter.seconds:.1f} s, {', '.join(path.name for _, path in chapter.pictures)}")
    return chapter


def collect(chapter: Chapter, prompt: Prompt, shown: dict[str, dict[str, Any]]) -> None:
    """Fill a chapter from the workflow and from what its nodes showed; draws what the last prompt asks for."""
    for node_id, node in prompt.items():
        ui, title = shown.get(node_id, {}), node["_meta"]["title"]
        texts = [str(text) for text in ui.get("text", [])]
        asked, answered = asked_by(node["inputs"]), "GILL" if "message" in node["inputs"] else "LLMGA"
        chapter.said += asked
        if {"instruction", "message"} & node["inputs"].keys():
            chapter.said += [(answered, text) for text in texts]
        elif title == "Prompt":
            chapter.prompt = "\n".join(texts)
        elif texts:
            chapter.notes.append((title, "\n".join(texts)))
        if node["class_type"] == "LoadImage" and not chapter.pictures:
            path = OUTPUT / f"{chapter.name}_shown.png"
            holed = any([node_id, 1] in one["inputs"].values() for one in prompt.values())
            show_input(path, node["inputs"]["image"], holed)
            chapter.pictures.append((HOLED if holed else SHOWN, path))
        chapter.pictures += [(PAINTED.get(title, title), path) for path in ui.get("images", [])]
    if "\n" not in chapter.prompt and (scene := miniature.scene_of(chapter.prompt)):
        from miniworld.world.render import render

        path = OUTPUT / f"{chapter.name}_drawn.png"
        render(scene, miniature.picture_size()).image.save(path)
        chapter.pictures.append((DRAWN, path))


def asked_by(inputs: dict[str, Any]) -> list[tuple[str, str]]:
    """What a person wrote into a node, the turns before it among them: (who, what)."""
    said = []
    if "instruction" in inputs:
        for turn in json.loads(inputs.get("transcript") or "[]"):
            who = "you" if turn["role"] == "user" else "LLMGA"
            said.append((who, turn.get("instruction") or turn["text"]))
        task = inputs.get("task", "")
        without = WITHOUT_WORDS.get(task, f"(gives a picture; the task is {task})")
        said.append(("you", inputs["instruction"] or without))
    if "message" in inputs:
        said.append(("you", inputs["message"]))
    for name, words in WRITTEN.items():
        if isinstance(inputs.get(name), str) and inputs[name]:
            said.append(("you", words.format(inputs[name])))
    if isinstance(inputs.get("plan"), str) and inputs["plan"]:
        plan = json.loads(inputs["plan"])
        boxes = "; ".join(", ".join([one["name"], *one["descriptions"]]) for one in plan["objects"])
        said.append(("you", f"Boxes for: {boxes}. Background: {plan['background']}."))
    return said


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
    furnish(folder, models, endpoint_url)
    endpoints = folder / "user" / "__llmga" / "endpoints.json"
    return EmbeddedRunner(Workspace(models, endpoints, inputs=folder / "input", outputs=OUTPUT))


def show_input(path: Path, name: str, holed: bool) -> None:
    """An example picture as a person sees it; with its mask in black where the workflow uses that."""
    with tempfile.TemporaryDirectory() as folder:
        write_pictures(Path(folder), miniature.picture_size())
        with Image.open(Path(folder) / name) as picture:
            shown = Image.new("RGB", picture.size)
            shown.paste(picture.convert("RGB"), mask=picture.getchannel("A") if holed else None)
            shown.save(path)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
