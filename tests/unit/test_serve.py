"""``dev.py serve``: what it says of where it listens, and what it puts beside a person's own things."""

from __future__ import annotations

import json
import os
import re
from contextlib import nullcontext
from pathlib import Path

import pytest
from PIL import Image

from miniworld.models.random_diffusion import write_checkpoint
from tools import serve
from tools.comfy_server import free_port, link
from tools.comfyui import Host
from tools.miniature_base import add_endpoint, furnish
from tools.miniature_values import CHECKPOINT, ENDPOINT, EXAMPLE, NARROW
from tools.template_list import START_HERE


@pytest.mark.parametrize(
    ("arguments", "page", "public"),
    [
        ([], "http://127.0.0.1:8199", False),
        (["--port", "9000", "--cpu"], "http://127.0.0.1:9000", False),
        (["--listen"], "http://127.0.0.1:8199", True),
        (["--listen", "0.0.0.0"], "http://127.0.0.1:8199", True),
        (["--listen", "192.168.1.5"], "http://192.168.1.5:8199", True),
        (["--listen", "::1"], "http://[::1]:8199", False),
        (["--tls-keyfile", "a.pem", "--tls-certfile", "b.pem"], "https://127.0.0.1:8199", False),
    ],
)
def test_the_page_is_where_comfyui_listens(arguments: list[str], page: str, public: bool) -> None:
    address, passed_on = serve.read(arguments)
    assert (address.page, address.is_public) == (page, public)
    assert passed_on == [one for one in arguments if one not in ("--port", "9000")]


@pytest.mark.parametrize("port", ["0", "65536", "-1", "web"])
def test_a_port_that_cannot_be_is_named(port: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        serve.read([f"--port={port}"])
    assert f"must be a whole number from 1 to 65535, got '{port}'" in capsys.readouterr().err


def test_the_start_page_opens_the_first_workflow() -> None:
    """Letters that ComfyUI takes in a link to a template, and no others."""
    assert re.fullmatch(r"[a-zA-Z0-9_.-]+", START_HERE.title)
    address, _ = serve.read([])
    assert serve.start_page(address) == "http://127.0.0.1:8199/?template=00-Start-here&source=LLMGA-miniature"


@pytest.mark.skipif(os.name == "nt", reason="symbolic links need rights on Windows")
@pytest.mark.parametrize("moved", ["gone", "another"])
def test_links_to_where_comfyui_was_are_replaced(tmp_path: Path, moved: str) -> None:
    """Also the checkout's own: a clone that was renamed has links to its old name."""
    old, new, own = tmp_path / "old", tmp_path / "new", tmp_path / "own"
    for folder in (old, new, own) if moved == "another" else (new, own):
        folder.mkdir()
    place = tmp_path / "models"
    place.symlink_to(old, target_is_directory=True)
    link(new, place)
    assert place.readlink() == new and place.is_dir()
    link(new, own)
    assert not own.is_symlink()


@pytest.mark.parametrize("text", ["{", "[]", '{"endpoints": 3}'])
def test_a_list_of_endpoints_that_cannot_be_read_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "endpoints.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"endpoints\.json is not .*; mend or delete it"):
        add_endpoint(path, "http://127.0.0.1:1/v1")


@pytest.mark.parametrize("broken", ["endpoints", "base"])
def test_what_cannot_be_prepared_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], broken: str
) -> None:
    base = tmp_path / "base"
    if broken == "base":
        base.touch()
    else:
        path = base / "user" / "__llmga" / "endpoints.json"
        path.parent.mkdir(parents=True)
        path.write_text("{")
    (tmp_path / "comfyui" / "models").mkdir(parents=True)
    monkeypatch.setattr("tools.miniature_base.picture_size", lambda folder: 128)
    monkeypatch.setenv("LLMGA_SERVE", str(base))
    monkeypatch.setattr(serve, "find", lambda: Host(tmp_path / "comfyui", ""))
    monkeypatch.setattr(serve.miniature, "find", lambda: tmp_path / "miniature")
    monkeypatch.setattr(serve, "assistant", lambda models: nullcontext("http://127.0.0.1:1/v1"))
    assert serve.main([f"--port={free_port()}"]) == 2
    said = capsys.readouterr().out
    assert said.startswith("serve: ") and str(base) in said and "Traceback" not in said


def test_a_persons_endpoints_and_settings_stay(tmp_path: Path) -> None:
    path = tmp_path / "endpoints.json"
    mine = {"url": "http://127.0.0.1:11434/v1", "model": "mine"}
    path.write_text(json.dumps({"endpoints": {"ollama": mine}}))
    add_endpoint(path, "http://127.0.0.1:1/v1")
    found = json.loads(path.read_text())["endpoints"]
    assert found["ollama"] == mine and found[ENDPOINT]["url"] == "http://127.0.0.1:1/v1"
    settings = tmp_path / "comfy.settings.json"
    settings.write_text('{"Comfy.TutorialCompleted": false}')
    serve.greet_nobody(settings)
    assert json.loads(settings.read_text()) == {"Comfy.TutorialCompleted": False}


@pytest.mark.parametrize("side", [128, 256])
def test_the_miniature_is_furnished_with_models_and_pictures_of_its_size(tmp_path: Path, side: int) -> None:
    write_checkpoint(tmp_path / "mini" / "checkpoints" / CHECKPOINT, picture=side)
    (tmp_path / "mini" / "LLM").mkdir()
    _, paths = furnish(tmp_path / "base", tmp_path / "mini", "http://127.0.0.1:1/v1")
    text = Path(paths).read_text()
    assert "checkpoints: checkpoints" in text and "LLM: LLM" in text and "diffrir" not in text
    with Image.open(tmp_path / "base" / "input" / EXAMPLE) as picture:
        assert picture.size == (side, side)
        assert {0, 255} == set(picture.getchannel("A").getdata())
    with Image.open(tmp_path / "base" / "input" / NARROW) as picture:
        assert picture.size == (side // 2, side)
