from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from support.tiny_clip import WIDTH_L
from support.tiny_unet import SD15, SDXL, noise, tiny_unet

from llmga.diffusion import DiffusersContext, DiffusersDenoiser, Schedule, Site, StopForward
from llmga.diffusion.diffusers_unet import grid

pytestmark = pytest.mark.usefixtures("one_thread")


class Watching:
    """Taps that note what they see, and do as they are told."""

    def __init__(self, then: Callable[..., torch.Tensor | None] = lambda *_: None) -> None:
        self.seen: list[tuple[Site, tuple[int, int]]] = []
        self._then = then

    def attend(
        self, site: Site, q: Any, k: Any, v: Any, heads: int, size: tuple[int, int]
    ) -> torch.Tensor | None:
        assert q.shape[1] == size[0] * size[1]
        assert k.shape == v.shape
        self.seen.append((site, size))
        return self._then(site, q, k, v, heads)


def context(name: str, tokens: int = 77, xl: bool = False) -> DiffusersContext:
    states = noise(name, 1, tokens, WIDTH_L)
    if not xl:
        return DiffusersContext(states)
    return DiffusersContext(
        states, noise(name, 1, WIDTH_L), torch.tensor([[128.0, 128.0, 0.0, 0.0, 128.0, 128.0]])
    )


@pytest.fixture(scope="module")
def sd15() -> DiffusersDenoiser:
    return DiffusersDenoiser(tiny_unet(SD15))


@pytest.fixture(scope="module")
def sdxl() -> DiffusersDenoiser:
    return DiffusersDenoiser(tiny_unet(SDXL))


def blocks(denoiser: DiffusersDenoiser) -> list[tuple[str, int]]:
    return list(dict.fromkeys((site.block, site.number) for site in denoiser.sites))


