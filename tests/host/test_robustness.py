"""Nothing that a node is given, returns or raises stops the server, and every error is ours and names the input."""

from __future__ import annotations

import time
from typing import Any

import pytest
from support.graphs import chat, checkpoint, encode, endpoint, image, local, node, preview, text_of

from tools.comfy_client import PromptFailedError, PromptRejectedError
from tools.comfy_server import ComfyServer
from tools.props import write_endpoints


@pytest.fixture(autouse=True)
def still_alive(server: ComfyServer):
    """After each test the same process still runs prompts."""
    yield
    number = time.monotonic()  # never cached
    source = {"1": node("PrimitiveFloat", value=number), "2": preview(["1", 0])}
    assert text_of(server.run(source), "2") == str(number)


def value(kind: str) -> dict[str, Any]:
    return node("LLMGATest_Value", kind=kind)


def failing(server: ComfyServer, prompt: dict[str, Any]) -> PromptFailedError:
    with pytest.raises(PromptFailedError) as caught:
        server.run(prompt)
    return caught.value


@pytest.mark.parametrize("raised", ["SystemExit", "KeyboardInterrupt", "GeneratorExit", "CancelledError"])
def test_what_would_stop_the_worker_becomes_an_error(server: ComfyServer, raised: str) -> None:
    error = failing(server, {"1": node("LLMGATest_Engine", behaviour=raised), "2": chat("1")})
    assert error.exception_type == "RuntimeError"
    assert f"stopped from inside by {raised}: from inside" in error.exception_message


@pytest.mark.parametrize("returned", ["bytes", "none", "number", "empty"])
def test_an_engine_that_returns_no_text_is_an_error(server: ComfyServer, returned: str) -> None:
    error = failing(server, {"1": node("LLMGATest_Engine", behaviour=returned), "2": chat("1")})
    assert error.exception_type == "ValueError"
    assert "engine" in error.exception_message or "'probe'" in error.exception_message


@pytest.mark.parametrize("returned", ["surrogate", "control", "markup"])
def test_odd_text_goes_through_to_the_saved_history(server: ComfyServer, returned: str) -> None:
    prompt = {
        "1": node("LLMGATest_Engine", behaviour=returned),
        "2": chat("1"),
        "3": preview(["2", 1]),
        "4": node("LLMGA_SaveHistory", history=["2", 4], name=f"odd {returned}"),
    }
    entry = server.run(prompt)
    assert "fox" in text_of(entry, "3")
    again = {"1": node("LLMGA_LoadHistory", name=f"odd {returned}"), "2": preview(["1", 0])}
    assert "fox" in text_of(server.run(again), "2")


WRONG = {
    "engine": ["none", "text", "object", "dict"],
    "instruction": ["none", "bytes", "list", "long", "nan"],
    "task": ["none", "text", "list", "parent", "set"],
    "seed": ["none", "nan", "negative", "huge", "text", "true"],
    "temperature": ["none", "nan", "infinity", "negative", "text", "true", "huge"],
    "top_p": ["none", "nan", "infinity", "negative", "text"],
    "max_new_tokens": ["none", "nan", "negative", "huge", "text", "true"],
    "policy": ["none", "text", "set"],
    "image": ["text", "nan_image", "empty_image", "flat_image", "object"],
    "mask": ["text", "nan_image", "object"],
    "history": ["text", "dict", "object"],
}


@pytest.mark.parametrize(("name", "kind"), [(name, kind) for name, kinds in WRONG.items() for kind in kinds])
def test_a_wrong_value_over_a_link_names_the_input_of_the_chat(
    server: ComfyServer, name: str, kind: str
) -> None:
    prompt = {"1": local(), "9": value(kind), "8": image(), "2": chat("1", image=["8", 0])}
    prompt["2"]["inputs"][name] = ["9", 0]
    error = failing(server, prompt)
    assert error.node_type == "LLMGA_Chat"
    assert error.exception_type == "ValueError", error
    assert name in error.exception_message


NAMES = ["none", "bytes", "list", "parent", "absolute", "device", "nul", "long", "nan"]


