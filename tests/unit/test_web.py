"""What the web extension never does, and the order of its house."""

from __future__ import annotations

import re

import pytest

from tools import ROOT

SCRIPTS = sorted((ROOT / "web" / "js").rglob("*.js"))
# A string becomes markup, a program or an address only through one of these.
MARKUP = re.compile(
    r"innerHTML|outerHTML|insertAdjacentHTML|createContextualFragment|DOMParser|document\.write|srcdoc"
    r"|\beval\b|new Function|setTimeout\(\s*['\"`]|window\.open|location\s*[.=]|javascript:"
    r"|setAttribute\(\s*[\"'](?:on|href|src|style)"
)


def test_there_are_scripts() -> None:
    assert len(SCRIPTS) >= 8


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_text_stays_text(path) -> None:
    assert MARKUP.findall(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    "line", ["box.innerHTML = text", "eval(text)", "location = text", 'setTimeout("a()")']
)
def test_the_check_above_sees(line: str) -> None:
    assert MARKUP.search(line)


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_a_script_is_one_idea(path) -> None:
    lines = path.read_text(encoding="utf-8").splitlines()
    assert len(lines) < 400
    assert all(len(line) <= 125 for line in lines)
    assert lines[0].startswith("// ")


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_only_an_entry_does_something_when_it_is_loaded(path) -> None:
    """ComfyUI imports every script below the web folder by itself."""
    acts = re.findall(
        r"^(?!import|export|const|let|function|async function|class|[ }/\])]|$).*",
        path.read_text("utf-8"),
        re.M,
    )
    assert acts == (["app.registerExtension({"] if path.parent.name == "js" else [])


def test_every_box_on_a_node_keeps_its_width_and_out_of_the_side_panel() -> None:
    """``addBox`` sees to both; ComfyUI's side panel narrows other DOM widgets for good and lists them by an inner name."""
    makers = [path.name for path in SCRIPTS if "addDOMWidget(" in path.read_text("utf-8")]
    assert makers == ["widgets.js"]
    box = (ROOT / "web" / "js" / "chat" / "widgets.js").read_text("utf-8")
    assert "hideInPanel: true" in box and 'defineProperty(widget, "width"' in box


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_links_are_asked_for_and_not_read_from_slots(path) -> None:
    """``input.link`` and ``output.links`` are deprecated since frontend 1.58."""
    code = re.sub(r"//.*", "", path.read_text("utf-8"))
    assert re.findall(r"(?:[iI]nput|[oO]utput|[sS]lot)s?(?:\[\w+\])?\??\.links?\b", code) == []
