"""The index of pictures: exact, resumable, incremental, and read from the released pickles without running them."""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

pytest.importorskip("transformers", reason="GILL needs transformers")

from support.tiny_gill import recorded, recorder, tiny_gill, write_gill

from llmga.__main__ import main
from llmga.gill import GILL, ReplyOptions, answer, load_parts, load_vision, save_parts
from llmga.gill import index as index_module
from llmga.gill.answer import read_picture_states
from llmga.gill.index import PictureIndex, write_index
from llmga.gill.index_building import build_index, picture_file
from llmga.gill.released_index import read_released_index

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def gill(tmp_path_factory: pytest.TempPathFactory) -> GILL:
    return tiny_gill(tmp_path_factory.mktemp("gill"))


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    (folder / "deep").mkdir(parents=True)
    for i in range(5):
        recorder().picture(i).save(folder / ("deep" if i > 2 else ".") / f"{i}.png")
    return folder


@pytest.mark.parametrize("block", [7, 10_000])
def test_the_search_is_exact(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    monkeypatch.setattr(index_module, "_BLOCK", block)
    monkeypatch.setattr(index_module, "ROWS_PER_PART", 13)
    rows = torch.randn(100, 16, generator=torch.Generator().manual_seed(1))
    write_index(tmp_path / "index", [f"{i}.png" for i in range(100)], rows)
    assert len(list((tmp_path / "index").glob("part-*.safetensors"))) == 8
    index = PictureIndex.open(tmp_path / "index")
    query = torch.randn(16, generator=torch.Generator().manual_seed(2))
    expected = torch.nn.functional.cosine_similarity(rows, query[None]).sort(descending=True)
    found = index.search(query, 20)
    assert [match.row for match in found] == expected.indices[:20].tolist()
    torch.testing.assert_close(
        torch.tensor([m.score for m in found]), expected.values[:20], rtol=1e-5, atol=1e-6
    )
    hidden = [match.row for match in found[:3]]
    assert index.search(query, 17, without=hidden) == found[3:]
    assert [match.path for match in found] == [f"{match.row}.png" for match in found]
    assert len(index.search(query, 1000)) == 100


def test_equal_pictures_come_in_their_order(tmp_path: Path) -> None:
    write_index(tmp_path / "index", list("abcd"), torch.ones(4, 3))
    assert [m.row for m in PictureIndex.open(tmp_path / "index").search(torch.ones(3), 4)] == [0, 1, 2, 3]


def test_faiss_finds_the_same(tmp_path: Path) -> None:
    pytest.importorskip("faiss", reason="faiss is optional")
    rows = torch.randn(50, 8, generator=torch.Generator().manual_seed(1))
    write_index(tmp_path / "index", [str(i) for i in range(50)], rows)
    index, query = PictureIndex.open(tmp_path / "index"), torch.randn(8)
    plain = index.search(query, 10, without=[3])
    assert index.use_faiss()
    assert [match.row for match in index.search(query, 10, without=[3])] == [match.row for match in plain]


def test_a_folder_of_pictures_is_found_as_the_official_code_embeds_it(
    tmp_path: Path, pictures: Path, gill: GILL
) -> None:
    report = build_index(tmp_path / "index", pictures, gill, batch=2)
    assert (report.added, report.unchanged, report.removed, report.unreadable) == (5, 0, 0, ())
    index = PictureIndex.open(tmp_path / "index")
    for number, row in enumerate(recorded()["index"]):
        (best,) = index.search(row, 1)
        assert Path(best.path).stem == str(number) and best.score == pytest.approx(1, rel=1e-5)
        assert picture_file(pictures, best.path).name == f"{number}.png"


def test_only_what_changed_is_read_again(tmp_path: Path, pictures: Path, gill: GILL) -> None:
    build_index(tmp_path / "index", pictures, gill)
    (pictures / "0.png").unlink()
    recorder().picture(7).save(pictures / "1.png")
    recorder().picture(8).save(pictures / "new.png")
    (pictures / "broken.png").write_bytes(b"no picture")
    report = build_index(tmp_path / "index", pictures, gill)
    assert (report.added, report.unchanged, report.removed) == (2, 3, 2)
    assert [path for path, _ in report.unreadable] == ["broken.png"] and str(pictures) not in str(report)
    index = PictureIndex.open(tmp_path / "index")
    assert len(index) == 5
    assert sorted(m.path for m in index.search(recorded()["index"][0], 10)) == [
        "1.png",
        "2.png",
        "deep/3.png",
        "deep/4.png",
        "new.png",
    ]
    again = build_index(tmp_path / "index", pictures, gill)
    assert (again.added, again.unchanged) == (0, 5)


class Stop(BaseException):
    pass


def test_a_stopped_build_goes_on(
    tmp_path: Path, pictures: Path, gill: GILL, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llmga.gill.index_building.ROWS_PER_PART", 2)
    calls: list[tuple[int, int]] = []

    def stop_at_three(done: int, of: int) -> None:
        calls.append((done, of))
        if done == 3:
            raise Stop

    with pytest.raises(Stop):
        build_index(tmp_path / "index", pictures, gill, stop_at_three, batch=1)
    assert calls == [(0, 5), (1, 5), (2, 5), (3, 5)]
    assert len(PictureIndex.open(tmp_path / "index")) == 2
    report = build_index(tmp_path / "index", pictures, gill)
    assert (report.added, report.unchanged) == (3, 2)
    whole = tmp_path / "whole"
    build_index(whole, pictures, gill)
    query = recorded()["index"][4]
    found, expected = (PictureIndex.open(f).search(query, 5) for f in (tmp_path / "index", whole))
    assert [m.path for m in found] == [m.path for m in expected]


def test_an_index_of_another_gill(tmp_path: Path, pictures: Path, gill: GILL) -> None:
    write_index(tmp_path / "index", ["a"], torch.ones(1, 20), model="another")
    with pytest.raises(ValueError, match="built with another GILL"):
        build_index(tmp_path / "index", pictures, gill)
    with pytest.raises(ValueError, match="embeddings of 20 numbers, the query of this GILL has"):
        PictureIndex.open(tmp_path / "index").search(torch.ones(7), 1)


def test_another_checkpoint_of_the_same_sizes_finds_nothing_in_it(
    tmp_path: Path, pictures: Path, gill: GILL, caplog: pytest.LogCaptureFixture
) -> None:
    """Both checkpoints are files; of the second only the trained part is another one."""
    build_index(tmp_path / "index", pictures, gill)
    other = load_parts(write_gill(tmp_path / "gill")["parts"])
    torch.nn.init.normal_(other.visual_fc.weight, generator=torch.Generator().manual_seed(0))
    save_parts(other, tmp_path / "other.safetensors")
    another = GILL(gill.language, gill.vision, load_parts(tmp_path / "other.safetensors"))
    index, always = PictureIndex.open(tmp_path / "index"), ReplyOptions(max_tokens=1, generation_scale=1e5)
    assert answer(gill, ["a fox"], always, index=index).pictures[0].matches
    heard: list[str] = []
    with pytest.raises(
        ValueError, match="made with another GILL.*connect to 'index' one that was built with this"
    ):
        answer(another, ["a fox"], always, index=index, on_reply=heard.append)
    assert not heard  # before anything is written
    with pytest.raises(ValueError, match="made with another GILL"):
        read_picture_states(another, another.picture_states(["a fox"]), index)
    assert not caplog.records
    write_index(tmp_path / "unknown", ["a.png"], torch.ones(1, 20))
    unknown = PictureIndex.open(tmp_path / "unknown")
    assert answer(another, ["a fox"], always, index=unknown).pictures[0].matches
    assert "does not say with which GILL it was made" in caplog.text


def test_another_vision_encoder_of_the_same_width_adds_nothing_to_it(
    tmp_path: Path, pictures: Path, gill: GILL
) -> None:
    """Half the precision is the same encoder; an index that was made before this was written down goes on with a remark."""
    folder = tmp_path / "index"
    build_index(folder, pictures, gill)
    files = write_gill(tmp_path / "gill")
    half = GILL(gill.language, load_vision(files["vision"], torch.bfloat16), gill.parts)
    report = build_index(folder, pictures, half)
    assert report.unchanged == 5 and not report.remark
    tower = load_vision(files["vision"])
    for number, weight in enumerate(tower.net.parameters()):
        torch.nn.init.normal_(weight.data, generator=torch.Generator().manual_seed(number))
    another = GILL(gill.language, tower, gill.parts)
    recorder().picture(7).save(pictures / "new.png")
    with pytest.raises(ValueError, match="another vision encoder; choose another 'name'"):
        build_index(folder, pictures, another)
    assert len(PictureIndex.open(folder)) == 5
    head = json.loads((folder / "index.json").read_text())
    (folder / "index.json").write_text(json.dumps({k: v for k, v in head.items() if k != "probe"}))
    assert "does not say with which vision encoder" in str(build_index(folder, pictures, gill))
    assert not build_index(folder, pictures, gill).remark
    (folder / "index.json").write_text(json.dumps({**head, "probe": [1.0, "x"]}))
    with pytest.raises(ValueError, match="is damaged"):
        build_index(folder, pictures, gill)


def test_a_stopped_index_of_ready_embeddings_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rows of an earlier, longer file must not be counted to the next one."""
    monkeypatch.setattr(index_module, "ROWS_PER_PART", 2)
    write_part, place = index_module.write_part, tmp_path / "index"

    def stopping(folder: Path, number: int, *rest: Any) -> None:
        write_part(folder, number, *rest)
        if number == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(index_module, "write_part", stopping)
        with pytest.raises(KeyboardInterrupt):
            write_index(place, list("abcdef"), torch.randn(6, 3))
    write_index(place, list("gh"), torch.randn(2, 3))
    assert [entry[0] for entry in PictureIndex.open(place).entries] == ["g", "h"]
    assert [path.name for path in tmp_path.iterdir()] == ["index"]
    with pytest.raises(FileExistsError, match="'index' is not empty"):
        write_index(place, list("gh"), torch.randn(2, 3))


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
@pytest.mark.parametrize("kind", ["float32", "float16", "bfloat16"])
def test_released_pickles(tmp_path: Path, protocol: int, kind: str) -> None:
    rows = torch.randn(4, 6, generator=torch.Generator().manual_seed(3)).to(getattr(torch, kind))
    held = (
        list(rows) if kind == "bfloat16" else list(rows.numpy())
    )  # extract_img_embs.py pickles tensors of bfloat16
    path = tmp_path / "cc3m.npy"
    path.write_bytes(
        pickle.dumps({"paths": ["http://x/a.jpg", "b", "c", "d"], "embeddings": held}, protocol=protocol)
    )
    paths, found = read_released_index(path)
    assert paths[0] == "http://x/a.jpg" and torch.equal(found, rows.float())
    assert main(["convert", "gill", str(path), str(tmp_path / "index")]) == 0
    (best,) = PictureIndex.open(tmp_path / "index").search(rows[2].float(), 1)
    assert best.path == "c"


ROWS = [np.ones(3, np.float32)]
REFUSED = {
    "code": ({"paths": [os.getcwd], "embeddings": ROWS}, "could run code"),
    "counts": ({"paths": ["a", "b"], "embeddings": ROWS}, "2 paths and 1 embeddings"),
    "keys": ({"paths": ["a"]}, "does not hold 'paths' and 'embeddings'"),
    "lengths": (
        {"paths": ["a", "b"], "embeddings": [np.ones(3, np.float32), np.ones(4, np.float32)]},
        "not vectors of one length",
    ),
    "numbers": ({"paths": ["a"], "embeddings": [np.ones(3, np.int64)]}, "array of the type 'i8'"),
    "nan": ({"paths": ["a"], "embeddings": [np.full(3, np.nan, np.float32)]}, "not finite"),
    "objects": ({"paths": [3], "embeddings": ROWS}, "paths that are not texts"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_pickles_that_are_refused(tmp_path: Path, case: str) -> None:
    content, message = REFUSED[case]
    (tmp_path / "x.npy").write_bytes(pickle.dumps(content))
    with pytest.raises(ValueError, match=message):
        read_released_index(tmp_path / "x.npy")


def test_a_pickle_that_is_cut_off(tmp_path: Path) -> None:
    (tmp_path / "x.npy").write_bytes(pickle.dumps({"paths": ["a"], "embeddings": ROWS})[:-20])
    with pytest.raises(ValueError, match="damaged pickle"):
        read_released_index(tmp_path / "x.npy")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: (f / "index.json").unlink(), "holds no index"),
        (lambda f: (f / "index.json").write_text("{}"), "does not belong to an index"),
        (
            lambda f: (f / "index.json").write_text('{"format": "llmga-picture-index", "version": 9}'),
            "has the version 9",
        ),
        (
            lambda f: (f / "index.json").write_text('{"format": "llmga-picture-index", "version": 1}'),
            "is damaged",
        ),
        (
            lambda f: (f / "part-00000.json").write_text('{"pictures": [["a", 1, 2]]}'),
            "does not name the 3 pictures",
        ),
        (
            lambda f: save_file({"x": torch.ones(3, 4)}, f / "part-00000.safetensors"),
            "does not hold float32 embeddings of 4",
        ),
        (lambda f: (f / "part-00000.safetensors").rename(f / "part-00001.safetensors"), "lacks part-00000"),
    ],
)
def test_damaged_indices(tmp_path: Path, damage, message: str) -> None:
    write_index(tmp_path / "index", list("abc"), torch.randn(3, 4))
    damage(tmp_path / "index")
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        PictureIndex.open(tmp_path / "index")


def test_names_that_lead_elsewhere(tmp_path: Path, pictures: Path) -> None:
    (tmp_path / "secret.png").write_bytes(b"")
    for path, error, message in (
        ("../secret.png", ValueError, "lies outside"),
        ("deep/../../secret.png", ValueError, "lies outside"),
        (str(tmp_path / "secret.png"), ValueError, "lies outside"),
        ("C:\\secret.png", ValueError, "lies outside"),
        ("https://example.com/a.jpg", ValueError, "on the web"),
        ("9.png", FileNotFoundError, "any more"),
    ):
        with pytest.raises(error, match=message):
            picture_file(pictures, path)


@pytest.mark.skipif(os.name == "nt", reason="links need rights on Windows")
def test_a_link_of_the_owner_is_followed(tmp_path: Path, pictures: Path, gill: GILL) -> None:
    (tmp_path / "link").symlink_to(pictures)
    (tmp_path / "elsewhere").mkdir()
    recorder().picture(6).save(tmp_path / "elsewhere" / "6.png")
    (pictures / "6.png").symlink_to(tmp_path / "elsewhere" / "6.png")
    assert build_index(tmp_path / "index", tmp_path / "link", gill).added == 6
    assert picture_file(tmp_path / "link", "6.png").is_file()
