"""The local engine uses nothing that the installed transformers has announced to take away."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from PIL import Image

pytest.importorskip("transformers", reason="the local engine needs transformers")

from support.tiny_official import write_official

from llmga.chat.conversation import Conversation, Picture
from llmga.chat.engines.base import Sampling
from llmga.chat.folders import load_local_engine
from miniworld.models.random_language import write_tiny_llava, write_tiny_qwen_vl, write_tiny_text

pytestmark = pytest.mark.usefixtures("one_thread")

FOX = Picture.from_pil(Image.radial_gradient("L").resize((60, 40)))
WRITERS = {
    "llava": write_tiny_llava,
    "qwen-vl": write_tiny_qwen_vl,
    "text": write_tiny_text,
    "official": lambda folder: write_official(folder, "vicuna_v1"),
}


@pytest.fixture
def announcements() -> Iterator[list[str]]:
    """What transformers writes to its log of names that are going away; it says each thing once in a process."""
    found: list[str] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if "deprecated" in record.getMessage():
                found.append(record.getMessage())

    logger, handler = logging.getLogger("transformers"), Keep()
    logging.Logger.warning_once.cache_clear()  # type: ignore[attr-defined]
    logger.addHandler(handler)
    yield found
    logger.removeHandler(handler)


@pytest.mark.parametrize("kind", WRITERS)
def test_no_call_is_of_a_kind_that_is_going_away(tmp_path: Path, announcements: list[str], kind: str) -> None:
    folder = WRITERS[kind](tmp_path / kind)
    with warnings.catch_warnings():
        warnings.simplefilter("error", FutureWarning)
        warnings.simplefilter("error", DeprecationWarning)
        engine = load_local_engine(folder, dtype=torch.float32)
        chat = Conversation().say("user", "a red fox", (FOX,) if engine.supports_pictures else ())
        for temperature, lookup in ((0, 0), (0.5, 0), (0, 4)):
            engine.lookup = lookup
            sampling = Sampling(temperature=temperature, max_new_tokens=5)
            reply = engine.generate(chat, sampling, lambda text: None).answer
            longer = chat.say("assistant", reply).say("user", "blue")  # read on from the kept keys and values
            engine.generate(longer, sampling, lambda text: None)
    assert announcements == []
