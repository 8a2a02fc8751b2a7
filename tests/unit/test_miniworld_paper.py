"""The paper's evaluation sets in miniature: drawn at a miniature's own size, which its reader's networks take."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

pytest.importorskip("diffusers", reason="the miniature's painter needs diffusers")

from llmga.evaluate.data import DataConfig
from miniworld.checks.paper import captions, edits, inpainting, outpainting, perceptual, reader
from miniworld.files import CHECKPOINT, READER
from miniworld.models.random_diffusion import write_checkpoint
from miniworld.models.reader import Reader

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(params=[128, 256])
def side(request: pytest.FixtureRequest) -> int:
    """Pixels of a side of what the miniature paints."""
    return request.param


def test_the_sets_follow_the_miniature_and_its_reader_reads_them(tmp_path: Path, side: int) -> None:
    write_checkpoint(tmp_path / CHECKPOINT, picture=side)
    drawn = []
    for draw, names in (
        (captions, ("picture",)),
        (inpainting, ("picture", "mask")),
        (outpainting, ("picture", "mask")),
        (edits, ("source", "target")),
    ):
        for folder, size in ((str(tmp_path), side), ("", 128)):
            (item,) = draw(DataConfig("", folder, count=1), tmp_path / "work")
            for name in names:
                with Image.open(getattr(item, name)) as picture:
                    assert picture.size == (size, size)
                    drawn += [picture.convert("RGB")] if folder and name != "mask" else []
    weights = {name: value.contiguous() for name, value in Reader().state_dict().items()}
    save_file(weights, tmp_path / READER)
    found = reader(tmp_path / READER, torch.device("cpu")).images(drawn)
    assert found["features"].shape == (len(drawn), 96) and found["logits"].shape[1] == 8
    distance = perceptual(tmp_path / READER, torch.device("cpu")).pairs
    assert (distance(drawn[:2], drawn[2:4]) > 0).all() and not distance(drawn, drawn).any()
