"""What only a graphics card shows: half precision, memory and times at full size, as one table.

    python dev.py gpu [--only NAME …] [--steps 50] [--small]

Random weights in the released sizes: UNets of SD1.5 and SDXL, a Llama of 7 billion parameters behind LLaVA's projector,
DiffRIR. Each row compares with float32, or with the procedure as published, on the same weights and the same card. Of a
random net the pictures mean nothing; the differences, times and peaks do. A row that fails says why, and the others go on.

``--small`` runs the same rows on networks that take seconds, on the processor where there is no card: it shows that the
rows run, and its figures say nothing.
"""

from __future__ import annotations

import argparse
import gc
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from support.published_edit import published_edit  # noqa: E402
from support.tiny_unet import SD15 as TINY_SD15  # noqa: E402
from support.tiny_unet import SDXL as TINY_SDXL  # noqa: E402

from llmga.diffusion import DiffusersContext, DiffusersDenoiser  # noqa: E402
from llmga.edit import Control, edit, invert  # noqa: E402

HALVES = (torch.bfloat16, torch.float16)
TOKENS = 77
SDXL: dict[str, Any] = {
    "sample_size": 128,
    "block_out_channels": (320, 640, 1280),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "transformer_layers_per_block": (1, 2, 10),
    "cross_attention_dim": 2048,
    "attention_head_dim": (5, 10, 20),
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
}
SD15: dict[str, Any] = {"sample_size": 64, "cross_attention_dim": 768, "attention_head_dim": 8}
LLAMA_7B: dict[str, Any] = {
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
}
TINY_LLAMA: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
}


@dataclass
class Card:
    """The device, and what the options ask of it."""

    device: torch.device
    small: bool
    steps: int
    rows: list[tuple[str, str, str]] = field(default_factory=list)

    def add(self, what: str, figure: str, reference: str = "") -> None:
        self.rows.append((what, figure, reference))
        print(f"{what:<58}{figure:>28}{reference:>28}", flush=True)

    @contextmanager
    def measured(self) -> Iterator[dict[str, float]]:
        """Seconds, and GiB of memory at the peak beyond what was held before (0 without a card)."""
        found: dict[str, float] = {}
        cuda = self.device.type == "cuda"
        if cuda:
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
        held, start = (torch.cuda.memory_allocated() if cuda else 0), time.perf_counter()
        yield found
        if cuda:
            torch.cuda.synchronize()
        found["seconds"] = time.perf_counter() - start
        found["GiB"] = (torch.cuda.max_memory_allocated() - held) / 2**30 if cuda else 0.0


def random_net(make: Callable[[], Any], card: Card, dtype: torch.dtype) -> Any:
    """A network with random weights of a scale that keeps its activations near one, made on the card."""
    with torch.device("meta"):
        net = make()
    # As torch does it: diffusers' own method warns of every type.
    net = torch.nn.Module.to(net, dtype).to_empty(device=card.device).eval().requires_grad_(False)
    generator = torch.Generator(card.device).manual_seed(0)
    for name, weight in net.named_parameters():
        if weight.dim() > 1:
            weight.normal_(0, 0.5 * weight[0].numel() ** -0.5, generator=generator)
        else:
            weight.fill_(float(name.endswith("weight")))
    for name, buffer in net.named_buffers():
        if "position_ids" in name:
            buffer.copy_(torch.arange(buffer.shape[-1], device=buffer.device).expand_as(buffer))
    return net


def unet(config: dict[str, Any], card: Card, dtype: torch.dtype) -> DiffusersDenoiser:
    from diffusers import UNet2DConditionModel

    return DiffusersDenoiser(random_net(lambda: UNet2DConditionModel(**config), card, dtype))


def context(config: dict[str, Any], card: Card, seed: int) -> DiffusersContext:
    generator = torch.Generator().manual_seed(seed)
    states = torch.randn(1, TOKENS, config["cross_attention_dim"], generator=generator).to(card.device)
    if "addition_embed_type" not in config:
        return DiffusersContext(states)
    width = config["projection_class_embeddings_input_dim"] - 6 * config["addition_time_embed_dim"]
    pixels = 8.0 * config["sample_size"]
    return DiffusersContext(
        states,
        torch.randn(1, width, generator=generator).to(card.device),
        torch.tensor([[pixels, pixels, 0, 0, pixels, pixels]], device=card.device),
    )


