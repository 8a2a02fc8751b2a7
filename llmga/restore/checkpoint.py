"""A DiffRIR or DiffIR from a file: the sizes are read off the shapes, and every tensor has its place or it is refused."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from ..files.header import read_header
from ..files.kinds import WrongFileError, shown
from ..files.known_kinds import DIFFRIR, DIFFRIR_S1, KINDS, check_kind
from ..files.tensors import read_wrapped
from .network import Architecture, DiffRIRS1, DiffRIRS2, without_repetitions

StateDict = Mapping[str, torch.Tensor]
CheckpointStage = Literal["s1", "s2"]

_CHANNELS: dict[int, tuple[Literal[1, 2, 4], bool]] = {
    Architecture(scale=scale, reference=reference).channels: (scale, reference)
    for scale in (1, 2, 4)
    for reference in (True, False)
}
_LEVELS = ("encoder_level1", "encoder_level2", "encoder_level3", "latent")


@dataclass(frozen=True)
class Loaded:
    """A network ready for inference, and what it is."""

    net: DiffRIRS1 | DiffRIRS2
    kind: CheckpointStage
    """"s2" restores; "s1", the first stage, is given the true picture and cannot."""
    architecture: Architecture
    entry: str | None
    """Which of ``files.header.WRAPPERS`` the weights were in; None: the file holds them directly."""
    path: Path

    @property
    def scale(self) -> int:
        return self.architecture.scale

    @property
    def reference(self) -> bool:
        """It looks at the preserved part; without, it is a DiffIR."""
        return self.architecture.reference

    @property
    def restorer(self) -> DiffRIRS2:
        """The network, if it can restore.

        Raises:
            WrongFileError: it is a first stage.
        """
        if isinstance(self.net, DiffRIRS2):
            return self.net
        raise WrongFileError(self.path, next(kind for kind in KINDS if kind.name == DIFFRIR_S1))


def load_restorer(
    path: str | Path,
    operations: Any = nn,
    dtype: torch.dtype | None = None,
    device: torch.device | str = "cpu",
) -> Loaded:
    """Load a ``.pth`` (the official layout) or safetensors file of DiffRIR or DiffIR, x1, x2 or x4, S1 or S2.

    The smoothed weights (``params_ema``) are taken from a file that holds several sets. Nothing in a ``.pth`` is run.
    The network has memory of its own: no more than the file is held beside it, and that is mapped.

    Args:
        operations: what makes weighted layers, ``torch.nn`` or the host's.
        dtype: of the weights, float16, bfloat16 or float32; the file's own by default.

    Raises:
        FileNotFoundError: there is no such file.
        WrongFileError: it is damaged or another kind of file; says which.
        ValueError: a tensor is missing, left over, of another shape or not finite, or the network is for another task.
    """
    path = Path(path)
    check_kind(path, read_header(path), (DIFFRIR, DIFFRIR_S1))
    tensors, entry = read_wrapped(path)
    # Saved from PyTorch's wrapper for several GPUs, every name begins with it.
    state = {name.removeprefix("module."): value for name, value in tensors.items()}
    del tensors
    try:
        kind, architecture = infer(state)
        own = without_repetitions(state)
        del state
        net = _build(own, kind, architecture, operations, dtype, device)
    except ValueError as error:
        raise ValueError(f"{shown(path)}: {error}") from error
    return Loaded(net, kind, architecture, entry, path)


def infer(state: StateDict) -> tuple[CheckpointStage, Architecture]:
    """The stage and the sizes of the network that a state dict belongs to.

    Raises:
        ValueError: of none, or the shapes contradict each other.
    """
    _check_dimensions(state)
    first = state.get("G.patch_embed.proj.weight")
    encoder, kind = ("condition.", "s2") if "condition.E.0.weight" in state else ("E.", "s1")
    if first is None or f"{encoder}E.0.weight" not in state:
        raise ValueError(
            "not a whole DiffRIR: G.patch_embed.proj.weight or the encoder of its prior is missing"
        )
    if first.ndim != 4 or first.shape[1] not in _CHANNELS:
        raise ValueError(
            "a DiffIR for another task than restoration: its first layer has the shape "
            f"{tuple(first.shape)}, while the restorers have {sorted(_CHANNELS)} channels there"
        )
    if any(name.endswith("norm1.body.bias") for name in state):
        raise ValueError(
            "a DiffIR for another task than restoration: its norms have a bias (LayerNorm_type WithBias)"
        )
    scale, reference = _CHANNELS[first.shape[1]]
    sizes: dict[str, Any] = {
        "scale": scale,
        "reference": reference,
        "dim": first.shape[0],
        "num_blocks": tuple(_count(state, rf"G\.{level}\.(\d+)\.") for level in _LEVELS),
        "num_refinement_blocks": _count(state, r"G\.refinement\.(\d+)\."),
        "heads": tuple(_heads(state, level, 2**i) for i, level in enumerate(_LEVELS)),
        "ffn_expansion_factor": _expansion(state),
        "n_feats": state[f"{encoder}E.0.weight"].shape[0],
        "n_encoder_res": len(
            {name for name in state if re.fullmatch(rf"{encoder}E\.\d+\.body\.0\.weight", name)}
        ),
    }
    if kind == "s2":
        betas = state.get("diffusion.betas")
        if betas is None or betas.ndim != 1 or len(betas) < 1:
            raise ValueError("diffusion.betas is missing: the weights were saved without their schedule")
        sizes |= {
            "n_denoise_res": _count(state, r"denoise\.resmlp\.(\d+)\.resmlp\."),
            "timesteps": len(betas),
            "linear_start": round(betas[0].item(), 6),
            "linear_end": round(betas[-1].item(), 6),
        }
    return kind, Architecture(**sizes)


def _check_dimensions(state: StateDict) -> None:
    """Sizes are read off the shapes: a number alone has none, and neither has a side of 0."""
    for name, value in state.items():
        if not name.endswith((".weight", ".temperature", "betas")):
            continue
        if not value.is_floating_point():
            raise ValueError(f"the tensor {name!r} holds {value.dtype}, no weights; download the file again")
        if value.ndim < 1 + name.endswith("ffn.project_out.weight") or 0 in value.shape:
            raise ValueError(
                f"the tensor {name!r} has the shape {tuple(value.shape)}, which no restorer has; download the file again"
            )


def _build(
    own: dict[str, torch.Tensor],
    kind: CheckpointStage,
    architecture: Architecture,
    operations: Any,
    dtype: torch.dtype | None,
    device: torch.device | str,
) -> DiffRIRS1 | DiffRIRS2:
    with torch.device("meta"):  # nothing is allocated for what does not fit
        net = (DiffRIRS2 if kind == "s2" else DiffRIRS1)(architecture, operations)
    _check(own, net.state_dict(), kind)
    dtype = dtype or own["G.patch_embed.proj.weight"].dtype
    for name, value in own.items():
        # The schedule's last entries lie too close to 1 for half precision.
        kept = torch.float32 if name.startswith("diffusion.") else dtype
        own[name] = value.to(device, kept, copy=True)  # the file may be replaced while the network is in use
    net.load_state_dict(own, assign=True)
    return net.eval().requires_grad_(False)


def _check(own: StateDict, wanted: StateDict, kind: CheckpointStage) -> None:
    if missing := [name for name in wanted if name not in own]:
        raise ValueError(
            f"an incomplete DiffRIR ({kind.upper()}): {len(missing)} of {len(wanted)} tensors are missing, "
            f"the first is {missing[0]}"
        )
    if extra := [name for name in own if name not in wanted]:
        raise ValueError(
            f"not only a DiffRIR ({kind.upper()}): {len(extra)} more tensors, the first is {extra[0]}"
        )
    for name, value in own.items():
        if value.shape != wanted[name].shape:
            raise ValueError(
                f"{name} has the shape {tuple(value.shape)}, where the other tensors ask for {tuple(wanted[name].shape)}"
            )
        if not value.is_floating_point() or not torch.isfinite(value.float()).all():
            raise ValueError(f"{name} holds numbers that are not finite: the weights are damaged")


def _count(state: StateDict, pattern: str) -> int:
    """How many indices the names show; a gap is found later, as a missing tensor."""
    found = (re.match(pattern, name) for name in state)
    return len({match[1] for match in found if match})


def _heads(state: StateDict, level: str, unused: int) -> int:
    temperature = state.get(f"G.{level}.0.attn.temperature")
    return unused if temperature is None else len(temperature)


def _expansion(state: StateDict) -> float:
    """The shortest decimal fraction that makes all the hidden widths, which are rounded down."""
    pairs = {  # (width, hidden)
        tuple(value.shape[:2]) for name, value in state.items() if name.endswith("ffn.project_out.weight")
    }
    if not pairs:
        return Architecture.ffn_expansion_factor
    low, high = max(h / w for w, h in pairs), min((h + 1) / w for w, h in pairs)
    for digits in range(1, 7):
        step = 10**digits
        guess = -int(-low * step // 1) / step
        if guess < high and all(int(w * guess) == h for w, h in pairs):
            return guess
    raise ValueError(f"the widths of its feed-forward layers contradict each other: {sorted(pairs)}")
