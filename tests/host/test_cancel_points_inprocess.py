"""Cancel is asked for at least once for each picture of a batch, in every node that works on pictures by itself."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest
import torch
from support import comfy_inprocess

from miniworld.models.random_diffusion import write_restorer

pytestmark = pytest.mark.skipif(
    comfy_inprocess.comfy_path() is None, reason=str(comfy_inprocess.skip_reason())
)
SIDE = 48


def pictures(count: int) -> torch.Tensor:
    return torch.rand(count, SIDE, SIDE, 3, generator=torch.Generator().manual_seed(count))


def hole() -> torch.Tensor:
    mask = torch.zeros(1, SIDE, SIDE)
    mask[:, 12:30, 10:32] = 1
    return mask


def restore(count: int, method: str, restorer: Any = None) -> Any:
    node = comfy_inprocess.pack("nodes.restore").DiffRIRRestore
    return node.execute(pictures(count), pictures(count), hole(), method, 0, "soft", restorer)


def network(count: int, folder: Path) -> Any:
    module = comfy_inprocess.pack("nodes.restore")
    write_restorer(folder / "net.safetensors")
    net = module.load_restorer(folder / "net.safetensors").restorer
    return restore(count, "DiffRIR", module.Restorer(net, lambda: torch.device("cpu"), "a restorer"))


def stitch(count: int, folder: Path) -> Any:
    paint = comfy_inprocess.pack("nodes.paint")
    part, _, crop, *_ = paint.CropForPainting.execute(pictures(count), hole(), 32, 32, 1.5, False).args
    return paint.StitchPainting.execute(crop, part, 8)


def keep(count: int, folder: Path) -> Any:
    node = comfy_inprocess.pack("nodes.keep").KeepTheRest
    return node.execute(pictures(count), pictures(count), 0, 4, True, True)


def chat(count: int, folder: Path) -> Any:
    shown = comfy_inprocess.pack("nodes.chat_inputs").shown_pictures
    return shown(pictures(count), hole())


NODES = {
    "DiffRIR": network,
    "colour correction": lambda count, folder: restore(count, "colour correction"),
    "Seam Report": lambda count, folder: comfy_inprocess.pack("nodes.restore").SeamReport.execute(
        pictures(count), hole(), 4
    ),
    "Stitch Painting": stitch,
    "Keep the Rest": keep,
    "pictures of a chat": chat,
}


@pytest.mark.parametrize("name", NODES)
def test_each_picture_has_its_own(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    comfy_inprocess.start()
    management: Any = importlib.import_module("comfy.model_management")
    asked, stop_at = [0], [0]

    def asked_again() -> None:
        asked[0] += 1
        if asked[0] == stop_at[0]:
            raise management.InterruptProcessingException

    monkeypatch.setattr(management, "throw_exception_if_processing_interrupted", asked_again)
    NODES[name](1, tmp_path)
    one, asked[0] = asked[0], 0
    NODES[name](3, tmp_path)
    assert one >= 1 and asked[0] == 3 * one
    asked[0], stop_at[0] = 0, 2 * one + 1
    with pytest.raises(management.InterruptProcessingException):
        NODES[name](3, tmp_path)