def unets(card: Card) -> Iterator[tuple[str, dict[str, Any], torch.Tensor]]:
    chosen = (("SD1.5", TINY_SD15), ("SDXL", TINY_SDXL)) if card.small else (("SD1.5", SD15), ("SDXL", SDXL))
    for name, config in chosen:
        side = 16 if card.small else config["sample_size"]
        latent = torch.randn(1, 4, side, side, generator=torch.Generator().manual_seed(1))
        yield name, config, latent.to(card.device)


def relative(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found.double() - expected.double()).norm() / expected.double().norm())


def half_precision(card: Card) -> None:
    """One pass of each UNet in half precision against float32: norm of the difference over the norm."""
    for name, config, latent in unets(card):
        denoiser = unet(config, card, torch.float32)
        weights = {key: value.cpu() for key, value in denoiser.unet.state_dict().items()}
        expected = denoiser.eps(latent, 501, [context(config, card, 2)])
        for dtype in HALVES:
            torch.nn.Module.to(denoiser.unet, dtype).load_state_dict(weights)
            found = denoiser.eps(latent, 501, [context(config, card, 2)])
            assert expected is not None and found is not None
            finite = "" if found.isfinite().all() else ", not finite"
            card.add(
                f"{name}, one pass, {dtype}: off from float32 by", f"{relative(found, expected):.1e}{finite}"
            )
        del denoiser


def edits(card: Card) -> None:
    """A whole edit in bfloat16 against the procedure as published: seconds, rows of the UNet, and memory."""

    class Counting(DiffusersDenoiser):
        rows = 0

        def eps(self, x: torch.Tensor, *rest: Any, **named: Any) -> torch.Tensor | None:
            self.rows += len(x)
            return super().eps(x, *rest, **named)

    replaced = torch.zeros(TOKENS)
    replaced[5] = 1
    control = Control(torch.eye(TOKENS) - torch.diag(replaced), replaced)
    for name, config, latent in unets(card):
        denoiser = Counting(unet(config, card, torch.bfloat16).unet)
        source, target, negative = (context(config, card, seed) for seed in (2, 3, 4))
        edit(denoiser, invert(denoiser, latent, source, 2), source, target, negative, control)  # unmeasured
        denoiser.rows = 0
        with card.measured() as ours:
            edit(denoiser, invert(denoiser, latent, source, card.steps), source, target, negative, control)
        rows, denoiser.rows = denoiser.rows, 0
        with card.measured() as theirs:
            published_edit(denoiser, latent, source, target, negative, control, card.steps, reconstruct=True)
        what = f"{name}, an edit of {card.steps} steps, bfloat16"
        card.add(
            what, f"{ours['seconds']:.1f} s, {rows} rows", f"{theirs['seconds']:.1f} s, {denoiser.rows} rows"
        )
        card.add(f"{what}: peak over the weights", f"{ours['GiB']:.2f} GiB", f"{theirs['GiB']:.2f} GiB")
        del denoiser


def language(card: Card) -> None:
    """A Llama of 7 billion parameters: time to the first token, tokens a second, peak, and transformers' own ids."""
    from transformers import LlamaConfig, LlamaForCausalLM

    from llmga.chat import Conversation, Sampling
    from llmga.chat.engines.local import LocalEngine

    size = TINY_LLAMA if card.small else LLAMA_7B
    tokenizer, vocabulary = _tokenizer()
    config = LlamaConfig(vocab_size=vocabulary, max_position_embeddings=4096, **size)
    net = random_net(lambda: LlamaForCausalLM(config), card, torch.bfloat16)
    net.model.rotary_emb = type(net.model.rotary_emb)(config).to(card.device)
    engine = LocalEngine(net, tokenizer, "random")
    words = "please paint the old lantern over the quiet river with soft light, " * (2 if card.small else 100)
    chat, length = Conversation().say("user", words), 16 if card.small else 128
    engine.generate(chat, Sampling(temperature=0, max_new_tokens=2), lambda _: None)
    times = []
    for count in (1, length):
        engine.forget()
        with card.measured() as found:
            written = engine.generate(chat, Sampling(temperature=0, max_new_tokens=count), lambda _: None)
        times.append(found)
    rate = (length - 1) / max(times[1]["seconds"] - times[0]["seconds"], 1e-9)
    ids = engine._encode(chat)["input_ids"].to(card.device)
    card.add(f"7B, bfloat16, {ids.shape[1]} tokens: to the first token", f"{times[0]['seconds']:.2f} s")
    with card.measured() as reference:
        theirs = net.generate(ids, max_new_tokens=length, do_sample=False)
    reply = tokenizer.decode(theirs[0, ids.shape[1] :], skip_special_tokens=True)
    their_rate = length / reference["seconds"]
    card.add(
        "7B, bfloat16: tokens a second (transformers with its reading)", f"{rate:.1f}", f"{their_rate:.1f}"
    )
    card.add(
        "7B, bfloat16: peak over the weights", f"{times[1]['GiB']:.2f} GiB", f"{reference['GiB']:.2f} GiB"
    )
    # A random net's logits lie close together: in half precision replies part where two ways of reading round apart.
    ours, same = written.answer.strip(), 0
    for one, other in zip(ours, reply.strip(), strict=False):
        if one != other:
            break
        same += 1
    card.add("7B, bfloat16: letters in which the replies begin alike", f"{same} of {len(ours)}")


