"""Tasks and prompt styles that a person adds as Markdown files.

A task is what is asked of the language model. Its file has settings between two lines of three dashes, then one or more
ways to say it, with a line of three asterisks between them::

    ---
    expects: one
    picture: no
    words: yes
    language: en
    ---
    Design a film poster of the seventies from this idea: {instruction}

A style is how a prompt is written, for painters that read prose, tags or JSON. Its text takes the place of the paragraph of
the system prompt that says what a prompt looks like, and ``reminder`` is added to each request.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from .presets import LANGUAGES
from .tasks import TASKS, Task

MAX_FILE = 65_536
MAX_FILES = 200
EXPECTS = ("one", "several", "caption", "anything")
STYLE_FOLDER = Path(__file__).parent / "styles"
"""The styles that come with the library."""

_T = TypeVar("_T")
_MOST_LETTERS = 64
_FLAGS = {"yes": True, "true": True, "no": False, "false": False}
_EDGE = "---"
_BETWEEN = "***"


@dataclass(frozen=True)
class PromptStyle:
    """How a generation prompt is written.

    Args:
        name: the value of the 'style' input.
        text: what the system prompt says that a prompt looks like.
        reminder: one line that is added to each request; "" adds nothing.
    """

    name: str
    text: str
    reminder: str = ""


def read_tasks(folder: Path) -> tuple[dict[str, Task], tuple[str, ...]]:
    """The tasks of a folder's ``*.md`` files by name, and a sentence for each file that is skipped; never raises."""
    return _read_folder(folder, _task, TASKS)


def read_styles(folder: Path | None = None) -> tuple[dict[str, PromptStyle], tuple[str, ...]]:
    """The library's styles, then those of a folder, by name, and a sentence for each file that is skipped."""
    found, skipped = _read_folder(STYLE_FOLDER, _style, {})
    if folder is None:
        return found, skipped
    own, bad = _read_folder(folder, _style, found)
    return {**found, **own}, (*skipped, *bad)


def _read_folder(
    folder: Path, read: Callable[[str, Mapping[str, str], str], _T], taken: Mapping[str, Any]
) -> tuple[dict[str, _T], tuple[str, ...]]:
    found: dict[str, _T] = {}
    skipped: list[str] = []
    try:
        paths = sorted(
            path
            for path in folder.iterdir()
            if path.suffix.lower() == ".md" and not path.name.startswith(".")  # a Mac adds ._NAME to each
        )
    except FileNotFoundError:
        return {}, ()
    except OSError as error:
        return {}, (f"{folder.name} cannot be read: {error.strerror or error}",)
    for path in paths[:MAX_FILES]:
        # A file that came from a Mac may have the letters and the accents of its name apart.
        name = unicodedata.normalize("NFC", path.stem)
        try:
            if name in taken:
                raise ValueError(f"{name!r} is built in; give the file another name")
            if name in found:
                raise ValueError("another file has the same name; give it another one")
            if not _is_name(name):
                raise ValueError("its name must be 1 to 64 letters, digits, spaces, - and _")
            settings, body = _split(path)
            found[name] = read(name, settings, body)
        except (OSError, ValueError) as error:
            skipped.append(f"{folder.name}/{name}{path.suffix} is skipped: {_reason(error)}")
    if len(paths) > MAX_FILES:
        skipped.append(f"{folder.name} holds {len(paths)} files; only the first {MAX_FILES} are read")
    return found, tuple(skipped)


def _is_name(name: str) -> bool:
    """Whether a name is letters and digits of any script, with their vowel signs and accents, and spaces inside."""
    known = all(c in " -_" or c.isalnum() or unicodedata.category(c)[0] == "M" for c in name)
    return 0 < len(name) <= _MOST_LETTERS and known and not {name[0], name[-1]} & {" ", "-"}


def _reason(error: OSError | ValueError) -> str:
    if isinstance(error, UnicodeDecodeError):
        return "it is not UTF-8 text"
    return str(error.strerror or error) if isinstance(error, OSError) else str(error)


def _split(path: Path) -> tuple[dict[str, str], str]:
    """The settings at the top of a file, and the text below them."""
    if path.exists() and not path.is_file():  # reading a pipe would wait for ever
        raise ValueError("it is not a file")
    with path.open("rb") as file:
        data = file.read(MAX_FILE + 1)
    if len(data) > MAX_FILE:
        raise ValueError(f"it is larger than {MAX_FILE} bytes")
    lines = [line.rstrip() for line in data.decode("utf-8-sig").split("\n")]
    if lines[0] != _EDGE or _EDGE not in lines[1:]:
        raise ValueError("it must begin with settings between two lines '---'")
    end = lines.index(_EDGE, 1)
    settings: dict[str, str] = {}
    for line in filter(None, map(str.strip, lines[1:end])):
        name, colon, value = line.partition(":")
        if not colon:
            raise ValueError(f"the setting {line[:40]!r} has no ':'")
        settings[name.strip()] = value.strip().strip("\"'")
    body = "\n".join(lines[end + 1 :]).strip()
    if not body:
        raise ValueError("there is no text below its settings")
    return settings, body


def _task(name: str, settings: Mapping[str, str], body: str) -> Task:
    _check_names(settings, ("expects", "picture", "mask", "words", "language"))
    expects = _choice("expects", settings.get("expects", "one"), EXPECTS)
    language = settings.get("language", "")
    if language:
        _choice("language", language, LANGUAGES)
    parts: list[list[str]] = [[]]
    for line in body.split("\n"):
        if line == _BETWEEN:
            parts.append([])
        else:
            parts[-1].append(line)
    phrasings = tuple(filter(None, ("\n".join(lines).strip() for lines in parts)))
    words = _flag(settings, "words", any("{instruction}" in one for one in phrasings))
    lacking = next((one for one in phrasings if words and "{instruction}" not in one), None)
    if lacking is not None:
        raise ValueError(f"{{instruction}} must say where the person's words go in {lacking[:40]!r}")
    mask = _flag(settings, "mask", False)
    return Task(
        name,
        phrasings,
        expects=expects,  # type: ignore[arg-type] - _choice has checked it
        needs_instruction=words,
        needs_picture=_flag(settings, "picture", mask),
        needs_mask=mask,
        language=language,
    )


def _style(name: str, settings: Mapping[str, str], body: str) -> PromptStyle:
    _check_names(settings, ("reminder",))
    return PromptStyle(name, body, settings.get("reminder", ""))


def _check_names(settings: Mapping[str, str], known: tuple[str, ...]) -> None:
    for name in settings:
        if name not in known:
            raise ValueError(f"it has the setting {name[:40]!r}; known are {', '.join(known)}")


def _choice(name: str, value: str, allowed: tuple[str, ...]) -> str:
    if value not in allowed:
        raise ValueError(f"{name} must be one of {', '.join(allowed)}, got {value[:40]!r}")
    return value


def _flag(settings: Mapping[str, str], name: str, default: bool) -> bool:
    value = settings.get(name)
    if value is None:
        return default
    _choice(name, value.lower(), tuple(_FLAGS))
    return _FLAGS[value.lower()]
