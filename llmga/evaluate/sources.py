"""Evaluation sets as they are published: COCO captions, MagicBrush, pictures with LaMa's masks, VIST, VisDial.

Each reader takes the folder that a user has, reads the official annotation files, and gives items in a fixed order. Of
each picture the header is read here, so that a file that is none is said at the start. What has no words is left out and
counted. Nothing is downloaded.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..images import picture_size

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
_MASK = re.compile(r"(?P<name>.{1,250})_mask(?P<number>\d{0,9})")


class Items(list[Any]):
    """The items of a set, and in ``left_out`` a line for each reason why some of what its files name is not among them."""

    def __init__(self, items: Iterable[Any], left_out: Iterable[str] = ()) -> None:
        super().__init__(items)
        self.left_out = tuple(left_out)

    @classmethod
    def part(cls, of: Sequence[Any], items: Iterable[Any]) -> Items:
        """Some items of a set, which remember what was left out of it."""
        return cls(items, getattr(of, "left_out", ()))


def left_out(items: Sequence[Any]) -> dict[str, str]:
    """What a result's conditions say of a set of which something was left out; nothing for a whole one."""
    lines = getattr(items, "left_out", ())
    return {"left out": "; ".join(lines)} if lines else {}


@dataclass(frozen=True)
class CaptionItem:
    """A picture and a caption of it."""

    key: str
    caption: str
    picture: Path


@dataclass(frozen=True)
class FillItem:
    """A picture and the mask of a hole in it, white where it is to be filled."""

    key: str
    picture: Path
    mask: Path


@dataclass(frozen=True)
class EditItem:
    """One turn of a MagicBrush session."""

    key: str
    session: str
    turn: int
    """From 1."""
    instruction: str
    source: Path
    target: Path
    caption: str
    """What the target shows."""


@dataclass(frozen=True)
class StoryItem:
    """A VIST story of five captions and pictures; the last picture is to be made."""

    key: str
    captions: tuple[str, ...]
    pictures: tuple[Path, ...]


@dataclass(frozen=True)
class DialogItem:
    """A VisDial dialogue about a picture that is to be made."""

    key: str
    rounds: tuple[tuple[str, str], ...]
    """Questions and answers."""
    picture: Path


@dataclass(frozen=True)
class TurnsItem:
    """A conversation: what is asked for at each turn, and a caption and a picture of what is then expected."""

    key: str
    requests: tuple[str, ...]
    captions: tuple[str, ...]
    pictures: tuple[Path, ...]


def read_coco(folder: Path, annotations: str, images: str, count: int | None = None) -> Items:
    """COCO captions: the first caption of each picture that is not blank, pictures in the order of their ids.

    Args:
        annotations: the file in ``folder``, such as ``annotations/captions_val2014.json``.
        images: the folder in it, such as ``val2014``.
        count: takes so many pictures, evenly spread over the ids; None takes all.
    """
    path = folder / annotations
    document = _json(path)
    try:
        files = {image["id"]: image["file_name"] for image in document["images"]}
        captions: dict[int, tuple[int, str]] = {}
        for entry in document["annotations"]:
            first, caption = captions.get(entry["image_id"]), " ".join(entry["caption"].split())
            if caption and (first is None or entry["id"] < first[0]):
                captions[entry["image_id"]] = entry["id"], caption
        items = [
            CaptionItem(f"{number:012d}", captions[number][1], folder / images / files[number])
            for number in sorted(captions.keys() & files.keys())
        ]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"{path} is not an annotation file of COCO captions: {error!r}") from error
    lines = [
        *_counted(len(files.keys() - captions.keys()), "pictures without a caption"),
        *_counted(len(captions.keys() - files.keys()), "captioned pictures that 'images' does not list"),
    ]
    return _checked(evenly(items, count), path, lambda item: (item.picture,), lines)


