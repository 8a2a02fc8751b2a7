"""The same jobs on two real ComfyUI servers: nothing is lost or doubled when one of them dies, and order is kept."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from llmga.evaluate import comfyui_servers
from llmga.evaluate.comfyui_servers import ComfyUIPainter, ServersFailedError
from llmga.evaluate.paint_jobs import PaintJob
from tools.comfy_server import ComfyServer

JOBS = 24
WORKFLOW: dict[str, Any] = {
    "1": {
        "class_type": "EmptyImage",
        "inputs": {"width": "%width%", "height": "%height%", "batch_size": 1, "color": "%seed%"},
    },
    "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "%prompt%"}},
}


@pytest.fixture
def servers(comfyui: Path) -> Iterator[list[ComfyServer]]:
    with ComfyServer(comfyui) as one, ComfyServer(comfyui) as other:
        yield [one, other]


def jobs(count: int = JOBS) -> list[PaintJob]:
    return [PaintJob(str(i), f"job-{i}", 1000 * i + 7, 24 + 8 * (i % 3), 16) for i in range(count)]


def write(path: Path, workflow: Any) -> Path:
    path.write_text(json.dumps(workflow))
    return path


def colour(picture: Image.Image) -> int:
    red, green, blue = (int(value) for value in np.asarray(picture)[0, 0])
    return red << 16 | green << 8 | blue


def test_no_picture_is_lost_or_doubled_when_a_server_dies(
    servers: list[ComfyServer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    painter = ComfyUIPainter(write(tmp_path / "api.json", WORKFLOW), [server.url for server in servers])
    put, count = comfyui_servers._Shared.put, iter(range(1, JOBS + 1))

    def kill_in_the_middle(shared: Any, number: int, picture: Image.Image) -> None:
        put(shared, number, picture)
        if next(count) == JOBS // 3:
            servers[0]._process.kill()  # type: ignore[union-attr]

    monkeypatch.setattr(comfyui_servers._Shared, "put", kill_in_the_middle)
    wanted = jobs()
    made = painter.paint(wanted)
    assert [colour(picture) for picture in made] == [job.seed for job in wanted]
    assert [picture.size for picture in made] == [(job.width, job.height) for job in wanted]
    # Whatever the dead server had saved: none of what the other saved is there twice.
    saved = [path.name for path in (servers[1].base / "output").glob("*.png")]
    assert len(saved) == len({name.rpartition("_0")[0] for name in saved})


def test_pictures_and_masks_go_along_and_faults_are_the_servers_words(
    servers: list[ComfyServer], tmp_path: Path
) -> None:
    inverted = {
        "1": {"class_type": "LoadImage", "inputs": {"image": "%image%"}},
        "2": {"class_type": "ImageInvert", "inputs": {"image": ["1", 0]}},
        "3": {"class_type": "SaveImage", "inputs": {"images": ["2", 0], "filename_prefix": "%prompt%"}},
    }
    painter = ComfyUIPainter(write(tmp_path / "api.json", inverted), [servers[0].url])
    given = Image.new("RGB", (16, 16), (250, 10, 100))
    (made,) = painter.paint([PaintJob("a", "p", 0, 16, 16, given)])
    assert made.getpixel((3, 3)) == pytest.approx((5, 245, 155), abs=1)  # the host cuts, and does not round
    with pytest.raises(ServersFailedError, match="wants %image%, and this job has none"):
        painter.paint([PaintJob("a", "p", 0, 16, 16)])
    broken = {**WORKFLOW, "1": {"class_type": "NoSuchNode", "inputs": {}}}
    painter = ComfyUIPainter(write(tmp_path / "api.json", broken), [servers[0].url])
    with pytest.raises(ServersFailedError, match="NoSuchNode"):
        painter.paint(jobs(1))


def test_a_server_that_forgets_a_prompt_is_asked_again(servers: list[ComfyServer], tmp_path: Path) -> None:
    """As after a restart: the queue is cleared while the job waits behind a long one."""
    import httpx

    painter = ComfyUIPainter(write(tmp_path / "api.json", WORKFLOW), [servers[0].url])
    long = {**WORKFLOW, "1": {**WORKFLOW["1"], "inputs": {**WORKFLOW["1"]["inputs"], "batch_size": 150}}}
    slow = json.loads(
        json.dumps(long).replace('"%width%"', "128").replace('"%height%"', "128").replace('"%seed%"', "0")
    )
    httpx.post(f"{servers[0].url}/prompt", json={"prompt": slow}).raise_for_status()

    def clear() -> None:
        end = time.monotonic() + 60
        while time.monotonic() < end:
            if httpx.get(f"{servers[0].url}/queue").json()["queue_pending"]:
                httpx.post(f"{servers[0].url}/queue", json={"clear": True})
                httpx.post(f"{servers[0].url}/interrupt")
                return
            time.sleep(0.05)

    thread = threading.Thread(target=clear)
    thread.start()
    (made,) = painter.paint(jobs(1))
    thread.join()
    assert colour(made) == 7


@pytest.mark.parametrize(("text", "said"), [("{", "not valid JSON"), ("{}", "%prompt%"), ("[]", "%prompt%")])
def test_a_workflow_that_cannot_be_used_is_refused(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "api.json").write_text(text)
    with pytest.raises(ValueError, match=said):
        ComfyUIPainter(tmp_path / "api.json", ["http://127.0.0.1:1"])
    with pytest.raises(ValueError, match="no ComfyUI server"):
        ComfyUIPainter(tmp_path / "api.json", [])
    with pytest.raises(FileNotFoundError, match="does not exist"):
        ComfyUIPainter(tmp_path / "none.json", ["http://127.0.0.1:1"])
