"""Sharded weights: the index of a folder, which names the file of every tensor, and the files that it names."""

from __future__ import annotations

from pathlib import Path

from .contents import PICKLES, SAFE
from .json_files import read_object
from .kinds import AGAIN, shown

INDEX = ".index.json"
_LONGEST_NAME = 255  # characters, on every common file system


def listed_files(folder: Path, name: str) -> list[Path] | None:
    """The weight file ``name`` of a folder, else the files that ``name.index.json`` lists; None if there is neither.

    Raises:
        FileNotFoundError: a part that the index names is missing.
        ValueError: the index is damaged, or names something else than a file of this folder with the same ending.
    """
    if (folder / name).is_file():  # transformers prefers it to an index
        return [folder / name]
    index = folder / f"{name}{INDEX}"
    return parts_of(index, (Path(name).suffix,)) if index.is_file() else None


def parts_of(index: Path, endings: tuple[str, ...] = (*SAFE, *PICKLES)) -> list[Path]:
    """The files that an index names, sorted, all of which are there.

    Raises:
        FileNotFoundError: a part is missing.
        ValueError: the index is damaged, or names something else than a file of its folder with one of ``endings``.
    """
    weight_map = read_object(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise ValueError(f"{shown(index)} is an index without a 'weight_map'; {AGAIN}")
    parts = sorted({str(part) for part in weight_map.values()})
    for part in parts:
        if len(part) > _LONGEST_NAME:
            raise ValueError(
                f"{shown(index)} names {part[:60]!r}…, which is longer than any file's name; {AGAIN}"
            )
        if Path(part).name != part or "\\" in part or not part.endswith(endings):
            raise ValueError(
                f"{shown(index)} names {part!r}, which is not a {' or '.join(endings)} file of its folder"
            )
        if not (index.parent / part).is_file():
            raise FileNotFoundError(
                f"{index.parent.name}/{part} is missing, one of the {len(parts)} parts that {index.name} names; "
                "finish the download"
            )
    return [index.parent / part for part in parts]
