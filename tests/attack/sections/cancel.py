"""How long a prompt still runs after it was cancelled: decoding, inversion, denoising, restoring, measuring, an endpoint."""

from __future__ import annotations

import random
import time
from typing import Any

from support.graphs import chat, checkpoint, endpoint, image, local, node, preview

from tools.comfy_client import PromptFailedError, PromptInterruptedError, ServerError
from tools.comfy_server import ComfyServer
from tools.props import RESTORER

from ..budget import Budget
from ..report import Counts, Finding, clipped
from ..scoreboard import CANCEL
from ..server import Prompt, live

LONGEST = 30.0


def run(budget: Budget, rng: random.Random) -> tuple[list[Finding], Counts]:
    findings, counts = [], Counts()
    with live() as (server, assistant):
        assistant.behave("stall")
        budget.restart(counts.ran)
        kinds = list(CANCEL)
        while budget:
            kind = kinds[counts.ran["cancels"] % len(kinds)]
            try:
                findings += _one(server, kind, rng, counts)
            except ServerError as error:
                findings.append(Finding("exit", kind, f"a cancel during {kind}", clipped(str(error))))
                break
    return findings, counts


def _one(server: ComfyServer, kind: str, rng: random.Random, counts: Counts) -> list[Finding]:
    prompt, busy = long_prompt(kind, rng.randrange(2**31))
    after, started, ended = rng.uniform(0.1, 1.5), 0.0, 0.0
    asked = 0.0

    def on_event(event: str, data: Any) -> None:
        nonlocal started, asked, ended
        now = time.monotonic()
        if event == "executing" and data.get("node") == busy and not started:
            started = now
        if started and not asked and now - started > after:
            asked = now
            server.interrupt()
        if asked and event in ("execution_interrupted", "execution_error", "execution_success") and not ended:
            ended = now

    queued = server.queue(prompt)
    deadline = time.monotonic() + LONGEST
    outcome = "running"
    while outcome == "running" and time.monotonic() < deadline:
        try:
            server.wait(queued, 0.2, on_event)
            outcome = "success"
        except TimeoutError:
            on_event("tick", {})
        except PromptInterruptedError:
            outcome = "cancelled"
        except PromptFailedError as error:
            outcome = f"{error.exception_type}: {error.exception_message}"
    counts.ran["cancels"] += 1
    case = f"{kind}, cancelled {after:.2f} s after its node began"
    if outcome == "running":
        server.restart()
        return [Finding("hang", f"cancel of {kind}", case, f"still running after {LONGEST:g} s")]
    if outcome == "cancelled" and asked:
        counts.measure(f"cancel of {kind}", (ended or time.monotonic()) - asked)
    elif outcome == "success":
        counts.ran[f"{kind} ended before its cancel"] += 1
    else:
        return [Finding("bare", f"cancel of {kind}", case, clipped(outcome))]
    return []


def long_prompt(kind: str, seed: int) -> tuple[Prompt, str]:
    """A prompt that takes long on tiny models, and the node in which it does."""
    edit = {
        "cfg": 7.5, "cross_replace": 0.4, "self_replace": 0.6, "local_blend": "off", "layout": "llmga",
        "target_prompt": f"a blue star {seed}",
    }  # fmt: skip
    picture, trio = image(), {"model": ["1", 0], "clip": ["1", 1], "vae": ["1", 2]}
    if kind == "decode":
        return {
            "1": local(),
            "2": chat("1", f"a fox {seed}", max_new_tokens=8192, temperature=1.0, seed=seed),
            "3": preview(["2", 0]),
        }, "2"
    if kind == "prefill":
        words = f"{seed} " + "a small red star " * 400
        return {"1": local(), "2": chat("1", words, max_new_tokens=2048), "3": preview(["2", 0])}, "2"
    if kind == "endpoint":
        return {"1": endpoint(), "2": chat("1", f"a fox {seed}"), "3": preview(["2", 0])}, "2"
    big = node(
        "ImageScale", image=["1", 0], upscale_method="bilinear", width=2048, height=2048, crop="disabled"
    )
    if kind == "seam":
        return {
            "1": picture,
            "2": big,
            "3": node("LLMGA_PrepareMask", image=["2", 0], source="wide", grow=0, seed=seed),
            "4": node("LLMGA_SeamReport", image=["2", 0], mask=["3", 0], band=8),
            "5": preview(["4", 4]),
        }, "4"
    if kind == "restore":
        return {
            "1": picture,
            "2": big,
            "3": node("SolidMask", value=1.0, width=64, height=64),
            "4": node("LLMGA_DiffRIRLoader", restorer_file=RESTORER, precision="float32"),
            "5": node("LLMGA_DiffRIRRestore", image=["2", 0], reference=["2", 0], mask=["3", 0], method="DiffRIR", seed=seed,
                      blend="soft", restorer=["4", 0]),
            "6": node("PreviewImage", images=["5", 0]),
        }, "5"  # fmt: skip
    if kind == "inversion":
        invert = node(
            "LLMGA_Invert",
            **trio,
            image=["2", 0],
            source_prompt=f"a star {seed}",
            steps=999,
            layout="llmga",
            max_chunks=1,
        )
        return {"1": checkpoint(), "2": picture, "3": invert, "4": preview(["3", 1])}, "3"
    wanted = node(
        "LLMGA_InversionEdit",
        **trio,
        **edit,
        image=["2", 0],
        source_prompt="a red star",
        steps=400,
        negative_prompt="",
    )
    return {"1": checkpoint(), "2": picture, "3": wanted, "4": node("PreviewImage", images=["3", 0])}, "3"
