"""``python -m llmga join``: a language model and a CLIP vision tower become a LLaVA to train."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from .families import FAMILIES


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="llmga join",
        description="Join a language model with a CLIP vision tower by an untrained projector. The folder is the base of "
        "`llmga train stage1 --config stage1-projector`, whose result is the base of stage1-released-code.",
    )
    parser.add_argument("language", type=Path, help="a transformers folder, such as vicuna-7b-v1.5")
    parser.add_argument(
        "tower", type=Path, help="clip-vit-large-patch14-336, a folder or a file of models/clip_vision"
    )
    parser.add_argument("out", type=Path, help="the folder to write")
    parser.add_argument(
        "--family", choices=sorted(FAMILIES), help="the transcript to train on, where config.json cannot tell"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the projector's random weights")
    options = parser.parse_args(arguments)
    try:
        from .join import JoinOptions, join

        family = join(options.language, options.tower, options.out, JoinOptions(options.family, options.seed))
    except (ValueError, OSError) as error:
        sys.stderr.write(f"llmga join: {error}\n")
        return 2
    sys.stdout.write(
        f"{options.out}: for the transcript {family.name}. Train its projector with\n"
        f"  llmga train stage1 --config stage1-projector --output RUN base={options.out} transcript={family.name}\n"
    )
    return 0
