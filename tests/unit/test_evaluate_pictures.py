"""Evaluation reads picture files as the rest of the library does, and says at the start which ones cannot be read."""

from __future__ import annotations

import ast
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.real_files import photograph
from support.tiny_evaluation import base_folder, settings, write_coco, write_masked

from llmga.evaluate.command import main
from llmga.evaluate.embedders import request_pictures
from llmga.evaluate.sources import FillItem, read_coco, read_masked
from llmga.evaluate.stages import _opened
from llmga.evaluate.tasks import fill
from llmga.evaluate.tasks.edit import pixel_distances
from llmga.train.config import write_config
from tools import ROOT

READ_FROM_MEMORY = {
    "llmga/images.py": "the reader itself",
    "llmga/chat/conversation.py": "PNG bytes of a conversation",
    "llmga/data/degradations.py": "a JPEG that was made in memory",
    "llmga/evaluate/comfyui_servers.py": "what a server's Save Image node made",
}
"""Modules that open pictures without ``read_picture``, and what those are."""

_ORIENTATION = 0x0112


def _shown(path: Path) -> np.ndarray:
    return np.asarray(request_pictures((path,))[0].to_pil())


def _filled(path: Path) -> np.ndarray:
    picture, mask = fill._opened(FillItem("one", path, path))
    assert np.array_equal(np.asarray(mask), np.asarray(picture.convert("L")))
    return np.asarray(picture)


READERS: dict[str, Callable[[Path], np.ndarray]] = {
    "networks": lambda path: np.asarray(_opened(path, None)),
    "embedders": _shown,
    "fill": _filled,
}
every_evaluation_reader = pytest.mark.parametrize("reader", READERS.values(), ids=READERS)


@pytest.fixture(scope="module")
def rocket() -> Image.Image:
    with Image.open(photograph("rocket.jpg")) as file:
        return file.convert("RGB").resize((96, 64))


@every_evaluation_reader
def test_an_evaluated_picture_is_upright_and_keeps_its_16_bits(
    reader: Callable[[Path], np.ndarray], rocket: Image.Image, tmp_path: Path
) -> None:
    exif = Image.Exif()
    exif[_ORIENTATION] = 6
    rocket.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "phone.png", exif=exif)
    assert np.array_equal(reader(tmp_path / "phone.png"), np.asarray(rocket))
    grey = np.asarray(rocket.convert("L"))
    Image.fromarray(grey.astype(np.uint16) * 257).save(tmp_path / "deep.png")
    assert np.array_equal(reader(tmp_path / "deep.png")[..., 0], grey)


def test_a_rotated_target_of_an_edit_is_compared_upright(rocket: Image.Image, tmp_path: Path) -> None:
    rocket.save(tmp_path / "seen.png")
    exif = Image.Exif()
    exif[_ORIENTATION] = 6
    rocket.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "phone.png", exif=exif)
    assert pixel_distances(tmp_path / "seen.png", tmp_path / "phone.png") == (0.0, 0.0)


def test_files_of_a_set_that_are_no_pictures_are_counted_at_the_start(tmp_path: Path) -> None:
    write_coco(tmp_path / "coco")
    for number in (1, 3):
        (tmp_path / "coco" / "val" / f"COCO_val2014_{number:012d}.jpg").write_bytes(b"<!doctype html>")
    with pytest.raises(ValueError, match=r"000000000001\.jpg cannot be read as a picture.*2 of 5 pictures"):
        read_coco(tmp_path / "coco", "captions.json", "val")
    write_masked(tmp_path / "masked", 2)
    (tmp_path / "masked" / "Places_0001_mask000.png").write_bytes(b"")
    with pytest.raises(ValueError, match=r"Places_0001_mask000\.png cannot be read.*1 of 4 pictures"):
        read_masked(tmp_path / "masked")


@pytest.mark.usefixtures("one_thread")
def test_a_picture_cut_off_behind_its_header_ends_an_evaluation_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("diffusers", reason="the painters are diffusers'")
    base = base_folder(tmp_path / "base")
    cut = base / "coco" / "val" / "COCO_val2014_000000000002.jpg"
    cut.write_bytes(cut.read_bytes()[:700])
    write_config(settings("t2i", base), tmp_path / "t2i.yaml")
    assert main(["t2i", f"--config={tmp_path / 't2i.yaml'}", f"--output={tmp_path / 'out'}"]) == 2
    said = capsys.readouterr().err
    assert f"llmga evaluate: {cut} cannot be read as a picture" in said and "Traceback" not in said


def test_no_module_of_the_library_opens_a_picture_file_by_itself() -> None:
    opening = set()
    for path in sorted((ROOT / "llmga").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("Image.open", "PIL.Image.open"):
                opening.add(path.relative_to(ROOT).as_posix())
    assert opening == READ_FROM_MEMORY.keys(), "read picture files by llmga.images.read_picture"


def test_a_mask_of_ones_and_zeros_is_not_taken_for_an_empty_one(tmp_path: Path) -> None:
    """Counted to 255 it is black: nothing would be filled, and the figures would be those of the true pictures."""
    picture, mask = tmp_path / "a.png", tmp_path / "a_mask000.png"
    Image.new("RGB", (16, 16), "red").save(picture)
    Image.fromarray(np.eye(16, dtype=np.uint8)).save(mask)
    with pytest.raises(ValueError, match="a_mask000.png holds no hole: .* its brightest pixel is 1$"):
        fill._opened(FillItem("a", picture, mask))
