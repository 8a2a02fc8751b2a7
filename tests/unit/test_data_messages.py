"""Samples as ``messages`` JSONL: as TRL, ms-swift and LLaMA-Factory read them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from llmga.data.messages import MessageLayout, write_messages
from llmga.data.samples import RandomHole, Sample, SampleOptions, SampleTurn, make_sample
from llmga.data.schemas import Caption, Dialogue, Message
from llmga.paint.masks import MIXES


@pytest.fixture
def samples(tmp_path: Path) -> list[Sample]:
    Image.new("RGB", (600, 520), "white").save(tmp_path / "white.jpg")
    dialogue = Dialogue(
        (
            Message("human", "<image>\nWhat is it?"),
            Message("gpt", "雪"),
            Message("human", "Sure?"),
            Message("gpt", "Yes."),
        ),
        "white.jpg",
        system="Be brief.",
    )
    rng = np.random.default_rng(0)
    talk = make_sample("vqa", dialogue, tmp_path, SampleOptions(), rng)
    hole = make_sample("inpainting", Caption("white.jpg", "Snow."), tmp_path, SampleOptions(), rng)
    words = Sample((SampleTurn("user", "hi"), SampleTurn("assistant", "hello")))
    return [talk, hole, words]


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def test_trl_has_parts_of_one_type_in_every_line(samples: list[Sample], tmp_path: Path) -> None:
    path = tmp_path / "out" / "train.jsonl"
    assert write_messages(samples, path, "trl") == 3
    talk, hole, words = lines(path)
    image, text = {"type": "image", "text": None}, {"type": "text", "text": "What is it?"}
    assert talk["messages"][0] == {"role": "system", "content": [{"type": "text", "text": "Be brief."}]}
    assert talk["messages"][1] == {"role": "user", "content": [image, text]}
    assert [message["role"] for message in talk["messages"]] == [
        "system",
        "user",
        "assistant",
        "user",
        "assistant",
    ]
    assert talk["images"] == [str(tmp_path / "white.jpg")] and words["images"] == []
    for line in (talk, hole, words):
        parts = [part for message in line["messages"] for part in message["content"]]
        assert all(part.keys() == {"type", "text"} for part in parts)
        assert sum(part["type"] == "image" for part in parts) == len(line["images"])


@pytest.mark.parametrize("layout", ["ms-swift", "llama-factory"])
def test_the_others_have_a_mark_for_each_picture(
    samples: list[Sample], tmp_path: Path, layout: MessageLayout
) -> None:
    path = tmp_path / "train.jsonl"
    write_messages(samples, path, layout)
    for line in lines(path):
        contents = [message["content"] for message in line["messages"]]
        assert sum(content.count("<image>") for content in contents) == len(line["images"])
    assert lines(path)[0]["messages"][1] == {"role": "user", "content": "<image>What is it?"}
    assert lines(path)[0]["messages"][2]["content"] == "雪" and "雪" in path.read_text("utf-8")
    assert (tmp_path / "dataset_info.json").exists() == (layout == "llama-factory")
    marked = Sample((SampleTurn("user", "what is <image>?"), SampleTurn("assistant", "a tag")))
    with pytest.raises(ValueError, match="sample 1: the user's text holds <image>, which"):
        write_messages([marked], path, layout)
    assert len(lines(path)) == 3  # as before
    assert write_messages([marked], tmp_path / "trl.jsonl", "trl") == 1


def test_a_hole_is_painted_black_into_a_picture_of_its_own(samples: list[Sample], tmp_path: Path) -> None:
    write_messages(samples, tmp_path / "train.jsonl", "trl")
    (name,) = lines(tmp_path / "train.jsonl")[1]["images"]
    assert name == str(tmp_path / "train_pictures" / "0000002.png")
    picture = samples[1].picture()
    assert picture is not None and np.array_equal(np.asarray(Image.open(name)), np.asarray(picture))
    assert 0.05 < (np.asarray(picture) == 0).mean() < 0.95


def test_llama_factory_finds_the_file(samples: list[Sample], tmp_path: Path) -> None:
    info = tmp_path / "dataset_info.json"
    info.write_text('{"mine": {"file_name": "mine.json"}}')
    write_messages(samples, tmp_path / "train.jsonl", "llama-factory")
    found = json.loads(info.read_text())
    assert found["mine"] == {"file_name": "mine.json"} and found["train"]["file_name"] == "train.jsonl"
    assert found["train"]["columns"] == {"messages": "messages", "images": "images"}
    assert found["train"]["tags"]["role_tag"] == "role" and found["train"]["formatting"] == "sharegpt"
    for damaged in ("{", "[]"):
        info.write_text(damaged)
        with pytest.raises(ValueError, match="dataset_info.json"):
            write_messages(samples, tmp_path / "train.jsonl", "llama-factory")
        assert info.read_text() == damaged


def test_what_is_wrong_is_said(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="layout must be one of trl, ms-swift, llama-factory"):
        write_messages([], tmp_path / "x.jsonl", "alpaca")  # type: ignore[arg-type]
    gone = Sample(
        (SampleTurn("user", "x", shows_image=True), SampleTurn("assistant", "y")),
        tmp_path / "gone.png",
        RandomHole(MIXES["stage1"].shapes[0][1], 1),
    )
    with pytest.raises((ValueError, FileNotFoundError), match="gone"):
        write_messages([gone], tmp_path / "x.jsonl", "trl")
    assert not (tmp_path / "x.jsonl").exists()
