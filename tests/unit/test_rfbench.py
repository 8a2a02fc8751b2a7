"""RFBench: its prompts, the list as CSV, the two-turn judge, the log that goes on, and the averages."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from llmga.chat.conversation import Conversation, Picture
from llmga.chat.engines.base import OnText, Said, Sampling
from llmga.evaluate.gpt4score import (
    JudgedPicture,
    NoScoreError,
    caption_similarity,
    judge_picture,
    judge_pictures,
    read_score,
)
from llmga.evaluate.rfbench import COLUMNS, BenchPrompt, by_category, load_prompts, own_prompts
from llmga.evaluate.rfbench_prompts import GROUPS


@dataclass
class Judge:
    """Says how dark a picture is, in two turns; a picture of one colour named in ``silent`` gets no score."""

    silent: tuple[int, ...] = ()
    name: str = "judge"
    supports_pictures: bool = True
    asked: list[Conversation] = field(default_factory=list)

    def generate(self, conversation: Conversation, sampling: Sampling, on_text: OnText) -> Said:
        self.asked.append(conversation)
        level = conversation.pictures[0].to_pil().getpixel((0, 0))[0]  # type: ignore[index] # RGB
        if len(conversation.turns) == 1:
            return Said(f"a plain picture of level {level}")
        if level in self.silent:
            return Said("I would rather not say.")
        return Said(f'```json\n{{"score": {level // 2}, "explanation": "level",}}\n```')


def pictures(folder: Path, *levels: int) -> list[JudgedPicture]:
    found = []
    for number, level in enumerate(levels):
        path = folder / f"{number}.png"
        Image.new("RGB", (4, 4), (level, level, level)).save(path)
        found.append(JudgedPicture(f"p/{number}", f"prompt {number}", path))
    return found


def test_there_are_ten_prompts_of_each_of_the_nine_sub_categories() -> None:
    prompts = own_prompts()
    counts = {name: sum(one.subcategory == name for one in prompts) for name in GROUPS}
    assert len(counts) == 9 and min(counts.values()) >= 10
    assert len({one.id for one in prompts}) == len({one.prompt for one in prompts}) == len(prompts)
    assert {one.group for one in prompts} == {"realistic", "creative"}
    assert sum(group == "realistic" for group in GROUPS.values()) == 4


def test_a_list_is_read_and_its_faults_are_named(tmp_path: Path) -> None:
    path = tmp_path / "rfbench.csv"
    head = ",".join(COLUMNS)
    path.write_text(
        f'\ufeff{head}\n1,"a cat, chased by a mouse",creative,role_reversal\n2,b,realistic,literal\n', "utf-8"
    )
    assert load_prompts(path) == [
        BenchPrompt("1", "a cat, chased by a mouse", "creative", "role_reversal"),
        BenchPrompt("2", "b", "realistic", "literal"),
    ]
    for text, message in (
        ("id,prompt\n1,a\n", "lacks group, subcategory"),
        (f"{head}\n1,,x,y\n", "line 2: each of"),
        (f"{head}\n1,a,x,y\n1,b,x,y\n", "line 3: the id '1' comes twice"),
        ("", "must have the columns"),
        (head.replace(",", ";"), "its first line is 'id;prompt;group;subcategory'"),
        (f"{head},prompt\n1,a,x,y,b\n", "has it twice"),
        (f"{head}\n", "holds no prompt"),
        (f"{head}\n1,a cat, on a mat,x,y\n", "line 2: it has 5 values for 4 columns"),
        (f"{head}\n1,a,x,y\n2,b,y,z\n", "the sub-category 'y' has the name of a group"),
        (f"{head}\n1,a,x,all\n", "the sub-category 'all' has"),
        (f"{head}\n1,{'a' * 200_000},x,y\n", "after line 1: field larger than"),
    ):
        path.write_text(text, "utf-8")
        with pytest.raises(ValueError, match=message):
            load_prompts(path)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="is not UTF-8"):
        load_prompts(path)


def test_a_prompt_keeps_its_words_over_the_ends_of_lines(tmp_path: Path) -> None:
    path = tmp_path / "rfbench.csv"
    path.write_bytes(f'{",".join(COLUMNS)}\r\n1,"a cat\r\non a mat",x,y\r\n2,a\u2028b\x85c,x,y\r\n'.encode())
    assert [one.prompt for one in load_prompts(path)] == ["a cat on a mat", "a b c"]


def test_the_average_is_over_prompts_first() -> None:
    prompts = [BenchPrompt(str(i), "x", "ab"[i // 2], "abc"[i % 3]) for i in range(4)]
    scores = {"0": [1.0, 0.0], "1": [0.5] * 8, "2": [0.2], "9": [1.0]}
    found = by_category(prompts, scores)
    assert list(found) == ["a", "b", "c", "all"] or set(found) == {"a", "b", "c", "all"}
    assert found["all"].count == 3 and found["all"].value == pytest.approx(0.4)
    assert found["c"].value == 0.2 and math.isnan(found["c"].error)


@pytest.mark.parametrize(
    ("answer", "score"),
    [
        ('{"score": 85, "explanation": "fine"}', 85),
        ('Sure. ```json\n{"score": "60",}\n```', 60),
        ("{'score': 0.0}", 0),
        ('{note} {"score": 100}', 100),
        ('{"score": "85%"}', 85),
        ('{"score": "7.5 / 100"}', 7.5),
        ('{"score": "85 out of 100"}', 85),
    ],
)
def test_a_score_is_read(answer: str, score: float) -> None:
    assert read_score(answer)[0] == score


@pytest.mark.parametrize(
    "answer",
    [
        "", "85", '{"score": 101}', '{"score": -1}', '{"score": NaN}', '{"score": true}', "{" * 400,
        '{"score": 0.85}', '{"score": 85%}', '{"score": "0.85"}', '{"score": "8/10"}', '{"score": "185"}',
    ],
)  # fmt: skip
def test_an_answer_without_a_score(answer: str) -> None:
    with pytest.raises(NoScoreError):
        read_score(answer)


def test_a_picture_is_described_and_then_scored() -> None:
    judge = Judge()
    picture = Picture.from_pil(Image.new("RGB", (4, 4), (100, 0, 0)))
    found = judge_picture(judge, picture, "a dark room", sampling=Sampling(), on_text=lambda text: None)
    assert (found.score, found.explanation) == (0.5, "level")
    assert found.description == "a plain picture of level 100"
    first, second = judge.asked
    assert first.turns[-1].pictures == (picture,) and len(second.turns) == 3
    assert second.turns[1].text == found.description and '"a dark room"' in second.turns[2].text


def test_judging_goes_on_where_it_stopped_and_one_bad_answer_loses_no_other(tmp_path: Path) -> None:
    given, log = pictures(tmp_path, 0, 100, 200), tmp_path / "log.jsonl"
    given.append(JudgedPicture("p/9", "x", tmp_path / "missing.png"))

    class Killed(BaseException):
        pass

    def kill(done: int, total: int) -> None:
        if done == 2:
            raise Killed

    with pytest.raises(Killed):
        judge_pictures(Judge(), given, log, sampling=Sampling(), on_step=kill)
    log.write_bytes(log.read_bytes() + b'{"key": "cut o')
    judge = Judge(silent=(200,))
    steps: list[tuple[int, int]] = []
    found, failed = judge_pictures(
        judge, given, log, sampling=Sampling(), on_step=lambda done, total: steps.append((done, total))
    )
    assert {key: one.score for key, one in found.items()} == {"p/0": 0.0, "p/1": 0.5}
    assert "holds no score" in failed["p/2"] and "p/9" in failed and steps[-1] == (4, 4)
    assert len(judge.asked) == 2, "what the log has is not asked again"
    Image.new("RGB", (4, 4), (40, 40, 40)).save(given[0].path)
    again, _ = judge_pictures(Judge(), given, log, sampling=Sampling(), on_step=lambda *_: None)
    assert again["p/0"].score == 0.2, "another picture is judged anew"
    with pytest.raises(ValueError, match="begun with other settings"):
        judge_pictures(Judge(), given, log, sampling=Sampling(seed=1), on_step=lambda *_: None)
    with pytest.raises(ValueError, match="a key of its own"):
        judge_pictures(Judge(), given[:1] * 2, log, sampling=Sampling(), on_step=lambda *_: None)


def test_captions_are_compared_with_prompts(tmp_path: Path) -> None:
    given = pictures(tmp_path, 10, 20)
    found, _ = judge_pictures(Judge(), given, tmp_path / "log", sampling=Sampling(), on_step=lambda *_: None)
    prompts = {"p/0": found["p/0"].description, "p/1": "other"}

    def encode(texts: Any) -> torch.Tensor:
        return torch.tensor([[float("level" in t), float("other" in t), 1.0] for t in texts])

    alike = caption_similarity(found, prompts, encode)
    assert alike["p/0"] == pytest.approx(1) and alike["p/1"] == pytest.approx(0.5)
    assert caption_similarity({}, {}, encode) == {}
    assert json.loads((tmp_path / "log").read_text("utf-8").splitlines()[0])["settings"]["engine"] == "judge"
