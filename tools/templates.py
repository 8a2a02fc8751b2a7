"""``python -m tools.templates [--keep-cards | --only-cards] [--keep-places] [name …]``: make ``workflows/*.json`` and cards.

The API prompts in ``workflows/api`` are the source of both. ComfyUI's own page turns each into a workflow, once with the
models that a person would use and once, into ``miniworld/pack/workflows``, with the miniature's. Files of the first are
empty placeholders here; the second really runs, and paints the cards of both. ``--keep-places`` leaves the nodes of shipped
templates where they stand and leads their links anew.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import ROOT, miniature
from .assistant import assistant
from .chromium import find
from .comfy_server import ComfyServer
from .frontend import chromium, new_page, visit
from .help_pictures import write_help_pictures
from .miniature_base import furnish
from .miniature_values import WORDS
from .props import write_example
from .small_graph import Prompt
from .template_cards import SIDE, paint, words_of, write_card
from .template_list import START, START_HERE, TEMPLATES, Template, note
from .template_page import Pages, build
from .terminal import say

if TYPE_CHECKING:
    from playwright.sync_api import Browser

WORKFLOWS = ROOT / "workflows"
API = miniature.API
KEEP_CARDS, ONLY_CARDS, KEEP_PLACES = "--keep-cards", "--only-cards", "--keep-places"
FLAGS = (KEEP_CARDS, ONLY_CARDS, KEEP_PLACES)
ON_THE_MINIATURE = miniature.PACK / "workflows"
# Where the files and records stand that the prompts name.
PLACES = {
    ("CheckpointLoaderSimple", "ckpt_name"): "models/checkpoints/{}",
    ("UNETLoader", "unet_name"): "models/diffusion_models/{}",
    ("VAELoader", "vae_name"): "models/vae/{}",
    ("CLIPLoader", "clip_name"): "models/text_encoders/{}",
    ("ControlNetLoader", "control_net_name"): "models/controlnet/{}",
    ("LLMGA_ModelLoader", "model"): "models/LLM/{}/config.json",
    ("LLMGA_DiffRIRLoader", "restorer_file"): "models/diffrir/{}",
    ("LLMGA_GILLLoader", "language"): "models/LLM/{}/config.json",
    ("LLMGA_GILLLoader", "gill"): "models/gill/{}",
    ("LLMGA_GILLLoader", "vision"): "models/clip_vision/{}",
    ("LLMGA_GILLLoader", "decision"): "models/gill/{}",
    ("LLMGA_LoadHistory", "name"): "user/__llmga/histories/{}.json",
}
PIXEL_SPACE = "pixel_space"  # the VAE of models that paint pixels


def main(names: list[str]) -> int:
    host, found = os.environ.get("COMFYUI_PATH", "none"), find(sys.executable)
    if host == "none" or found.path is None:
        say(f"templates need COMFYUI_PATH (now {host}) and a Chromium ({found.reason or 'found'})")
        return 2
    flags, names = {*names} & {*FLAGS}, [name for name in names if name not in FLAGS]
    unknown = [name for name in names if name not in TEMPLATES]
    if unknown:
        say(f"there is no workflow {', '.join(unknown)}; known are {', '.join(TEMPLATES)}")
        return 2
    chosen = names or list(TEMPLATES)
    ON_THE_MINIATURE.mkdir(exist_ok=True)
    models = miniature.find()
    with assistant(models) as url, template_server(Path(host), models, url) as server:
        with chromium(found.path) as browser, both_renderers(browser, server) as pages:
            version = server.get("/system_stats")["system"]["comfyui_version"]
            for name in chosen:
                if ONLY_CARDS not in flags:
                    say(make(pages, name, version, KEEP_PLACES in flags))
                if KEEP_CARDS not in flags:
                    make_cards(browser, server, name)
    return 0


@contextlib.contextmanager
def template_server(host: Path, models: Path, url: str) -> Iterator[ComfyServer]:
    server = ComfyServer(host, arguments=("--cpu",), extra_packs=(miniature.PACK,))
    write_placeholders(server.base, read_prompts(), "http://127.0.0.1:9/v1")
    server.arguments += furnish(server.base, models, url)
    with server:
        yield server


@contextlib.contextmanager
def both_renderers(browser: Browser, server: ComfyServer) -> Iterator[Pages]:
    """Two pages; the setting of the renderer is read when a page is opened."""
    with new_page(browser, server) as nodes2, new_page(browser, server) as classic:
        server.request("/settings", {"Comfy.VueNodes.Enabled": True})
        visit(nodes2, server)
        nodes2.wait_for_timeout(2000)
        server.request("/settings", {"Comfy.VueNodes.Enabled": False})
        visit(classic, server)
        yield Pages(classic, nodes2)


def make(pages: Pages, name: str, version: str, keep_places: bool = False) -> str:
    """The workflows that are made of one API prompt, and how they came out.

    Args:
        keep_places: nodes stay where they stand; links alone are led anew.
    """
    template, prompt = TEMPLATES[name], read_prompts()[name]
    small, missing = on_the_miniature(name)
    path = WORKFLOWS / f"{template.title}.json"
    before = json.loads(path.read_text(encoding="utf-8")) if keep_places else None
    workflow, layout = build(pages, name, prompt, note(name, prompt), version, before=before)
    path.write_text(workflow + "\n", encoding="utf-8")
    known = layout if shape(small) == shape(prompt) else None
    for copy in [] if missing else copies_of(name):
        path = ON_THE_MINIATURE / f"{copy.title}.json"
        before = json.loads(path.read_text(encoding="utf-8")) if keep_places else None
        about, known = build(pages, name, small, miniature_note(copy), version, known, before)
        path.write_text(about + "\n", encoding="utf-8")
    around = f"{len(layout.reroutes)} links led around nodes and names, {layout.behind} behind"
    lacks = f"; no copy on the miniature, which has no {', '.join(missing)}" if missing else ""
    return f"{template.title}: shown at {layout.scale:.0%}, {around}{lacks}"


def make_cards(browser: Browser, server: ComfyServer, name: str) -> None:
    """Paint a template's cards, and the pictures of help pages that are parts of them."""
    template = TEMPLATES[name]
    small, missing = on_the_miniature(name)
    painted = words_of(server, small) if missing else paint(server, small)
    with browser.new_page(viewport={"width": SIDE, "height": SIDE}) as page:
        write_card(page, WORKFLOWS / f"{template.title}.jpg", template, painted)
        write_help_pictures(name, WORKFLOWS / f"{template.title}.jpg")
        for copy in [] if missing else copies_of(name):
            mine = replace(copy, models=START_HERE.models, card=START_HERE.card)
            write_card(page, ON_THE_MINIATURE / f"{copy.title}.jpg", mine, painted)


