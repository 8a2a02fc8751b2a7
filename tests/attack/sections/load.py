"""A full queue over many nodes: everything ends, and memory grows no faster than in a ComfyUI without the pack.

Prompts of one kind come in runs, and memory is compared within the second half of each run: which models are loaded moves
it by 30 MB, their first use and the allocator's arenas grow it, and none of that is what a prompt leaves behind.
"""

from __future__ import annotations

import random
import time
from typing import Any

from support.graphs import chat, checkpoint, encode, image, local, node, preview

from tools.comfy_client import ServerError
from tools.comfy_server import ComfyServer

from ..budget import Budget
from ..report import Counts, Finding
from ..server import Prompt, alive, live, process_of, resident

BATCH = 20
RUN = 10  # batches of one kind, of which the first half only warms up
WAIT = 120.0
KINDS = 5


def run(budget: Budget, rng: random.Random) -> tuple[list[Finding], Counts]:
    findings, counts = [], Counts()
    budget.restart(counts.ran)
    for name, share, goal in (("the pack", 0.6, "queued prompts"), ("no pack", 0.3, "control prompts")):
        ours = name == "the pack"
        with live(pack=ours) as (server, _):
            part = budget.part(share, goal)
            samples, ended = _fill(server, part, rng, counts, ours)
            findings += ended
        if sum(map(len, samples)) >= 3:
            counts.measure(f"kB a prompt with {name}", slope(samples) / 1024)
        else:
            counts.skipped.append(
                f"memory slope with {name}: too few prompts in {part.spent:.0f} s, or no /proc"
            )
    return findings, counts


def slope(runs: list[list[tuple[int, int]]]) -> float:
    """Least squares: bytes a prompt, from (prompts so far, bytes held), each run with a level of its own."""
    spread = shared = 0.0
    for samples in filter(None, runs):
        mean_x = sum(x for x, _ in samples) / len(samples)
        mean_y = sum(y for _, y in samples) / len(samples)
        spread += sum((x - mean_x) ** 2 for x, _ in samples)
        shared += sum((x - mean_x) * (y - mean_y) for x, y in samples)
    return shared / spread if spread else 0.0


def _fill(
    server: ComfyServer, budget: Budget, rng: random.Random, counts: Counts, ours: bool
) -> tuple[list[list[tuple[int, int]]], list[Finding]]:
    samples: list[list[tuple[int, int]]] = []
    done = 0
    try:
        while budget:
            run, at = divmod(done // BATCH, RUN)
            if at == 0:
                samples.append([])
            queued = [
                server.queue(prompt_of(rng, run % KINDS if ours else None), client_id="load")
                for _ in range(BATCH)
            ]
            if ours and rng.random() < 0.5:
                server.interrupt()
            if not _drained(server, queued):
                counts.ran["stuck prompts"] += 1
                return samples, [
                    Finding("stuck", "a full queue", f"{BATCH} prompts at once", f"not done in {WAIT:g} s")
                ]
            done += BATCH
            counts.ran["queued prompts" if ours else "control prompts"] += BATCH
            held = resident(process_of(server))
            if held is not None and at >= RUN // 2:
                samples[-1].append((done, held))
            server.request("/history", {"clear": True})
    except ServerError as error:
        return samples, [Finding("exit", "a full queue", f"after {done} prompts", str(error)[:400])]
    return samples, [] if alive(server) else [Finding("stuck", "after a full queue", f"{done} prompts")]


def _drained(server: ComfyServer, queued: list[str]) -> bool:
    deadline, waiting = time.monotonic() + WAIT, set(queued)
    while waiting and time.monotonic() < deadline:
        waiting -= server.get("/history").keys()
        time.sleep(0.05)
    return not waiting


def prompt_of(rng: random.Random, kind: int | None) -> Prompt:
    """A small prompt that no cache answers: around our nodes, one of ``KINDS``, or of core's own alone."""
    seed = rng.randrange(2**31)
    small: dict[str, Any] = {
        "1": node("EmptyImage", width=64 + 8 * rng.randrange(4), height=64, batch_size=1, color=seed % 2**24)
    }
    if kind is None:
        return {**small, "2": node("ImageInvert", image=["1", 0]), "3": node("PreviewImage", images=["2", 0])}
    if kind == 0:
        return {"1": local(), "2": chat("1", f"a fox {seed}", max_new_tokens=4), "3": preview(["2", 0])}
    if kind == 1:
        return {"1": checkpoint(), "2": encode(["1", 1], f"a star {seed}"), "3": preview(["2", 2])}
    if kind == 2:
        mask = node("SolidMask", value=1.0, width=16, height=16)
        cut = node(
            "LLMGA_CropForPainting",
            image=["1", 0],
            mask=["2", 0],
            width=64,
            height=64,
            context=1.5,
            enlarge=False,
        )
        put = node("LLMGA_StitchPainting", crop=["3", 2], painted=["3", 0], blend=2)
        return {**small, "2": mask, "3": cut, "4": put, "5": node("PreviewImage", images=["4", 0])}
    if kind == 3:
        drawn = node("LLMGA_PrepareMask", image=["1", 0], source="wide", grow=0, seed=seed)
        return {"1": image(), "2": drawn, "3": preview(["2", 1])}
    return {
        "1": node("LLMGA_Endpoint", endpoint="demo"),
        "2": chat("1", f"a ring {seed}"),
        "3": preview(["2", 0]),
    }
