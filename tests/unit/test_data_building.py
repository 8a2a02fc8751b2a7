"""What a build asks a model, and which of its replies become records."""

import hashlib
import json
import os
from pathlib import Path

import pytest
from PIL import Image
from support.data_building import (
    COLOURS,
    REFUSAL,
    caption,
    coloured_pictures,
    engine,
    read_json,
    seen,
    short_captions_of,
    shown,
)
from support.openai_behaviours import BEHAVIOURS, document, head
from support.openai_server import OpenAIServer

from llmga.data.asking import PICTURE_SIDE
from llmga.data.building import EDIT_KINDS, Options, build_captions, build_edits, build_refinements, main
from llmga.data.schemas import Caption, Edit, Records, Refinement, write_records


@pytest.fixture
def folder(tmp_path) -> Path:
    return coloured_pictures(tmp_path / "pictures")


def test_every_picture_of_a_folder_is_captioned(folder, tmp_path):
    steps = []
    with OpenAIServer(seen) as server:
        options = Options(on_step=lambda done, total: steps.append((done, total)))
        manifest = build_captions(folder, engine(server), tmp_path / "out", options)
        seeds = {request.body["seed"] for request in server.requests}
    expected = [
        Caption(f"{path}.png", caption(Path(path).name))
        for path in ("crimson", "olive", "sub/azure", "sub/violet")
    ]
    assert list(Records(tmp_path / "out" / "train.json", Caption)) == expected
    assert steps == [(i, 4) for i in (1, 2, 3, 4)] and len(seeds) == 4
    assert (manifest.asked, manifest.kept, manifest.rejected, manifest.failed) == (4, 4, {}, {})
    written = read_json(tmp_path / "out" / "manifest.json")
    assert written["kept"] == 4 and written["settings"]["engine"] == "test" and written["kind"] == "captions"
    for name, sha256 in written["sha256"].items():
        assert hashlib.sha256((tmp_path / "out" / name).read_bytes()).hexdigest() == sha256


def test_names_that_differ_in_case_or_suffix_alone_have_a_record_each(tmp_path):
    names = ("A.png", "a.PNG", "a.bmp", "a.png")
    for name, colour in zip(names, COLOURS.values(), strict=True):
        Image.new("RGB", (32, 24), colour).save(tmp_path / name)
    if not {path.name for path in tmp_path.iterdir()} >= set(names):
        pytest.skip("this disk takes some of the names for one")
    with OpenAIServer(seen) as server:
        manifest = build_captions(tmp_path, engine(server), tmp_path / "out")
    records = {record.image: record.caption for record in Records(tmp_path / "out" / "train.json", Caption)}
    assert records == {name: caption(colour) for name, colour in zip(names, COLOURS, strict=True)}
    assert manifest.kept == 4 and not manifest.rejected and not manifest.failed


def test_bad_replies_and_bad_pictures_are_rejected_with_reasons(folder, tmp_path):
    (folder / "broken.jpg").write_bytes(b"not a picture")
    (folder / "twin.png").write_bytes((folder / "crimson.png").read_bytes())
    (folder / "notes.txt").write_text("no picture at all")
    Image.new("RGB", (32, 24), (0, 0, 0)).save(folder / "z.png")  # described in the words of another
    replies = {"azure": REFUSAL, "olive": "%PDF {stream} �", "violet": caption("crimson").upper()}

    def reply(body: dict) -> str:
        pixel = shown(body).convert("RGB").getpixel((0, 0))
        name = next((name for name, colour in COLOURS.items() if colour == pixel), "crimson")
        return replies.get(name, caption(name))

    with OpenAIServer(reply) as server:
        manifest = build_captions(folder, engine(server), tmp_path / "out")
    assert [record.image for record in Records(tmp_path / "out" / "train.json", Caption)] == ["crimson.png"]
    assert manifest.asked == 7 and manifest.rejected == {
        "unreadable picture": ["broken.jpg"],
        "not a caption": ["olive.png"],
        "refusal": ["sub/azure.png"],
        "duplicate text": ["sub/violet.png", "z.png"],
        "duplicate picture": ["twin.png"],
    }


def test_a_caption_that_is_cut_off_is_no_record(folder, tmp_path, monkeypatch):
    script = [head("200 OK", "application/json"), document({"content": caption("azure")}, "length")]
    monkeypatch.setitem(BEHAVIOURS, "normal", lambda exchange: script)
    with OpenAIServer(seen) as server:
        manifest = build_captions(folder, engine(server), tmp_path / "out")
    assert len(manifest.rejected["cut off at max_new_tokens"]) == manifest.asked == 4 and manifest.kept == 0


