"""How the attack shares its minutes out, what it skips, and how it ends."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from attack import sections
from attack.budget import Budget
from attack.command import environment, main, shared_out, tried
from attack.report import Counts


class TestBudget:
    def test_it_goes_on_until_its_goals_are_reached(self) -> None:
        ran, budget = Counter[str](), Budget(0.0, 60.0, {"kills": 2, "faults": 1})
        budget.restart(ran)
        assert budget and budget.part(0.5, "faults") and not budget.part(0.5)
        ran["faults"] += 1
        assert budget and not budget.part(0.5, "faults")
        ran["kills"] += 2
        assert not budget

    def test_never_beyond_the_most(self) -> None:
        assert not Budget(0.0, 0.0, {"kills": 2})

    def test_its_share_is_spent_also_when_they_are_reached(self) -> None:
        assert Budget(60.0, 60.0, {})

    def test_half_of_the_time_of_later_sections_stays_theirs(self) -> None:
        one, two = (sections.Section(name, share, False, "x") for name, share in (("a", 0.25), ("b", 0.75)))
        assert shared_out(400.0, one, [two]) == (100.0, 250.0)
        assert shared_out(300.0, two, []) == (300.0, 300.0)

    def test_what_was_tried_stands_beside_what_should_be(self) -> None:
        section = sections.Section("prompts", 1.0, True, "x", {"prompts": 20_000})
        assert tried(Counts(Counter(prompts=1700)), [section], 5) == "1,700 of 1,667 prompts"


class TestCommand:
    def test_without_comfyui_its_sections_are_skipped_loudly(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setenv("COMFYUI_PATH", "none")
        assert main(["--minutes", "0.01", "--only", "direct", "--only", "prompts"]) == 0
        shown = capsys.readouterr().out
        assert shown.count("SKIPPED, it needs ComfyUI") == 2
        assert "0 of 0 goals missed" in shown

    def test_a_section_that_dies_fails_the_run(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setattr("attack.command.SECTIONS", (sections.Section("urls", 1.0, False, "x"),))
        monkeypatch.setattr(
            "attack.command.environment", lambda temporary: {**environment(temporary), "PYTHONPATH": ""}
        )
        assert main(["--minutes", "0.01"]) == 1
        assert "a section did not end" in capsys.readouterr().out

    def test_every_section_is_a_module_with_run(self) -> None:
        names = {path.stem for path in Path(sections.__file__).parent.glob("*.py")} - {"__init__"}
        assert {one.name for one in sections.SECTIONS} == names
        assert sum(one.share for one in sections.SECTIONS) == pytest.approx(1)
