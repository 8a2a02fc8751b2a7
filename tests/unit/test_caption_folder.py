"""Captions beside the pictures of a folder: names stay, what exists is skipped, one bad picture costs no other."""

from __future__ import annotations

import io
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from llmga.__main__ import main as llmga
from llmga.chat import Conversation, Picture, Said, Sampling
from llmga.chat.caption_command import main
from llmga.chat.caption_folder import caption_folder, pictures_below, with_trigger
from llmga.chat.engines.endpoint import EndpointError

COLOURS = {"b/blue.jpg": "blue", "a red one.png": "red", "green.webp": "green"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "b").mkdir()
    for name, colour in COLOURS.items():
        Image.new("RGB", (16, 16), colour).save(tmp_path / name)
    Image.new("RGB", (4, 4)).save(tmp_path / ".hidden.png")
    (tmp_path / "notes.md").write_text("no picture")
    return tmp_path


class Seer:
    """Says the dominant channel of the picture and its seed; ``says`` changes the words of some seeds."""

    name = "seer"
    supports_pictures = True

    def __init__(self, **says: object) -> None:
        self.says = {int(seed.removeprefix("seed")): value for seed, value in says.items()}
        self.requests: list[str] = []
        self.seen: list[Picture] = []

    def generate(self, conversation: Conversation, sampling: Sampling, on_text: object) -> Said:
        self.requests.append(conversation.turns[-1].text)
        value = self.says.get(sampling.seed)
        if isinstance(value, BaseException):
            raise value
        picture: Picture = conversation.pictures[-1]
        self.seen.append(picture)
        rgb = picture.to_pil().getpixel((3, 3))
        assert isinstance(rgb, tuple)
        colour = ("red", "green", "blue")[rgb.index(max(rgb))]
        return Said.of(str(value or f"A {colour}\nsquare, seed {sampling.seed}."))


def captions(folder: Path) -> dict[str, str]:
    return {p.relative_to(folder).as_posix(): p.read_text("utf-8") for p in sorted(folder.rglob("*.txt"))}


def test_every_picture_has_its_caption_beside_it(folder: Path) -> None:
    steps: list[tuple[int, int]] = []
    result = caption_folder(
        Seer(), folder, sampling=Sampling(seed=5), trigger=" zxq, ", on_step=lambda i, n: steps.append((i, n))
    )
    assert steps == [(0, 3), (1, 3), (2, 3), (3, 3)]
    assert captions(folder) == {
        "a red one.txt": "zxq, A red square, seed 5.\n",
        "b/blue.txt": "zxq, A blue square, seed 7.\n",
        "green.txt": "zxq, A green square, seed 6.\n",
    }
    assert list(result.written) == ["a red one.png", "green.webp", "b/blue.jpg"] and not result.failures
    assert result.report() == "3 captions written, 0 pictures had one, 0 failed"


def test_which_files_are_captioned_and_in_which_order(tmp_path: Path) -> None:
    for folder in ("b", "d", "a", "c", "e", ".cache"):
        (tmp_path / folder).mkdir()
        Image.new("RGB", (4, 4)).save(tmp_path / folder / "one.png")
    Image.new("RGB", (4, 4)).save(tmp_path / "UPPER.PNG")
    (tmp_path / "gone.png").symlink_to(tmp_path / "nowhere.png")
    found = [path.relative_to(tmp_path).as_posix() for path in pictures_below(tmp_path)]
    assert found == ["UPPER.PNG", *(f"{folder}/one.png" for folder in "abcde")]


def test_seeds_stay_below_2_to_the_64(folder: Path) -> None:
    written = caption_folder(Seer(), folder, sampling=Sampling(seed=2**64 - 1)).written
    assert [one.split("seed ")[1] for one in written.values()] == [f"{2**64 - 1}.", "0.", "1."]


def test_a_transparent_picture_is_shown_on_white(tmp_path: Path) -> None:
    Image.new("RGBA", (8, 8), (0, 0, 255, 0)).save(tmp_path / "clear.png")
    engine = Seer()
    caption_folder(engine, tmp_path, sampling=Sampling())
    assert engine.seen[0].to_pil().getpixel((3, 3)) == (255, 255, 255)


def test_a_prompt_between_tags_is_the_caption_else_the_whole_reply_without_asking_again(folder: Path) -> None:
    engine = Seer(seed0="Here it is: <gen_image> a red\nsquare </gen_image>")
    result = caption_folder(engine, folder, sampling=Sampling(), task="similar")
    assert list(result.written.values())[:2] == ["a red square", "A green square, seed 1."]
    assert len(engine.requests) == 3 and not result.failures


def test_a_second_run_skips_and_goes_on_with_the_same_seeds(folder: Path) -> None:
    whole = caption_folder(Seer(), folder, sampling=Sampling(seed=5)).written
    (folder / "b/blue.txt").unlink()
    (folder / "green.txt").write_text("mine")
    again = caption_folder(Seer(), folder, sampling=Sampling(seed=5))
    assert again.written == {"b/blue.jpg": whole["b/blue.jpg"]}
    assert again.skipped == ("a red one.png", "green.webp") and captions(folder)["green.txt"] == "mine"
    anew = caption_folder(Seer(), folder, sampling=Sampling(seed=5), overwrite=True)
    assert anew.written == whole and not anew.skipped and "mine" not in captions(folder).values()