def test_the_cleaning_rules_are_applied_anew_without_asking_again(folder, tmp_path):
    with OpenAIServer(seen) as server:
        build_captions(folder, engine(server), tmp_path / "out")
        answers = (tmp_path / "out" / "answers.jsonl").read_bytes()
        first = (tmp_path / "out" / "train.json").read_bytes()
        build_captions(folder, engine(server), tmp_path / "out")
        assert len(server.requests) == 4
    assert (tmp_path / "out" / "answers.jsonl").read_bytes() == answers
    assert (tmp_path / "out" / "train.json").read_bytes() == first


def test_short_captions_are_written_out_with_and_without_their_pictures(folder, tmp_path):
    source = tmp_path / "short.json"
    write_records(
        source, [Caption("crimson.png", "a {red} bus"), Caption("crimson.png", "a bus on a wet road")]
    )
    asked = []

    def reply(body: dict) -> str:
        asked.append(body["messages"][-1]["content"])
        return caption(f"number{len(asked)}")

    with OpenAIServer(reply) as server:
        for out, images in [("words", None), ("pictures", folder)]:
            manifest = build_refinements(
                source, engine(server), tmp_path / out, Options(concurrency=1), images=images
            )
            assert manifest.kept == 2
    assert list(Records(tmp_path / "words" / "train.json", Refinement)) == [
        Refinement("crimson.png", caption("number1"), "a {red} bus"),
        Refinement("crimson.png", caption("number2"), "a bus on a wet road"),
    ]
    assert (
        "a {red} bus" in asked[0]
        and asked[2][0]["type"] == "image_url"
        and "a {red} bus" in asked[2][1]["text"]
    )


def test_a_mistyped_picture_folder_is_refused_before_the_first_question(folder, tmp_path):
    source, out = short_captions_of(tmp_path / "short.json"), tmp_path / "out"
    with OpenAIServer(seen) as server:
        with pytest.raises(NotADirectoryError, match="no folder .*mistyped; 'images' must be"):
            build_refinements(source, engine(server), out, images=tmp_path / "mistyped")
        assert not server.requests and not out.exists()
        assert build_refinements(source, engine(server), out, images=folder).kept == 2


def test_a_build_that_kept_nothing_ends_with_one_and_says_so(folder, tmp_path, capsys):
    with OpenAIServer(REFUSAL) as server:
        records = {"endpoints": {"local": {"url": server.url, "model": "vision"}}}
        (tmp_path / "endpoints.json").write_text(json.dumps(records))
        common = ["--endpoints", str(tmp_path / "endpoints.json"), "--endpoint", "local"]
        assert main(["captions", str(folder), "--out", str(tmp_path / "out"), *common]) == 1
    printed = capsys.readouterr()
    assert "0 of 4 kept" in printed.out and "4 refusal" in printed.out and "nothing was kept" in printed.err


def test_edits_are_invented_of_all_kinds_and_kept_with_their_source(tmp_path):
    described = [Caption(f"{i}.png", caption(f"kind{i}")) for i in range(30)]
    write_records(tmp_path / "captions.json", described)
    kinds = set()

    def reply(body: dict) -> str:
        text = body["messages"][-1]["content"]
        kinds.add(next(kind for kind in EDIT_KINDS if kind in text))
        source = text.splitlines()[1]
        number = int(source.split()[1].removeprefix("kind"))
        if number == 3:
            return REFUSAL
        target = source if number == 4 else source.replace("bus", "tram")
        return f"Instruction: Turn the kind{number} bus into a tram.\nTarget caption: {target}"

    with OpenAIServer(reply) as server:
        manifest = build_edits(tmp_path / "captions.json", engine(server, pictures=False), tmp_path / "out")
    records = list(Records(tmp_path / "out" / "train.json", Edit))
    assert records[0] == Edit(
        "0.png",
        "Turn the kind0 bus into a tram.",
        described[0].caption.replace("bus", "tram"),
        described[0].caption,
    )
    assert len(records) == manifest.kept == 28 and len(kinds) >= 6
    assert {reason: len(keys) for reason, keys in manifest.rejected.items()} == {
        "refusal": 1,
        "changes nothing": 1,
    }
    assert manifest.rejected["refusal"][0].startswith("3.png#")


