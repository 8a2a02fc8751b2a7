"""Random prompts over HTTP, made from object_info: good, nearly good and hostile widgets, right and wrong links."""

from __future__ import annotations

import json
import random
import time
import urllib.error
from typing import Any

from support.graphs import node

from tools.comfy_client import ServerError
from tools.comfy_server import ComfyServer

from ..budget import Budget
from ..good_widgets import CHEAP, GOOD
from ..outcome import classify
from ..report import Counts, Finding, clipped
from ..server import Prompt, alive, live, sources
from ..values import JSON

TOGETHER = 8
LIMIT = 30.0  # seconds until a prompt is cancelled
STUCK = 15.0  # seconds after that in which it must have ended
DEEP = 3
CORE = (
    "LoadImage",
    "SolidMask",
    "CheckpointLoaderSimple",
    "EmptyLatentImage",
    "CLIPTextEncode",
    "ImageInvert",
)


def run(budget: Budget, rng: random.Random) -> tuple[list[Finding], Counts]:
    findings, counts = [], Counts()
    with live() as (server, _):
        infos = server.object_info()
        ours = {name: info for name, info in infos.items() if name.startswith("LLMGA_")}
        maker = Maker(ours, {name: infos[name] for name in CORE if name in infos}, rng)
        budget.restart(counts.ran)
        try:
            while budget:
                findings += _round(server, [maker.prompt() for _ in range(TOGETHER)], maker, counts)
        except ServerError as error:
            findings.append(Finding("exit", "the server ended", maker.last(), clipped(str(error))))
        else:
            counts.ran["liveness checks"] += 1
            if not alive(server):
                findings.append(Finding("stuck", "after the random prompts no prompt runs", maker.last()))
    return findings, counts


class Maker:
    """Prompts around one of our nodes.

    Args:
        ours, core: entries of object_info; links go to outputs of either.
    """

    def __init__(self, ours: dict[str, Any], core: dict[str, Any], rng: random.Random) -> None:
        self.ours, self.infos, self.rng = ours, {**ours, **core}, rng
        self.made: list[Prompt] = []
        self.sources = sources()

    def last(self) -> str:
        return f"the last of {len(self.made)}: " + "; ".join(json.dumps(one)[:300] for one in self.made[-3:])

    def prompt(self) -> Prompt:
        prompt: Prompt = {}
        name = self.rng.choice(list(self.ours))
        place = self._node(prompt, name, DEEP)
        if not self.ours[name]["output_node"] or self.rng.random() < 0.3:
            count = max(1, len(self.ours[name]["output"]))
            prompt["out"] = node("PreviewAny", source=[place, self.rng.randrange(count)])
        self.made.append(prompt)
        return prompt

    def _node(self, prompt: Prompt, name: str, deep: int) -> str:
        info, inputs = self.infos[name]["input"], {}
        for group, chance in (("required", 0.99), ("optional", 0.4)):
            for socket, spec in info.get(group, {}).items():
                if socket in CHEAP or self.rng.random() < chance:  # a default of 50 steps tries nothing more
                    inputs[socket] = self._value(prompt, socket, spec, deep)
        if self.rng.random() < 0.02:
            inputs["unknown"] = self.rng.choice(list(JSON.values()))
        place = str(len(prompt) + 1)
        prompt[place] = node(name, **inputs)
        return place

    def _value(self, prompt: Prompt, socket: str, spec: Any, deep: int) -> Any:
        kind, options = spec[0], spec[1] if len(spec) > 1 else {}
        chance = self.rng.random()
        if chance < 0.06:
            return self.rng.choice(list(JSON.values()))
        if chance < 0.09 and prompt:
            return [self.rng.choice(list(prompt)), self.rng.choice((0, 0, 1, 99))]
        if chance < 0.13:
            place = f"{len(prompt) + 1}"
            prompt[place] = node("LLMGATest_Value", kind=self.rng.choice(VALUES))
            return [place, 0]
        if isinstance(kind, list) or kind == "COMBO":
            choices = kind if isinstance(kind, list) else options.get("options") or [""]
            return self.rng.choice(choices)
        if kind in ("INT", "FLOAT", "BOOLEAN", "STRING"):
            if kind == "STRING":
                return self.rng.choice(
                    GOOD.get(socket, ["a large red star on snow", options.get("default") or ""])
                )
            return CHEAP.get(socket, options.get("default", False if kind == "BOOLEAN" else 1))
        return self._link(prompt, kind, deep)

    def _link(self, prompt: Prompt, kind: str, deep: int) -> Any:
        made = [
            (name, i)
            for name, info in self.infos.items()
            for i, output in enumerate(info["output"])
            if output == kind and deep > 0
        ]
        if kind in self.sources and (not made or self.rng.random() < 0.7):
            source, output = self.sources[kind]
            place = str(len(prompt) + 1)
            prompt[place] = source
            return [place, output]
        if not made:
            return self.rng.choice(list(JSON.values()))
        name, output = self.rng.choice(made)
        return [self._node(prompt, name, deep - 1), output]


