"""Results are written and read without loss, are only joined where they can be compared, and verdicts count errors."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest

from llmga.evaluate.estimates import Estimate, mean, rate
from llmga.evaluate.paper import PAPER, Claim
from llmga.evaluate.results import TableResult, joined, latex, markdown, read_result, write_result

ONE = TableResult(
    "t2i",
    {"pictures": 5, "network": "Inception-v3 (ab12)", "size": 512},
    {"SD1.5": {"FID": Estimate(24.5, 0.5, 5), "IS": Estimate(30.0, math.nan, 5)}},
    {"SD1.5": ["2 of 5 prompts were not written (timeout)"]},
)
OTHER = replace(ONE, rows={"LLMGA": {"FID": Estimate(20.0, 0.5, 5)}}, notes={})


def test_a_result_comes_back_as_it_was_and_equal_ones_are_equal_bytes(tmp_path: Path) -> None:
    write_result(tmp_path / "a.json", ONE)
    back = read_result(tmp_path / "a.json")
    assert back.rows["SD1.5"]["FID"] == ONE.rows["SD1.5"]["FID"]
    assert math.isnan(back.rows["SD1.5"]["IS"].error)
    write_result(tmp_path / "b.json", back)
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()
    assert "NaN" not in (tmp_path / "a.json").read_text()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{}", "'format'"),
        ('{"format": "llmga-evaluation", "version": 7}', "version 7"),
        ('{"format": "llmga-evaluation", "version": 1, "rows": {"a": {"FID": 3}}}', "damaged"),
        ("[]", "object"),
    ],
)
def test_a_file_that_holds_no_result_is_refused(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(ValueError, match=said):
        read_result(tmp_path / "a.json")


def test_a_result_keeps_the_samples_of_its_figures(tmp_path: Path) -> None:
    """They take one line each; a sample without units that count has no figure."""
    figures = {"right": rate([1.0, 0.0, 0.0, 0.0], [1.0, 1.0, 0.0, 0.0]), "dB": mean([1.0, 2.0, 4.0])}
    samples = figures["right"].samples
    assert samples and any(map(math.isnan, samples.values))
    write_result(tmp_path / "a.json", replace(ONE, rows={"a": figures}))
    found = read_result(tmp_path / "a.json")
    for name, figure in figures.items():
        read = found.rows["a"][name]
        assert read == figure and repr(read.samples) == repr(figure.samples)  # NaN is not equal to itself
    assert len((tmp_path / "a.json").read_text().splitlines()) < 60


def test_rows_under_the_same_conditions_join() -> None:
    assert list(joined([ONE, OTHER]).rows) == ["SD1.5", "LLMGA"]


@pytest.mark.parametrize(
    "changed", [{"network": "Inception-v3 (ffff)"}, {"size": 256}, {"pictures": 6}, {"turns": "iterative"}]
)
def test_rows_that_cannot_be_compared_do_not_join(changed: dict[str, object]) -> None:
    (name,) = changed
    with pytest.raises(ValueError, match=f"cannot be compared: '{name}'"):
        joined([ONE, replace(OTHER, conditions={**ONE.conditions, **changed})])


def test_tables_and_rows_are_not_mixed_up() -> None:
    with pytest.raises(ValueError, match="different tables"):
        joined([ONE, replace(OTHER, table="edit")])
    with pytest.raises(ValueError, match="'SD1.5' stands in two"):
        joined([ONE, ONE])


def test_verdicts_count_the_error_and_know_what_less_means() -> None:
    rows = joined([ONE, OTHER]).rows
    claim = Claim("LLMGA paints better", "LLMGA", "SD1.5", "FID")
    assert claim.verdict(rows) == "holds"
    assert Claim("", "SD1.5", "LLMGA", "FID").verdict(rows) == "does not hold"
    close = {"a": {"IS": Estimate(30.0, 1.0, 5)}, "b": {"IS": Estimate(31.0, 1.0, 5)}}
    assert Claim("", "b", "a", "IS").verdict(close) == "within the error"
    apart = {"a": {"IS": Estimate(30.0, 0.1, 5)}, "b": {"IS": Estimate(31.0, 0.1, 5)}}
    assert Claim("", "b", "a", "IS").verdict(apart) == "holds"
    assert Claim("", "a", "b", "IS").verdict(apart) == "does not hold"
    assert Claim("", "a", "c", "IS").verdict(close) == "not tested here"
    assert Claim("", "SD1.5", "LLMGA", "IS").verdict(rows) == "not tested here"


def test_the_paper_and_the_verdict_stand_beside_what_is_measured() -> None:
    claim = Claim("LLMGA paints better than SD1.5", "LLMGA", "SD1.5", "FID")
    text = markdown(joined([ONE, OTHER]), PAPER["t2i"], [claim])
    assert "| LLMGA | 20.00 ±0.50 |  | 5 |" in text
    assert "*paper: SD1.5* | 24.0081 | 35.99 |" in text
    assert "LLMGA paints better than SD1.5: **holds**." in text
    assert "2 of 5 prompts were not written" in text and "size: 512" in text
    table = latex(replace(ONE, rows={"10 % of R&A_x": ONE.rows["SD1.5"]}), PAPER["t2i"])
    assert r"10 \% of R\&A\_x & 24.50 $\pm$0.50 & 30.00 \\" in table
    assert table.count(r"\\") == 1 + 1 + len(PAPER["t2i"])


def test_a_name_breaks_no_table() -> None:
    odd = replace(ONE, rows={r"a|b^2 ~{x}\y": ONE.rows["SD1.5"]})
    assert r"| a\|b^2 ~{x}\y |" in markdown(odd)
    assert r"a|b\textasciicircum{}2 \textasciitilde{}\{x\}\textbackslash{}y & " in latex(odd)


def test_an_infinite_figure_is_written_and_read(tmp_path: Path) -> None:
    """Of a judge of one's own, such as a PSNR of equal pictures; it must not cost the other figures."""
    odd = replace(ONE, rows={"a": {"PSNR": Estimate(math.inf, math.nan, 3), "FID": Estimate(1.0, 0.5, 3)}})
    write_result(tmp_path / "t2i.json", odd)
    row = read_result(tmp_path / "t2i.json").rows["a"]
    assert row["PSNR"].value == math.inf and row["FID"] == Estimate(1.0, 0.5, 3)


def test_the_papers_own_figures_hold_its_own_claims() -> None:
    """Every metric of the table is known to be better low or high: the last row wins each of its tables."""
    for table in ("t2i", "outpaint-narrow", "outpaint-wide", "inpaint-narrow", "inpaint-wide", "restore"):
        rows = {
            name: {metric: Estimate(value, 0.0, 1) for metric, value in row.items()}
            for name, row in PAPER[table].items()
        }
        best, plain = list(rows)[-1], next(iter(rows))
        for metric in rows[best]:
            assert Claim("", best, plain, metric).verdict(rows) == "holds"
