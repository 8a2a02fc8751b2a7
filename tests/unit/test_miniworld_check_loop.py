"""The check of the loop: who chose which picture, and what each way of choosing is worth."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from llmga.chat.conversation import Conversation
from llmga.chat.engines.base import Said
from miniworld.checks import loop
from miniworld.checks.loop import LoopRun, claims_of, judged, loop_results
from miniworld.models.reader import load_reader
from miniworld.world.dataset import as_images
from miniworld.world.facts import caption_facts
from miniworld.world.render import render
from miniworld.world.scene import Scene, sample_scene
from tools import miniature


@dataclass
class SeeingEngine:
    """Answers by what was drawn, which it knows by the picture's hash."""

    drawn: dict[str, Scene]
    name: str = "seeing"
    supports_pictures: bool = True
    asked: list[str] = field(default_factory=list)

    def generate(self, conversation: Conversation, sampling: Any, on_text: Any) -> Said:
        turn = conversation.turns[-1]
        scene = self.drawn[conversation.turns[0].pictures[0].sha256]
        if turn.pictures:
            return Said("Some objects.")
        self.asked.append(turn.text)
        (wanted,) = caption_facts(turn.text).objects
        there = any(
            (one.colour, one.shape, one.place) == (wanted.colour, wanted.shape, wanted.place)
            for one in scene.objects
        )
        return Said("Yes." if there else "No.")


def picture_of(scene: Scene) -> torch.Tensor:
    return as_images(torch.from_numpy(np.array(render(scene, 256).image))[None])


def test_the_loop_stops_at_the_picture_that_is_right(monkeypatch: pytest.MonkeyPatch) -> None:
    from llmga.chat import Picture
    from llmga.images import channels_last, to_pil

    wanted, other = sample_scene(3, (2, 2)), sample_scene(4, (2, 2))
    assert not {(one.colour, one.shape, one.place) for one in wanted.objects} & {
        (one.colour, one.shape, one.place) for one in other.objects
    }
    pictures = [picture_of(one) for one in (other, wanted, other)]
    hashes = [Picture.from_pil(to_pil(channels_last(each / 2 + 0.5))[0]).sha256 for each in pictures]
    engine = SeeingEngine(dict(zip(hashes, (other, wanted, other), strict=True)))
    monkeypatch.setattr(loop, "chat_engine", lambda folder: engine)
    reader = load_reader(miniature.find() / "reader.safetensors")
    run = judged(Path("of nobody"), reader, wanted, pictures, 0)
    assert run == LoopRun(objects=2, right=(0, 2, 0), painted=2, chosen=1, best=1)
    assert set(engine.asked) == {claim.question for claim in claims_of(wanted)}


def test_each_way_of_choosing_is_counted() -> None:
    runs = [LoopRun(2, (1, 2, 0), 2, 1, 0), LoopRun(1, (1, 0, 0), 1, 0, 0), LoopRun(1, (0, 0, 1), 3, 0, 2)]
    found = {
        name: {key: share.value for key, share in row.items()} for name, row in loop_results(runs).items()
    }
    assert found["first picture"] == pytest.approx({"objects": 2 / 4, "scenes": 1 / 3, "painted": 1})
    assert found["loop"] == pytest.approx({"objects": 3 / 4, "scenes": 2 / 3, "painted": 2})
    assert found["best of all by the judge"] == pytest.approx(
        {"objects": 3 / 4, "scenes": 2 / 3, "painted": 3}
    )
    assert found["best of all by the reader"] == pytest.approx({"objects": 1, "scenes": 1, "painted": 3})
    assert found["the judge's gain"] == pytest.approx({"objects": 3 / 4 - 5 / 12, "scenes": 1 / 3})
    as_many = (1.5 + 1 + 1 / 3) / 4, (0.5 + 1 + 1 / 3) / 3  # of the pictures that the loop painted
    gained = {"objects": 3 / 4 - as_many[0], "scenes": 2 / 3 - as_many[1]}
    assert found["the loop's gain"] == pytest.approx(gained)
    every = found["all seeds, on average"]
    assert every == pytest.approx({"objects": (1 + 1 / 3 + 1 / 3) / 4, "scenes": 1 / 3, "painted": 3})
