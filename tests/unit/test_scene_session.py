"""Whole scenes on a tiny UNet and a tiny CLIP: the two stages, the cache, masks, moves, and a photograph that stays."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from support import scene_cases as cases
from support.tiny_scene import GUIDED, PLAN, SETTINGS, SIZE, tiny_denoiser, tiny_encoder
from support.tiny_unet import noise

from llmga.diffusion import DiffusersContext, DiffusersDenoiser, Site
from llmga.edit.inversion import Trajectory, invert
from llmga.scene import GuidanceSettings, ObjectCache, SceneSession, SceneSettings
from llmga.scene.attention import (
    WordAttention,
    WordTaps,
    guidance_sites,
    saliency_site,
    shift,
    summed,
    word_attention,
)
from llmga.scene.guidance import LayoutGuidance
from llmga.scene.losses import LossWeights, alone_loss
from llmga.scene.plan import ScenePlan
from llmga.text import CLIPPromptEncoder

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def encoder() -> CLIPPromptEncoder:
    return tiny_encoder()


@pytest.fixture(scope="module")
def denoiser() -> DiffusersDenoiser:
    return tiny_denoiser()


@pytest.fixture
def session(denoiser: DiffusersDenoiser, encoder: CLIPPromptEncoder) -> SceneSession[Any]:
    return SceneSession(denoiser, encoder, cache=ObjectCache())


@pytest.fixture(scope="module")
def photograph(denoiser: DiffusersDenoiser, encoder: CLIPPromptEncoder) -> Trajectory:
    prompts = {"source": encoder.encode(encoder.plan("a forest"))}
    latent = noise("photograph", 1, 4, *SIZE)
    return denoiser.run(prompts, latent.shape, lambda d, c: invert(d, latent, c["source"], SETTINGS.steps))


def moved(plan: ScenePlan, number: int, **change: float) -> ScenePlan:
    objects = list(plan.objects)
    objects[number] = replace(objects[number], box=replace(objects[number].box, **change))
    return replace(plan, objects=tuple(objects))


# --- attention ----------------------------------------------------------------------------------


def test_word_attention_is_a_softmax_of_which_some_tokens_are_kept() -> None:
    q, k = noise("q", 12, 8), noise("k", 7, 8)
    whole = (q.unflatten(-1, (2, 4)).transpose(0, 1) @ k.unflatten(-1, (2, 4)).permute(1, 2, 0) / 2).softmax(
        -1
    )
    torch.testing.assert_close(word_attention(q, k, [5, 2], 2), whole[..., [5, 2]], rtol=1e-5, atol=1e-7)
    q = q.requires_grad_()
    sizes: list[int] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: sizes.append(t.numel()) or t, lambda t: t):
        word_attention(q, k, [1], 2)
    assert max(sizes) <= 2 * 12 * 8


def test_taps_see_chosen_layers_in_the_last_row_and_end_the_pass(denoiser: DiffusersDenoiser) -> None:
    sites = guidance_sites(denoiser.sites)
    taps = WordTaps(sites, [3], stop=True)
    contexts = [cases.context("a"), cases.context("b")]
    rows = [DiffusersContext(one) for one in contexts]
    assert denoiser.eps(noise("x", 2, 4, *SIZE), 500, rows, taps) is None
    assert list(taps.recorded) == sites
    alone = WordTaps(sites, [3], stop=True)
    denoiser.eps(noise("x", 2, 4, *SIZE)[1:], 500, rows[1:], alone)
    for site in sites:
        torch.testing.assert_close(taps.recorded[site].maps, alone.recorded[site].maps, rtol=1e-4, atol=1e-6)
    with pytest.raises(ValueError, match="tokens must be positions below 77, got 80"):
        denoiser.eps(noise("x", 1, 4, *SIZE), 500, rows[1:], WordTaps(sites, [80], stop=True))


def test_sites_of_other_networks_than_sd15() -> None:
    def cross(*numbers: tuple[str, int]) -> list[Site]:
        return [Site(block, n, 0, kind) for block, n in numbers for kind in ("self", "cross")]  # type: ignore[arg-type]

    small = cross(("input", 4), ("middle", 0), ("output", 0), ("output", 1))
    assert [site[:2] for site in guidance_sites(small)] == [("middle", 0), ("output", 0), ("output", 1)]
    assert [site[:2] for site in guidance_sites(small, "up")] == [("output", 0), ("output", 1)]
    assert (saliency_site(small)[:2], saliency_site(small, "up")[:2]) == (("input", 4), ("output", 1))
    with pytest.raises(ValueError, match="no cross-attention on its way up"):
        saliency_site(cross(("input", 4)), "up")
    for name, allowed in (
        ("layers", "published, up"),
        ("alone_at", "middle, box"),
        ("phrase", "tokens, sum"),
    ):
        with pytest.raises(ValueError, match=f"{name} must be one of {allowed}; got 'down'"):
            SceneSettings(**{name: "down"})  # type: ignore[arg-type]


def test_the_layers_on_the_way_up_place_objects_in_both_stages(session: SceneSession[Any]) -> None:
    up = session.paint(PLAN, SIZE, replace(SETTINGS, layers="up"), seed=3)
    published = session.paint(PLAN, SIZE, SETTINGS, seed=3)
    assert not torch.equal(up.latent, published.latent) and not up.objects[0].cached
    for one in up.objects:
        assert {site.block for maps in one.run.word_maps for site in maps} == {"output"}


def test_a_name_is_read_as_the_sum_of_its_tokens(session: SceneSession[Any]) -> None:
    attention = WordAttention(torch.rand(2, 4, 3, generator=torch.Generator().manual_seed(0)), (2, 2))
    (found,) = summed({Site("output", 0, 0, "cross"): attention}, [[0, 2], [1]]).values()
    torch.testing.assert_close(found.maps[..., 0], attention.maps[..., 0] + attention.maps[..., 2])
    assert torch.equal(found.maps[..., 1], attention.maps[..., 1]) and found.size == (2, 2)
    off = GuidanceSettings(scale=0)
    each, whole = (
        session.paint(PLAN, SIZE, replace(SETTINGS, alone=off, together=off, phrase=how), seed=3)
        for how in ("tokens", "sum")
    )
    for one, other in zip(each.objects, whole.objects, strict=True):
        assert torch.equal(one.run.latents, other.run.latents) and not other.cached
        assert (other.run.word_map > one.run.word_map).all(), "the last token is one of several"
    guided = [session.paint(PLAN, SIZE, replace(SETTINGS, phrase=how), seed=3) for how in ("tokens", "sum")]
    assert not torch.equal(guided[0].latent, guided[1].latent)
    assert all(
        maps.maps.shape[-1] == 1 for step in guided[1].objects[0].run.word_maps for maps in step.values()
    )


def test_an_object_may_be_painted_in_its_box_at_once(session: SceneSession[Any]) -> None:
    there = replace(SETTINGS, alone_at="box")
    scene = session.paint(PLAN, SIZE, there)
    for one, painted in zip(PLAN.objects, scene.objects, strict=True):
        assert painted.run.box == one.box and (painted.move.rows, painted.move.columns) == (0, 0)
    again = session.paint(moved(PLAN, 0, x=0.3), SIZE, there)
    assert [one.cached for one in again.objects] == [False, True], "its place is a part of how it was painted"


def test_shifting_loses_what_leaves() -> None:
    grid = torch.arange(12.0).view(1, 3, 4)
    assert torch.equal(shift(grid, 0, 0), grid)
    assert shift(grid, 1, -2)[0].tolist() == [[0, 0, 0, 0], [2, 3, 0, 0], [6, 7, 0, 0]]
    assert not shift(grid, 9, 0).any() and not shift(grid, 0, -9).any()
    attention = WordAttention(torch.arange(16.0).view(1, 16, 1), (4, 4))
    assert torch.equal(
        attention.moved(1, 1, 4, (16, 16)).maps.view(4, 4), shift(torch.arange(16.0).view(4, 4), 1, 1)
    )


# --- whole scenes -------------------------------------------------------------------------------


def test_a_scene_is_the_same_again_and_every_part_plays_a_role(session: SceneSession[Any]) -> None:
    scene = session.paint(PLAN, SIZE, SETTINGS, seed=3)
    assert scene.latent.shape == (1, 4, *SIZE) and scene.latent.isfinite().all()
    assert scene.masks.shape == (2, *SIZE) and scene.word_maps.shape[0] == 2 and scene.region.all()
    again = SceneSession(session.runner, session.encoder).paint(PLAN, SIZE, SETTINGS, seed=3)
    assert torch.equal(scene.latent, again.latent)
    off = GuidanceSettings(scale=0)
    others = {
        "seed": session.paint(PLAN, SIZE, SETTINGS, seed=4),
        "guidance": session.paint(PLAN, SIZE, replace(SETTINGS, alone=off, together=off), seed=3),
        "replacement": session.paint(PLAN, SIZE, replace(SETTINGS, replaced=0.0), seed=3),
        "negative": session.paint(replace(PLAN, negative="blue"), SIZE, SETTINGS, seed=3),
        "words": session.paint(replace(PLAN, background="a beach"), SIZE, SETTINGS, seed=3),
    }
    for name, other in others.items():
        assert (other.latent - scene.latent).abs().max() > 1e-4, name
    assert "0 gradient passes of at most 0" in "\n".join(others["guidance"].notes)
    assert "6 gradient passes of at most 6, and 24 rows" in "\n".join(scene.notes)


def test_objects_stand_in_their_boxes(session: SceneSession[Any]) -> None:
    scene = session.paint(PLAN, SIZE, SETTINGS)
    for one, painted in zip(PLAN.objects, scene.objects, strict=True):
        rows, columns = painted.mask.nonzero(as_tuple=True)
        x, y = float(columns.float().mean()) / 16, float(rows.float().mean()) / 16
        unit = painted.move.unit / 16
        assert abs(x - one.box.centre[0]) <= unit / 2 + 1e-6 and abs(y - one.box.centre[1]) <= unit / 2 + 1e-6


def test_what_is_unchanged_is_not_painted_again(session: SceneSession[Any]) -> None:
    counts: list[tuple[int, int]] = []

    def count(i: int, n: int, preview: torch.Tensor | None = None) -> None:
        counts.append((i, n))

    def paint(plan: ScenePlan) -> tuple[list[bool], int]:
        counts.clear()
        scene = session.paint(plan, SIZE, SETTINGS, on_step=count)
        assert [i for i, _ in counts] == list(range(1, counts[-1][1] + 1))
        return [one.cached for one in scene.objects], counts[-1][1]

    assert paint(PLAN) == ([False, False], 12)
    assert paint(PLAN) == ([True, True], 4)
    assert paint(moved(PLAN, 0, x=0.3)) == ([True, True], 4), "a place is not painted"
    assert paint(moved(PLAN, 1, width=0.2)) == ([True, False], 8), "a size is"
    assert paint(replace(PLAN, objects=PLAN.objects[:1])) == ([True], 4), "removed"
    assert paint(replace(PLAN, background="a beach")) == ([False, False], 12)
    fresh = SceneSession(session.runner, session.encoder).paint(moved(PLAN, 0, x=0.3), SIZE, SETTINGS)
    kept = session.paint(moved(PLAN, 0, x=0.3), SIZE, SETTINGS)
    assert torch.equal(fresh.latent, kept.latent)
    other = SceneSession(session.runner, session.encoder, cache=session.cache, identity="other weights")
    assert not any(one.cached for one in other.paint(PLAN, SIZE, SETTINGS).objects)
    small = SceneSession(session.runner, session.encoder, cache=ObjectCache(1))
    small.paint(PLAN, SIZE, SETTINGS)
    again = small.paint(
        PLAN, SIZE, SETTINGS
    )  # the object that it holds is dropped while the other is painted
    assert small.cache is not None and len(small.cache) == 1
    assert [one.cached for one in again.objects] == [False, True]


def test_a_given_mask_is_taken(session: SceneSession[Any]) -> None:
    mask = torch.zeros(SIZE)
    mask[6:12, 5:11] = 1
    scene = session.paint(PLAN, SIZE, SETTINGS, masks={1: mask})
    assert int(scene.masks[1].sum()) == 36 and int(scene.masks[0].sum()) != 36
    for bad, message in ((torch.zeros(SIZE), "is empty"), (torch.ones(8, 8), r"must be \(16, 16\)")):
        with pytest.raises(ValueError, match=f"the mask of 'an old owl' {message}"):
            session.paint(PLAN, SIZE, SETTINGS, masks={1: bad})


def test_an_object_behind_another_is_named(session: SceneSession[Any]) -> None:
    """Masks of one size in one place: the later object stands before all of the earlier one."""
    box = PLAN.objects[0].box
    plan = replace(PLAN, objects=tuple(replace(one, box=box) for one in PLAN.objects))
    mask = torch.zeros(SIZE)
    mask[6:12, 5:11] = 1
    scene = session.paint(plan, SIZE, SETTINGS, masks={0: mask, 1: mask})
    words = "the objects in front of it cover all of its mask"
    assert [note.partition(":")[0] for note in scene.notes if words in note] == [plan.objects[0].name]
    assert words not in " ".join(session.paint(PLAN, SIZE, SETTINGS).notes)


def test_a_photograph_stays_bit_for_bit_outside_of_the_objects(
    session: SceneSession[Any], photograph: Trajectory
) -> None:
    scene = session.paint(PLAN, SIZE, SETTINGS, background=photograph)
    outside = (scene.region == 0).expand(1, 4, -1, -1)
    assert outside.any() and (scene.region[0, 0] >= scene.masks.amax(0)).all()
    assert torch.equal(scene.latent[outside], photograph.latents[0][outside])
    assert (scene.latent - photograph.latents[0])[~outside].abs().max() > 1e-3
    nothing = session.paint(replace(PLAN, objects=()), SIZE, SETTINGS, background=photograph)
    assert torch.equal(nothing.latent, photograph.latents[0])
    wide = session.paint(PLAN, SIZE, replace(SETTINGS, margin=4), background=photograph)
    assert wide.region.sum() > scene.region.sum()


def test_each_step_of_the_photograph_is_its_trajectory(
    session: SceneSession[Any], photograph: Trajectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[torch.Tensor] = []
    predict = session.runner.eps  # type: ignore[attr-defined] # it is a DiffusersDenoiser

    def watched(x: torch.Tensor, *rest: Any) -> Any:
        seen.append(x[-1:].clone())
        return predict(x, *rest)

    session.paint(PLAN, SIZE, SETTINGS, background=photograph)  # both objects are in the cache now
    monkeypatch.setattr(session.runner, "eps", watched)
    still = replace(SETTINGS, together=replace(GUIDED, threshold=1e9))
    scene = session.paint(PLAN, SIZE, still, background=photograph)
    outside = (scene.region == 0).expand(1, 4, -1, -1)
    assert len(seen) == SETTINGS.steps
    for i, x in enumerate(seen[1:], 1):
        assert torch.equal(x[outside], photograph.latents[SETTINGS.steps - i][outside])


def test_what_a_scene_cannot_have_is_refused(session: SceneSession[Any], photograph: Trajectory) -> None:
    with pytest.raises(ValueError, match=r"latents of \(16, 16\) and 4 steps, the scene \(24, 16\) and 4"):
        session.paint(PLAN, (24, 16), SETTINGS, background=photograph)
    two = Trajectory(photograph.latents.repeat(1, 2, 1, 1, 1), photograph.timesteps)
    with pytest.raises(ValueError, match="one picture, got an inversion of 2"):
        session.paint(PLAN, SIZE, SETTINGS, background=two)
    for name, value in (("steps", 0), ("steps", True), ("cfg", 0.5), ("replaced", 1.5), ("margin", -1)):
        with pytest.raises(ValueError, match=name):
            SceneSettings(**{name: value})
    for name, value in (("step_scale", "x"), ("scale", -1), ("threshold", float("nan")), ("of_steps", 0)):
        with pytest.raises(ValueError, match=name):
            GuidanceSettings(**{name: value})
    with pytest.raises(ValueError, match="no codec"):
        session.paint_image(PLAN, SIZE)


def test_a_raising_on_step_stops_it(session: SceneSession[Any]) -> None:
    class Cancelled(BaseException):
        pass

    def stop(i: int, n: int, preview: torch.Tensor | None = None) -> None:
        if i == 3:
            raise Cancelled

    with pytest.raises(Cancelled):
        session.paint(PLAN, SIZE, SETTINGS, on_step=stop)
    assert session.cache is not None and len(session.cache) == 0


def test_guidance_lowers_its_loss_and_stops_when_it_is_small(
    session: SceneSession[Any], denoiser: DiffusersDenoiser
) -> None:
    easy = replace(GUIDED, threshold=100.0)
    quick = session.paint(PLAN, SIZE, replace(SETTINGS, alone=easy, together=easy))
    for one in quick.objects:
        assert (one.run.guidance.forward_passes, one.run.guidance.backward_passes) == (1, 0)
    box, weights, x = PLAN.objects[0].box, LossWeights(), noise("x", 1, 4, *SIZE)
    context, losses = DiffusersContext(cases.context("a")), []
    guidance = LayoutGuidance(GuidanceSettings(), guidance_sites(denoiser.sites), [4, 5])

    def loss_of(recorded: Any) -> torch.Tensor:
        losses.append(alone_loss(recorded, box, weights))
        return losses[-1]

    with torch.inference_mode():
        moved_latent = guidance.guide(denoiser, x, 900, context, 8, loss_of)
    assert float(losses[-1]) < float(losses[0]) - 0.01 and guidance.backward_passes == 8
    assert (moved_latent - x).abs().max() > 1e-3 and not moved_latent.requires_grad
