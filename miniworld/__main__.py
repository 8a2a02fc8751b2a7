"""``python -m miniworld``: make the miniature's models, and measure them."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmga.train import read_config

if TYPE_CHECKING:
    from .build.recipe import Recipe


def main(arguments: Sequence[str]) -> int:
    options = _parser().parse_args(arguments)
    try:
        VERBS[options.verb](options, list(arguments))
    except (ValueError, FileNotFoundError) as error:
        sys.stderr.write(f"miniworld: {error}\n")
        return 2
    return 0


def _build(options: argparse.Namespace, command: list[str]) -> None:
    from .build.build import STAGES, build

    stages = options.only.split(",") if options.only else list(STAGES)
    build(_recipe(options), options.out, stages, options.again, command, options.work, options.jobs)


def _ablate(options: argparse.Namespace, command: list[str]) -> None:
    from .build.ablate import CUTS, ablate

    cuts = options.cut.split(",") if options.cut else CUTS
    work = options.work or options.out / "work"
    for folder in ablate(_recipe(options).language, options.out, work, cuts, options.vision_from):
        sys.stdout.write(f"{folder}\n")


def _check(options: argparse.Namespace, command: list[str]) -> None:
    from .build.stages import check

    sys.stdout.write(check(_recipe(options), options.out) + "\n")


def _check_chat(options: argparse.Namespace, command: list[str]) -> None:
    from .checks.chat import chat_table, check_chat

    sys.stdout.write(chat_table(check_chat(options.folder, options.count, options.workers)) + "\n")


def _check_judge(options: argparse.Namespace, command: list[str]) -> None:
    from .checks.judge import check_judge, judge_table

    sys.stdout.write(judge_table(check_judge(options.out, options.count, options.workers)) + "\n")


def _check_loop(options: argparse.Namespace, command: list[str]) -> None:
    from .checks.loop import LoopConfig, check_loop, loop_table

    config = LoopConfig(
        steps=options.steps, scenes=options.count, attempts=options.attempts, split=options.split,
        workers=options.workers,
    )  # fmt: skip
    sys.stdout.write(loop_table(check_loop(options.out, config)) + "\n")


def _check_edits(options: argparse.Namespace, command: list[str]) -> None:
    from tqdm import tqdm

    from .checks.editors import METHODS, EditsConfig
    from .checks.edits import check_edits, report

    config = EditsConfig(edits=options.count, steps=options.steps)
    methods = options.methods.split(",") if options.methods else tuple(METHODS)
    bar = tqdm(total=config.edits, desc="edits")
    found = check_edits(options.out, config, methods, lambda i, n: bar.update())
    bar.close()
    sys.stdout.write(report(found) + "\n")


def _check_holes(options: argparse.Namespace, command: list[str]) -> None:
    from tqdm import tqdm

    from .checks.holes import check_holes, holes_table
    from .checks.sampled_holes import HolesConfig

    with tqdm(desc="sets of pictures") as bar:

        def on_step(done: int, total: int) -> None:
            bar.total = total
            bar.update()

        config = HolesConfig(options.count, options.steps)
        found = check_holes(options.out, config, options.chat, options.workers, on_step)
    sys.stdout.write(holes_table(found) + "\n")


def _check_controlnet(options: argparse.Namespace, command: list[str]) -> None:
    from tqdm import tqdm

    from .checks.controlnet import ControlNetCheckConfig, check_controlnet, controlnet_table

    config = ControlNetCheckConfig(steps=options.steps, pictures=options.count, captions=options.captions)
    with tqdm(total=3, desc="sets of pictures") as bar:
        found = check_controlnet(options.out, config, lambda i, n: bar.update())
    sys.stdout.write(controlnet_table(found) + "\n")


def _check_gill(options: argparse.Namespace, command: list[str]) -> None:
    from tqdm import tqdm

    from .checks.gill import GILLCheckConfig, check_gill, gill_table

    with tqdm(desc="embeddings") as bar:

        def on_done(done: int, total: int) -> None:
            bar.total = total
            bar.update()

        found = check_gill(options.out, GILLCheckConfig(count=options.count, steps=options.steps), on_done)
    sys.stdout.write(gill_table(found) + "\n")


def _check_gill_heads(options: argparse.Namespace, command: list[str]) -> None:
    from llmga.evaluate import table

    from .checks.gill_heads import HeadsConfig, check_heads

    config = HeadsConfig(count=options.count, steps=options.steps)
    sys.stdout.write(table(check_heads(options.out, config, options.work)) + "\n")


def _check_turns(options: argparse.Namespace, command: list[str]) -> None:
    from tqdm import tqdm

    from .checks.turns import TurnsConfig, check_turns, plot_turns, turns_table

    with tqdm(desc="conversations") as bar:

        def on_done(done: int, total: int) -> None:
            bar.total = total
            bar.n = done
            bar.refresh()

        found = check_turns(options.out, TurnsConfig(count=options.count, steps=options.steps), on_done)
    plot_turns(found, options.plot or options.out / "pictures" / "turns.png")
    sys.stdout.write(turns_table(found) + "\n")


def _check_scenes(options: argparse.Namespace, command: list[str]) -> None:
    from tqdm import tqdm

    from .checks.scenes import METHODS_OF_SCENES, ScenesConfig, check_scenes, scenes_table

    config = ScenesConfig(options.count, options.insertions, steps=options.steps)
    methods = options.methods.split(",") if options.methods else METHODS_OF_SCENES
    with tqdm(total=config.scenes + config.insertions, desc="scenes") as bar:
        found = check_scenes(options.out, config, methods, lambda i, n: bar.update(i - bar.n))
    sys.stdout.write(scenes_table(*found) + "\n")


VERBS = {
    "build": _build,
    "ablate": _ablate,
    "check": _check,
    "check-chat": _check_chat,
    "check-edits": _check_edits,
    "check-gill": _check_gill,
    "check-gill-heads": _check_gill_heads,
    "check-judge": _check_judge,
    "check-loop": _check_loop,
    "check-turns": _check_turns,
    "check-holes": _check_holes,
    "check-controlnet": _check_controlnet,
    "check-scenes": _check_scenes,
}


def _recipe(options: argparse.Namespace) -> Recipe:
    from .build.recipe import RECIPES, Recipe

    beside = RECIPES / f"{options.recipe}.yaml"
    return read_config(Recipe, beside if beside.is_file() else options.recipe, options.overrides)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m miniworld")
    verbs = parser.add_subparsers(dest="verb", required=True)
    build = _with_recipe(verbs.add_parser("build", help="make what is missing of the models"))
    build.add_argument("--only", help="stages, with commas")
    build.add_argument("--again", action="store_true", help="make them even if they are there")
    build.add_argument("--work", type=Path, help="caches and checkpoints; default: below --out")
    build.add_argument(
        "--jobs", type=int, default=1, help="stages at the same time, each with its part of the cores"
    )
    ablate = _with_recipe(verbs.add_parser("ablate", help="train the chats of the paper's Table 6"), "ablate")
    ablate.add_argument(
        "--cut", help="all, refinement, filling, similar, editing: some, with commas; default: each"
    )
    ablate.add_argument(
        "--vision-from",
        type=Path,
        help="a finished chat, whose vision tower and words are taken; default: train them",
    )
    ablate.add_argument("--work", type=Path, help="caches and checkpoints; default: below --out")
    _with_recipe(verbs.add_parser("check", help="measure the painter"))
    chat = verbs.add_parser("check-chat", help="measure the chat model")
    chat.add_argument("folder", type=Path, help="a transformers folder")
    chat.add_argument("--count", type=int, default=100, help="replies of each task, and long conversations")
    chat.add_argument("--workers", type=int, default=0, help="processes; 0 takes one per core")
    judge = verbs.add_parser(
        "check-judge", help="measure what the chat model answers about pictures, by the reader"
    )
    judge.add_argument("--out", type=Path, required=True, help="the folder of the models")
    judge.add_argument("--count", type=int, default=100, help="pictures")
    judge.add_argument("--workers", type=int, default=0, help="processes; 0 takes one per core")
    loop = verbs.add_parser("check-loop", help="measure painting again until the judge finds it right")
    loop.add_argument("--out", type=Path, required=True, help="the folder of the models")
    loop.add_argument("--count", type=int, default=192, help="scenes")
    loop.add_argument("--attempts", type=int, default=3, help="pictures that each scene may take")
    loop.add_argument("--steps", type=int, default=25, help="of denoising")
    loop.add_argument("--split", choices=["validation", "unseen_pair"], default="validation")
    loop.add_argument("--workers", type=int, default=0, help="processes of the judge; 0 takes one per core")
    holes = verbs.add_parser("check-holes", help="measure inpainting, outpainting and restoring")
    holes.add_argument("--out", type=Path, required=True, help="the folder of the models")
    holes.add_argument("--chat", type=Path, help="a transformers folder; default: the chat in --out")
    holes.add_argument("--count", type=int, default=512, help="pictures of each kind")
    holes.add_argument("--steps", type=int, default=20, help="of denoising")
    holes.add_argument("--workers", type=int, default=0, help="processes that chat; 0 takes one per core")
    controlnet = verbs.add_parser("check-controlnet", help="measure the ControlNet")
    controlnet.add_argument("--out", type=Path, required=True, help="the folder of the models")
    controlnet.add_argument("--captions", choices=["short", "detailed"], default="short")
    controlnet.add_argument("--count", type=int, default=192, help="pictures of each kind")
    controlnet.add_argument("--steps", type=int, default=25, help="of denoising")
    scenes = verbs.add_parser("check-scenes", help="measure planned scenes, and objects put into pictures")
    scenes.add_argument("--out", type=Path, required=True, help="the folder of the models")
    scenes.add_argument("--methods", help="some of the ways to paint a scene, with commas")
    scenes.add_argument("--count", type=int, default=200, help="scenes")
    scenes.add_argument("--insertions", type=int, default=100, help="objects put into true pictures")
    scenes.add_argument("--steps", type=int, default=25, help="of denoising")
    edits = verbs.add_parser("check-edits", help="measure the editors")
    edits.add_argument("--out", type=Path, required=True, help="the folder of the models")
    edits.add_argument("--methods", help="some of the ways to edit, with commas")
    edits.add_argument("--count", type=int, default=216, help="edits, as many of each kind")
    edits.add_argument("--steps", type=int, default=20, help="of inversion and of denoising")
    gill = verbs.add_parser("check-gill", help="measure GILL: stories, retrieval, the decision")
    gill.add_argument("--out", type=Path, required=True, help="the folder of the models")
    gill.add_argument("--count", type=int, default=256, help="of stories, and of captions")
    gill.add_argument("--steps", type=int, default=25, help="of denoising")
    heads = verbs.add_parser("check-gill-heads", help="train and measure each kind of GILL's generation head")
    heads.add_argument("--out", type=Path, required=True, help="the folder of the models")
    heads.add_argument(
        "--work", type=Path, default=Path("build/gill-heads"), help="the folder of the trainings"
    )
    heads.add_argument("--count", type=int, default=96, help="captions that are painted")
    heads.add_argument("--steps", type=int, default=25, help="of denoising")
    turns = verbs.add_parser(
        "check-turns", help="measure words and embeddings turn by turn (the paper's figure 5)"
    )
    turns.add_argument("--out", type=Path, required=True, help="the folder of the models")
    turns.add_argument("--count", type=int, default=64, help="conversations")
    turns.add_argument("--steps", type=int, default=25, help="of denoising")
    turns.add_argument("--plot", type=Path, help="default: pictures/turns.png in --out")
    return parser


def _with_recipe(parser: Any, recipe: str = "cpu") -> argparse.ArgumentParser:
    parser.add_argument("--recipe", default=recipe, help="the name of one in build/recipes, or a YAML file")
    parser.add_argument("--out", type=Path, required=True, help="the folder of the models")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="such as base.loop.steps=100")
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
