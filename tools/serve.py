"""ComfyUI with this pack, for a person: `python dev.py serve [arguments of ComfyUI]`.

It opens on a workflow that paints at once: the miniature's models stand beside those of the ComfyUI that was found, and
every shipped workflow is there a second time with the miniature's values. Inputs, outputs and settings stay under
`.dev/serve`, or where ``LLMGA_SERVE`` says.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import webbrowser
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from . import ROOT, miniature
from .assistant import assistant
from .comfy_server import MINIATURE_FOLDER, command, link, make_base, server_environment
from .comfyui import find
from .miniature_base import furnish
from .template_list import START_HERE
from .terminal import say

PORT = 8199  # one off from ComfyUI's 8188 would be taken by a second ComfyUI of the person's own
EVERYWHERE = "0.0.0.0,::"  # what ComfyUI's --listen means without an address
LOOPBACK = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}
POLL = 0.5


@dataclass(frozen=True)
class Address:
    """Where the server is to be found.

    Attributes:
        listen: as ComfyUI's argument has it: addresses with commas between.
    """

    listen: str
    port: int
    scheme: str = "http"

    @property
    def page(self) -> str:
        """For a browser on this machine."""
        first = self.listen.split(",")[0].strip()
        host = LOOPBACK.get(first, f"[{first}]" if ":" in first else first)
        return f"{self.scheme}://{host}:{self.port}"

    @property
    def is_public(self) -> bool:
        """Whether other machines can reach it."""
        return any(one.strip() not in ("127.0.0.1", "localhost", "::1") for one in self.listen.split(","))


def main(argv: list[str]) -> int:
    address, arguments = read(argv)
    if is_taken(address.port):
        say(f"port {address.port} is taken, perhaps by another `serve`; end that one, or choose with --port")
        return 2
    host = find()
    if host.path is None:
        say(f"there is no ComfyUI to start: {host.note}")
        return 1
    try:
        models = miniature.find()
    except FileNotFoundError as error:
        say(f"serve: {error}")
        return 2
    base = Path(os.environ.get("LLMGA_SERVE") or ROOT / ".dev" / "serve").absolute()
    with assistant(models) as url:
        try:
            arguments += prepare(base, host.path, models, url)
        except (ValueError, OSError) as error:
            say(f"serve: {error}")
            return 2
        process = subprocess.Popen(
            command(host.path, base, address.port, arguments), cwd=host.path, env=server_environment({})
        )
        return accompany(process, address)


def prepare(base: Path, comfyui: Path, models: Path, url: str) -> tuple[str, ...]:
    """Put into a server's base folder what it needs; see ``furnish``.

    Raises:
        ValueError: the person's own list of endpoints there cannot be read.
        OSError: the folder cannot be written.
    """
    base.mkdir(parents=True, exist_ok=True)
    link(comfyui / "models", base / "models")
    make_base(base, ROOT, (miniature.PACK,))
    greet_nobody(base / "user" / "default" / "comfy.settings.json")
    return furnish(base, models, url)


def read(argv: Sequence[str]) -> tuple[Address, list[str]]:
    """The address that ComfyUI's arguments mean, and those arguments without the port."""
    parser = argparse.ArgumentParser(prog="dev.py serve", add_help=False, allow_abbrev=False)
    parser.add_argument("--port", type=port_number, default=PORT)
    options, arguments = parser.parse_known_args(list(argv))
    parser.add_argument("--listen", nargs="?", const=EVERYWHERE, default="127.0.0.1")
    parser.add_argument("--tls-keyfile")
    parser.add_argument("--tls-certfile")
    known, _ = parser.parse_known_args(list(argv))
    scheme = "https" if known.tls_keyfile and known.tls_certfile else "http"
    return Address(known.listen, options.port, scheme), arguments


def port_number(text: str) -> int:
    """A port that a person has written; not 0, of which ComfyUI alone would know what it became."""
    if not text.isdecimal() or not 1 <= int(text) <= 65535:
        raise argparse.ArgumentTypeError(f"must be a whole number from 1 to 65535, got {text!r}")
    return int(text)


def is_taken(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def greet_nobody(path: Path) -> None:
    """A new user is greeted by the template browser, which would lie over the workflow; settings that exist stay."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"Comfy.TutorialCompleted": True}), encoding="utf-8")


def accompany(process: subprocess.Popen[bytes], address: Address) -> int:
    """Say where the page is once it is there, show it, and wait for the end."""
    told = False
    while True:
        try:
            if not told and (told := answers(address)):
                announce(address)
            return process.wait(None if told else POLL)
        except subprocess.TimeoutExpired:
            continue
        except KeyboardInterrupt:  # ComfyUI got it too and ends by itself
            continue


def answers(address: Address) -> bool:
    if address.scheme == "https":  # its certificate may be known to the browser alone
        return is_taken(address.port)
    try:
        with urllib.request.urlopen(f"{address.page}/system_stats", timeout=2):
            return True
    except (urllib.error.URLError, OSError):
        time.sleep(POLL)
        return False


def announce(address: Address) -> None:
    page = start_page(address)
    say(f"\nComfyUI with LLMGA: {page}\nPress Run there; Ctrl-C here ends it.")
    if address.is_public:
        say(
            f"It listens on {address.listen}, port {address.port}: every machine that reaches this one can use it, "
            "without a password."
        )
    if has_screen():
        with contextlib.suppress(webbrowser.Error):
            webbrowser.open(page)


def start_page(address: Address) -> str:
    """The page with the workflow to start with, as a link to a template."""
    return f"{address.page}/?template={quote(START_HERE.title)}&source={MINIATURE_FOLDER}"


def has_screen() -> bool:
    """Whether a browser can show something; one of the terminal would take the terminal away."""
    if sys.platform in ("win32", "darwin"):
        return True
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
