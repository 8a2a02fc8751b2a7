"""One registry says what a file is: the same kind and the same advice from every loader, in an order that is stated."""

from __future__ import annotations

import itertools
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from support.kinds_of_contents import CONTENTS
from support.kinds_of_weights import WEIGHTS
from support.weight_headers import write_json, write_sparse

from llmga.chat.checkpoints import read_checkpoint
from llmga.chat.folder_check import check_model_folder
from llmga.diffusion.unet_files import find_unet
from llmga.diffusion.unet_identity import UNETS
from llmga.files.contents import ACCIDENTS
from llmga.files.header import Weight, read_header
from llmga.files.kinds import Kind, Registry, WrongFileError
from llmga.files.known_kinds import (
    CHECKPOINT,
    DIFFRIR,
    KINDS,
    LANGUAGE_MODEL,
    UNKNOWN,
    VISION_LANGUAGE_MODEL,
    kind_of,
    plain_names,
)
from llmga.restore import load_restorer

LANGUAGE_MODELS = (LANGUAGE_MODEL, VISION_LANGUAGE_MODEL)
OFFICIAL = {"model_type": "llava_llama", "mm_vision_tower": "openai/clip-vit-large-patch14-336"}


def as_unet(path: Path) -> None:
    find_unet(path)


def as_diffrir(path: Path) -> None:
    _ = load_restorer(path).restorer


def as_language_model(path: Path) -> None:
    write_json(path.parent / "config.json", {"model_type": "llama"})
    check_model_folder(path.parent)


LOADERS = {
    # A loader looks further into the kinds that it takes; out of a checkpoint the UNet Loader takes UNets of SD1.5 and SDXL.
    "LLMGA UNet Loader": (as_unet, (*UNETS, CHECKPOINT)),
    "DiffRIR Loader": (as_diffrir, (DIFFRIR,)),
    "LLMGA Model Loader": (as_language_model, (*LANGUAGE_MODELS, UNKNOWN.name)),
}


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def answers(path: Path) -> dict[str, tuple[str, str]]:
    """The kind and the sentence of every loader that does not take the file itself."""
    found = {}
    for name, (load, own) in LOADERS.items():
        if name == "LLMGA Model Loader" and path.name != "model.safetensors":
            continue  # it opens no other file
        try:
            load(path)
        except WrongFileError as error:
            found[name] = (error.kind.name, str(error))
            assert error.kind.name not in own or error.kind.name == CHECKPOINT
        except (ValueError, OSError) as error:
            assert any(kind.name in own for kind in [kind_of(read_header(path))] if kind), f"{name}: {error}"
        else:
            kind = kind_of(read_header(path))
            assert (kind or UNKNOWN).name in own, f"{name} takes it"
    return found


def check_sentence(path: Path, expected: str, found: dict[str, tuple[str, str]]) -> None:
    assert {kind for kind, _ in found.values()} <= {expected}
    assert len({said for _, said in found.values()}) == 1, found
    said = next(iter(found.values()))[1]
    assert re.match(rf"{path.parent.name}/{path.name} is {re.escape(expected)}[;( ]", said)
    assert len(said.rpartition("; ")[2]) > 10  # advice


@pytest.mark.parametrize("what", WEIGHTS)
def test_every_loader_says_the_same_of_a_weight_file(tmp_path: Path, what: str) -> None:
    expected, shapes = WEIGHTS[what]
    path = write_sparse(tmp_path / "folder" / "model.safetensors", shapes)
    assert (kind_of(read_header(path)) or UNKNOWN).name == expected
    found = answers(path)
    assert len(found) >= 2  # at most one loader takes it
    check_sentence(path, expected, found)


@pytest.mark.parametrize("what", CONTENTS)
def test_every_loader_says_the_same_of_other_contents(tmp_path: Path, what: str) -> None:
    expected, content, ending = CONTENTS[what]
    path = tmp_path / "folder" / f"model.{ending}"
    path.parent.mkdir()
    path.write_bytes(content())
    found = answers(path)
    assert len(found) >= 2
    check_sentence(path, expected, found)
    assert not Path("ran").exists()


def test_a_checkpoint_of_another_base_is_a_checkpoint(tmp_path: Path) -> None:
    """The UNet Loader takes the UNet out of a checkpoint of SD1.5 alone."""
    for what in ("checkpoint of SD2", "checkpoint of Flux"):
        path = write_sparse(tmp_path / "model.safetensors", WEIGHTS[what][1])
        with pytest.raises(WrongFileError, match="a whole checkpoint; load it with Load Checkpoint"):
            find_unet(path)


def test_conversion_says_the_same(tmp_path: Path) -> None:
    path = write_sparse(tmp_path / "folder" / "model.safetensors", WEIGHTS["VAE (original)"][1])
    write_json(path.parent / "config.json", OFFICIAL)
    (path.parent / "tokenizer.model").write_bytes(b"")
    with pytest.raises(WrongFileError) as caught:
        read_checkpoint(path.parent)
    assert str(caught.value) == answers(path)["DiffRIR Loader"][1]


