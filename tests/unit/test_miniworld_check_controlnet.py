"""The evaluation of the ControlNet: what it asks for, how it counts, and that all of it runs."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from llmga.data.edges import canny
from miniworld.checks.controlnet import (
    RESULT,
    ControlNetCheckConfig,
    asked_scenes,
    check_controlnet,
    controlnet_table,
    pictures_of,
    recoloured,
    score_controlled,
)
from miniworld.files import CHECKPOINT, CONTROLNET, READER
from miniworld.models.controlnet import load_controlnet
from miniworld.models.painter import load_pipeline
from miniworld.models.random_diffusion import random_controlnet, write_checkpoint, write_controlnet
from miniworld.models.reader import Reader
from miniworld.models.sampling import Control, PaintConfig, paint
from miniworld.world.scene import split_of

SMALL = ControlNetCheckConfig(pictures=3, steps=2, batch=2)
pytestmark = pytest.mark.usefixtures("one_thread")


SIDES = [128, 256]


@pytest.fixture(scope="module", params=SIDES)
def side(request: pytest.FixtureRequest) -> int:
    """Pixels of a side of what the miniature paints."""
    return request.param


@pytest.fixture(scope="module")
def models(side: int, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A miniature with random weights."""
    out = tmp_path_factory.mktemp("models")
    write_checkpoint(out / CHECKPOINT, picture=side)
    write_controlnet(out / CONTROLNET, picture=side)
    save_file({name: value.contiguous() for name, value in Reader().state_dict().items()}, out / READER)
    return out


def test_words_and_edges_disagree_in_what_words_decide() -> None:
    asked = asked_scenes(replace(SMALL, pictures=40))
    for i, scene in enumerate(asked):
        other = recoloured(scene, i)
        assert split_of(scene) == "validation"
        for thing, changed in zip(scene.objects, other.objects, strict=True):
            assert thing.colour != changed.colour and replace(changed, colour=thing.colour) == thing
        assert scene.background != other.background
        assert scene.tone != other.tone and scene.light != other.light


class Silent:
    def read(self, images: torch.Tensor) -> object:
        return None


@pytest.mark.parametrize("side", SIDES)
def test_edges_are_counted_against_those_that_were_given(monkeypatch: pytest.MonkeyPatch, side: int) -> None:
    import miniworld.checks.controlnet as module

    monkeypatch.setattr(module, "score", lambda reading, truth: {})
    pictures = pictures_of(asked_scenes(SMALL), side)
    edges = canny(pictures / 2 + 0.5, SMALL.low_threshold, SMALL.high_threshold)

    def counted(images: torch.Tensor) -> tuple[float, float]:
        found = score_controlled(Silent(), images, edges, asked_scenes(SMALL), SMALL)  # type: ignore[arg-type]
        return found["edges kept"].value, found["edges given"].value

    assert counted(pictures) == (1.0, 1.0)
    assert counted(pictures.roll(1, -1)) == (1.0, pytest.approx(1.0, abs=0.05))  # one pixel
    far = counted(pictures.roll(5, -1))
    assert max(far) < 0.8
    assert counted(torch.zeros_like(pictures))[0] == 0.0


def test_a_controlnet_steers_each_picture_by_its_own_edges(models: Path, side: int) -> None:
    pipeline, net = load_pipeline(models / CHECKPOINT), load_controlnet(models / CONTROLNET)
    edges = (torch.rand(3, 3, side, side, generator=torch.Generator().manual_seed(0)) < 0.1).float()
    captions, config = ["a red star", "", "a blue ring"], PaintConfig(steps=2, batch=2)
    together = paint(pipeline, captions, config, control=Control(net, edges))
    free = paint(pipeline, captions, config)
    exchanged = paint(pipeline, captions, config, control=Control(net, edges[[0, 2, 1]]))
    assert (together - free).abs().amax((1, 2, 3)).min() > 0.01
    torch.testing.assert_close(together[0], exchanged[0])
    assert (together - exchanged)[1:].abs().amax((1, 2, 3)).min() > 0.001
    nothing = paint(pipeline, captions, config, control=Control(net, edges, 0.0))
    torch.testing.assert_close(nothing, free)


def test_the_file_gives_the_network_back(models: Path, side: int) -> None:
    from miniworld.models.painter import new_unet

    written, read = (
        random_controlnet(new_unet(0, side)).state_dict(),
        load_controlnet(models / CONTROLNET).state_dict(),
    )
    assert written.keys() == read.keys()
    assert all(torch.equal(value, read[name]) for name, value in written.items())
    with pytest.raises(FileNotFoundError, match="--only controlnet"):
        load_controlnet(models / "none.safetensors")


def test_it_runs_from_end_to_end(models: Path, side: int) -> None:
    steps: list[tuple[int, int]] = []
    results = check_controlnet(models, SMALL, lambda i, n: steps.append((i, n)))
    assert steps == [(1, 3), (2, 3), (3, 3)]
    document = json.loads((models / RESULT).read_text(encoding="utf-8"))
    assert document["results"].keys() == results.keys() and document["tolerance"] == 1
    # The true picture keeps its own edges; before other colours and another background some are lost.
    assert 0.3 < results["the true picture"]["edges kept"].value < 1
    assert results["without"]["edges kept"].count == results["its own edges"]["edges kept"].count > 100
    lines = controlnet_table(results).splitlines()
    assert len(lines) == 6 and "edges kept" in lines[0] and "texture" in lines[0]
    # the true pictures, both edges each with what is painted, and what is painted without
    assert Image.open(models / "pictures" / "controlnet.png").size == (3 * side, 6 * side)
