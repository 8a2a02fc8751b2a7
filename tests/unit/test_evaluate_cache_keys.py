"""A run that goes on takes nothing that was made of other weights, pictures or endpoints, wherever these lie."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file
from support.openai_server import OpenAIServer
from support.tiny_evaluation import base_folder, measure, settings

pytest.importorskip("diffusers", reason="the painters are diffusers'")

from llmga.evaluate.cache_keys import cache_key, contents
from llmga.evaluate.embedders import EmbedderConfig
from llmga.evaluate.paint_jobs import PainterConfig
from llmga.evaluate.results import TableResult
from llmga.evaluate.sources import CaptionItem, FillItem
from llmga.evaluate.writers import ChatConfig

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return base_folder(tmp_path / "base")


def _files(folder: Path, **texts: str) -> Path:
    for name, text in texts.items():
        path = folder / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def test_a_path_counts_by_what_is_there(tmp_path: Path) -> None:
    one = _files(tmp_path / "one", unet__weights="a", config="b")
    other = _files(tmp_path / "other", unet__weights="a", config="b")
    assert contents(one) == contents(other) and contents(one / "config") != contents(one / "unet" / "weights")
    kept = {contents(one)}
    for change in ({"unet__weights": "c"}, {"unet__more": "a"}, {"config": "longer"}):
        _files(one, **change)
        assert contents(one) not in kept
        kept.add(contents(one))
    (other / "config").rename(other / "renamed")
    assert contents(other) not in kept
    with pytest.raises(FileNotFoundError, match="nowhere"):
        contents(tmp_path / "nowhere")


def test_links_are_followed_once(tmp_path: Path) -> None:
    folder = _files(tmp_path / "model", weights="a")
    before = contents(folder)
    (folder / ".cache").mkdir()
    (folder / "gone").symlink_to(tmp_path / "nowhere")
    (folder / "above").symlink_to(folder)
    assert contents(folder) == before
    elsewhere = _files(tmp_path / "elsewhere", part="b")
    (folder / "unet").symlink_to(elsewhere)
    linked = contents(folder)
    _files(elsewhere, part="c")
    assert before != linked != contents(folder)


@pytest.mark.parametrize(
    ("config", "name"),
    [
        (PainterConfig(), "base"),
        (PainterConfig(), "unet"),
        (PainterConfig(), "workflow"),
        (EmbedderConfig(), "language"),
        (EmbedderConfig(), "head"),
        (EmbedderConfig(), "vision"),
        (ChatConfig(), "engine"),
    ],
)
def test_a_configuration_counts_by_the_files_it_names(config: Any, name: str, tmp_path: Path) -> None:
    file = _files(tmp_path, weights="a") / "weights"
    for words in ("folder:{}", "some.module:function:{}") if name == "engine" else ("{}",):
        named = replace(config, **{name: words.format(file)})
        file.write_text("a")
        before = cache_key(named)
        file.write_text("other")
        assert cache_key(named) != before


@pytest.mark.parametrize("name", ["picture", "mask"])
def test_an_item_counts_by_its_pictures(name: str, tmp_path: Path) -> None:
    item = FillItem("1", *(_files(tmp_path, picture="a", mask="b") / one for one in ("picture", "mask")))
    moved = FillItem(
        "1", *(_files(tmp_path / "moved", picture="a", mask="b") / one for one in ("picture", "mask"))
    )
    before = cache_key([item])
    assert before == cache_key([moved])
    getattr(item, name).write_text("other")
    assert cache_key([item]) != before
    assert cache_key([CaptionItem("1", "a", moved.mask)]) != cache_key([CaptionItem("2", "a", moved.mask)])


def _t2i(base: Path, out: Path, **more: Any) -> TableResult:
    painter = {"base": str(base / "sd"), "steps": 2, "batch": 2}
    (result,) = measure("t2i", settings("t2i", base, rows=[{"name": "one", "painter": painter, **more}]), out)
    return result


def test_other_weights_in_the_same_folder_are_painted_with(base: Path, tmp_path: Path) -> None:
    first = _t2i(base, tmp_path / "out")
    (file,) = (base / "sd" / "unet").glob("*.safetensors")
    save_file({name: value * 0.5 for name, value in load_file(file).items()}, file, {"format": "pt"})
    again = _t2i(base, tmp_path / "out")
    assert again.rows["one"]["FID"] != first.rows["one"]["FID"]
    assert again.rows == _t2i(base, tmp_path / "fresh").rows


def test_another_picture_under_the_same_name_is_read(base: Path, tmp_path: Path) -> None:
    first = _t2i(base, tmp_path / "out")
    one, other, *_ = sorted((base / "coco" / "val").glob("*.jpg"))
    shutil.copyfile(one, other)
    again = _t2i(base, tmp_path / "out")
    assert again.rows["one"]["FID"] != first.rows["one"]["FID"]
    assert again.conditions["data"] != first.conditions["data"]
    assert again.rows == _t2i(base, tmp_path / "fresh").rows


def test_another_model_of_an_endpoint_is_asked_again_and_the_same_is_not(base: Path, tmp_path: Path) -> None:
    with OpenAIServer(lambda body: "<gen_image>a large red square</gen_image>") as server:
        file = tmp_path / "endpoints.json"
        record: dict[str, Any] = {"url": server.url, "model": "tiny", "pictures": True}

        def asked(**records: Any) -> int:
            file.write_text(json.dumps({"endpoints": records}))
            before = len(server.requests)
            _t2i(base, tmp_path / "out", chat={"engine": f"endpoint:{file}#one"})
            return len(server.requests) - before

        assert asked(one=record) == 5
        assert asked(one={**record, "deadline_s": 20.0}, another=record) == 0
        assert asked(one={**record, "model": "larger"}) == 5
