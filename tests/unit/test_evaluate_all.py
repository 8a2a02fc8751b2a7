"""Every table in one run: what is missing is said and left out, the page tells it, plots show the figures."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from llmga.evaluate.all_tables import missing_file, preset_task, run_all, with_count, without_missing
from llmga.evaluate.command import config_class, main, tasks_of
from llmga.evaluate.estimates import Estimate
from llmga.evaluate.page import PageTable, series_of, write_page
from llmga.evaluate.paper import Claim
from llmga.evaluate.plots import plot_lines, plot_rows
from llmga.evaluate.results import TableResult
from llmga.train.config import read_config
from tools import ROOT

CLAIM = Claim("Words stay", "LLMGA", "GILL", "FID: turn 3")


def mini(task: str) -> Any:
    return read_config(config_class(task), f"mini-{task}", (), "llmga.evaluate")


def by_turn(*values: float, error: float = 0.1) -> dict[str, Estimate]:
    return {f"FID: turn {i + 1}": Estimate(value, error, 9) for i, value in enumerate(values)}


@pytest.fixture(autouse=True)
def checkout(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the presets of the miniature name their files."""
    monkeypatch.chdir(ROOT)


def test_the_miniature_has_a_preset_for_every_task() -> None:
    assert tasks_of("mini") == tasks_of("paper")


def test_rows_without_their_files_are_left_out_and_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    config = mini("turns")
    gone = replace(config.rows[2].embedder, head="gone.safetensors")
    config = replace(config, rows=(config.rows[0], replace(config.rows[2], embedder=gone)))
    kept, left_out = without_missing(config)
    assert [row.name for row in kept.rows] == ["LLMGA"]
    assert left_out == ["GILL: gone.safetensors (embedder.head) does not exist"]
    assert preset_task("turns", "", replace(config, minutes=8.0), None).minutes == pytest.approx(4.0)
    assert missing_file(config.rows[0]) == ""
    monkeypatch.chdir(tmp_path)
    nothing, left_out = without_missing(config)
    assert nothing is None and left_out[0] == "LLMGA: miniature/LLM/llmga-mini (chat.engine) does not exist"


def test_a_row_is_left_out_of_both_parts_of_table_6() -> None:
    config = read_config(config_class("ablate"), "paper-ablate", (), "llmga.evaluate")
    there = replace(config.t2i.rows[0], chat=replace(config.t2i.rows[0].chat, engine=""))
    there = replace(there, painter=replace(there.painter, base="llmga", unet=""))
    part = replace(config.t2i, rows=(there, *config.t2i.rows[1:]))
    kept, left_out = without_missing(replace(config, t2i=part, fill=replace(config.fill, rows=part.rows)))
    assert [row.name for row in kept.t2i.rows] == [row.name for row in kept.fill.rows] == [there.name]
    assert len(left_out) == 4


def test_a_count_holds_for_every_set_and_shortens_what_is_said() -> None:
    config = mini("fill")
    items = {holes.data.count for holes in config.holes}
    assert {holes.data.count for holes in with_count(config, 5).holes} == {5}
    assert {holes.data.count for holes in with_count(config, 5000).holes} == items == {48}
    assert preset_task("fill", "Table 3", replace(config, minutes=96.0), 4).minutes == pytest.approx(8.0)
    assert preset_task("fill", "Table 3", replace(config, minutes=96.0), None).minutes == 96.0