def on_the_miniature(name: str) -> tuple[Prompt, list[str]]:
    """A prompt with the miniature's values, and the models that the miniature lacks for it."""
    small = miniature.load_prompt(API / f"{name}.json")
    return small, miniature.missing_models(miniature.find(), small)


def copies_of(name: str) -> list[Template]:
    """The copies on the miniature that are made of one API prompt."""
    return [TEMPLATES[name], *([START_HERE] if name == START else [])]


def shape(prompt: Prompt) -> dict[str, Any]:
    """What the layout of a prompt depends on: its nodes and their links."""
    return {
        node_id: (
            node["class_type"],
            node["_meta"]["title"],
            {name: value for name, value in node["inputs"].items() if isinstance(value, list)},
        )
        for node_id, node in prompt.items()
    }


def miniature_note(template: Template) -> str:
    then = ", ".join(f"*{TEMPLATES[name].title}*" for name in template.then)
    title = f"## {template.title[3:].replace('-', ' ')}"
    parts = (title, template.about, template.small, WORDS, f"**Try next:** {then}")
    return "\n\n".join(filter(None, parts))


def read_prompts() -> dict[str, Prompt]:
    """The API prompts by name, in the order of the template browser."""
    return {name: json.loads((API / f"{name}.json").read_text(encoding="utf-8")) for name in TEMPLATES}


def write_placeholders(base: Path, prompts: dict[str, Prompt], endpoint_url: str) -> None:
    """Put empty files in a server's base folder under the names that the prompts hold, and a record for each endpoint.

    A name that ComfyUI has without a file (``PIXEL_SPACE``) is left alone.
    """
    nodes: list[dict[str, Any]] = [node for prompt in prompts.values() for node in prompt.values()]
    for (class_type, widget), place in PLACES.items():
        for node in nodes:
            if node["class_type"] == class_type and node["inputs"][widget] != PIXEL_SPACE:
                path = base / place.format(node["inputs"][widget])
                path.parent.mkdir(parents=True, exist_ok=True)
                path.touch()
    names = {node["inputs"]["endpoint"] for node in nodes if node["class_type"] == "LLMGA_Endpoint"}
    path = base / "user" / "__llmga" / "endpoints.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        json.dumps({"endpoints": {name: {"url": endpoint_url, "model": "demo"} for name in names}})
    )
    write_example(base / "input" / "example.png")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
