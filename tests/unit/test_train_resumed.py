"""A run that goes on: resuming to the bit, kills, half-written and damaged checkpoints, the log."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

pytest.importorskip("accelerate", reason="training needs accelerate")

from support.kill_and_resume import kill_and_resume, same_weights
from support.line_training import Line, assert_same, losses, settings, weights
from support.tiny_training import short_run

from llmga.train import checkpoint as checkpoints
from llmga.train import train
from llmga.train.log import append, drop_rows_after, plot, read_log


@pytest.mark.parametrize("cut", [1, 4, 8, 15])
@pytest.mark.parametrize("prefetch", [0, 2])
def test_a_resumed_run_is_the_uninterrupted_one(tmp_path: Path, cut: int, prefetch: int) -> None:
    alone, again = tmp_path / "alone", tmp_path / "again"
    train(Line(), settings(), alone)
    broken = Line()
    broken.fail_at = cut
    with pytest.raises(KeyboardInterrupt):
        train(broken, settings(prefetch=prefetch), again)
    assert not (again / "result").exists()
    torch.rand(cut)
    resumed = Line()
    train(resumed, settings(prefetch=prefetch), again)
    assert len(resumed.seen) < 20 or cut < 5
    assert_same(weights(alone / "result"), weights(again / "result"))
    for name in ("model", "ema"):
        last = [
            load_file(run / "checkpoints/step-00000010" / f"{name}.safetensors") for run in (alone, again)
        ]
        assert_same(*last)
    assert losses(alone) == losses(again)


def test_half_written_and_damaged_checkpoints_are_passed_over(tmp_path: Path) -> None:
    train(Line(), settings(steps=4, keep=5), tmp_path)
    root = tmp_path / "checkpoints"
    (root / ".step-00000008.partial").mkdir()
    (root / "step-00000006").mkdir()  # no state: copied half
    assert checkpoints.latest(root) == root / "step-00000004"
    model = root / "step-00000004" / "model.safetensors"
    model.write_bytes(model.read_bytes()[:-1])
    assert checkpoints.latest(root) == root / "step-00000002"
    (root / "step-00000002" / "state.json").write_text("{", encoding="utf-8")
    assert checkpoints.latest(root) is None
    train(Line(), settings(), tmp_path)
    train(Line(), settings(), tmp_path.with_name("alone"))
    assert_same(weights(tmp_path / "result"), weights(tmp_path.with_name("alone") / "result"))


def test_damaged_checkpoints_are_named_and_cost_neither_old_rows_nor_new_checkpoints(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    train(Line(), settings(steps=8, keep=2), tmp_path)
    rows, root = read_log(tmp_path / "log.jsonl"), tmp_path / "checkpoints"
    folders = [checkpoints.folder_of(root, step) for step in (6, 8)]
    for folder in folders:
        (folder / "model.safetensors").write_bytes(b"half")
    assert checkpoints.damaged(root) == folders
    stopped = Line()
    stopped.fail_at = 11  # a part of step 6: two checkpoints were saved, all older than the damaged ones
    with pytest.raises(KeyboardInterrupt):
        train(stopped, settings(steps=8, keep=2), tmp_path)
    said = [record.getMessage() for record in caplog.records]
    for folder in folders:
        assert any(f"{folder} is damaged and passed over" in line for line in said)
    assert read_log(tmp_path / "log-before-1.jsonl") == rows
    assert any("log-before-1.jsonl" in line for line in said)
    assert checkpoints.steps(root) == [2, 4, 6, 8]
    train(Line(), settings(steps=8, keep=2), tmp_path)  # goes on from step 4
    assert checkpoints.steps(root) == [6, 8] and not checkpoints.damaged(root)
    assert not (tmp_path / "log-before-2.jsonl").exists()
    assert [step for step, _ in losses(tmp_path)] == [row["step"] for row in rows]


def test_what_killed_runs_left_is_swept_and_nothing_else(tmp_path: Path) -> None:
    kept = [
        tmp_path / "checkpoints/.mine.partial",
        tmp_path / ".notes.part",
        tmp_path / "x.0123456789ab.part",
    ]
    left = [tmp_path / "checkpoints/.step-00000777.partial", tmp_path / ".result.partial"]
    for folder in (kept[0], *left):
        folder.mkdir(parents=True)
        (folder / "model.safetensors").write_bytes(b"half")
    parts = [tmp_path / ".config.yaml.0123456789ab.part", tmp_path / ".log.jsonl.ffffffffffff.part"]
    for path in (*kept[1:], *parts):
        path.write_text("half")
    train(Line(), settings(steps=2, save_every=2), tmp_path)
    assert all(path.exists() for path in kept)
    assert not any(path.exists() for path in (*left, *parts))


def test_optimizer_states_load_without_running_code(tmp_path: Path) -> None:
    train(Line(), settings(steps=2), tmp_path)
    state = torch.load(tmp_path / "checkpoints/step-00000002/optimizer.bin", weights_only=True)
    assert state["state"][0]["step"] == 2


def test_a_checkpoint_of_another_run_is_refused(tmp_path: Path) -> None:
    train(Line(), settings(steps=2), tmp_path)
    with pytest.raises(ValueError, match="'seed': 0.*'seed': 1"):
        train(Line(), settings(steps=4, seed=1), tmp_path)


def test_kills_change_nothing(tmp_path: Path) -> None:
    alone, runs = kill_and_resume(short_run, tmp_path, kills=2)
    for run in runs:
        assert same_weights(alone / "result", run / "result")
        assert losses(run) == losses(alone)


def test_the_log_forgets_what_will_be_repeated(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    for step in range(1, 30):
        append(path, {"step": step, "loss": 1 / step})
    path.write_text(path.read_text(encoding="utf-8") + '{"step": 30, "lo', encoding="utf-8")
    assert [row["step"] for row in read_log(path)] == list(range(1, 30))
    drop_rows_after(path, 20)
    assert [json.loads(line)["step"] for line in path.read_text(encoding="utf-8").splitlines()] == list(
        range(1, 21)
    )
    plot(path, tmp_path / "curve.png")
    from PIL import Image

    picture = Image.open(tmp_path / "curve.png").convert("RGB")
    dark = [
        xy
        for xy in ((x, y) for x in range(85, 940) for y in range(35, 510))
        if picture.getpixel(xy) == (31, 78, 156)
    ]
    assert min(x for x, _ in dark) < 100 and max(x for x, _ in dark) > 930  # the curve crosses the picture
    with pytest.raises(ValueError, match="0 rows with 'psnr'"):
        plot(path, tmp_path / "curve.png", "psnr")
