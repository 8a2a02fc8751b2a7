"""The owner's file of language-model endpoints, and the addresses that a request may go to.

A workflow names an endpoint and never an address: URL, model, TLS and the name of the key's environment
variable stay together in one record, in a file that only the owner of the machine writes. So a key goes only
to the server it is stored with, and whoever queues a prompt cannot make this machine fetch an address.
"""

from __future__ import annotations

import ipaddress
import json
import re
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from .dialect import Dialect

MAX_DEADLINE_S = 3600.0
MAX_FILE_BYTES = 1_000_000

_NAME = re.compile(r"[\w.-]([\w .-]{0,62}[\w.-])?")
_HOST = re.compile(r"[a-z0-9]([a-z0-9._-]{0,251}[a-z0-9])?")
_PATH = re.compile(r"(/[A-Za-z0-9._~-]{1,256}){0,32}/?")
# Capitals only: a key pasted in place of a variable's name then nearly always fails here, and is never shown.
_VARIABLE = re.compile(r"[A-Z_][A-Z0-9_]{0,99}")
_KEY_FIELDS = frozenset({"key", "apikey", "token", "secret", "password", "authorization", "bearer"})

# Where clouds hand credentials to any process that asks; besides, all link-local addresses are refused.
_METADATA_NAMES = frozenset({"metadata", "metadata.google.internal", "metadata.goog", "instance-data"})
_METADATA_ADDRESSES = frozenset(
    map(
        ipaddress.ip_address,
        ("100.100.100.200", "168.63.129.16", "192.0.0.192", "fd20:ce::254"),
    )
)
# RFC 1918, RFC 4193, and the shared space of RFC 6598 that overlay networks such as Tailscale use.
_PRIVATE = tuple(
    map(ipaddress.ip_network, ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "fc00::/7"))
)
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
# AWS answers with credentials on several addresses of this range: instance metadata, ECS and EKS.
_METADATA_NETWORK = ipaddress.ip_network("fd00:ec2::/32")

_IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address


class Address(NamedTuple):
    """A parsed base URL; ``path`` has no slash at its end."""

    scheme: str
    host: str
    port: int
    path: str


