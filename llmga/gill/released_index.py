"""Reader of the released embeddings of pictures: a pickle of ``{"paths": […], "embeddings": […]}``.

A pickle is a program. Here its instructions may build lists, texts, numbers and arrays, and nothing else: every name that
it asks for is looked up in a short table, whose entries copy bytes into tensors. A name outside the table ends the reading.

Source: kohjingyu/gill 4600b71, scripts/extract_img_embs.py writes tensors, and gill/models.py:790-800 reads NumPy arrays.
"""

from __future__ import annotations

import io
import math
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..files.contents import check_is_file
from ..files.kinds import shown

_TORCH_MAGIC = b"\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19"
_FLOATS = {"f2": np.float16, "f4": np.float32, "f8": np.float64}
_HOW = (
    "write it anew where it was made: torch.save({'paths': paths, 'embeddings': torch.stack([torch.as_tensor(e) for e in "
    "embeddings])}, 'embeddings.pth'), and convert that"
)


class _RefusedError(ValueError):
    """The pickle asks for something that is not data."""


class _Dtype:
    """A description of floats in the place of ``numpy.dtype``."""

    def __init__(self, name: str, *_: Any) -> None:
        name = str(name).lstrip("<=|")
        if name not in _FLOATS:
            raise _RefusedError(f"an array of the type {name!r}; expected {', '.join(_FLOATS)}")
        self.type = np.dtype(_FLOATS[name])

    def __setstate__(self, state: Any) -> None:
        if str(state[1]) == ">":
            raise _RefusedError("an array with the bytes of its numbers in reverse order")


class _Array:
    """Bytes, a shape and a type in the place of ``numpy.ndarray``."""

    values: torch.Tensor

    def __init__(self, *_: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, is_fortran, content = state
        self.values = _tensor(content, dtype, shape, is_fortran)

    @classmethod
    def from_buffer(cls, content: Any, dtype: Any, shape: Any, order: str = "C") -> _Array:
        array = cls()
        array.values = _tensor(content, dtype, shape, order == "F")
        return array


def _tensor(content: Any, dtype: Any, shape: Any, is_fortran: bool) -> torch.Tensor:
    if not isinstance(dtype, _Dtype) or not isinstance(content, (bytes, bytearray)):
        raise _RefusedError("an array whose numbers are not plain bytes")
    if is_fortran and len(shape) > 1:
        raise _RefusedError("an array stored column by column")
    if len(content) != math.prod(shape) * dtype.type.itemsize:
        raise _RefusedError(f"an array of the shape {tuple(shape)} with {len(content):,} bytes")
    return torch.from_numpy(np.frombuffer(bytes(content), dtype.type).reshape(shape).copy())


def _bytes(text: str, encoding: str) -> bytes:
    """What ``_codecs.encode`` does in the pickles of Python 2's protocols, for the one encoding that they use."""
    if encoding != "latin1":
        raise _RefusedError(f"bytes in the encoding {encoding!r}")
    return text.encode("latin1")


def _storage(content: bytes) -> Any:
    return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)


def _torch_tensor(storage: Any, offset: int, size: Any, stride: Any, *_: Any) -> torch.Tensor:
    """A view of a storage, copied; torch checks that it lies inside."""
    values = torch.empty(0, dtype=storage.dtype).set_(storage._untyped_storage, offset, size, stride)
    return values.clone()


_ALLOWED: Mapping[tuple[str, str], Any] = {
    ("numpy.core.multiarray", "_reconstruct"): _Array,
    ("numpy._core.multiarray", "_reconstruct"): _Array,
    ("numpy.core.numeric", "_frombuffer"): _Array.from_buffer,
    ("numpy._core.numeric", "_frombuffer"): _Array.from_buffer,
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Dtype,
    ("_codecs", "encode"): _bytes,
    ("torch._utils", "_rebuild_tensor_v2"): _torch_tensor,
    ("torch.storage", "_load_from_bytes"): _storage,
    ("collections", "OrderedDict"): dict,
}


class _DataReader(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        try:
            return _ALLOWED[module, name]
        except KeyError:
            raise _RefusedError(f"the name {module}.{name}, which could run code") from None

    def persistent_load(self, pid: Any) -> Any:
        raise _RefusedError("a reference to something outside the file")


def is_bare_pickle(path: Path) -> bool:
    """Whether a file is a pickle of its own, and not one of PyTorch's files, which begin with a number of theirs."""
    with path.open("rb") as file:
        head = file.read(64)
    return head.startswith((b"\x80", b"(dp")) and _TORCH_MAGIC not in head


def read_released_index(path: str | Path) -> tuple[list[str], torch.Tensor]:
    """Paths and embeddings (N, d), float32, of pictures. No code of the file is run.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged, asks for something else than data, or its paths and embeddings do not fit each other;
            says how to convert it where it was made.
    """
    path = Path(path)
    check_is_file(path)
    try:
        with path.open("rb") as file:
            content = _DataReader(file).load()
    except _RefusedError as error:
        raise ValueError(f"{shown(path)} was not read, since it holds {error}; {_HOW}") from error
    except Exception as error:  # pickle raises whatever its instructions met
        raise ValueError(
            f"{shown(path)} is a damaged pickle ({type(error).__name__}: {str(error)[:120]}); download it again"
        ) from error
    return checked_rows(content, shown(path))


def checked_rows(content: Any, where: str) -> tuple[list[str], torch.Tensor]:
    """Paths and embeddings (N, d), float32, out of ``{"paths", "embeddings"}``.

    Raises:
        ValueError: they are not there, or do not fit each other.
    """
    if not isinstance(content, Mapping) or not {"paths", "embeddings"} <= content.keys():
        raise ValueError(
            f"{where} does not hold 'paths' and 'embeddings'; choose a file of embeddings of pictures"
        )
    paths, rows = list(content["paths"]), content["embeddings"]
    rows = rows.values if isinstance(rows, _Array) else rows
    rows = [row.values if isinstance(row, _Array) else row for row in rows]
    if not all(isinstance(one, str) for one in paths):
        raise ValueError(f"{where} holds paths that are not texts")
    if not rows or len(rows) != len(paths):
        raise ValueError(
            f"{where} holds {len(paths):,} paths and {len(rows):,} embeddings; expected as many of both"
        )
    if not all(
        isinstance(row, torch.Tensor) and row.ndim == 1 and row.shape == rows[0].shape for row in rows
    ):
        raise ValueError(f"{where} holds embeddings that are not vectors of one length")
    embeddings = torch.stack([row.float() for row in rows])
    if not torch.isfinite(embeddings).all():
        raise ValueError(f"{where} holds embeddings that are not finite: it is damaged")
    return paths, embeddings
