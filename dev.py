"""Everything a developer or a curious person runs, with nothing before it but Python 3.10 or newer.

    python dev.py demo      a chat becomes a picture; results in demo_output/
    python dev.py test      linters, unit, host and browser tests
    python dev.py serve     ComfyUI with this pack and the miniature: open the page it names, press Run
    python dev.py bench     every benchmark
    python dev.py gpu       what only a graphics card shows: half precision, memory, times against the published code
    python dev.py attack    seeded attacks on nodes, loaders and a live server, and a scoreboard
    python dev.py docs      the API pages of the library, in site/api

Each command first makes or completes its own environment and finds ComfyUI.

    LLMGA_ENV       where the environment is (default: .venv here)
    COMFYUI_PATH    which ComfyUI to use; 'none' goes without one (default: the one around this checkout,
                    comfy-cli's, else a clone of the pinned release under .dev)
    LLMGA_FRONTEND  which page ComfyUI shows: the folder `static` of an unpacked comfyui-frontend-package (default:
                    the one that ComfyUI asks for)
    CHROMIUM_PATH   which Chromium the browser tests use (default: one on the PATH, else playwright's)
    LLMGA_SERVE     where `serve` keeps inputs, outputs and settings (default: .dev/serve here)
    LLMGA_MINIATURE the folder of the trained miniature that the demo and the tests use (default: miniature here)
"""

import sys

if sys.version_info < (3, 10):  # noqa: UP036 - said here, before an import that an older Python cannot read
    sys.exit(f"dev.py needs Python 3.10 or newer, this is {sys.version.split()[0]}")

import argparse
import os
import subprocess
from pathlib import Path

from tools import ROOT, chromium, comfyui, environment, suites
from tools.terminal import say


def main(argv: list[str]) -> int:
    options, extra = _parser().parse_known_args(argv)
    only = getattr(options, "only", None)
    try:
        host = comfyui.find(fetch=options.verb not in ("bench", "docs") and only not in ("lint", "unit"))
        python = environment.ensure(host.path)
    except (FileNotFoundError, environment.SetupError) as error:
        say(f"dev.py: {error}")
        return 2
    say(f"ComfyUI: {host.note}" + (f" ({host.path})" if host.path else ""))
    os.environ.update(host.environment())
    if options.verb == "test":
        return _test(str(python), only, extra)
    if options.verb == "bench":
        return _bench(str(python), extra)
    if options.verb == "attack":
        return _run([str(python), "-m", "attack", *extra], ROOT / "tests")
    if options.verb == "gpu":
        return _run([str(python), str(ROOT / "benchmarks" / "gpu.py"), *extra])
    return _run([str(python), "-m", f"tools.{options.verb}", *extra])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="dev.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    verbs = parser.add_subparsers(
        dest="verb", required=True, metavar="demo | test | serve | bench | gpu | attack | docs"
    )
    verbs.add_parser("demo", help="further arguments go to tools/demo.py")
    test = verbs.add_parser("test", help="further arguments go to pytest", allow_abbrev=False)
    test.add_argument("--only", choices=suites.SUITES, help="run this suite alone")
    verbs.add_parser("serve", help="further arguments go to ComfyUI (--port, --listen, --cpu, …)")
    verbs.add_parser("bench", help="further arguments go to each benchmark")
    verbs.add_parser("gpu", help="further arguments: --only, --steps, --small", add_help=False)
    verbs.add_parser("attack", help="further arguments: --minutes, --seed, --only, …", add_help=False)
    verbs.add_parser("docs", help="further arguments go to tools/docs.py: the folder of the pages")
    return parser


def _test(python: str, only: str | None, arguments: list[str]) -> int:
    outcomes = []
    for name in [only] if only else suites.SUITES:
        say(f"\n== {name}")
        if name == "browser" and os.environ["COMFYUI_PATH"] != "none":
            os.environ.update(chromium.find(python, install=True).environment())
        outcomes.append(suites.lint(python) if name == "lint" else suites.run(name, python, arguments))
    say("\n" + suites.summary(outcomes))
    return 1 if any(outcome.failed for outcome in outcomes) else 0


def _bench(python: str, arguments: list[str]) -> int:
    codes = []
    for path in sorted((ROOT / "benchmarks").glob("*.py")):
        say(f"\n== {path.name}")
        codes.append(_run([python, str(path), *arguments]))
    return 1 if any(codes) else 0


def _run(command: list[str], *more: Path) -> int:
    """In the foreground and from the checkout's root, so that `tools`, `llmga` and what is in ``more`` are importable."""
    search = os.pathsep.join(filter(None, [str(ROOT), *map(str, more), os.environ.get("PYTHONPATH")]))
    process = subprocess.Popen(command, cwd=ROOT, env={**os.environ, "PYTHONPATH": search})
    while True:
        try:
            return process.wait()
        except KeyboardInterrupt:  # the child got it too and ends by itself
            continue


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