def test_a_task_that_fails_stops_no_other(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tasks = [preset_task(name, name, replace(mini("t2i"), minutes=2.0), None) for name in ("a", "b", "c")]

    def measure(task: str, config: Any, output: Path) -> list[TableResult]:
        if task == "a":
            raise FileNotFoundError("no weights")
        if task == "b":
            raise ValueError("a mistake")
        return [TableResult("t2i", {"pictures": 9}, {"LLMGA, base": {"FID": Estimate(1.0, 0.1, 9)}})]

    failed = run_all(tasks, tmp_path, measure, tmp_path / "page.md", "the command")
    assert failed == ["b: a mistake"]
    text = (tmp_path / "page.md").read_text(encoding="utf-8")
    assert "the whole table: no weights" in text and "the whole table: a mistake" in text
    assert "written by `the command`" in text and "| LLMGA, base | 1.0000 ±0.1000 | 9 |" in text
    assert (tmp_path / "page" / "t2i.png").is_file()
    with pytest.raises(FileNotFoundError, match="no weights"):
        run_all(tasks, tmp_path, measure, None, "the command", alone=False)
    said = capsys.readouterr().err
    assert "a: about 2 minutes" in said and "together about 6 minutes" in said
    assert "this is one process" in said
    assert "left out the whole table: no weights" in said
    assert set((tmp_path / "minutes.json").read_text(encoding="utf-8").split('"')) >= {"a", "b", "c"}


def test_the_page_says_of_each_claim_what_is_found(tmp_path: Path) -> None:
    decided = TableResult("turns", {"pictures": 9}, {"LLMGA": by_turn(1, 1, 1), "GILL": by_turn(1, 2, 3)})
    open_ = TableResult("turns", {}, {"LLMGA": by_turn(1, 1, 1), "GILL": by_turn(1, 1, 1.1)})
    other = TableResult("turns", {}, {"LLMGA": by_turn(1, 1, 4), "GILL": by_turn(1, 2, 3)})
    missing = TableResult("turns", {}, {"LLMGA": by_turn(1, 1, 1)})
    for result, words in (
        (decided, "order holds"),
        (open_, "not decided: within the error"),
        (other, "order does not hold"),
        (missing, "not testable here"),
    ):
        write_page(tmp_path / "page.md", [PageTable("Figure 5: turns", [result], [CLAIM])], "c")
        text = (tmp_path / "page.md").read_text(encoding="utf-8")
        assert f"| Figure 5 | Words stay | {words} |" in text and f"- Words stay: **{words}**." in text
    write_page(tmp_path / "page.md", [PageTable("T", [decided, replace(other, table="again")], [CLAIM])], "c")
    assert "turns: order holds; again: order does not hold" in (tmp_path / "page.md").read_text(
        encoding="utf-8"
    )
    write_page(tmp_path / "page.md", [PageTable("T", [], [CLAIM], ["GILL: gone"])], "c")
    assert "- GILL: gone" in (tmp_path / "page.md").read_text(encoding="utf-8")


def test_each_metric_of_many_places_has_a_table_of_its_own(tmp_path: Path) -> None:
    rows = {"LLMGA": by_turn(1, 2, 3) | {f"whole: turn {i}": Estimate(0.5, 0.1, 9) for i in (1, 2, 3)}}
    result = TableResult("turns", {"pictures": 9}, rows, {"LLMGA": ["one was not written"]})
    write_page(tmp_path / "page.md", [PageTable("Figure 5: turns", [result])], "c")
    text = (tmp_path / "page.md").read_text(encoding="utf-8")
    assert "|  | FID: turn 1 ↓ | FID: turn 2 ↓ | FID: turn 3 ↓ | N |" in text
    assert "|  | whole: turn 1 ↑ | whole: turn 2 ↑ | whole: turn 3 ↑ | N |" in text
    assert text.count("Conditions: pictures: 9.") == 1 and "- LLMGA: one was not written." in text
    result = TableResult(
        "story", {}, {"GILL": {"CLIP-I: 1 caption": Estimate(1.0, 0.1, 9), "colour": Estimate(1.0, 0.1, 9)}}
    )
    write_page(tmp_path / "page.md", [PageTable("Stories", [result])], "c")
    text = (tmp_path / "page.md").read_text(encoding="utf-8")
    assert "| *paper: SD1.5* | 0.592 |" in text
    result = TableResult("story", {}, {"words": {"colour": Estimate(1.0, 0.1, 9)}})
    write_page(tmp_path / "page.md", [PageTable("Stories", [result])], "c")
    assert "*paper" not in (tmp_path / "page.md").read_text(encoding="utf-8"), "it has no such figures"


def test_figures_at_several_places_become_lines() -> None:
    rows = {
        "LLMGA": by_turn(1, 2, 3),
        "GILL": {"FID: turn 2": Estimate(4.0, 0.1, 9), "IS": Estimate(1, 0, 9)},
    }
    ((metric, (ticks, lines)),) = series_of(TableResult("turns", {}, rows)).items()
    assert metric == "FID" and ticks == ["1", "2", "3"]
    assert math.isnan(lines["GILL"][0].value) and lines["GILL"][1].value == 4.0


@pytest.mark.parametrize("values", [(1.0, 2.0, 3.0), (2.0, 2.0, 2.0), (1.0, math.nan, 3.0), (math.nan,) * 3])
def test_plots_are_drawn_of_any_figures(tmp_path: Path, values: tuple[float, ...]) -> None:
    found = [Estimate(value, math.nan if value == 2.0 else 0.5, 9) for value in values]
    plot_lines({"a": found, "b": found[:2]}, tmp_path / "lines.png", "title", ["1", "2", "3"])
    plot_rows(
        {"a": {"FID": found[0]}, "b": {"FID": found[1], "IS": found[2]}}, ["FID", "IS"], tmp_path / "rows.png"
    )
    for name in ("lines", "rows"):
        with Image.open(tmp_path / f"{name}.png") as picture:
            drawn = {colour for _, colour in picture.convert("RGB").getcolors(100_000) or ()}
        blue = any(b > r + 60 for r, _, b in drawn)
        assert blue or all(map(math.isnan, values))


def test_mistakes_of_the_command_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["all", "--preset", "nothing", "--output", str(tmp_path)]) == 2
    assert "no preset begins with 'nothing'" in capsys.readouterr().err
    assert main(["all", "--preset", "mini", "--output", str(tmp_path), "--count", "0"]) == 2
    assert "'--count' must be at least 1" in capsys.readouterr().err
