"""Small random models on disk: a DiffRIR as released and as safetensors, and diffusers folders of UNets of any size."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import torch

RESTORER = "diffrir-mini-random.pth"
POOL = 1 << 22


def write_restorer(path: Path, scale: int = 1, stage: int = 2, seed: int = 0) -> Path:
    """A DiffRIR of a few thousand weights, in the layout of the released files."""
    from llmga.restore import Architecture, DiffRIRS1, DiffRIRS2

    sizes = Architecture(
        scale=scale,  # type: ignore[arg-type]
        dim=8,
        num_blocks=(1, 1, 1, 1),
        num_refinement_blocks=1,
        n_feats=4,
        n_encoder_res=1,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = (DiffRIRS2 if stage == 2 else DiffRIRS1)(sizes)
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".pth":
        torch.save({"params_ema": net.state_dict()}, path)
    else:
        from safetensors.torch import save_file

        save_file(net.state_dict(), path)
    return path


def random_weights(
    shapes: Mapping[str, tuple[int, ...]], seed: int = 0, dtype: torch.dtype = torch.float16
) -> dict[str, torch.Tensor]:
    """Weights of the usual size, so that signals neither die nor grow; fast, because the same numbers are used again."""
    largest = max(map(math.prod, shapes.values()))
    pool = torch.randn(largest + POOL, generator=torch.Generator().manual_seed(seed))
    weights = {}
    for i, (name, shape) in enumerate(shapes.items()):
        count, at = math.prod(shape), i * 1_000_003 % POOL
        values = pool[at : at + count]
        values = values.reshape(shape)
        if len(shape) > 1:
            weights[name] = (values * 0.7 / math.sqrt(count / shape[0])).to(dtype)
        else:
            weights[name] = (values * 0.05 + name.endswith("weight")).to(dtype)
    return weights


def write_unet(
    folder: Path, weights: Mapping[str, torch.Tensor], name: str = "diffusion_pytorch_model.safetensors"
) -> Path:
    from safetensors.torch import save_file

    path = folder / "unet" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(dict(weights), path)
    return path
