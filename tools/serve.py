"""ComfyUI with this pack, for a person: `python dev.py serve [arguments of ComfyUI]`.

Inputs, outputs and settings stay under `.dev/serve`; models are those of the ComfyUI that was found.
It knows the miniature, whose models may be put there too.
"""

from __future__ import annotations

import argparse
import subprocess
import sys

from . import ROOT
from .comfy_server import command, free_port, link, make_base, server_environment
from .comfyui import find
from .miniature import PACK
from .terminal import say


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="dev.py serve", add_help=False, allow_abbrev=False)
    parser.add_argument("--port", type=int)
    options, arguments = parser.parse_known_args(argv)
    host = find()
    if host.path is None:
        say(f"there is no ComfyUI to start: {host.note}")
        return 1
    base = ROOT / ".dev" / "serve"
    base.mkdir(parents=True, exist_ok=True)
    link(host.path / "models", base / "models")
    make_base(base, ROOT, (PACK,))
    port = options.port or free_port()
    say(f"ComfyUI with LLMGA: http://127.0.0.1:{port} (Ctrl-C ends it)")
    process = subprocess.Popen(
        command(host.path, base, port, arguments), cwd=host.path, env=server_environment({})
    )
    while True:
        try:
            return process.wait()
        except KeyboardInterrupt:  # ComfyUI got it too and ends by itself
            continue


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
