"""What touches ComfyUI's internals: cancel, progress, folders, model memory, and the guard of every node."""

from __future__ import annotations

import functools
import hashlib
import inspect
import json
import logging
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import comfy.model_management
import comfy.utils
import folder_paths
import torch
from comfy_execution.progress import get_progress_state
from comfy_execution.utils import get_executing_context
from comfy_execution.validation import validate_node_input
from server import PromptServer

from ..llmga.files.writing import sweep
from ..llmga.gill.index_building import stays_inside

logger = logging.getLogger(__name__)

LANGUAGE_MODELS = "LLM"
RESTORERS = "diffrir"
GILLS = "gill"


def guarded(execute: Callable) -> Callable:
    """Keep a node from stopping the server, whatever it meets.

    ComfyUI survives ``Exception`` and its own interrupt only: any other ``BaseException`` (a library's ``SystemExit``, a
    cancelled task) leaves a server that answers and never runs again, and a ``ui`` value that is not JSON ends the
    process. The first becomes an ordinary error here, the second is found before the host sees it.

    An input that an API prompt leaves out has the default of the schema, which stands in one place only.
    """
    signature = inspect.signature(execute)
    takes_any = any(one.kind is one.VAR_KEYWORD for one in signature.parameters.values())

    @functools.wraps(execute)
    def run(cls, *args, **kwargs):
        given = signature.bind_partial(cls, *args, **kwargs).arguments
        left_out = [
            name
            for name, one in signature.parameters.items()
            if name not in given and one.default is one.empty and one.kind is one.POSITIONAL_OR_KEYWORD
        ]
        if takes_any:
            left_out += [name for name in cls.INPUT_TYPES().get("optional", {}) if name not in given]
            left_out = [name for name in left_out if name not in kwargs]
        if left_out:
            kwargs |= _defaults(cls, left_out)
        try:
            output = execute(cls, *args, **kwargs)
        except (Exception, comfy.model_management.InterruptProcessingException):
            raise
        except BaseException as error:
            raise RuntimeError(
                f"{cls.__name__} was stopped from inside by {type(error).__name__}: {error}"
            ) from error
        if output.ui is not None:
            json.dumps(output.ui, allow_nan=False)
        return output

    return run


def _defaults(node: Any, names: list[str]) -> dict[str, Any]:
    inputs = node.INPUT_TYPES().get("optional", {})
    return {name: inputs[name][1]["default"] for name in names if "default" in inputs.get(name, ("", {}))[1]}


def wrong_link(node: Any, links: Mapping[str, str]) -> str:
    """What is wrong with the type of a link, or ""; the host leaves that to a node that asks for ``input_types``."""
    inputs = node.INPUT_TYPES()
    known = {**inputs.get("required", {}), **inputs.get("optional", {})}
    for name, received in links.items():
        if name in known and not validate_node_input(received, known[name][0]):
            return (
                f"Return type mismatch between linked nodes: {name}, received_type({received}) mismatch "
                f"input_type({known[name][0]})"
            )
    return ""


def raise_if_cancelled() -> None:
    comfy.model_management.throw_exception_if_processing_interrupted()


def progress() -> Callable[[int, int], None]:
    """An ``on_step(i, n)`` for the running node: the host's progress bar, and the cancel point."""
    bar = comfy.utils.ProgressBar(1)

    def on_step(i: int, n: int) -> None:
        raise_if_cancelled()
        bar.update_absolute(i, n)

    return on_step


def announce_loading(patcher: Any = None, size: int = 0) -> None:
    """Tell the page that the running node loads a model, and how many bytes that is, unless it is loaded already.

    Args:
        patcher: the host's, which knows its size and how much of it is on the device.
        size: in bytes, where there is no patcher yet.
    """
    if patcher is not None:
        size = patcher.model_size()
        if patcher.loaded_size() >= size:
            return
    context = get_executing_context()
    server = getattr(PromptServer, "instance", None)
    client = getattr(server, "client_id", None)
    if server is None or client is None or context is None or size <= 0:
        return
    about = {"node": running_node(), "prompt_id": context.prompt_id, "gigabytes": round(size / 1e9, 2)}
    server.send_sync("llmga.loading", about, client)


