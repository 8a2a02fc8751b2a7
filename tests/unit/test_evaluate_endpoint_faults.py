"""An endpoint's failing request costs its item alone; several in a row end an evaluation, without a traceback."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from support.openai_server import OpenAIServer
from support.tiny_evaluation import base_folder, measure, settings

from llmga.chat.engines.endpoint import EndpointError
from llmga.evaluate.all_tables import preset_task, run_all
from llmga.evaluate.command import main
from llmga.evaluate.stages import Stages
from llmga.evaluate.writers import ChatConfig, Writer
from llmga.train.config import write_config

pytestmark = pytest.mark.usefixtures("one_thread", "quick_retries")

FAILS = "http_404"
"""What no retry helps against, so that a request is one item."""


@pytest.fixture
def server() -> Iterator[OpenAIServer]:
    with OpenAIServer("Here: <gen_image>a large red square</gen_image>") as server:
        yield server


@pytest.fixture
def chat(server: OpenAIServer, tmp_path: Path) -> dict[str, Any]:
    record = {"url": server.url, "model": "tiny", "pictures": True}
    (tmp_path / "endpoints.json").write_text(json.dumps({"endpoints": {"tiny": record}}), encoding="utf-8")
    return {"engine": f"endpoint:{tmp_path / 'endpoints.json'}#tiny"}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("diffusers", reason="the painters are diffusers'")
    return base_folder(tmp_path_factory.mktemp("evaluation"))


def test_a_request_that_fails_costs_its_item_alone(server: OpenAIServer, chat: Any) -> None:
    writer = Writer(ChatConfig(**chat))
    picture = Image.new("RGB", (16, 16))
    server.behave(FAILS, FAILS, "normal", FAILS, "normal")
    (one,) = writer.converse([("a",)], ("a",), "refine", 0)
    filled = writer.fill("inpaint", picture, Image.new("L", (16, 16), 255), 1)
    (third,) = writer.converse([("c",)], ("c",), "refine", 2)
    edited = writer.edit(picture, "make it red", 3)
    assert [one.prompt, filled.prompt, edited.prompt] == ["a", "", "make it red"]
    assert all("endpoint 'tiny'" in failed.fault for failed in (one, filled, edited))
    assert third.prompt == "a large red square" and not third.fault
    server.behave(FAILS)
    assert "endpoint 'tiny'" in writer.plan("a fish", 4).fault  # the fourth, and the second in a row
    with pytest.raises(EndpointError, match=r"3 requests in a row failed, the last one so: endpoint 'tiny'"):
        writer.plan("a fish", 5)


def test_items_of_the_row_that_ends_a_run_are_asked_for_again(
    server: OpenAIServer, chat: Any, tmp_path: Path
) -> None:
    keys = [str(i) for i in range(6)]

    def written() -> list[str]:
        return [
            one.fault and "fault" or one.prompt
            for one in Stages(tmp_path).write(
                "t",
                keys,
                ChatConfig(**chat),
                lambda writer, i: writer.converse([("a",)], ("a",), "refine", i)[0],
            )
        ]

    server.behave("normal", FAILS, "normal", FAILS)
    with pytest.raises(EndpointError):
        written()
    assert sorted(path.stem for path in tmp_path.rglob("prompts/*/*.json")) == ["0", "1", "2"]
    server.behave("normal")
    assert written() == ["a large red square", "fault", *["a large red square"] * 4]


def test_an_engine_that_cannot_be_loaded_ends_a_run(tmp_path: Path) -> None:
    writer = Writer(ChatConfig("folder"))
    with pytest.raises(ValueError, match="an engine must be named as"):
        writer.converse([("a",)], ("a",), "refine", 0)


def test_an_endpoint_that_is_down_ends_the_command_in_one_line_and_no_other_table(
    server: OpenAIServer, chat: Any, base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server.behave(FAILS)
    painter = {"base": str(base / "sd"), "steps": 2, "batch": 2}
    config = settings("t2i", base, rows=[{"name": "LLMGA", "painter": painter, "chat": chat}])
    write_config(config, tmp_path / "t2i.yaml")
    assert main(["t2i", f"--config={tmp_path / 't2i.yaml'}", f"--output={tmp_path / 'out'}"]) == 2
    said = capsys.readouterr().err
    assert "llmga evaluate: 3 requests in a row failed" in said and "Traceback" not in said
    plain = replace(config, rows=(replace(config.rows[0], chat=ChatConfig()),))
    tasks = [preset_task(name, name, each, None) for name, each in (("a", config), ("b", plain))]
    done: list[str] = []

    def one(task: str, each: Any, output: Path) -> Any:
        results = measure("t2i", each, output)
        done.append(task)
        return results

    failed = run_all(tasks, tmp_path / "all", one, tmp_path / "page.md", "command")
    assert done == ["b"] and [line.partition(":")[0] for line in failed] == ["a"]


def test_a_judge_whose_request_fails_costs_one_score(
    server: OpenAIServer, chat: Any, base: Path, tmp_path: Path
) -> None:
    from llmga.evaluate.command import config_class
    from llmga.train import build

    painter = {"base": str(base / "sd"), "steps": 2, "batch": 2}
    values = {
        "data": {"kind": "prompts", "count": 3},
        "rows": [{"name": "short", "painter": painter}],
        "pictures": 1,
        "judge": chat,
        "size": 64,
    }
    server.behave("normal", "normal", FAILS, "normal")  # each judgement is two requests
    with server.replying('{"score": 80, "explanation": "red"}'):
        (result,) = measure("rfbench", build(config_class("rfbench"), values), tmp_path / "out")
    assert result.rows["short"]["GPT4Score: all"].count == 2
    assert result.notes["short"][0].startswith("1 of 3 pictures have no score (endpoint 'tiny'")