def test_a_file_of_the_working_folder_is_not_called_one_of_the_root(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("empty.pth").touch()
    with pytest.raises(WrongFileError, match=r"^empty\.pth is an empty file"):
        read_header(Path("empty.pth"))


def test_there_are_forty_kinds_and_more() -> None:
    assert len(WEIGHTS) + len(CONTENTS) >= 100
    assert len({kind for kind, *_ in (*WEIGHTS.values(), *CONTENTS.values())}) >= 60


def test_every_kind_is_reached() -> None:
    reached = {kind for kind, *_ in (*WEIGHTS.values(), *CONTENTS.values())}
    assert {kind.name for registry in (KINDS, ACCIDENTS) for kind in registry} - reached == set()


@pytest.mark.parametrize("what", WEIGHTS)
def test_overlaps_are_ordered(what: str) -> None:
    header = plain_names({name: Weight(shape, "F16") for name, shape in WEIGHTS[what][1].items()})
    first, *others = [kind.name for kind in KINDS.matching(header)] or [UNKNOWN.name]
    assert first == WEIGHTS[what][0]
    assert [other for other in others if not KINDS.comes_before(first, other)] == []


def test_accidents_do_not_overlap() -> None:
    heads = [content()[:512] for _, content, _ in CONTENTS.values()]
    assert all(len(ACCIDENTS.matching(head)) <= 1 for head in heads)


def kind(name: str, *before: str) -> Kind[str]:
    return Kind(name, lambda subject: name in subject, "choose another", before)


def test_a_registry_is_ordered_by_before_alone() -> None:
    kinds = [kind("a", "b"), kind("b", "c"), kind("c"), kind("d", "a")]
    for order in itertools.permutations(kinds):
        registry = Registry(order)
        assert registry.find("a b c") is not None and registry.find("cbad").name == "d"  # type: ignore[union-attr]
        assert [one.name for one in registry] == ["d", "a", "b", "c"]
        assert registry.comes_before("d", "c") and not registry.comes_before("c", "d")


@pytest.mark.parametrize(
    ("kinds", "words"),
    [
        ([kind("a", "b"), kind("b", "a")], "cycle"),
        ([kind("a", "a")], "cycle"),
        ([kind("a", "x")], "'x', which is not a kind"),
        ([kind("a"), kind("a")], "two kinds are called 'a'"),
    ],
)
def test_a_wrong_order_is_an_error(kinds: list[Kind[str]], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Registry(kinds)


def test_what_is_no_file_does_not_hang(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    (folder / "x.safetensors").mkdir(parents=True)
    (folder / "broken.safetensors").symlink_to(folder / "gone.safetensors")
    cases = {"x": (WrongFileError, "a folder or a device"), "broken": (FileNotFoundError, "a link to gone")}
    if hasattr(os, "mkfifo"):
        os.mkfifo(folder / "pipe.safetensors")
        cases["pipe"] = (WrongFileError, "a folder or a device")
    cases["none"] = (FileNotFoundError, "none.safetensors is missing")
    for name, (error, words) in cases.items():
        for load in (read_header, load_restorer):
            with pytest.raises(error, match=words):
                load(folder / f"{name}.safetensors")


PROGRAM = """
import sys
from pathlib import Path
import torch
from llmga.restore import load_restorer
def status(key):
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(key)) * 1024
load_restorer(sys.argv[2])  # what any load needs once
open("/proc/self/clear_refs", "w").write("5")
before = status("VmRSS")
net = load_restorer(sys.argv[1])
sys.stdout.write(str(status("VmHWM") - before))
"""


@pytest.mark.skipif(
    not Path("/proc/self/clear_refs").exists(), reason="peak memory is read from Linux's /proc"
)
@pytest.mark.parametrize("ending", ["pth", "safetensors"])
def test_reading_a_diffrir_takes_at_most_twice_the_file(tmp_path: Path, ending: str) -> None:
    from safetensors.torch import save_file

    from llmga.restore import Architecture, DiffRIRS2

    def save(name: str, dim: int) -> Path:
        net = DiffRIRS2(Architecture(dim=dim, num_blocks=(4, 4, 4, 4)))
        for value in net.parameters():
            torch.nn.init.constant_(value, 0.01)
        path = tmp_path / f"{name}.{ending}"
        if ending == "pth":
            torch.save({"params": net.state_dict()}, path)
        else:
            save_file({key: value.contiguous() for key, value in net.state_dict().items()}, path)
        return path

    large, small = save("large", 48), save("small", 8)
    root = Path(__file__).parents[2]
    grown = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(large), str(small)],
        env={**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    size = large.stat().st_size
    assert size > 50_000_000 and int(grown) < 2 * size + 8_000_000
