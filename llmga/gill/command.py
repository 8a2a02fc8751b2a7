"""``llmga convert gill``: GILL's released files, or an index of embeddings, as safetensors."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="llmga convert gill",
        description="Write GILL's trained part (pretrained_ckpt.pth.tar), its decision model (decision_model.pth.tar) or "
        "its embeddings of pictures (cc3m*.npy, which is a pickle) as safetensors. Nothing in the files is run.",
    )
    parser.add_argument("source", type=Path, help="the published file")
    parser.add_argument(
        "out", type=Path, help="the safetensors file to write; for embeddings, the folder of an index"
    )
    options = parser.parse_args(arguments)
    try:
        sys.stdout.write(f"{options.out}: {convert_file(options.source, options.out)}\n")
    except (ValueError, OSError) as error:
        sys.stderr.write(f"llmga convert gill: {error}\n")
        return 2
    return 0


def convert_file(source: Path, out: Path) -> str:
    """Convert one published file; returns what it was, in words.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is none of GILL's files, or damaged.
        OSError: the result cannot be written.
    """
    from ..files.header import read_header
    from ..files.kinds import WrongFileError
    from ..files.known_kinds import GILL_DECISION, kind_of
    from .checkpoint import load_decision, load_parts, save_decision, save_parts
    from .released_index import is_bare_pickle, read_released_index

    if source.is_file() and is_bare_pickle(source):
        from .index import write_index

        paths, embeddings = read_released_index(source)
        write_index(out, paths, embeddings)
        return f"an index of {len(paths):,} pictures"
    if out.suffix.lower() not in (".safetensors", ".sft"):
        raise ValueError(f"the file to write must be called *.safetensors, got {out.name!r}")
    kind = kind_of(read_header(source))
    if kind is not None and kind.name == GILL_DECISION:
        save_decision(load_decision(source), out)
        return "the decision model"
    try:
        parts = load_parts(source, dtype=None)
    except WrongFileError as error:
        raise ValueError(
            f"{error}; `llmga convert gill` takes the files of kohjingyu/gill's checkpoints"
        ) from error
    save_parts(parts, out)
    return f"GILL with the head {parts.sizes.head}, {sum(p.numel() for p in parts.parameters()):,} numbers"
