"""Language models that can be fetched on request: a short list, each pinned to one commit of its repository.

A commit fixes the content of every file. What a server announces for it (sizes, SHA-256 of the weights, git's SHA-1 of
small files) is compared with what arrives.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..downloads import OnBytes, Remote, Repository, fetch

FOLDER = "models/LLM"
_ENDINGS = (".safetensors", ".json", ".jinja", ".txt", ".model")
_CONFIG = "config.json"


@dataclass(frozen=True)
class PublishedModel:
    """A language model on the hub.

    Attributes:
        repository: ``owner/repository``.
        revision: the commit that is fetched.
        gigabytes: about; shown, never checked.
    """

    repository: str
    revision: str
    gigabytes: float

    def __str__(self) -> str:
        return f"{self.repository}, {self.gigabytes:g} GB"


PUBLISHED_MODELS = {
    "Qwen3-VL-2B-Instruct": PublishedModel(
        "Qwen/Qwen3-VL-2B-Instruct", "89644892e4d85e24eaac8bacfd4f463576704203", 4.3
    ),
    "Qwen2.5-VL-3B-Instruct": PublishedModel(
        "Qwen/Qwen2.5-VL-3B-Instruct", "66285546d2b821cf421d4f5eb2576359d3770cd3", 7.5
    ),
    "Qwen3-VL-4B-Instruct": PublishedModel(
        "Qwen/Qwen3-VL-4B-Instruct", "ebb281ec70b05090aa6165b016eac8ec08e71b17", 8.9
    ),
    "llava-1.5-7b-hf": PublishedModel(
        "llava-hf/llava-1.5-7b-hf", "b234b804b114d9e37bb655e11cbbb5f5e971b7a9", 14.1
    ),
}
"""A folder's name below ``models/LLM``, and what belongs into it; the smallest first."""


def download_language_model(name: str, folder: Path, on_bytes: OnBytes, hub: str = "") -> Path:
    """Fetch a published language model into ``folder / name``.

    ``config.json`` comes last, so that a folder that has one is whole.

    Args:
        name: a key of ``PUBLISHED_MODELS``.
        folder: for example ``models/LLM``.
        hub: the server; by default ``HF_ENDPOINT`` or Hugging Face.

    Raises:
        ValueError: the name is not published; and as ``llmga.downloads.fetch``.
        ConnectionError: as ``llmga.downloads.fetch``.
    """
    if name not in PUBLISHED_MODELS:
        raise ValueError(f"{name!r} is not published; known are {', '.join(PUBLISHED_MODELS)}")
    model = PUBLISHED_MODELS[name]
    repository = Repository(model.repository, folder_files, f"{FOLDER}/{name}", model.revision)
    return fetch(repository, folder / name, on_bytes, hub)


def folder_files(files: list[Remote]) -> list[Remote]:
    """Weights, tokenizer and settings of a folder in the transformers layout: no code, no pickle, ``config.json`` last.

    Raises:
        ValueError: the repository holds no such model.
    """
    wanted = [file for file in files if "/" not in file.path and file.path.endswith(_ENDINGS)]
    names = [file.path for file in wanted]
    if _CONFIG not in names or not any(name.endswith(".safetensors") for name in names):
        raise ValueError(
            f"the repository holds no {_CONFIG} with *.safetensors, only {[file.path for file in files][:8]}"
        )
    return sorted(wanted, key=lambda file: file.path == _CONFIG)
