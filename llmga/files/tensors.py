"""Tensors of weight files: safetensors, or PyTorch files that may hold nothing but tensors."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import torch

from .contents import contents_of
from .header import NOT_TENSORS, load_torch, read_header, unwrap
from .index import listed_files
from .kinds import AGAIN, WrongFileError, shown

WHOLE = ("model.safetensors", "pytorch_model.bin")
"""Names of a model's weights, the better first; each may instead be an index over several parts."""
_SHOWN = 3

Tensors = dict[str, torch.Tensor]


def read_model(folder: Path) -> Tensors:
    """Every tensor of a model's folder under the names in its files, safetensors preferred; memory-mapped where possible.

    Raises:
        FileNotFoundError: the folder has no weights, or one of their parts is missing.
        ValueError: a file is damaged, holds more than tensors, or repeats a tensor of another one.
    """
    return read_files(model_files(folder))


def model_files(folder: Path) -> list[Path]:
    """The weight files of a model's folder, safetensors preferred.

    Raises:
        FileNotFoundError: the folder has no weights, or one of their parts is missing.
        ValueError: an index is damaged.
    """
    for whole in WHOLE:
        if (files := listed_files(folder, whole)) is not None:
            return files
    raise FileNotFoundError(
        f"{folder.name!r} has no weights ({' or '.join(WHOLE)}, or an index of one); download it again"
    )


def read_files(files: Iterable[Path]) -> Tensors:
    """The tensors of several files together; see ``read_model``."""
    tensors: Tensors = {}
    for path in files:
        found = read_file(path)
        if twice := sorted(tensors.keys() & found.keys()):
            raise ValueError(f"{shown(path)} repeats {_listed(twice)} of another part")
        tensors |= found
    return tensors


def read_file(path: Path) -> Tensors:
    """The tensors of one file on the CPU, memory-mapped where possible; see ``read_wrapped``."""
    return read_wrapped(path)[0]


def read_wrapped(path: Path) -> tuple[Tensors, str | None]:
    """The tensors of one file, and in which of ``header.WRAPPERS`` they were.

    Raises:
        FileNotFoundError: there is no such file.
        WrongFileError: it is damaged, not a weight file, or holds something else than tensors by name.
    """
    if contents_of(path) == "safetensors":
        return read_some(path, list(read_header(path))), None
    content, wrapper = unwrap(load_torch(path, "cpu"))
    if not isinstance(content, Mapping):
        raise WrongFileError(path, NOT_TENSORS, f"a {type(content).__name__}")
    for name, value in content.items():
        if not isinstance(value, torch.Tensor):
            raise WrongFileError(path, NOT_TENSORS, f"{name} is a {type(value).__name__}")
    return {str(name): value.detach() for name, value in content.items()}, wrapper


def read_some(path: Path, names: Iterable[str]) -> Tensors:
    """The tensors of these names from a safetensors file, memory-mapped."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            return {name: file.get_tensor(name) for name in names}
    except SafetensorError as error:
        raise ValueError(f"{shown(path)} is not a sound safetensors file ({error}); {AGAIN}") from error


def check_tensors(found: Mapping[str, torch.Tensor], expected: Mapping[str, torch.Size], where: str) -> None:
    """Raise unless the tensors are exactly the expected ones.

    Raises:
        ValueError: it names the tensors that are missing, unexpected or of another shape.
    """
    if missing := sorted(expected.keys() - found.keys()):
        raise ValueError(f"{where} lacks {_listed(missing)}; finish the download, or convert it again")
    if unexpected := sorted(found.keys() - expected.keys()):
        raise ValueError(f"{where} has {_listed(unexpected)}, which its config.json has no place for")
    for name, shape in expected.items():
        if found[name].shape != shape:
            raise ValueError(
                f"{where}: the tensor {name!r} has the shape {tuple(found[name].shape)}, its config.json wants "
                f"{tuple(shape)}"
            )


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"the tensor{'s' * (len(names) > 1)} {', '.join(names[:_SHOWN])}{more}"


def check_finite(weights: Iterable[tuple[str, torch.Tensor]], where: str) -> None:
    """Raise ``ValueError`` for a weight that is not finite; it names the first."""
    for name, value in weights:
        # The sum of a tensor is much cheaper than a flag for each number, and finite unless one is not, or it overflows.
        if value.is_floating_point() and not _is_finite(value.detach()):
            raise ValueError(
                f"{where}: the tensor {name!r} holds NaN or infinite numbers; the file is damaged, download it again"
            )


def _is_finite(value: torch.Tensor) -> bool:
    total = value.float().sum() if value.element_size() == 1 else value.sum(dtype=torch.float32)
    return bool(torch.isfinite(total)) or bool(torch.isfinite(value.float()).all())
