"""``python -m llmga convert``: an official checkpoint becomes a folder for transformers and vLLM."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from .families import FAMILIES
from .options import CheckpointOptions


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="llmga convert",
        description="Write an official LLMGA language model as a folder that transformers and vLLM serve as it is.",
        epilog="llmga convert gill --help: GILL's files as safetensors",
    )
    parser.add_argument("folder", type=Path, help="as published: config.json, weights, tokenizer")
    parser.add_argument("out", type=Path, help="the folder to write")
    parser.add_argument(
        "--base", type=Path, help="the base model's folder, for a LoRA or a bare mm_projector"
    )
    parser.add_argument(
        "--vision-tower",
        type=Path,
        help="CLIP ViT-L/14-336, a folder or a file, if the checkpoint has none inside",
    )
    parser.add_argument(
        "--family", choices=sorted(FAMILIES), help="the transcript, where config.json cannot tell"
    )
    options = parser.parse_args(arguments)
    try:
        from .convert import convert

        parts = CheckpointOptions(options.base, options.vision_tower, options.family)
        convert(options.folder, options.out, parts)
    except (ValueError, OSError) as error:
        sys.stderr.write(f"llmga convert: {error}\n")
        return 2
    return 0
