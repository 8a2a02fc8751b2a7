"""The API pages are built by one command, and the architecture names rooms that exist."""

from __future__ import annotations

import re
import warnings
from pathlib import Path

import pytest

import llmga
from tools import ROOT, docs

ARCHITECTURE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")


def test_every_public_name_has_a_page(tmp_path: Path) -> None:
    pytest.importorskip("pdoc", reason="the API pages are built with pdoc, which is not installed")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pdoc's, of annotations that it cannot read
        assert docs.main([str(tmp_path), "--no-source"]) == 0
    for name, module in llmga.NAMES.items():
        page = tmp_path / "llmga" / f"{module.replace('.', '/')}.html"
        assert f'id="{name}"' in page.read_text(encoding="utf-8"), name


def test_the_rooms_of_the_architecture_are_folders() -> None:
    rooms = re.findall(r"^\| `([\w/]+/)`", ARCHITECTURE, re.MULTILINE)
    assert len(rooms) >= 12
    assert [room for room in rooms if not (ROOT / room).is_dir()] == []
    library = {
        f"llmga/{path.name}/" for path in (ROOT / "llmga").iterdir() if (path / "__init__.py").is_file()
    }
    assert library <= set(rooms)


def test_the_walk_of_an_edit_names_files_that_exist() -> None:
    walk = ARCHITECTURE.partition("## A walk")[2]
    named = re.findall(r"`((?:llmga|nodes)/[\w/]+\.py)`", walk)
    assert len(named) >= 4
    assert [name for name in named if not (ROOT / name).is_file()] == []
    assert len(re.findall(r"^\d\. \*\*", walk, re.MULTILINE)) <= 5
