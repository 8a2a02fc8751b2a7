from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from support.endpoint_chat import KEY, REPLY
from support.openai_server import OpenAIServer


def pytest_collection_finish() -> None:
    _set_aside()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> Iterator[None]:
    yield
    if nextitem is not None and nextitem.path != item.path:
        _set_aside()


def _set_aside() -> None:
    """Hide what is there by now from the garbage collector, after the last test of a file.

    The modules of torch and transformers are some million objects: a full collection of them takes a second, and a trainer
    asks for one at its end.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Tensors as small as a test's are only slowed down by a second thread, on a busy machine tenfold."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny official checkpoint with its vision tower inside, to be read or copied."""
    from support.tiny_official import write_official

    return write_official(tmp_path_factory.mktemp("official") / "whole", "vicuna_v1", seed=3)


@pytest.fixture
def server() -> Iterator[OpenAIServer]:
    with OpenAIServer(REPLY) as server:
        yield server


@pytest.fixture
def quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llmga.chat.engines.endpoint.RETRY_BASE_S", 0.02)
    monkeypatch.setenv("LLMGA_TEST_KEY", KEY)


@pytest.fixture
def nothing_is_left_behind() -> Iterator[None]:
    yield
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("llmga")]


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Seconds that the endpoint engine would wait before a retry; it does not wait them."""
    seen: list[float] = []
    wait = asyncio.sleep

    async def sleep(seconds: float) -> None:
        seen.append(seconds)
        await wait(0)

    rest = {name: getattr(asyncio, name) for name in ("wait_for", "TimeoutError")}
    monkeypatch.setattr("llmga.chat.engines.endpoint.asyncio", SimpleNamespace(sleep=sleep, **rest))
    return seen