def register_folders() -> None:
    """Make ``models/LLM``, ``models/diffrir`` and ``models/gill`` known; ``extra_model_paths.yaml`` may name more."""
    for kind in (LANGUAGE_MODELS, RESTORERS, GILLS):
        folder_paths.add_model_folder_path(kind, os.path.join(folder_paths.models_dir, kind))


def names_on_disk(read: Callable[[], Iterable[str]]) -> list[str]:
    """The names that a combo offers, where they are read from the disk while ComfyUI declares the nodes.

    An error there would take this node and all that come after it away, so it becomes a line in the log and an empty list;
    the same error says what is wrong when the node runs.
    """
    try:
        return list(read())
    except (
        OSError,
        ValueError,
        RuntimeError,
    ) as error:  # RuntimeError: pathlib's, for a loop of symbolic links
        logger.warning("LLMGA cannot list its choices: %s", error)
        return []


def model_files(kind: str, suffixes: tuple[str, ...]) -> dict[str, Path]:
    """The files of one of ComfyUI's model folders that are really there, by their names in it.

    ComfyUI also lists symbolic links that lead nowhere (a drive that is not mounted); they are left out.
    """
    found: dict[str, Path] = {}
    for name in folder_paths.get_filename_list(kind):
        full = folder_paths.get_full_path(kind, name) if name.endswith(suffixes) else None
        if full is not None:
            found[name] = Path(full)
    return found


def require_reachable(kind: str, input_name: str, name: Any) -> None:
    """Raise for a name that ComfyUI lists although its symbolic link leads nowhere.

    Raises:
        FileNotFoundError: it names the input, the file and what to do.
    """
    if not isinstance(name, str) or name not in folder_paths.get_filename_list(kind):
        return
    if folder_paths.get_full_path(kind, name) is None:
        raise FileNotFoundError(
            f"{input_name} {name!r} in models/{kind} is a symbolic link that leads nowhere; connect the drive that it "
            "points to, or choose another file"
        )


def state_of(path: Path) -> str:
    """Size and time of a file, or of those in a folder, as text for ``fingerprint_inputs``; it never raises."""
    try:
        if path.is_dir():
            return ",".join(f"{one.name}:{state_of(one)}" for one in sorted(path.iterdir()) if one.is_file())
        stat = path.stat()
    except OSError as error:
        return type(error).__name__
    return f"{stat.st_size}-{stat.st_mtime_ns}"


def state_of_choice(files: Mapping[str, Path], name: Any) -> str:
    """``state_of`` of the file that a widget names, for ``fingerprint_inputs``; it never raises.

    Where the name comes by a link ComfyUI gives None there, for what is linked is known when the node runs: the state of
    all of them stands for it, so that the node runs again when one of them changed and not otherwise.
    """
    if name is not None:
        path = files.get(name) if isinstance(name, str) else None
        return "missing" if path is None else state_of(path)
    states = (f"{name}:{state_of(path)}" for name, path in sorted(files.items()))
    return hashlib.sha256("|".join(states).encode("utf-8", "surrogateescape")).hexdigest()


def language_models() -> dict[str, Path]:
    """Every folder with a ``config.json``, at most two levels below ``models/LLM``, by its name there."""
    found: dict[str, Path] = {}
    for root in folder_paths.get_folder_paths(LANGUAGE_MODELS):
        for pattern in ("*/config.json", "*/*/config.json"):
            for config in sorted(Path(root).glob(pattern)):
                found.setdefault(config.parent.relative_to(root).as_posix(), config.parent)
    return found


def language_model_folder() -> Path:
    """Where new language models go."""
    return Path(folder_paths.get_folder_paths(LANGUAGE_MODELS)[0])


def clip_vision_files() -> list[Path]:
    """Every safetensors file in ``models/clip_vision``."""
    return list(model_files("clip_vision", (".safetensors",)).values())


