"""The command ``llmga evaluate``: measure a table of the paper, or join tables that were measured apart."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

from ..chat.engines.endpoint import EndpointError
from ..files.writing import write_text
from ..train.config import presets, read_config, write_config
from ..train.config_keys import describe_keys
from .all_tables import PresetTask, preset_task, run_all
from .comfyui_servers import ServersFailedError
from .paper import PAPER, Claim
from .results import TableResult, joined, latex, markdown, read_result, write_result
from .stages import Stages
from .work import Processes, Progress, UnitProgress, processes

TABLES = {
    "t2i": (".tasks.text_to_image", "TextToImageConfig", "Table 1: pictures from captions"),
    "edit": (".tasks.edit", "EditConfig", "Table 2: edits by instruction"),
    "fill": (".tasks.fill", "FillConfig", "Table 3: inpainting and outpainting"),
    "restore": (".tasks.fill", "FillConfig", "Table 4: outpaintings, restored"),
    "turns": (
        ".tasks.turns",
        "TurnsConfig",
        "Figure 5: quality turn by turn, from words and from embeddings",
    ),
    "ablate": (".tasks.ablate", "AblateConfig", "Table 6: parts of the training data left out"),
    "story": (".tasks.context", "ContextConfig", "GILL's table of VIST: the last picture of a story"),
    "dialog": (".tasks.context", "ContextConfig", "GILL's table of VisDial: the picture of a dialogue"),
    "rfbench": (".tasks.rfbench", "RFBenchConfig", "RFBench: prompts that are hard to imagine"),
}
"""Each task's module, which has ``run(config, stages) -> results``, the class of its configuration, and what it is."""

_PACKAGE = __name__.rpartition(".")[0]


class _TaskParser(argparse.ArgumentParser):
    """The parser of one task; its help ends with the keys of its configuration."""

    task: str | None = None

    def format_help(self) -> str:
        text = super().format_help()
        return text if self.task is None else f"{text}\n{describe_keys(config_class(self.task))}"


def config_class(task: str) -> Any:
    """The class of a task's configuration."""
    module, name, _ = TABLES[task]
    return getattr(import_module(module, _PACKAGE), name)


def main(arguments: Sequence[str]) -> int:
    """Run ``llmga evaluate`` with its arguments; returns the exit status, 2 for a mistake in them."""
    options = _parser().parse_args(arguments)
    try:
        if options.task == "join":
            result = joined([read_result(path) for path in options.results])
            write_tables(options.output, result, ())
        elif options.task == "all":
            return _all(options)
        else:
            config = read_config(config_class(options.task), options.config, options.overrides, _PACKAGE)
            _evaluate(options.task, through(config, options.through), options.output)
    except (ValueError, FileNotFoundError, EndpointError, ServersFailedError) as error:
        sys.stderr.write(f"llmga evaluate: {error}\n")
        return 2
    return 0


def evaluate(
    task: str, config: Any, output: Path, among: Processes, progress: Any = None
) -> list[TableResult]:
    """Measure a table, or go on where it was left, and write ``TABLE.json``, ``.md`` and ``.tex`` of each result.

    Args:
        config: an instance of the task's class.
        among: the processes of the run; the first one writes the tables.
        progress: from a stage's name to the callback for its progress; None is silent.
    """
    module, _, _ = TABLES[task]
    results = import_module(module, _PACKAGE).run(config, Stages(output / "work", among, progress))
    if among.rank == 0:
        write_config(config, output / "config.yaml")
        for result in results:
            write_tables(output, result, config.claims)
    among.wait()
    return results


def write_tables(folder: Path, result: TableResult, claims: Sequence[Claim]) -> None:
    """A result as JSON, Markdown and LaTeX, the paper's figures beside it."""
    paper = PAPER.get(result.table)
    write_result(folder / f"{result.table}.json", result)
    write_text(folder / f"{result.table}.md", markdown(result, paper, claims))
    write_text(folder / f"{result.table}.tex", latex(result, paper))