def test_a_run_that_is_stopped_keeps_what_it_wrote(folder: Path) -> None:
    def stop(i: int, n: int) -> None:
        assert n == 3
        if i == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        caption_folder(Seer(), folder, sampling=Sampling(), on_step=stop)
    assert len(captions(folder)) == 2 and not list(folder.rglob("*.part"))


def test_a_bad_picture_and_a_bad_reply_cost_no_other(folder: Path) -> None:
    (folder / "green.webp").write_bytes(b"not a picture")
    refusal = "I'm sorry, but I can't help with that."
    engine = Seer(seed2=refusal, **{f"seed{(2 + 0x9E3779B97F4A7C15) % 2**64}": refusal})
    result = caption_folder(engine, folder, sampling=Sampling(seed=0))
    assert list(result.written) == ["a red one.png"]
    assert (
        result.failures[0].startswith("green.webp: ") and "cannot be read as a picture" in result.failures[0]
    )
    assert result.failures[1].startswith("b/blue.jpg: the model refuses (") and len(result.failures) == 2
    assert "1 captions written" in result.report() and result.failures[1] in result.report()


def test_after_three_endpoint_errors_the_rest_is_not_asked(folder: Path) -> None:
    for i in range(3):
        Image.new("RGB", (4, 4), "red").save(folder / f"x{i}.png")
    engine = Seer(**{f"seed{i}": EndpointError("the endpoint answered 500") for i in range(9)})
    result = caption_folder(engine, folder, sampling=Sampling())
    assert len(engine.requests) == 3 and len(result.failures) == 6 and not captions(folder)
    assert result.failures[-1].endswith("not asked, because the endpoint failed 3 times in a row")


