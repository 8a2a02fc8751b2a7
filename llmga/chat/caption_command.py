"""``llmga caption FOLDER``: write a caption beside each picture of a folder; see ``caption_folder``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from .caption_folder import caption_folder
from .endpoints import find_endpoint
from .engines.base import ChatEngine, Sampling
from .engines.endpoint import EndpointEngine, EndpointError


def main(argv: Sequence[str] | None = None) -> int:
    """Exit code 0 where every picture has a caption at the end, 1 where some have none, 2 for wrong arguments."""
    parser = argparse.ArgumentParser(
        prog="llmga caption",
        description="Write NAME.txt beside each picture. What exists is skipped, so run it again to go on.",
    )
    parser.add_argument("folder", type=Path, help="the pictures; folders in it are looked through too")
    parser.add_argument("--model", type=Path, help="the folder of a language model that sees pictures")
    parser.add_argument("--endpoints", type=Path, help="or: the file of endpoints")
    parser.add_argument("--endpoint", help="and a name in that file")
    parser.add_argument("--instruction", default="", help="what the captions should be like")
    parser.add_argument("--trigger", default="", help="a word in front of each caption")
    parser.add_argument(
        "--exclude", action="append", default=[], help="what no caption may say; may be repeated"
    )
    parser.add_argument("--overwrite", action="store_true", help="also where there is a caption")
    parser.add_argument("--language", choices=("en", "zh"), default="en")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--temperature", type=float, default=0.2)
    parser.add_argument("--max-new-tokens", type=int, default=512)
    arguments = parser.parse_args(argv)
    by_endpoint = (arguments.endpoints is not None, arguments.endpoint is not None)
    if by_endpoint != ((True, True) if arguments.model is None else (False, False)):
        parser.error("give --model FOLDER, or --endpoints FILE and --endpoint NAME, and not of both")

    def show(done: int, total: int) -> None:
        sys.stderr.write(f"\r{done} of {total}")
        sys.stderr.flush()

    try:
        result = caption_folder(
            _engine(arguments),
            arguments.folder,
            sampling=Sampling(arguments.seed, arguments.temperature, max_new_tokens=arguments.max_new_tokens),
            trigger=arguments.trigger,
            exclude=arguments.exclude,
            overwrite=arguments.overwrite,
            instruction=arguments.instruction,
            language=arguments.language,
            on_step=show,
        )
    except (ValueError, OSError, EndpointError) as error:
        parser.exit(1, f"\n{error}\n")
    sys.stdout.write(f"\n{result.report()}\n")
    return 1 if result.failures else 0


def _engine(arguments: argparse.Namespace) -> ChatEngine:
    if arguments.model is None:
        return EndpointEngine(find_endpoint(arguments.endpoints, arguments.endpoint))
    from .folders.registry import load_local_engine

    return load_local_engine(arguments.model)
