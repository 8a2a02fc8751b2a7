"""Address checks and TLS settings of a request to an endpoint."""

from __future__ import annotations

import asyncio
import socket
import ssl

from ..endpoints import Endpoint
from .background import spawn

Origin = tuple[str, int]
"""A host, by name or address, and a port."""


async def checked_addresses(endpoint: Endpoint, forbidden: frozenset[Origin]) -> list[str]:
    """Resolve the endpoint's host once; connect to these addresses only, or a second answer goes unchecked.

    Raises:
        OSError, UnicodeError: the host does not resolve.
        ValueError: one of its addresses is not allowed, or belongs to a forbidden server.
    """
    host, port = endpoint.address.host, endpoint.address.port
    # The system's resolver cannot be cancelled, so it runs in a thread that no cancel waits for.
    thread, answer = spawn(lambda: socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
    addresses = list(dict.fromkeys(str(entry[4][0]) for entry in await asyncio.wrap_future(answer)))
    thread.join()  # it has answered, and is gone at once
    for address in addresses:
        if reason := endpoint.refusal(address):
            raise ValueError(reason)
        for name, closed_port in forbidden:
            if port == closed_port and (name.lower() in (host, address) or _is_this_machine(address)):
                raise ValueError("its 'url' is the server that this program runs in")
    return addresses


def headers_of(endpoint: Endpoint, key: str) -> dict[str, str]:
    """Of a request with a JSON body; ``Host`` keeps the name where the connection goes to an address."""
    scheme, host, port, _ = endpoint.address
    name = f"[{host}]" if ":" in host else host
    headers = {
        "Host": name if port == {"http": 80, "https": 443}[scheme] else f"{name}:{port}",
        "Content-Type": "application/json",
        "Accept": "text/event-stream, application/json",
        "Accept-Encoding": "identity",
        "User-Agent": "ComfyUI-LLMGA",
    }
    return headers | ({"Authorization": f"Bearer {key}"} if key else {})


def tls_context(endpoint: Endpoint) -> ssl.SSLContext | bool:
    """What httpx takes as ``verify``: the system's authorities, where an owner can add one, and certifi's."""
    if not endpoint.verify_tls or endpoint.address.scheme == "http":
        return False
    import certifi

    context = ssl.create_default_context()
    context.load_verify_locations(certifi.where())
    return context


def tls_failure(error: BaseException) -> str:
    """What to say of a failed connection if it was TLS that failed, else ""."""
    cause: BaseException | None = error
    while cause := cause.__context__:
        if isinstance(cause, ssl.SSLCertVerificationError):
            reason = cause.verify_message.rstrip(".")
            return f"has a certificate that is not trusted ({reason}); add its authority to the system's"
        if isinstance(cause, ssl.SSLError):
            return "does not speak TLS; check 'https' in its 'url'"
    return ""


def _is_this_machine(address: str) -> bool:
    """A socket can be bound only to an address of the machine that it is on."""
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((address, 0))
        except OSError:
            return False
    return True
