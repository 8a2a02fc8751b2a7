"""Where captions name objects, and whether attention finds them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from llmga.train.box_loss import PhraseTokens
from miniworld.world.captions import detailed_caption, short_caption, vague_caption
from miniworld.world.grounding import box_of, named_boxes
from miniworld.world.render import render
from miniworld.world.scene import sample_scene


@pytest.mark.parametrize("caption_of", [short_caption, detailed_caption, vague_caption])
def test_every_object_is_named_once_by_its_own_words(caption_of: Any) -> None:
    found = total = 0
    for seed in range(120):
        scene = sample_scene(seed)
        caption = caption_of(scene, seed)
        named = named_boxes(scene, caption, seed)
        for each in named:
            words = caption[each.start : each.end].split()
            [thing] = [thing for thing in scene.objects if box_of(thing) == each.box]
            assert words[-1] == thing.shape and {*words[:-1]} <= {thing.size, thing.texture, thing.colour}
            assert caption[each.start - 1] == " " and caption[each.end : each.end + 1] in ("", " ", ",", ".")
        assert len({each.start for each in named}) == len(named)
        found, total = found + len(named), total + len(scene.objects)
    assert found > 0.97 * total  # but for those whose texts are the same to the letter


def test_a_box_holds_its_object_and_little_else() -> None:
    for seed in range(40):
        scene = sample_scene(seed)
        for thing, mask in zip(scene.objects, render(scene, 256).amodal, strict=True):
            left, top, right, bottom = (edge * 256 for edge in box_of(thing))
            rows, columns = np.nonzero(mask)
            inside = (columns >= left - 2) & (columns < right + 2) & (rows >= top - 2) & (rows < bottom + 2)
            assert inside.all()
            assert mask.sum() > 0.2 * (right - left) * (bottom - top)


def test_mass_and_pointing_by_hand() -> None:
    pytest.importorskip("diffusers", reason="the check watches diffusers' attention")
    from miniworld.checks.attention import _find, nouns

    layer = torch.zeros(1, 16, 5)
    layer[0, :, 3] = torch.tensor([0.4, 0.2, 0, 0, 0.1, 0.1, 0, 0, *[0.025] * 8])
    layer[0, :, 2] = torch.eye(16)[15]
    phrases = PhraseTokens(
        torch.tensor([0, 0]), torch.tensor([[1, 3], [2, -1]]), torch.tensor([[0.0, 0.0, 0.5, 0.5]] * 2)
    )
    rows = _find(layer, nouns(phrases))
    torch.testing.assert_close(rows, torch.tensor([[0.8, 1.0, 0.25], [0.0, 0.0, 0.25]]))


def test_a_random_unet_points_by_chance() -> None:
    pytest.importorskip("diffusers", reason="the miniature's networks are diffusers'")
    from miniworld.checks.attention import check_attention
    from miniworld.models.random_diffusion import random_pipeline
    from miniworld.models.sampling import PaintConfig

    torch.set_num_threads(1)
    pipeline = random_pipeline(seed=0, picture=256)
    before = pipeline.unet.attn_processors
    scenes = [sample_scene(seed, (1, 2)) for seed in range(4)]
    found = check_attention(pipeline, scenes, PaintConfig(batch=4))
    assert list(found) == ["8x8", "16x16"]
    for row in found.values():
        assert row["mass"].value == pytest.approx(row["area"].value, abs=0.05)
        assert row["mass"].count == 3 * 2 * sum(len(scene.objects) for scene in scenes)
    assert pipeline.unet.attn_processors == before
