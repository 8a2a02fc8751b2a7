"""Train a canny-edge ControlNet: a copy of a frozen UNet's encoder that learns to steer it by the edges of a picture."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from ..data.edges import canny, check_thresholds
from ..diffusion.ldm import controlnet_to_ldm
from .captioned_images import CaptionedPictures, ExampleVariants, Pictures
from .components import Components, load_components, plain_attention
from .example_order import derive
from .loop import Weights, train
from .stage2 import Stage2, Stage2Config, Stage2Inputs

SINGLE_FILE = "controlnet.safetensors"
"""The result for ComfyUI's ``models/controlnet``."""
_SHRINKS = 8
"""A ControlNet's encoder of the hint halves it three times."""


@dataclass(frozen=True)
class ControlNetConfig(Stage2Config):
    task: Literal["t2i"] = "t2i"
    """A ControlNet belongs to a UNet of 4 channels."""
    train_text_encoder: Literal[False] = False
    """Nothing but the ControlNet is trained."""
    flip: bool = False
    """Mirror half of the pictures whose caption names no side, and their edges with them."""
    start: str = ""
    """A diffusers folder of a ControlNet to go on from; empty begins with a copy of the UNet's encoder."""
    hint_init: Literal["diffusers", "he"] = "diffusers"
    """How the encoder of the edges begins. As diffusers begins, what edges change is about 1e-5 behind it, and it takes long
    before they count; ``he`` (He's normal weights, biases of 0) keeps them a thousand times larger, for short trainings."""
    low_threshold: tuple[float, float] = (0.3, 0.3)
    """Canny's lower threshold is drawn between these, for each example anew; equal ones fix it. The unit is that of
    ComfyUI's node Canny."""
    high_threshold: tuple[float, float] = (0.7, 0.7)
    """The same of its upper threshold."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.box_loss or self.box_loss_end is not None:
            raise ValueError(
                "box_loss teaches a UNet where to attend, and the UNet of a ControlNet is frozen; set box_loss=0 and "
                f"box_loss_end=null, got {self.box_loss} and {self.box_loss_end}"
            )
        for name in ("low_threshold", "high_threshold"):
            least, most = getattr(self, name)
            if least > most:
                raise ValueError(f"{name} must be [least, most], got {[least, most]}")
        check_thresholds(self.low_threshold[0], self.high_threshold[1])
        if self.low_threshold[1] > self.high_threshold[0]:
            raise ValueError(
                f"low_threshold ends at {self.low_threshold[1]}, above the least high_threshold, "
                f"{self.high_threshold[0]}; the two must not overlap"
            )


@dataclass(frozen=True)
class EdgeVariants(ExampleVariants):
    """Random variants of examples with the edges of their pictures, found between thresholds drawn for each variant."""

    low: tuple[float, float]
    high: tuple[float, float]

    def hints(self, pairs: Sequence[tuple[int, int]], images: torch.Tensor) -> dict[str, torch.Tensor]:
        """``edges``, packed as ``packed`` does.

        Raises:
            ValueError: the pictures' sides are not multiples of 8.
        """
        height, width = images.shape[-2:]
        if height % _SHRINKS or width % _SHRINKS:
            raise ValueError(
                f"a ControlNet needs pictures whose sides are multiples of {_SHRINKS}, got {width} × {height}; change "
                "pictures.resolution"
            )
        low, high = (
            torch.tensor([self._threshold(pair, name) for pair in pairs]) for name in ("low", "high")
        )
        return {"edges": packed(canny(images / 2 + 0.5, low, high))}

    def _threshold(self, pair: tuple[int, int], name: str) -> float:
        least, most = getattr(self, name)
        return least + (most - least) * derive(self.seed, *pair, name) / 2**63


def packed(edges: torch.Tensor) -> torch.Tensor:
    """(B, 1, H, W) of 0 and 1, W a multiple of 8, as (B, H, W / 8) uint8: eight pixels a byte, the first the highest bit."""
    bits = edges[:, 0].bool().unflatten(-1, (-1, 8))
    return (bits * _places(edges.device)).sum(-1).to(torch.uint8)


def unpacked(edges: torch.Tensor) -> torch.Tensor:
    """The way back, as (B, 3, H, W) float32: ControlNets take the edges as a picture in 0 .. 1."""
    bits = edges[..., None].int() & _places(edges.device) != 0
    return bits.flatten(-2)[:, None].expand(-1, 3, -1, -1).float()


def _places(device: torch.device) -> torch.Tensor:
    return 2 ** torch.arange(7, -1, -1, device=device)


class ControlNetStage(Stage2):
    """The trainer (see ``loop.Trainer``) of a canny-edge ControlNet for a frozen UNet of SD1.x, SD2.x or SDXL.

    It begins as a copy of the UNet's encoder behind convolutions of zeros, so that at first it changes nothing. What is
    lowered is the squared error of the noise that UNet and ControlNet predict together; captions are dropped now and then.
    As in stage 2 a caption may be longer than 75 tokens.

    Args:
        controlnet: a diffusers ``ControlNetModel`` to go on from.

    Raises:
        ValueError: the components and the configuration do not fit.

    Source: diffusers 0.42 ``examples/controlnet/train_controlnet.py``, whose ``proportion_empty_prompts`` is
    ``caption_dropout``; there edges are read from the data set, here they are found in the pictures.
    """

    config: ControlNetConfig

    def __init__(
        self,
        config: ControlNetConfig,
        components: Components,
        pictures: Pictures,
        controlnet: Any = None,
    ) -> None:
        shrinks = 2 ** (len(components.vae.config.block_out_channels) - 1)
        if shrinks != _SHRINKS:
            raise ValueError(
                f"a ControlNet needs an autoencoder that shrinks pictures by {_SHRINKS}, that of base shrinks by {shrinks}"
            )
        super().__init__(config, components, pictures)
        if controlnet is None:
            controlnet = new_controlnet(components.unet, config.loop.seed, config.hint_init)
        _check_fits(controlnet, components.unet)
        self.controlnet = controlnet
        if config.gradient_checkpointing:
            self.controlnet.enable_gradient_checkpointing()
        components.unet.requires_grad_(False).eval()
        self._frozen.append(components.unet)

    def modules(self) -> Mapping[str, nn.Module]:
        return {"controlnet": self.controlnet}

    def prepare(self, device: torch.device, rank: int, world: int, barrier: Callable[[], None]) -> None:
        super().prepare(device, rank, world, barrier)
        if device.type == "cpu":
            plain_attention(self.controlnet)

    def _variants(self) -> EdgeVariants:
        c = self.config
        return EdgeVariants(self.pictures, c.loop.seed, c.flip, False, c.low_threshold, c.high_threshold)

    def _predict(self, sample: torch.Tensor, timesteps: torch.Tensor, inputs: Stage2Inputs) -> torch.Tensor:
        context, added = self._conditioning(inputs)
        hint = unpacked(inputs.images["edges"].byte())
        down, middle = self.controlnet(sample, timesteps, context, hint, return_dict=False, **added)
        output = self.components.unet(
            sample,
            timesteps,
            context,
            down_block_additional_residuals=down,
            mid_block_additional_residual=middle,
            **added,
        )
        return output.sample

    def _shown(self, inputs: Stage2Inputs, count: int) -> list[torch.Tensor]:
        return [unpacked(inputs.images["edges"][:count].byte()) * 2 - 1]

    def export(self, folder: Path, weights: Weights) -> None:
        """``controlnet/`` as diffusers reads it, and the same weights under lllyasviel/ControlNet's names as one file."""
        from safetensors.torch import save_file

        trained = weights["controlnet"]
        self.controlnet.save_config(folder / "controlnet")
        save_file(
            trained, folder / "controlnet" / "diffusion_pytorch_model.safetensors", metadata={"format": "pt"}
        )
        save_file(controlnet_to_ldm(trained), folder / SINGLE_FILE, metadata={"format": "pt"})


