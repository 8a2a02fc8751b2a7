"""What the pack adds to ComfyUI's start: two servers, with and without it, under Python's own import timer.

Run with ``python dev.py bench`` or ``python benchmarks/import_time.py``; needs ComfyUI (COMFYUI_PATH).
The first column is the sum of the imports that the pack caused (``-X importtime``: modules that the server without the
pack never imports, own time each), the second what ComfyUI's log says of the pack, the third is the whole start.
"""

from __future__ import annotations

import re
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from tools import ROOT, comfyui
from tools.comfy_server import ComfyServer

ROUNDS = 3
LIMIT_SECONDS = 0.2
# Bytecode is cached as on any machine that has started ComfyUI before.
ENVIRONMENT = {"PYTHONPROFILEIMPORTTIME": "1", "PYTHONDONTWRITEBYTECODE": ""}
IMPORT = re.compile(r"^import time:\s+(\d+) \|\s+\d+ \|\s+(\S+)$", re.MULTILINE)
LOADED = re.compile(r"([\d.]+) seconds: \S*ComfyUI-LLMGA")


def main() -> int:
    host = comfyui.find()
    if host.path is None:
        print(f"skipped: {host.note}")
        return 0
    rows: list[tuple[float, float, float, float]] = []
    with tempfile.TemporaryDirectory() as folder:
        empty = Path(folder, "empty-pack")
        empty.mkdir()
        (empty / "__init__.py").write_text("NODE_CLASS_MAPPINGS = {}\n", encoding="utf-8")
        start(host.path, ROOT)  # writes the bytecode
        for _ in range(ROUNDS):
            seconds_without, log = start(host.path, empty)
            base = {name for _, name in IMPORT.findall(log)}
            seconds_with, log = start(host.path, ROOT)
            added = sum(int(us) for us, name in IMPORT.findall(log) if name not in base) / 1e6
            said = LOADED.search(log)
            rows.append((added, float(said[1]) if said else float("nan"), seconds_with, seconds_without))
    added, said, with_pack, without = (statistics.median(column) for column in zip(*rows, strict=True))
    print(f"imports of the pack  {added:.3f} s (limit {LIMIT_SECONDS} s)")
    print(f"ComfyUI's log says   {said:.1f} s")
    print(f"start with / without {with_pack:.2f} s / {without:.2f} s, ratio {with_pack / without:.2f}")
    return 0 if added <= LIMIT_SECONDS else 1


def start(path: Path, pack: Path) -> tuple[float, str]:
    """Seconds until the server answers, and its log."""
    begun = time.perf_counter()
    with ComfyServer(path, pack=pack, env=ENVIRONMENT) as server:
        return time.perf_counter() - begun, server.log_text()


if __name__ == "__main__":
    sys.exit(main())
