"""Strict configurations, and the presets against the research table."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from llmga.__main__ import main
from llmga.train import LoopConfig, Stage2Config, presets, read_config, write_config
from llmga.train.command import STAGES, _config_class
from llmga.train.config_keys import config_keys
from llmga.train.diffrir_s2 import S2Config


def written(folder: Path, text: str) -> Path:
    path = folder / "run.yaml"
    path.write_text(text, encoding="utf-8")
    return path


LOOP = "loop: {steps: 10, batch: 4, micro_batch: 2, lr: 1e-5}\n"


def test_values_overrides_and_a_round_trip(tmp_path: Path) -> None:
    path = written(tmp_path, LOOP + "task: inpainting\ncache: /somewhere\n")
    config = read_config(
        Stage2Config, path, ["loop.betas=[0.5, 0.9]", "loop.mixed_precision=no", "cache=null"]
    )
    assert config.loop == LoopConfig(10, 4, 2, 1e-5, betas=(0.5, 0.9), mixed_precision="no")
    assert (config.task, config.cache) == ("inpainting", None)
    write_config(config, tmp_path / "again.yaml")
    assert read_config(Stage2Config, tmp_path / "again.yaml") == config


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (LOOP + "taks: t2i", "taks is not a key.*did you mean task"),
        (LOOP + "loop.stesp: 1", "is not a key"),
        (LOOP.replace("steps", "stesp"), r"loop\.stesp is not a key.*did you mean loop\.steps"),
        (LOOP.replace("lr: 1e-5", "seed: 1"), r"loop\.lr is missing"),
        (LOOP.replace("10", "10.5"), r"loop\.steps must be int, got 10\.5"),
        (LOOP.replace("10", "true"), r"loop\.steps must be int, got True"),
        (LOOP.replace("1e-5", "fast"), r"loop\.lr must be float, got 'fast'"),
        (LOOP + "task: sr", "task must be one of t2i, inpainting; got 'sr'"),
        (LOOP.replace("lr:", "betas: [1], lr:"), r"loop\.betas must hold 2 values"),
        (LOOP + "variants: 0\ncache: x", "no cache can hold"),
        ("- 1", "must hold keys and values"),
        ("a: [", "is not valid YAML"),
        (LOOP + "extends: run.yaml", "extends itself"),
    ],
)
def test_what_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_config(Stage2Config, written(tmp_path, text))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            LOOP + "task: t2i\ncache: x\ntask: inpainting",
            "run.yaml .*the key task is said twice, in lines 2 and 4",
        ),
        (LOOP.replace("steps: 10", "steps: 10, steps: 12"), "the key steps is said twice"),
        (LOOP + "base: 2024-13-45", "run.yaml is not valid YAML: month must be"),
        *(
            (LOOP.replace("1e-5", lr), r"loop\.lr must be a finite number")
            for lr in (".nan", ".inf", "1e999")
        ),
        (LOOP.replace("1e-5", "1" * 400), r"loop\.lr must be float"),
    ],
)
def test_a_key_said_twice_and_a_number_that_is_none_are_refused(
    tmp_path: Path, text: str, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        read_config(Stage2Config, written(tmp_path, text))


def test_a_key_that_overrides_a_merged_one_is_said_once(tmp_path: Path) -> None:
    path = written(tmp_path, LOOP.replace("{", "{<<: {steps: 3, seed: 4}, "))
    loop = read_config(Stage2Config, path).loop
    assert (loop.steps, loop.seed) == (10, 4)


def test_a_config_in_another_encoding_and_a_broken_override_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "latin.yaml"
    path.write_bytes((LOOP + "base: caf\xe9").encode("latin-1"))
    command = ["train", "stage2", "--output", str(tmp_path / "out"), "--config"]
    assert main([*command, str(path)]) == 2
    assert "latin.yaml is not text in UTF-8" in capsys.readouterr().err
    assert main([*command, str(written(tmp_path, LOOP)), "loop.steps=[1"]) == 2
    assert "the override 'loop.steps=[1' is not valid YAML" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["diverged", "not writable"])
def test_a_training_that_fails_ends_the_command_with_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    import numpy as np
    from PIL import Image

    for i in range(4):
        Image.fromarray(np.full((40, 40, 3), 60 * i, np.uint8)).save(tmp_path / f"{i}.png")
    (tmp_path / "list.txt").write_text("0.png\n1.png\n2.png\n3.png\n", encoding="utf-8")
    output = tmp_path / "run"
    if kind == "not writable":
        output.write_text("a file, not a folder")
    values = {
        "network.dim": 8, "network.num_blocks": [1, 1, 1, 0], "network.num_refinement_blocks": 1,
        "network.n_feats": 4, "network.n_encoder_res": 1, "crops.canvas": 40, "crops.size": 32,
        "loop.steps": 4, "loop.batch": 2, "loop.micro_batch": 2, "loop.cpu": "true", "loop.sample_every": 0,
        "loop.lr": 1e30, "loop.prefetch": 0, "loop.log_every": 1,
        "pictures.paths": tmp_path / "list.txt", "pictures.root": tmp_path,
    }  # fmt: skip
    start = ["train", "diffrir-s1", "--config", "diffrir-s1-released-code-x1", "--output", str(output)]
    assert main([*start, *(f"{key}={value}" for key, value in values.items())]) == 1
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("llmga train: ")]
    assert len(lines) == 1 and ("lower lr" if kind == "diverged" else str(output)) in lines[0]


@pytest.mark.parametrize("stage", ["stage1", "stage2", "controlnet", "gill", "diffrir-s1", "diffrir-gan"])
def test_no_samples_are_asked_for_by_sample_every_alone(tmp_path: Path, stage: str) -> None:
    kind = _config_class(stage)
    path = written(tmp_path, LOOP)
    for key in ("samples", "sample_steps"):
        if hasattr(read_config(kind, path), key):
            with pytest.raises(ValueError, match=f"{key} must be at least 1, got 0; loop.sample_every=0"):
                read_config(kind, path, [f"{key}=0"])


def test_what_is_no_file_and_no_preset(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="the presets are .*stage2-paper-sd15-t2i"):
        read_config(Stage2Config, "stage3")
    with pytest.raises(ValueError, match="key=value"):
        read_config(Stage2Config, "stage2-paper-sd15-t2i", ["steps"])


@pytest.mark.parametrize(
    ("preset", "lr", "steps", "batch", "micro", "resolution"),
    [
        ("paper-sd15-t2i", 1e-5, 100_000, 32, 4, 512),
        ("paper-sdxl-inpainting", 1e-5, 100_000, 32, 4, 1024),
        ("released-code-sd15-t2i", 2e-5, 50_000, 256, 32, 512),
        ("released-code-sd15-inpainting", 2e-5, 50_000, 256, 32, 512),
        ("released-code-sdxl-t2i", 2e-5, 50_000, 128, 4, 1024),
    ],
)
def test_presets(preset: str, lr: float, steps: int, batch: int, micro: int, resolution: int) -> None:
    config = read_config(Stage2Config, f"stage2-{preset}")
    loop = config.loop
    assert (loop.lr, loop.steps, loop.batch, loop.micro_batch) == (lr, steps, batch, micro)
    assert (loop.ema, loop.warmup, loop.clip, loop.weight_decay) == (0.9999, 0, 1.0, 0.01)
    assert config.pictures is not None and config.pictures.resolution == resolution
    assert config.task == preset.rsplit("-", 1)[1] and config.loss_weight == "none"


def test_every_stage2_preset_reads_and_feeds_eight_devices() -> None:
    names = [name for name in presets() if name.startswith("stage2-")]
    assert len(names) == 8
    for name in names:
        loop = read_config(Stage2Config, name).loop
        assert loop.batch // loop.micro_batch % 8 == 0


def test_the_command_line_names_what_is_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = written(tmp_path, LOOP)
    assert main(["train", "stage2", "--config", str(path), "--output", str(tmp_path), "loop.stpes=3"]) == 2
    assert "did you mean loop.steps?" in capsys.readouterr().err
    assert main(["fly"]) == 2
    assert main(["train", "plot", str(tmp_path / "missing.jsonl")]) == 2


def test_the_command_line_draws_a_log(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    log.write_text('{"step": 1, "loss": 2.0}\n{"step": 2, "loss": 1.0}\n', encoding="utf-8")
    assert main(["train", "plot", str(log)]) == 0
    assert log.with_suffix(".png").stat().st_size > 1000


@pytest.mark.parametrize("stage", STAGES)
def test_a_stages_help_lists_every_key_with_its_type_and_default(
    stage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["train", stage, "--help"])
    shown = capsys.readouterr().out
    assert ended.value.code == 0
    assert "  loop.steps: int  (needed)\n" in shown and "  loop.clip: float  (default: 1.0)\n" in shown
    assert "schedule: constant | cosine | multistep  (default: constant)" in shown
    assert "Optimizer steps of the whole run." in shown


def test_every_key_that_is_listed_is_read_and_every_key_that_is_read_is_listed(tmp_path: Path) -> None:
    listed = [key.name for key in config_keys(S2Config)]
    assert len(set(listed)) == len(listed)
    path = written(tmp_path, LOOP)
    write_config(read_config(S2Config, path), tmp_path / "whole.yaml")

    def names(values: dict[str, Any], prefix: str = "") -> set[str]:
        return {
            name
            for key, value in values.items()
            for name in (names(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key})
        }

    accepted = names(yaml.safe_load((tmp_path / "whole.yaml").read_text(encoding="utf-8")))
    assert accepted <= set(listed)
    # The key of a whole mapping, and what lies below a default of null.
    assert {key.partition(".")[0] for key in set(listed) - accepted} == {"loop", "pictures", "prior"}
    defaults = {key.name: key.default for key in config_keys(S2Config)}
    for name in ("crops.degradation.second.sigma", "network.num_blocks", "loop.ema", "crops.masks"):
        again = read_config(S2Config, path, [f"{name}={defaults[name]}"])
        assert again == read_config(S2Config, path), name
