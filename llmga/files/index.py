"""Weights in several files: the index that names them, checked against the folder."""

from __future__ import annotations

from pathlib import Path

from .header import damaged
from .json_files import read_object


def listed_files(folder: Path, whole: str) -> list[Path] | None:
    """The weight file of that name, else those that its index names; None if there is neither.

    Raises:
        FileNotFoundError: a part that the index names is missing.
        ValueError: the index is damaged or names something that is no such file of this folder.
    """
    if (folder / whole).is_file():  # transformers prefers it to an index
        return [folder / whole]
    index = f"{whole}.index.json"
    if not (folder / index).is_file():
        return None
    weight_map = read_object(folder / index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise ValueError(damaged(folder / index, "an index without a 'weight_map'; download it again"))
    parts = sorted({str(part) for part in weight_map.values()})
    suffix = Path(whole).suffix
    for part in parts:
        if Path(part).name != part or "\\" in part or not part.endswith(suffix):
            kind = "safetensors" if suffix == ".safetensors" else suffix
            raise ValueError(f"{folder.name}/{index} names {part!r}, which is no {kind} file of this folder")
        if not (folder / part).is_file():
            raise FileNotFoundError(
                f"{folder.name}/{part} is missing, one of the {len(parts)} parts that {index} names; "
                "finish the download"
            )
    return [folder / part for part in parts]