@dataclass(frozen=True)
class Endpoint:
    """One OpenAI-compatible server and the model that is asked there.

    Args:
        name: letters, digits, space and ``. _ -``, up to 64: all that a workflow or an error message shows.
        url: base address such as ``http://127.0.0.1:11434/v1``; plain http for loopback and private hosts.
        model: the server's own name of the model.
        key_env: the *name*, in capitals, of the environment variable that holds the API key; "" sends none.
        verify_tls: check the server's certificate.
        pictures: whether the model can see pictures.
        deadline_s: seconds that a whole reply may take, retries included; above 0, up to 3600.
        proxy: address of an http proxy without user name, such as ``http://127.0.0.1:3128``, for https endpoints; "" goes
            without one. The proxy resolves the endpoint's name.
        dialect: how the server differs from others; its fields stand in the record beside those above.

    Raises:
        ValueError: a field is not as said above. The message never repeats a value that could hold a secret.
    """

    name: str
    url: str = field(repr=False)
    model: str
    key_env: str = ""
    verify_tls: bool = True
    pictures: bool = True
    deadline_s: float = 300.0
    proxy: str = field(default="", repr=False)
    dialect: Dialect = field(default_factory=Dialect, repr=False)

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not _NAME.fullmatch(self.name):
            raise ValueError("an endpoint's name is 1 to 64 letters, digits, spaces inside, or any of . _ -")
        if not isinstance(self.model, str) or not 0 < len(self.model) <= 256 or not self.model.isprintable():
            raise ValueError("'model' must be the server's name of a model (1 to 256 printable characters)")
        if not isinstance(self.key_env, str) or not (self.key_env == "" or _VARIABLE.fullmatch(self.key_env)):
            raise ValueError(
                "'key_env' must be the name of an environment variable in capitals, such as OPENAI_API_KEY; "
                "the key itself belongs in that variable, never in this file"
            )
        for flag in ("verify_tls", "pictures"):
            if not isinstance(getattr(self, flag), bool):
                raise ValueError(f"{flag!r} must be true or false")
        deadline = self.deadline_s
        if (
            isinstance(deadline, bool)
            or not isinstance(deadline, (int, float))
            or not 0 < deadline <= MAX_DEADLINE_S
        ):
            raise ValueError(f"'deadline_s' must be above 0 and at most {MAX_DEADLINE_S:g} seconds")
        self._check_proxy()
        if not isinstance(self.dialect, Dialect):
            raise ValueError("'dialect' must be a Dialect")
        host = self.address.host
        if host in _METADATA_NAMES:
            raise ValueError("'url' names a cloud metadata service, which is never allowed")
        if _as_ip(host) and (reason := self.refusal(host)):
            raise ValueError(f"'url' is not allowed: {reason}")

    def _check_proxy(self) -> None:
        if self.proxy == "":
            return
        try:
            proxy = _parse_url(self.proxy)
        except ValueError as error:
            raise ValueError(str(error).replace("'url'", "'proxy'")) from None
        if self.address.scheme != "https" or proxy.path:
            raise ValueError("'proxy' must look like http://host:port, and needs an https 'url'")

    @property
    def address(self) -> Address:
        """The parts of ``url``."""
        return _parse_url(self.url)

    def refusal(self, address: str) -> str:
        """Why no request may go to this IP address, which the host resolved to; "" where it may."""
        ip = _as_ip(address)
        if ip is None:
            return "its host did not resolve to an IP address"
        if isinstance(ip, ipaddress.IPv6Address):
            ip = ip.ipv4_mapped or ip
        if _is_never_allowed(ip):
            return "it leads to a link-local, metadata, unspecified or multicast address"
        if self.address.scheme == "https" or ip.is_loopback:
            return ""
        if not any(ip in network for network in _PRIVATE):
            return "plain http goes to loopback and private addresses only; use https"
        if self.key_env:
            return "a key goes over plain http to loopback addresses only; use https or remove 'key_env'"
        return ""


def load_endpoints(path: Path) -> dict[str, Endpoint]:
    """The sound records of ``{"endpoints": {name: {"url": …, "model": …, …}}}``; a missing file holds none.

    A record that is not allowed is left out here; ``find_endpoint`` says what is wrong with it.

    Raises:
        ValueError: the file cannot be read or is damaged; the message names the file.
    """
    return {name: record for name, record in _records(path).items() if isinstance(record, Endpoint)}


def find_endpoint(path: Path, name: str) -> Endpoint:
    """The endpoint of that name.

    Raises:
        ValueError: there is none (the message lists those there are), its record is not allowed, or the file is damaged.
    """
    records = _records(path)
    found = records.get(name)
    if isinstance(found, Endpoint):
        return found
    if found is not None:
        raise ValueError(f"{path}, endpoint {name[:64]!r}: {found}")
    known = (
        ", ".join(repr(other) for other, record in records.items() if isinstance(record, Endpoint)) or "none"
    )
    broken = [other[:64] for other, record in records.items() if not isinstance(record, Endpoint)]
    also = f"; not usable as they stand: {', '.join(map(repr, broken))}" if broken else ""
    raise ValueError(
        f"there is no endpoint {str(name)[:64]!r}; known: {known}{also}. Choose another 'endpoint', "
        f"or add a record with that name to {path}"
    )


def _records(path: Path) -> dict[str, Endpoint | str]:
    """Each record of the file, or in words why it is not allowed."""
    document = _read_document(path)
    records = document.get("endpoints") if isinstance(document, dict) else None
    if not isinstance(records, dict):
        raise ValueError(f'{path} must hold {{"endpoints": {{"<name>": {{"url": …, "model": …}}}}}}')
    found: dict[str, Endpoint | str] = {}
    for name, record in records.items():
        try:
            found[name] = _read_record(name, record)
        except ValueError as error:
            found[name] = str(error)
    return found


