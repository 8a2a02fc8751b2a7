"""What is written is whole, what a killed process left is swept, and what a disk refuses is said with the next step."""

from __future__ import annotations

import errno
import json
import os
import random
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support.small_disk import small_disk

from llmga.evaluate.report import contact_sheet, write_json
from llmga.files import writing
from llmga.files.writing import replacing, sweep, what_to_do, whole_folder, write_bytes, write_text
from tools import ROOT

OLD = time.time() - 3600
LEFT = ".chat.json.0123456789ab.part"


def old(path: Path, content: str = "half") -> Path:
    path.write_text(content)
    os.utime(path, (OLD, OLD))
    return path


def swept_by_another_process(folder: Path) -> list[str]:
    code = (
        "import sys, pathlib; from llmga.files.writing import sweep; print(*sweep(pathlib.Path(sys.argv[1])))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(folder)], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return done.stdout.split()


def test_what_a_killed_process_left_is_swept(tmp_path: Path) -> None:
    for name in (
        LEFT,
        ".a b.json.00ff00ff00ff.part",
        f".{'x' * 200}.abcdefabcdef.part",
        ".会話.json.0123456789ab.part",
    ):
        old(tmp_path / name)
    assert len(sweep(tmp_path)) == 4 and not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "name",
    [
        "model.safetensors.part",  # a download that goes on later
        "chat.json",
        ".chat.json",
        ".chat.json.part",
        ".chat.json.0123456789a.part",
        ".chat.json.0123456789AB.part",
        ".chat.json.0123456789ab.part.bak",
        "chat.json.0123456789ab.part",
        ".0123456789ab.part",
        ".chat.json.0123456789ab.partial",
    ],
)
def test_what_is_not_ours_stays(tmp_path: Path, name: str) -> None:
    old(tmp_path / name)
    assert sweep(tmp_path) == [] and (tmp_path / name).exists()


def test_folders_links_and_what_is_being_written_stay(tmp_path: Path) -> None:
    (tmp_path / LEFT).mkdir()
    os.utime(tmp_path / LEFT, (OLD, OLD))
    target = old(tmp_path / "elsewhere")
    (tmp_path / ".link.json.0123456789ab.part").symlink_to(target)
    os.utime(tmp_path / ".link.json.0123456789ab.part", (OLD, OLD), follow_symlinks=False)
    (tmp_path / ".younger.json.0123456789ab.part").write_text("of a process at work")
    with replacing(tmp_path / "ours.json") as temporary:
        os.utime(temporary, (OLD, OLD))
        assert sweep(tmp_path) == [] and len(list(tmp_path.iterdir())) == 5
    assert sweep(tmp_path / "absent") == sweep(target) == []


def test_the_first_writing_in_a_folder_sweeps_it(tmp_path: Path) -> None:
    old(tmp_path / LEFT)
    write_text(tmp_path / "a.txt", "whole")
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


WRITER = """
import sys
from pathlib import Path
from llmga.files.writing import replacing, write_text
path, stop = Path(sys.argv[1]), sys.argv[2] == "half"
for i in range(10**9):
    if stop:
        with replacing(path) as temporary:
            temporary.write_text("half")
            print("half", flush=True)
            sys.stdin.read()
    write_text(path, str(i % 10) * 2_000_000)
    print("whole", flush=True)
"""


@pytest.mark.skipif(os.name == "nt", reason="SIGKILL")
def test_ten_kills_leave_whole_files_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "chat.json"
    rng = random.Random(0)
    left = 0
    for kill in range(10):
        mode = ("half", "random")[kill % 2]
        child = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(path), mode],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert child.stdout is not None
        child.stdout.readline()
        if mode == "random":
            time.sleep(rng.uniform(0, 0.05))
        child.send_signal(signal.SIGKILL)
        child.communicate()
        if path.exists():
            text = path.read_text()
            assert len(text) == 2_000_000 and len(set(text)) == 1
        left += len([name for name in os.listdir(tmp_path) if name != path.name])
    assert left >= 5 and path.exists()
    swept_by_another_process(tmp_path)
    assert os.listdir(tmp_path) == [path.name]


def test_a_full_disk_keeps_what_was_there_and_says_what_to_do(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 200_000) as disk:
        path = disk / "chat.json"
        write_text(path, "first")
        for writes in (
            lambda: write_bytes(path, bytes(400_000)),
            lambda: write_json(path, ["x" * 400_000]),
        ):
            with pytest.raises(OSError, match="the disk is full: make room there") as caught:
                writes()
            assert caught.value.errno == errno.ENOSPC and caught.value.filename == str(path)
        assert path.read_text() == "first" and os.listdir(disk) == ["chat.json"]
        write_text(path, "second")
        assert path.read_text() == "second"


def test_weights_on_a_full_disk_say_what_to_do(tmp_path: Path) -> None:
    """safetensors raises a class of its own, which is no ``OSError``."""
    import torch
    from safetensors.torch import save_file

    with small_disk(tmp_path / "disk", 200_000) as disk:
        path = disk / "a.safetensors"
        with (
            pytest.raises(OSError, match="the disk is full: make room there") as caught,
            replacing(path) as temporary,
        ):
            save_file({"x": torch.zeros(100_000)}, temporary)
        assert caught.value.errno == errno.ENOSPC and caught.value.filename == str(path)
        assert os.listdir(disk) == []


def test_a_read_only_disk_is_named(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 200_000, read_only=True) as disk:
        for path in (disk / "chat.json", disk / "new folder" / "chat.json"):
            with pytest.raises(OSError, match="the disk is read-only: make it writable"):
                write_text(path, "text")
        assert os.listdir(disk) == []