def through(config: Any, servers: Sequence[str]) -> Any:
    """A configuration whose rows all paint on ComfyUI servers; as it is without any.

    Raises:
        ValueError: a row names no workflow.
    """
    if not servers:
        return config
    if not hasattr(config, "rows"):
        parts = {name: through(getattr(config, name), servers) for name in ("t2i", "fill")}
        return replace(config, **parts)
    for row in config.rows:
        if row.embedder.kind:
            raise ValueError(
                f"the row {row.name!r} embeds what is asked for, which --through cannot send; leave the row out"
            )
        if not row.painter.workflow:
            raise ValueError(f"the row {row.name!r} names no 'painter.workflow' for --through to send")
    rows = tuple(
        replace(row, painter=replace(row.painter, kind="comfyui", servers=tuple(servers)))
        for row in config.rows
    )
    return replace(config, rows=rows)


def _evaluate(task: str, config: Any, output: Path, among: Processes | None = None) -> list[TableResult]:
    among = among or processes()
    results = evaluate(task, config, output, among, _progress if among.rank == 0 else None)
    if among.rank == 0:
        for result in results:
            sys.stdout.write(markdown(result, PAPER.get(result.table), config.claims) + "\n")
    return results


def _all(options: argparse.Namespace) -> int:
    """Every task that the preset has, and the page; the exit status is 2 if one failed for another reason than a missing
    file."""
    if options.count is not None and options.count < 1:
        raise ValueError(f"'--count' must be at least 1, got {options.count}")
    among = processes()
    found = tasks_of(options.preset)
    tasks = []
    for task in TABLES:
        title = TABLES[task][2]
        if task in found:
            config = read_config(config_class(task), f"{options.preset}-{task}", (), _PACKAGE)
            tasks.append(preset_task(task, title, config, options.count))
        else:
            why = f"the whole table: there is no preset {options.preset}-{task}"
            tasks.append(PresetTask(task, title, None, (), (why,), 0.0))
    page = options.page or options.output / "reproduction.md"
    command = f"python -m llmga evaluate all --preset {options.preset}"
    command += f" --count {options.count}" if options.count else ""

    def measure(task: str, config: Any, output: Path) -> list[TableResult]:
        return _evaluate(task, config, output, among)

    page = page if among.rank == 0 else None
    failed = run_all(tasks, options.output, measure, page, command, among.count == 1)
    for line in failed:
        sys.stderr.write(f"llmga evaluate: {line}\n")
    return 2 if failed else 0


def tasks_of(preset: str) -> list[str]:
    """The tasks that have a preset of this name, ``PRESET-TASK``.

    Raises:
        ValueError: no task has one.
    """
    there = presets(_PACKAGE)
    found = [task for task in TABLES if f"{preset}-{task}" in there]
    if not found:
        raise ValueError(f"no preset begins with {preset!r}; presets are {', '.join(there)}")
    return found


def _progress(name: str) -> UnitProgress:
    return Progress(name, sys.stderr.write)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="llmga evaluate",
        epilog=f"presets: {', '.join(presets(_PACKAGE))}. llmga evaluate TASK --help lists the keys of its "
        "configuration. A run that is started again goes on. On several devices: accelerate launch -m llmga evaluate …",
    )
    verbs = parser.add_subparsers(dest="task", required=True, metavar="TASK", parser_class=_TaskParser)
    for task, (_, _, words) in TABLES.items():
        verb = verbs.add_parser(task, help=words)
        verb.task = task
        verb.add_argument("--config", required=True, help="a YAML file or the name of a preset")
        verb.add_argument("--output", required=True, type=Path, help="the folder of this run")
        verb.add_argument(
            "--through",
            action="append",
            default=[],
            metavar="URL",
            help="paint on a ComfyUI server; may be repeated",
        )
        verb.add_argument("overrides", nargs="*", metavar="key=value", help="such as data.count=100")
    every = verbs.add_parser("all", help="every table, and a page of them")
    every.add_argument("--preset", required=True, help="the presets PRESET-TASK are taken")
    every.add_argument("--output", required=True, type=Path)
    every.add_argument("--page", type=Path, help="the page; default: OUTPUT/reproduction.md")
    every.add_argument("--count", type=int, help="at most so many items of each evaluation set")
    join = verbs.add_parser("join", help="put rows that were measured apart into one table")
    join.add_argument("results", nargs="+", type=Path, help="the JSON files of one table")
    join.add_argument("--output", required=True, type=Path)
    return parser