def test_sites_have_comfyuis_names(sd15: DiffusersDenoiser, sdxl: DiffusersDenoiser) -> None:
    inputs, outputs = (1, 2, 4, 5, 7, 8), range(3, 12)
    assert blocks(sd15) == [("input", n) for n in inputs] + [("middle", 0)] + [("output", n) for n in outputs]
    assert len(sd15.sites) == 32
    assert blocks(sdxl) == [("input", n) for n in (4, 5, 7, 8)] + [("middle", 0)] + [
        ("output", n) for n in range(6)
    ]
    depths = [sum(site[:2] == block for site in sdxl.sites) // 2 for block in blocks(sdxl)]
    assert depths == [2, 2, 3, 3, 3, 3, 3, 3, 2, 2, 2]
    assert {site.kind for site in sd15.sites[::2]} == {"self"}
    assert {site.kind for site in sd15.sites[1::2]} == {"cross"}


@pytest.mark.parametrize("size", [(16, 16), (14, 18)])
def test_taps_see_every_site_in_order_and_change_nothing(
    sd15: DiffusersDenoiser, sdxl: DiffusersDenoiser, size: tuple[int, int]
) -> None:
    for denoiser, xl in ((sd15, False), (sdxl, True)):
        x, contexts = noise("x", 2, 4, *size), [context("a", xl=xl), context("b", xl=xl)]
        taps = Watching()
        tapped, plain = denoiser.eps(x, 501, contexts, taps), denoiser.eps(x, 501, contexts)
        assert tapped is not None and plain is not None
        assert (tapped - plain).abs().max() <= 1e-6
        assert [site for site, _ in taps.seen] == denoiser.sites
        sizes = dict(taps.seen)
        assert sizes[Site("input", 7, 0, "cross")] == tuple(-(-side // 4) for side in size)


def test_eps_is_the_unets_own_answer(sd15: DiffusersDenoiser, sdxl: DiffusersDenoiser) -> None:
    x, states = noise("x", 1, 4, 8, 8), context("a", xl=True)
    assert states.pooled is not None and states.time_ids is not None
    with torch.no_grad():
        plain = sd15.unet(x, 21, encoder_hidden_states=states.states).sample
        added = {"text_embeds": states.pooled, "time_ids": states.time_ids}
        xl = sdxl.unet(x, 21, encoder_hidden_states=states.states, added_cond_kwargs=added).sample
    assert torch.equal(sd15.eps(x, 21, [context("a")]), plain)
    assert torch.equal(sdxl.eps(x, 21, [states]), xl)


def test_what_taps_return_is_what_the_network_goes_on_with(sd15: DiffusersDenoiser) -> None:
    x, contexts = noise("x", 1, 4, 8, 8), [context("a")]
    plain = sd15.eps(x, 501, contexts)
    zeroed = sd15.eps(x, 501, contexts, Watching(lambda site, q, *_: torch.zeros_like(q)))
    assert plain is not None and zeroed is not None
    assert (plain - zeroed).abs().max() > 1e-3


def test_a_stopped_pass_gives_none_and_leaves_the_network_as_it_was(sd15: DiffusersDenoiser) -> None:
    last = Site("output", 5, 0, "cross")

    def stop(site: Site, *_: Any) -> None:
        if site == last:
            raise StopForward

    before = dict(sd15.unet.attn_processors)
    x, contexts, taps = noise("x", 1, 4, 8, 8), [context("a")], Watching(stop)
    plain = sd15.eps(x, 501, contexts)
    assert sd15.eps(x, 501, contexts, taps) is None
    assert taps.seen[-1][0] == last
    assert sd15.unet.attn_processors == before
    assert torch.equal(sd15.eps(x, 501, contexts), plain)

    def fail(*_: Any) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sd15.eps(x, 501, contexts, Watching(fail))
    assert sd15.unet.attn_processors == before


def test_contexts_of_other_lengths_change_nothing_in_a_row(sd15: DiffusersDenoiser) -> None:
    exact = DiffusersDenoiser(copy.deepcopy(sd15.unet).double())  # a tiny net magnifies rounding
    x = noise("x", 3, 4, 8, 8)
    contexts = [context("a", 6), context("b", 4), context("c", 3)]
    together = exact.eps(x, 501, contexts)
    alone = [exact.eps(x[i : i + 1], 501, contexts[i : i + 1]) for i in range(3)]
    assert together is not None
    for row, single in zip(together, alone, strict=True):
        assert single is not None and (row - single).abs().max() <= 1e-6


def test_v_prediction_is_turned_into_noise(sd15: DiffusersDenoiser) -> None:
    # If the network's v is that of a picture and noise, eps must be that noise.
    schedule = Schedule.from_betas()
    picture, eps, abar = noise("p", 1, 4, 8, 8), noise("e", 1, 4, 8, 8), schedule.abar(301)
    v = abar**0.5 * eps - (1 - abar) ** 0.5 * picture

    class Net(torch.nn.Module):
        config, down_blocks, up_blocks, mid_block = sd15.unet.config, (), (), None

        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(1))

        def forward(self, *_: Any, **__: Any) -> tuple[torch.Tensor]:
            return (v,)

    denoiser = DiffusersDenoiser(Net(), schedule, "v_prediction")
    found = denoiser.eps(abar**0.5 * picture + (1 - abar) ** 0.5 * eps, 301, [context("a")])
    assert found is not None
    assert (found - eps).abs().max() <= 1e-5


def test_a_half_precision_unet_takes_and_gives_float32() -> None:
    denoiser = DiffusersDenoiser(tiny_unet(SDXL).to(torch.bfloat16))
    x, contexts = noise("x", 1, 4, 16, 16), [context("a", xl=True)]
    whole = DiffusersDenoiser(tiny_unet(SDXL)).eps(x, 501, contexts)
    half = denoiser.eps(x, 501, contexts, Watching())
    assert half is not None and whole is not None and half.dtype == torch.float32
    assert (half - whole).abs().max() <= 0.3 * whole.abs().max()


def test_what_is_no_plain_unet_is_refused() -> None:
    with pytest.raises(ValueError, match="9.*inpainting"):
        DiffusersDenoiser(tiny_unet(SD15 | {"in_channels": 9}))
    wrong: Any = "sample"
    with pytest.raises(ValueError, match="v_prediction"):
        DiffusersDenoiser(tiny_unet(SD15), prediction=wrong)


def test_rows_and_contexts_must_match(sd15: DiffusersDenoiser) -> None:
    with pytest.raises(ValueError, match="2 rows, got 1"):
        sd15.eps(noise("x", 2, 4, 8, 8), 1, [context("a")])


def test_the_grid_of_a_layer() -> None:
    assert grid(7 * 9, 28, 34) == (7, 9)
    assert grid(1, 5, 5) == (1, 1)
    with pytest.raises(ValueError, match="60 queries"):
        grid(60, 28, 34)
