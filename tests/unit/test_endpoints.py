import json
from pathlib import Path
from typing import Any

import pytest

from llmga.chat.endpoints import Endpoint, find_endpoint, load_endpoints

CANARY = "sk-Canary0123456789"


def write(path: Path, **records: Any) -> Path:
    path.write_text(json.dumps({"endpoints": records}), encoding="utf-8")
    return path


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "endpoints.json"


def test_records_are_read(file: Path) -> None:
    write(
        file,
        **{
            "My Ollama": {"url": "http://127.0.0.1:11434/v1/", "model": "llava:13b", "pictures": False},
            "hosted-1.0": {
                "url": "https://api.example.com/v1",
                "model": "org/model",
                "key_env": "EXAMPLE_API_KEY",
                "verify_tls": False,
                "deadline_s": 20,
            },
        },
    )
    endpoints = load_endpoints(file)
    assert list(endpoints) == ["My Ollama", "hosted-1.0"]
    assert endpoints["My Ollama"].address == ("http", "127.0.0.1", 11434, "/v1")
    assert endpoints["My Ollama"].pictures is False and endpoints["My Ollama"].key_env == ""
    hosted = find_endpoint(file, "hosted-1.0")
    assert hosted.address == ("https", "api.example.com", 443, "/v1")
    assert (hosted.key_env, hosted.verify_tls, hosted.deadline_s) == ("EXAMPLE_API_KEY", False, 20)
    assert "example.com" not in repr(hosted)


def test_a_file_from_a_windows_editor_is_read(file: Path) -> None:
    text = json.dumps(
        {"endpoints": {"本地": {"url": "http://localhost/v1", "model": "m"}}}, ensure_ascii=False
    )
    file.write_text(text, encoding="utf-8-sig")
    assert list(load_endpoints(file)) == ["本地"]


def test_a_missing_file_holds_none(file: Path) -> None:
    assert load_endpoints(file) == {}


def test_an_unknown_name_lists_the_known_ones(file: Path) -> None:
    write(
        file,
        one={"url": "http://localhost/v1", "model": "m"},
        two={"url": "http://localhost/v1", "model": "m"},
    )
    with pytest.raises(ValueError, match="no endpoint '../x'; known: 'one', 'two'") as caught:
        find_endpoint(file, "../x")
    assert str(file) in str(caught.value)
    file.unlink()
    with pytest.raises(ValueError, match="known: none"):
        find_endpoint(file, "one")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'{"endpoints": []}',
        b'{"url": "http://localhost/v1"}',
        b"\xff\xfe{}",
        b"[" * 100_000,
        b"1" * 5000,
        b" " * 1_000_001,
    ],
)
def test_a_damaged_file_is_named(file: Path, content: bytes) -> None:
    file.write_bytes(content)
    with pytest.raises(ValueError) as caught:
        load_endpoints(file)
    assert str(file) in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"url": None}, "https://host:port"),
        ({"url": "localhost:8000/v1"}, "must begin with https"),
        ({"url": "ftp://localhost/v1"}, "must begin with https"),
        ({"url": "file:///etc/passwd"}, "must begin with https"),
        ({"url": "https:///v1"}, "https://host:port"),
        ({"url": "https://host:0/v1"}, "port 0"),
        ({"url": "https://host:99999/v1"}, "https://host:port"),
        ({"url": "https://host/v1?key=" + CANARY}, "'?'"),
        ({"url": "https://host/v1#"}, "'#'"),
        ({"url": "https://host\t/v1"}, "https://host:port"),
        ({"url": "https://ho st/v1"}, "https://host:port"),
        ({"url": "https://host\\@evil/v1"}, "user name"),
        ({"url": f"https://user:{CANARY}@host/v1"}, "key_env"),
        ({"url": "https://[::1/v1"}, "https://host:port"),
        ({"url": "https://höst/v1"}, "https://host:port"),
        ({"model": ""}, "'model'"),
        ({"model": 3}, "'model'"),
        ({"model": "a\nb"}, "'model'"),
        ({"key_env": CANARY}, "capitals"),
        ({"key_env": "hf_abcdef"}, "capitals"),
        ({"key_env": 1}, "capitals"),
        ({"verify_tls": "no"}, "true or false"),
        ({"pictures": 1}, "true or false"),
        ({"deadline_s": 0}, "deadline_s"),
        ({"deadline_s": True}, "deadline_s"),
        ({"deadline_s": "10"}, "deadline_s"),
        ({"deadline_s": float("nan")}, "deadline_s"),
        ({"deadline_s": 1e9}, "deadline_s"),
        ({"api_key": CANARY}, "key_env"),
        ({"API-Key": CANARY}, "key_env"),
        ({"key": CANARY}, "key_env"),
        ({"token": CANARY}, "key_env"),
        ({"name": "other"}, "unknown field 'name'"),
        ({"headers": {"Authorization": CANARY}}, "unknown field 'headers'; known: url, model"),
    ],
)
def test_a_wrong_record_is_named_and_its_values_are_not(
    file: Path, change: dict[str, Any], message: str
) -> None:
    record = {"url": "https://host/v1", "model": "m"} | change
    write(file, **{"good one": {"url": "http://localhost/v1", "model": "m"}, "bad one": record})
    assert list(load_endpoints(file)) == ["good one"]
    assert find_endpoint(file, "good one").model == "m"
    with pytest.raises(ValueError, match="known: 'good one'; not usable as they stand: 'bad one'"):
        find_endpoint(file, "another")
    with pytest.raises(ValueError) as caught:
        find_endpoint(file, "bad one")
    text = str(caught.value)
    assert message in text and str(file) in text and "'bad one'" in text
    assert CANARY not in text and "hf_abcdef" not in text
    assert caught.value.__cause__ is None and caught.value.__context__ is None