def test_an_engine_without_eyes_is_told_so(folder, tmp_path):
    with OpenAIServer(seen) as server, pytest.raises(ValueError, match="cannot see pictures"):
        build_captions(folder, engine(server, pictures=False), tmp_path / "out")


def test_a_folder_that_is_not_there_is_an_error_and_not_an_empty_one(tmp_path):
    with OpenAIServer(seen) as server, pytest.raises(NotADirectoryError, match="nowhere"):
        build_captions(tmp_path / "nowhere", engine(server), tmp_path / "out")


def test_a_folder_without_pictures_is_an_error_that_names_the_suffixes(tmp_path):
    (tmp_path / "empty" / "folder.png").mkdir(parents=True)
    (tmp_path / "empty" / "raw.heic").write_bytes(b"")
    with OpenAIServer(seen) as server, pytest.raises(ValueError, match=r"holds no picture \(.*\.tiff, "):
        build_captions(tmp_path / "empty", engine(server), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_pictures_of_all_suffixes_and_with_spaces_of_all_widths_are_captioned(tmp_path):
    """macOS writes a narrow no-break space before AM and PM."""
    names = ["Screenshot 9.41.00\u202fAM.png", "a\u3000b.tif", "c\u00a0d.TIFF", "e f.bmp"]
    (tmp_path / "pictures").mkdir()
    for name, colour in zip(names, COLOURS.values(), strict=True):
        Image.new("RGB", (32, 24), colour).save(tmp_path / "pictures" / name)
    with OpenAIServer(seen) as server:
        manifest = build_captions(tmp_path / "pictures", engine(server), tmp_path / "out")
    assert manifest.kept == 4 and not manifest.failed
    assert sorted(record.image for record in Records(tmp_path / "out" / "train.json", Caption)) == sorted(
        names
    )


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such names")
def test_a_picture_with_a_name_that_no_record_holds_fails_alone_and_is_named(folder, tmp_path):
    names = ["tab\tbed.png", "back\\slash.png", os.fsdecode(b"latin-\xe9.png")]
    for name in names:
        (folder / name).write_bytes((folder / "olive.png").read_bytes())
    with OpenAIServer(seen) as server:
        manifest = build_captions(folder, engine(server), tmp_path / "out")
    assert manifest.kept == 4 and manifest.asked == 7 and not manifest.rejected
    assert set(manifest.failed) == {repr(name) for name in names}
    assert all(error.startswith("rename the file: ") for error in manifest.failed.values())
    assert read_json(tmp_path / "out" / "manifest.json")["failed"] == manifest.failed


@pytest.mark.parametrize("kind", ["captions", "edits"])
def test_the_data_command_refuses_images_where_they_have_no_effect(tmp_path, capsys, kind):
    common = ["--out", str(tmp_path / "out"), "--endpoints", "e.json", "--endpoint", "x"]
    with pytest.raises(SystemExit) as stopped:
        main([kind, str(tmp_path), "--images", str(tmp_path), *common])
    assert stopped.value.code == 2 and "--images is for refinements alone" in capsys.readouterr().err


def test_large_pictures_are_shown_smaller_and_upright(folder, tmp_path):
    for file in folder.rglob("*.png"):
        file.unlink()
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (3000, 1500), COLOURS["azure"]).save(folder / "big.png", exif=exif)
    sizes = []

    def reply(body: dict) -> str:
        sizes.append(shown(body).size)
        return seen(body)

    with OpenAIServer(reply) as server:
        build_captions(folder, engine(server), tmp_path / "out")
    assert sizes == [(PICTURE_SIDE // 2, PICTURE_SIDE)]


def test_the_command_line(folder, tmp_path, capsys):
    with OpenAIServer(seen) as server:
        records = {"endpoints": {"local": {"url": server.url, "model": "vision"}}}
        (tmp_path / "endpoints.json").write_text(json.dumps(records))
        common = ["--endpoints", str(tmp_path / "endpoints.json"), "--out", str(tmp_path / "out")]
        assert main(["captions", str(folder), "--endpoint", "local", *common]) == 0
        assert "4 of 4 kept" in capsys.readouterr().out
        with pytest.raises(SystemExit) as stopped:
            main(["captions", str(folder), "--endpoint", "other", *common])
        assert stopped.value.code == 1 and "no endpoint 'other'" in capsys.readouterr().err
