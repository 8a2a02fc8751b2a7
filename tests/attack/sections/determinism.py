"""The same prompts in new processes and under other caches give the same pictures and words; a killed server comes back."""

from __future__ import annotations

import hashlib
import io
import os
import random
import signal
import time
from typing import Any

from PIL import Image
from support.graphs import chat, checkpoint, encode, image, local, node, preview

from tools.comfy_client import ComfyError, ServerError
from tools.comfy_server import ComfyServer
from tools.props import RESTORER

from ..budget import Budget
from ..report import Counts, Finding
from ..server import Prompt, alive, live, process_of

CACHES = ((), ("--cache-classic",), ("--cache-lru", "10"), ("--cache-none",))
REPEATS = 3


def run(budget: Budget, rng: random.Random) -> tuple[list[Finding], Counts]:
    findings, counts = [], Counts()
    first: dict[str, str] = {}
    prompts = {name: make(rng.randrange(2**31)) for name, make in PROMPTS.items()}
    for i in range(100):
        if i >= 2 and not budget:  # two processes, or nothing was compared
            break
        caches = CACHES[i % len(CACHES)]
        with live(arguments=caches) as (server, _):
            if i == 0:
                budget.restart(counts.ran)
            for repeat in range(REPEATS):
                for name, prompt in prompts.items():
                    if repeat and not budget:
                        break
                    found = digest(server, server.run(prompt, timeout=120))
                    counts.ran["repeats"] += 1
                    if first.setdefault(name, found) != found:
                        case = f"{name} in process {i}, run {repeat}, with {' '.join(caches) or 'the default cache'}"
                        findings.append(Finding("not equal", name, case))
                server.free()
            if i and budget:
                findings += _killed(server, prompts["chat"], rng, counts)
    return findings, counts


def digest(server: ComfyServer, entry: dict[str, Any]) -> str:
    """Of the pixels and words that a prompt showed."""
    parts: list[bytes] = []
    for place, shown in sorted(entry["outputs"].items()):
        parts += [place.encode(), *(str(text).encode() for text in shown.get("text", ()))]
        for one in shown.get("images", ()):
            parts.append(Image.open(io.BytesIO(server.view(one))).tobytes())
    return hashlib.sha256(b"\0".join(parts)).hexdigest()


def _killed(server: ComfyServer, prompt: Prompt, rng: random.Random, counts: Counts) -> list[Finding]:
    """kill -9 while prompts run, and a start over the same folder: the first prompt runs, every saved chat is whole."""
    for i in range(6):
        saved = {**prompt, "8": node("LLMGA_SaveHistory", history=["2", 4], name=f"kill {i}")}
        saved["2"] = {**saved["2"], "inputs": {**saved["2"]["inputs"], "seed": rng.randrange(2**31)}}
        server.queue(saved, client_id="kill")
    time.sleep(rng.uniform(0.05, 1.5))
    os.kill(process_of(server), signal.SIGKILL)
    counts.ran["kills of a server"] += 1
    try:
        server.restart()
    except ServerError as error:
        return [Finding("exit", "a killed server does not start again", "kill -9", str(error)[:400])]
    findings = [] if alive(server) else [Finding("stuck", "after a killed server", "kill -9")]
    for path in (server.base / "user").rglob("kill *.json"):
        load = {"1": node("LLMGA_LoadHistory", name=path.stem), "2": preview(["1", 0])}
        try:
            server.run(load, timeout=60)
        except (ComfyError, TimeoutError) as error:
            counts.ran["partial files"] += 1
            findings.append(
                Finding("damaged file", "Save History in a killed server", path.name, str(error)[:400])
            )
    return findings


def _chat(seed: int) -> Prompt:
    return {
        "1": local(),
        "2": chat("1", "a fox", seed=seed, temperature=1.0, max_new_tokens=40),
        "3": preview(["2", 0]),
    }


def _paint(seed: int) -> Prompt:
    return {
        "1": checkpoint(),
        "2": encode(["1", 1], "a large red star on snow"),
        "3": node("EmptyLatentImage", width=64, height=64, batch_size=1),
        "4": node("KSampler", model=["1", 0], positive=["2", 0], negative=["2", 1], latent_image=["3", 0], seed=seed,
                  steps=4, cfg=4.0, sampler_name="euler", scheduler="normal", denoise=1.0),
        "5": node("VAEDecode", samples=["4", 0], vae=["1", 2]),
        "6": node("PreviewImage", images=["5", 0]),
    }  # fmt: skip


def _edit(seed: int) -> Prompt:
    return {
        "1": checkpoint(),
        "2": image(),
        "3": node("LLMGA_InversionEdit", model=["1", 0], clip=["1", 1], vae=["1", 2], image=["2", 0],
                  source_prompt="a red star", target_prompt=f"a blue star {seed % 7}", negative_prompt="",
                  cfg=7.5, cross_replace=0.4, self_replace=0.6,
                  local_blend="auto", steps=4, layout="llmga"),
        "4": node("PreviewImage", images=["3", 0]),
    }  # fmt: skip


def _restore(seed: int) -> Prompt:
    return {
        "1": image(),
        "2": node("LLMGA_PrepareMask", image=["1", 0], source="wide", grow=0, seed=seed),
        "3": node("LLMGA_DiffRIRLoader", restorer_file=RESTORER, precision="float32"),
        "4": node("LLMGA_DiffRIRRestore", image=["1", 0], reference=["1", 0], mask=["2", 0], method="DiffRIR", seed=seed,
                  blend="soft", restorer=["3", 0]),
        "5": node("PreviewImage", images=["4", 0]),
    }  # fmt: skip


PROMPTS = {"chat": _chat, "paint": _paint, "edit": _edit, "restore": _restore}
