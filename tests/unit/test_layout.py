"""The house rules that a machine can hold: who imports whom, what never appears, what is never committed."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tools import ROOT

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # pytest's own on 3.10

HOST_MODULES = {
    "comfy",
    "comfy_api",
    "comfy_execution",
    "comfy_extras",
    "folder_paths",
    "server",
    "nodes",
    "aiohttp",
}
HEAVY_MODULES = ("accelerate", "diffusers", "httpx", "transformers")
MINIATURE_WORLD = "miniature/"
MEGABYTE = 1_000_000


def sources(*folders: str) -> list[Path]:
    found = [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]
    assert len(found) >= len(folders), f"no Python files under {folders}: the test would look at nothing"
    return found


def nodes_of(path: Path) -> Iterator[ast.AST]:
    return ast.walk(ast.parse(path.read_text(encoding="utf-8"), str(path)))


def where(path: Path, node: ast.AST) -> str:
    return f"{path.relative_to(ROOT).as_posix()}:{getattr(node, 'lineno', 0)}"


def absolute_imports(path: Path) -> Iterator[tuple[str, ast.AST]]:
    """The top-level package of every import that is not relative."""
    for node in nodes_of(path):
        if isinstance(node, ast.Import):
            yield from ((alias.name.partition(".")[0], node) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield (node.module or "").partition(".")[0], node


def test_the_library_imports_nothing_of_the_host() -> None:
    leaks = [
        f"{where(path, node)} imports {name}"
        for path in sources("llmga")
        for name, node in absolute_imports(path)
        if name in HOST_MODULES
    ]
    assert leaks == []


def test_only_the_host_files_touch_the_host() -> None:
    """`comfy_api.latest` is every node file's, all else is for host.py and host_*.py."""
    leaks = [
        f"{where(path, node)} imports {name}"
        for path in sources("nodes")
        if not path.name.startswith(("host.", "host_"))
        for name, node in absolute_imports(path)
        if name in HOST_MODULES - {"comfy_api"}
    ]
    assert leaks == []


def test_the_pack_imports_itself_relatively() -> None:
    """ComfyUI loads it under a path-named package, where `import llmga` finds nothing or a second copy."""
    absolute = [
        f"{where(path, node)} imports {name}"
        for path in [ROOT / "__init__.py", *sources("llmga", "nodes")]
        for name, node in absolute_imports(path)
        if name in ("llmga", "nodes")
    ]
    assert absolute == []


MINIWORLD_ROOMS = ("world", "models", "checks", "build")
"""Each imports itself and those before it; ``pack`` stands on its own."""


def imported_modules(path: Path) -> Iterator[tuple[str, ast.AST]]:
    """The full names of the modules that a file imports, wherever in it, and of those that it names in a string."""
    package = path.relative_to(ROOT).with_suffix("").parts[:-1]
    for node in nodes_of(path):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            start = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join([*start, *filter(None, [node.module])])
            yield module, node
            yield from ((f"{module}.{alias.name}", node) for alias in node.names)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            if re.fullmatch(r"[a-z_]+(\.[a-z_0-9]+)+", node.value):
                yield node.value, node


def test_the_library_and_the_nodes_know_nothing_of_the_demonstration() -> None:
    leaks = [
        f"{where(path, node)} imports {name}"
        for path in [ROOT / "__init__.py", *sources("llmga", "nodes")]
        for name, node in imported_modules(path)
        if name.partition(".")[0] in ("miniworld", "tools", "tests", "support")
    ]
    assert leaks == []


def test_the_rooms_of_the_demonstration_have_one_direction() -> None:
    leaks = []
    for path in sources("miniworld"):
        room = path.relative_to(ROOT).parts[1]
        allowed = MINIWORLD_ROOMS[: MINIWORLD_ROOMS.index(room) + 1] if room in MINIWORLD_ROOMS else ()
        for name, node in imported_modules(path):
            top, _, rest = name.partition(".")
            target = rest.partition(".")[0]
            if top in ("nodes", "tools", "tests", "support"):
                leaks.append(f"{where(path, node)} imports {name}")
            elif top == "miniworld" and room in MINIWORLD_ROOMS and target in MINIWORLD_ROOMS:
                leaks += [f"{where(path, node)} imports {name}"] * (target not in allowed)
            elif top in ("llmga", "miniworld") and room == "pack" and target != "pack":
                leaks.append(f"{where(path, node)} imports {name}")
    assert leaks == []


