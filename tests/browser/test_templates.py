"""Every template in both renderers: nothing overlaps, it can be read; and on the miniature, Run paints."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest
from support.comfy_page import RENDERERS, Seen, run, watch
from support.template_checks import (
    SCREEN,
    drawn_by_page,
    links_behind,
    links_over_names,
    overlaps,
    screenshot,
    wait_for_history,
)

from tools import comfyui, miniature
from tools.assistant import assistant
from tools.comfy_server import MINIATURE_FOLDER, PACK_FOLDER, ComfyServer
from tools.frontend import new_page, visit
from tools.miniature_base import furnish
from tools.patience import PATIENCE
from tools.template_list import START_HERE, TEMPLATES
from tools.template_models import MODELS, files_of
from tools.template_page import LOAD, PICTURES, SAVE
from tools.templates import ON_THE_MINIATURE, read_prompts

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

SMALLEST = 8 / 14
"""Zoom at which a template is shown whole on a screen of 1920 × 1080: the classic renderer draws no text below it."""
SMALLER = {"20 Continue a picture": 0.55}
"""Too small for the classic renderer's text: no search has found a larger layout yet."""
TITLES = [template.title for template in TEMPLATES.values()]
COPIES = sorted(path.stem for path in ON_THE_MINIATURE.glob("*.json"))


@pytest.fixture(scope="module")
def world(browser: Browser) -> Iterator[ComfyServer]:
    """ComfyUI as ``dev.py serve`` furnishes it."""
    host = comfyui.find()
    if host.path is None:
        pytest.skip(f"no ComfyUI: {host.note}")
    models = miniature.find()
    server = ComfyServer(host.path, arguments=("--cpu",), extra_packs=(miniature.PACK,))
    with assistant(models) as url:
        server.arguments += furnish(server.base, models, url)
        with server:
            yield server


def open_template(
    page: Page, server: ComfyServer, title: str, renderer: str, source: str = PACK_FOLDER
) -> Seen:
    server.request("/settings", {"Comfy.VueNodes.Enabled": RENDERERS[renderer]})
    page.set_viewport_size(SCREEN)
    seen = watch(page)
    visit(page, server, title, source)
    page.wait_for_function("() => app.graph.nodes.length > 3")
    page.wait_for_timeout(1500)  # Nodes 2.0 draws its rows one after another; complaints come after the graph
    return seen


@pytest.mark.parametrize("renderer", RENDERERS)
@pytest.mark.parametrize("title", TITLES)
def test_a_template_can_be_read_and_nothing_lies_over_a_node_or_a_link(
    browser: Browser, server: ComfyServer, title: str, renderer: str
) -> None:
    with new_page(browser, server) as page:
        seen = open_template(page, server, title, renderer)
        screenshot(page, f"{title}, {renderer}")
        assert (drawn_by_page(page) > 0) == RENDERERS[renderer]
        assert overlaps(page) == []
        assert links_behind(page) == []
        assert links_over_names(page) == []
        assert page.evaluate("() => app.canvas.ds.scale") >= SMALLER.get(title, SMALLEST)
        assert page.evaluate("() => app.graph.nodes.filter((node) => node.has_errors).length") == 0
        assert (seen.errors, seen.console, seen.dialogs) == ([], [], [])


@pytest.mark.parametrize("renderer", RENDERERS)
def test_no_text_is_left_over_from_the_template_made_before(
    browser: Browser, server: ComfyServer, renderer: str
) -> None:
    """A linked text box of the second has the number and name of one of the first."""

    def texts_of(text: object) -> dict[str, Any]:
        inputs = {"PrimitiveStringMultiline": {"value": "source"}, "CLIPTextEncode": {"text": text}}
        nodes = [
            {"class_type": one, "inputs": given, "_meta": {"title": one}} for one, given in inputs.items()
        ]
        return dict(zip("12", nodes, strict=True))

    server.request("/settings", {"Comfy.VueNodes.Enabled": RENDERERS[renderer]})
    found = []
    with new_page(browser, server) as page:
        visit(page, server)
        for text in ("of the first", ["1", 0]):
            page.evaluate(LOAD, [texts_of(text), "made", "a note"])
            nodes = json.loads(page.evaluate(SAVE))["nodes"]
            found.append([node["widgets_values"][0] for node in nodes])
    assert found == [["source", "of the first", "a note"], ["source", "", "a note"]]


