"""The server harness against stand-ins for ComfyUI's main.py: what must count as failure does."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tools import comfy_server
from tools.comfy_client import ComfyClient, PromptFailedError, PromptInterruptedError, PromptRejectedError
from tools.comfy_server import ComfyServer, ServerError, link

MAIN = """
import json, os, pathlib, sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

ARGV = ["someone", "else"] if os.environ.get("FOREIGN") else sys.argv
BASE = pathlib.Path(sys.argv[sys.argv.index("--base-directory") + 1])
LOG = os.environ.get("LOG", "").format(pack=BASE / "custom_nodes" / "ComfyUI-LLMGA")
print(LOG)
if os.environ.get("DIES"):
    sys.exit(7)


class Handler(BaseHTTPRequestHandler):
    def answer(self, value, status=200):
        self.send_response(status)
        self.end_headers()
        self.wfile.write(json.dumps(value).encode())

    def do_GET(self):
        if self.path == "/system_stats":
            self.answer({"system": {"argv": ARGV}})
        elif self.path.startswith("/history/"):
            kind = self.path.rpartition("/")[2]
            raised = {"exception_type": "ValueError", "exception_message": "no"}
            details = {"node_id": "5", "node_type": "T", **raised}
            status = {"status_str": "error", "messages": [["execution_" + kind, details]]}
            if kind == "success":
                status["status_str"] = "success"
            self.answer({} if kind == "running" else {kind: {"outputs": {}, "status": status}})
        else:
            self.answer({}, 404)

    def do_POST(self):
        sent = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.answer(sent["prompt"]["reply"], sent["prompt"].get("status", 200))

    def log_message(self, *_):
        pass


ThreadingHTTPServer(("127.0.0.1", int(sys.argv[sys.argv.index("--port") + 1])), Handler).serve_forever()
"""


@pytest.fixture(scope="module")
def comfyui(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ComfyUI")
    (folder / "main.py").write_text(MAIN)
    return folder


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pack")
    (folder / "__init__.py").write_text("")
    return folder


@pytest.fixture(scope="module")
def server(comfyui: Path, pack: Path) -> Iterator[ComfyServer]:
    with ComfyServer(comfyui, pack=pack) as server:
        yield server


def test_starts_with_the_pack_linked_and_cleans_up(comfyui: Path, pack: Path) -> None:
    with ComfyServer(comfyui, pack=pack) as server:
        assert (server.base / "custom_nodes" / "ComfyUI-LLMGA" / "__init__.py").is_file()
        first = server.url
        server.restart()
        assert server.url != first
        assert server.get("/system_stats")["system"]["argv"]
    assert not server.base.exists()
    assert (pack / "__init__.py").is_file()
    with pytest.raises(ServerError, match="not running"):
        server.check()


def test_keep_leaves_the_base_folder(comfyui: Path, pack: Path) -> None:
    with ComfyServer(comfyui, pack=pack, keep=True) as server:
        pass
    assert server.log.is_file()
    server.keep = False
    server.close()


@pytest.mark.parametrize(
    ("env", "message"),
    [
        ({"DIES": "1", "LOG": "last words"}, "(?s)ended with code 7.*last words"),
        ({"FOREIGN": "1"}, "another ComfyUI"),
        ({"LOG": "0.0 seconds (IMPORT FAILED): {pack}"}, "IMPORT FAILED"),
        ({"LOG": "Error while calling comfy_entrypoint in {pack}: boom"}, "boom"),
        ({"LOG": 'Traceback (most recent call last):\n  File "{pack}/x.py"\nOhNo: 1'}, "OhNo: 1"),
        ({"LOG": "\x1b[1m[WARNING]\x1b[0m Cannot import {pack} module"}, r"\n\[WARNING\] Cannot import"),
    ],
)
def test_a_bad_start_is_an_error_and_leaves_nothing(
    comfyui: Path, pack: Path, env: dict[str, str], message: str
) -> None:
    server = ComfyServer(comfyui, pack=pack, env=env)
    with pytest.raises(ServerError, match=message), server:
        pass
    assert not server.base.exists()


def test_other_peoples_failures_are_not_ours(comfyui: Path, pack: Path) -> None:
    log = 'IMPORT FAILED: nodes_audio.py\nTraceback (most recent call last):\n  File "core.py"\nOhNo: 1'
    with ComfyServer(comfyui, pack=pack, env={"LOG": log}) as server:
        assert server.problems() == []


def test_a_server_that_never_answers(tmp_path: Path, pack: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comfy_server, "PATIENCE", 1)
    (tmp_path / "main.py").write_text("import time; print('thinking', flush=True); time.sleep(60)")
    with pytest.raises(ServerError, match="(?s)within 1 s.*thinking"), ComfyServer(tmp_path, pack=pack):
        pass


def test_verdicts_without_a_websocket(server: ComfyClient) -> None:
    assert server.wait("success")["status"]["status_str"] == "success"
    with pytest.raises(PromptFailedError, match="ValueError: no") as failed:
        server.wait("error")
    assert (failed.value.node_id, failed.value.node_type) == ("5", "T")
    with pytest.raises(PromptInterruptedError):
        server.wait("interrupted")
    with pytest.raises(TimeoutError):
        server.wait("running", timeout=0.5)


def test_waiting_ends_with_the_server(comfyui: Path, pack: Path) -> None:
    with ComfyServer(comfyui, pack=pack) as server:
        assert server._process is not None
        server._process.kill()
        with pytest.raises(ServerError, match="ended with code"):
            server.wait("running")


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ({"reply": {"error": {"message": "no such node"}, "node_errors": {}}, "status": 400}, "no such node"),
        ({"reply": {"error": "bare text"}, "status": 500}, "bare text"),
        (
            {
                "reply": {
                    "prompt_id": "p",
                    "node_errors": {"3": {"class_type": "T", "errors": [{"message": "bad", "details": "x"}]}},
                }
            },
            r"node 3 \(T\): bad: x",
        ),
    ],
)
def test_rejections(server: ComfyClient, prompt: dict, message: str) -> None:
    with pytest.raises(PromptRejectedError, match=message):
        server.queue(prompt)


def test_an_accepted_prompt_gives_its_id(server: ComfyClient) -> None:
    assert server.queue({"reply": {"prompt_id": "success", "node_errors": {}}}) == "success"


def test_a_link_follows_its_target_and_a_real_folder_stays(tmp_path: Path) -> None:
    for name in ("one", "two", "own"):
        (tmp_path / name).mkdir()
        (tmp_path / name / name).touch()
    for target in ("one", "two"):
        link(tmp_path / target, tmp_path / "place")
        assert (tmp_path / "place" / target).exists()
    (tmp_path / "two" / "two").unlink()
    (tmp_path / "two").rmdir()
    link(tmp_path / "one", tmp_path / "place")
    assert (tmp_path / "place" / "one").exists()
    link(tmp_path / "one", tmp_path / "own")
    assert (tmp_path / "own" / "own").exists() and not (tmp_path / "own").is_symlink()


def test_another_page_is_shown_where_it_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LLMGA_FRONTEND", raising=False)
    assert "--front-end-root" not in comfy_server.command(tmp_path, tmp_path, 1, ("--cpu",))
    monkeypatch.setenv("LLMGA_FRONTEND", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="holds no index.html; name the folder 'static'"):
        comfy_server.frontend_root()
    (tmp_path / "index.html").touch()
    command = comfy_server.command(tmp_path, tmp_path, 1, ("--cpu",))
    assert command[command.index("--front-end-root") + 1] == str(tmp_path)
