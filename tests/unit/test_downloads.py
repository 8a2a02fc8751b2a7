"""Downloads: with progress, resumed, checked, and never from anywhere else. The server is on loopback."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.hub import Hub
from support.small_disk import small_disk

from llmga import downloads
from llmga.downloads import Remote, chosen, download_unet

NAME = "llmga-sd15-inpainting-v2"
WEIGHTS = bytes(range(256)) * 20_000  # 5 MB
FILES = {
    "README.md": b"text",
    "vae/diffusion_pytorch_model.safetensors": b"not wanted",
    "unet/config.json": b"{}",
    "unet/diffusion_pytorch_model.safetensors": WEIGHTS + b"full",
    "unet/diffusion_pytorch_model.fp16.safetensors": WEIGHTS,
    "scheduler/scheduler_config.json": b'{"prediction_type": "epsilon"}',
}
HALF = "unet/diffusion_pytorch_model.fp16.safetensors"
WANTED = {"unet/config.json", "scheduler/scheduler_config.json", HALF}


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    for name in (
        "HF_HUB_OFFLINE",
        "HTTP_PROXY",
        "HTTPS_PROXY",
        "ALL_PROXY",
        "http_proxy",
        "https_proxy",
        "all_proxy",
    ):
        monkeypatch.delenv(name, raising=False)
    with Hub(dict(FILES)) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        yield hub


class Seen(list[tuple[int, int]]):
    def __call__(self, done: int, total: int) -> None:
        self.append((done, total))


def files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_what_is_wanted_comes_and_nothing_else(hub: Hub, tmp_path: Path) -> None:
    seen = Seen()
    target = download_unet(NAME, tmp_path, seen)
    assert target == tmp_path / NAME and files(target) == WANTED
    assert all((target / name).read_bytes() == FILES[name] for name in WANTED)
    total = sum(len(FILES[name]) for name in WANTED)
    done = [done for done, _ in seen]
    assert (
        {of for _, of in seen} - {1} == {total}
        and done == sorted(done)
        and done[-1] == total
        and len(done) > 4
    )
    assert all(path.startswith(("/api/models/binxia/", "/binxia/")) for path, _ in hub.asked)
    before = len(hub.asked)
    download_unet(NAME, tmp_path, seen)  # again: it is there
    assert not any("/resolve/" in path for path, _ in hub.asked[before:])


def test_it_goes_on_where_it_stopped(hub: Hub, tmp_path: Path) -> None:
    hub.files = {HALF: WEIGHTS}
    hub.cut = [2_000_000]
    with pytest.raises(ConnectionError, match="run again, it goes on where it was"):
        download_unet(NAME, tmp_path, Seen())
    (part,) = files(tmp_path / NAME)
    assert part == f"{HALF}.part"
    there = (tmp_path / NAME / part).stat().st_size
    assert 0 < there <= 2_000_000
    seen = Seen()
    download_unet(NAME, tmp_path, seen)
    assert hub.asked[-1][1] == f"bytes={there}-" and seen[0][0] > there
    assert (tmp_path / NAME / HALF).read_bytes() == WEIGHTS and files(tmp_path / NAME) == {HALF}


def test_a_server_that_cannot_go_on_starts_again(hub: Hub, tmp_path: Path) -> None:
    hub.files = {HALF: WEIGHTS}
    hub.ranges = False
    part = tmp_path / NAME / f"{HALF}.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(b"x" * 1000)
    download_unet(NAME, tmp_path, Seen())
    assert (tmp_path / NAME / HALF).read_bytes() == WEIGHTS


def test_cancel_keeps_what_is_there(hub: Hub, tmp_path: Path) -> None:
    hub.files = {HALF: WEIGHTS}

    class StoppedError(Exception): ...

    def stop(done: int, total: int) -> None:
        if done > 1_000_000:
            raise StoppedError

    with pytest.raises(StoppedError):
        download_unet(NAME, tmp_path, stop)
    assert (tmp_path / NAME / f"{HALF}.part").stat().st_size > 1_000_000
    download_unet(NAME, tmp_path, Seen())
    assert (tmp_path / NAME / HALF).read_bytes() == WEIGHTS


@pytest.mark.parametrize("case", ["another hash", "an old part"])
def test_what_arrives_damaged_is_removed(hub: Hub, tmp_path: Path, case: str) -> None:
    hub.files = {HALF: WEIGHTS}
    part = tmp_path / NAME / f"{HALF}.part"
    if case == "an old part":  # of another revision
        part.parent.mkdir(parents=True)
        part.write_bytes(b"x" * 1000)
    else:
        hub.wrong_hash = True
    with pytest.raises(ValueError, match="arrived damaged"):
        download_unet(NAME, tmp_path, Seen())
    assert not files(tmp_path / NAME)


def test_a_hostile_list_writes_nowhere_else(hub: Hub, tmp_path: Path) -> None:
    for path in (
        "unet/../../../x.safetensors",
        "/unet/x.safetensors",
        "unet\\x.safetensors",
        "unet/c:x.safetensors",
    ):
        hub.files = {path: b"x"}
        with pytest.raises(ValueError, match="not a path inside a repository"):
            download_unet(NAME, tmp_path, Seen())
    assert not files(tmp_path)


def test_refusals(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="'someone/else' is not published"):
        download_unet("someone/else", tmp_path, Seen())
    hub.status = 404
    with pytest.raises(ConnectionError, match=r"cannot be downloaded \(404\)"):
        download_unet(NAME, tmp_path, Seen())
    hub.status = 500
    with pytest.raises(ConnectionError, match="stopped: HTTPStatusError"):
        download_unet(NAME, tmp_path, Seen())
    hub.status = 200
    monkeypatch.setattr(downloads, "SPARE", 10**18)
    with pytest.raises(ValueError, match="1 GB is to stay free"):
        download_unet(NAME, tmp_path, Seen())
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    before = len(hub.asked)
    with pytest.raises(ValueError, match="HF_HUB_OFFLINE"):
        download_unet(NAME, tmp_path, Seen())
    assert len(hub.asked) == before


def test_which_weights_are_chosen() -> None:
    def paths(*names: str) -> list[str]:
        return [file.path for file in chosen([Remote(name, 1, "") for name in names])]

    full, ema = "unet/diffusion_pytorch_model.safetensors", "unet/diffusion_pytorch_model.non_ema.safetensors"
    assert paths(full, ema) == [full]
    assert paths(full, HALF, "unet/deep/er.json", "unet/config.json") == ["unet/config.json", HALF]
    with pytest.raises(ValueError, match="no unet/"):
        paths("unet/diffusion_pytorch_model.bin")


def test_a_disk_that_becomes_full_keeps_what_came_and_says_what_to_do(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(downloads, "SPARE", -(10**12))  # another program fills the disk meanwhile
    with small_disk(tmp_path / "disk", 3_000_000) as disk:
        with pytest.raises(
            ValueError, match=r"full: make room there, then run again; it goes on where it was"
        ):
            download_unet(NAME, disk, Seen())
        assert f"{HALF}.part" in files(disk / NAME) and HALF not in files(disk / NAME)


def test_no_address_reaches_the_log(hub: Hub, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Every logger, at its finest; ComfyUI serves its log over HTTP."""
    with caplog.at_level(logging.DEBUG):
        for name in ("httpx", "httpcore.connection", "httpcore.http11"):
            caplog.set_level(logging.DEBUG, name)
        download_unet(NAME, tmp_path, Seen())
        hub.status = 500
        with pytest.raises(ConnectionError):
            download_unet(NAME, tmp_path, Seen())
    assert hub.url.removeprefix("http://") not in caplog.text and "/resolve/" not in caplog.text


