"""Text-to-image networks of the miniature: fresh ones, the pipeline of them, and their files."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from llmga.diffusion.ldm import unet_to_ldm
from llmga.text import clip_tokenizer

from ..world import phrases
from ..world.scene import COLOURS, SHAPES, SIDES, SIZES, TEXTURES, TONES
from .architecture import PICTURE, SCHEDULER, TEXT, config_of_weights, unet_config
from .single_file import (
    StateDict,
    parts_of_single_file,
    single_file,
    text_encoder_from_ldm,
    text_encoder_to_ldm,
    tiny_autoencoder_from_ldm,
    tiny_autoencoder_to_ldm,
    unet_from_ldm,
)

_TABLE_STD = 0.125
_POSITION_STD = 0.05
_TABLE = "embeddings.token_embedding.weight"


def new_unet(seed: int, picture: int = PICTURE) -> Any:
    """A ``UNet2DConditionModel`` with random weights, for pictures of so many pixels a side."""
    from diffusers import UNet2DConditionModel

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return UNet2DConditionModel(**unet_config(picture))


def new_text_encoder(seed: int) -> Any:
    """A ``CLIPTextModel`` with random weights, whose token table stays as it is.

    The table is frozen noise that float8_e4m3fn holds exactly, so the file of 49,408 tokens stays small; rows of tokens
    that no text of the world uses are zero.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = empty_text_encoder()
        used = torch.tensor(sorted(vocabulary()))
        rows = torch.randn(len(used), TEXT["hidden_size"]) * _TABLE_STD
        with torch.no_grad():
            table = net.get_input_embeddings().weight.zero_()
            table[used] = rows.to(torch.float8_e4m3fn).float()
            for name, parameter in net.named_parameters():
                if "position_embedding" in name:
                    parameter.normal_(0, _POSITION_STD)
    net.get_input_embeddings().weight.requires_grad_(False)
    return net


def empty_text_encoder() -> Any:
    """A ``CLIPTextModel`` of the miniature's size, as transformers initialises it."""
    from transformers import CLIPTextConfig, CLIPTextModel

    tokenizer: Any = clip_tokenizer()
    return CLIPTextModel(
        CLIPTextConfig(
            **TEXT,
            vocab_size=len(tokenizer),
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def load_text_encoder(path: Path) -> Any:
    """The text encoder of a file under its transformers names, in float32.

    Raises:
        FileNotFoundError: there is no such file.
    """
    from safetensors.torch import load_file

    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist; `python -m miniworld build` makes it")
    net = empty_text_encoder()
    net.load_state_dict(load_file(path))
    return net.eval()


def vocabulary() -> set[int]:
    """The CLIP tokens of everything that the world's texts say, BOS and EOS among them."""
    tokenizer = clip_tokenizer()
    words = (
        *SHAPES,
        *COLOURS,
        *SIZES,
        *TEXTURES,
        *SIDES,
        *TONES,
        "center",
        "a",
        "an",
        "the",
        "and",
        ",",
        ".",
    )
    relations = ("partly behind", "to the left of", "to the right of", "above", "below", "object", "objects")
    slots = (value for name, value in vars(phrases).items() if name.isupper())
    texts = {re.sub(r"\{\w+\}", " ", text) for text in (*words, *relations, *_strings(list(slots)))}
    return {i for text in texts for i in tokenizer(text, verbose=False).input_ids}


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, (list, tuple, dict)):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _strings(item)


def new_autoencoder() -> Any:
    """An ``AutoencoderTiny`` to be filled."""
    from diffusers import AutoencoderTiny

    return AutoencoderTiny()


def pipeline_of(unet: Any, text_encoder: Any, autoencoder: Any) -> Any:
    """A diffusers ``StableDiffusionPipeline`` of the three networks."""
    from diffusers import DDIMScheduler, StableDiffusionPipeline

    parts: dict[str, Any] = {
        "vae": autoencoder.eval(),
        "text_encoder": text_encoder.eval(),
        "tokenizer": clip_tokenizer(),
        "unet": unet.eval(),
        "scheduler": DDIMScheduler(**SCHEDULER),
        "safety_checker": None,
        "feature_extractor": None,
    }
    return StableDiffusionPipeline(**parts, requires_safety_checker=False)


def write_single_file(path: Path, unet: StateDict, text_encoder: StateDict, autoencoder: StateDict) -> None:
    """Write the networks' state dicts, by their diffusers names, as one checkpoint for ComfyUI: float16, the token
    table float8_e4m3fn where that loses nothing."""
    from safetensors.torch import save_file

    state_dict = single_file(
        unet_to_ldm(unet), text_encoder_to_ldm(text_encoder), tiny_autoencoder_to_ldm(autoencoder)
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: _stored(name, value) for name, value in state_dict.items()}, path)


def _stored(name: str, value: torch.Tensor) -> torch.Tensor:
    if name.endswith(_TABLE):
        small = value.to(torch.float8_e4m3fn)
        if torch.equal(small.float(), value.float()):
            return small
    return value.half() if value.dim() else value


def write_half(state_dict: StateDict, path: Path) -> None:
    """Write one network's weights in float16."""
    from safetensors.torch import save_file

    path.parent.mkdir(parents=True, exist_ok=True)
    halves = {name: value.half().contiguous() for name, value in state_dict.items()}
    save_file(halves, path, metadata={"format": "pt"})


def write_float8(state_dict: StateDict, path: Path) -> None:
    """Write one network's matrices in float8_e4m3fn, and in float16 what is one number a channel."""
    from safetensors.torch import save_file

    path.parent.mkdir(parents=True, exist_ok=True)
    small = {
        name: value.to(torch.float8_e4m3fn if value.dim() > 1 else torch.float16).contiguous()
        for name, value in state_dict.items()
    }
    save_file(small, path, metadata={"format": "pt"})


def load_pipeline(path: Path) -> Any:
    """The diffusers ``StableDiffusionPipeline`` of a single file that ``write_single_file`` wrote, in float32.

    Raises:
        FileNotFoundError: there is no such file.
    """
    from diffusers import UNet2DConditionModel
    from safetensors.torch import load_file

    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist; `python -m miniworld build` makes it")
    parts = parts_of_single_file({name: value.float() for name, value in load_file(path).items()})
    unet = UNet2DConditionModel(**config_of_weights(parts[0]))
    text_encoder, autoencoder = empty_text_encoder(), new_autoencoder()
    unet.load_state_dict(unet_from_ldm(parts[0], unet.state_dict()))
    text_encoder.load_state_dict(text_encoder_from_ldm(parts[1], text_encoder.state_dict()))
    autoencoder.load_state_dict(tiny_autoencoder_from_ldm(parts[2]))
    return pipeline_of(unet, text_encoder, autoencoder)


def load_unet(folder: Path) -> Any:
    """A UNet folder of diffusers, in float32.

    Raises:
        FileNotFoundError: there is no such folder.
    """
    from diffusers import UNet2DConditionModel

    if not (folder / "config.json").is_file():
        raise FileNotFoundError(f"{folder} holds no UNet; `python -m miniworld build` makes it")
    return UNet2DConditionModel.from_pretrained(folder, torch_dtype=torch.float32).eval()
