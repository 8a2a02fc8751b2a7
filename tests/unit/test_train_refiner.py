"""The stage refiner: what TRL trains, resumes and writes, on bases of some kilobytes."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("transformers", reason="the refiner trains a transformers model")
pytest.importorskip("trl", minversion="1.16", reason="TRL trains the refiner: pip install 'llmga[refiner]'")

from safetensors.torch import load_file
from support.tiny_refiner import BASES, SEES
from support.tiny_stage1 import PICTURE, values, write_data

from llmga.chat import Conversation, Picture, Sampling
from llmga.chat.folders import load_local_engine
from llmga.data.schemas import Dialogue, Message, write_records
from llmga.train import build, checkpoint, learning_rate, presets, read_config, refiner, write_config
from llmga.train.command import main
from llmga.train.log import read_log
from llmga.train.refiner import RefinerConfig, load_base, run

pytestmark = pytest.mark.usefixtures("one_thread")

ANSWER = "<gen_image> a red fox </gen_image>"


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("models")
    return {name: write(folder / name) for name, write in BASES.items()}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("data"))


def config_of(
    data: Path, base: Path, loop: dict[str, Any] | None = None, tasks: tuple[str, ...] = (), **other: Any
) -> RefinerConfig:
    plain = values(data, base, loop, lora_rank=8, lora_alpha=16.0, **other)
    if tasks:
        plain["mixture"]["parts"] = [part for part in plain["mixture"]["parts"] if part["name"] in tasks]
    return build(RefinerConfig, plain)


def lesson(folder: Path, sees: bool) -> Path:
    """A mixture of one record, which asks for ANSWER."""
    PICTURE.save(folder / "a.png")
    asked = Message("human", "<image>\nDraw this." if sees else "Draw this.")
    record = Dialogue((asked, Message("gpt", ANSWER)), image="a.png" if sees else None)
    write_records(folder / "vqa.json", [record])
    return folder


@pytest.mark.parametrize("family", BASES)
def test_one_lesson_is_learned_and_the_engine_says_it(
    family: str, bases: dict[str, Path], tmp_path: Path
) -> None:
    sees = family in SEES
    loop = {"steps": 30, "batch": 1, "micro_batch": 1, "lr": 2e-2, "save_every": 30}
    config = config_of(lesson(tmp_path, sees), bases[family], loop, tasks=("vqa",), lora_dropout=0.0)
    result = run(config, tmp_path / "run")
    losses = [row["loss"] for row in read_log(tmp_path / "run" / "log.jsonl")]
    assert len(losses) == 30 and losses[-1] < 0.3 * losses[0]
    engine = load_local_engine(result)
    asked = Conversation().say("user", "Draw this.", (Picture.from_pil(PICTURE),) * sees)
    said = engine.generate(asked, Sampling(temperature=0, max_new_tokens=60), lambda text: None)
    assert said.answer == ANSWER and not said.unfinished  # it ends by the end token that it learned
    before, after = (load_base(str(folder), "no").state_dict() for folder in (bases[family], result))
    assert before.keys() == after.keys()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed and all(name.endswith("_proj.weight") and "vis" not in name for name in changed)
    adapter_is_what_was_merged(bases[family], tmp_path / "run" / "adapter", after)
    written = [json.loads((folder / "config.json").read_text()) for folder in (bases[family], result)]
    assert written[0].get("use_cache") == written[1].get("use_cache")  # training turns it off


def adapter_is_what_was_merged(base: Path, adapter: Path, merged: dict[str, torch.Tensor]) -> None:
    from peft import PeftModel

    net = PeftModel.from_pretrained(load_base(str(base), "no"), str(adapter)).merge_and_unload()
    for name, value in net.state_dict().items():
        torch.testing.assert_close(value, merged[name], rtol=1e-5, atol=1e-6)


def test_pictures_and_words_are_trained_in_one_batch(
    data: Path, bases: dict[str, Path], tmp_path: Path
) -> None:
    config = config_of(data, bases["qwen3-vl"], {"micro_batch": 4, "steps": 8, "lr": 1e-2}, merge=False)
    folder = run(config, tmp_path)
    assert folder == tmp_path / "adapter" and not (tmp_path / "result").exists()
    assert (folder / "adapter_model.safetensors").exists() and (folder / "chat_template.jinja").exists()
    losses = [row["loss"] for row in read_log(tmp_path / "log.jsonl")]
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("family", ["qwen2.5-vl", "qwen3-vl"])
def test_the_loss_is_the_mean_over_the_learned_tokens_of_a_step(
    family: str, data: Path, bases: dict[str, Path], tmp_path: Path
) -> None:
    loop = {"steps": 1, "micro_batch": 4}
    whole = config_of(data, bases[family], loop, lora_dropout=0.0, merge=False)
    parts = replace(whole, loop=replace(whole.loop, micro_batch=1))
    folders = [run(config, tmp_path / str(i)) for i, config in enumerate((whole, parts))]
    (one,), (four,) = (read_log(folder.parent / "log.jsonl") for folder in folders)
    assert one["loss"] == pytest.approx(four["loss"], rel=1e-5)
    assert one["grad_norm"] == pytest.approx(four["grad_norm"], rel=1e-4)


def test_a_run_that_goes_on_has_the_new_settings_and_not_the_checkpoints(
    data: Path, bases: dict[str, Path], tmp_path: Path
) -> None:
    loop = {"steps": 2, "lr": 1e-2, "save_every": 2, "log_every": 2, "keep": 9}
    run(config_of(data, bases["qwen3"], loop, tasks=("t2i",), merge=False), tmp_path)
    changed = {"steps": 5, "lr": 1e-3, "weight_decay": 0.5, "betas": [0.8, 0.9], "adam_eps": 1e-6}
    changed |= {"schedule": "multistep", "milestones": [3], "save_every": 1, "log_every": 1}
    config = config_of(data, bases["qwen3"], {**loop, **changed}, tasks=("t2i",), merge=False)
    run(config, tmp_path)
    assert [(row["step"], row["lr"]) for row in read_log(tmp_path / "log.jsonl")] == [
        (2, 1e-2),
        *((step, pytest.approx(learning_rate(config.loop, step - 1))) for step in (3, 4, 5)),
    ]
    assert checkpoint.steps(tmp_path / "checkpoints") == [2, 3, 4, 5]
    groups = torch.load(tmp_path / "checkpoints/step-00000005/optimizer.pt", weights_only=True)[
        "param_groups"
    ]
    assert {(tuple(group["betas"]), group["eps"]) for group in groups} == {((0.8, 0.9), 1e-6)}
    assert 0.5 in {group["weight_decay"] for group in groups}


def test_a_resumed_run_is_the_uninterrupted_one(data: Path, bases: dict[str, Path], tmp_path: Path) -> None:
    # Dropout, a cosine and Adam's moments: all of the state counts.
    loop = {
        "steps": 4,
        "schedule": "cosine",
        "warmup": 1,
        "lr": 1e-2,
        "save_every": 1,
        "log_every": 3,
        "keep": 9,
    }
    config = config_of(data, bases["qwen3-vl"], loop, lora_dropout=0.3)
    whole = run(config, tmp_path / "whole")
    shutil.copytree(tmp_path / "whole", tmp_path / "killed")
    killed = tmp_path / "killed" / "checkpoints"
    # As a kill leaves it: step 4 was never saved, step 3 is damaged, and another one was being written.
    shutil.rmtree(killed / "step-00000004")
    (killed / "step-00000003" / "optimizer.pt").write_bytes(b"half")
    (killed / "checkpoint-4").mkdir()
    (killed / "checkpoint-4" / "pytorch_model.bin").write_bytes(b"half")
    shutil.rmtree(tmp_path / "killed" / "result")
    shutil.rmtree(tmp_path / "killed" / "adapter")
    resumed = run(config, tmp_path / "killed")
    one, two = (load_file(folder / "model.safetensors") for folder in (whole, resumed))
    assert one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)
    assert read_log(tmp_path / "whole" / "log.jsonl") == read_log(tmp_path / "killed" / "log.jsonl")
    assert not (killed / "checkpoint-4").exists()
    assert not (killed / "step-00000004" / "pytorch_model.bin").exists()
    again = load_file(
        run(config, tmp_path / "whole") / "model.safetensors"
    )  # a finished run writes it once more
    assert all(torch.equal(one[name], again[name]) for name in one)
    for other in (replace(config, loop=replace(config.loop, seed=1)), replace(config, lora_rank=4)):
        with pytest.raises(ValueError, match="was trained with .*another output folder"):
            run(other, tmp_path / "whole")
    assert read_config(RefinerConfig, tmp_path / "whole" / "config.yaml") == config
    fewer = replace(config, loop=replace(config.loop, steps=3))
    with pytest.raises(ValueError, match="trained for 4 steps, now asked are 3"):
        run(fewer, tmp_path / "whole")
    assert read_config(RefinerConfig, tmp_path / "whole" / "config.yaml") == config


def test_the_learning_rate_is_that_of_the_other_stages(
    data: Path, bases: dict[str, Path], tmp_path: Path
) -> None:
    loop = {"steps": 4, "schedule": "multistep", "milestones": [2, 3], "warmup": 2, "keep": 1}
    config = config_of(data, bases["qwen3"], loop, tasks=("t2i",), merge=False)
    run(config, tmp_path)
    from llmga.train import learning_rate

    rates = [row["lr"] for row in read_log(tmp_path / "log.jsonl")]
    assert rates == pytest.approx([learning_rate(config.loop, step) for step in range(4)], rel=1e-6)
    assert len(list((tmp_path / "checkpoints").glob("step-*"))) == 1


def test_what_is_cut_is_said(
    data: Path, bases: dict[str, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    loop = {"steps": 2, "prefetch": 1}  # another process prepares the batches
    config = config_of(data, bases["qwen3"], loop, tasks=("t2i",), merge=False, max_length=30)
    run(config, tmp_path)
    assert "conversations so far were longer than max_length" in caplog.text


def test_nothing_is_reported_to_the_makers_of_trl(
    data: Path, bases: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from trl.trainer import base_trainer

    def send(*_: Any, **__: Any) -> None:
        raise AssertionError("telemetry")

    monkeypatch.delenv("CI", raising=False)
    monkeypatch.setattr(base_trainer, "send_telemetry", send)
    run(config_of(data, bases["qwen3"], {"steps": 1}, tasks=("t2i",), merge=False), tmp_path)


def test_a_loss_that_is_not_finite_ends_the_run(data: Path, bases: dict[str, Path], tmp_path: Path) -> None:
    config = config_of(data, bases["qwen3"], {"lr": 1e30, "clip": 0.0}, tasks=("t2i",), merge=False)
    with pytest.raises(FloatingPointError, match="the loss is .* by step .*lower lr"):
        run(config, tmp_path)


def test_bfloat16_holds_the_base_and_float32_the_adapters(
    data: Path, bases: dict[str, Path], tmp_path: Path
) -> None:
    loop = {"steps": 1, "mixed_precision": "bf16"}
    config = config_of(data, bases["qwen3"], loop, tasks=("t2i",), export_dtype="bfloat16")
    config = replace(config, gradient_checkpointing=True)
    result = run(config, tmp_path)
    kinds = [
        {value.dtype for value in load_file(path).values()}
        for path in (result / "model.safetensors", tmp_path / "adapter" / "adapter_model.safetensors")
    ]
    assert kinds == [{torch.bfloat16}, {torch.float32}]


def test_a_base_of_words_refuses_a_mixture_with_pictures_before_it_trains(
    data: Path, bases: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = config_of(data, bases["qwen3"])
    write_config(config, tmp_path / "config.yaml")
    arguments = ["refiner", "--config", str(tmp_path / "config.yaml"), "--output", str(tmp_path / "run")]
    assert main(arguments) == 2
    assert "reads words alone; set base" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_settings_that_this_stage_has_not(data: Path, bases: dict[str, Path], tmp_path: Path) -> None:
    for wrong in ({"ema": 0.9}, {"sample_every": 5}):
        with pytest.raises(ValueError, match=f"loop.{next(iter(wrong))} must be 0"):
            config_of(data, bases["qwen3"], wrong)
    with pytest.raises(ValueError, match="max_pixels must be at least 1"):
        config_of(data, bases["qwen3"], max_pixels=0)
    with pytest.raises(ValueError, match="base .* is needed"):
        run(replace(config_of(data, bases["qwen3"]), base=""), tmp_path)


@pytest.mark.parametrize("found", [None, "1.15.9"])
def test_without_trl_the_extra_is_named(
    found: str | None, data: Path, bases: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def version(name: str) -> str:
        if found is None:
            raise refiner.importlib.metadata.PackageNotFoundError(name)
        return found

    monkeypatch.setattr(refiner.importlib.metadata, "version", version)
    with pytest.raises(ValueError, match=rf"needs trl 1\.16 .* {found or 'none'}.*llmga\[refiner\]"):
        run(config_of(data, bases["qwen3"], tasks=("t2i",)), tmp_path)


@pytest.mark.parametrize("name", [name for name in presets() if name.startswith("refiner-")])
def test_presets(name: str) -> None:
    config = read_config(RefinerConfig, name)
    assert config.loop.batch % (8 * config.loop.micro_batch) == 0
    assert config.loop.warmup == pytest.approx(0.03 * config.loop.steps, abs=1)
    assert bool(config.mixture.preset) != bool(config.mixture.parts)
    # A picture of max_pixels, at 28 px a token, and a conversation fit into a row.
    assert config.max_length >= config.max_pixels / 28**2 + 1024 or not config.mixture.preset
