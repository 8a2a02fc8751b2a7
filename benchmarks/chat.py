"""Turn 8 of a chat with two pictures: read on where turn 7 ended, against reading all of it again.

    python benchmarks/chat.py [rounds] [layers] [threads]

A LLaVA as deep as the released ones and 32 times as narrow, with random weights: pictures of 336 px and 576 tokens, 24
layers of CLIP, ``layers`` of Llama, Vicuna's transcript.
Time to the first token is from the call of ``generate`` to the
first letter, in CPU seconds: on one thread those of an idle machine, whatever else runs.
The official code reads the whole conversation in every turn. The two ways alternate, medians over the
rounds; every reply is compared. The last rows are a re-run of turn 8, and prompt lookup on a caption that repeats.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import torch
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from llmga.chat import Conversation, Picture, Sampling
from llmga.chat.checkpoints.families import FAMILIES, chat_template
from llmga.chat.checkpoints.processing import OfficialProcessor, find_image_token
from llmga.chat.engines.local import LocalEngine
from miniworld.models.random_language import write_tiny_llava

TURNS = 8
WORDS = (
    "please paint the old lantern over the quiet river, with soft light and a golden boat beside the bridge, "
)
SAMPLING = Sampling(temperature=0, max_new_tokens=48)
ONE = Sampling(temperature=0, max_new_tokens=1)


def deep_engine(layers: int) -> LocalEngine:
    from transformers import (
        AutoTokenizer,
        CLIPVisionConfig,
        LlamaConfig,
        LlavaConfig,
        LlavaForConditionalGeneration,
    )

    with tempfile.TemporaryDirectory() as folder:
        tokenizer = AutoTokenizer.from_pretrained(write_tiny_llava(Path(folder, "tiny")))
    vision = CLIPVisionConfig(
        hidden_size=128,
        intermediate_size=512,
        num_hidden_layers=24,
        num_attention_heads=2,
        image_size=336,
        patch_size=14,
    )
    text = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=128,
        intermediate_size=344,
        num_hidden_layers=layers,
        num_attention_heads=4,
        max_position_embeddings=8192,
        eos_token_id=tokenizer.eos_token_id,
    )
    spare = find_image_token(tokenizer, len(tokenizer))
    torch.manual_seed(0)
    config = LlavaConfig(
        vision_config=vision.to_dict(),
        text_config=text.to_dict(),
        image_token_index=spare.id,
        image_seq_length=576,
        tie_word_embeddings=False,
    )
    net = LlavaForConditionalGeneration(config)
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            if "layernorm" not in name and parameter.dim() > 1:
                parameter.normal_(std=1 / parameter[0].numel() ** 0.5)
        said = tokenizer(WORDS)["input_ids"]  # nothing else is ever said: an end token would be chance
        mute = torch.full((len(tokenizer),), True)
        mute[said] = False
        net.lm_head.weight[mute] = 0
    template = chat_template(FAMILIES["vicuna_v1"])
    return LocalEngine(net, OfficialProcessor(tokenizer, template, spare, 336, 576), "deep")


def first_token(engine: LocalEngine, chat: Conversation) -> tuple[float, str]:
    """Seconds to the first letter, and the whole reply."""
    start, at = time.process_time(), float("nan")

    def on_text(text: str) -> None:
        nonlocal at
        if text and at != at:
            at = time.process_time()

    reply = engine.generate(chat, SAMPLING, on_text).answer
    return at - start, reply


def conversation(engine: LocalEngine) -> Conversation:
    gradients = Image.radial_gradient("L"), Image.linear_gradient("L")
    pictures = {
        1: Picture.from_pil(gradients[0].resize((900, 600))),
        4: Picture.from_pil(gradients[1].resize((600, 800))),
    }
    chat = Conversation()
    for turn in range(1, TURNS + 1):
        chat = chat.say("user", WORDS + str(turn), (pictures[turn],) if turn in pictures else ())
        if turn < TURNS:
            chat = chat.say("assistant", engine.generate(chat, SAMPLING, lambda _: None).answer or "so it is")
    return chat


def main(rounds: int = 5, layers: int = 32, threads: int = 1) -> None:
    torch.set_num_threads(threads)
    engine = deep_engine(layers)
    chat = conversation(engine)
    before = Conversation(chat.turns[:-2])
    tokens = engine._encode(chat)["input_ids"].shape[1]
    print(
        f"turn {TURNS}: {tokens} tokens with two pictures, {layers} layers, {threads} CPU threads, {rounds} rounds"
    )
    times: dict[str, list[float]] = {"all again": [], "read on": [], "re-run": []}
    replies = set()
    for _ in range(rounds):
        engine.forget()
        for way in times:
            if way == "read on":
                engine.forget()
                engine.generate(before, SAMPLING, lambda _: None)
            seconds, reply = first_token(engine, chat)
            times[way].append(seconds)
            replies.add(reply)
    again = median(times["all again"])
    for way, seconds in times.items():
        print(
            f"{way:<12}{1000 * median(seconds):>10.1f} CPU ms to the first token{again / median(seconds):>9.1f}x"
        )
    print(
        f"replies: {'identical' if len(replies) == 1 else 'DIFFERENT'}; kept: {engine.prefixes.nbytes / 2**20:.1f} MiB"
    )
    long = Sampling(temperature=0, max_new_tokens=256)
    spent, said = {}, set()
    for ahead in (0, 8):
        engine.lookup = ahead
        engine.generate(chat, ONE, lambda _: None)
        start = time.process_time()
        said.add(engine.generate(chat, long, lambda _: None).answer)
        spent[ahead] = time.process_time() - start
    same = "identical" if len(said) == 1 else "DIFFERENT"
    print(f"prompt lookup: {spent[0]:.2f} CPU s without, {spent[8]:.2f} with, for 256 tokens; replies {same}")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
