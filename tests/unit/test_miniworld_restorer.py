"""The miniature's restorer: its pool, its training from end to end, and the measures of its check."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("accelerate", reason="training needs accelerate")

from llmga.data.degradations import Degradation, Pass
from llmga.restore import Architecture, DiffRIRS2
from llmga.train import LoopConfig
from llmga.train.degraded_images import Crops
from miniworld.checks.restorer import RestorerCheck, check_restorers
from miniworld.models.restorer import (
    MILD,
    SMALL,
    Pool,
    PoolCrops,
    RestorerConfig,
    load_restorer,
    train_restorers,
    variants,
)
from miniworld.world.dataset import Scenes, painted
from miniworld.world.render import render
from miniworld.world.scene import Scene

pytestmark = pytest.mark.usefixtures("one_thread")
STILL = Pass(blur=0, resize=(1, 1), noise_sigma=(0, 0), gaussian=1, jpeg=0)
SHIFT = Degradation(STILL, STILL, final_sinc=0, gain=0.08, bias=0.05)


def tiny(network: Architecture = SMALL, steps: int = 2) -> RestorerConfig:
    loop = LoopConfig(steps, 4, 4, 1e-3, cpu=True, ema=0.9, save_every=1)
    return RestorerConfig(loop, loop, loop, pictures=6, network=network)


def test_crops_come_from_the_same_place_and_colours_are_drawn_anew() -> None:
    rng = np.random.default_rng(0)
    truth = rng.integers(60, 190, (4, 50, 60, 3), dtype=np.uint8)  # not so bright as to be cut off
    examples = PoolCrops(Pool(truth, SHIFT, 0, {}), Crops(48, 32, degradation=SHIFT))
    np.testing.assert_array_equal(examples.pool.degraded, truth)  # only colours are shifted, and not here
    device = torch.device("cpu")
    part = examples.part([0, 1, 2, 3, 0], np.random.default_rng(1), device)
    assert part.truth.shape == part.image.shape == (5, 3, 32, 32) and part.mask.shape == (5, 1, 32, 32)
    gains = []
    for image, clean in zip(part.image.double(), part.truth.double(), strict=True):
        design = torch.stack([clean.flatten(), torch.ones(clean.numel())], 1)
        gain, bias = torch.linalg.lstsq(design, image.flatten()[:, None]).solution.flatten()
        torch.testing.assert_close(image, clean * gain + bias, atol=1e-5, rtol=0)
        assert abs(gain - 1) <= 0.08 and abs(bias) <= 0.05
        gains.append(float(gain))
    assert len(set(gains)) == 5
    again = examples.part([0, 1, 2, 3, 0], np.random.default_rng(1), device)
    assert torch.equal(again.image, part.image) and torch.equal(again.mask, part.mask)
    assert not torch.equal(part.truth[0], part.truth[4])


def test_the_ablations_are_the_papers() -> None:
    config = tiny()
    found = variants(config)
    assert list(found) == ["restorer", "no reference", "no colour"]
    assert found["restorer"] == config and found["no colour"].network.reference
    still = found["no colour"].crops.degradation
    assert (still.gain, still.bias) == (0, 0) and replace(still, gain=0.08, bias=0.05) == MILD
    assert not found["no reference"].network.reference
    assert found["no reference"].crops == found["no colour"].crops


def test_pictures_that_are_degraded_already_are_left_so() -> None:
    truth = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3), dtype=np.uint8)
    degraded = Pool(truth, SHIFT, 0, {1: 255 - truth[1]}).degraded
    np.testing.assert_array_equal(degraded, np.stack([truth[0], 255 - truth[1], truth[2]]))


def test_all_variants_are_trained_and_loaded(tmp_path: Path) -> None:
    config, asked = tiny(), []

    def repaint(pixels: np.ndarray, scenes: Sequence[Scene]) -> np.ndarray:
        asked.extend(scenes)
        np.testing.assert_array_equal(pixels[0], np.asarray(render(scenes[0]).image))
        return pixels

    files = train_restorers(config, painted(Scenes(6), tmp_path / "cache", workers=1), tmp_path, repaint)
    assert 0 < len(asked) < 6
    nets = {name: load_restorer(path, variants(config)[name].network) for name, path in files.items()}
    assert all(path.stat().st_size < 1.2e6 for path in files.values())
    results = check_restorers(nets, RestorerCheck(3), pictures=tmp_path / "pictures")
    assert (tmp_path / "pictures" / "restored.png").is_file()
    assert {"input", "colour match", *nets, "restorer − no reference"} <= results.keys()
    with pytest.raises(FileNotFoundError, match="miniworld build"):
        load_restorer(tmp_path / "missing.safetensors")


def test_the_measures() -> None:
    """A net that adds nothing is the input; where only the colours are off, a match of colours is the truth."""
    net: Any = DiffRIRS2(SMALL)
    for parameter in net.G.tail[1].parameters():
        torch.nn.init.zeros_(parameter)
    results = check_restorers({"nothing": net}, RestorerCheck(6, degradation=SHIFT))
    for name, rate in results[
        "nothing"
    ].items():  # a nearest-neighbour copy comes back in another order of sums
        assert rate.value == pytest.approx(results["input"][name].value, rel=1e-6)
        assert results["nothing − input"][name].value == pytest.approx(0, abs=1e-5)
    match, given = results["colour match"], results["input"]
    assert match["psnr"].value > 40 > given["psnr"].value  # 8 bits
    assert match["brightness"].value < 1 < given["brightness"].value
    assert match["border"].value < 1.5 < given["border"].value
    assert all(rate.count == 6 and rate.error > 0 for rate in given.values())


def test_an_autoencoder_may_do_the_degrading() -> None:
    """This one gives back what it gets: then only the colours are off."""

    class Through:
        device = torch.device("cpu")

        def encoder(self, images: torch.Tensor) -> torch.Tensor:
            return images

        decoder = encoder

    results = check_restorers({"net": DiffRIRS2(SMALL)}, RestorerCheck(4), Through())
    assert results["colour match"]["psnr"].value > 35 > results["input"]["psnr"].value