def test_a_limit_of_the_process_is_named(tmp_path: Path) -> None:
    """Without root: a file size limit stops the writing half way, as a full disk does."""
    path = tmp_path / "chat.json"
    write_text(path, "first")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, before[1]))
    try:
        with pytest.raises(OSError, match=r"larger than is allowed.*chat\.json"):
            write_bytes(path, bytes(50_000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert path.read_text() == "first" and os.listdir(tmp_path) == ["chat.json"]


def test_an_error_of_something_else_is_not_renamed(tmp_path: Path) -> None:
    other = PermissionError(errno.EACCES, "Permission denied", "/another/file")
    with pytest.raises(PermissionError) as caught, replacing(tmp_path / "a"):
        raise other
    assert caught.value is other
    with pytest.raises(ConnectionResetError), replacing(tmp_path / "a"):
        raise ConnectionResetError(errno.ECONNRESET, "reset")
    assert os.listdir(tmp_path) == []
    assert what_to_do(OSError("odd")) == "OSError"


def test_results_and_sheets_are_written_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    write_json(tmp_path / "new" / "results.json", {"a": 1})
    assert json.loads((tmp_path / "new" / "results.json").read_text()) == {"a": 1}
    pictures = [torch.rand(2, 3, 8, 8)]
    contact_sheet(pictures, tmp_path / "sheet.png")
    before = (tmp_path / "sheet.png").read_bytes()
    assert before.startswith(b"\x89PNG")

    def fails(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(writing, "put_in_place", fails)
    with pytest.raises(OSError, match="the disk fails"):
        contact_sheet([torch.rand(2, 3, 8, 8)], tmp_path / "sheet.png")
    assert (tmp_path / "sheet.png").read_bytes() == before and len(os.listdir(tmp_path)) == 2


def fill(folder: Path, names: str = "ab") -> None:
    (folder / "deep").mkdir()
    for name in names:
        write_text(folder / "deep" / name, name)


def test_a_folder_is_made_as_a_whole(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "empty")
    for name in ("new", "not there/new", "link"):
        with whole_folder(tmp_path / name) as folder:
            fill(folder)
            assert not (tmp_path / name / "deep").exists()
        assert sorted(os.listdir(tmp_path / name / "deep")) == ["a", "b"]
    assert sorted(os.listdir(tmp_path)) == ["empty", "link", "new", "not there"]


@pytest.mark.parametrize("there", [False, True])
def test_nothing_is_left_of_a_folder_that_was_stopped(tmp_path: Path, there: bool) -> None:
    path = tmp_path / "out"
    if there:
        path.mkdir()
    for error in (KeyboardInterrupt, ValueError, OSError):
        with pytest.raises(error), whole_folder(path) as folder:
            fill(folder)
            raise error
        assert os.listdir(tmp_path) == ["out"] * there and not (there and os.listdir(path))


def test_a_folder_that_holds_something_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").write_text("x")
    (tmp_path / "file").write_text("x")
    for name, reason in (("full", "is not empty"), ("file", "is a file")):
        with pytest.raises(FileExistsError, match=f"'{name}' {reason}"), whole_folder(tmp_path / name):
            pytest.fail("it must not begin")
    assert sorted(os.listdir(tmp_path)) == ["file", "full"] and os.listdir(tmp_path / "full") == ["mine"]
    with (
        pytest.raises(FileExistsError, match="'late' is not empty"),
        whole_folder(tmp_path / "late") as folder,
    ):
        fill(folder)
        (tmp_path / "late").mkdir()
        (tmp_path / "late" / "theirs").write_text("x")
    assert os.listdir(tmp_path / "late") == ["theirs"] and len(os.listdir(tmp_path)) == 3


FOLDER_WRITER = """
import sys
from pathlib import Path
from llmga.files.writing import whole_folder
with whole_folder(Path(sys.argv[1])) as folder:
    (folder / "half").write_text("half")
    print("half", flush=True)
    if sys.argv[2] == "stop":
        sys.stdin.read()
"""


@pytest.mark.skipif(os.name == "nt", reason="SIGKILL")
def test_what_a_killed_process_left_of_a_folder_goes_with_the_next(tmp_path: Path) -> None:
    path = tmp_path / "out"
    command = [sys.executable, "-c", FOLDER_WRITER, str(path)]
    child = subprocess.Popen(
        [*command, "stop"], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert child.stdout is not None and child.stdout.readline()
    subprocess.run([*command, "go on"], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    assert os.listdir(path) == ["half"]
    child.kill()
    child.communicate()
    (left,) = [
        name for name in os.listdir(tmp_path) if name != "out"
    ]  # it was at work, or newer than the next
    for place in (tmp_path / left / "half", tmp_path / left):
        os.utime(place, (OLD, OLD))
    (path / "half").unlink()
    other = tmp_path / ".outer.0123456789ab.part"
    other.mkdir()
    os.utime(other, (OLD, OLD))
    subprocess.run([*command, "go on"], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    assert sorted(os.listdir(tmp_path)) == [other.name, "out"]


def test_a_disk_that_refuses_a_folder_is_named(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 200_000) as disk:
        with (
            pytest.raises(ValueError, match="is where a disk begins.*name a new folder in it"),
            whole_folder(disk),
        ):
            pytest.fail("it must not begin")
        with pytest.raises(OSError, match="the disk is full: make room there") as caught:
            with whole_folder(disk / "out") as folder:
                write_bytes(folder / "a", bytes(100_000))
                write_bytes(folder / "b", bytes(200_000))
        assert caught.value.filename == str(disk / "out") and os.listdir(disk) == []
    with small_disk(tmp_path / "disk", 200_000, read_only=True) as disk:
        with pytest.raises(OSError, match="the disk is read-only"), whole_folder(disk / "out"):
            pytest.fail("it must not begin")
