"""Direct Inversion with prompt-to-prompt against what the official code made; see ``fixtures/edit_official.py``."""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from support.tiny_clip import clip_l
from support.tiny_unet import SD15_INNER, SD15_OUTER, noise, tiny_unet

from llmga.diffusion import DiffusersContext, DiffusersDenoiser
from llmga.edit import Blend, Control, Trajectory, edit, invert
from llmga.text import clip_tokenizer

pytestmark = pytest.mark.usefixtures("one_thread")

FIXTURE = Path(__file__).parent / "fixtures" / "edit_official"
RECORDED = json.loads(FIXTURE.with_suffix(".json").read_text(encoding="utf-8"))
TOKENS = 77


@pytest.fixture(scope="module")
def official() -> dict[str, torch.Tensor]:
    return load_file(FIXTURE.with_suffix(".safetensors"))


@lru_cache
def context(text: str) -> DiffusersContext:
    tokenizer: Any = clip_tokenizer()
    ids = tokenizer([text], padding="max_length", max_length=TOKENS, return_tensors="pt").input_ids
    with torch.no_grad():
        return DiffusersContext(clip_l()(ids)[0])


@lru_cache
def denoiser(name: str) -> DiffusersDenoiser:
    return DiffusersDenoiser(tiny_unet(SD15_OUTER if name == "outer" else SD15_INNER))


@lru_cache
def trajectory(name: str, source: str, steps: int) -> Trajectory:
    return invert(denoiser(name), noise("latent", 1, 4, 64, 64), context(source), steps)


def control(case: dict[str, Any]) -> Control:
    matrix, own, equalizer = torch.zeros(TOKENS, TOKENS), torch.zeros(TOKENS), torch.ones(TOKENS)
    for i, j, share in case["pairs"]:
        matrix[i, j] = share
    own[case.get("own", [])] = 1
    cross = torch.tensor([[0.0, case["cross"]["default"]]], dtype=torch.float64).repeat(TOKENS, 1)
    for at, span in case["cross"].items():
        if at != "default":
            cross[int(at)] = torch.tensor(span if isinstance(span, list) else [0.0, span])
    for at, weight in case["equalizer"].items():
        equalizer[int(at)] = weight
    words = [tuple(each) for each in (*case["blend"], *case["subtract"])]
    return Control(
        matrix,
        own,
        equalizer,
        cross_replace=cross,
        self_replace=case["self"],
        blend=Blend(*words) if any(case["blend"]) else None,
        cfg=RECORDED["cfg"],
    )


def test_the_inversion_is_the_official_one(official: dict[str, torch.Tensor]) -> None:
    case = RECORDED["cases"]["refine"]
    latents = trajectory("refine", case["prompts"][0], case["steps"]).latents
    assert (latents[case["steps"] // 2] - official["refine.middle"]).abs().max() <= 1e-5
    assert (latents[-1] - official["refine.noise"]).abs().max() <= 1e-5


@pytest.mark.parametrize("name", RECORDED["cases"])
def test_the_edit_is_the_official_one(name: str, official: dict[str, torch.Tensor]) -> None:
    case = RECORDED["cases"][name]
    source, target = case["prompts"]
    way = trajectory(name if name == "outer" else "", source, case["steps"])
    edited = edit(denoiser(name), way, context(source), context(target), context(""), control(case))
    difference = (edited.latent - official[f"{name}.edited"]).abs().max()
    assert difference <= 1e-3
    if f"{name}.mask" in official:
        assert torch.equal(edited.mask > 0, official[f"{name}.mask"])
