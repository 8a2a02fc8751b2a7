"""The parts of a scene against what RFNet's released code made; see ``fixtures/scene_official.py``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from support import scene_cases as cases
from support.tiny_clip import clip_l
from support.tiny_unet import noise, tiny_unet

from llmga.diffusion import DiffusersContext, DiffusersDenoiser, Site
from llmga.scene.assess import assess, clip_states
from llmga.scene.attention import WordAttention, guidance_sites, saliency_site
from llmga.scene.guidance import GuidanceSettings
from llmga.scene.losses import LossWeights, Placed, alone_loss, scene_loss
from llmga.scene.placement import centred_box, compose, move_to, object_noise, seeded_noise
from llmga.scene.plan import SceneBox, SceneObject, ScenePlan
from llmga.scene.synthesis import AloneRun, paint_alone, paint_together
from llmga.text import CLIPPromptEncoder, clip_tokenizer

pytestmark = pytest.mark.usefixtures("one_thread")

FIXTURE = Path(__file__).parent / "fixtures" / "scene_official"
RECORDED = json.loads(FIXTURE.with_suffix(".json").read_text(encoding="utf-8"))
KEYS = {
    ("mid", 0, 0, 0): Site("middle", 0, 0, "cross"),
    ("up", 1, 0, 0): Site("output", 3, 0, "cross"),
    ("up", 1, 1, 0): Site("output", 4, 0, "cross"),
    ("up", 1, 2, 0): Site("output", 5, 0, "cross"),
}
PASSES = GuidanceSettings(passes=cases.PASSES, of_steps=cases.STEPS)


def box(corners: tuple[float, float, float, float]) -> SceneBox:
    left, top, right, bottom = corners
    return SceneBox(left, top, right - left, bottom - top)


@pytest.fixture(scope="module")
def official() -> dict[str, torch.Tensor]:
    return load_file(FIXTURE.with_suffix(".safetensors"))


@pytest.fixture(scope="module")
def denoiser() -> DiffusersDenoiser:
    return DiffusersDenoiser(tiny_unet(cases.UNET, cases.SHARPNESS))


@pytest.fixture(scope="module")
def alone(denoiser: DiffusersDenoiser) -> AloneRun:
    return paint_alone(
        denoiser,
        noise("latent", 1, 4, cases.LATENT, cases.LATENT),
        DiffusersContext(cases.context("object")),
        DiffusersContext(cases.context("negative")),
        box(cases.ALONE_BOX),
        cases.ALONE_TOKENS,
        steps=cases.STEPS,
        cfg=cases.CFG,
        guidance=PASSES,
        kept_steps=cases.STEPS,
    )


def test_the_sites_are_those_of_the_reference(denoiser: DiffusersDenoiser) -> None:
    assert guidance_sites(denoiser.sites) == list(KEYS.values())
    assert saliency_site(denoiser.sites) == Site("input", 8, 0, "cross")


def maps(seed: str, key: Any, heads: int, tokens: int) -> WordAttention:
    side = 8 if key[0] == "mid" else 16
    return WordAttention(cases.attention_maps(f"{seed} {key}", side * side, tokens, heads), (side, side))


def test_the_three_losses(official: dict[str, torch.Tensor]) -> None:
    every = {site: maps("scene", key, 8, 77) for key, site in KEYS.items()}
    of_phrase = {
        site: WordAttention(one.maps[..., cases.ALONE_TOKENS], one.size) for site, one in every.items()
    }
    found = [alone_loss(of_phrase, box(cases.ALONE_BOX), LossWeights())]
    placed = [
        Placed(box(corners), tokens, tokens[-1])
        for corners, tokens in zip(cases.SCENE_BOXES, cases.SCENE_TOKENS, strict=True)
    ]
    references = [{site: maps(str(n), key, 8, 1) for key, site in KEYS.items()} for n in range(2)]
    for guidance in (0.0, 30.0):
        found.append(scene_loss(every, placed, references, LossWeights(guidance=guidance)))
    torch.testing.assert_close(torch.stack(found), official["losses"], rtol=1e-5, atol=1e-5)


def test_five_guided_steps_of_an_object_alone(official: dict[str, torch.Tensor], alone: AloneRun) -> None:
    assert (official["alone"] - noise("latent", 1, 4, cases.LATENT, cases.LATENT)).abs().max() > 0.1
    torch.testing.assert_close(alone.latents[-1], official["alone"], rtol=0, atol=1e-4)
    torch.testing.assert_close(alone.word_map.flatten(), official["saliency"], rtol=0, atol=1e-5)
    assert alone.word_map.shape == (6, 6)
    assert alone.guidance.backward_passes == sum(PASSES.passes)


def test_five_guided_steps_of_the_scene(
    official: dict[str, torch.Tensor], denoiser: DiffusersDenoiser, alone: AloneRun
) -> None:
    size = cases.LATENT
    composed = torch.stack([noise(f"composed {i}", 1, 4, size, size) for i in range(cases.STEPS + 1)])
    frozen = (cases.masks(0, size)[0] | cases.masks(0, size)[1]).float()[None, None]
    scene = paint_together(
        denoiser,
        composed,
        frozen,
        DiffusersContext(cases.context("scene")),
        DiffusersContext(cases.context("negative")),
        [box(corners) for corners in cases.SCENE_BOXES],
        [tuple(tokens) for tokens in cases.SCENE_TOKENS],
        [alone.word_maps] * 2,
        steps=cases.STEPS,
        replaced_steps=3,
        cfg=cases.CFG,
        guidance=PASSES,
    )
    torch.testing.assert_close(scene.latent, official["together"], rtol=0, atol=1e-4)
    assert scene.guidance.backward_passes == sum(PASSES.passes)


def test_the_same_descriptions_are_chosen_in_fifty_of_fifty_cases() -> None:
    encoder = CLIPPromptEncoder((clip_tokenizer(),), (clip_l(),))
    encode = clip_states(encoder, lambda context: context.states)
    place, equal, pairs = SceneBox(0, 0, 1, 1), 0, set()
    for case, expected in enumerate(RECORDED["chosen"]):
        texts = cases.described(case)
        plan = ScenePlan(tuple(SceneObject(f"thing {i}", place, tuple(t)) for i, t in enumerate(texts)))
        found = assess(plan, encode, "rfnet")
        equal += [one.descriptions[0] for one in found.plan.objects] == expected
        pairs |= set(found.chosen)
    assert equal == len(RECORDED["chosen"]) == 50
    assert pairs == {(0, 1), (1, 2), (0, 2)}, "one choice alone would prove little"


def test_the_first_noise(official: dict[str, torch.Tensor]) -> None:
    background = seeded_noise(1, (16, 16))
    boxes = [centred_box(box(corners)) for corners in cases.PLACES[0]]
    started = [object_noise(background, one, 20 + i) for i, one in enumerate(boxes)]
    torch.testing.assert_close(torch.cat([background, *started]), official["noise"], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("case", range(len(cases.PLACES)))
def test_placement(case: int, official: dict[str, torch.Tensor]) -> None:
    size = 16
    runs = [
        torch.stack([noise(f"run {number} {i}", 1, 4, size, size) for i in range(3)]) for number in range(3)
    ]
    masks = cases.masks(case, size)
    moves = [
        move_to(mask, box(corners), (8, 8)) for mask, corners in zip(masks, cases.PLACES[case], strict=True)
    ]
    for move, (x, y) in zip(moves, RECORDED["offsets"][case], strict=True):
        assert (move.columns, move.rows) == (round(x * 8), round(y * 8))
    found = compose(
        [move.latent(run) for move, run in zip(moves, runs, strict=True)],
        [move.latent(mask) for move, mask in zip(moves, masks, strict=True)],
        noise("background", 1, 4, size, size),
    )
    assert torch.equal(found.owner.to(torch.uint8), official[f"foreground.{case}"])
    assert torch.equal(found.latents, official[f"composed.{case}"])
    assert len(set(found.owner.flatten().tolist())) >= 3
