"""The vision tower of a LLaVA as GILL's: in every layout of names in which transformers has saved one."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image

pytest.importorskip("transformers", reason="vision towers need transformers")

from safetensors.torch import load_file, save_file

from llmga.gill import load_vision
from miniworld.models.random_language import write_tiny_llava, write_tiny_text

PLAIN = "vision_tower."


@pytest.fixture(scope="module")
def llava(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_llava(tmp_path_factory.mktemp("llava") / "tiny", seed=0)


@pytest.mark.parametrize(
    "before", ["vision_tower.vision_model.", "model.vision_tower.", "model.vision_tower.vision_model.", ""]
)
def test_the_names_before_a_tower_do_not_count(llava: Path, tmp_path: Path, before: str) -> None:
    found = load_file(llava / "model.safetensors")
    assert f"{PLAIN}embeddings.patch_embedding.weight" in found  # as transformers 5 saves a LLaVA
    renamed = {
        before + name.removeprefix(PLAIN): value for name, value in found.items() if name.startswith(PLAIN)
    }
    others = (
        {} if not before else {name: value for name, value in found.items() if not name.startswith(PLAIN)}
    )
    (tmp_path / "config.json").write_text((llava / "config.json").read_text())
    save_file({**renamed, **others}, tmp_path / "model.safetensors")
    picture = torch.rand(1, 3, 28, 28, generator=torch.Generator().manual_seed(0))
    own, other = (load_vision(folder, torch.float32).pooled(picture) for folder in (llava, tmp_path))
    assert own.std() > 0 and torch.equal(own, other)


def test_a_language_model_without_one_says_so(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="'text' is not a CLIP vision model of transformers"):
        load_vision(write_tiny_text(tmp_path / "text", seed=0))


@pytest.mark.parametrize("upright", [False, True])
def test_of_a_very_long_picture_the_middle_alone_is_scaled(
    llava: Path, monkeypatch: pytest.MonkeyPatch, upright: bool
) -> None:
    """Scaled whole, a picture of 1 × 8,000 pixels took two gigabytes at a tower's 224 pixels."""
    vision, scaled = load_vision(llava), []
    resize = Image.Image.resize
    monkeypatch.setattr(
        Image.Image, "resize", lambda self, size, *rest: scaled.append(size) or resize(self, size, *rest)
    )
    middle = Image.linear_gradient("L").resize((4, 4)).convert("RGB")
    long = Image.new("RGB", (4, 8004) if upright else (8004, 4))
    long.paste(middle, (0, 4000) if upright else (4000, 0))
    near = long.crop((0, 3990, 4, 4014) if upright else (3990, 0, 4014, 4))
    scaled.clear()
    torch.testing.assert_close(vision.pixels(long), vision.pixels(near))
    assert all(max(size) <= 16 * vision.size for size in scaled) and len(scaled) == 2
