"""Addresses in an owner's record that lead to metadata services, to this machine's neighbours, or nowhere."""

from __future__ import annotations

import random
from dataclasses import dataclass

from .. import entry_points
from ..audit import LOOPBACK, watched
from ..budget import Budget
from ..isolated import Ended, each
from ..outcome import classify
from ..report import Counts, Finding, clipped

LIMIT = 20.0
METADATA = (
    "169.254.169.254", "169.254.170.2", "169.254.170.23", "100.100.100.200", "168.63.129.16", "192.0.0.192",
    "[fd00:ec2::254]", "[fd00:ec2::23]", "[fd20:ce::254]", "[fe80::1]", "metadata.google.internal", "metadata",
    "[::ffff:169.254.169.254]", "[64:ff9b::a9fe:a9fe]", "[2002:a9fe:a9fe::]", "2852039166", "0xa9fea9fe",
    "0251.0376.0251.0376", "169.254.43518", "169.254.169.254.", "0.0.0.0", "[::]", "255.255.255.255", "224.0.0.1",
    "[ff02::1]",
)  # fmt: skip
ODD = (
    "http://user:secret@127.0.0.1/v1", "http://127.0.0.1#@evil.example/", "http://127.0.0.1\\@evil.example/",
    "file:///etc/passwd", "gopher://127.0.0.1/", "ftp://127.0.0.1/", "http:///v1", "http://", "//127.0.0.1/v1", "",
    "http://127.0.0.1:0/v1", "http://127.0.0.1:99999/v1", "http://127.0.0.1:-1/v1", "http://127.0.0.1:9/v1?key=a",
    "http://127.0.0.1:9/v1/../../x", "http://127.0.0.1:9/%2e%2e/x", "http://127.0.0.1:9/v1\r\nX: y", "http://[v1.x]/",
    "http://[::1", "http://evil.example\t/v1", "http://ⓛⓞⓒⓐⓛ/v1", "http://xn--/v1", "http://" + "a" * 300 + "/v1",
    "javascript:alert(1)", "data:,x", "http://8.8.8.8/v1", "http://0x08080808/v1", "http://1.1/v1",
)  # fmt: skip


@dataclass(frozen=True)
class Result:
    outcome: str
    said: str
    connected: tuple[str, ...]


def run(budget: Budget, rng: random.Random) -> tuple[list[Finding], Counts]:
    findings, counts = [], Counts()
    urls = [
        f"{scheme}://{host}{port}/v1"
        for host in METADATA
        for scheme in ("http", "https")
        for port in ("", ":8080")
    ]
    cases = [*urls, *ODD]
    rng.shuffle(cases)
    reached("http://127.0.0.1:9/v1")
    budget.restart(counts.ran)
    for url, result in each(cases, reached, budget, limit=LIMIT, together=8):
        counts.ran["URL payloads"] += 1
        if isinstance(result, Ended):
            findings.append(Finding(result.kind, "endpoint", url, result.said))
            continue
        strangers = [one for one in result.connected if one not in LOOPBACK]
        counts.ran["connect outside (URLs)"] += bool(strangers)
        findings += [Finding("connect outside", one, f"an endpoint's url {url!r}") for one in strangers]
        if result.outcome == "bare":
            findings.append(Finding("bare", "endpoint's url", repr(url), clipped(result.said)))
    return findings, counts


def reached(url: str) -> Result:
    """What a request to this address touches; connects outside loopback are stopped before they leave."""
    import socket

    said, outcome, real = "", "ok", socket.socket.connect

    def loopback_only(sock: socket.socket, address: object) -> None:
        raise ConnectionRefusedError("the attack goes to loopback only")

    socket.socket.connect = loopback_only  # type: ignore[method-assign]
    try:
        with watched() as seen, only_loopback_names():
            try:
                entry_points.ask(url, 2.0, lambda _: None)
            except Exception as error:
                said = f"{type(error).__name__}: {error}"
                outcome = classify(type(error).__name__, str(error), ("url", "attacked"))
    finally:
        socket.socket.connect = real  # type: ignore[method-assign]
    return Result(outcome, said, tuple(seen.connected))


def only_loopback_names():
    """Nothing is asked of a name server: every name is a stranger's public address."""
    import socket
    from unittest import mock

    def answer(host: object, port: object, *more: object, **options: object) -> list:
        try:
            packed = socket.inet_aton(host if isinstance(host, str) else host.decode())  # type: ignore[union-attr]
            address = socket.inet_ntoa(packed)
        except (OSError, AttributeError, UnicodeError):
            address = "203.0.113.7"
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, int(port or 0)))]  # type: ignore[call-overload]

    return mock.patch("socket.getaddrinfo", answer)
