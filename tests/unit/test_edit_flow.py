"""FlowEdit and RF-Inversion: what the published code made, see ``fixtures/flow_official.py``, and what must always hold."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from support import tiny_flow as tiny
from support.tiny_unet import noise

from llmga.edit.flow import Velocity, flow_edit, rf_inversion_edit

from .fixtures.flow_official import BACK, CASES, SEED, SHAPE

pytestmark = pytest.mark.usefixtures("one_thread")

OFFICIAL = load_file(Path(__file__).parent / "fixtures" / "flow_official.safetensors")
TOLERANCE = 1e-4
LATENT = noise("latent", 2, 4, 6, 5)
SIGMAS = [1.0, 0.9, 0.75, 0.5, 0.2, 0.0]
WANTED = {"source": noise("wanted source", 1, 4, 6, 5), "target": noise("wanted target", 1, 4, 6, 5)}
Edit = Callable[..., torch.Tensor]


@lru_cache
def net(family: str) -> Any:
    return tiny.transformer(family)


def guided(family: str, name: str, scale: float) -> Velocity:
    """Classifier-free guidance for SD3, the embedded one for Flux, whose latent is packed."""
    one = tiny.prompt(family, name, guidance=scale)
    at = partial(tiny.velocity, family, net(family))
    if family == "sd3":
        negative = tiny.prompt(family, "negative")

        def sd3(x: torch.Tensor, sigma: float) -> torch.Tensor:
            unguided = at(x, sigma, negative)
            return unguided + scale * (at(x, sigma, one) - unguided)

        return sd3
    size = (SHAPE[2] // 2, SHAPE[3] // 2)
    return lambda x, sigma: tiny.pack(at(tiny.unpack(x, size), sigma, one))


@pytest.mark.parametrize("name", CASES)
def test_flow_edit_is_the_published_one(name: str) -> None:
    case = CASES[name]
    family = case["family"]
    x = noise("latent", *SHAPE)
    edited = flow_edit(
        x if family == "sd3" else tiny.pack(x),
        OFFICIAL[f"{name}.sigmas"].tolist(),
        guided(family, "source", case["source"]),
        guided(family, "target", case["target"]),
        generator=torch.Generator().manual_seed(SEED),
        **{count: case[count] for count in ("n_max", "n_min", "n_avg")},
    )
    official = OFFICIAL[f"{name}.edited"]
    found = edited if family == "sd3" else tiny.unpack(edited, (SHAPE[2] // 2, SHAPE[3] // 2))
    assert (official - x).abs().max() > 0.1, "nothing was edited: this test would see nothing"
    assert (found - official).abs().max() <= TOLERANCE * official.abs().max()


def test_the_way_back_of_rf_inversion_is_diffusers_one() -> None:
    target = replace(tiny.prompt("flux", "target"), guidance=BACK["guidance"])
    start = noise("noise", *SHAPE)
    edited = rf_inversion_edit(
        noise("latent", *SHAPE),
        OFFICIAL["way back.sigmas"].tolist(),
        # A source that leads straight to the noise that the way back was recorded from.
        lambda x, sigma: (start - x) / (1 - sigma),
        partial(lambda x, sigma: tiny.velocity("flux", net("flux"), x, sigma, target)),
        generator=torch.Generator().manual_seed(0),
        gamma=0.0,
        eta=BACK["eta"],
        eta_steps=BACK["eta_steps"],
    )
    official = OFFICIAL["way back.edited"]
    assert (edited - official).abs().max() <= TOLERANCE * official.abs().max()


def straight(name: str) -> Velocity:
    """The exact velocity of a model that knows one picture for each prompt."""
    return lambda x, sigma: (x - WANTED[name]) / sigma


def curved(name: str) -> Velocity:
    """A made-up velocity that depends on place and noise level."""
    return lambda x, sigma: torch.tanh(x * (1 + sigma) - WANTED[name]) * 0.8


def run(
    edit: Edit, source: Velocity, target: Velocity, x: torch.Tensor = LATENT, **options: Any
) -> torch.Tensor:
    return edit(x, SIGMAS, source, target, generator=torch.Generator().manual_seed(3), **options)


def test_flow_edit_adds_what_the_target_has_and_the_source_has_not() -> None:
    """Of a model with one picture a prompt, every step is exact: the picture moves by their difference."""
    edited = run(flow_edit, straight("source"), straight("target"))
    torch.testing.assert_close(edited, LATENT + WANTED["target"] - WANTED["source"], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("n_avg", [1, 4])
def test_the_same_prompt_gives_the_picture_back(n_avg: int) -> None:
    edited = run(flow_edit, curved("source"), curved("source"), n_avg=n_avg)
    assert torch.equal(edited, LATENT)


def test_full_pull_gives_the_picture_back() -> None:
    found = run(rf_inversion_edit, curved("source"), curved("target"), eta=1.0)
    torch.testing.assert_close(found, LATENT, atol=1e-5, rtol=0)


def test_full_gamma_goes_to_the_drawn_noise() -> None:
    seen: list[torch.Tensor] = []
    run(
        rf_inversion_edit, curved("source"), curved("target"), gamma=1.0,
        on_step=lambda i, n, x: seen.append(x),
    )  # fmt: skip
    drawn = torch.randn(1, *LATENT.shape[1:], generator=torch.Generator().manual_seed(3))
    torch.testing.assert_close(seen[len(SIGMAS) - 2], drawn.expand_as(LATENT), atol=1e-5, rtol=0)
    assert len(seen) == 2 * (len(SIGMAS) - 1)


def test_no_control_is_the_models_own_ode_there_and_back() -> None:
    """gamma and eta 0: Euler up under the source, Euler down under the target, written out."""
    x = LATENT.clone()
    for sigma, after in [(0.0, 0.2), (0.2, 0.5), (0.5, 0.75)]:
        x = x + (after - sigma) * curved("source")(x, sigma)
    for sigma, after in [(0.75, 0.5), (0.5, 0.2), (0.2, 0.0)]:
        x = x + (after - sigma) * curved("target")(x, sigma)
    found = run(rf_inversion_edit, curved("source"), curved("target"), gamma=0.0, eta=0.0, n_max=3)
    torch.testing.assert_close(found, x, atol=1e-5, rtol=1e-5)


EDITS: dict[str, Edit] = {
    "FlowEdit": flow_edit,
    "FlowEdit, sampled at the end": partial(flow_edit, n_min=2),
    "RF-Inversion": rf_inversion_edit,
}


@pytest.mark.parametrize("name", EDITS)
def test_outside_the_mask_the_latent_stays(name: str) -> None:
    mask = (noise("mask", 1, 1, 6, 5) > 0).float()
    found = run(EDITS[name], curved("source"), curved("target"), mask=mask)
    outside = mask.expand_as(LATENT) == 0
    assert torch.equal(found[outside], LATENT[outside])
    assert (found - LATENT)[~outside].abs().mean() > 0.01
    whole = run(EDITS[name], curved("source"), curved("target"), mask=torch.ones(1, 1, 1, 1))
    torch.testing.assert_close(whole, run(EDITS[name], curved("source"), curved("target")), atol=1e-6, rtol=0)


def test_outside_the_mask_rf_inversion_sees_the_picture_at_the_noise_of_each_step() -> None:
    mask = (noise("mask", 1, 1, 6, 5) > 0).float()
    outside = mask.expand_as(LATENT) == 0
    seen: list[torch.Tensor] = []
    run(
        rf_inversion_edit,
        curved("source"),
        curved("target"),
        mask=mask,
        on_step=lambda i, n, x: seen.append(x),
    )
    steps = len(SIGMAS) - 1
    noisy, back = seen[steps - 1], seen[steps:]
    for x, sigma in zip(back, SIGMAS[1:], strict=True):
        expected = LATENT + sigma * (noisy - LATENT)
        torch.testing.assert_close(x[outside], expected[outside], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", EDITS)
def test_a_half_precision_latent_is_edited_in_float32(name: str) -> None:
    half = LATENT.half()
    found = run(EDITS[name], curved("source"), curved("target"), half)
    assert found.dtype == torch.float32
    assert torch.equal(found, run(EDITS[name], curved("source"), curved("target"), half.float()))


@pytest.mark.parametrize("name", EDITS)
def test_a_batch_is_the_loop_and_a_seed_the_same_edit(name: str) -> None:
    both = run(EDITS[name], curved("source"), curved("target"))
    for i in range(2):
        alone = run(EDITS[name], curved("source"), curved("target"), LATENT[i : i + 1])
        torch.testing.assert_close(both[i : i + 1], alone, atol=1e-6, rtol=0)
    assert torch.equal(both, run(EDITS[name], curved("source"), curved("target")))


@pytest.mark.parametrize("name", EDITS)
def test_latents_may_have_frames_and_steps_are_counted(name: str) -> None:
    counted: list[tuple[int, int]] = []
    frames = LATENT[:, :, None].repeat(1, 1, 3, 1, 1)
    made = run(
        EDITS[name], lambda x, sigma: x.sin(), lambda x, sigma: x.cos(), frames, n_max=4,
        on_step=lambda i, n, x: counted.append((i, n)),
    )  # fmt: skip
    assert made.shape == frames.shape
    ways = 2 if name == "RF-Inversion" else 1
    assert counted == [(i, 4 * ways) for i in range(1, 4 * ways + 1)]


@pytest.mark.parametrize(
    ("edit", "sigmas", "options", "said"),
    [
        (flow_edit, [1.0, 0.5], {}, "must fall from at most 1 to 0"),
        (flow_edit, [14.6, 3.0, 0.0], {}, "14.6, 3, 0"),
        (flow_edit, [0.5, 0.5, 0.0], {}, "must fall"),
        (rf_inversion_edit, [0.0], {}, "must fall"),
        (flow_edit, SIGMAS, {"n_max": 6}, "n_max 6"),
        (flow_edit, SIGMAS, {"n_max": 2, "n_min": 3}, "n_min 3"),
        (flow_edit, SIGMAS, {"n_avg": 0}, "n_avg 0"),
        (rf_inversion_edit, SIGMAS, {"eta": 1.5}, "eta 1.5"),
        (rf_inversion_edit, SIGMAS, {"gamma": -0.5}, "gamma -0.5"),
        (rf_inversion_edit, SIGMAS, {"eta_steps": 6}, "eta_steps 6"),
    ],
)
def test_what_does_not_fit_is_refused(
    edit: Edit, sigmas: list[float], options: dict[str, Any], said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        edit(LATENT, sigmas, curved("source"), curved("target"), generator=torch.Generator(), **options)