def read_masked(folder: Path, count: int | None = None) -> Items:
    """Pictures with masks as LaMa's scripts write them: ``NAME.png`` beside ``NAME_mask000.png``, in any folder below.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: a mask has no picture, or two of its name.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} does not exist; put the pictures and their masks there")
    pictures: dict[Path, list[Path]] = {}
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in IMAGE_SUFFIXES and not _MASK.fullmatch(path.stem):
            pictures.setdefault(path.with_suffix(""), []).append(path)
    items = []
    used: set[Path] = set()
    for mask in sorted(folder.rglob("*_mask*")):
        if mask.suffix.lower() not in IMAGE_SUFFIXES or not (match := _MASK.fullmatch(mask.stem)):
            continue
        named = mask.parent / match["name"]
        if named not in pictures:
            others = ", ".join(IMAGE_SUFFIXES[1:])
            raise ValueError(
                f"{mask} is the mask of no picture: {match['name']}.png is missing beside it (or {others})"
            )
        picture, *others = pictures[named]
        if others:
            raise ValueError(
                f"{mask} is the mask of {picture.name} or of {others[0].name}; rename one of them"
            )
        used.add(named)
        key = mask.relative_to(folder).with_suffix("").as_posix().replace("/", "-")
        items.append(FillItem(key, picture, mask))
    lines = _counted(len(pictures.keys() - used), "pictures without a mask")
    return _checked(evenly(items, count), folder, lambda item: (item.picture, item.mask), lines)


def read_magicbrush(folder: Path, captions: str = "global_descriptions.json") -> Items:
    """MagicBrush's test set: every turn of every session in which none is blank.

    Args:
        folder: with ``edit_turns.json``, the descriptions and ``images/SESSION/``.
        captions: by session and file name what each target shows: the file of global or of local descriptions.

    Source: OSU-NLP-Group/MagicBrush, evaluation/image_eval.py and the test set's own files.
    """
    turns, described = _json(folder / "edit_turns.json"), _json(folder / captions)
    items = []
    try:
        for entry in turns:
            session, _, _ = entry["output"].partition("-")
            numbers = re.findall(r"\d{1,9}", entry["output"].partition("-")[2])
            target = folder / "images" / session / entry["output"]
            items.append(
                EditItem(
                    target.stem,
                    session,
                    int(numbers[0]) if numbers else 1,
                    entry["instruction"],
                    folder / "images" / session / entry["input"],
                    target,
                    described[session][entry["output"]],
                )
            )
        blank = {item.session for item in items if _blank(item.instruction, item.caption)}
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{folder} is not laid out as MagicBrush's test set: {error!r}") from error
    items = sorted(
        (item for item in items if item.session not in blank), key=lambda item: (item.session, item.turn)
    )
    lines = _counted(len(blank), "sessions with a turn that lacks an instruction or a description")
    return _checked(items, folder, lambda item: (item.source, item.target), lines)


def read_vist(folder: Path, annotations: str, images: str, count: int | None = None) -> Items:
    """VIST: stories of five pictures in sequence, those whose five pictures and sentences are all there.

    Args:
        annotations: in ``folder``, ``val.story-in-sequence.json`` as published, or the file that GILL's scripts make of it.
        images: the folder of pictures by their Flickr id.
    """
    path = folder / annotations
    document = _json(path)
    have: dict[str, Path] = {}
    same = short = incomplete = blank = 0
    for file in sorted((folder / images).glob("*")):
        if file.suffix.lower() in IMAGE_SUFFIXES:
            same += file.stem in have
            have[file.stem] = file
    items = []
    try:
        for story, lines in _stories(document).items():
            names = [name for name, _ in lines]
            if len(lines) != 5:
                short += 1
            elif not all(name in have for name in names):
                incomplete += 1
            elif _blank(*(text for _, text in lines)):
                blank += 1
            else:
                pictures = tuple(have[name] for name in names)
                items.append(StoryItem(f"{story}-{names[-1]}", tuple(text for _, text in lines), pictures))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"{path} is not an annotation file of VIST: {error!r}") from error
    left = [
        *_counted(incomplete, f"stories that lack a picture in {images}"),
        *_counted(short, "stories of other than five pictures"),
        *_counted(blank, "stories that lack a sentence"),
        *_counted(same, f"pictures in {images} beside another of the same name"),
    ]
    return _checked(evenly(items, count), path, lambda item: item.pictures, left)


def _stories(document: Any) -> dict[str, list[tuple[str, str]]]:
    """By story the ids of its pictures and its sentences, in order."""
    annotations = document["annotations"]
    if isinstance(annotations, dict):  # as GILL's scripts format them
        return {
            str(story): [(str(line["image_id"]), line["caption"]) for line in lines]
            for story, lines in annotations.items()
        }
    stories: dict[str, list[tuple[int, str, str]]] = {}
    for (line,) in annotations:
        order, picture = int(line["worker_arranged_photo_order"]), str(line["photo_flickr_id"])
        stories.setdefault(str(line["story_id"]), []).append((order, picture, line["original_text"]))
    return {
        story: [(picture, text) for _, picture, text in sorted(lines)] for story, lines in stories.items()
    }


def read_visdial(folder: Path, split: str = "val", count: int | None = None) -> Items:
    """VisDial 1.0: dialogues of ten rounds, of which none is blank.

    Args:
        folder: with ``visdial_1.0_SPLIT.json`` and ``VisualDialog_SPLIT2018/``.
    """
    path = folder / f"visdial_1.0_{split}.json"
    document = _json(path)
    images = folder / f"VisualDialog_{split}2018"
    items, blank = [], 0
    try:
        questions, answers = document["data"]["questions"], document["data"]["answers"]
        for dialog in document["data"]["dialogs"]:
            rounds = tuple((questions[r["question"]], answers[r["answer"]]) for r in dialog["dialog"])
            key = f"{dialog['image_id']:012d}"
            if _blank(*(text for pair in rounds for text in pair)):
                blank += 1
                continue
            items.append(DialogItem(key, rounds, images / f"VisualDialog_{split}2018_{key}.jpg"))
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"{path} is not an annotation file of VisDial: {error!r}") from error
    left = _counted(blank, "dialogues that lack a question or an answer")
    return _checked(evenly(items, count), path, lambda item: (item.picture,), left)


def evenly(items: list[Any], count: int | None) -> Items:
    """``count`` of the items at even distances, in their order; all where there are no more; and what was left out of them.

    Raises:
        ValueError: ``count`` is below 1.
    """
    if count is not None and count < 1:
        raise ValueError(f"'count' must be at least 1, got {count}")
    taken = len(items) if count is None else min(count, len(items))
    return Items.part(items, (items[i * len(items) // taken] for i in range(taken)))


def _json(path: Path) -> Any:
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist; put the data set there as it is published")
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except ValueError as error:
        raise ValueError(f"{path} is not valid JSON: {error}") from error


def whole_sessions(items: Sequence[EditItem], count: int | None) -> Items:
    """All turns of ``count`` of the sessions, evenly spread; and what was left out of them."""
    kept = set(evenly(list(dict.fromkeys(item.session for item in items)), count))
    return Items.part(items, (item for item in items if item.session in kept))


def _blank(*texts: str) -> bool:
    return not all(text.strip() for text in texts)


def _counted(count: int, what: str) -> list[str]:
    return [f"{count} {what}"] if count else []


def _checked(
    items: list[Any],
    where: Path,
    files: Callable[[Any], tuple[Path, ...]],
    left: Sequence[str] = (),
) -> Items:
    if not items:
        raise ValueError(f"{where} holds nothing to evaluate{': ' * bool(left)}{'; '.join(left)}")
    (key, times), *_ = Counter(item.key for item in items).most_common(1)
    if times > 1:
        raise ValueError(f"{where}: {key!r} stands there {times} times")
    missing = [str(path) for item in items for path in files(item) if not path.is_file()]
    if missing:
        raise FileNotFoundError(
            f"{missing[0]} does not exist, nor {len(missing) - 1} further pictures of {where}"
        )
    paths = dict.fromkeys(path for item in items for path in files(item))
    if broken := [reason for path in paths if (reason := _why_broken(path))]:
        raise ValueError(f"{broken[0]} ({len(broken)} of {len(paths)} pictures of {where} cannot be read)")
    return Items(items, left)


def _why_broken(path: Path) -> str:
    """Why a file's header is not that of a picture; empty if it is."""
    try:
        picture_size(path)
    except ValueError as error:
        return str(error)
    return ""
