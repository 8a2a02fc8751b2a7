"""Build the API pages of ``llmga`` with pdoc: ``python dev.py docs [FOLDER]``, by default into ``site/api``."""

from __future__ import annotations

import sys
from pathlib import Path

from . import ROOT
from .terminal import say

SITE = ROOT / "site" / "api"


def modules() -> list[str]:
    """Every module of the library; pdoc itself would leave out those that an ``__all__`` does not name."""
    paths = sorted((ROOT / "llmga").rglob("*.py"))
    parts = (path.relative_to(ROOT).with_suffix("").parts for path in paths if path.stem != "__main__")
    return [".".join(names[:-1] if names[-1] == "__init__" else names) for names in parts]


def main(arguments: list[str]) -> int:
    import pdoc
    import pdoc.render

    folder = Path(arguments[0]) if arguments else SITE
    pdoc.render.configure(docformat="google", footer_text="ComfyUI-LLMGA")
    pdoc.pdoc(*modules(), output_directory=folder)
    say(f"the API pages are in {folder / 'llmga.html'}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
