"""Build the API pages of ``llmga`` with pdoc, by default into ``site/api``: ``python dev.py docs [FOLDER]``."""

from __future__ import annotations

import argparse
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

    parser = argparse.ArgumentParser(
        prog="dev.py docs", description="Build the API pages of llmga with pdoc."
    )
    parser.add_argument("folder", nargs="?", type=Path, default=SITE)
    parser.add_argument("--no-source", action="store_true", help="leave the source out, in half the time")
    options = parser.parse_args(arguments)
    folder = options.folder
    pdoc.render.configure(docformat="google", footer_text="ComfyUI-LLMGA", show_source=not options.no_source)
    pdoc.pdoc(*modules(), output_directory=folder)
    say(f"the API pages are in {folder / 'llmga.html'}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
