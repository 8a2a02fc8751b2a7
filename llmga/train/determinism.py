"""What makes a training run repeatable: deterministic algorithms, and random state that is given back."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

import torch


@contextlib.contextmanager
def determinism(wanted: bool) -> Iterator[None]:
    """Take deterministic algorithms alone while the block runs, if wanted; what was set before comes back after it."""
    before = torch.are_deterministic_algorithms_enabled()
    if wanted:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS asks for it
        torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)


@contextlib.contextmanager
def forked_random_state() -> Iterator[None]:
    """Give torch's global generators back after the block as they were before it."""
    devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices=devices):
        yield
