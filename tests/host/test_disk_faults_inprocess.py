"""No file in ComfyUI's folders takes a node away: all nodes are declared, and the node says what is wrong when it runs."""

from __future__ import annotations

import asyncio
import importlib
import os
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support import comfy_inprocess

pytestmark = pytest.mark.skipif(
    comfy_inprocess.skip_reason() is not None, reason=str(comfy_inprocess.skip_reason())
)


@pytest.fixture(scope="module")
def extension() -> Any:
    comfy_inprocess.start()
    return comfy_inprocess.pack("nodes").extension()


@pytest.fixture
def folders(extension: Any) -> Any:
    """ComfyUI's ``folder_paths`` with nothing cached of the folders that a test has changed."""
    module = importlib.import_module("folder_paths")
    module.filename_list_cache.clear()
    return module


@pytest.fixture
def private(folders: Any) -> Path:
    path: Path = comfy_inprocess.pack("nodes.host").private_directory()
    path.mkdir(parents=True, exist_ok=True)
    return path


def declared(extension: Any) -> list[str]:
    """The nodes that are there after ComfyUI's own loop over them, which one exception would end."""
    found = []
    for node in asyncio.run(extension.get_node_list()):
        node.SCHEMA = None
        found.append(node.GET_SCHEMA().node_id)
    return found


def dangling(path: Path) -> None:
    path.symlink_to(path.parent / "gone" / "model.safetensors")


def loop(path: Path) -> None:
    path.symlink_to(path)


def chain(path: Path) -> None:
    """A link to a link that leads nowhere."""
    between = path.with_name(f"{path.stem}-between")
    between.symlink_to(path.parent / "gone")
    path.symlink_to(between)


def folder(path: Path) -> None:
    path.mkdir()


def pipe(path: Path) -> None:
    os.mkfifo(path)


@pytest.fixture
def made() -> Iterator[list[Path]]:
    paths: list[Path] = []
    yield paths
    for path in paths:
        for found in {path, path.with_name(f"{path.stem}-between")}:
            if found.is_dir() and not found.is_symlink():
                found.rmdir()
            else:
                found.unlink(missing_ok=True)


needs_links = pytest.mark.skipif(os.name == "nt", reason="symbolic links and pipes need rights on Windows")


@needs_links
@pytest.mark.parametrize("make", [dangling, loop, chain, folder, pipe])
@pytest.mark.parametrize("kind", ["diffusion_models", "unet", "diffrir", "clip_vision", "LLM"])
def test_an_odd_entry_among_the_models_takes_no_node_away(
    extension: Any, folders: Any, made: list[Path], kind: str, make: Callable[[Path], None]
) -> None:
    place = Path(folders.models_dir) / kind
    place.mkdir(parents=True, exist_ok=True)
    everything = declared(extension)
    made.append(place / "old.safetensors")
    make(made[0])
    folders.filename_list_cache.clear()
    assert declared(extension) == everything and len(everything) == len(set(everything)) >= 20
    comfy_inprocess.pack("nodes.host").clip_vision_files()


@needs_links
@pytest.mark.parametrize(
    ("kind", "run"),
    [
        ("diffusion_models", ("unet_loader", "UNetLoader", ("old.safetensors", "auto", "default", False))),
        ("diffrir", ("restore", "DiffRIRLoader", ("old.safetensors", "float32"))),
    ],
)
def test_a_link_that_leads_nowhere_is_named_when_its_node_runs(
    folders: Any, made: list[Path], kind: str, run: tuple[str, str, tuple[Any, ...]]
) -> None:
    module, node, values = run
    place = Path(folders.models_dir) / kind
    place.mkdir(parents=True, exist_ok=True)
    made.append(place / "old.safetensors")
    dangling(made[0])
    folders.filename_list_cache.clear()
    with pytest.raises(
        FileNotFoundError, match=r"'old\.safetensors' in models/.* symbolic link that leads nowhere"
    ):
        getattr(comfy_inprocess.pack(f"nodes.{module}"), node).execute(*values)


@needs_links
@pytest.mark.parametrize("make", [folder, loop, pipe])
def test_whatever_endpoints_json_is_the_nodes_stay(
    extension: Any, private: Path, made: list[Path], make: Callable[[Path], None]
) -> None:
    everything = declared(extension)
    made.append(private / "endpoints.json")
    make(made[0])
    assert declared(extension) == everything
    node = comfy_inprocess.pack("nodes.loaders").Endpoint
    node.fingerprint_inputs("home")
    with pytest.raises(ValueError, match=r"endpoints\.json"):
        node.execute("home")


