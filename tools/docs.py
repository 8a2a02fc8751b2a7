"""Build the API pages of ``llmga`` with pdoc: ``python dev.py docs [FOLDER]``, by default into ``site/api``."""

from __future__ import annotations

import sys
from pathlib import Path

from . import ROOT
from .terminal import say

SITE = ROOT / "site" / "api"


def main(arguments: list[str]) -> int:
    import pdoc
    import pdoc.render

    folder = Path(arguments[0]) if arguments else SITE
    pdoc.render.configure(docformat="google", footer_text="ComfyUI-LLMGA")
    pdoc.pdoc("llmga", output_directory=folder)
    say(f"the API pages are in {folder / 'llmga.html'}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