@pytest.mark.parametrize("missing", ["url", "model"])
def test_url_and_model_are_needed(file: Path, missing: str) -> None:
    record = {"url": "http://localhost/v1", "model": "m"}
    del record[missing]
    with pytest.raises(ValueError, match=f"{missing!r} is missing"):
        find_endpoint(write(file, x=record), "x")
    with pytest.raises(ValueError, match="must be an object"):
        find_endpoint(write(file, x="http://localhost/v1"), "x")


@pytest.mark.parametrize("name", ["", " a", "a ", "a/b", "..\\a", "a\n", "<b>", "a" * 65, "a\u202eb"])
def test_odd_names_are_refused(file: Path, name: str) -> None:
    with pytest.raises(ValueError, match="1 to 64 letters"):
        find_endpoint(write(file, **{name: {"url": "http://localhost/v1", "model": "m"}}), name)


HTTP_LOOPBACK = ["127.0.0.1", "127.8.9.1", "[::1]", "[::ffff:127.0.0.1]"]
HTTP_PRIVATE = ["10.1.2.3", "172.16.0.1", "172.31.255.255", "192.168.1.5", "100.64.0.1", "[fd12:3456::1]"]
HTTP_PUBLIC = [
    "8.8.8.8",
    "172.32.0.1",
    "192.169.0.1",
    "100.128.0.1",
    "[2001:4860:4860::8888]",
    "[2002:7f00:1::]",
]
NEVER = [
    "169.254.169.254",
    "169.254.0.1",
    "[fe80::1]",
    "[::ffff:169.254.169.254]",
    "[64:ff9b::a9fe:a9fe]",
    "[2002:a9fe:a9fe::1]",
    "[fd00:ec2::254]",
    "[fd00:ec2::23]",
    "[fd00:ec2:0:1::7]",
    "100.100.100.200",
    "168.63.129.16",
    "0.0.0.0",
    "[::]",
    "224.0.0.1",
    "metadata.google.internal",
    "METADATA.google.internal",
]


def allowed(scheme: str, host: str, key_env: str = "") -> bool:
    try:
        Endpoint("x", f"{scheme}://{host}:8000/v1", "m", key_env)
    except ValueError:
        return False
    return True


def test_addresses_by_scheme_and_key() -> None:
    assert all(allowed("http", host) and allowed("http", host, "KEY") for host in HTTP_LOOPBACK)
    assert all(allowed("http", host) and not allowed("http", host, "KEY") for host in HTTP_PRIVATE)
    assert not any(allowed("http", host) for host in HTTP_PUBLIC)
    assert all(allowed("https", host, "KEY") for host in [*HTTP_LOOPBACK, *HTTP_PRIVATE, *HTTP_PUBLIC])
    assert not any(allowed(scheme, host) for host in NEVER for scheme in ("http", "https"))


def test_what_a_name_resolves_to_is_held_to_the_same_rules() -> None:
    plain, keyed = Endpoint("x", "http://box/v1", "m"), Endpoint("x", "http://box/v1", "m", "KEY")
    assert plain.refusal("192.168.1.5") == "" and keyed.refusal("127.0.0.1") == ""
    assert "loopback addresses only" in keyed.refusal("192.168.1.5")
    assert "use https" in plain.refusal("8.8.8.8")
    for address in ("169.254.169.254", "fe80::1%2", "::ffff:a9fe:a9fe"):
        assert "link-local" in Endpoint("x", "https://box/v1", "m").refusal(address)
