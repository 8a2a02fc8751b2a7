"""``python -m llmga train``: a stage from a configuration, or the curve of a log."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from .config import presets, read_config

STAGES = {
    "stage1": (".stage1", "Stage1Config"),
    "stage2": (".stage2", "Stage2Config"),
    "diffrir-s1": (".diffrir_s1", "S1Config"),
    "diffrir-s2": (".diffrir_s2", "S2Config"),
    "diffrir-gan": (".diffrir_gan", "GanConfig"),
}
"""Each stage's module, which has ``run(config, output)``, and the class of its configuration in it."""


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="llmga train",
        epilog=f"presets: {', '.join(presets())}. On several devices: accelerate launch -m llmga train …",
    )
    verbs = parser.add_subparsers(dest="verb", required=True)
    for stage in STAGES:
        verb = verbs.add_parser(stage, help=f"train {stage}, or go on where it was left")
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
            module_name, config_name = STAGES[options.verb]
            module = import_module(module_name, __package__)
            config = read_config(getattr(module, config_name), options.config, options.overrides)
            module.run(config, options.output)
    except (ValueError, FileNotFoundError) as error:
        sys.stderr.write(f"llmga train: {error}\n")
        return 2
    return 0