@pytest.mark.skipif(os.name == "nt" or os.geteuid() != 0, reason="another user can be tried by root alone")
def test_an_endpoints_json_of_another_user_is_named(private: Path, made: list[Path]) -> None:
    """The usual accident of containers: the file belongs to another user than ComfyUI's."""
    endpoints = comfy_inprocess.pack("llmga.chat.endpoints")
    made.append(private / "endpoints.json")
    made[0].write_text('{"endpoints": {}}', encoding="utf-8")
    made[0].chmod(0)
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.chdir(private)
            os.setuid(65534)
            endpoints.load_endpoints(Path("endpoints.json"))
        except ValueError as error:
            status = 0 if "cannot be read" in str(error) else 2
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@pytest.mark.parametrize(
    "content", ["", "[]", '{"endpoints": {"a": 3}}', '{"endpoints": {"a": {"url": "x"}}}', "\x00\xff"]
)
def test_a_damaged_endpoints_json_takes_no_node_away(
    extension: Any, private: Path, made: list[Path], content: str
) -> None:
    everything = declared(extension)
    made.append(private / "endpoints.json")
    made[0].write_text(content, encoding="latin-1")
    assert declared(extension) == everything


@pytest.mark.parametrize("name", ["my chat (1)", "мой чат", "会話", "Ünïcödé & co"])
def test_a_history_is_saved_and_loaded_under_a_name_of_any_script(private: Path, name: str) -> None:
    history = comfy_inprocess.pack("nodes.history")
    conversation = comfy_inprocess.pack("llmga.chat").Conversation().say("user", "a red fox")
    history.SaveHistory.execute(conversation, name)
    assert name in history.saved_names()
    assert history.LoadHistory.execute(name).args[0] == conversation
    assert history.LoadHistory.fingerprint_inputs(name) != "missing"


def test_a_history_that_a_mac_named_is_loaded(private: Path, made: list[Path]) -> None:
    """Its file system keeps the letters and the accents of a name apart."""
    history = comfy_inprocess.pack("nodes.history")
    conversation = comfy_inprocess.pack("llmga.chat").Conversation().say("user", "a red fox")
    made.append(private / "histories" / f"{unicodedata.normalize('NFD', 'Müller')}.json")
    made[0].parent.mkdir(exist_ok=True)
    made[0].write_text(conversation.to_json(), encoding="utf-8")
    assert "Müller" in history.saved_names()
    assert history.LoadHistory.execute("Müller").args[0] == conversation
    assert history.LoadHistory.fingerprint_inputs("Müller") != "missing"


@pytest.mark.parametrize(
    "name", ["fox ", ".fox", "a/b", "..", "%date:yyyy%", "nul.json", "a\u202eb", "x" * 65, "", 3]
)
def test_a_name_that_is_not_a_plain_one_is_refused_and_not_listed(private: Path, name: Any) -> None:
    history = comfy_inprocess.pack("nodes.history")
    conversation = comfy_inprocess.pack("llmga.chat").Conversation()
    with pytest.raises(ValueError, match="name must be a plain name"):
        history.SaveHistory.execute(conversation, name)


@needs_links
def test_odd_files_among_the_histories_are_not_offered(
    extension: Any, private: Path, made: list[Path]
) -> None:
    everything = declared(extension)
    place = private / "histories"
    place.mkdir(exist_ok=True)
    for make in (dangling, loop, folder, pipe):
        made.append(place / f"odd {make.__name__}.json")
        make(made[-1])
    history = comfy_inprocess.pack("nodes.history")
    assert not [name for name in history.saved_names() if name.startswith("odd")]
    assert declared(extension) == everything
    for value in (["a"], 3, {}):
        assert history.LoadHistory.fingerprint_inputs(value) == "missing"


@pytest.mark.parametrize("changed", ["language", "gill", "vision", "decision"])
def test_gill_is_loaded_again_when_one_of_its_files_has_changed(
    folders: Any, made: list[Path], changed: str
) -> None:
    def place(kind: str, name: str) -> Path:
        path = Path(folders.get_folder_paths(kind)[0]) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"{}")
        made.append(path)
        return path

    paths = {
        "language": place("LLM", "opt-fingerprint/config.json"),
        "gill": place("gill", "own-fingerprint.safetensors"),
        "decision": place("gill", "own-decision.safetensors"),
        "vision": place("clip_vision", "own-vision.safetensors"),
    }
    made.append(paths["language"].parent)
    names = {name: path.parent.name if name == "language" else path.name for name, path in paths.items()}
    folders.filename_list_cache.clear()
    fingerprint = comfy_inprocess.pack("nodes.gill").GILLLoader.fingerprint_inputs
    before = fingerprint(**names)
    assert before == fingerprint(**names)
    paths[changed].write_bytes(b"{ }")
    assert fingerprint(**names) != before
    assert isinstance(fingerprint([], {}), str)
