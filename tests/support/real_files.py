"""Real files that packages of PyPI ship: a SentencePiece model and photographs. A test that has none says so and is skipped.

The packages are looked for and never imported: only their files are wanted.
"""

from __future__ import annotations

import json
import shutil
from importlib.util import find_spec
from pathlib import Path

import pytest


def package_file(package: str, distribution: str, *names: str) -> Path:
    """The first file of these names in an installed package; the test is skipped, with what to install, where it is not."""
    spec = find_spec(package)
    for root in spec.submodule_search_locations or () if spec else ():
        for name in names:
            if (path := Path(root) / name).is_file():
                return path
    pytest.skip(f"NOT RUN on a real file: {package}/{names[0]} is missing; pip install {distribution}")


def sentencepiece_model() -> Path:
    """Mistral 7B's first tokenizer, 32,000 pieces laid out as Llama 2's."""
    return package_file("mistral_common", "mistral-common", "data/tokenizer.model.v1")


def photograph(name: str) -> Path:
    """A photograph of scikit-image's own data, such as ``chelsea.png``."""
    return package_file("skimage", "scikit-image", f"data/{name}")


def write_sentencepiece_tokenizer(folder: Path) -> Path:
    """A tokenizer's folder as Vicuna's is published: ``tokenizer.model`` and its config; returns ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(sentencepiece_model(), folder / "tokenizer.model")
    settings = {
        "tokenizer_class": "LlamaTokenizer",
        "bos_token": "<s>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
        "add_bos_token": True,
        "add_eos_token": False,
        "legacy": True,
        "model_max_length": 2048,
        "padding_side": "right",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    return folder
