"""What a run that goes on may change: ``config.yaml`` is held against the new configuration before anything is written."""

from __future__ import annotations

import dataclasses
import logging
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("accelerate", reason="training needs accelerate")

from support.line_training import Line, assert_same, losses, settings, weights
from support.tiny_restoration import Clean

from llmga.__main__ import main
from llmga.train import LoopConfig, read_config, train
from llmga.train.command import STAGES, _config_class
from llmga.train.run_config import FREE


@dataclass(frozen=True)
class Sizes:
    width: int = 4


@dataclass(frozen=True)
class LineConfig:
    loop: LoopConfig = field(default_factory=settings)
    base: str = "a"
    records: Path | None = None
    sizes: Sizes = field(default_factory=Sizes)
    samples: int = 4


def go(config: LineConfig, output: Path) -> Path:
    return train(Line(), config.loop, output, config)


def kept(output: Path) -> LineConfig:
    return read_config(LineConfig, output / "config.yaml")


def test_a_folder_trained_from_another_base_is_refused_and_left_as_it_was(tmp_path: Path) -> None:
    old = LineConfig(records=Path("old.json"))
    go(old, tmp_path)
    before, rows = weights(tmp_path / "result"), losses(tmp_path)
    new = replace(old, base="b", records=None, sizes=Sizes(8), samples=2)
    with pytest.raises(ValueError, match="another configuration") as caught:
        go(replace(new, loop=settings(steps=12)), tmp_path)
    said = str(caught.value)
    assert "base 'a', now 'b'; records old.json, now None; sizes.width 4, now 8; " in said
    assert "samples" not in said and "another output folder" in said and "config.yaml" in said
    assert kept(tmp_path) == old and losses(tmp_path) == rows
    assert_same(weights(tmp_path / "result"), before)


def test_other_settings_may_change_and_are_listed_in_one_line(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    go(LineConfig(), tmp_path)
    new = LineConfig(loop=settings(steps=12, lr=0.5), samples=2)
    with caplog.at_level(logging.WARNING, "llmga"):
        go(new, tmp_path)
    [line] = [record.getMessage() for record in caplog.records if "goes on with" in record.getMessage()]
    assert line.endswith("loop.steps 10, now 12; loop.lr 0.01, now 0.5; samples 4, now 2")
    assert kept(tmp_path) == new
    caplog.clear()
    go(new, tmp_path)
    assert not [record for record in caplog.records if "goes on with" in record.getMessage()]


def test_fewer_steps_than_are_done_are_an_error_that_names_both(tmp_path: Path) -> None:
    go(LineConfig(), tmp_path)
    with pytest.raises(ValueError, match="trained for 10 steps, now asked are 6"):
        go(LineConfig(loop=settings(steps=6)), tmp_path)
    assert kept(tmp_path).loop.steps == 10 and losses(tmp_path)[-1][0] == 10


def test_a_run_whose_checkpoint_is_refused_keeps_the_old_config(tmp_path: Path) -> None:
    go(LineConfig(), tmp_path)
    with pytest.raises(ValueError, match="'seed': 0.*'seed': 1"):
        go(LineConfig(loop=settings(seed=1)), tmp_path)
    assert kept(tmp_path) == LineConfig()


def test_a_folder_in_which_nothing_was_trained_yet_takes_any_configuration(tmp_path: Path) -> None:
    """Of a run that was killed before its first checkpoint, nothing goes on."""
    trainer = Line()
    trainer.fail_at = 2
    with pytest.raises(KeyboardInterrupt):
        train(trainer, settings(), tmp_path, LineConfig())
    assert kept(tmp_path) == LineConfig()
    go(LineConfig(base="b"), tmp_path)
    assert kept(tmp_path) == LineConfig(base="b")


def test_the_configuration_of_another_stage_is_refused(tmp_path: Path) -> None:
    go(LineConfig(), tmp_path)
    (tmp_path / "config.yaml").write_text("paper: 1\n", encoding="utf-8")
    with pytest.raises(ValueError, match="another configuration .*paper is not a key"):
        go(LineConfig(), tmp_path)


def test_every_free_key_is_one_of_a_stage() -> None:
    keys = {item.name for stage in STAGES for item in dataclasses.fields(_config_class(stage))}
    assert FREE <= keys, FREE - keys


def test_the_command_refuses_other_pictures_of_the_same_count(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import numpy as np
    from PIL import Image

    for i in range(4):
        pixels = (Clean().image(i) * 255).byte().permute(1, 2, 0).numpy()
        Image.fromarray(np.ascontiguousarray(pixels)).save(tmp_path / f"{i}.png")
    for name in ("one", "two"):
        (tmp_path / f"{name}.txt").write_text("0.png\n1.png\n2.png\n3.png\n", encoding="utf-8")

    def command(name: str, **loop: Any) -> int:
        values = {
            "network.dim": 8, "network.num_blocks": [1, 1, 1, 0], "network.num_refinement_blocks": 1,
            "network.n_feats": 4, "network.n_encoder_res": 1, "crops.canvas": 40, "crops.size": 32,
            "loop.steps": 1, "loop.batch": 2, "loop.micro_batch": 2, "loop.cpu": "true", "loop.sample_every": 0,
            "loop.prefetch": 0, "pictures.paths": tmp_path / f"{name}.txt", "pictures.root": tmp_path, **loop,
        }  # fmt: skip
        start = ["train", "diffrir-s1", "--config", "diffrir-s1-released-code-x1", "--output"]
        return main([*start, str(tmp_path / "run"), *(f"{key}={value}" for key, value in values.items())])

    assert command("one") == 0
    before = (tmp_path / "run" / "config.yaml").read_bytes()
    assert command("two", **{"loop.steps": 2}) == 2
    assert "pictures.paths" in capsys.readouterr().err
    assert (tmp_path / "run" / "config.yaml").read_bytes() == before
