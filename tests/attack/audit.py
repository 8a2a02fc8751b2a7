"""An audit hook (PEP 578) that writes down what a call opens, connects to and starts."""

from __future__ import annotations

import os
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

STARTS = ("os.system", "subprocess.Popen", "os.exec", "os.posix_spawn", "os.startfile", "pty.spawn")
LOOPBACK = ("127.0.0.1", "::1", "localhost")
SYSTEM = ("/proc", "/sys", "/dev", "/usr", "/lib", "/etc/ssl", "/etc/localtime", "/etc/mime.types", "/etc/hosts",
          "/etc/resolv.conf", "/etc/nsswitch.conf", "/etc/host.conf", "/etc/gai.conf", "/etc/services", "/etc/apache2",
          "/etc/httpd", "/etc/pki", "/etc/ld.so.cache")  # fmt: skip
"""What the interpreter and its libraries read for themselves."""


@dataclass
class Seen:
    opened: list[str] = field(default_factory=list)
    connected: list[str] = field(default_factory=list)
    started: list[str] = field(default_factory=list)

    def outside(self, roots: list[str]) -> list[str]:
        """Opened files that are below none of the folders."""
        return [
            path
            for path in self.opened
            if not any(path == root or path.startswith(root + os.sep) for root in roots)
        ]

    def outside_loopback(self) -> list[str]:
        return [host for host in self.connected if host not in LOOPBACK]


_watching: list[Seen] = []
_installed = False


@contextmanager
def watched() -> Iterator[Seen]:
    """What happens in this process while the block runs."""
    global _installed
    if not _installed:
        sys.addaudithook(_hook)  # for good: Python has no way to take one off
        _installed = True
    seen = Seen()
    _watching.append(seen)
    try:
        yield seen
    finally:
        _watching.remove(seen)


def own_roots(*more: Path) -> list[str]:
    """Where Python, this checkout and the temporary folder are, which anything may read."""
    paths = sysconfig.get_paths()
    own = [sys.prefix, sys.base_prefix, paths["stdlib"], paths["purelib"], tempfile.gettempdir()]
    return [os.path.realpath(one) for one in (*own, *map(str, more))] + list(SYSTEM)


def _hook(event: str, arguments: tuple) -> None:
    if not _watching:
        return
    if event == "open" and isinstance(arguments[0], (str, bytes, os.PathLike)):
        path = os.path.realpath(os.path.abspath(os.fsdecode(arguments[0])))
        for seen in _watching:
            seen.opened.append(path)
    elif event == "socket.connect" and isinstance(arguments[1], tuple):
        for seen in _watching:
            seen.connected.append(str(arguments[1][0]))
    elif event in STARTS:
        for seen in _watching:
            seen.started.append(f"{event} {arguments!r}"[:200])
