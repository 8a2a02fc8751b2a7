"""GILL's trainers: exact resume, caches that change nothing, rows of one length, files, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

pytest.importorskip("diffusers", reason="training needs diffusers")
pytest.importorskip("accelerate", reason="training needs accelerate")

from support.tiny_gill import write_gill
from support.tiny_gill_training import (
    gill_config,
    gill_trainer,
    train_decision_tiny,
    train_gill_tiny,
    write_captions,
)

from llmga.gill import HEAD_KINDS, load_decision, load_parts
from llmga.train import build, read_config, train
from llmga.train.command import main
from llmga.train.gill import GILLConfig
from llmga.train.gill_data import CaptionTable, LabelledPrompts
from llmga.train.gill_decision import GILLDecisionConfig, macro_f1

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data")


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "gill.safetensors")


def same(one: Path, other: Path) -> bool:
    mine, theirs = weights(one), weights(other)
    return mine.keys() == theirs.keys() and all(torch.equal(mine[name], theirs[name]) for name in mine)


def test_a_resumed_run_is_the_uninterrupted_one(tmp_path: Path, data: Path) -> None:
    whole = train_gill_tiny(tmp_path / "whole", data)
    train_gill_tiny(tmp_path / "cut", data, {"steps": 3})
    assert same(train_gill_tiny(tmp_path / "cut", data), whole)
    assert not same(train_gill_tiny(tmp_path / "seed", data, {"seed": 1}), whole)


def test_it_learns_and_its_rows_have_the_length_of_the_others(tmp_path: Path, data: Path) -> None:
    config = gill_config({"steps": 40, "log_every": 1, "sample_every": 40})
    trainer = gill_trainer(data, config)
    result = train(trainer, config.loop, tmp_path / "run")
    rows = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    for name in ("loss", "ce_captioning", "nce", "distance"):
        first, last = (sum(row[name] for row in part) for part in (rows[:5], rows[-5:]))
        assert last < 0.9 * first, name
    parts = load_parts(result / "gill.safetensors")
    lengths = parts.img_rows.norm(dim=1)
    torch.testing.assert_close(lengths, trainer.language.mean_row_norm().expand(8), rtol=1e-5, atol=0)
    said = json.loads((tmp_path / "run" / "samples" / "step-00000040.json").read_text())
    assert [line["caption"] for line in said] == [trainer.examples.caption(i) for i in range(4)]


@pytest.mark.parametrize("in_memory", [False, True])
def test_a_cache_changes_nothing(tmp_path: Path, data: Path, in_memory: bool) -> None:
    plain = train_gill_tiny(tmp_path / "plain", data)
    cached = train_gill_tiny(tmp_path / "run", data, cache=str(tmp_path / "cache"), cache_in_memory=in_memory)
    found, expected = weights(cached), weights(plain)
    for name, value in expected.items():  # pictures are encoded in other groups
        torch.testing.assert_close(
            found[name], value, rtol=1e-3, atol=1e-4, msg=lambda text, name=name: f"{name}: {text}"
        )
    assert len(list((tmp_path / "cache").glob("*/gill-00000.safetensors"))) == 1


@pytest.mark.parametrize("head", HEAD_KINDS)
def test_every_head_trains(tmp_path: Path, data: Path, head: str) -> None:
    sizes = {"retrieval": 20, "width": 16, "layers": 2, "head": head}
    result = train_gill_tiny(tmp_path / "run", data, {"steps": 1}, sizes=sizes)
    assert load_parts(result / "gill.safetensors").sizes.head == head


def test_what_a_configuration_must_not_say() -> None:
    loop = {"steps": 1, "batch": 3, "micro_batch": 3, "lr": 1e-3}
    with pytest.raises(ValueError, match="micro_batch must be even"):
        build(GILLConfig, {"loop": loop})
    with pytest.raises(ValueError, match="pairs is a probability"):
        build(GILLConfig, {"loop": loop, "pairs": 2.0})
    with pytest.raises(ValueError, match="cache_in_memory needs cache"):
        build(GILLConfig, {"loop": loop, "pairs": 0.0, "cache_in_memory": True})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("caption\timage\n", "no line behind its header"),
        ("caption\tpicture\na\tb.png\n", "lacks the column 'image'"),
        ("caption\timage\na b.png\n", "line 2: expected 2 fields"),
        ("caption\timage\na\t../b.png\n", "must stay inside"),
    ],
)
def test_damaged_tables(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "c.tsv").write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        CaptionTable(tmp_path / "c.tsv", tmp_path)


def test_the_decision_model_learns_and_resumes(tmp_path: Path, data: Path) -> None:
    whole = train_decision_tiny(tmp_path / "whole", data)
    report = json.loads((whole / "report.json").read_text())
    assert report["measured_on"] == 6 and report["accuracy"] > report["always_generate"]
    train_decision_tiny(tmp_path / "cut", data, {"steps": 20})
    again = train_decision_tiny(tmp_path / "cut", data)
    assert torch.equal(
        load_decision(whole / "decision.safetensors").linear.weight,
        load_decision(again / "decision.safetensors").linear.weight,
    )


def test_labelled_prompts(tmp_path: Path) -> None:
    path = tmp_path / "p.tsv"
    path.write_text(
        "Prompt\tCategory\tDecision\nbond\tA\tgen\nelement\tA\tret\nhappiness\tA\tsame\n", encoding="utf-8"
    )
    assert LabelledPrompts.read(path) == LabelledPrompts(("bond", "element"), (0, 1))
    path.write_text("Prompt\tDecision\nbond\tperhaps\n", encoding="utf-8")
    with pytest.raises(ValueError, match="line 2: Decision must be gen, ret or same"):
        LabelledPrompts.read(path)
    path.write_text("Prompt\tDecision\nbond\tgen\n", encoding="utf-8")
    with pytest.raises(ValueError, match="both kinds"):
        LabelledPrompts.read(path)


def test_macro_f1() -> None:
    truth, chosen = torch.tensor([0, 0, 0, 1]), torch.tensor([0, 0, 1, 1])
    assert macro_f1(chosen, truth) == pytest.approx((2 * 2 / 5 + 2 * 1 / 3) / 2)
    assert macro_f1(torch.zeros(4), truth) == pytest.approx((2 * 3 / 7 + 0) / 2)


def test_the_presets_are_the_released_settings() -> None:
    config = read_config(GILLConfig, "gill-paper")
    loop = config.loop
    assert (loop.steps, loop.batch, loop.lr, loop.betas, loop.weight_decay) == (
        20000,
        200,
        1e-3,
        (0.9, 0.95),
        0.01,
    )
    assert (loop.warmup, loop.milestones, loop.gamma, loop.clip) == (2000, (12001,), 0.1, 1.0)
    assert (config.max_length, config.pairs, config.sizes.width, config.sizes.layers) == (32, 0.5, 512, 4)
    assert read_config(GILLConfig, "gill-mini").sizes.head == "gill_mapper"
    decision = read_config(GILLDecisionConfig, "gill-decision-paper")
    assert (decision.train_on, decision.loop.steps, decision.loop.batch, decision.loop.lr) == (
        600,
        2000,
        600,
        1e-3,
    )


def test_both_stages_from_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """All but the text encoder, which is a diffusers folder, comes from files here."""
    files = write_gill(tmp_path / "models")
    write_captions(tmp_path / "captions")
    (tmp_path / "p.tsv").write_text("Prompt\tDecision\nsnow\tgen\nlake\tret\nfox\tgen\n", encoding="utf-8")
    loop = {"steps": 2, "batch": 2, "micro_batch": 2, "lr": 1e-3, "cpu": True}
    config = {
        "loop": loop,
        "language": str(files["language"]),
        "gill": str(files["parts"]),
        "prompts": str(tmp_path / "p.tsv"),
        "train_on": 2,
    }
    (tmp_path / "decision.yaml").write_text(yaml.safe_dump(config))
    assert (
        main(
            ["gill-decision", "--config", str(tmp_path / "decision.yaml"), "--output", str(tmp_path / "run")]
        )
        == 0
    )
    assert load_decision(tmp_path / "run" / "result" / "decision.safetensors").linear.in_features == 32
    assert main(["gill", "--config", "gill-mini", "--output", str(tmp_path / "gill")]) == 2
    assert "are needed" in capsys.readouterr().err