def _read_document(path: Path) -> Any:
    try:
        if path.exists() and not path.is_file():  # reading a pipe would wait for ever
            raise ValueError(
                f"{path} is not a file; put the records of the endpoints into a file of that name"
            )
        with path.open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
    except FileNotFoundError:
        return {"endpoints": {}}
    except (OSError, RuntimeError) as error:  # RuntimeError: a symlink loop, before Python 3.13
        reason = getattr(error, "strerror", None) or type(error).__name__
        raise ValueError(
            f"{path} cannot be read ({reason}); the user that runs ComfyUI must be able to read it"
        ) from None
    if len(content) > MAX_FILE_BYTES:
        raise ValueError(f"{path} holds more than {MAX_FILE_BYTES:,} bytes, which is too much for records")
    try:
        return json.loads(content.decode("utf-8-sig"))
    except UnicodeDecodeError:
        raise ValueError(f"{path} is not UTF-8 text") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is not JSON: {error.msg} in line {error.lineno}") from None
    except (ValueError, RecursionError):  # a number of 5000 digits, brackets 1000 deep
        raise ValueError(f"{path} is not JSON that can be read") from None


def _read_record(name: str, record: Any) -> Endpoint:
    if not isinstance(record, dict):
        raise ValueError("a record must be an object with 'url' and 'model'")
    if any(key.lower().replace("_", "").replace("-", "") in _KEY_FIELDS for key in record):
        raise ValueError(
            "a key may not stand in this file: put it in an environment variable and name that in 'key_env'"
        )
    own = [item.name for item in fields(Endpoint) if item.name not in ("name", "dialect")]
    spoken = [item.name for item in fields(Dialect)]
    if unknown := record.keys() - {*own, *spoken}:
        raise ValueError(f"unknown field {min(unknown)[:40]!r}; known: {', '.join([*own, *spoken])}")
    if missing := {"url", "model"} - record.keys():
        raise ValueError(f"{min(missing)!r} is missing")
    dialect = Dialect(**{key: value for key, value in record.items() if key in spoken})
    return Endpoint(name, **{key: value for key, value in record.items() if key in own}, dialect=dialect)


def _parse_url(url: Any) -> Address:
    wrong = ValueError("'url' must look like https://host:port/v1, with no spaces, '?' or '#'")
    # urlsplit drops tabs and line ends silently, so what it would drop is refused before.
    if not isinstance(url, str) or not url.isascii() or not url.isprintable():
        raise wrong
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        raise wrong from None
    if "@" in parts.netloc:
        raise ValueError(
            "'url' may not hold a user name, password or key: name an environment variable in 'key_env'"
        )
    if parts.scheme not in ("http", "https"):
        raise ValueError("'url' must begin with https:// or http://")
    if (
        not (_as_ip(host) or (_HOST.fullmatch(host) and "[" not in parts.netloc))
        or not _PATH.fullmatch(parts.path)
        or "?" in url
        or "#" in url
    ):
        raise wrong
    if port == 0:
        raise ValueError("'url' has port 0; a server's port is 1 to 65535")
    return Address(
        parts.scheme, host, port or {"http": 80, "https": 443}[parts.scheme], parts.path.rstrip("/")
    )


def _as_ip(text: str) -> _IPAddress | None:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None


def _is_never_allowed(ip: _IPAddress) -> bool:
    if isinstance(ip, ipaddress.IPv6Address):
        # An IPv4 address can be reached through IPv6 by 6to4 and NAT64 gateways too.
        nat64 = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF) if ip in _NAT64 else None
        inner = ip.sixtofour or nat64
        if inner and _is_never_allowed(inner):
            return True
    return (
        ip.is_link_local
        or ip.is_unspecified
        or ip.is_multicast
        or ip in _METADATA_ADDRESSES
        or ip in _METADATA_NETWORK
    )
