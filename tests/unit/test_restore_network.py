"""DiffRIR against the official networks on random weights, and the properties of restoring with it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from support.diffrir_weights import SIZES, fill, filled, inputs, small, uniform

from llmga.restore import Architecture, DiffRIRS1, DiffRIRS2, join_inputs, restore
from llmga.train.critic import UNetCritic

pytestmark = pytest.mark.usefixtures("one_thread")

FIXTURE = Path(__file__).parent / "fixtures" / "diffrir_official"
TOLERANCE = {"atol": 1e-5, "rtol": 1e-5}


@pytest.fixture(scope="module")
def recorded() -> dict[str, torch.Tensor]:
    return load_file(FIXTURE.with_suffix(".safetensors"))


@pytest.fixture(scope="module")
def official_shapes() -> dict[str, dict[str, list[int]]]:
    states = json.loads(FIXTURE.with_suffix(".json").read_text(encoding="utf-8"))
    return {
        kind: {name: shape for name, (_, *shape) in states[f"x1/{kind}"].items()} for kind in ("s1", "s2")
    }


@torch.no_grad()
@pytest.mark.parametrize("scale", [1, 2, 4])
def test_the_networks_are_the_official_ones(recorded: dict[str, torch.Tensor], scale: Any) -> None:
    architecture, given = Architecture(scale=scale, **SIZES), inputs(scale)
    joined = join_inputs(given["image"], given["truth"], given["mask"], architecture)
    s1, s2 = filled(DiffRIRS1(architecture)), filled(DiffRIRS2(architecture))
    prior = s1.prior(joined, given["truth"])
    made = {
        "s1": s1(joined, given["truth"]),
        "s1_prior": prior,
        "s2": s2(joined, given["noise"]),
        "s2_prior": s2.prior(joined, given["noise"]),
        "s2_prior_training": s2.prior(joined, s2.diffusion.noisy(prior, given["noise"])),
    }
    for name, value in made.items():
        wanted = recorded[f"x{scale}/{name}"]
        assert wanted.std() > 0.01, name
        torch.testing.assert_close(value, wanted, **TOLERANCE)


@torch.no_grad()
def test_the_critic_is_the_official_one(recorded: dict[str, torch.Tensor]) -> None:
    """Compared in units of the recorded spread, for the random vectors of spectral normalisation are no singular ones.

    A layer's σ = uᵀWv is then what is left of terms that cancel: it makes the logits as large as 10⁷, and multiplies
    rounding errors by up to ‖W‖ / |σ| = 2,937 (conv4). Ours is computed in float64, so that of machines and versions of
    torch only the recording's own float32 remains: 4.5e-6 of the recorded norm, in one rounding of σ at most 2e-4. A
    slope of 0.201 instead of 0.2 is off by more than the tolerance.
    """
    critic = UNetCritic(4)
    theirs = {"original": "weight_orig", "_u": "weight_u", "_v": "weight_v"}  # torch's names have changed
    for name, value in critic.state_dict().items():
        layer, last = name.partition(".")[0], name.rpartition(".")[2]
        renamed = f"{layer}.{theirs.get(last, last)}"
        if last in ("_u", "_v"):
            value.copy_(torch.nn.functional.normalize(uniform(renamed, *value.shape), dim=0))
        else:
            fill([(renamed, value)])
    made, wanted = critic.double().eval()(inputs(1)["truth"].double()), recorded["critic"].double()
    assert (made - wanted).abs().max() < 5e-4 * wanted.std()


@torch.no_grad()
@pytest.mark.parametrize("missing", [None, 1, 2, 3])
def test_the_critic_is_a_u_net_that_adds_its_skips(missing: int | None) -> None:
    """Real-ESRGAN's ``UNetDiscriminatorSN`` written out, with σ as it is in training.

    In the recording the outer skips drown in what the layers' tiny σ blow up; here each one counts.
    """
    critic = UNetCritic(4).eval()
    layers = [critic.get_submodule(f"conv{i}") for i in range(10)]

    def act(i: int, x: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.leaky_relu(layers[i](x), 0.2)

    def up(x: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)

    x0 = act(0, inputs(1)["truth"])
    x1 = act(1, x0)
    x2 = act(2, x1)
    x4 = act(4, up(act(3, x2))) + (missing != 1) * x2
    x5 = act(5, up(x4)) + (missing != 2) * x1
    x6 = act(6, up(x5)) + (missing != 3) * x0
    wanted = layers[9](act(8, act(7, x6)))
    made = critic(inputs(1)["truth"])
    assert wanted.std() > 1e-4
    error = (made - wanted).abs().max() / wanted.std()
    assert error < 1e-4 if missing is None else error > 1e-2


def official_state(
    net: Any, shapes: dict[str, list[int]], recorded: dict[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    """The dictionary of an official file: two modules twice, and the whole schedule."""
    own, state = net.state_dict(), {}
    for name, shape in shapes.items():
        twin = name.replace("diffusion.condition.", "condition.").replace("diffusion.model.", "denoise.")
        schedule = recorded.get(name.replace("diffusion.", "schedule/"))
        state[name] = (own[twin] if schedule is None else schedule).clone()
        assert list(state[name].shape) == shape, name
    return state


def test_official_files_load_strictly(official_shapes: Any, recorded: dict[str, torch.Tensor]) -> None:
    architecture = Architecture(**SIZES)
    s1, s2 = filled(DiffRIRS1(architecture)), filled(DiffRIRS2(architecture))
    assert {name: list(value.shape) for name, value in s1.state_dict().items()} == official_shapes["s1"]
    state = official_state(s2, official_shapes["s2"], recorded)
    fresh = DiffRIRS2(architecture)
    fresh.load_state_dict(state)
    assert all(torch.equal(value, s2.state_dict()[name]) for name, value in fresh.state_dict().items())
    assert torch.equal(fresh.diffusion.betas, recorded["schedule/betas"])

    state["diffusion.condition.E.0.weight"][0] += 1
    with pytest.raises(ValueError, match="should repeat condition.E.0.weight"):
        fresh.load_state_dict(state)
    with pytest.raises(RuntimeError, match="diffusion.nonsense"):
        fresh.load_state_dict({**s2.state_dict(), "diffusion.nonsense": torch.zeros(1)})


def test_the_released_sizes() -> None:
    with torch.device("meta"):
        counts = {
            scale: sum(p.numel() for p in DiffRIRS2(Architecture(scale=scale)).parameters())
            for scale in (1, 2, 4)
        }
        first = sum(p.numel() for p in DiffRIRS1(Architecture()).parameters())
    assert counts == {1: 25_078_342, 2: 25_036_870, 4: 25_026_502} and first == 24_908_614


@pytest.mark.parametrize("scale", [1, 2, 4])
@pytest.mark.parametrize("size", [(32, 32), (20, 44), (4, 64), (36, 8)])
def test_any_size_is_restored_and_only_inside_the_hole(scale: Any, size: tuple[int, int]) -> None:
    net = filled(DiffRIRS2(small(scale=scale)))
    height, width = size
    reference = torch.rand(2, 3, height, width)
    image = torch.rand(2, 3, height // scale, width // scale)
    mask = torch.zeros(2, 1, height, width)
    mask[0, :, 1:3, 2:7] = 0.5  # soft, but hole
    mask[1, :, 1:3, 2:7] = 0.4
    made = restore(net, image, reference, mask, blend="hard")
    hole = mask.expand_as(made) >= 0.5
    assert made.shape == reference.shape and 0 <= made.min() and made.max() <= 1
    assert torch.equal(made[~hole], reference[~hole])
    assert not torch.equal(made[hole], reference[hole])
    assert torch.equal(restore(net, image, reference, torch.zeros_like(mask)), reference)


def test_a_batch_is_the_loop_and_a_seed_gives_its_bytes() -> None:
    net = filled(DiffRIRS2(small()))
    image, reference = torch.rand(3, 3, 40, 33), torch.rand(3, 3, 40, 33)
    mask = torch.zeros(1, 1, 40, 33)
    mask[..., 8:30, 5:21] = 1
    before = torch.get_rng_state()
    batch = restore(net, image, reference, mask, seed=3)
    loop = [restore(net, image[i : i + 1], reference[i : i + 1], mask, seed=3) for i in range(3)]
    assert torch.equal(batch, torch.cat(loop))
    assert torch.equal(batch, restore(net, image, reference, mask, seed=3))
    assert not torch.equal(batch, restore(net, image, reference, mask, seed=4))
    assert torch.equal(torch.get_rng_state(), before)


def test_what_the_hole_of_the_reference_holds_does_not_matter() -> None:
    net = filled(DiffRIRS2(small()))
    image, reference = torch.rand(1, 3, 32, 32), torch.rand(1, 3, 32, 32)
    mask = torch.zeros(1, 1, 32, 32)
    mask[..., 8:30, 5:21] = 1
    other = torch.where(mask >= 0.5, torch.rand(1, 3, 32, 32), reference)
    assert torch.equal(restore(net, image, reference, mask), restore(net, image, other, mask))
    changed = torch.where(mask >= 0.5, reference, torch.rand(1, 3, 32, 32))
    hole = (mask >= 0.5).expand_as(image)
    here, there = (restore(net, image, r, mask)[hole] for r in (reference, changed))
    assert not torch.equal(here, there)
    blind = filled(DiffRIRS2(small(reference=False)))
    here, there = (restore(blind, image, r, mask)[hole] for r in (reference, changed))
    assert torch.equal(here, there)


def test_sizes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="scale must be 1, 2 or 4"):
        small(scale=3)
    with pytest.raises(ValueError, match="multiple of heads"):
        small(dim=10, heads=(1, 2, 4, 32))


def test_weighted_layers_are_the_hosts() -> None:
    class Operations:
        class Linear(torch.nn.Linear):
            pass

        class Conv2d(torch.nn.Conv2d):
            pass

    for net in (DiffRIRS2(small(), Operations), DiffRIRS1(small(), Operations)):
        layers = [m for m in net.modules() if isinstance(m, (torch.nn.Linear, torch.nn.Conv2d))]
        assert layers and all(isinstance(m, (Operations.Linear, Operations.Conv2d)) for m in layers)
