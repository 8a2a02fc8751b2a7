"""Tensors from files that somebody else wrote: safetensors, or pickles that may hold nothing but tensors."""

from __future__ import annotations

import pickle
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch

from .header import damaged, foreign_kind, kind_of, read_header
from .index import listed_files

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
    for whole in WHOLE:
        if (files := listed_files(folder, whole)) is not None:
            return read_files(files)
    raise FileNotFoundError(
        f"{folder.name!r} has no weights ({' or '.join(WHOLE)}, or an index of one); download it again"
    )


def read_files(files: Iterable[Path]) -> Tensors:
    """The tensors of several files together; see ``read_model``."""
    tensors: Tensors = {}
    for path in files:
        found = read_file(path)
        if twice := sorted(tensors.keys() & found.keys()):
            raise ValueError(f"{path.parent.name}/{path.name} repeats {_listed(twice)} of another part")
        tensors |= found
    return tensors


def read_file(path: Path) -> Tensors:
    """The tensors of one file; see ``read_model``."""
    if path.suffix == ".safetensors":
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        read_header(path)
        try:
            return load_file(path)
        except SafetensorError as error:
            raise ValueError(
                damaged(path, f"no sound safetensors file ({error}); download it again")
            ) from error
    return _read_pickle(path)


def _read_pickle(path: Path) -> Tensors:
    """``torch.load`` in its restricted form, which builds tensors and plain containers and calls nothing else."""
    with path.open("rb") as file:
        head = file.read(64)
    if kind_of(head) != "torch":
        raise ValueError(damaged(path, foreign_kind(head) or "no file of torch.save; download it again"))
    try:
        value = torch.load(path, map_location="cpu", weights_only=True, mmap=head.startswith(b"PK"))
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"{path.parent.name}/{path.name} holds more than tensors; it could run code and was not opened. Take the "
            "safetensors files of this model"
        ) from error
    except (RuntimeError, EOFError, OSError, KeyError, ValueError, TypeError) as error:
        raise ValueError(
            damaged(path, f"cut off or damaged ({_first_line(error)}); download it again")
        ) from error
    if not isinstance(value, dict) or not all(
        isinstance(name, str) and isinstance(tensor, torch.Tensor) for name, tensor in value.items()
    ):
        raise ValueError(f"{path.parent.name}/{path.name} is no table of tensors by name")
    return value


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


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
