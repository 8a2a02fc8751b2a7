import base64
import dataclasses
import io
import json
import struct
import zlib
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from llmga.chat.conversation import (
    MAX_PICTURE_PIXELS,
    MAX_PICTURES,
    MAX_TEXT,
    MAX_TURNS,
    Conversation,
    Picture,
    Turn,
)


def picture(seed: int = 0, size: tuple[int, int] = (7, 5)) -> Picture:
    pixels = bytes((seed * 89 + index * 31) % 256 for index in range(size[0] * size[1] * 3))
    return Picture.from_pil(Image.frombytes("RGB", size, pixels))


def spoken() -> Conversation:
    return (
        Conversation(system="Be kind.")
        .say("user", "Look at these. 看", (picture(0), picture(1)))
        .say("assistant", "<gen_image> a & b </gen_image>")
        .say("user", "Again.", (picture(0),))
    )


def edited(**changes: Any) -> str:
    return json.dumps({**json.loads(spoken().to_json()), **changes})


def with_png(png: bytes) -> str:
    """A document whose only picture claims the first picture's hash and holds these bytes."""
    entry = {"width": 7, "height": 5, "png": base64.b64encode(png).decode()}
    turns = [{"role": "user", "text": "", "images": [picture().sha256]}]
    return edited(turns=turns, images={picture().sha256: entry})


def header_only_png(width: int, height: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    )


# --- pictures


@pytest.mark.parametrize("mode", ["1", "L", "P", "LA", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "HSV"])
def test_every_8_bit_mode_becomes_rgb(mode: str) -> None:
    image = Image.new("RGB", (3, 2), "white").convert(mode)
    taken = Picture.from_pil(image)
    assert (taken.width, taken.height) == (3, 2)
    assert taken.to_pil().tobytes() == image.convert("RGB").tobytes()


def test_alpha_is_dropped_not_blended() -> None:
    assert Picture.from_pil(Image.new("RGBA", (1, 1), (10, 20, 30, 0))).to_pil().getpixel((0, 0)) == (
        10,
        20,
        30,
    )


@pytest.mark.parametrize("mode", ["I", "F", "I;16"])
def test_deep_mode_is_refused_rather_than_clipped(mode: str) -> None:
    with pytest.raises(ValueError, match=f"'{mode}'.*8 bits"):
        Picture.from_pil(Image.new(mode, (2, 2)))


def test_empty_image_is_refused() -> None:
    with pytest.raises(ValueError, match="0×5"):
        Picture.from_pil(Image.new("RGB", (0, 5)))


@pytest.mark.parametrize("size", [(4096, 2048), (2049, 2048), (1, 5_000_000), (5_000_000, 1)])
def test_large_picture_is_scaled_down_and_can_be_read_back(size: tuple[int, int]) -> None:
    taken = Picture.from_pil(Image.new("RGB", size, "teal"))
    assert taken.width * taken.height <= MAX_PICTURE_PIXELS
    assert taken.width * taken.height > 0.99 * MAX_PICTURE_PIXELS
    if min(size) > 1:
        assert taken.width / taken.height == pytest.approx(size[0] / size[1], rel=0.01)
    told = Conversation().say("user", "", (taken,))
    assert Conversation.from_json(told.to_json()) == told


def test_largest_picture_is_kept_pixel_for_pixel() -> None:
    image = Image.effect_noise((2048, 2048), 40).convert("RGB")
    assert Picture.from_pil(image).to_pil().tobytes() == image.tobytes()


def test_to_pil_gives_a_copy() -> None:
    taken = picture()
    taken.to_pil().paste("black", (0, 0, 7, 5))
    assert taken == picture() and taken.to_pil().tobytes() == picture().to_pil().tobytes()


def test_equality_is_of_pixels_not_of_bytes() -> None:
    out = io.BytesIO()
    picture().to_pil().save(out, format="PNG", compress_level=9)
    assert out.getvalue() != picture().png
    recompressed = Conversation.from_json(with_png(out.getvalue())).pictures[0]
    assert recompressed == picture() and hash(recompressed) == hash(picture())
    assert picture(0) != picture(1)
    pixels = bytes(7 * 5 * 3)
    wide, tall = (Picture.from_pil(Image.frombytes("RGB", size, pixels)) for size in ((7, 5), (5, 7)))
    assert wide != tall


# --- the value


@pytest.mark.parametrize(
    ("value", "field"), [(picture(), "png"), (Turn("user", ""), "text"), (spoken(), "turns")]
)
def test_values_are_frozen(value: object, field: str) -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(value, field, "x")


