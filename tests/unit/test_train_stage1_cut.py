"""Stage 1 says what ``max_length`` cut, refuses what leaves nothing to learn, and names the record that failed."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("transformers", reason="stage 1 trains a transformers model")

from support.tiny_stage1 import values, write_base, write_data
from transformers import AutoModelForImageTextToText, AutoProcessor

from llmga.data.schemas import Dialogue, Message, write_records
from llmga.train import build
from llmga.train.mixed_conversations import MixedConversations
from llmga.train.stage1 import Stage1, Stage1Config, run
from llmga.train.turns import IGNORED, TurnEncoder

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_base(tmp_path_factory.mktemp("models") / "tiny-llava")


def words(folder: Path, *questions: str) -> list[dict[str, Any]]:
    """A part of one question and answer each."""
    folder.mkdir(parents=True, exist_ok=True)
    talks = [Dialogue((Message("human", one), Message("gpt", "Yes."))) for one in questions]
    write_records(folder / "qa.json", talks)
    return [{"name": "words", "path": str(folder / "qa.json"), "images": str(folder), "task": "qa"}]


def conversations(base: Path, config: Stage1Config) -> MixedConversations:
    encoder = TurnEncoder(AutoProcessor.from_pretrained(base, local_files_only=True), config.max_length)
    return MixedConversations(config.mixture.mixture(0), encoder)


def test_a_max_length_that_cuts_off_all_answers_of_a_part_is_refused_before_the_run(
    base: Path, tmp_path: Path
) -> None:
    parts = words(tmp_path / "data", "Why? " * 60, "How? " * 60)
    config = build(
        Stage1Config, values(tmp_path, base, mixture={"parts": parts, "mode": "fraction"}, max_length=40)
    )
    with pytest.raises(
        ValueError, match=r"max_length is 40, .*first 2 samples of .*qa\.json.*raise max_length"
    ):
        run(config, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_max_length_that_no_picture_fits_is_refused_before_the_run(base: Path, tmp_path: Path) -> None:
    data = write_data(tmp_path / "data")
    config = build(Stage1Config, values(data, base, max_length=4))
    with pytest.raises(
        ValueError, match=r"max_length is 4, and one picture takes 4 tokens: .*vqa\.json shows"
    ):
        run(config, tmp_path / "out")


def test_conversations_that_were_cut_are_counted_and_said(
    base: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    parts = words(tmp_path / "data", "Why?", "How? " * 60, "When?")
    config = build(
        Stage1Config, values(tmp_path, base, mixture={"parts": parts, "mode": "fraction"}, max_length=40)
    )
    found = conversations(base, config)
    found.check()
    with caplog.at_level(logging.WARNING):
        inputs = found.batch(torch.arange(3), torch.device("cpu"))
    assert (found.cut, found.unlearned) == (1, 1)
    assert "1 conversations so far were longer than max_length (40)" in caplog.text
    assert "1 of them all of their answers" in caplog.text
    net = AutoModelForImageTextToText.from_pretrained(base, local_files_only=True)
    trainer = Stage1(config, net, AutoProcessor.from_pretrained(base, local_files_only=True), found)
    trainer.prepare(torch.device("cpu"), 0, 1, lambda: None)
    (lost,) = [i for i in range(3) if (inputs.labels[i] == IGNORED).all()]
    loss, _ = trainer.loss(trainer.batch(torch.tensor([lost]), torch.Generator()), torch.Generator())
    assert loss.item() == 0  # alone in a step it teaches nothing, and stops nothing
    trainer.sample(1, tmp_path)
    assert "max_length cuts its answers off" in (tmp_path / "step-00000001.txt").read_text(encoding="utf-8")


def test_a_conversation_that_fits_is_not_counted_as_cut(base: Path, tmp_path: Path) -> None:
    data = write_data(tmp_path / "data")
    found = conversations(base, build(Stage1Config, values(data, base)))
    found.batch(torch.arange(len(found)), torch.device("cpu"))
    assert (found.cut, found.unlearned) == (0, 0)


def test_the_record_of_a_conversation_that_cannot_be_encoded_is_named(base: Path, tmp_path: Path) -> None:
    data = write_data(tmp_path / "data")
    config = build(Stage1Config, values(data, base))
    (data / "a.png").write_bytes(b"no picture")
    found = conversations(base, config)
    shown = next(i for i in range(len(found)) if "inpainting" in found.name(i))
    with pytest.raises(ValueError, match=r"inpainting\.json, record 0: .*a\.png cannot be read as a picture"):
        found.batch(torch.tensor([shown]), torch.device("cpu"))