def test_weights_without_a_hash_are_not_fetched(hub: Hub, tmp_path: Path) -> None:
    tree = hub.tree
    hub.tree = lambda: [{key: value for key, value in one.items() if key != "lfs"} for one in tree()]  # type: ignore[method-assign]
    with pytest.raises(ValueError, match="names no SHA-256 for unet/"):
        download_unet(NAME, tmp_path, Seen())
    assert not any("/resolve/" in path for path, _ in hub.asked)


def test_a_silent_line_can_be_cancelled_and_a_slow_one_stalls(monkeypatch: pytest.MonkeyPatch) -> None:
    class Cancel(BaseException): ...

    released = threading.Event()
    waits = []

    def on_wait() -> None:
        waits.append(1)
        if len(waits) == 3:
            raise Cancel

    monkeypatch.setattr(downloads, "POLL", 0.01)
    with pytest.raises(Cancel):
        downloads._waited(released.wait, on_wait)
    released.set()
    assert downloads._waited(lambda: 7, on_wait) == 7
    with pytest.raises(TimeoutError, match="its own"):
        downloads._waited(lambda: (_ for _ in ()).throw(TimeoutError("its own")), lambda: None)


def test_a_line_that_stalls_is_given_up(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(downloads, "STALL_SECONDS", -1.0)
    monkeypatch.setattr(downloads, "STALL_BYTES", 10**9)
    with pytest.raises(ConnectionError, match="less than 1000000 kB came"):
        download_unet(NAME, tmp_path, Seen())
