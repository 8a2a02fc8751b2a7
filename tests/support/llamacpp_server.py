"""A server of llama.cpp with the miniature's language model, as the package xllamacpp builds it."""

from __future__ import annotations

import subprocess
import sys
import threading
from importlib.util import find_spec
from pathlib import Path

from miniworld.models.gguf_file import write_gguf
from tools import ROOT
from tools.patience import PATIENCE

_FOLDER = ROOT / "miniature" / "LLM" / "llmga-mini"
_SCRIPT = """
import sys, xllamacpp
params = xllamacpp.CommonParams()
params.model.path, params.n_ctx, params.cpuparams.n_threads = sys.argv[1], 2048, 1
params.cache_type_k = params.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
server = xllamacpp.Server(params)
print("listening on", server.listening_address, flush=True)
sys.stdin.read()
"""


def skip_reason() -> str | None:
    """Why there can be no such server here, or None."""
    missing = [name for name in ("xllamacpp", "gguf") if find_spec(name) is None]
    return f"no llama.cpp server: {' and '.join(missing)} not installed" if missing else None


class LlamaCppServer:
    """The server, in a process of its own until ``close``.

    Args:
        folder: for the GGUF file and the server's log.
    """

    def __init__(self, folder: Path) -> None:
        file = folder / "llmga-mini.gguf"
        write_gguf(_FOLDER, file)
        self._log = (folder / "server.log").open("w")
        self._process = subprocess.Popen(
            [sys.executable, "-c", _SCRIPT, str(file)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
        )
        assert self._process.stdout is not None
        patience = threading.Timer(PATIENCE, self._process.kill)
        patience.start()
        for line in self._process.stdout:
            if line.startswith("listening on "):
                patience.cancel()
                self.root = line.split()[-1]
                return
        patience.cancel()
        self.close()
        raise RuntimeError((folder / "server.log").read_text())

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        self._log.close()
