"""Configurations: frozen dataclasses, read strictly from YAML, with ``key=value`` overrides."""

from __future__ import annotations

import dataclasses
import difflib
import math
import types
import typing
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

from ..files.writing import write_text

_T = TypeVar("_T")
_PACKAGE = __name__.rpartition(".")[0]


def read_config(
    kind: type[_T], source: str | Path, overrides: Sequence[str] = (), package: str = _PACKAGE
) -> _T:
    """Read a configuration of the dataclass ``kind``.

    Args:
        source: a YAML file, or the name of a preset. Its key ``extends`` names the file (from this file's folder)
            or the preset whose values hold where this one says nothing.
        overrides: ``key=value``, the value as YAML, a nested key with dots: ``loop.steps=100``.
        package: the one whose folder ``presets`` holds the presets.

    Raises:
        FileNotFoundError: ``source`` is neither a file nor a preset.
        ValueError: a key is unknown, missing or said twice, a value does not fit, or the text is not YAML in UTF-8; the
            message names the key, or the file or override.
    """
    values = _load(Path(source), set(), package)
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals:
            raise ValueError(f"an override must be key=value, got {override!r}")
        target = values
        *parents, last = key.split(".")
        for parent in parents:
            target = target.setdefault(parent, {})
            if not isinstance(target, dict):
                raise ValueError(f"{key}: {parent} is a value and has no keys of its own")
        target[last] = _parse_yaml(text, f"the override {override!r}")
    return build(kind, values)


def build(kind: type[_T], values: Mapping[str, Any], where: str = "", defaults: _T | None = None) -> _T:
    """An instance of the dataclass ``kind`` from plain values, nested dataclasses from nested mappings.

    Args:
        where: put before a key in messages.
        defaults: gives the values that are not said, instead of the class: a field's own default may differ from those
            of its class.

    Raises:
        ValueError: see ``read_config``.
    """
    hints = typing.get_type_hints(kind)
    fields = {field.name: field for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    for key in values:
        if key not in fields:
            near = difflib.get_close_matches(str(key), fields, n=1)
            hint = f"did you mean {where}{near[0]}?" if near else f"known are {', '.join(fields)}"
            raise ValueError(f"{where}{key} is not a key of this configuration; {hint}")
    for name, field in fields.items():
        required = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        if required and name not in values and defaults is None:
            raise ValueError(f"{where}{name} is missing")
    converted = {}
    for key, value in values.items():
        default = fields[key].default if defaults is None else getattr(defaults, key)
        converted[key] = _convert(value, hints[key], where + key, default)
    return kind(**converted) if defaults is None else dataclasses.replace(defaults, **converted)  # type: ignore[type-var]


def write_config(config: Any, path: Path) -> None:
    """Write a configuration as the YAML that ``read_config`` reads back to an equal one."""
    import yaml

    write_text(path, yaml.safe_dump(_plain(config), sort_keys=False, allow_unicode=True))


def check_samples(config: Any) -> None:
    """Check a stage's counts for its samples.

    Raises:
        ValueError: ``samples`` or ``sample_steps`` is below 1.
    """
    for name in ("samples", "sample_steps"):
        if (count := getattr(config, name, 1)) < 1:
            raise ValueError(f"{name} must be at least 1, got {count}; loop.sample_every=0 draws no samples")


def presets(package: str = _PACKAGE) -> list[str]:
    """The names of the configurations that ship with a package."""
    folder = files(package).joinpath("presets")
    return sorted(item.name.removesuffix(".yaml") for item in folder.iterdir() if item.name.endswith(".yaml"))


def _load(source: Path, seen: set[str], package: str) -> dict[str, Any]:
    if str(source) in seen:
        raise ValueError(f"{source} extends itself")
    if source.is_file():
        try:
            text = source.read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise ValueError(f"{source} is not text in UTF-8 ({error}); save it as UTF-8") from error
    elif str(source) in presets(package):
        text = files(package).joinpath("presets").joinpath(f"{source}.yaml").read_text(encoding="utf-8")
    else:
        raise FileNotFoundError(
            f"{source} is neither a file nor a preset; the presets are {', '.join(presets(package))}"
        )
    values = _parse_yaml(text, str(source)) or {}
    if not isinstance(values, dict):
        raise ValueError(f"{source} must hold keys and values, got {type(values).__name__}")
    if (parent := values.pop("extends", None)) is None:
        return values
    beside = source.parent / str(parent)
    below = _load(beside if beside.is_file() else Path(str(parent)), seen | {str(source)}, package)
    return _merged(below, values)


def _parse_yaml(text: str, what: str) -> Any:
    """The plain values of a YAML text, in which no mapping may say a key twice."""
    import yaml

    class StrictLoader(yaml.SafeLoader):
        def compose_mapping_node(self, anchor: Any) -> Any:
            node = super().compose_mapping_node(anchor)
            keys = [key for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
            first: dict[str, Any] = {}
            for key in keys:
                if (before := first.setdefault(key.value, key)) is not key:
                    lines = f"lines {before.start_mark.line + 1} and {key.start_mark.line + 1}"
                    raise ValueError(f"the key {key.value} is said twice, in {lines}; keep one")
            return node

    try:
        return yaml.load(text, StrictLoader)  # noqa: S506 # a SafeLoader
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ValueError(f"{what} is not valid YAML: {error}") from error


def _merged(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    out = dict(below)
    for key, value in above.items():
        nested = isinstance(value, dict) and isinstance(out.get(key), dict)
        out[key] = _merged(out[key], value) if nested else value
    return out


def _convert(value: Any, hint: Any, where: str, default: Any = None) -> Any:
    origin, args = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):  # only X | None
        inner = next(a for a in args if a is not type(None))
        return None if value is None else _convert(value, inner, where, default)
    if isinstance(hint, type) and dataclasses.is_dataclass(hint) and isinstance(value, Mapping):
        return build(hint, value, f"{where}.", default if isinstance(default, hint) else None)
    if origin is Literal:
        # YAML 1.1 reads a bare no as False
        value = "no" if value is False and "no" in args else value
        if value in args:
            return value
        raise ValueError(f"{where} must be one of {', '.join(map(str, args))}; got {value!r}")
    if origin is tuple and isinstance(value, (list, tuple)):
        if args[-1] is not Ellipsis and len(value) != len(args):
            raise ValueError(f"{where} must hold {len(args)} values, got {value!r}")
        return tuple(_convert(item, args[0], f"{where}[{i}]") for i, item in enumerate(value))
    if hint is float and isinstance(value, (int, float, str)) and not isinstance(value, bool):
        try:
            number = float(value)  # YAML 1.1 reads 1e-5 as text
        except (ValueError, OverflowError):
            number = None
        if number is not None and not math.isfinite(number):
            raise ValueError(f"{where} must be a finite number, got {value!r}")
        if number is not None:
            return number
    if hint is Path and isinstance(value, (str, Path)):
        return Path(value)
    if hint in (int, str, bool) and type(value) is hint:
        return value
    raise ValueError(f"{where} must be {getattr(hint, '__name__', hint)}, got {value!r}")


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value
