"""The miniature's ControlNet: its file, read back as diffusers' network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from llmga.diffusion.ldm import controlnet_to_ldm

from .architecture import config_of_weights


def load_controlnet(path: Path) -> Any:
    """The diffusers ``ControlNetModel`` of a file in lllyasviel/ControlNet's layout, in float32.

    Raises:
        FileNotFoundError: there is no such file.
    """
    from diffusers import ControlNetModel, UNet2DConditionModel
    from safetensors.torch import load_file

    if not path.is_file():
        raise FileNotFoundError(
            f"{path} does not exist; `python -m miniworld build --only controlnet` makes it"
        )
    file = load_file(path)
    config = config_of_weights({name.removeprefix("control_model."): value for name, value in file.items()})
    net: Any = ControlNetModel.from_unet(UNet2DConditionModel(**config), load_weights_from_unet=False)
    names = controlnet_to_ldm({name: name for name in net.state_dict()})
    net.load_state_dict({name: file[stored].float() for stored, name in names.items()})
    return net.eval()
