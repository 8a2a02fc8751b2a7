"""LLMGA UNet Loader downloads a published UNet when asked, and goes on where it stopped."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import comfy_inprocess
from support.hub import Hub
from support.small_models import write_unet
from support.unet_loading import STEM, clear, diffusion_models, mini_unet, node, run

pytestmark = pytest.mark.skipif(
    comfy_inprocess.skip_reason() is not None, reason=str(comfy_inprocess.skip_reason())
)
PROXIES = ("http_proxy", "https_proxy", "all_proxy")


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    with diffusion_models() as found:
        yield found


@pytest.fixture(autouse=True)
def empty(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in (*PROXIES, *map(str.upper, PROXIES), "HF_HUB_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    yield
    clear(folder)


def test_a_download_that_stopped_between_two_parts_goes_on(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then there is no .part to tell it by."""
    weights = mini_unet(9)
    halves = [list(weights)[:100], list(weights)[100:]]
    names = [f"{STEM}-{i:05d}-of-00002.safetensors" for i in (1, 2)]
    parts = {
        f"unet/{name}": write_unet(folder / "source", {key: weights[key] for key in half}, name).read_bytes()
        for name, half in zip(names, halves, strict=True)
    }
    shutil.rmtree(folder / "source")
    places = {key: name for name, half in zip(names, halves, strict=True) for key in half}
    index = {f"unet/{STEM}.safetensors.index.json": json.dumps({"weight_map": places}).encode()}
    monkeypatch.setenv("LLMGA_ALLOW_DOWNLOADS", "1")
    with Hub({**index, **parts}) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        hub.failing = {names[1]}
        with pytest.raises(ConnectionError, match="cannot be downloaded|stopped"):
            run("llmga-sdxl-inpainting-v2/", download=True)
        assert not list(folder.rglob("*.part")) and list(folder.rglob(names[0]))
        with pytest.raises(FileNotFoundError, match="is missing, one of the 2 parts"):
            run("llmga-sdxl-inpainting-v2/")
        hub.failing = set()
        assert "inpainting" in run("llmga-sdxl-inpainting-v2/", download=True)[1]


def test_nothing_is_downloaded_unless_asked(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_unet(folder / "source", mini_unet(9))
    files = {
        f"unet/{STEM}.safetensors": path.read_bytes(),
        "unet/config.json": json.dumps({"_class_name": "UNet2DConditionModel"}).encode(),
        "scheduler/scheduler_config.json": b'{"prediction_type": "epsilon"}',
    }
    with Hub(files) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        published = "llmga-sd15-inpainting-v2/"
        assert published in node().define_schema().inputs[0].options
        with pytest.raises(FileNotFoundError, match="not on this machine; turn 'download' on"):
            run(published)
        monkeypatch.delenv("LLMGA_ALLOW_DOWNLOADS", raising=False)
        with pytest.raises(ValueError, match="LLMGA_ALLOW_DOWNLOADS=1"):
            run(published, download=True)
        assert not hub.asked
        monkeypatch.setenv("LLMGA_ALLOW_DOWNLOADS", "1")
        hub.cut = [10**9, 10**9, 2_500_000]
        with pytest.raises(ConnectionError, match="it goes on where it was"):
            run(published, download=True)
        _, readout = run(published, download=True)
        assert "inpainting" in readout and "as its scheduler or its file says" in readout
        assert any(asked for _, asked in hub.asked)  # it went on in the middle
        before = len(hub.asked)
        run(published, download=True)  # it is there
        run(published)
        assert len(hub.asked) == before
