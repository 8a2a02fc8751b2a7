"""The command line: ``llmga VERB …``, or ``python -m llmga VERB …``.

Exit codes: 0 done, 1 a package is missing or the work failed, 2 the arguments cannot be used, 130 stopped by Ctrl-C.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import NamedTuple

from . import __version__


class Verb(NamedTuple):
    """A part of the command line; its module has ``main(arguments) -> exit code``."""

    module: str
    help: str


VERBS = {
    "convert": Verb(
        ".convert_command",
        "write an official LLMGA checkpoint as a transformers folder, or GILL's files as safetensors",
    ),
    "join": Verb(
        ".chat.checkpoints.join_command", "join a language model with a CLIP vision tower, to train it"
    ),
    "caption": Verb(".chat.caption_command", "write a caption beside each picture of a folder"),
    "train": Verb(".train.command", "train LLMGA's networks, or plot a training log"),
    "evaluate": Verb(".evaluate.command", "measure the paper's tables"),
    "data": Verb(".data.building", "build a data set with an OpenAI-compatible vision model"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a verb.

    Args:
        arguments: those of the process by default.

    Returns:
        The exit code.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    if isinstance(
        sys.stdout, io.TextIOWrapper
    ):  # a file's name may have letters that a pipe or a console lacks
        sys.stdout.reconfigure(errors="backslashreplace")
    if "--version" in arguments:
        sys.stdout.write(f"llmga {__version__}\n")
        return 0
    if arguments[:1] in (["-h"], ["--help"]):
        sys.stdout.write(usage())
        return 0
    if not arguments or arguments[0] not in VERBS:
        problem = f"{arguments[0]!r} is not a verb" if arguments else "a verb is missing"
        sys.stderr.write(f"{usage()}\nllmga: {problem}\n")
        return 2
    return run(arguments[0], arguments[1:])


def run(verb: str, arguments: Sequence[str]) -> int:
    try:
        return import_module(VERBS[verb].module, __package__).main(arguments)
    except KeyboardInterrupt:
        sys.stderr.write(f"\nllmga {verb} was stopped\n")
        return 130
    except ModuleNotFoundError as error:
        if error.name == f"{__package__}{VERBS[verb].module}".rpartition(".")[0]:
            sys.stderr.write(
                f"llmga {verb} is not part of this installation: clone the repository, or install the wheel\n"
            )
            return 1
        if error.name is None or error.name.startswith(str(__package__)):
            raise
        extra = {"train": "[train]", "evaluate": "[train,evaluate]"}.get(verb, "")
        sys.stderr.write(
            f"llmga {verb} needs {error.name}, which is not installed: pip install torch -e '.{extra}' in a clone\n"
        )
        return 1


def usage() -> str:
    lines = ["usage: llmga [--help] [--version] VERB …", "", "verbs (llmga VERB --help says more):"]
    return "\n".join([*lines, *(f"  {name:<10} {verb.help}" for name, verb in VERBS.items()), ""])


if __name__ == "__main__":
    sys.exit(main())
