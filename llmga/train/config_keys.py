"""The keys of a configuration as text: name, type, default and meaning, read off its dataclasses."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import json
import textwrap
import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple, Union, get_args, get_origin


class ConfigKey(NamedTuple):
    """One key that ``read_config`` takes."""

    name: str
    """Dotted, as an override spells it; ``[]`` stands for an index into a list."""
    type: str
    default: str
    """As YAML; "" where a value must be given."""
    meaning: str
    """The docstring below the field, on one line; "" where there is none."""


def config_keys(kind: type, default: Any = None, prefix: str = "") -> Iterator[ConfigKey]:
    """All keys of the dataclass ``kind``, nested ones behind the one that holds them.

    Args:
        default: an instance whose values are the defaults, instead of those of the class.
    """
    hints, meanings = typing.get_type_hints(kind), _field_docstrings(kind)
    for field in dataclasses.fields(kind):
        hint = hints[field.name]
        value = getattr(default, field.name) if default is not None else _default(field)
        nested = _dataclass_in(hint)
        if nested is None or not dataclasses.is_dataclass(value):
            shown = "" if value is dataclasses.MISSING else _yaml(value)
            yield ConfigKey(prefix + field.name, _type_name(hint), shown, meanings.get(field.name, ""))
        if nested is not None:
            inside = value if dataclasses.is_dataclass(value) else None
            mark = "[]." if get_origin(hint) is tuple else "."
            yield from config_keys(nested, inside, f"{prefix}{field.name}{mark}")


def describe_keys(kind: type) -> str:
    """The keys of a configuration, a line each and its meaning below it."""
    lines = ["keys of the configuration, each also an override (key=value):"]
    for key in config_keys(kind):
        default = f"  (default: {key.default})" if key.default else "  (needed)"
        lines.append(f"  {key.name}: {key.type}{default}")
        if key.meaning:
            lines += textwrap.wrap(key.meaning, 100, initial_indent=" " * 6, subsequent_indent=" " * 6)
    return "\n".join(lines) + "\n"


def _default(field: dataclasses.Field[Any]) -> Any:
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return field.default


def _dataclass_in(hint: Any) -> type | None:
    """The dataclass of a hint ``X``, ``X | None`` or ``tuple[X, ...]``."""
    candidates = (hint, *get_args(hint)) if get_origin(hint) is not Literal else ()
    return next((one for one in candidates if isinstance(one, type) and dataclasses.is_dataclass(one)), None)


def _type_name(hint: Any) -> str:
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        names = [_type_name(one) for one in arguments if one is not type(None)]
        return " | ".join([*names, "null"])
    if origin is Literal:
        return " | ".join(map(str, arguments))
    if origin is tuple:
        return "[" + ", ".join("..." if one is Ellipsis else _type_name(one) for one in arguments) + "]"
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        return "mapping"
    return "path" if hint is Path else getattr(hint, "__name__", str(hint))


def _yaml(value: Any) -> str:
    """A default as one line of YAML, which JSON is a part of."""
    return str(value) if isinstance(value, str) and value else json.dumps(value, default=str)


def _field_docstrings(kind: type) -> dict[str, str]:
    """The string below each field of a dataclass and of those that it extends."""
    found: dict[str, str] = {}
    for base in reversed(kind.__mro__):
        if not dataclasses.is_dataclass(base):
            continue
        (tree,) = ast.parse(textwrap.dedent(inspect.getsource(base))).body
        body = getattr(tree, "body", [])
        for field, below in zip(body, body[1:], strict=False):
            if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
                found.pop(field.target.id, None)
                if isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant):
                    found[field.target.id] = " ".join(str(below.value.value).split())
    return found