def _tokenizer() -> tuple[Any, int]:
    """A small tokenizer with a chat template, and how many tokens it knows."""
    import tempfile

    from llmga.chat.folders import load_local_engine
    from miniworld.models.random_language import write_tiny_text

    with tempfile.TemporaryDirectory() as folder:
        engine = load_local_engine(write_tiny_text(Path(folder, "tiny")))
    return engine._processor, len(engine._processor)


def restoring(card: Card) -> None:
    """DiffRIR x1 in half precision against float32, seconds and peak memory."""
    from support.diffrir_weights import fill

    from llmga.restore import Architecture, DiffRIRS2, restore

    for side in (64,) if card.small else (512, 1024):
        image, reference = torch.rand(2, 1, 3, side, side, generator=torch.Generator().manual_seed(1))
        mask = torch.zeros(1, 1, side, side)
        mask[..., side // 8 : -side // 8, side // 8 : -side // 8] = 1
        given = [value.to(card.device) for value in (image, reference, mask)]
        expected: torch.Tensor | None = None
        for dtype in (torch.float32, *HALVES):
            net = DiffRIRS2(Architecture())
            fill(net.named_parameters())
            net.to(card.device, dtype).eval()
            restore(net, given[0], given[1], given[2])
            with card.measured() as found:
                made = restore(net, given[0], given[1], given[2]).float()
            expected = made if expected is None else expected
            off = relative(made, expected)
            figure = f"{found['seconds']:.2f} s, {found['GiB']:.2f} GiB"
            card.add(f"DiffRIR at {side}², {dtype}: off from float32 by {off:.1e}", figure)


def cancelling(card: Card) -> None:
    """From a cancel in the middle of a pass until the edit has ended: median and longest of ten."""

    class StoppedError(Exception):
        pass

    for name, config, latent in unets(card):
        denoiser = unet(config, card, torch.bfloat16)
        seconds = []
        for at in range(1, 11):

            def stop(i: int, *_: Any, at: int = at) -> None:
                if i >= at:
                    raise StoppedError

            begun = time.perf_counter()
            last = begun

            def step(i: int, *_: Any) -> None:
                nonlocal last
                stop(i)
                last = time.perf_counter()

            try:
                invert(denoiser, latent, context(config, card, 2), 20, on_step=step)
            except StoppedError:
                seconds.append(time.perf_counter() - last)
        card.add(
            f"{name}: a cancel takes at most one step: median, longest",
            f"{median(seconds):.2f} s, {max(seconds):.2f} s",
        )


SECTIONS: dict[str, Callable[[Card], None]] = {
    "half precision": half_precision,
    "edits": edits,
    "language": language,
    "restoring": restoring,
    "cancelling": cancelling,
}


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", action="append", choices=SECTIONS, help="may be repeated")
    parser.add_argument("--steps", type=int, default=50, help="of an edit")
    parser.add_argument("--small", action="store_true", help="tiny networks, on the processor too")
    options, _ = parser.parse_known_args()
    if not torch.cuda.is_available() and not options.small:
        print("no CUDA device: nothing was measured (--small runs the same rows on the processor)")
        return 0
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    name = torch.cuda.get_device_name() if device.type == "cuda" else "processor"
    print(f"{name}, torch {torch.__version__}" + (", small networks" if options.small else ""))
    print(f"{'':<58}{'ours':>28}{'reference':>28}")
    card, failed = Card(device, options.small, options.steps), 0
    for section in options.only or SECTIONS:
        try:
            SECTIONS[section](card)
        except (RuntimeError, ValueError, TypeError, ImportError) as error:  # out of memory is a RuntimeError
            card.add(section, "failed", str(error).splitlines()[0][:60])
            failed += 1
        gc.collect()
        if device.type == "cuda":
            torch.cuda.empty_cache()
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
