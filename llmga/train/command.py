"""The command ``llmga train``: run a stage from a configuration, or plot a log."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from .config import presets, read_config
from .config_keys import describe_keys

STAGES = {
    "stage1": (".stage1", "Stage1Config"),
    "refiner": (".refiner", "RefinerConfig"),
    "stage2": (".stage2", "Stage2Config"),
    "controlnet": (".controlnet", "ControlNetConfig"),
    "diffrir-s1": (".diffrir_s1", "S1Config"),
    "diffrir-s2": (".diffrir_s2", "S2Config"),
    "diffrir-gan": (".diffrir_gan", "GanConfig"),
    "embedding": (".embedding", "EmbeddingConfig"),
    "gill": (".gill", "GILLConfig"),
    "gill-decision": (".gill_decision", "GILLDecisionConfig"),
}
"""Each stage's module, which has ``run(config, output)``, and the class of its configuration in it."""


class _VerbParser(argparse.ArgumentParser):
    """The parser of one verb; a stage's help ends with the keys of its configuration."""

    stage: str | None = None

    def format_help(self) -> str:
        text = super().format_help()
        return text if self.stage is None else f"{text}\n{describe_keys(_config_class(self.stage))}"


def _config_class(stage: str) -> Any:
    module_name, config_name = STAGES[stage]
    return getattr(import_module(module_name, __package__), config_name)


def main(arguments: Sequence[str]) -> int:
    """Run ``llmga train`` with its arguments.

    Returns:
        The exit status: 2 for a mistake in the arguments, 1 where the training or a file failed.
    """
    parser = argparse.ArgumentParser(
        prog="llmga train",
        epilog=f"presets: {', '.join(presets())}. llmga train STAGE --help lists the keys of its configuration. "
        "On several devices: accelerate launch -m llmga train …",
    )
    verbs = parser.add_subparsers(dest="verb", required=True, parser_class=_VerbParser)
    for stage in STAGES:
        verb = verbs.add_parser(stage, help=f"train {stage}, or go on where it was left")
        verb.stage = stage
        verb.add_argument("--config", required=True, help="a YAML file or the name of a preset")
        verb.add_argument("--output", required=True, type=Path, help="the folder of this run")
        verb.add_argument("overrides", nargs="*", metavar="key=value", help="such as loop.micro_batch=8")
    curve = verbs.add_parser("plot", help="draw a log as PNG")
    curve.add_argument("log", type=Path)
    curve.add_argument("--out", type=Path, help="default: beside the log")
    curve.add_argument("--key", default="loss")
    options = parser.parse_args(arguments)
    try:
        if options.verb == "plot":
            from .log import plot

            plot(options.log, options.out or options.log.with_suffix(".png"), options.key)
        else:
            config = read_config(_config_class(options.verb), options.config, options.overrides)
            import_module(STAGES[options.verb][0], __package__).run(config, options.output)
    except (ValueError, FileNotFoundError) as error:
        sys.stderr.write(f"llmga train: {error}\n")
        return 2
    except (FloatingPointError, OSError) as error:
        sys.stderr.write(f"llmga train: {error}\n")
        return 1
    return 0
