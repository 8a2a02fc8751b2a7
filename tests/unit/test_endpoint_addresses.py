"""Where the endpoint engine may connect, whom it trusts there, and what it shows of a server's words."""

from __future__ import annotations

import shutil
import socket
import ssl
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from support.endpoint_chat import KEY, REPLY, ask
from support.openai_server import OpenAIServer

from llmga.chat.endpoints import Endpoint
from llmga.chat.engines import connection, redaction
from llmga.chat.engines.endpoint import EndpointEngine, EndpointError

pytestmark = pytest.mark.usefixtures("quick_retries", "nothing_is_left_behind")


def resolve_to(monkeypatch: pytest.MonkeyPatch, *addresses: str) -> list[str]:
    asked: list[str] = []

    def getaddrinfo(host: str, port: int, **kwargs: object) -> list[tuple]:
        asked.append(host)
        return [
            (socket.AF_INET6 if ":" in a else socket.AF_INET, socket.SOCK_STREAM, 6, "", (a, port))
            for a in addresses
        ]

    monkeypatch.setattr(connection.socket, "getaddrinfo", getaddrinfo)
    return asked


def named(server: OpenAIServer, host: str = "box.example", key_env: str = "") -> EndpointEngine:
    return EndpointEngine(Endpoint("named", f"http://{host}:{server.port}/v1", "m", key_env, deadline_s=60))


def test_the_connection_goes_to_the_address_that_was_checked(
    server: OpenAIServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = resolve_to(monkeypatch, "127.0.0.1")
    assert ask(named(server)) == REPLY
    assert asked == ["box.example"]  # no second look-up that could answer otherwise
    assert server.requests[0].headers["host"] == f"box.example:{server.port}"


def test_the_next_address_is_tried(server: OpenAIServer, monkeypatch: pytest.MonkeyPatch) -> None:
    resolve_to(monkeypatch, "::1", "127.0.0.1")  # as localhost does, for a server that listens on IPv4 only
    assert ask(named(server, key_env="LLMGA_TEST_KEY")) == REPLY


@pytest.mark.parametrize(
    ("addresses", "key_env", "reason"),
    [
        (["169.254.169.254"], "", "link-local"),
        (["127.0.0.1", "fe80::1%1"], "", "link-local"),
        (["8.8.8.8"], "", "use https"),
        (["127.0.0.1", "192.168.1.5"], "LLMGA_TEST_KEY", "loopback addresses only"),
    ],
)
def test_every_address_of_a_name_is_checked(
    server: OpenAIServer, monkeypatch: pytest.MonkeyPatch, addresses: list[str], key_env: str, reason: str
) -> None:
    resolve_to(monkeypatch, *addresses)
    with pytest.raises(EndpointError, match=f"is not allowed: .*{reason}"):
        ask(named(server, key_env=key_env))
    assert not server.requests


@pytest.mark.parametrize("closed", ["127.0.0.1", "0.0.0.0", "::", "Box.example", "192.168.7.7"])
def test_the_hosts_own_server_is_never_reached(
    server: OpenAIServer, monkeypatch: pytest.MonkeyPatch, closed: str
) -> None:
    resolve_to(monkeypatch, "127.0.0.1" if closed != "192.168.7.7" else closed)
    endpoint = Endpoint("named", f"http://box.example:{server.port}/v1", "m")
    with pytest.raises(EndpointError, match="the server that this program runs in"):
        ask(EndpointEngine(endpoint, forbidden=frozenset({(closed, server.port)})))
    assert not server.requests
    resolve_to(monkeypatch, "127.0.0.1")
    assert ask(EndpointEngine(endpoint, forbidden=frozenset({(closed, server.port + 1)}))) == REPLY


def test_a_name_that_does_not_resolve(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object, **kwargs: object) -> None:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(connection.socket, "getaddrinfo", fail)
    with pytest.raises(EndpointError, match="does not resolve; check 'url'"):
        ask(EndpointEngine(Endpoint("x", "https://nowhere.example/v1", "m")))


@pytest.mark.skipif(not shutil.which("openssl"), reason="makes a certificate with openssl, which is not here")
def test_tls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    command = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-days",
        "2",
        "-subj",
        "/CN=box.example",
    ]
    command += ["-addext", "subjectAltName=DNS:box.example", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(command, check=True, capture_output=True)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate, key)
    resolve_to(monkeypatch, "127.0.0.1")
    with OpenAIServer(REPLY, tls=tls) as server:
        good = Endpoint("x", f"https://box.example:{server.port}/v1", "m", "LLMGA_TEST_KEY")
        with pytest.raises(EndpointError, match="certificate that is not trusted .self.signed"):
            ask(EndpointEngine(good))
        assert ask(EndpointEngine(replace(good, verify_tls=False))) == REPLY
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))  # stands for the system's authorities
        assert ask(EndpointEngine(good)) == REPLY  # checked against the name, though connected by address
        with pytest.raises(EndpointError, match="certificate that is not trusted .Hostname mismatch"):
            ask(EndpointEngine(replace(good, url=f"https://other.example:{server.port}/v1")))
    with OpenAIServer(REPLY) as plain, pytest.raises(EndpointError, match="does not speak TLS"):
        ask(EndpointEngine(Endpoint("x", f"https://127.0.0.1:{plain.port}/v1", "m")))


def test_excerpt() -> None:
    assert redaction.excerpt("\x1b[31ma\u202eb\r\n\tc", "") == "[31ma b c"
    assert len(redaction.excerpt("x" * 1000, "")) == 200
    assert redaction.excerpt(b"\xff see https://u:p@host/a?b", "") == "� see [address]"
    assert redaction.excerpt(f"{KEY.upper()}{KEY}"[: len(KEY)], KEY) == "***"
    assert redaction.excerpt('{"detail": "not here"}', "") == "not here"