@pytest.mark.parametrize("kind", NAMES)
def test_a_history_is_saved_under_a_plain_name_only(server: ComfyServer, kind: str) -> None:
    before = {path for path in server.base.rglob("*") if path.is_file()}
    prompt = {
        "1": node("LLMGATest_Engine", behaviour="markup"),
        "2": chat("1"),
        "9": value(kind),
        "3": node("LLMGA_SaveHistory", history=["2", 4], name=["9", 0]),
    }
    error = failing(server, prompt)
    assert error.exception_type == "ValueError" and "name" in error.exception_message
    assert {path for path in server.base.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("kind", [*NAMES, "text"])
@pytest.mark.parametrize(
    ("loader", "name"),
    [("LLMGA_LoadHistory", "name"), ("LLMGA_ModelLoader", "model"), ("LLMGA_Endpoint", "endpoint")],
)
def test_a_loader_takes_a_listed_name_only(server: ComfyServer, loader: str, name: str, kind: str) -> None:
    widgets = {"precision": "auto"} if loader == "LLMGA_ModelLoader" else {}
    prompt = {"9": value(kind), "1": node(loader, **{name: ["9", 0]}, **widgets), "2": preview(["1", 0])}
    error = failing(server, prompt)
    assert error.node_type == loader
    assert error.exception_type == "ValueError", error
    assert name in error.exception_message


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        (name, kind)
        for name in ("text", "negative_text", "layout", "weights", "break_at", "min_chunks", "max_chunks")
        for kind in ("none", "nan", "set", "huge")
        if (name, kind) != ("negative_text", "none")  # a null in an API prompt is no negative text
    ],
)
def test_a_wrong_value_over_a_link_names_the_input_of_the_encoder(
    server: ComfyServer, name: str, kind: str
) -> None:
    prompt = {"1": checkpoint(), "9": value(kind), "2": encode(["1", 1], "a fox"), "3": preview(["2", 2])}
    prompt["2"]["inputs"][name] = ["9", 0]
    error = failing(server, prompt)
    assert error.exception_type == "ValueError", error
    assert name in error.exception_message


@pytest.mark.parametrize(
    "widgets",
    [
        {"temperature": float("nan")},
        {"seed": -1},
        {"seed": 2**64},
        {"task": "../../etc/passwd"},
        {"policy": "sometimes"},
        {"max_new_tokens": 0},
        {"top_p": 2.0},
    ],
    ids=str,
)
def test_a_wrong_widget_is_refused(server: ComfyServer, widgets: dict[str, Any]) -> None:
    with pytest.raises((PromptRejectedError, PromptFailedError)) as caught:
        server.run({"1": local(), "2": chat("1", **widgets)})
    assert next(iter(widgets)) in str(caught.value)


def test_tasks_say_what_they_miss(server: ComfyServer) -> None:
    engine = {"1": local()}
    refused = {
        "'instruction' is empty": chat("1", "  "),
        "connect one to 'image'": chat("1", task="similar"),
        "to 'mask'": chat("1", task="inpaint", image=["3", 0]),
    }
    cases = {
        "'instruction' is empty": chat("1", ["6", 0]),
        "image is not connected": chat("1", mask=["4", 0]),
        "mask holds 2 masks for 1 pictures": chat("1", image=["3", 0], mask=["5", 0]),
    }
    sources = {"3": image(), "4": node("SolidMask", value=1.0, width=8, height=8), "5": value("two_masks")}
    sources["6"] = node("PrimitiveString", value="  ")  # what is linked is known when it runs
    for words, wrong in refused.items():
        with pytest.raises(PromptRejectedError, match=words):
            server.run({**engine, **sources, "2": wrong})
    for words, wrong in cases.items():
        assert words in failing(server, {**engine, **sources, "2": wrong}).exception_message


def test_an_endpoint_without_a_server_is_named_and_its_address_is_not(server: ComfyServer) -> None:
    path = server.base / "user" / "__llmga" / "endpoints.json"
    before = path.read_text(encoding="utf-8")
    path.write_text(
        '{"endpoints": {"nobody": {"url": "http://127.0.0.1:9/v1", "model": "m"}}}', encoding="utf-8"
    )
    try:
        error = failing(server, {"1": endpoint(endpoint="nobody"), "2": chat("1")})
    finally:
        path.write_text(before, encoding="utf-8")
    assert "'nobody'" in error.exception_message and "127.0.0.1" not in error.exception_message


def test_an_endpoint_never_leads_back_to_this_server(server: ComfyServer) -> None:
    path = server.base / "user" / "__llmga" / "endpoints.json"
    before = path.read_text(encoding="utf-8")
    write_endpoints(path, server.url)
    try:
        error = failing(server, {"1": endpoint(), "2": chat("1", "loop")})
    finally:
        path.write_text(before, encoding="utf-8")
    assert "'demo'" in error.exception_message