def test_every_template_has_a_copy_on_the_miniature() -> None:
    """But for one whose model the miniature does not have yet."""
    from tools.template_list import NAMES

    folder = miniature.find()
    lacking = {
        title
        for title, name in NAMES.items()
        if miniature.missing_models(folder, miniature.load_prompt(miniature.API / f"{name}.json"))
    }
    assert {*COPIES} == {START_HERE.title, *TITLES} - lacking


@pytest.mark.parametrize("renderer", RENDERERS)
@pytest.mark.parametrize("title", COPIES)
def test_run_paints_on_the_miniature(browser: Browser, world: ComfyServer, title: str, renderer: str) -> None:
    with new_page(browser, world) as page:
        seen = open_template(page, world, title, renderer, MINIATURE_FOLDER)
        assert (links_behind(page), links_over_names(page)) == ([], [])
        entry = wait_for_history(page, world, run(page, world), PATIENCE)
        page.wait_for_timeout(500)
        screenshot(page, f"{title}, painted, {renderer}")
        assert entry["status"]["status_str"] == "success", entry["status"]
        images = [image for ui in entry["outputs"].values() for image in ui.get("images", ())]
        saved = [image for image in images if image["type"] == "output"]
        saves = any(node["class_type"] == "SaveImage" for node in entry["prompt"][2].values())
        assert bool(saved) == saves and all(world.view(image).startswith(b"\x89PNG") for image in saved)
        kinds = {node_id: node["class_type"] for node_id, node in entry["prompt"][2].items()}
        shown = {kinds[node_id] for node_id, ui in entry["outputs"].items() if ui.get("images")}
        assert shown <= {*PICTURES}, "the layout leaves no room for the pictures of these"
        assert overlaps(page) == []
        assert (seen.errors, seen.console, seen.dialogs) == ([], [], [])


@pytest.mark.parametrize(("name", "count"), [("pixeldit", 2), ("z_image", 3)])
def test_a_newcomer_is_offered_the_files_of_the_first_templates(
    browser: Browser, name: str, count: int
) -> None:
    """A ComfyUI without a single model: its own list names each file, with a button that fetches it.

    What the language model of both says is held to its published chat format in tests/host/test_host_formats_inprocess.py.
    """
    host = comfyui.find()
    if host.path is None:
        pytest.skip(f"no ComfyUI: {host.note}")
    with ComfyServer(host.path, arguments=("--cpu",)) as empty, new_page(browser, empty) as page:
        open_template(page, empty, TEMPLATES[name].title, "classic")
        files = files_of(read_prompts()[name])
        assert len(files) == count
        listed = page.evaluate(
            """() => app.graph.nodes.flatMap((node) => node.properties.models ?? [])
                .map(({ name, url, directory }) => [name, url, directory])"""
        )
        assert sorted(listed) == sorted([name, MODELS[name].url, MODELS[name].directory] for name in files)
        # "View details" on frontend 1.49, which counts a missing model among the errors.
        named = re.compile("missing models|view details", re.IGNORECASE)
        page.get_by_role("button", name=named).first.click()
        page.get_by_text(re.compile("download", re.IGNORECASE)).first.wait_for()
        screenshot(page, f"a newcomer, {name}")
        shown = page.locator("body").inner_text()
        assert all(name in shown for name in files)
        assert shown.splitlines().count("Download") == count, shown  # beside "Download all"
