"""Runs ComfyUI as a process with private folders, this pack linked in, a free port, and a check of who answers."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
from collections.abc import Mapping, Sequence
from pathlib import Path

from . import ROOT
from .comfy_client import ComfyClient, ServerError
from .environment import has_nvidia_gpu
from .patience import PATIENCE

PACK_FOLDER = "ComfyUI-LLMGA"
MINIATURE_FOLDER = "LLMGA-miniature"
"""What ComfyUI calls ``miniworld/pack``, also in its template browser."""
FOLDERS = ("models", "custom_nodes", "input", "output", "user", "temp")
STOP_SECONDS = 10
COLOUR = re.compile(r"\x1b\[[0-9;]*m")
TRACEBACK = re.compile(r"Traceback \(most recent call last\):\n(?:[ \t].*\n|\n)+.*")
# The one-line messages of ComfyUI's loader about a pack that it could not load completely.
LOAD_FAILURE = re.compile(r"IMPORT FAILED|Cannot import|Skip .* due to the lack of|comfy_entrypoint in ")


class ComfyServer(ComfyClient):
    """A running ComfyUI and the client that talks to it.

    ``base`` exists from the start, so that models and inputs can be put in place before the server runs::

        server = ComfyServer(comfyui)
        fill(server.base / "models")
        with server:
            entry = server.run(prompt)

    Args:
        comfyui: the ComfyUI checkout.
        pack: the folder linked in as ``custom_nodes/ComfyUI-LLMGA``.
        extra_packs: further folders, linked in under their own names.
        arguments: further arguments of ComfyUI's ``main.py``.
        env: variables set or replaced for the server.
        keep: leave ``base`` (with the log, ``server.log``) behind.
    """

    def __init__(
        self,
        comfyui: Path,
        *,
        pack: Path = ROOT,
        extra_packs: Sequence[Path] = (),
        arguments: Sequence[str] = (),
        env: Mapping[str, str] | None = None,
        keep: bool = False,
    ) -> None:
        super().__init__("")
        self.comfyui = comfyui
        self.arguments = tuple(arguments)
        self.env = dict(env or {})
        self.keep = keep
        self.base = Path(tempfile.mkdtemp(prefix="llmga-comfyui-")).resolve()
        self.log = self.base / "server.log"
        self.pack = make_base(self.base, pack, extra_packs)
        self._process: subprocess.Popen[bytes] | None = None
        self._log_start = 0

    def __enter__(self) -> ComfyServer:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(self) -> None:
        """Start the process and return when it answers as itself and every pack is loaded.

        Raises:
            ServerError: it ended, answered too late, is someone else's, or a pack failed; with the log's end.
        """
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        self._log_start = len(self.log_text())
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                command(self.comfyui, self.base, port, self.arguments),
                cwd=self.comfyui,
                env=server_environment(self.env),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        self._await_answer()
        problems = self.problems()
        if problems:
            raise ServerError("ComfyUI did not load every pack:\n" + "\n".join(problems))

    def stop(self) -> None:
        self.disconnect()
        process, self._process = self._process, None
        if process is None:
            return
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def restart(self) -> None:
        """A new process over the same base folder: files stay, memory does not."""
        self.stop()
        self.start()

    def close(self) -> None:
        self.stop()
        if not self.keep:
            shutil.rmtree(self.base, ignore_errors=True)

    def check(self) -> None:
        if self._process is None:
            raise ServerError("ComfyUI is not running")
        code = self._process.poll()
        if code is not None:
            raise ServerError(f"ComfyUI ended with code {code}; the end of its log:\n{self._log_end()}")

    def log_text(self) -> str:
        """Everything that the server has written over all its starts, without colours."""
        if not self.log.exists():
            return ""
        return COLOUR.sub("", self.log.read_text(encoding="utf-8", errors="replace"))

    def problems(self) -> list[str]:
        """What the log of this start says against a pack of ours: failed imports, tracebacks through it."""
        text = self.log_text()[self._log_start :]
        ours = str(self.base / "custom_nodes")
        found = [line for line in text.splitlines() if ours in line and LOAD_FAILURE.search(line)]
        return found + [one for one in TRACEBACK.findall(text) if ours in one]

    def _await_answer(self) -> None:
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            self.check()
            try:
                argv = self.get("/system_stats")["system"]["argv"]
            except (ServerError, urllib.error.HTTPError, ValueError, KeyError):
                time.sleep(0.25)
                continue
            self.check()
            if str(self.base) not in argv:
                raise ServerError(f"{self.url} is another ComfyUI, started with {argv}")
            return
        raise ServerError(f"ComfyUI did not answer within {PATIENCE:g} s:\n{self._log_end()}")

    def _log_end(self) -> str:
        return "\n".join(self.log_text().splitlines()[-30:])


def make_base(base: Path, pack: Path, extra_packs: Sequence[Path] = ()) -> Path:
    """ComfyUI's folders under ``base`` with the packs linked in; where our pack is."""
    for name in FOLDERS:
        (base / name).mkdir(parents=True, exist_ok=True)
    for one in extra_packs:
        link(one, base / "custom_nodes" / (MINIATURE_FOLDER if one.name == "pack" else one.name))
    ours = base / "custom_nodes" / PACK_FOLDER
    link(pack, ours)
    return ours


def link(target: Path, place: Path) -> None:
    """Make ``place`` show the folder ``target``: a symlink, on Windows a junction, at worst a copy.

    A symlink to another folder, such as where a ComfyUI or a checkout was before, is replaced; anything else stays.
    """
    if place.is_symlink() and place.readlink() != target:
        place.unlink()
    if place.exists():
        return
    try:
        place.symlink_to(target, target_is_directory=True)
        return
    except OSError:
        if sys.platform != "win32":
            raise
    import _winapi

    try:
        _winapi.CreateJunction(str(target), str(place))
    except OSError:
        shutil.copytree(target, place, ignore=shutil.ignore_patterns(".*", "__pycache__", "demo_output"))


def command(comfyui: Path, base: Path, port: int, arguments: Sequence[str] = ()) -> list[str]:
    own = ["--base-directory", str(base), "--database-url", "sqlite:///:memory:", "--disable-auto-launch"]
    device = [] if "--cpu" in arguments or has_gpu() else ["--cpu"]
    start = [sys.executable, str(comfyui / "main.py"), "--port", str(port)]
    return [*start, *own, *device, *frontend_root(), *arguments]


def frontend_root() -> list[str]:
    """ComfyUI's ``--front-end-root`` from ``LLMGA_FRONTEND``, or nothing: then ComfyUI shows the page that it came with.

    Raises:
        FileNotFoundError: the folder that it names is not a built page.
    """
    named = os.environ.get("LLMGA_FRONTEND", "").strip()
    if not named:
        return []
    folder = Path(named).expanduser().absolute()
    if not (folder / "index.html").is_file():
        raise FileNotFoundError(
            f"LLMGA_FRONTEND is {named!r}, which holds no index.html; name the folder 'static' of an unpacked "
            "comfyui-frontend-package"
        )
    return ["--front-end-root", str(folder)]


def has_gpu() -> bool:
    """True when torch can use a GPU; it is imported only where there is one to ask about."""
    if sys.platform != "darwin" and not has_nvidia_gpu():
        return False
    import torch

    return torch.cuda.is_available() or torch.backends.mps.is_available()


def server_environment(changes: Mapping[str, str]) -> dict[str, str]:
    """Ours without PYTHONPATH: the server must find the pack through the link alone."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return {**kept, "PYTHONUNBUFFERED": "1", "PYTHONUTF8": "1", **changes}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
