"""The editor against the procedure as published, and what must hold for every edit."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from support.published_edit import published_edit
from support.tiny_clip import WIDTH_L
from support.tiny_unet import SD15, SDXL, noise, tiny_unet

from llmga.diffusion import DiffusersContext, DiffusersDenoiser, Schedule, Site, StopForward, ddim_step
from llmga.diffusion.attention import attention
from llmga.edit import Blend, Control, Edited, Trajectory, edit, invert
from llmga.edit.attention_taps import SourceTaps, Step, TargetTaps
from llmga.edit.blend import LocalBlend

pytestmark = pytest.mark.usefixtures("one_thread")

TOKENS = 9
STEPS = 5


class Counting(DiffusersDenoiser):
    """Counts the rows of every pass, and which of them were stopped where."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.rows = 0
        self.stopped: list[Site] = []

    def eps(self, x: torch.Tensor, timestep: int, contexts: Any, taps: Any = None) -> torch.Tensor | None:
        self.rows += len(x)
        last: list[Site] = []

        class Noting:
            def attend(self, site: Site, *rest: Any) -> torch.Tensor | None:
                last[:] = [site]
                return taps.attend(site, *rest)

        out = super().eps(x, timestep, contexts, Noting() if taps is not None else None)
        if out is None:
            self.stopped += last
        return out


@pytest.fixture(scope="module")
def nets() -> dict[str, Any]:
    # In float64 inside: a tiny net magnifies rounding, which is not what is tested.
    return {"sd15": tiny_unet(SD15, 1.5).double(), "sdxl": tiny_unet(SDXL, 1.0).double()}


@pytest.fixture
def denoiser(nets: dict[str, Any]) -> Counting:
    return Counting(nets["sdxl"])


def prompt(name: str, tokens: int = TOKENS) -> DiffusersContext:
    time_ids = torch.tensor([[128.0, 128.0, 0.0, 0.0, 128.0, 128.0]])
    return DiffusersContext(noise(name, 1, tokens, WIDTH_L), noise(name, 1, WIDTH_L), time_ids)


SOURCE, TARGET, NEGATIVE = prompt("source"), prompt("target"), prompt("negative")
LATENT = noise("latent", 1, 4, 16, 16)


def control(**values: Any) -> Control:
    """Source tokens 0 to 3 and 6 to 8 are the target's too; its 4 and 5 are new."""
    matrix, own = torch.eye(TOKENS), torch.zeros(TOKENS)
    matrix[[4, 5], [4, 5]] = 0
    own[[4, 5]] = 1
    return Control(**{"matrix": matrix, "own": own, **values})


# High: the attention of an untrained net is nearly even.
BLEND = Blend(source=(2,), target=(4, 5), threshold=0.99)
CONTROLS = {
    "refine": control(),
    "weighed, word by word": control(
        equalizer=torch.linspace(-1, 4, TOKENS), cross_replace=torch.linspace(0, 1, TOKENS)
    ),
    "self only": control(cross_replace=0.0, self_replace=1.0, self_max_pixels=10**6),
    "nothing": control(cross_replace=0.0, self_replace=0.0),
    "blend": control(blend=BLEND),
    "blend minus words": control(
        blend=Blend((2,), (4,), (1,), (1,), threshold=0.97, subtract_threshold=0.98, start=0.0)
    ),
}


@pytest.fixture(scope="module")
def trajectory(nets: dict[str, Any]) -> Trajectory:
    return invert(Counting(nets["sdxl"]), LATENT, SOURCE, STEPS)


def run(denoiser: Any, trajectory: Trajectory, control: Control, **values: Any) -> Edited:
    return edit(denoiser, trajectory, SOURCE, TARGET, NEGATIVE, control, **values)


@pytest.mark.parametrize("name", CONTROLS)
@pytest.mark.parametrize("kind", ["sd15", "sdxl"])
def test_an_edit_is_that_of_the_published_procedure(nets: dict[str, Any], kind: str, name: str) -> None:
    denoiser = Counting(nets[kind])
    reference, way = published_edit(denoiser, LATENT, SOURCE, TARGET, NEGATIVE, CONTROLS[name], STEPS)
    trajectory = invert(denoiser, LATENT, SOURCE, STEPS)
    assert (trajectory.latents - way).abs().max() <= 1e-5
    edited = run(denoiser, trajectory, CONTROLS[name])
    assert (reference[0] - LATENT[0]).abs().max() <= 1e-5
    assert (edited.latent - reference[1]).abs().max() <= 1e-4
    assert (edited.latent - LATENT).abs().max() > 1e-2
    if CONTROLS[name].blend:
        assert 0.05 < edited.mask.mean() < 0.95


