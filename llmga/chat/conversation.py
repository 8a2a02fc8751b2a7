"""A conversation as a value: frozen, comparable, JSON-serialisable, passed in and out.

Chat state is data and never a hidden session: the same conversation, request and seed give the same reply,
and a saved conversation continues as if it had never been closed. Pictures travel inside it as lossless PNG,
once per content.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import io
import json
from dataclasses import dataclass, field, replace
from typing import Any, Literal, get_args

from PIL import Image

Role = Literal["user", "assistant"]

FORMAT = "llmga-conversation"
VERSION = 1
MAX_TURNS = 200
MAX_TEXT = 200_000
MAX_PICTURES = 16
MAX_PICTURE_PIXELS = 4_194_304  # 2048 * 2048


@dataclass(frozen=True)
class Picture:
    """One picture of a conversation, RGB, lossless.

    Two pictures are equal when their pixels are, however they were compressed: ``sha256`` is taken over
    ``"{width}x{height}:"`` and the raw RGB bytes, and it alone takes part in comparison.
    """

    sha256: str
    width: int = field(compare=False)
    height: int = field(compare=False)
    png: bytes = field(compare=False, repr=False)

    @classmethod
    def from_pil(cls, image: Image.Image) -> Picture:
        """Take a PIL image of 8 bits per channel; drop alpha, scale down to ``MAX_PICTURE_PIXELS``.

        Raises:
            ValueError: the image is empty, or has a 16-bit, 32-bit or float mode (PIL would clip it to 255).
        """
        if image.mode.startswith(("I", "F")):
            raise ValueError(
                f"the picture has the mode {image.mode!r}; convert it to 8 bits per channel first"
            )
        rgb = image.convert("RGB")
        if rgb.width < 1 or rgb.height < 1:
            raise ValueError(f"the picture is {rgb.width}×{rgb.height}; it needs at least 1×1 pixels")
        if rgb.width * rgb.height > MAX_PICTURE_PIXELS:
            scale = (MAX_PICTURE_PIXELS / (rgb.width * rgb.height)) ** 0.5
            # One side of a thread-like picture is held at 1, and then the other alone is the pixel count.
            width, height = (min(MAX_PICTURE_PIXELS, max(1, int(side * scale))) for side in rgb.size)
            rgb = rgb.resize((width, height), Image.Resampling.LANCZOS)
        out = io.BytesIO()
        rgb.save(out, format="PNG", compress_level=1)
        return cls(_pixel_hash(rgb), rgb.width, rgb.height, out.getvalue())

    def to_pil(self) -> Image.Image:
        """The picture as an RGB PIL image of its own (changing it changes nothing here)."""
        return Image.open(io.BytesIO(self.png)).convert("RGB")


@dataclass(frozen=True)
class Turn:
    """What one side said: plain text and, for the user, the pictures shown with it."""

    role: Role
    text: str
    pictures: tuple[Picture, ...] = ()

    def __post_init__(self) -> None:
        if self.role not in get_args(Role):
            raise ValueError(f"a turn's role is 'user' or 'assistant', got {self.role!r}")
        _check_text("a turn's text", self.text)
        if self.role == "assistant" and self.pictures:
            raise ValueError("only user turns hold pictures")


@dataclass(frozen=True)
class Conversation:
    """A system prompt and the turns so far, oldest first."""

    turns: tuple[Turn, ...] = ()
    system: str = ""

    def __post_init__(self) -> None:
        _check_text("the system prompt", self.system)
        if len(self.turns) > MAX_TURNS:
            raise ValueError(f"a conversation holds at most {MAX_TURNS} turns, got {len(self.turns)}")
        count = sum(len(turn.pictures) for turn in self.turns)
        if count > MAX_PICTURES:
            raise ValueError(f"a conversation holds at most {MAX_PICTURES} pictures, got {count}")

    def __str__(self) -> str:
        """The turns for a person to read: who speaks, how many pictures were shown, and what was said."""
        if not self.turns:
            return "(an empty conversation)"
        return "\n\n".join(map(_readable, self.turns))

    @property
    def pictures(self) -> tuple[Picture, ...]:
        """Every picture in the order shown."""
        return tuple(picture for turn in self.turns for picture in turn.pictures)

    def say(self, role: Role, text: str, pictures: tuple[Picture, ...] = ()) -> Conversation:
        """A conversation that is one turn longer."""
        return replace(self, turns=(*self.turns, Turn(role, text, pictures)))

    def to_json(self) -> str:
        """The whole conversation as one JSON text; equal pictures are stored once."""
        images = {
            picture.sha256: {
                "width": picture.width,
                "height": picture.height,
                "png": base64.b64encode(picture.png).decode("ascii"),
            }
            for picture in self.pictures
        }
        turns = [
            {"role": turn.role, "text": turn.text, "images": [picture.sha256 for picture in turn.pictures]}
            for turn in self.turns
        ]
        head = {"format": FORMAT, "version": VERSION, "system": self.system}
        return json.dumps({**head, "turns": turns, "images": images}, ensure_ascii=False, indent=1)

    @classmethod
    def from_json(cls, text: str) -> Conversation:
        """Read what ``to_json`` wrote; the byte order mark that an editor put before it does not count.

        Raises:
            ValueError: the text is no such document, or a picture's pixels do not match its hash.
        """
        try:
            document = json.loads(text.removeprefix("\ufeff"))
        except (ValueError, RecursionError) as error:  # ValueError: also a number of 5,000 digits
            raise ValueError(f"this is not valid JSON: {error}") from error
        if not isinstance(document, dict) or document.get("format") != FORMAT:
            raise ValueError(f"this is not a saved conversation (its 'format' is not {FORMAT!r})")
        if type(document.get("version")) is not int or document["version"] != VERSION:
            raise ValueError(f"this conversation has version {document.get('version')!r}, known is {VERSION}")
        try:
            if len(document["images"]) > MAX_PICTURES:
                raise ValueError(f"a conversation holds at most {MAX_PICTURES} pictures")
            images = {key: _read_picture(key, value) for key, value in document["images"].items()}
            turns = tuple(
                Turn(turn["role"], turn["text"], tuple(images[key] for key in turn["images"]))
                for turn in document["turns"]
            )
            return cls(turns, document["system"])
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"the saved conversation is damaged: {type(error).__name__} {error}") from error


def _readable(turn: Turn) -> str:
    count = len(turn.pictures)
    shown = f" [{count} picture{'s' * (count > 1)}]" if count else ""
    return f"{'You' if turn.role == 'user' else 'LLMGA'}:{shown} {turn.text}".rstrip()


def _check_text(what: str, text: object) -> None:
    if not isinstance(text, str):
        raise ValueError(f"{what} is a string, got {type(text).__name__}")
    if len(text) > MAX_TEXT:
        raise ValueError(f"{what} holds at most {MAX_TEXT} characters, got {len(text)}")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(
            f"{what} holds half a surrogate pair, which no file and no tokenizer takes"
        ) from error


def _pixel_hash(rgb: Image.Image) -> str:
    return hashlib.sha256(f"{rgb.width}x{rgb.height}:".encode() + rgb.tobytes()).hexdigest()


def _read_picture(sha256: str, value: dict[str, Any]) -> Picture:
    try:
        png = base64.b64decode(value["png"], validate=True)
        image = Image.open(io.BytesIO(png), formats=("PNG",))
        if image.width * image.height > MAX_PICTURE_PIXELS:
            raise ValueError(f"a picture of {image.width}×{image.height} is larger than a conversation holds")
        rgb = image.convert("RGB")
    except (binascii.Error, OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"the saved picture {sha256[:12]} is damaged: {error}") from error
    if _pixel_hash(rgb) != sha256:
        raise ValueError(f"the saved picture {sha256[:12]} does not match its hash")
    return Picture(sha256, rgb.width, rgb.height, png)
