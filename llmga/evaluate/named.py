"""Functions of somebody's own that a configuration names as ``package.module:function``."""

from __future__ import annotations

from importlib import import_module
from typing import Any


def named_function(name: str, where: str) -> Any:
    """The function of ``package.module:function``.

    Raises:
        ValueError: the name is not of that form, or there is no such module or function.
    """
    module, colon, function = name.partition(":")
    if not colon:
        raise ValueError(f"{where}: {name!r} is not known, and is not a package.module:function either")
    try:
        return getattr(import_module(module), function)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise  # a package that the module itself needs
        raise ValueError(
            f"{where}: there is no module {error.name!r}; name one of the folder that the command runs in, or of PYTHONPATH"
        ) from error
    except AttributeError as error:
        raise ValueError(f"{where}: the module {module} has no {function}") from error