def test_say_leaves_the_shorter_conversation_alone() -> None:
    before = spoken()
    after = before.say("assistant", "Yes.")
    assert before == spoken() and len(after.turns) == len(before.turns) + 1
    assert after.system == before.system and after.turns[-1] == Turn("assistant", "Yes.")
    assert after.pictures == (picture(0), picture(1), picture(0))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("system", "x"), "'user' or 'assistant', got 'system'"),
        ((["user"], "x"), "'user' or 'assistant'"),
        (("user", None), "a turn's text is a string, got NoneType"),
        (("user", "x" * (MAX_TEXT + 1)), f"at most {MAX_TEXT} characters, got {MAX_TEXT + 1}"),
        (("user", "half \ud83d"), "half a surrogate pair"),
        (("assistant", "x", (picture(),)), "only user turns hold pictures"),
    ],
)
def test_wrong_turn_is_refused(arguments: tuple[Any, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Turn(*arguments)


@pytest.mark.parametrize("system", [None, 3, "x" * (MAX_TEXT + 1), "\udfff"])
def test_wrong_system_prompt_is_refused(system: Any) -> None:
    with pytest.raises(ValueError, match="the system prompt"):
        Conversation(system=system)


def test_limits_hold_their_last_value_and_no_more() -> None:
    Turn("user", "x" * MAX_TEXT)
    full = Conversation((Turn("user", ""),) * MAX_TURNS)
    with pytest.raises(ValueError, match=f"at most {MAX_TURNS} turns, got {MAX_TURNS + 1}"):
        full.say("user", "")
    seen = Conversation().say("user", "", (picture(),) * MAX_PICTURES)
    with pytest.raises(ValueError, match=f"at most {MAX_PICTURES} pictures, got {MAX_PICTURES + 1}"):
        seen.say("user", "", (picture(),))


# --- JSON


def test_round_trip_and_equal_pictures_are_stored_once() -> None:
    text = spoken().to_json()
    again = Conversation.from_json(text)
    assert again == spoken() and again.to_json() == text
    assert [p.png for p in again.pictures] == [p.png for p in spoken().pictures]
    assert len(json.loads(text)["images"]) == 2 and "看" in text


@settings(max_examples=100)
@given(st.text(), st.lists(st.tuples(st.sampled_from(["user", "assistant"]), st.text()), max_size=6))
def test_any_text_round_trips_through_a_file(system: str, said: list[tuple[Any, str]]) -> None:
    told = Conversation(tuple(Turn(role, text) for role, text in said), system)
    assert Conversation.from_json(told.to_json().encode().decode()) == told
    assert Conversation.from_json("\ufeff" + told.to_json()) == told  # Notepad's mark


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not valid JSON"),
        ("{", "not valid JSON"),
        ("[" * 100_000, "not valid JSON"),
        ("[]", "not a saved conversation"),
        ("{}", "not a saved conversation"),
        (edited(format="chat"), "not a saved conversation"),
        (edited(version=2), "version 2, known is 1"),
        (edited(system=None), "the system prompt is a string"),
        (edited(turns=None), "damaged"),
        (edited(turns=[3]), "damaged"),
        (edited(turns=[{"role": "user"}]), "damaged"),
        (edited(turns=[{"role": "user", "text": 3, "images": []}]), "a string, got int"),
        (edited(turns=[{"role": "tool", "text": "", "images": []}]), "got 'tool'"),
        (edited(turns=[{"role": "user", "text": "\ud83d", "images": []}]), "surrogate"),
        (edited(turns=[{"role": "user", "text": "", "images": ["abc"]}]), "damaged: KeyError 'abc'"),
        (edited(turns=[{"role": "user", "text": "", "images": [[]]}]), "damaged"),
        (
            edited(turns=[{"role": "user", "text": "", "images": []}] * (MAX_TURNS + 1)),
            f"at most {MAX_TURNS}",
        ),
        (edited(images=[]), "damaged"),
        (edited(images={"a": None}), "damaged"),
        (edited(images={"a": {"png": 3}}), "damaged"),
        (edited(images={"a": {"png": "*"}}), "picture a is damaged"),
        (
            edited(images={str(n): {"png": ""} for n in range(MAX_PICTURES + 1)}),
            f"at most {MAX_PICTURES} pictures",
        ),
        (with_png(b""), "is damaged"),
        (with_png(picture().png[:60]), "is damaged"),
        (with_png(picture(1).png), "does not match its hash"),
        (with_png(header_only_png(2049, 2048)), "2049×2048 is larger"),
        (with_png(header_only_png(20_000, 20_000)), "is damaged"),
    ],
    ids=lambda value: value[:40],
)
def test_wrong_document_is_a_value_error(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Conversation.from_json(text)


def test_other_image_formats_are_not_opened() -> None:
    out = io.BytesIO()
    picture().to_pil().save(out, format="BMP")
    with pytest.raises(ValueError, match="is damaged"):
        Conversation.from_json(with_png(out.getvalue()))


@settings(max_examples=300)
@given(st.data())
def test_damaged_png_is_a_value_error_or_the_same_picture(data: st.DataObject) -> None:
    png = bytearray(picture().png)
    for _ in range(data.draw(st.integers(1, 3))):
        png[data.draw(st.integers(0, len(png) - 1))] = data.draw(st.integers(0, 255))
    try:
        assert Conversation.from_json(with_png(bytes(png))).pictures == (picture(),)
    except ValueError as error:
        assert str(error)


@pytest.mark.parametrize("version", [True, 1.0, "1", None, [1]])
def test_a_version_is_a_whole_number(version: object) -> None:
    document = json.loads(Conversation().say("user", "hi").to_json())
    with pytest.raises(ValueError, match="this conversation has version"):
        Conversation.from_json(json.dumps(document | {"version": version}))