def test_after_three_captions_that_could_not_be_written_the_rest_is_not_asked(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for i in range(3):
        Image.new("RGB", (4, 4), "red").save(folder / f"x{i}.png")

    def full(path: Path, text: str) -> None:
        raise OSError(28, "the disk is full: make room there", str(path))

    monkeypatch.setattr("llmga.chat.caption_folder.write_text", full)
    engine = Seer()
    result = caption_folder(engine, folder, sampling=Sampling())
    assert len(engine.requests) == 3 and len(result.failures) == 6 and not result.written
    assert "the disk is full" in result.failures[0]
    assert result.failures[-1].endswith("not asked, because 3 captions in a row could not be written")


def test_what_is_excluded_is_said_in_the_request_and_asked_for_again(folder: Path) -> None:
    engine = Seer(seed0="A red dress on a woman.", seed1="Predressed salad.")
    result = caption_folder(engine, folder, sampling=Sampling(), exclude=["red", " dress ", "", "red"])
    assert all("Do not mention any of these: red; dress." in request for request in engine.requests)
    assert result.written["green.webp"] == "Predressed salad."  # whole words
    assert "says 'red', which is excluded, also when asked again; try another seed" in result.failures[0]
    assert len(engine.requests) == 4
    with pytest.raises(ValueError, match="exclude names 101 phrases"):
        caption_folder(engine, folder, sampling=Sampling(), exclude=[str(i) for i in range(101)])


@pytest.mark.parametrize(
    ("caption", "phrase"),
    [
        ("一个戴帽子的女人站在雪地里。", "帽子"),
        ("一件红色T恤。", "t恤"),
        ("雪の中に立つ女性", "女性"),
        ("빨간 모자를 쓴 여자", "모자"),
        ("ผู้หญิงใส่หมวกสีแดง", "หมวก"),
    ],
)
def test_a_script_without_spaces_has_its_words_anywhere(folder: Path, caption: str, phrase: str) -> None:
    result = caption_folder(Seer(seed0=caption), folder, sampling=Sampling(), exclude=[phrase])
    assert result.written["a red one.png"].startswith("A red square")  # asked for once more
    assert with_trigger(caption, phrase) == caption
    assert with_trigger(f"zxq{caption}", "zxq") == f"zxq{caption}"


def test_two_pictures_of_one_name_do_not_share_a_caption(folder: Path) -> None:
    Image.new("RGB", (4, 4), "red").save(folder / "green.png")
    result = caption_folder(Seer(), folder, sampling=Sampling())
    assert result.failures == (
        "green.webp: green.txt is the caption of green.png; rename one of the two pictures",
    )
    assert captions(folder)["green.txt"].startswith("A red square")


def squares(folder: Path, *names: str) -> None:
    for name, colour in zip(names, ("red", "blue"), strict=True):
        Image.new("RGB", (4, 4), colour).save(folder / name)


@pytest.mark.parametrize("names", [("A.png", "a.PNG"), ("A.png", "a.jpg")])
def test_names_that_differ_in_case_have_a_caption_each_where_the_disk_keeps_them_apart(
    tmp_path: Path, names: tuple[str, str]
) -> None:
    squares(tmp_path, *names)
    if len(list(tmp_path.iterdir())) < 2 or (tmp_path / "a.png").exists():
        pytest.skip("this disk takes both names for one")
    result = caption_folder(Seer(), tmp_path, sampling=Sampling())
    assert captions(tmp_path) == {"A.txt": "A red square, seed 0.\n", "a.txt": "A blue square, seed 1.\n"}
    assert not result.failures
    assert caption_folder(Seer(), tmp_path, sampling=Sampling()).skipped == names


def test_names_that_differ_in_case_do_not_share_a_caption_where_the_disk_takes_them_for_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on Windows and macOS: a path in another case is the same file. No such disk can be mounted here."""
    squares(tmp_path, "A.png", "a.jpg")
    real, stat = Path.exists, Path.stat

    def on_disk(path: Path) -> Path:
        same = [one for one in sorted(path.parent.iterdir()) if one.name.lower() == path.name.lower()]
        return same[0] if same else path

    monkeypatch.setattr(Path, "exists", lambda self: real(on_disk(self)))
    monkeypatch.setattr(Path, "stat", lambda self, **more: stat(on_disk(self), **more))
    wanted = ("a.jpg: a.txt is the caption of A.png; rename one of the two pictures",)
    first = caption_folder(Seer(), tmp_path, sampling=Sampling())
    assert list(first.written) == ["A.png"] and first.failures == wanted
    again = caption_folder(Seer(), tmp_path, sampling=Sampling())
    assert again.skipped == ("A.png",) and again.failures == wanted
    anew = caption_folder(Seer(), tmp_path, sampling=Sampling(), overwrite=True)
    assert anew.written == first.written and anew.failures == wanted
    assert captions(tmp_path) == {"A.txt": "A red square, seed 0.\n"}


def test_a_trigger_word_is_said_once() -> None:
    assert with_trigger("A Zxq fox", "zxq") == "A Zxq fox" and with_trigger("zxqs", "zxq") == "zxq, zxqs"
    assert with_trigger("a fox", " , ") == "a fox"


def test_nothing_to_caption_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds no picture"):
        caption_folder(Seer(), tmp_path, sampling=Sampling())
    with pytest.raises(NotADirectoryError, match="there is no folder"):
        caption_folder(Seer(), tmp_path / "none", sampling=Sampling())


def test_the_command_says_what_it_needs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = [str(tmp_path), "--model", "m"]
    for arguments in (
        [str(tmp_path)],
        [str(tmp_path), "--endpoint", "x"],
        [*model, "--endpoints", "e.json"],
        [*model, "--endpoints", "e.json", "--endpoint", "x"],
    ):
        with pytest.raises(SystemExit) as caught:
            main(arguments)
        assert caught.value.code == 2 and "give --model FOLDER" in capsys.readouterr().err
    with pytest.raises(SystemExit) as caught:
        main([str(tmp_path), "--endpoint", "x", "--endpoints", str(tmp_path / "none.json")])
    assert caught.value.code == 1


def test_a_caption_that_is_cut_off_is_not_written_and_asked_for_by_the_next_run(folder: Path) -> None:
    class Short(Seer):
        def generate(self, conversation: Conversation, sampling: Sampling, on_text: object) -> Said:
            said = super().generate(conversation, sampling, on_text)
            return replace(said, cut="max_new_tokens" if sampling.max_new_tokens < 100 else "")

    engine = Short(seed1="<gen_image> a whole one </gen_image> and mor")
    result = caption_folder(engine, folder, sampling=Sampling(seed=0, max_new_tokens=20))
    assert captions(folder) == {"green.txt": "a whole one\n"} and len(engine.requests) == 3
    assert result.failures == tuple(
        f"{name}: the caption is cut off and not written: the reply ended at 'max_new_tokens', before the model had "
        "finished; raise it"
        for name in ("a red one.png", "b/blue.jpg")
    )
    result = caption_folder(engine, folder, sampling=Sampling(seed=0, max_new_tokens=200))
    assert list(result.written) == ["a red one.png", "b/blue.jpg"] and not result.failures


@pytest.mark.parametrize("policy", ["error", "ask_again"])
def test_a_closing_tag_that_the_engine_had_to_write_makes_no_caption_whole(folder: Path, policy: str) -> None:
    class Held(Seer):
        def generate(self, conversation: Conversation, sampling: Sampling, on_text: object) -> Said:
            return Said("<gen_image> a fox in the sno </gen_image>", cut="max_new_tokens")

    result = caption_folder(Held(), folder, sampling=Sampling(), task="similar", policy=policy)
    assert not result.written and len(result.failures) == 3


def test_the_command_names_a_picture_whose_letters_the_console_lacks(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "日本.png").write_text("no picture")
    monkeypatch.setattr("llmga.chat.caption_command._engine", lambda arguments: Seer())
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), encoding="cp1252"))
    assert llmga(["caption", str(folder), "--model", "any"]) == 1
    sys.stdout.seek(0)
    said = sys.stdout.read()
    assert "3 captions written" in said and "\\u65e5\\u672c.png: " in said
