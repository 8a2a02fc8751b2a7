"""Canny edges: against kornia's on a photograph, and what its rules promise. The host suite compares with ComfyUI's node."""

from __future__ import annotations

import json
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import pytest
import torch

from llmga.data.edges import canny

FIXTURE = Path(__file__).parent / "fixtures" / "canny_kornia.json"


@pytest.fixture(scope="module")
def recorder() -> Any:
    spec = spec_from_file_location("canny_kornia", FIXTURE.with_suffix(".py"))
    assert spec and spec.loader
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(("thresholds", "expected"), json.loads(FIXTURE.read_text(encoding="utf-8")).items())
def test_the_edges_are_kornias(recorder: Any, thresholds: str, expected: list[str]) -> None:
    """Pixel for pixel; between thresholds near each other and far from each other."""
    low, high = map(float, thresholds.split())
    edges = canny(recorder.picture(), low, high)
    assert edges.shape == (1, 1, 120, 96) and edges.dtype == torch.float32
    assert 0.005 < edges.mean() < 0.2
    assert recorder.rows(edges) == expected


def disc(side: int = 40, value: float = 1.0) -> torch.Tensor:
    at = torch.arange(side) - side / 2 + 0.5
    inside = (at[:, None] ** 2 + at**2).sqrt() < side / 4
    return (inside * value).expand(1, 3, -1, -1).float()


def test_a_disc_has_one_closed_thin_edge() -> None:
    edges = canny(disc(), 0.3, 0.7)[0, 0].bool()
    at = torch.arange(40) - 19.5
    radius = (at[:, None] ** 2 + at**2).sqrt()
    assert edges.any() and (radius[edges] - 10).abs().max() < 1.5
    angles = torch.atan2(*(part.float() - 19.5 for part in edges.nonzero().T))
    assert torch.histc(angles, 24, -torch.pi, torch.pi).min() > 0  # from every side
    assert edges.sum() < 2 * torch.pi * 10 * 1.3  # a line, not a band


def test_weak_edges_count_where_a_strong_one_leads_to_them() -> None:
    ramp = torch.linspace(0.05, 0.5, 40)[:, None].expand(40, 20)  # a step that grows from top to bottom
    picture = torch.cat([torch.zeros(40, 20), ramp], 1).expand(1, 3, -1, -1)
    whole, strong = canny(picture, 0.2, 1.0), canny(picture, 1.0, 1.0)
    assert whole.sum(-1).max() == 1  # a vertical line
    assert 0 < strong.sum() < whole.sum() < 40
    assert canny(picture * 0.3, 0.2, 1.0).sum() == 0  # weak alone is nothing


def test_each_picture_has_thresholds_of_its_own_and_a_batch_is_the_loop() -> None:
    pictures = torch.cat([disc(value=0.2), disc(value=0.2), torch.rand(1, 3, 40, 40)])
    low, high = torch.tensor([0.3, 0.1, 0.2]), torch.tensor([0.7, 0.2, 0.4])
    together = canny(pictures, low, high)
    alone = [canny(pictures[i : i + 1], float(low[i]), float(high[i])) for i in range(3)]
    assert torch.equal(together, torch.cat(alone))
    assert together[0].sum() == 0 < together[1].sum()
    assert canny(torch.full((1, 3, 8, 8), 0.5), 0.1, 0.2).sum() == 0


@pytest.mark.parametrize(
    ("shape", "low", "high", "message"),
    [
        ((1, 1, 8, 8), 0.1, 0.2, r"\(B, 3, H, W\).*got \[1, 1, 8, 8\]"),
        ((1, 3, 2, 8), 0.1, 0.2, "at least 3"),
        ((1, 3, 8, 8), 0.3, 0.2, "low 0.3.* and high 0.2"),
        ((1, 3, 8, 8), 0.0, 0.2, "0 < low <= high"),
        ((1, 3, 8, 8), 0.1, 100.0, "Sobel magnitude"),
    ],
)
def test_what_is_refused(shape: tuple[int, ...], low: float, high: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        canny(torch.zeros(shape), low, high)
