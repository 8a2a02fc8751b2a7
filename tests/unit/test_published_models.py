"""Published language models: pinned, whole before they are listed, resumed, checked. The server is on loopback."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.hub import Hub
from support.small_disk import small_disk

from llmga import downloads
from llmga.chat import published
from llmga.chat.published import PUBLISHED_MODELS, download_language_model, folder_files
from llmga.downloads import Remote

NAME = "Qwen3-VL-2B-Instruct"
MODEL = PUBLISHED_MODELS[NAME]
WEIGHTS = bytes(range(256)) * 12_000  # 3 MB
FILES = {
    ".gitattributes": b"*.safetensors filter=lfs",
    "README.md": b"text",
    "chat_template.jinja": b"{{ messages }}",
    "config.json": b'{"model_type": "qwen3_vl"}',
    "merges.txt": b"a b",
    "model-00001-of-00002.safetensors": WEIGHTS,
    "model-00002-of-00002.safetensors": WEIGHTS[:5000],
    "model.safetensors.index.json": b"{}",
    "modeling_qwen.py": b"import os",
    "onnx/model.safetensors": b"in another folder",
    "pytorch_model.bin": b"pickle",
    "tokenizer.json": b"{}",
    "tokenizer.model": b"pieces",
}
WANTED = FILES.keys() - {
    ".gitattributes",
    "README.md",
    "modeling_qwen.py",
    "onnx/model.safetensors",
    "pytorch_model.bin",
}
PART = "model-00001-of-00002.safetensors.part"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    for name in ("HF_HUB_OFFLINE", *(f"{kind}_PROXY" for kind in ("HTTP", "HTTPS", "ALL"))):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    with Hub(dict(FILES)) as hub:
        hub.revision = MODEL.revision
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        yield hub


def ignore(done: int, total: int) -> None: ...


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.rglob("*") if path.is_file()}


def test_the_pinned_commit_comes_with_config_json_last(hub: Hub, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    target = download_language_model(NAME, tmp_path, lambda *of: seen.append(of))
    assert target == tmp_path / NAME and names(target) == WANTED
    assert all((target / name).read_bytes() == FILES[name] for name in WANTED)
    total = sum(len(FILES[name]) for name in WANTED)
    assert seen[-1] == (total, total) and [done for done, _ in seen] == sorted(done for done, _ in seen)
    asked = [path for path, _ in hub.asked]
    assert asked[0] == f"/api/models/{MODEL.repository}/tree/{MODEL.revision}?recursive=true"
    assert all(path.startswith(f"/{MODEL.repository}/resolve/{MODEL.revision}/") for path in asked[1:])
    assert asked[-1].endswith("/config.json") and len(asked) == 1 + len(WANTED)


@pytest.mark.parametrize("how", ["a cut line", "cancel on a silent line"])
def test_what_stops_goes_on_and_is_no_model_meanwhile(hub: Hub, tmp_path: Path, how: str) -> None:
    class StoppedError(Exception): ...

    def stop(done: int, total: int) -> None:
        if done > 1_000_000:
            raise StoppedError

    small = sum(
        len(FILES[name]) for name in WANTED if not name.startswith("model-") and name != "config.json"
    )
    if how == "a cut line":
        hub.files = {name: data for name, data in FILES.items() if name in (PART[:-5], "config.json")}
        hub.cut = [2_000_000]
        with pytest.raises(ConnectionError, match=f"{NAME} stopped.*run again, it goes on where it was"):
            download_language_model(NAME, tmp_path, ignore)
    else:
        hub.silent_after = {PART[:-5]: 1_500_000}
        with pytest.raises(StoppedError):
            download_language_model(NAME, tmp_path, stop)
        hub.silent_after = {}
        hub.go_on.set()
        assert small < 1_000_000
    there = (tmp_path / NAME / PART).stat().st_size
    assert 0 < there < len(WEIGHTS) and "config.json" not in names(tmp_path)
    hub.asked.clear()
    download_language_model(NAME, tmp_path, ignore)
    ranges = {path.rpartition("/")[2]: asked for path, asked in hub.asked if "/resolve/" in path}
    assert ranges[PART[:-5]] == f"bytes={there}-"
    assert (tmp_path / NAME / PART[:-5]).read_bytes() == WEIGHTS and PART not in names(tmp_path)


@pytest.mark.parametrize("name", ["model-00002-of-00002.safetensors", "tokenizer.json"])
def test_other_bytes_than_announced_are_removed(hub: Hub, tmp_path: Path, name: str) -> None:
    """Weights by SHA-256, small files by git's SHA-1: of the right size, but not the same."""
    tree = hub.tree()
    hub.tree = lambda: tree  # type: ignore[method-assign]
    hub.files[name] = bytes(255 - byte for byte in FILES[name])
    with pytest.raises(ValueError, match=f"{re.escape(name)} arrived damaged .* was removed; run again"):
        download_language_model(NAME, tmp_path, ignore)
    assert not {name, f"{name}.part", "config.json"} & names(tmp_path)


@pytest.mark.parametrize("name", ["model-00001-of-00002.safetensors", "merges.txt"])
def test_a_file_that_cannot_be_checked_stops_everything(hub: Hub, tmp_path: Path, name: str) -> None:
    tree = [
        {key: value for key, value in entry.items() if entry["path"] != name or key not in ("lfs", "oid")}
        for entry in hub.tree()
    ]
    hub.tree = lambda: tree  # type: ignore[method-assign]
    with pytest.raises(ValueError, match=f"names no SHA-256 for {re.escape(name)}.*models/LLM/{NAME}"):
        download_language_model(NAME, tmp_path, ignore)
    assert not any("/resolve/" in path for path, _ in hub.asked)


def test_a_full_disk_keeps_what_came(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match=r"0.0 GB more, and 1 GB is to stay free"):
        monkeypatch.setattr(downloads, "SPARE", 10**18)
        download_language_model(NAME, tmp_path, ignore)
    monkeypatch.setattr(downloads, "SPARE", -(10**12))  # another program fills the disk meanwhile
    with small_disk(tmp_path / "disk", 2_000_000) as disk:
        with pytest.raises(
            ValueError, match="full: make room there, then run again; it goes on where it was"
        ):
            download_language_model(NAME, disk, ignore)
        assert PART in names(disk) and "config.json" not in names(disk)


def test_refusals(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="'someone/else' is not published; known are Qwen3-VL-2B"):
        download_language_model("someone/else", tmp_path, ignore)
    hub.status = 404
    with pytest.raises(ConnectionError, match=rf"\(404\).*by hand into models/LLM/{NAME}"):
        download_language_model(NAME, tmp_path, ignore)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(ValueError, match="HF_HUB_OFFLINE"):
        download_language_model(NAME, tmp_path, ignore)
    with pytest.raises(ValueError, match=r"holds no config.json with \*.safetensors, only \['model.gguf'\]"):
        folder_files([Remote("model.gguf", 1, "")])


def test_every_published_model_is_pinned_to_a_commit() -> None:
    for name, model in PUBLISHED_MODELS.items():
        assert re.fullmatch(r"[0-9a-f]{40}", model.revision), name
        assert model.repository.endswith(f"/{name}") and model.gigabytes > 1
    sizes = [model.gigabytes for model in PUBLISHED_MODELS.values()]
    assert sizes == sorted(sizes) and published.FOLDER == "models/LLM"
