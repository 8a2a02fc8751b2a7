"""Whole tables on tiny random weights: what is counted, that nothing is done twice, that kills and shares change nothing."""

from __future__ import annotations

import json
import shutil
import socket
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from support.fork_server import fork_server
from support.kill_and_resume import kill_and_resume
from support.openai_server import OpenAIServer
from support.tiny_evaluation import SIDE, base_folder, measure, run_shared, run_t2i, settings

pytest.importorskip("diffusers", reason="the painters are diffusers'")

from llmga.evaluate.command import config_class, main, through
from llmga.evaluate.paint_jobs import PainterConfig, PaintJob
from llmga.evaluate.painters import DiffusersPainter, load_diffusers_pipeline
from llmga.evaluate.paper import PAPER
from llmga.evaluate.results import read_result
from llmga.evaluate.stages import Stages
from llmga.evaluate.tasks.edit import last_turns, pixel_distances
from llmga.evaluate.work import run_units
from llmga.train.config import presets, read_config, write_config

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return base_folder(tmp_path_factory.mktemp("evaluation"))


@pytest.fixture
def chat(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A server whose replies hold a prompt, and its place in a configuration; it also counts what it is asked."""
    with OpenAIServer(
        lambda body: "Here: <gen_image>a large red square on a grey ground</gen_image>"
    ) as server:
        record = {"url": server.url, "model": "tiny", "pictures": True}
        (tmp_path / "endpoints.json").write_text(json.dumps({"endpoints": {"tiny": record}}))
        yield server, {"engine": f"endpoint:{tmp_path / 'endpoints.json'}#tiny"}


def test_table_1_counts_every_row_and_asks_the_chat_once(base: Path, chat: Any, tmp_path: Path) -> None:
    server, engine = chat
    painter = {"base": str(base / "sd"), "steps": 2, "batch": 2}
    rows = [{"name": "short", "painter": painter}, {"name": "LLMGA", "painter": painter, "chat": engine}]
    config = settings("t2i", base, rows=rows, scores=["support.tiny_evaluation:brightness"])
    (result,) = measure("t2i", config, tmp_path / "out")
    assert set(result.rows["LLMGA"]) == {"FID", "IS", "brightness"}
    assert result.rows["short"]["FID"].count == 5 and result.rows["short"]["FID"].error > 0
    assert result.rows["short"]["FID"] != result.rows["LLMGA"]["FID"]
    asked = len(server.requests)
    assert asked == 5 and all("square" in str(request.body["messages"]) for request in server.requests)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out" / "work").rglob("*.png")}
    assert len(before) == 10
    measure("t2i", config, tmp_path / "out")
    assert len(server.requests) == asked
    assert before == {path: path.stat().st_mtime_ns for path in (tmp_path / "out" / "work").rglob("*.png")}


def test_a_chat_that_writes_no_prompt_costs_no_picture_and_is_said(
    base: Path, chat: Any, tmp_path: Path
) -> None:
    server, engine = chat
    painter = {"base": str(base / "sd"), "steps": 2, "batch": 2}
    config = settings("t2i", base, rows=[{"name": "LLMGA", "painter": painter, "chat": engine}])
    with server.replying("I would rather not."):
        (result,) = measure("t2i", config, tmp_path / "out")
    assert result.rows["LLMGA"]["FID"].count == 5
    assert result.notes["LLMGA"][0].startswith("5 of 5 prompts were not written")


def test_table_3_fills_holes_alone_and_measures_against_the_whole(
    base: Path, chat: Any, tmp_path: Path
) -> None:
    _, engine = chat
    painter = {"base": str(base / "inpaint"), "steps": 2, "batch": 3}
    rows = [{"name": "LLMGA", "painter": painter, "chat": engine}]
    (result,) = measure("fill", settings("fill", base, rows=rows), tmp_path / "out")
    assert result.table == "outpaint-wide" and result.rows["LLMGA"]["LPIPS"].value > 0
    done = {p.name: p for p in (tmp_path / "out" / "work" / "pictures").rglob("*.png")}
    made = np.asarray(Image.open(done["Places_0000_mask000.png"])).astype(int)
    whole = np.asarray(Image.open(base / "masked" / "Places_0000.png")).astype(int)
    outside = np.ones((SIDE, SIDE), bool)
    outside[16:48, 16:48] = False
    pasted = [
        np.asarray(Image.open(p)).astype(int) for p in (tmp_path / "out").rglob("Places_0000_mask000.png")
    ]
    assert any((one[outside] == whole[outside]).all() for one in pasted)
    assert (made != whole).any()


def test_table_2_counts_as_the_official_script_does(base: Path, tmp_path: Path) -> None:
    config = settings("edit", base)
    (result,) = measure("edit", config, tmp_path / "out")
    assert set(result.rows["short"]) == {"L1", "L2", "CLIP-I", "DINO", "CLIP-T"}
    assert result.rows["short"]["L1"].count == 3
    (last,) = measure("edit", settings("edit", base, turns="iterative"), tmp_path / "iterative")
    assert last.rows["short"]["L1"].count == 2  # the script scores the last turn of each session
    assert last.conditions["turns"] == "iterative"


def test_iterative_turns_begin_at_ones_own_pictures(base: Path, tmp_path: Path) -> None:
    from llmga.evaluate.sources import read_magicbrush

    items = read_magicbrush(base / "magicbrush")
    assert [items[i].key for i in last_turns(items)] == ["23-output2", "7-output1"]
    config = settings("edit", base, turns="iterative")
    measure("edit", config, tmp_path / "out")
    independent = settings("edit", base)
    measure("edit", independent, tmp_path / "other")
    own, true = (
        next(np.asarray(Image.open(p)) for p in (tmp_path / name).rglob("23-output2.png"))
        for name in ("out", "other")
    )
    assert (own != true).any()


def test_pixel_distances_are_those_of_the_official_script(tmp_path: Path) -> None:
    """torch's L1Loss and MSELoss on ToTensor pictures, the picture resized to the target's size by Pillow's default."""
    draw = np.random.default_rng(3)
    one = Image.fromarray(draw.integers(0, 256, (40, 56, 3), dtype=np.uint8))
    other = Image.fromarray(draw.integers(0, 256, (64, 64, 3), dtype=np.uint8))
    one.save(tmp_path / "one.png")
    other.save(tmp_path / "other.png")
    a, b = (torch.from_numpy(np.asarray(p).copy()).float() / 255 for p in (one.resize(other.size), other))
    expected = float(torch.nn.functional.l1_loss(a, b)), float(torch.nn.functional.mse_loss(a, b))
    assert pixel_distances(tmp_path / "one.png", tmp_path / "other.png") == pytest.approx(expected, rel=1e-5)


def test_a_batch_is_painted_as_its_pictures_alone(base: Path) -> None:
    config = PainterConfig(base=str(base / "sd"), steps=2)
    painter = DiffusersPainter(config, load_diffusers_pipeline(config))
    long = "a red square " * 40
    jobs = [PaintJob(str(i), text, 0, SIDE, SIDE) for i, text in enumerate(("a", long, "b", "c"))]
    together = painter.paint(jobs)
    for job, picture in zip(jobs, together, strict=True):
        (alone,) = painter.paint([job])
        assert np.abs(np.asarray(alone, int) - np.asarray(picture, int)).max() <= 1


def test_kills_change_no_byte(base: Path, tmp_path: Path) -> None:
    alone, runs = kill_and_resume(partial(run_t2i, base), tmp_path, kills=2)
    expected = (alone / "t2i.json").read_bytes()
    assert all((run / "t2i.json").read_bytes() == expected for run in runs)


def test_two_processes_give_what_one_gives(base: Path, tmp_path: Path) -> None:
    context = fork_server()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    workers = [
        context.Process(target=run_shared, args=(base, tmp_path / "two", rank, port)) for rank in (0, 1)
    ]
    for worker in workers:
        worker.start()
    run_t2i(base, tmp_path / "one")
    for worker in workers:
        worker.join(3600)
        assert worker.exitcode == 0
    assert (tmp_path / "two" / "t2i.json").read_bytes() == (tmp_path / "one" / "t2i.json").read_bytes()


def test_each_unit_is_done_once_and_by_one_process() -> None:
    class Second:
        rank, count = 1, 2

        def wait(self) -> None:
            done.append("waited")

    done: list[Any] = []
    run_units([1, 2, 3, 4, 5], lambda unit: unit == 4, done.append, Second())
    assert done == [2, "waited"]


def test_a_picture_that_is_missing_is_made_again(base: Path, tmp_path: Path) -> None:
    config = settings("t2i", base)
    measure("t2i", config, tmp_path / "out")
    before = (tmp_path / "out" / "t2i.json").read_bytes()
    next((tmp_path / "out" / "work" / "pictures").rglob("*.png")).unlink()
    shutil.rmtree(tmp_path / "out" / "work" / "features")
    measure("t2i", config, tmp_path / "out")
    assert (tmp_path / "out" / "t2i.json").read_bytes() == before


def test_the_command_writes_three_files_and_joins_what_was_measured_apart(
    base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = settings("t2i", base)
    for name in ("one", "two"):
        write_config(config, tmp_path / f"{name}.yaml")
        assert main(["t2i", f"--config={tmp_path / name}.yaml", f"--output={tmp_path / name}"]) == 0
        row = json.loads((tmp_path / name / "t2i.json").read_text())
        row["rows"] = {name: row["rows"]["short"]}
        (tmp_path / name / "t2i.json").write_text(json.dumps(row))
    assert {p.suffix for p in (tmp_path / "one").iterdir() if p.is_file()} == {
        ".json",
        ".md",
        ".tex",
        ".yaml",
    }
    both = [str(tmp_path / name / "t2i.json") for name in ("one", "two")]
    assert main(["join", *both, "--output", str(tmp_path / "both")]) == 0
    assert list(read_result(tmp_path / "both" / "t2i.json").rows) == ["one", "two"]
    assert main(["t2i", f"--config={tmp_path / 'one.yaml'}", "--output=x", "size=big"]) == 2
    assert "size must be int" in capsys.readouterr().err


def test_mistakes_are_named_before_anything_is_painted(base: Path, tmp_path: Path) -> None:
    for values, said in (
        ({"network": "inception"}, "kind:path"),
        ({"network": f"resnet:{base / 'net'}"}, "not a kind of network"),
        ({"network": f"clip:{base / 'nowhere'}"}, "does not exist"),
        ({"rows": []}, "rows"),
        ({"scores": ["support.tiny_evaluation:nothing"]}, "has no nothing"),
        ({"data": {"kind": "imagenet"}}, "'imagenet' is not known"),
        ({"data": {"kind": "nowhere.sets:all"}}, "data.kind: there is no module 'nowhere'"),
        ({"network": f"support.nowhere:net:{base}"}, "a network: there is no module 'support.nowhere'"),
    ):
        with pytest.raises((ValueError, FileNotFoundError), match=said):
            measure("t2i", settings("t2i", base, **values), tmp_path / "out")
    assert not (tmp_path / "out" / "work" / "pictures").exists()
    with pytest.raises(ValueError, match="'short' names no 'painter.workflow'"):
        through(settings("t2i", base), ["http://127.0.0.1:1"])


def test_too_few_pictures_for_a_score_are_said_and_for_a_fid_refused(base: Path, tmp_path: Path) -> None:
    (few,) = measure("t2i", settings("t2i", base, splits=3), tmp_path / "few")
    assert set(few.rows["short"]) == {"FID"}
    assert few.notes["short"] == [
        "no IS, because 5 pictures are fewer than twice 'splits' (3): raise 'data.count' or lower 'splits'"
    ]
    coco = settings("t2i", base).data
    masked = settings("fill", base).holes[0]
    for task, values, said in (
        ("t2i", {"splits": 0}, "'splits' must be at least 1, got 0"),
        ("t2i", {"data": {**vars(coco), "count": 1}}, "at least 2 pictures, got 1; raise 'data.count'"),
        (
            "fill",
            {"holes": [vars(masked) | {"data": {**vars(masked.data), "count": 1}}]},
            "at least 2 pictures, got 1; raise 'holes.data.count'",
        ),
    ):
        with pytest.raises(ValueError, match=said):
            measure(task, settings(task, base, **values), tmp_path / "refused")
    assert not (tmp_path / "refused" / "work" / "pictures").exists()


def test_an_evaluation_set_of_ones_own_is_drawn_into_the_run(base: Path, tmp_path: Path) -> None:
    data = {"kind": "support.tiny_evaluation:drawn", "count": 3}
    (result,) = measure("t2i", settings("t2i", base, data=data), tmp_path / "out")
    assert result.rows["short"]["FID"].count == 3
    assert Stages(tmp_path).among.count == 1


@pytest.mark.parametrize("preset", presets("llmga.evaluate"))
def test_every_preset_is_read_by_its_task_and_claims_what_it_measures(preset: str) -> None:
    task = preset.partition("-")[2]
    config = read_config(config_class(task), preset, (), "llmga.evaluate")
    names = {row.name for row in (config.t2i if task == "ablate" else config).rows}
    assert config.claims or preset == "paper-edit"
    assert all({claim.better, claim.worse} <= names for claim in config.claims)
    if preset.startswith("paper") and task != "turns":  # whose figures are not printed
        tables = [holes.table for holes in config.holes] if hasattr(config, "holes") else [task]
        own = {"LLMGA"} if task in ("story", "dialog", "rfbench") else set()
        assert all(names - own <= PAPER[table].keys() for table in tables)