def test_every_library_module_imports_alone_and_light() -> None:
    modules = [
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for path in sources("llmga")
        if path.name != "__main__.py"
    ]
    program = f"""
import importlib, sys
for name in {sorted(HOST_MODULES)}:
    sys.modules[name] = None
for name in {modules}:
    importlib.import_module(name)
print(*(name for name in {HEAVY_MODULES} if name in sys.modules))
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == []


def forbidden(node: ast.AST) -> str:
    """What a node of the syntax tree does that the house forbids, or ''."""
    if isinstance(node, ast.Call):
        called = ast.unparse(node.func)
        if called in ("eval", "exec", "print", "__import__"):
            return called
        if called in ("pickle.load", "pickle.loads", "os.system", "os.popen"):
            return called
        given = {one.arg: ast.unparse(one.value) for one in node.keywords}
        if called == "torch.load" and given.get("weights_only") != "True":
            return "torch.load without weights_only=True"
        if given.get("trust_remote_code", "False") != "False":
            return "trust_remote_code"
        if called in ("os.replace", "os.rename", "tempfile.mkstemp"):
            return f"{called} outside llmga/files/writing.py"
    if isinstance(node, ast.ExceptHandler) and node.type is None:
        return "bare except"
    return ""


def test_nothing_forbidden_is_called() -> None:
    found = [
        f"{where(path, node)}: {forbidden(node)}"
        for path in [ROOT / "__init__.py", *sources("llmga", "nodes")]
        for node in nodes_of(path)
        if forbidden(node) and path != ROOT / "llmga" / "files" / "writing.py"
    ]
    assert found == []


@pytest.mark.parametrize(
    "line",
    [
        "eval('1')",
        "print(1)",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "AutoModel.from_pretrained(path, trust_remote_code=True)",
        "AutoModel.from_pretrained(path, trust_remote_code=flag)",
        "os.replace(part, path)",
        "try:\n    f()\nexcept:\n    g()",
    ],
)
def test_the_check_above_sees(line: str) -> None:
    assert any(forbidden(node) for node in ast.walk(ast.parse(line)))


@pytest.mark.parametrize("line", ["net.eval()", "torch.load(path, weights_only=True)"])
def test_the_check_above_lets_pass(line: str) -> None:
    assert not any(forbidden(node) for node in ast.walk(ast.parse(line)))


@pytest.fixture(scope="module")
def committed() -> list[Path]:
    """What git tracks, or would if it were added."""
    try:
        listed = subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        ).stdout
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"not a git checkout: {error}")
    return [path for name in listed.split("\0") if name and (path := ROOT / name).is_file()]


def test_no_large_file_outside_the_miniature_world(committed: list[Path]) -> None:
    sizes = {path.relative_to(ROOT).as_posix(): path.stat().st_size for path in committed}
    large = {name: size for name, size in sizes.items() if size > MEGABYTE}
    assert [name for name in large if not name.startswith(MINIATURE_WORLD)] == []
    world = sum(size for name, size in sizes.items() if name.startswith(MINIATURE_WORLD))
    assert world <= 60 * MEGABYTE


def test_no_path_of_anyones_machine(committed: list[Path]) -> None:
    # In two parts, so that this line is not its own finding.
    private = re.compile("(?<![\\w.~])/(?:" + "home|root|Users|work" + r")/\w|[A-Z]:\\Users\\")
    texts = {".py", ".md", ".json", ".js", ".toml", ".txt", ".yml", ".cfg", ""}
    found = [
        f"{path.relative_to(ROOT).as_posix()}: {match[0]}"
        for path in committed
        if path.suffix in texts and path.stat().st_size < MEGABYTE
        for match in private.finditer(path.read_text(encoding="utf-8", errors="replace"))
    ]
    assert found == []


def test_requirements_are_the_projects_dependencies() -> None:
    """ComfyUI-Manager reads the one, pip and the registry the other."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    listed = [line for line in lines if line and not line.startswith("#")]
    assert listed == project["dependencies"]
    for line in listed:
        assert re.fullmatch(r"[A-Za-z0-9_-]+(>=[\d.]+)?", line), f"{line}: lower bounds only"
        assert not line.startswith("torch")
