"""Building of an index over a folder of pictures: resumable, incremental, one bad picture never loses the others."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath

import torch
from PIL import Image

from ..images import read_picture
from .index import (
    INDEX_FILE,
    ROWS_PER_PART,
    Entry,
    PictureIndex,
    part_files,
    read_head,
    write_head,
    write_part,
)
from .model import GILL
from .vision import FrozenVision

INDEXED_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".gif")
MAX_INDEXED = 1_000_000

_SAME = 0.98
"""Cosine above which two embeddings of the probe come from one vision encoder; its precision changes far less."""
_UNKNOWN_ENCODER = (
    "the index does not say with which vision encoder it was made; if with another one, choose another 'name'"
)

OnPicture = Callable[[int, int], object]
"""``on_picture(done, of)``; whatever it raises ends the build, and what is done stays."""


@dataclass(frozen=True)
class BuildReport:
    """What a build did.

    Args:
        added: pictures that were read.
        unchanged: pictures that were in the index already and have not changed.
        removed: rows whose picture is gone or has changed.
        unreadable: path and reason of pictures that were left out.
        remark: what the index does not say of how it was made; "" where it says all.
    """

    added: int
    unchanged: int
    removed: int
    unreadable: tuple[tuple[str, str], ...]
    remark: str = ""

    def __str__(self) -> str:
        words = f"{self.added:,} pictures added, {self.unchanged:,} unchanged, {self.removed:,} gone"
        words += f"; {self.remark}" if self.remark else ""
        if not self.unreadable:
            return words
        named = "; ".join(f"{path}: {reason}" for path, reason in self.unreadable[:5])
        more = f"; and {len(self.unreadable) - 5:,} more" if len(self.unreadable) > 5 else ""
        return f"{words}, {len(self.unreadable):,} could not be read ({named}{more})"


def build_index(
    folder: Path, pictures: Path, gill: GILL, on_picture: OnPicture = lambda done, of: None, batch: int = 16
) -> BuildReport:
    """Bring the index in ``folder`` up to date with all pictures below ``pictures``.

    A picture is known by its path, size and time of change; one that changed is read again. Links to folders are not
    followed. After a stop the next call goes on: at most ``ROWS_PER_PART`` pictures are read twice.

    Args:
        folder: of the index; made if need be.
        gill: its vision encoder and retrieval layer make the embeddings.
        batch: pictures in one pass of the vision encoder.

    Raises:
        FileNotFoundError: there is no folder ``pictures``.
        ValueError: it holds no or too many pictures, or the index was built with another GILL.
    """
    if not pictures.is_dir():
        raise FileNotFoundError(f"there is no folder {pictures.name!r}")
    if gill.vision is None:
        raise ValueError(
            "'gill' has no vision encoder, so it cannot see pictures; choose one in 'vision' of LLMGA GILL Loader"
        )
    model = gill.parts.embedding_key()
    wanted = list(list_pictures(pictures, folder))
    if not wanted or len(wanted) > MAX_INDEXED:
        raise ValueError(
            f"{pictures.name!r} holds {len(wanted):,} pictures ({', '.join(INDEXED_SUFFIXES)}); 1 to {MAX_INDEXED:,} can be "
            "indexed; choose another 'folder'"
        )
    gill.place()
    probe = _embedding_of_probe(gill, gill.vision)
    known, remark = _known_rows(folder, model, probe)
    there = set(wanted)
    gone = {row for row, entry in enumerate(known) if entry not in there}
    have = {entry for row, entry in enumerate(known) if row not in gone}
    new = [entry for entry in wanted if entry not in have]
    write_head(folder, model, len(probe), sorted(gone), probe.tolist())
    unreadable: list[tuple[str, str]] = []
    number = len(part_files(folder))
    done, entries, rows = 0, [], []
    for start in range(0, len(new), batch):
        group = new[start : start + batch]
        on_picture(start, len(new))
        for entry, row in _embedded(gill, gill.vision, pictures, group, unreadable):
            entries.append(entry)
            rows.append(row)
        if len(entries) >= ROWS_PER_PART or (start + batch >= len(new) and entries):
            write_part(folder, number, entries, torch.stack(rows))
            done, number, entries, rows = done + len(entries), number + 1, [], []
    on_picture(len(new), len(new))
    return BuildReport(done, len(have), len(gone), tuple(unreadable), remark)


def list_pictures(folder: Path, without: Path | None = None) -> Iterator[Entry]:
    """The picture files below a folder in the order of their paths, hidden ones and those below ``without`` left out."""
    skipped = None if without is None else without.resolve()
    for root, folders, names in os.walk(folder):
        folders[:] = sorted(
            name for name in folders if not name.startswith(".") and (Path(root) / name).resolve() != skipped
        )
        for name in sorted(names):
            path = Path(root) / name
            if name.startswith(".") or path.suffix.lower() not in INDEXED_SUFFIXES or not path.is_file():
                continue
            found = path.stat()
            yield path.relative_to(folder).as_posix(), found.st_size, found.st_mtime_ns


def picture_file(pictures: Path, path: str) -> Path:
    """The file of a picture that an index names.

    Raises:
        ValueError: the name leads out of the folder, or to the web; nothing is downloaded.
        FileNotFoundError: the file is gone.
    """
    if "://" in path:
        raise ValueError(
            f"the index names a picture on the web ({path[:200]}), and LLMGA downloads none; save it yourself"
        )
    if not stays_inside(path):
        raise ValueError(
            f"the index names {path[:200]!r}, which lies outside of the folder {pictures.name!r}"
        )
    found = pictures / path
    if not found.is_file():
        raise FileNotFoundError(f"{path[:200]!r} is not in {pictures.name!r} any more; build the index again")
    return found


def stays_inside(path: str) -> bool:
    """Whether a relative path stays below its folder by its words; a link that the owner put there may lead anywhere."""
    windows = PureWindowsPath(path)
    return not (windows.drive or windows.root or PurePosixPath(path).is_absolute() or ".." in windows.parts)


def _known_rows(folder: Path, model: str, probe: torch.Tensor) -> tuple[list[Entry], str]:
    """The entries of an index that is there already, ("", 0, 0) for rows that are gone; and what it does not say."""
    if not (folder / INDEX_FILE).exists():
        return [], ""
    head = read_head(folder)
    fits = head["model"] == model and head["width"] == len(probe)
    if fits and "probe" in head:
        before = torch.tensor(head["probe"], dtype=torch.float32)
        fits = bool(torch.cosine_similarity(before, probe, 0) > _SAME)
    if not fits:
        raise ValueError(
            f"the index in {folder.name!r} was built with another GILL or another vision encoder; choose another 'name'"
        )
    remark = "" if "probe" in head else _UNKNOWN_ENCODER
    index = PictureIndex.open(folder)
    return [("", 0, 0) if row in index.gone else entry for row, entry in enumerate(index.entries)], remark


def _embedding_of_probe(gill: GILL, vision: FrozenVision) -> torch.Tensor:
    """The embedding (width,) of a drawn picture, by which two vision encoders of one width are told apart."""
    ramp, ring = Image.linear_gradient("L"), Image.radial_gradient("L")
    picture = Image.merge("RGB", (ramp, ring, ramp.rotate(90)))
    with torch.no_grad():
        pooled = vision.pooled(vision.pixels(picture)[None]).to(gill.parts.visual_fc.weight)
        return gill.parts.picture_embedding(pooled)[0].float().cpu()


def _embedded(
    gill: GILL, vision: FrozenVision, pictures: Path, group: list[Entry], unreadable: list[tuple[str, str]]
) -> Iterator[tuple[Entry, torch.Tensor]]:
    read: list[Entry] = []
    pixels: list[torch.Tensor] = []
    for entry in group:
        try:
            pixels.append(vision.pixels(read_picture(pictures / entry[0], "white")))
            read.append(entry)
        except (ValueError, OSError) as error:
            unreadable.append((entry[0], str(error).replace(f"{pictures}{os.sep}", "")[:200]))
    if read:
        with torch.no_grad():
            pooled = vision.pooled(torch.stack(pixels)).to(gill.parts.visual_fc.weight)
            yield from zip(read, gill.parts.picture_embedding(pooled).float().cpu(), strict=True)
