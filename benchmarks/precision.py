"""bfloat16, int8 and int4 of one language model: memory of the layers and while loading, time, perplexity, tasks.

    python benchmarks/precision.py [count]

First a Qwen2 with random weights in the proportions of a real one, loaded by a process of its own for each precision, that
computes in bfloat16. *peak* is the largest growth of the process's own memory while the folder was loaded: pages of the
weight file that are merely mapped are not counted, for the system takes them back. Then the miniature, in float32: the
perplexity of true replies to ``count`` held-out requests of each kind, and with ``count`` requests of each task the figures
of ``python -m miniworld check-chat``; 0 leaves the tasks out.
"""

from __future__ import annotations

import json
import math
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from llmga.chat import Conversation, Picture, Sampling
from llmga.chat.checkpoints import CheckpointOptions
from llmga.chat.engines.local import LocalEngine
from llmga.chat.engines.weight_only import WeightOnlyLinear
from llmga.chat.folders import load_local_engine
from miniworld.checks.chat import check_chat, held_out_scenes
from miniworld.models.random_language import write_tiny_text
from miniworld.world.records import sample_record

PRECISIONS = {"bfloat16": None, "int8": 8, "int4": 4}
MINIATURE = Path(__file__).resolve().parents[1] / "miniature" / "LLM" / "llmga-mini"
WIDE = {
    "vocab_size": 32000,
    "hidden_size": 2048,
    "intermediate_size": 5632,
    "num_hidden_layers": 8,
    "num_attention_heads": 16,
    "num_key_value_heads": 16,
}
KINDS = ("refine", "describe", "similar", "edit", "inpaint")
TOKENS = 16


def write_wide(folder: Path) -> Path:
    """A Qwen2 with random weights of ``WIDE`` in bfloat16, with the tokenizer of a tiny one."""
    from transformers import AutoConfig, AutoModelForCausalLM

    write_tiny_text(folder, seed=1)
    tiny: Any = AutoConfig.from_pretrained(folder)
    config = type(tiny)(**WIDE, eos_token_id=tiny.eos_token_id, tie_word_embeddings=False)
    with torch.device("meta"):
        net = AutoModelForCausalLM.from_config(config).bfloat16()
    net = net.to_empty(device="cpu")
    generator = torch.Generator().manual_seed(0)
    for parameter in net.parameters():
        parameter.data = torch.ones_like(parameter)
        if parameter.dim() > 1:
            parameter.data.normal_(std=0.02, generator=generator)
    (folder / "model.safetensors").unlink()
    net.save_pretrained(folder)
    return folder


def own_memory() -> int:
    """Bytes of this process that are not a mapped file."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("RssAnon:"))


def loaded(folder: Path, bits: int | None) -> dict[str, float]:
    """What this process sees while it loads a folder and writes ``TOKENS`` tokens."""
    torch.set_num_threads(1)
    load_local_engine(
        write_tiny_text(Path(tempfile.mkdtemp(), "warm"))
    )  # what libraries keep is not the model's
    before, peak, done = own_memory(), 0, threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.wait(0.002):
            peak = max(peak, own_memory())

    watcher = threading.Thread(target=watch)
    watcher.start()
    start = time.process_time()
    engine = load_local_engine(folder, torch.bfloat16, CheckpointOptions(weight_bits=bits))
    seconds = time.process_time() - start
    done.set()
    watcher.join()
    net: Any = engine.net
    every = sum(value.nbytes for value in (*net.parameters(), *net.buffers()))
    layers = [m for m in net.get_decoder().modules() if isinstance(m, (torch.nn.Linear, WeightOnlyLinear))]
    stored = sum(m.weight.nbytes + (m.scale.nbytes if isinstance(m, WeightOnlyLinear) else 0) for m in layers)
    start = time.process_time()
    engine.generate(
        Conversation().say("user", "a fox"), Sampling(temperature=0, max_new_tokens=TOKENS), lambda _: None
    )
    return {
        "layers": stored,
        "weights": every,
        "peak": max(peak - before, 0),
        "load": seconds,
        "token": (time.process_time() - start) / TOKENS,
    }


def perplexity(engine: LocalEngine, count: int) -> float:
    """exp of the mean loss of the tokens of true replies, end token included, to held-out requests."""
    losses = []
    for kind in KINDS:
        for seed in range(count):
            record = sample_record(kind, held_out_scenes(seed)[seed], seed, held_out=True)  # type: ignore[arg-type]
            pictures = tuple(map(Picture.from_pil, record.pictures))
            asked = Conversation().say("user", record.instruction, pictures)
            begin = len(engine.token_ids(asked))
            inputs = engine._encode(asked.say("assistant", record.reply))
            with torch.no_grad():
                logits = engine.net(**inputs).logits[0, begin - 1 : -1].float()
            losses.append(
                torch.nn.functional.cross_entropy(logits, inputs["input_ids"][0, begin:], reduction="none")
            )
    return math.exp(torch.cat(losses).mean())


def unpacked(bits: int | None, folder: Path) -> Path:
    """The miniature with the numbers that a precision computes with, as a folder for ``check_chat``."""
    shutil.copytree(MINIATURE, folder)
    whole: Any = load_local_engine(MINIATURE, torch.float32).net
    packed: Any = load_local_engine(MINIATURE, torch.float32, CheckpointOptions(weight_bits=bits)).net
    for name, module in packed.named_modules():
        if isinstance(module, WeightOnlyLinear):
            whole.get_submodule(name).weight.data = module.unpacked(torch.float32)
    (folder / "model.safetensors").unlink()
    whole.save_pretrained(folder)
    return folder


def main(count: int = 20) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        wide = write_wide(Path(temporary, "wide"))
        command = [sys.executable, __file__, "--load", str(wide)]
        rows = {}
        for name in PRECISIONS:
            done = subprocess.run([*command, name], stdout=subprocess.PIPE, text=True, check=True)
            rows[name] = json.loads(done.stdout.splitlines()[-1])
    first = rows["bfloat16"]
    sys.stdout.write("a Qwen2 of 8 layers of width 2048\n")
    for name, row in rows.items():
        sys.stdout.write(
            f"{name:9} layers {row['layers'] / 1e6:6.1f} MB {row['layers'] / first['layers']:.3f}   all weights "
            f"{row['weights'] / 1e6:7.1f} MB {row['weights'] / first['weights']:.3f}   peak while loading "
            f"{row['peak'] / 1e6:6.1f} MB   loading {row['load']:.1f} s   a token {row['token']:.2f} s\n"
        )
    sys.stdout.write("the miniature\n")
    torch.set_num_threads(1)
    for name, bits in {"float32": None, **dict(list(PRECISIONS.items())[1:])}.items():
        engine = load_local_engine(MINIATURE, torch.float32, CheckpointOptions(weight_bits=bits))
        sys.stdout.write(f"{name:9} perplexity {perplexity(engine, max(count, 20)):.4f}\n")
        if not count:
            continue
        with tempfile.TemporaryDirectory() as temporary:
            results = check_chat(unpacked(bits, Path(temporary, "llmga-mini")), count, workers=1)
        for what, row in results.items():
            if what.startswith(("facts kept", "form", "edits", "changes")):
                sys.stdout.write(f"{name:9} {what}: {row['share']}\n")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--load"]:
        sys.stdout.write(json.dumps(loaded(Path(sys.argv[2]), PRECISIONS[sys.argv[3]])) + "\n")
    else:
        main(*map(int, sys.argv[1:]))
