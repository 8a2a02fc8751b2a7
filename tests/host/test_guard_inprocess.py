"""The guard around every ``execute``: what it lets through, what it turns into an error, and that every node has it."""

from __future__ import annotations

import asyncio
import importlib
from typing import Any

import numpy as np
import pytest
import torch
from support import comfy_inprocess

pytestmark = pytest.mark.skipif(
    comfy_inprocess.skip_reason() is not None, reason=str(comfy_inprocess.skip_reason())
)


@pytest.fixture(scope="module")
def host() -> Any:
    return comfy_inprocess.pack("nodes.host")


def node(host: Any, body: Any) -> Any:
    class Probe:
        @classmethod
        @host.guarded
        def execute(cls, value: Any) -> Any:
            return body(value)

    return Probe


def output(ui: Any) -> Any:
    return importlib.import_module("comfy_api.latest").io.NodeOutput("x", ui=ui)


@pytest.mark.parametrize(
    "value",
    [torch.zeros(2), {1}, b"x", np.float32(1), float("nan"), float("inf"), object()],
    ids=["tensor", "set", "bytes", "float32", "nan", "inf", "object"],
)
def test_a_ui_value_that_is_not_json_never_reaches_the_host(host: Any, value: Any) -> None:
    with pytest.raises((TypeError, ValueError)):
        node(host, lambda v: output({"text": [v]})).execute(value)


def test_a_result_goes_through_untouched(host: Any) -> None:
    expected = output({"text": ["a", 1, None]})
    assert node(host, lambda v: v).execute(expected) is expected


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt, GeneratorExit, asyncio.CancelledError])
def test_what_the_host_does_not_survive_becomes_an_error(host: Any, kind: type[BaseException]) -> None:
    def fail(_: Any) -> None:
        raise kind("inside")

    with pytest.raises(RuntimeError, match=f"Probe was stopped from inside by {kind.__name__}: inside"):
        node(host, fail).execute(None)


def test_errors_and_the_hosts_interrupt_stay_what_they_are(host: Any) -> None:
    interrupt = importlib.import_module("comfy.model_management").InterruptProcessingException
    for kind in (interrupt, ValueError, MemoryError, torch.cuda.OutOfMemoryError):

        def fail(_: Any, kind: type[BaseException] = kind) -> None:
            raise kind("as it was")

        with pytest.raises(kind, match="as it was"):
            node(host, fail).execute(None)


@pytest.mark.parametrize("module", ["chat", "encode", "history", "loaders"])
def test_every_node_has_the_guard(host: Any, module: str) -> None:
    nodes = comfy_inprocess.pack(f"nodes.{module}").NODES
    assert nodes
    for each in nodes:
        assert each.execute.__func__.__code__ is host.guarded(lambda cls: None).__code__, each