def restorers() -> dict[str, Path]:
    """Every weight file in ``models/diffrir``, by its name there."""
    return model_files(RESTORERS, (".pth", ".safetensors"))


def embeddings_state() -> str:
    """Changes where a textual inversion is added, replaced or taken away."""
    files = (
        Path(folder, name)
        for root in folder_paths.get_folder_paths("embeddings")
        for folder, _, names in os.walk(root, followlinks=True)
        for name in names
    )
    found = sorted(f"{path}:{state_of(path)}" for path in files)
    return hashlib.sha256("|".join(found).encode("utf-8", "surrogateescape")).hexdigest()


def private_directory() -> Path:
    """The pack's folder below the user directory; ComfyUI serves nothing of it over HTTP."""
    return Path(folder_paths.get_system_user_directory("llmga"))


def sweep_folders() -> None:
    """Remove what a server that was killed in the middle of writing has left: parts of histories and of shown pictures."""
    folders = (private_directory() / "histories", Path(folder_paths.get_temp_directory()) / PICTURES)
    removed = [name for folder in folders for name in sweep(folder)]
    if removed:
        logger.info("LLMGA removed %d unfinished files of a run that was killed", len(removed))


def downloads_allowed() -> bool:
    """Whether the machine's owner allows nodes to download: by ``LLMGA_ALLOW_DOWNLOADS`` or a file that no node writes."""
    if os.environ.get("LLMGA_ALLOW_DOWNLOADS", "").upper() in ("1", "ON", "YES", "TRUE"):
        return True
    return (private_directory() / "allow_downloads").is_file()


PICTURES = "llmga"
"""The folder below ComfyUI's input and temp folders where the pictures of conversations are, as ``<sha256>.png``."""


def shown_picture(sha256: str) -> Path:
    """Where a picture stands that the page may show until ComfyUI ends; the page finds it by its hash."""
    return Path(folder_paths.get_temp_directory()) / PICTURES / f"{sha256}.png"


def kept_picture(sha256: str) -> Path:
    """Where the page has put a picture that a turn of a transcript names."""
    return Path(folder_paths.get_input_directory()) / PICTURES / f"{sha256}.png"


_LONGEST_NAME = 200  # characters of a folder's name in an error
FOLDERS = ("input", "output")
"""Where a workflow may name a folder of pictures."""


def folder_below(place: str, name: str) -> Path:
    """A folder below ComfyUI's input or output folder, "" for that itself.

    Raises:
        ValueError: it leads out of there.
        FileNotFoundError: it is not there.
    """
    if not stays_inside(name):
        raise ValueError(
            f"folder {name!r} lies outside of ComfyUI's {place} folder; put a folder, or a link to one, into it"
        )
    root = folder_paths.get_output_directory() if place == "output" else folder_paths.get_input_directory()
    found = Path(root) / name
    if not os.path.isdir(found):  # Path.is_dir raises for a name that no file can have
        raise FileNotFoundError(f"folder {name[:_LONGEST_NAME]!r} is not in ComfyUI's {place} folder")
    return found


def running_node() -> str:
    """The running node as the page knows it: "7", or "3:7" inside the subgraph node 3; "" when nothing runs.

    A copy that ComfyUI added while it runs (``host_repeat``) is the node that it was made from.
    """
    context = get_executing_context()
    return "" if context is None else str(get_progress_state().dynprompt.get_display_node_id(context.node_id))


def own_origins() -> frozenset[tuple[str, int]]:
    """Where this server listens: an endpoint must never lead back to it."""
    server = getattr(PromptServer, "instance", None)
    port = getattr(server, "port", None)
    return frozenset({("127.0.0.1", port), ("::1", port), ("localhost", port)}) if port else frozenset()


def language_model_dtype(device: torch.device | None = None) -> torch.dtype:
    """bfloat16 where the device computes in it, else float16 on a GPU and float32 on the CPU."""
    device = device or comfy.model_management.get_torch_device()
    if comfy.model_management.should_use_bf16(device):
        return torch.bfloat16
    return torch.float16 if comfy.model_management.should_use_fp16(device) else torch.float32
