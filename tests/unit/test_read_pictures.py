"""One way to read a picture file: upright, all levels of 16 bits, a broken one named; on real photographs."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from support.real_files import photograph

from llmga.data.asking import _load_picture
from llmga.data.samples import Sample
from llmga.images import from_pil, picture_size, read_picture, to_rgb
from llmga.train.captioned_images import CaptionedPictures
from llmga.train.degraded_images import PictureList

ORIENTATION = 0x0112
LIES_AS = {  # what a camera stores, for each orientation that it notes, of the picture as it was seen
    1: lambda seen: seen,
    2: lambda seen: seen.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
    3: lambda seen: seen.transpose(Image.Transpose.ROTATE_180),
    4: lambda seen: seen.transpose(Image.Transpose.FLIP_TOP_BOTTOM),
    5: lambda seen: seen.transpose(Image.Transpose.TRANSPOSE),
    6: lambda seen: seen.transpose(Image.Transpose.ROTATE_90),
    7: lambda seen: seen.transpose(Image.Transpose.TRANSVERSE),
    8: lambda seen: seen.transpose(Image.Transpose.ROTATE_270),
}

Reader = Callable[[Path], np.ndarray]


def _captioned(path: Path) -> np.ndarray:
    return _as_levels(_list_of(path).image(0) / 2 + 0.5)


def _listed(path: Path) -> np.ndarray:
    lines = path.with_suffix(".lst")
    lines.write_text(f"{path.name} (1,1,3)\n", encoding="utf-8-sig")  # Notepad writes the mark in front
    return _as_levels(PictureList(lines, path.parent).image(0))


def _sampled(path: Path) -> np.ndarray:
    picture = Sample((), path).picture()
    assert picture is not None
    return np.asarray(picture)


def _as_levels(image: torch.Tensor) -> np.ndarray:
    return (image * 255).round().byte().permute(1, 2, 0).numpy()


def _list_of(path: Path, side: int = 64) -> CaptionedPictures:
    rows = path.with_suffix(".json")
    rows.write_text(json.dumps([{"image": path.name, "caption": "x"}]), encoding="utf-8-sig")
    return CaptionedPictures(rows, path.parent, side)


READERS: dict[str, Reader] = {
    "read_picture": lambda path: np.asarray(read_picture(path)),
    "stage 1": _sampled,
    "stage 2": _captioned,
    "DiffRIR": _listed,
    "llmga data": lambda path: np.asarray(_load_picture(path).to_pil()),
}
every_reader = pytest.mark.parametrize("reader", READERS.values(), ids=READERS)


@pytest.fixture(scope="module")
def cat() -> Image.Image:
    """A photograph, 64 pixels square, so that no reader scales it."""
    with Image.open(photograph("chelsea.png")) as file:
        return file.convert("RGB").crop((100, 20, 356, 276)).resize((64, 64), Image.Resampling.BICUBIC)


@pytest.mark.parametrize("kind", ["png", "tiff", "webp"])
@pytest.mark.parametrize("orientation", sorted(LIES_AS))
@every_reader
def test_a_rotated_photograph_is_upright(
    reader: Reader, orientation: int, kind: str, cat: Image.Image, tmp_path: Path
) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    path = tmp_path / f"photo.{kind}"
    lossless = {"lossless": True} if kind == "webp" else {}
    LIES_AS[orientation](cat).save(path, exif=exif, **lossless)
    assert np.array_equal(reader(path), np.asarray(cat))


@pytest.mark.parametrize("kind", ["jpg", "tiff", "webp", "png"])
@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_the_size_is_the_rotated_ones_and_so_is_sdxls_conditioning(
    orientation: int, kind: str, tmp_path: Path
) -> None:
    with Image.open(photograph("rocket.jpg")) as file:
        seen = file.convert("RGB")  # 640 × 427, lies on its side for 6 and 8
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    path = tmp_path / f"phone.{kind}"
    LIES_AS[orientation](seen).save(path, exif=exif)
    assert picture_size(path) == read_picture(path).size == seen.size
    pictures = _list_of(path)
    height, width, top, left, *target = pictures.size(0)
    assert (width, height, target) == (*seen.size, [64, 64])
    assert top == 0 and left == (int(seen.width * 64 / seen.height) - 64) // 2


def deep(levels: np.ndarray, path: Path) -> Path:
    Image.fromarray(levels).save(path)
    return path


@every_reader
def test_sixteen_bits_and_floats_give_the_photograph_of_eight(
    reader: Reader, cat: Image.Image, tmp_path: Path
) -> None:
    grey = np.asarray(cat.convert("L"))
    wanted = np.repeat(grey[..., None], 3, 2)
    sixteen = grey.astype(np.uint16) * 257
    for name, levels in (
        ("g16.png", sixteen),
        ("g16.tif", sixteen),
        ("big.tif", sixteen.astype(">u2")),
        ("i32.tif", sixteen.astype(np.int32)),
        ("float.tif", (grey / 255).astype(np.float32)),
    ):
        found = reader(deep(levels, tmp_path / name))
        assert np.array_equal(found, wanted), name
    twelve = Image.fromarray((grey.astype(np.uint16) << 4) | (grey >> 4))
    assert np.array_equal(np.asarray(to_rgb(twelve, white=4095)), wanted)
    pgm = b"P5 64 64 65535\n" + sixteen.astype(">u2").tobytes()
    (tmp_path / "deep.pgm").write_bytes(pgm)
    assert np.array_equal(reader(tmp_path / "deep.pgm"), wanted)


def test_a_deep_picture_that_is_turned(cat: Image.Image, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    grey = np.asarray(cat.convert("L")).astype(np.uint16) * 257
    Image.fromarray(np.rot90(grey)).save(tmp_path / "turned.png", exif=exif)
    assert np.array_equal(np.asarray(read_picture(tmp_path / "turned.png"))[..., 0], grey // 257)


@pytest.mark.parametrize(
    "levels",
    [
        np.full((4, 4), 255.0, np.float32),
        np.full((4, 4), np.nan, np.float32),
        np.full((4, 4), 70_000, np.int32),
    ],
    ids=["floats of 0 .. 255", "not a number", "beyond 16 bits"],
)
@every_reader
def test_levels_of_no_known_white_are_refused_with_the_files_name(
    reader: Reader, levels: np.ndarray, tmp_path: Path
) -> None:
    with pytest.raises(
        ValueError, match=r"odd\.tif cannot be read as a picture: its levels lie in .*must hold"
    ):
        reader(deep(levels, tmp_path / "odd.tif"))


@every_reader
def test_other_modes(reader: Reader, cat: Image.Image, tmp_path: Path) -> None:
    for mode, name in (("L", "l.png"), ("1", "one.png"), ("P", "p.png"), ("LA", "la.png"), ("CMYK", "c.tif")):
        path = tmp_path / name
        made = cat.convert(mode)
        made.save(path)
        assert np.array_equal(reader(path), np.asarray(made.convert("RGB"))), mode


def test_transparency_becomes_white_in_stage_2_only(cat: Image.Image, tmp_path: Path) -> None:
    layers = cat.convert("RGBA")
    layers.putalpha(0)
    layers.save(tmp_path / "clear.png")
    assert (_captioned(tmp_path / "clear.png") == 255).all()
    assert np.array_equal(_sampled(tmp_path / "clear.png"), np.asarray(cat))


def broken(photo: bytes) -> dict[str, bytes]:
    return {
        "half.jpg": photo[: len(photo) // 2],
        "empty.jpg": b"",
        "page.jpg": b"<!doctype html><title>Not found</title>",
        "zeros.jpg": photo[:300] + bytes(500),
        "half.png": b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR\x00\x00",
    }


@pytest.mark.parametrize("name", sorted(broken(b"")))
@every_reader
def test_a_broken_file_is_named(reader: Reader, name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(broken(photograph("rocket.jpg").read_bytes())[name])
    with pytest.raises(ValueError, match=f"{name} cannot be read as a picture"):
        reader(tmp_path / name)


@every_reader
def test_a_missing_file_is_named(reader: Reader, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nowhere\.png"):
        reader(tmp_path / "nowhere.png")


def test_a_damaged_exif_is_no_damaged_picture(cat: Image.Image, tmp_path: Path) -> None:
    for note in (b"Exif\0\0", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0garbage of some length"):
        cat.save(tmp_path / "note.jpg", exif=note, quality=95)
        assert read_picture(tmp_path / "note.jpg").size == picture_size(tmp_path / "note.jpg") == cat.size


def test_tensors_of_deep_pictures() -> None:
    ramp = np.linspace(0, 65535, 64).round().astype(np.uint16)[None]
    values = from_pil([Image.fromarray(ramp)])[0, 0, :, 0]
    assert torch.allclose(values, torch.linspace(0, 1, 64), atol=1 / 255)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"{}", "must hold an array of objects, got dict"),
        (b"[3]", "record 0: 'image' and 'caption' are needed, it has int"),
        (b'[{"image": "a.png", "caption": null}]', "record 0: 'caption' must be a text, got NoneType"),
        (b'[{"image": ["a.png"], "caption": "x"}]', "record 0: 'image' must be a text, got list"),
        (b'[{"image": "", "caption": "x"}]', "record 0: 'image' is empty"),
        (b'[{"image": "a.png", "caption": "x", "ori_caption": 7}]', "record 0: 'ori_caption' must be a text"),
        (b'[{"image": "a.png"}, ', "is not valid JSON in UTF-8"),
        (b'[{"image": "a.png", "caption": "caf\xe9"}]', "is not valid JSON in UTF-8"),
    ],
)
def test_a_list_that_cannot_be_used_is_named_with_its_row(text: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "list.json"
    path.write_bytes(text)
    with pytest.raises(ValueError, match=message) as raised:
        CaptionedPictures(path, tmp_path, 64)
    assert "list.json" in str(raised.value)


def test_a_list_says_which_of_its_pictures_are_missing(cat: Image.Image, tmp_path: Path) -> None:
    cat.save(tmp_path / "cat.png")
    pictures = _list_of(tmp_path / "cat.png")
    pictures.check()
    (tmp_path / "cat.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"1 of 1 pictures of .*cat\.json do not exist: .*cat\.png;"):
        pictures.check()


def test_a_list_keeps_brackets_in_names_and_says_which_pictures_are_missing(tmp_path: Path) -> None:
    for name in ("IMG (1).jpg", "plain.png", "sized (2).png", "spaced.png", "grey.png"):
        Image.new("RGB", (5, 4)).save(tmp_path / name)
    lines = ["IMG (1).jpg", "plain.png", "sized (2).png (4,5,3)", "spaced.png (4, 5, 3) ", "grey.png (4,5)"]
    (tmp_path / "list.txt").write_text("\n".join(lines), encoding="utf-8")
    pictures = PictureList(tmp_path / "list.txt", tmp_path)
    pictures.check()
    assert all(pictures.image(i).shape == (3, 4, 5) for i in range(5))
    (tmp_path / "plain.png").unlink()
    with pytest.raises(
        FileNotFoundError, match=r"1 of 5 pictures of .*list\.txt do not exist: .*plain\.png;"
    ):
        pictures.check()


def test_an_exported_null_is_no_short_caption(tmp_path: Path) -> None:
    rows = [{"image": "a.png", "caption": "long", "ori_caption": None}]
    (tmp_path / "list.json").write_text(json.dumps(rows), encoding="utf-8")
    pictures = CaptionedPictures(tmp_path / "list.json", tmp_path, 64, short_captions=1.0)
    assert pictures.caption(0, random.Random(0)) == "long"
