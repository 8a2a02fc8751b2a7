"""The miniature's language model behind an OpenAI-compatible server on loopback."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path

from . import ROOT, miniature


@contextlib.contextmanager
def assistant(models: Path) -> Iterator[str]:
    """A running server that speaks with the miniature; its address, with ``/v1``."""
    sys.path.insert(0, str(ROOT / "tests"))
    from support.openai_server import OpenAIServer

    with OpenAIServer(miniature.answerer(models)) as server:
        yield server.url
