"""Our encoders against LLMGA's own, recorded by fixtures/text_official.py; tolerance 1e-5 on values of order
1."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from support.tiny_clip import WIDTH_G, WIDTH_L, clip_g, clip_l

from llmga.text import chunk_ids, clip_tokenizer, encode_sd15, encode_sdxl, plan_prompt

FIXTURE = Path(__file__).parent / "fixtures" / "text_official"
OFFICIAL = load_file(FIXTURE.with_suffix(".safetensors"))
TEXTS = json.loads(FIXTURE.with_suffix(".json").read_text(encoding="utf-8"))
PROMPTS, WEIGHTED = TEXTS["prompts"], TEXTS["weighted"]
CHUNKS = {"empty": 1, "one": 1, "two": 2, "three": 3, "four": 4, "cut": 4}


def close(ours: torch.Tensor, name: str) -> None:
    torch.testing.assert_close(ours, OFFICIAL[name], atol=1e-5, rtol=1e-5)


@pytest.fixture(scope="module")
def tokenizer():
    return clip_tokenizer()


@pytest.fixture(scope="module")
def net():
    return clip_l()


@pytest.fixture(scope="module")
def sd15(tokenizer, net):
    return partial(encode_sd15, tokenizer, net)


@pytest.fixture(scope="module")
def sdxl(tokenizer, net):
    return partial(encode_sdxl, (tokenizer, clip_tokenizer("!")), (net, clip_g()))


def test_the_recording_holds_one_to_four_chunks():
    assert {name: (OFFICIAL[f"ids.{name}"].shape[1] - 2) // 75 for name in PROMPTS} == CHUNKS


@pytest.mark.parametrize("name", PROMPTS)
def test_ids(tokenizer, name):
    plan = plan_prompt(
        PROMPTS[name], lambda text: tokenizer(text, add_special_tokens=False, verbose=False).input_ids
    )
    content = [i for chunk in plan.chunks for i in chunk_ids(chunk, tokenizer.pad_token_id)[1:-1]]
    assert content == OFFICIAL[f"ids.{name}"][0, 1:-1].tolist()


@pytest.mark.parametrize("name", PROMPTS)
def test_sd15_training_layout(sd15, name):
    ours = sd15(PROMPTS[name])
    assert ours.shape == (1, 75 * CHUNKS[name] + 2, WIDTH_L)
    close(ours, f"llmga.{name}")


@pytest.mark.parametrize("name", [name for name in PROMPTS if f"lpw.{name}" in OFFICIAL])
def test_sd15_inference_layout(sd15, name):
    ours = sd15(PROMPTS[name], layout="llmga_lpw")
    assert ours.shape == (1, 77 * CHUNKS[name], WIDTH_L)
    close(ours, f"lpw.{name}")


def test_sd15_text_to_image_reads_225_tokens_and_pads_the_negative(sd15):
    positive, negative = sd15([PROMPTS["cut"], ""], layout="llmga_lpw", max_chunks=3).split(1)
    close(positive, "lpw3.cut")
    close(negative, "lpw3.negative")


@pytest.mark.parametrize("name", WEIGHTED)
@pytest.mark.parametrize(("layout", "recorded"), [("llmga_lpw", "weighted"), ("llmga", "weighted_75")])
def test_weights(sd15, name, layout, recorded):
    close(sd15(WEIGHTED[name], layout=layout, weights=True), f"{recorded}.{name}")


def test_weights_off_reads_brackets_as_text(sd15):
    assert (sd15("a (fox:1.4)") - sd15("a (fox:1.4)", weights=True)).abs().max() > 0.1


@pytest.mark.parametrize("name", PROMPTS)
def test_sdxl(sdxl, name):
    embeds, pooled = sdxl(PROMPTS[name])
    assert embeds.shape == (1, 75 * CHUNKS[name] + 2, WIDTH_L + WIDTH_G)
    close(pooled, f"sdxl_pooled.{name}")
    if f"sdxl.{name}" in OFFICIAL:
        close(embeds, f"sdxl.{name}")


def test_a_batch_is_its_prompts_at_one_length(sd15, sdxl):
    texts = [PROMPTS["three"], PROMPTS["one"], "(a:1.2) b"]
    batch = sd15(texts, weights=True)
    embeds, pooled = sdxl(texts)
    for i, text in enumerate(texts):
        torch.testing.assert_close(
            batch[i : i + 1], sd15(text, weights=True, min_chunks=3), atol=1e-5, rtol=1e-5
        )
        one, one_pooled = sdxl(text, min_chunks=3)
        torch.testing.assert_close(embeds[i : i + 1], one, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(pooled[i : i + 1], one_pooled, atol=1e-5, rtol=1e-5)


def test_all_chunks_go_through_the_encoder_in_one_call(sd15, net):
    calls = []
    handle = net.register_forward_pre_hook(lambda module, args: calls.append(args[0].shape))
    rows = sd15([PROMPTS["four"], ""])
    handle.remove()
    assert calls == [(5, 77)]  # four, and the one chunk that the empty prompt repeats
    assert rows.shape[:2] == (2, 302)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layout": "host"}, "layout must be one of llmga, llmga_lpw; got 'host'"),
        ({"break_at": "comma"}, "break_at must be one of hard, sentence"),
        ({"max_chunks": 0}, "max_chunks must be a whole number from 1 to 64"),
        ({"min_chunks": 65}, "min_chunks must be a whole number"),
        ({"max_chunks": True}, "max_chunks must be a whole number"),
    ],
)
def test_options_out_of_range(sd15, options, message):
    with pytest.raises(ValueError, match=message):
        sd15("a fox", **options)


def test_a_tokenizer_that_is_not_clips_is_refused(net):
    class Other:
        bos_token_id, eos_token_id = 0, 2

    with pytest.raises(ValueError, match="BOS and EOS are 0 and 2"):
        encode_sd15(Other(), net, "a fox")  # type: ignore[arg-type]