VALUES = (
    "nan", "infinity", "negative", "none", "bytes", "list", "set", "dict", "huge", "text", "long", "parent", "absolute",
    "device", "nul", "true", "nan_image", "empty_image", "flat_image", "two_masks", "object",
)  # fmt: skip
"""What LLMGATest_Value has."""


def _round(server: ComfyServer, prompts: list[Prompt], maker: Maker, counts: Counts) -> list[Finding]:
    findings, waiting = [], {}
    for prompt in prompts:
        counts.ran["prompts"] += 1
        status, body = _post(server, prompt)
        counts.ran[f"prompts HTTP {status}"] += 1
        if status == 500:
            findings.append(Finding("HTTP 500", clipped(body)[:120], _short(prompt), clipped(body)))
        if status == 200:
            waiting[json.loads(body)["prompt_id"]] = prompt
    deadline, cancelled = time.monotonic() + LIMIT, False
    while waiting:
        for prompt_id in list(waiting):
            entry = server.history(prompt_id)
            if entry is not None:
                findings += _judged(entry, waiting.pop(prompt_id), maker, counts)
        if not waiting:
            break
        time.sleep(0.03)
        if time.monotonic() > deadline:
            if cancelled:
                counts.ran["stuck prompts"] += len(waiting)
                first = next(iter(waiting.values()))
                findings.append(
                    Finding(
                        "stuck", _nodes(first), _short(first), f"still running {STUCK:g} s after a cancel"
                    )
                )
                server.restart()
                break
            cancelled, deadline = True, time.monotonic() + STUCK
            counts.ran["cancelled prompts"] += len(waiting)
            server.request("/queue", {"clear": True})
            running = {one[1] for one in server.get("/queue")["queue_running"]}
            server.interrupt()
            waiting = {one: prompt for one, prompt in waiting.items() if one in running}
    return findings


def _post(server: ComfyServer, prompt: Prompt) -> tuple[int, str]:
    try:
        return 200, server.request("/prompt", {"prompt": prompt, "client_id": ""}).decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode("utf-8", "replace")


def _judged(entry: dict[str, Any], prompt: Prompt, maker: Maker, counts: Counts) -> list[Finding]:
    for kind, details in entry["status"]["messages"]:
        if kind != "execution_error":
            continue
        name = details["node_type"]
        if name not in maker.ours:
            counts.ran["prompts failed in core"] += 1
            return []
        info = maker.ours[name]["input"]
        names = [*info.get("required", {}), *info.get("optional", {})]
        outcome = classify(details["exception_type"], details["exception_message"], names)
        counts.ran[f"prompts {outcome}"] += 1
        if outcome == "named":
            return []
        where = f"{name}: {details['exception_type'].rpartition('.')[2]} at {_line(details['traceback'])}"
        said = f"{details['exception_type']}: {details['exception_message']}"
        return [Finding(outcome, where, _short(prompt), clipped(said))]
    counts.ran[f"prompts {entry['status']['status_str']}"] += 1
    return []


def _line(traceback: list[str]) -> str:
    """Where in our code, as "file:line"."""
    ours = [one for one in traceback if "ComfyUI-LLMGA" in one or "/llmga/" in one]
    frame = (ours or traceback or [""])[-1].strip().partition("\n")[0]
    parts = frame.replace('"', "").split(",")
    return (
        f"{parts[0].rpartition('/')[2]}:{parts[1].strip().removeprefix('line ')}" if len(parts) > 1 else frame
    )


def _short(prompt: Prompt) -> str:
    text = json.dumps({place: {one["class_type"]: one["inputs"]} for place, one in prompt.items()})
    return text if len(text) < 2000 else text[:2000] + "…"


def _nodes(prompt: Prompt) -> str:
    return " → ".join(one["class_type"] for one in prompt.values())
