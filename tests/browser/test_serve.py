"""``python dev.py serve`` as a newcomer meets it: one command, the page that it names, one press of Run, a picture."""

from __future__ import annotations

import io
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from PIL import Image
from support.comfy_page import watch
from support.template_checks import SCREEN, screenshot, wait_for_history

from miniworld.models.reader import load_reader
from miniworld.world.scene import BACKGROUNDS, PLACES
from tools import ROOT, comfyui, miniature
from tools.comfy_client import ComfyClient
from tools.comfy_server import free_port
from tools.patience import PATIENCE
from tools.template_list import START

if TYPE_CHECKING:
    from playwright.sync_api import Browser


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """The page that ``serve`` names, and the folder where it keeps its things."""
    host = comfyui.find()
    if host.path is None:
        pytest.skip(f"no ComfyUI: {host.note}")
    base = tmp_path_factory.mktemp("serve")
    log = base / "serve.log"
    environment = {**os.environ, "LLMGA_SERVE": str(base), "COMFYUI_PATH": str(host.path)}
    environment.pop("DISPLAY", None)
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "tools.serve", "--port", str(free_port()), "--cpu"],
            cwd=ROOT,
            env=environment,
            stdout=out,
            stderr=subprocess.STDOUT,
        )
    try:
        yield named_page(process, log), base
    finally:
        process.terminate()
        process.wait(30)


def named_page(process: subprocess.Popen[bytes], log: Path) -> str:
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        said = log.read_text(encoding="utf-8", errors="replace")
        if found := re.search(r"ComfyUI with LLMGA: (\S+)", said):
            return found[1]
        assert process.poll() is None, said
        time.sleep(0.5)
    raise AssertionError(log.read_text(encoding="utf-8", errors="replace"))


def test_one_press_of_run_paints_what_the_words_say(browser: Browser, served: tuple[str, Path]) -> None:
    address, base = served
    client = ComfyClient(address.partition("/?")[0])
    context = browser.new_context(viewport=SCREEN, locale="en-US")
    try:
        page = context.new_page()
        page.set_default_timeout(PATIENCE * 1000)
        seen = watch(page)
        page.goto(address)
        page.wait_for_function(
            "() => window.app?.vueAppReady && app.graph.nodes.length > 3 && !location.search"
        )
        page.wait_for_timeout(1000)
        assert page.locator("[role=dialog]:visible").count() == 0
        with page.expect_response(lambda response: response.url.endswith("/prompt")) as response:
            page.get_by_test_id("queue-button").click()
        entry = wait_for_history(page, client, response.value.json()["prompt_id"], PATIENCE)
        page.wait_for_timeout(1000)
        screenshot(page, "serve after Run")
    finally:
        context.close()
    assert entry["status"]["status_str"] == "success"
    assert (seen.errors, seen.console, seen.dialogs) == ([], [], [])
    (image,) = (one for ui in entry["outputs"].values() for one in ui.get("images", ()))
    said = miniature.load_prompt(miniature.API / f"{START}.json")
    (words,) = (one["inputs"]["instruction"] for one in said.values() if one["class_type"] == "LLMGA_Chat")
    assert words == "a red star in the centre and a ring at the top left on snow"
    assert read(client.view(image)) == ("snow", {"centre", "top left"})
    assert (base / "output").is_dir() and (base / "models").exists()


def read(png: bytes) -> tuple[str, set[str]]:
    """What the miniature's reader finds in a picture: the background, and the places where something stands."""
    with Image.open(io.BytesIO(png)) as picture:
        assert picture.size == (miniature.picture_size(),) * 2
        pixels = torch.from_numpy(np.asarray(picture.convert("RGB"))).movedim(-1, 0)[None] / 127.5 - 1
    reading = load_reader(miniature.find() / "reader.safetensors").read(pixels)
    places = {place for place, there in zip(PLACES, reading.present[0].tolist(), strict=True) if there}
    return BACKGROUNDS[int(reading.background[0])], places


def test_a_taken_port_is_said_and_nothing_starts() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        done = subprocess.run(
            [sys.executable, "-m", "tools.serve", "--port", str(taken.getsockname()[1])],
            cwd=ROOT,
            env=dict(os.environ),
            capture_output=True,
            text=True,
        )
    assert done.returncode == 2 and "--port" in done.stdout + done.stderr
