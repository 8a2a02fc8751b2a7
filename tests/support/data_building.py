"""What the tests of building data share: pictures of one colour each, and a model that names the colour that it sees."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from typing import Any

from PIL import Image

from llmga.chat.endpoints import Endpoint
from llmga.chat.engines.endpoint import EndpointEngine
from llmga.data.schemas import Caption, write_records

from .openai_server import OpenAIServer

REFUSAL = "I'm sorry, but I can't help with that."


def caption(name: str) -> str:
    """A detailed caption that is another one for another name."""
    return (
        f"A {name} bus waits at a kerb on the left, its windows bright with {name} clouds. Behind it a row of brick "
        f"houses with {name} frames runs to the right, and two cyclists wait for the light to change. The road is "
        f"wet, so that the tail lamps glow in long {name} streaks on the asphalt below a pale and quiet sky."
    )


COLOURS = {
    "crimson": (200, 20, 40),
    "azure": (20, 120, 240),
    "olive": (120, 120, 20),
    "violet": (150, 20, 200),
}


def shown(body: dict) -> Image.Image:
    """The picture in a request."""
    [image] = [part for part in body["messages"][-1]["content"] if part["type"] == "image_url"]
    data = image["image_url"]["url"].removeprefix("data:image/png;base64,")
    return Image.open(io.BytesIO(base64.b64decode(data)))


def seen(body: dict) -> str:
    """A model that names the colour that it sees."""
    pixel = shown(body).convert("RGB").getpixel((0, 0))
    return caption(next(name for name, colour in COLOURS.items() if colour == pixel))


def engine(server: OpenAIServer, **fields: Any) -> EndpointEngine:
    return EndpointEngine(Endpoint("test", server.url, "vision", **fields))


def coloured_pictures(root: Path) -> Path:
    """A new folder with a picture of each colour, every second one in a folder below it."""
    (root / "sub").mkdir(parents=True)
    for number, (name, colour) in enumerate(COLOURS.items()):
        Image.new("RGB", (32, 24), colour).save(root / ("sub" if number % 2 else "") / f"{name}.png")
    return root


def short_captions_of(path: Path) -> Path:
    """A file of records with a short caption for two of the pictures."""
    write_records(path, [Caption(f"{name}.png", f"a {name} bus") for name in ("crimson", "olive")])
    return path


def read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))