def _check_fits(controlnet: Any, unet: Any) -> None:
    wanted = {
        name: unet.config[name] for name in ("in_channels", "block_out_channels", "cross_attention_dim")
    }
    for name, value in {**wanted, "conditioning_channels": 3}.items():
        found = controlnet.config[name]
        if _comparable(found) != _comparable(value):
            raise ValueError(
                f"start must be a ControlNet whose {name} is {value}, to fit the UNet of base; it is {found}"
            )


def _comparable(value: Any) -> Any:
    """A list for a tuple: which of them a configuration holds depends on whether it was read from a file."""
    return [*value] if isinstance(value, (tuple, list)) else value


def new_controlnet(unet: Any, seed: int, hint_init: Literal["diffusers", "he"] = "diffusers") -> Any:
    """A diffusers ``ControlNetModel`` with a copy of the UNet's encoder; its encoder of the hint is random.

    Source of ``he``: He et al., Delving Deep into Rectifiers, 2015. The last convolution stays zero.
    """
    from diffusers import ControlNetModel

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive(seed, "controlnet"))
        net = ControlNetModel.from_unet(unet)
        if hint_init == "he":
            encoder: Any = net.controlnet_cond_embedding
            for layer in (encoder.conv_in, *encoder.blocks):
                nn.init.kaiming_normal_(layer.weight)
                nn.init.zeros_(layer.bias)
        return net


def run(config: ControlNetConfig, output: Path) -> Path:
    """Train what a configuration alone describes; returns the folder of the result.

    Raises:
        ValueError: ``base`` or ``pictures`` is missing, or see ``loop.train``.
        FileNotFoundError: pictures are missing; the message names their list and the first ones.
    """
    from diffusers import ControlNetModel

    if not config.base or config.pictures is None:
        raise ValueError("base (a diffusers folder) and pictures (records, root) are needed")
    p = config.pictures
    pictures = CaptionedPictures(p.records, p.root, p.resolution, p.short_captions)
    pictures.check()
    begun = ControlNetModel.from_pretrained(config.start, use_safetensors=True) if config.start else None
    stage = ControlNetStage(config, load_components(config.base), pictures, begun)
    return train(stage, config.loop, output, config)
