"""A ComfyUI below the floor gets one clear line, and nothing of ours is imported into it."""

from __future__ import annotations

import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import pytest

FILE = Path(__file__).parents[2] / "nodes" / "__init__.py"


@pytest.fixture
def package() -> ModuleType:
    spec = spec_from_file_location("pack_nodes", FILE)
    assert spec and spec.loader
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def comfyui(monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    module = ModuleType("comfyui_version")
    module.__version__ = version  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "comfyui_version", module)


@pytest.mark.parametrize("version", ["0.20.0", "0.20.1", "0.26.0", "0.100.0", "1.0"])
def test_from_the_floor_on_it_loads(
    package: ModuleType, monkeypatch: pytest.MonkeyPatch, version: str
) -> None:
    comfyui(monkeypatch, version)
    package.require_comfyui()


@pytest.mark.parametrize("version", ["0.3.64", "0.19.9", "0.2.0"])
def test_below_it_one_line_says_what_to_do(
    package: ModuleType, monkeypatch: pytest.MonkeyPatch, version: str
) -> None:
    comfyui(monkeypatch, version)
    with pytest.raises(RuntimeError) as caught:
        package.extension()
    assert (
        str(caught.value) == f"LLMGA needs ComfyUI 0.20.0 or newer, this is ComfyUI {version}; update ComfyUI"
    )


def test_a_comfyui_without_a_version_is_too_old(package: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "comfyui_version", None)
    with pytest.raises(RuntimeError, match="of unknown version"):
        package.extension()
