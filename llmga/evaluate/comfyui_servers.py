"""Painting on running ComfyUI servers: the same jobs, shared among several, each done exactly once.

A workflow is ComfyUI's API format with placeholders where a job's values go: an input that is exactly ``"%prompt%"``,
``"%source%"``, ``"%seed%"``, ``"%width%"``, ``"%height%"``, ``"%image%"`` or ``"%mask%"``. Pictures are uploaded, and the
first picture that the workflow saves is taken. A server that fails gives its jobs back to the others.
"""

from __future__ import annotations

import io
import json
import queue
import threading
import time
import uuid
from collections.abc import Sequence
from http.client import HTTPException
from pathlib import Path
from typing import Any

from PIL import Image

from ..client import ComfyClient, ComfyError
from .paint_jobs import PaintJob

DEPTH = 2
"""Jobs that wait on a server while one runs, so that it never idles between two."""
MOST_FAILURES = 3
"""In a row, of one server, before it is given up; of one job, before the run stops."""
_POLL_S = 0.2
_TIMEOUT_S = 60.0


class ServersFailedError(RuntimeError):
    """Pictures could not be painted, on any server."""


class ComfyUIPainter:
    """A ``JobPainter`` on ComfyUI servers.

    Args:
        workflow: the file of the API prompt with placeholders.
        servers: addresses such as ``http://127.0.0.1:8188``.

    Raises:
        FileNotFoundError, ValueError: the workflow cannot be used, or there is no server.
    """

    def __init__(self, workflow: Path, servers: Sequence[str]) -> None:
        if not servers:
            raise ValueError("no ComfyUI server is named; give 'servers', or --through URL")
        if not workflow.is_file():
            raise FileNotFoundError(
                f"the workflow {str(workflow)!r} does not exist; it is an API prompt as JSON"
            )
        try:
            self.workflow = json.loads(workflow.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(f"{workflow} is not valid JSON: {error}") from error
        if not isinstance(self.workflow, dict) or "%prompt%" not in json.dumps(self.workflow):
            raise ValueError(
                f'{workflow} must be an API prompt that holds "%prompt%" as the value of an input'
            )
        self.servers = tuple(server.rstrip("/") for server in servers)

    def paint(self, jobs: Sequence[PaintJob]) -> list[Image.Image]:
        """See ``JobPainter``.

        Raises:
            ValueError: a job has text states, which no workflow takes.
            ServersFailedError: a job failed on ``MOST_FAILURES`` tries, or no server is left; the last reason is said.
        """
        if any(job.states is not None for job in jobs):
            raise ValueError(
                "text states cannot be sent to a ComfyUI server; leave out rows with an 'embedder'"
            )
        shared = _Shared(jobs)
        threads = [
            threading.Thread(target=self._serve, args=(server, shared), daemon=True)
            for server in self.servers
            for _ in range(DEPTH)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return shared.result()

    def _serve(self, server: str, shared: _Shared) -> None:
        """One of the jobs in flight of one server, again and again."""
        failures, client = 0, ComfyClient(server, _TIMEOUT_S)
        while (number := shared.take()) is not None:
            try:
                shared.put(number, self._painted(client, shared.jobs[number]))
                failures = 0
            except (ComfyError, HTTPException, ValueError, OSError) as error:
                failures += 1
                shared.give_back(number, f"{server}: {error}")
                if failures >= MOST_FAILURES:
                    return
                time.sleep(_POLL_S * failures)

    def _painted(self, client: ComfyClient, job: PaintJob) -> Image.Image:
        values: dict[str, Any] = {
            "%prompt%": job.prompt,
            "%source%": job.source,
            "%seed%": job.seed,
            "%width%": job.width,
            "%height%": job.height,
        }
        for name, picture in (("%image%", job.picture), ("%mask%", job.mask)):
            if picture is not None:
                values[name] = client.upload_image(f"{uuid.uuid4().hex}.png", _png(picture))
        # With an id given, the client opens no websocket for events; the history is enough.
        entry = _finished(client, client.queue(_filled(self.workflow, values), client.client_id))
        for _, file in client.pictures(entry):
            return Image.open(io.BytesIO(file)).convert("RGB")
        raise ValueError("the workflow saved no picture; it needs a Save Image node")


class _Shared:
    """Jobs that several threads take from, and their pictures."""

    def __init__(self, jobs: Sequence[PaintJob]) -> None:
        self.jobs = list(jobs)
        self._made: dict[int, Image.Image] = {}
        self._waiting: queue.SimpleQueue[int] = queue.SimpleQueue()
        self._tries = [0] * len(self.jobs)
        self._reason = ""
        self._stopped = False
        self._lock = threading.Condition()
        for number in range(len(self.jobs)):
            self._waiting.put(number)

    def take(self) -> int | None:
        """The number of a job; None once all are done or the run has failed. It waits while jobs are in flight elsewhere,
        because these may be given back."""
        with self._lock:
            while not self._stopped and len(self._made) < len(self.jobs):
                try:
                    return self._waiting.get_nowait()
                except queue.Empty:
                    self._lock.wait()
        return None

    def put(self, number: int, picture: Image.Image) -> None:
        with self._lock:
            self._made[number] = picture
            self._lock.notify_all()

    def give_back(self, number: int, reason: str) -> None:
        with self._lock:
            self._reason = reason
            self._tries[number] += 1
            # A job that no server can do would otherwise use up one server after the other.
            self._stopped |= self._tries[number] >= 2 * MOST_FAILURES
            self._waiting.put(number)
            self._lock.notify_all()

    def result(self) -> list[Image.Image]:
        if len(self._made) < len(self.jobs):
            raise ServersFailedError(
                f"{len(self.jobs) - len(self._made)} of {len(self.jobs)} pictures were not painted; the last reason: "
                f"{self._reason}"
            )
        return [self._made[number] for number in range(len(self.jobs))]


def _filled(value: Any, values: dict[str, Any]) -> Any:
    """The workflow with a job's values in the places of the placeholders.

    Raises:
        ValueError: the workflow wants a picture that the job has not.
    """
    if isinstance(value, dict):
        return {key: _filled(inner, values) for key, inner in value.items()}
    if isinstance(value, list):
        return [_filled(inner, values) for inner in value]
    if value in ("%image%", "%mask%") and value not in values:
        raise ValueError(f"the workflow wants {value}, and this job has none")
    return values.get(value, value) if isinstance(value, str) else value


def _png(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


def _finished(client: ComfyClient, prompt: str) -> dict[str, Any]:
    """The history entry of a prompt, once it has run.

    Raises:
        ComfyError: it failed.
        ValueError: the server has forgotten it, as after a restart.
    """
    known = True
    while client.history(prompt) is None:
        if not known:
            raise ValueError(
                "the server has forgotten the prompt; it was restarted, or its queue was cleared"
            )
        time.sleep(_POLL_S)
        waiting = client.get("/queue")
        known = prompt in json.dumps([waiting.get("queue_running"), waiting.get("queue_pending")])
    return client.wait(prompt)