def test_controls_differ(denoiser: Counting, trajectory: Trajectory) -> None:
    """Or else the comparison above would compare nothing."""
    edited = [run(denoiser, trajectory, each).latent for each in CONTROLS.values()]
    for i, one in enumerate(edited):
        for other in edited[:i]:
            assert (one - other).abs().max() > 1e-3


def test_the_factored_form_is_the_probabilities_form() -> None:
    """Also for prompts of different lengths, and one of another length in the same call."""
    heads, size, site = 2, (4, 4), Site("input", 7, 0, "cross")
    q, source_q = noise("q", 3, 16, 8), noise("sq", 1, 16, 8)
    k, v = (noise(name, 3, 6, 8).repeat(1, 2, 1) for name in "kv")
    k[:2], v[:2] = noise("nk", 2, 12, 8), noise("nv", 2, 12, 8)
    source_k = noise("sk", 1, 4, 8)
    matrix, own = noise("matrix", 4, 6), noise("own", 6)
    taps = SourceTaps([site], 0, None)
    taps.begin(Step((matrix, own), False, False))
    with pytest.raises(StopForward):
        taps.attend(site, source_q, source_k, source_k, heads, size)
    out = TargetTaps(taps, (4, 6)).attend(site, q, k, v, heads, size)

    def split(x: torch.Tensor) -> torch.Tensor:
        return x.unflatten(-1, (heads, -1)).transpose(1, 2)

    def probabilities(q: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
        return (split(q) @ split(k).mT * 4**-0.5).softmax(-1)

    edited = probabilities(source_q, source_k) @ matrix + probabilities(q[2:], k[2:, :6]) * own
    expected = (edited @ split(v[2:, :6])).transpose(1, 2).flatten(2)
    assert out is not None
    torch.testing.assert_close(out[2:], expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(out[:2], attention(q[:2], k[:2], v[:2], heads), atol=1e-6, rtol=0)


def test_nothing_is_changed_outside_a_mask(denoiser: Counting, trajectory: Trajectory) -> None:
    mask = torch.zeros(1, 1, 16, 16)
    mask[..., 4:9, 3:12] = 1
    mask[..., 5, 5] = 0.5
    for each in (control(mask=mask), control(mask=mask, blend=BLEND)):
        edited = run(denoiser, trajectory, each)
        outside = edited.mask.expand(-1, 4, -1, -1) == 0
        assert outside.sum() >= 4 * (256 - 45)
        assert torch.equal(edited.latent[outside], LATENT[outside])
        assert (edited.latent - LATENT).abs().max() > 1e-2
        assert (edited.mask <= mask).all()
    assert torch.equal(run(denoiser, trajectory, control(mask=torch.zeros(1, 1, 16, 16))).latent, LATENT)
    whole = run(denoiser, trajectory, control(mask=torch.ones(1, 1, 16, 16)))
    assert torch.equal(whole.latent, run(denoiser, trajectory, control()).latent)


def test_a_blend_lets_only_its_mask_change(denoiser: Counting, trajectory: Trajectory) -> None:
    edited = run(denoiser, trajectory, control(blend=BLEND))
    outside = edited.mask.expand(-1, 4, -1, -1) == 0
    assert 0.1 < outside.float().mean() < 0.9
    assert torch.equal(edited.latent[outside], LATENT[outside])


def test_the_same_prompt_without_guidance_is_the_plain_reconstruction(
    denoiser: Counting, trajectory: Trajectory
) -> None:
    same = Control(torch.eye(TOKENS), torch.zeros(TOKENS), cross_replace=0.4, self_replace=0.6, cfg=1.0)
    start = trajectory.latents[-1]
    # With the source's attention, at a latent that is not the source's, it can but come near it; without it is DDIM.
    plain = edit(
        denoiser,
        trajectory,
        SOURCE,
        SOURCE,
        None,
        Control(torch.eye(TOKENS), torch.zeros(TOKENS), cross_replace=0.0, self_replace=0.0, cfg=1.0),
    )
    schedule, x = denoiser.schedule, start
    for t in trajectory.timesteps:
        eps = denoiser.eps(x, t, [SOURCE])
        assert eps is not None
        x = ddim_step(x, eps, schedule.abar(t), schedule.abar(t - schedule.stride(STEPS)))
    assert (plain.latent - x).abs().max() <= 1e-6
    controlled = edit(denoiser, trajectory, SOURCE, SOURCE, None, same)
    assert (controlled.latent - LATENT).abs().max() < (
        run(denoiser, trajectory, control()).latent - LATENT
    ).abs().max()


def test_the_source_is_the_recorded_way_at_every_step(denoiser: Counting, trajectory: Trajectory) -> None:
    seen: list[torch.Tensor] = []

    class Looking(Counting):
        def eps(self, x: torch.Tensor, timestep: int, contexts: Any, taps: Any = None) -> torch.Tensor | None:
            if contexts == [SOURCE]:
                assert timestep == trajectory.timesteps[len(seen)]
                seen.append(x)
            return super().eps(x, timestep, contexts, taps)

    run(Looking(denoiser.unet), trajectory, control(blend=BLEND))
    assert torch.equal(torch.stack(seen), trajectory.latents.flip(0)[:-1])


@pytest.mark.parametrize("name", ["refine", "blend"])
def test_a_batch_is_the_loop(denoiser: Counting, name: str) -> None:
    latents = noise("two", 2, 4, 10, 14)  # of no power of two
    masks = torch.ones(2, 1, 10, 14)
    masks[1, :, :5] = 0
    together = run(denoiser, invert(denoiser, latents, SOURCE, STEPS), replaced(CONTROLS[name], mask=masks))
    for i in range(2):
        way = invert(denoiser, latents[i : i + 1], SOURCE, STEPS)
        alone = run(denoiser, way, replaced(CONTROLS[name], mask=masks[i : i + 1]))
        assert (together.latent[i] - alone.latent[0]).abs().max() <= 1e-5
        assert torch.equal(together.mask[i], alone.mask[0])


def replaced(control: Control, **values: Any) -> Control:
    return dataclasses.replace(control, **values)


def test_rows_of_50_steps(denoiser: Counting) -> None:
    way = invert(denoiser, noise("small", 1, 4, 8, 8), SOURCE, 50)
    assert denoiser.rows == 50
    for each, again in (
        (control(), 130),
        (control(blend=BLEND), 150),
        (control(cross_replace=0.0, self_replace=0.0), 100),
        (control(cfg=1.0), 80),
    ):
        denoiser.rows = 0
        edited = run(denoiser, way, each)
        assert edited.rows == denoiser.rows == again


def test_the_sources_pass_ends_after_what_it_is_needed_for(
    denoiser: Counting, trajectory: Trajectory
) -> None:
    run(denoiser, trajectory, control(cross_replace=0.4, self_replace=0.8))
    full, small = Site("output", 5, 1, "cross"), Site("output", 2, 2, "self")
    # Sizes are not known before the first pass. The 64 queries of output 3 to 5 are no more than 16 · 16 / 4.
    assert denoiser.stopped == [full, full, Site("output", 5, 1, "self"), Site("output", 5, 1, "self")]
    denoiser.stopped.clear()
    run(denoiser, trajectory, control(cross_replace=0.0, self_replace=0.8, self_max_pixels=16))
    assert denoiser.stopped == [Site("output", 5, 1, "self"), small, small, small]
    denoiser.stopped.clear()
    run(denoiser, trajectory, control(cross_replace=0.0, self_replace=0.0, blend=BLEND))
    assert denoiser.stopped == [full] + [Site("output", 2, 2, "cross")] * 4


def test_sides_of_an_odd_number_of_cells_take_as_many_layers_from_the_source(denoiser: Counting) -> None:
    stopped = []
    for height, width in ((16, 16), (17, 17), (16, 19)):
        way = invert(denoiser, noise("odd", 1, 4, height, width), SOURCE, 2)
        denoiser.stopped.clear()
        run(denoiser, way, control(cross_replace=0.0, self_replace=1.0))
        stopped.append(list(denoiser.stopped))
    assert stopped == [[Site("output", 5, 1, "self")] * 2] * 3


def test_a_blend_begins_after_its_part_of_the_steps(
    denoiser: Counting, monkeypatch: pytest.MonkeyPatch
) -> None:
    masks: list[torch.Tensor] = []
    of_words = LocalBlend.mask
    monkeypatch.setattr(LocalBlend, "mask", lambda self: masks.append(of_words(self)) or masks[-1])
    way = invert(denoiser, noise("small", 1, 4, 8, 8), SOURCE, 50)
    run(denoiser, way, control(blend=Blend((2,), (4,), start=0.58)))  # as floats, 0.58 of 50 is less than 29
    assert len(masks) == 50 - 29


def test_steps_are_told_and_may_stop_the_work(denoiser: Counting, trajectory: Trajectory) -> None:
    told: list[tuple[int, int]] = []

    def on_step(i: int, n: int, preview: torch.Tensor | None = None) -> None:
        told.append((i, n))
        assert preview is not None and preview.shape == LATENT.shape
        if i == 3:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        run(denoiser, trajectory, control(), on_step=on_step)
    assert told == [(1, 5), (2, 5), (3, 5)]
    told.clear()
    invert(denoiser, LATENT, SOURCE, 2, lambda i, n, preview=None: told.append((i, n)))
    assert told == [(1, 2), (2, 2)]


def test_a_v_prediction_model_is_edited_alike(denoiser: Counting, trajectory: Trajectory) -> None:
    """The same noise told as v gives the same edit."""
    schedule = denoiser.schedule

    class AsV(torch.nn.Module):
        config = denoiser.unet.config

        def __init__(self) -> None:
            super().__init__()
            self.net = denoiser.unet
            self.down_blocks, self.mid_block, self.up_blocks = (
                self.net.down_blocks,
                self.net.mid_block,
                self.net.up_blocks,
            )

        def forward(self, x: torch.Tensor, timestep: int, **values: Any) -> tuple[torch.Tensor]:
            abar = schedule.abar(timestep)
            return ((self.net(x, timestep, **values)[0] - (1 - abar) ** 0.5 * x) / abar**0.5,)

    v = DiffusersDenoiser(AsV(), schedule, "v_prediction")
    way = invert(v, LATENT, SOURCE, STEPS)
    assert (way.latents - trajectory.latents).abs().max() <= 1e-5
    edited = run(v, way, control(blend=BLEND)).latent
    assert (edited - run(denoiser, trajectory, control(blend=BLEND)).latent).abs().max() <= 1e-4


@pytest.mark.parametrize("size", [(1, 1), (5, 8)])
def test_the_smallest_pictures_are_edited(denoiser: Counting, size: tuple[int, int]) -> None:
    latent = noise("tiny", 1, 4, *size)
    edited = run(denoiser, invert(denoiser, latent, SOURCE, 2), control(blend=BLEND))
    assert edited.latent.shape == latent.shape
    assert edited.latent.isfinite().all()


def test_what_does_not_belong_together_is_refused(denoiser: Counting, trajectory: Trajectory) -> None:
    with pytest.raises(ValueError, match=r"latent must be \(B, 4, h, w\)"):
        invert(denoiser, LATENT[0], SOURCE)
    with pytest.raises(ValueError, match=r"mask must be \(1 or 1, 1, 16, 16\)"):
        run(denoiser, trajectory, control(mask=torch.ones(1, 1, 8, 8)))
    with pytest.raises(ValueError, match="mask must be from 0 to 1"):
        run(denoiser, trajectory, control(mask=torch.full((1, 1, 16, 16), 2.0)))
    with pytest.raises(ValueError, match="target prompt has 9 tokens.*made for 8"):
        run(denoiser, trajectory, Control(torch.eye(9, 8), torch.zeros(8)))
    with pytest.raises(ValueError, match="source prompt has 9 tokens.*made for 8"):
        run(denoiser, trajectory, Control(torch.eye(8, 9), torch.zeros(9)))
    other = DiffusersDenoiser(denoiser.unet, Schedule.from_betas(timesteps=500))
    with pytest.raises(ValueError, match="another noise schedule"):
        run(other, trajectory, control())
