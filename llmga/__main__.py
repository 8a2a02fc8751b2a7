"""The command line: ``python -m llmga VERB …``."""

from __future__ import annotations

import sys
from importlib import import_module

VERBS = {"convert": ".chat.checkpoints.command", "train": ".train.command"}
"""Each verb's module, which has ``main(arguments) -> exit status``."""


def main(arguments: list[str]) -> int:
    if not arguments or arguments[0] not in VERBS:
        sys.stderr.write(f"usage: python -m llmga {{{','.join(VERBS)}}} …\n")
        return 2
    return import_module(VERBS[arguments[0]], __package__).main(arguments[1:])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
