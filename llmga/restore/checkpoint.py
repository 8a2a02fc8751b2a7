"""A DiffRIR or DiffIR from a file: the sizes are read off the shapes, and every tensor has its place or it is refused."""

from __future__ import annotations

import pickle
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from .network import Architecture, DiffRIRS1, DiffRIRS2, without_repetitions
from .recognise import foreign, sniff

Tensors = Mapping[str, torch.Tensor]
Kind = Literal["s1", "s2"]

WRAPPERS = ("params_ema", "params", "state_dict")
"""Where BasicSR and others keep the weights in a ``.pth``; the first that is there is taken."""

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
    kind: Kind
    """"s2" restores; "s1", the first stage, must be told the truth and cannot."""
    architecture: Architecture
    entry: str | None
    """Which of ``WRAPPERS`` the weights were in; None: the file holds them directly."""

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
            ValueError: it is a first stage.
        """
        if isinstance(self.net, DiffRIRS2):
            return self.net
        raise ValueError(
            "this file is a DiffRIR of the first stage (S1): it must be told the true picture, so it cannot restore; "
            "choose the file of the second stage (S2 or its GAN stage)"
        )


def load_checkpoint(
    path: str | Path,
    operations: Any = nn,
    dtype: torch.dtype | None = None,
    device: torch.device | str = "cpu",
) -> Loaded:
    """Load a ``.pth`` (the official layout) or safetensors file of DiffRIR or DiffIR, x1, x2 or x4, S1 or S2.

    Of a file with several sets of weights the smoothed ones (``params_ema``) are taken. Nothing in a ``.pth`` is executed.

    Args:
        operations: what makes weighted layers, ``torch.nn`` or the host's.
        dtype: of the weights, float16, bfloat16 or float32; the file's own by default.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it cannot be read, or is something else, or a tensor is missing, left over, of another shape or
            not finite; says which, and as far as it can be known what the file is.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist")
    try:
        state, entry = _unwrapped(_read(path, device))
        kind, architecture = infer(state)
        net = _build(state, kind, architecture, operations, dtype)
    except ValueError as error:
        raise ValueError(f"{path.name}: {error}") from error
    return Loaded(net, kind, architecture, entry)


def infer(state: Tensors) -> tuple[Kind, Architecture]:
    """The stage and the sizes of the network that a state dict belongs to.

    Raises:
        ValueError: of none, or the shapes contradict each other.
    """
    first = state.get("G.patch_embed.proj.weight")
    encoder, kind = ("condition.", "s2") if "condition.E.0.weight" in state else ("E.", "s1")
    if first is None or f"{encoder}E.0.weight" not in state:
        raise ValueError(foreign(state))
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


def _read(path: Path, device: torch.device | str) -> Any:
    found = sniff(path)
    if found == "safetensors":
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            return load_file(path, device=str(device))
        except SafetensorError as error:
            raise ValueError(f"a damaged or incomplete safetensors file ({error}); fetch it again") from error
    if found != "torch":
        raise ValueError(f"{found}; choose a .pth or safetensors file of DiffRIR")
    try:
        return torch.load(path, map_location=device, weights_only=True)
    except pickle.UnpicklingError as error:
        raise ValueError(
            "holds other things than tensors, which are not loaded, because they could run code; "
            "or it is damaged"
        ) from error
    except (RuntimeError, EOFError, OSError, KeyError, IndexError, AttributeError, TypeError) as error:
        raise ValueError(f"a damaged or incomplete .pth file ({_line(error)}); fetch it again") from error


def _unwrapped(content: Any) -> tuple[dict[str, torch.Tensor], str | None]:
    entry = None
    if isinstance(content, Mapping):
        entry = next((name for name in WRAPPERS if isinstance(content.get(name), Mapping)), None)
        content = content if entry is None else content[entry]
    if not isinstance(content, Mapping):
        raise ValueError(f"holds a {type(content).__name__} where weights by name are expected")
    if not all(isinstance(value, torch.Tensor) for value in content.values()):
        raise ValueError(foreign(content))
    # Saved from under a wrapper for several GPUs, every name begins with it.
    return {str(name).removeprefix("module."): value.detach() for name, value in content.items()}, entry


def _build(
    state: Tensors, kind: Kind, architecture: Architecture, operations: Any, dtype: torch.dtype | None
) -> DiffRIRS1 | DiffRIRS2:
    own = without_repetitions(state)
    with torch.device("meta"):  # nothing is allocated for what does not fit
        net = (DiffRIRS2 if kind == "s2" else DiffRIRS1)(architecture, operations)
    _check(own, net.state_dict(), kind)
    first = own["G.patch_embed.proj.weight"]
    for name, value in own.items():
        # The schedule's last entries lie too close to 1 for half precision.
        own[name] = value.float() if name.startswith("diffusion.") else value.to(dtype or first.dtype)
    net.load_state_dict(own, assign=True)
    return net.eval().requires_grad_(False)


def _check(own: Tensors, wanted: Tensors, kind: Kind) -> None:
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


def _count(state: Tensors, pattern: str) -> int:
    """How many indices the names show; a gap is found later, as a missing tensor."""
    found = (re.match(pattern, name) for name in state)
    return len({match[1] for match in found if match})


def _heads(state: Tensors, level: str, unused: int) -> int:
    temperature = state.get(f"G.{level}.0.attn.temperature")
    return unused if temperature is None else len(temperature)


def _expansion(state: Tensors) -> float:
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


def _line(error: Exception) -> str:
    return str(error).strip().split("\n")[0][:120]
