"""Long CLIP Encode on ComfyUI's real text encoders, tiny, in this process."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file
from support import comfy_inprocess as comfy
from support.tiny_clip import WIDTH_G, WIDTH_L, clip_g, clip_l

REASON = comfy.skip_reason()
pytestmark = pytest.mark.skipif(REASON is not None, reason=str(REASON))

SENTENCE = "a watercolour of an old stone bridge over a quiet river, 16:9. "
WEIGHTED = "(a red:1.3) fox, [grey] rocks, ((bright) sky) (aspect 16:0.5) \\(literal\\) "
DEFAULTS = {
    "layout": "llmga",
    "weights": False,
    "break_at": "hard",
    "max_chunks": 4,
    "min_chunks": 1,
    "empty_negative": "auto",
    "match_chunks": True,
}
LENGTHS = [0, 1, 2, 40, 74, 75, 76, 149, 150, 151, 225, 226, 300, 301, 375, 376, 400]


@pytest.fixture(scope="module")
def clips():
    return {kind: comfy.tiny_clip(kind) for kind in ("sd15", "sdxl", "sd3", "flux", "qwen")}


@pytest.fixture(scope="module")
def nets():
    """The same weights as transformers models: SDXL's two encoders, the first of which is SD1.5's."""
    return clip_l(), clip_g()


@pytest.fixture(scope="module")
def tokenizer():
    return comfy.pack("llmga.text").clip_tokenizer()


@pytest.fixture(scope="module")
def tokenizers(tokenizer):
    return tokenizer, comfy.pack("llmga.text").clip_tokenizer("!")


def run(clip, text, **options):
    node = comfy.pack("nodes.encode").LongCLIPEncode
    return node.execute(clip=clip, text=text, **{**DEFAULTS, **options}).result


def core(clip, text):
    return comfy.core_node("CLIPTextEncode")().encode(clip, text)[0]


def same_bits(ours, theirs):
    assert len(ours) == len(theirs)
    for (cond, extra), (their_cond, their_extra) in zip(ours, theirs, strict=True):
        assert torch.equal(cond, their_cond)
        assert extra.keys() == their_extra.keys()
        for key, value in extra.items():
            assert (
                torch.equal(value, their_extra[key]) if torch.is_tensor(value) else value == their_extra[key]
            )


def close(ours, theirs):
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


def prompt_of(tokenizer, count, start=""):
    """A prompt of ``count`` tokens, with ``start`` at its beginning if that is not longer; brackets count as
    text."""

    def length(text):
        return len(tokenizer(text, add_special_tokens=False, verbose=False).input_ids)

    start = start if length(start) <= count else ""
    sentences, foxes = divmod(count - length(start), length(SENTENCE))
    text = start + SENTENCE * sentences + " fox" * foxes
    assert length(text) == count
    return text


@pytest.mark.parametrize("kind", ["sd15", "sdxl"])
@pytest.mark.parametrize("count", LENGTHS)
def test_host_layout_is_clip_text_encode_bit_for_bit(clips, tokenizer, kind, count):
    plain, weighted = prompt_of(tokenizer, count), prompt_of(tokenizer, count, WEIGHTED)
    positive, negative, _ = run(clips[kind], plain, negative_text=plain, layout="host")
    same_bits(positive, core(clips[kind], plain))
    same_bits(negative, core(clips[kind], plain))
    positive, negative, _ = run(clips[kind], weighted, layout="host", weights=True, match_chunks=False)
    same_bits(positive, core(clips[kind], weighted))
    same_bits(negative, core(clips[kind], ""))


def test_host_layout_without_weights_reads_brackets_as_text(clips):
    clip, text = clips["sd15"], "a (red:1.3) fox"
    expected = clip.encode_from_tokens_scheduled(clip.tokenize(text, disable_weights=True))
    same_bits(run(clip, text, layout="host")[0], expected)
    assert not torch.equal(expected[0][0], core(clip, text)[0][0])


def test_host_layout_pads_only_the_shorter_prompt(clips):
    clip, text = clips["sdxl"], "fox " * 160
    positive, negative, report = run(clip, text, layout="host", negative_text="blurry")
    same_bits(positive, core(clip, text))
    assert negative[0][0].shape == positive[0][0].shape == (1, 231, WIDTH_L + WIDTH_G)
    close(negative[0][0][:, :77], core(clip, "blurry")[0][0])
    close(negative[0][1]["pooled_output"], core(clip, "blurry")[0][1]["pooled_output"])
    assert report.split("\n")[1] == "negative: 1 tokens in 1 chunks, 2 of padding, as CLIP Text Encode"


@pytest.mark.parametrize("count", [0, 1, 74, 75, 76, 150, 151, 299, 300, 301])
@pytest.mark.parametrize("layout", ["llmga", "llmga_lpw"])
@pytest.mark.parametrize("break_at", ["hard", "sentence"])
def test_sd15_equals_the_transformers_encoder(clips, nets, tokenizer, count, layout, break_at):
    text = prompt_of(tokenizer, count)
    ours = run(clips["sd15"], text, layout=layout, break_at=break_at)[0][0][0]
    close(
        ours, comfy.pack("llmga.text").encode_sd15(tokenizer, nets[0], text, layout=layout, break_at=break_at)
    )


@pytest.mark.parametrize("layout", ["llmga", "llmga_lpw"])
def test_sd15_weights_equal_the_transformers_encoder(clips, nets, tokenizer, layout):
    text = WEIGHTED + SENTENCE * 10
    ours = run(clips["sd15"], text, layout=layout, weights=True)[0][0][0]
    close(ours, comfy.pack("llmga.text").encode_sd15(tokenizer, nets[0], text, layout=layout, weights=True))


@pytest.mark.parametrize("count", [0, 1, 74, 75, 76, 150, 151, 299, 300, 301])
@pytest.mark.parametrize("layout", ["llmga", "llmga_lpw"])
def test_sdxl_equals_the_transformers_encoder(clips, nets, tokenizer, tokenizers, count, layout):
    text = prompt_of(tokenizer, count)
    embeds, pooled = comfy.pack("llmga.text").encode_sdxl(tokenizers, nets, text)
    cond, extra = run(clips["sdxl"], text, layout=layout)[0][0]
    close(cond, embeds)
    close(extra["pooled_output"], pooled)


def test_brackets_backslashes_and_break(clips, nets, tokenizer):
    text = r"a \(fox\) (one tabby, one black) \\( [x] BREAK BREAKFAST \o/"
    for break_word, rows in ((True, 152), (False, 77)):
        ours = run(clips["sd15"], text, break_word=break_word)[0][0][0]
        assert ours.shape[1] == rows
        close(ours, comfy.pack("llmga.text").encode_sd15(tokenizer, nets[0], text, break_word=break_word))


def test_the_negative_is_padded_to_the_positive(clips, nets, tokenizer):
    library, text = comfy.pack("llmga.text"), "fox " * 160
    positive, negative, report = run(clips["sd15"], text, negative_text="blurry")
    both = library.encode_sd15(tokenizer, nets[0], [text, "blurry"])
    close(torch.cat([positive[0][0], negative[0][0]]), both)
    assert report.split("\n")[-1] == "negative: 1 token in 1 chunk (1), 2 chunks of padding"
    assert run(clips["sd15"], text, negative_text="blurry", match_chunks=False)[1][0][0].shape[1] == 77


def test_min_chunks_pads_both(clips):
    positive, negative, _ = run(
        clips["sd15"], "fox", negative_text="blurry", min_chunks=3, match_chunks=False
    )
    assert positive[0][0].shape[1] == negative[0][0].shape[1] == 227


@pytest.mark.parametrize(
    ("kind", "layout", "empty_negative", "zeros"),
    [
        ("sdxl", "llmga", "auto", True),
        ("sdxl", "llmga_lpw", "auto", True),
        ("sdxl", "host", "auto", False),
        ("sd15", "llmga", "auto", False),
        ("sd15", "llmga", "zeros", True),
        ("sdxl", "llmga", "encode", False),
        ("flux", "llmga", "auto", False),
        ("flux", "llmga", "zeros", True),
    ],
)
def test_empty_negative(clips, kind, layout, empty_negative, zeros):
    text = "fox " * 160
    positive, negative, report = run(
        clips[kind], text, negative_text=" \n", layout=layout, empty_negative=empty_negative
    )
    tensors = [negative[0][0], negative[0][1]["pooled_output"]]
    assert all(not tensor.any() for tensor in tensors) == zeros
    assert any(tensor.any() for tensor in [positive[0][0], positive[0][1]["pooled_output"]])
    assert report.endswith("negative: zeros") == zeros
    if kind != "flux":
        assert negative[0][0].shape == positive[0][0].shape
    if zeros:
        same_bits(negative, comfy.core_node("ConditioningZeroOut")().zero_out(positive)[0])


@pytest.mark.parametrize("kind", ["sd3", "flux", "qwen"])
@pytest.mark.parametrize("layout", ["llmga", "llmga_lpw", "host"])
def test_other_encoders_pass_through(clips, kind, layout):
    text = "a (red:1.3) fox BREAK " + SENTENCE * 8
    positive, negative, report = run(clips[kind], text, negative_text="blurry", layout=layout)
    same_bits(positive, core(clips[kind], text))
    same_bits(negative, core(clips[kind], "blurry"))
    assert report.count("this is not SD1.5's or SDXL's CLIP") == 2


def test_textual_inversions_are_tokens_like_others(tmp_path, monkeypatch):
    save_file({"emb_params": torch.ones(2, WIDTH_L)}, tmp_path / "thing.safetensors")
    clip = comfy.tiny_clip("sd15")
    monkeypatch.setattr(clip.tokenizer.clip_l, "embedding_directory", str(tmp_path))
    close(run(clip, "a embedding:thing fox")[0][0][0], core(clip, "a embedding:thing fox")[0][0])
    report = run(clip, "fox " * 74 + "embedding:thing")[2]
    assert report.split("\n")[0] == "positive: 76 tokens in 2 chunks (74 + 2)"
    assert "cut 1, before an embedding, which stays whole: " in report
    assert "fox fox | <embedding> <embedding>" in report


def test_clip_skip_reaches_the_encoder(clips):
    skipped = clips["sd15"].clone()
    skipped.clip_layer(-2)
    text = "a red fox"  # one chunk: llmga's layout is the host's
    close(run(skipped, text)[0][0][0], core(skipped, text)[0][0])
    assert not torch.equal(run(skipped, text)[0][0][0], run(clips["sd15"], text)[0][0][0])


def test_every_entry_of_a_schedule_is_laid_out():
    class Scheduled:
        """Two stretches, as a scheduled LoRA makes; the second has its rows doubled."""

        clip = comfy.tiny_clip("sd15")
        tokenize = clip.tokenize

        def encode_from_tokens_scheduled(self, tokens):
            ((cond, extra),) = self.clip.encode_from_tokens_scheduled(tokens)
            return [
                [cond, {**extra, "clip_start_percent": 0.0}],
                [cond * 2, {**extra, "clip_start_percent": 0.5}],
            ]

    positive, _, _ = run(Scheduled(), "fox " * 100)
    assert [extra["clip_start_percent"] for _, extra in positive] == [0.0, 0.5]
    expected = run(Scheduled.clip, "fox " * 100)[0][0][0]
    close(positive[0][0], expected)
    close(positive[1][0], expected * 2)


def test_one_encoder_call_per_prompt_and_equal_chunks_once(clips, monkeypatch):
    calls = []
    four = "fox " * 75 + "bear " * 75 + "owl " * 75 + "elk " * 75
    encoder = clips["sd15"].cond_stage_model.clip_l
    monkeypatch.setattr(
        encoder, "encode", lambda tokens: calls.append(len(tokens)) or type(encoder).encode(encoder, tokens)
    )
    positive, negative, _ = run(clips["sd15"], four, negative_text="blurry")
    assert calls == [4, 2]  # "blurry", and one chunk of padding for three
    assert positive[0][0].shape == negative[0][0].shape


def test_the_readout_tells_what_was_dropped(clips):
    report = run(clips["sd15"], "fox " * 80 + "the last bridge", max_chunks=1)[2]
    assert report.split("\n")[0] == "positive: 75 tokens in 1 chunk (75)"
    assert "DROPPED 8 tokens beyond max_chunks (1 × 75 tokens): fox fox fox fox fox the last bridge" in report


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a fox",
        "café ÀÉ 猫 🦊👩‍👩‍👧 ﬁ ½",
        "a\u00a0b\u3000c\u200bd\te\r\nf",
        "it's 16:9 (x) <|endoftext|> ...!!",
        "İI ß ΑΣ e\u0301 \x00\x1f",
    ],
)
def test_our_tokenizer_is_the_hosts(clips, tokenizer, text):
    host = [
        token
        for chunk in clips["sd15"].tokenize(text, disable_weights=True, return_word_ids=True)["l"]
        for token, _, word in chunk
        if word
    ]
    assert tokenizer(text, add_special_tokens=False).input_ids == host


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"clip": None}, "clip must be a CLIP from a checkpoint or CLIP loader, got NoneType"),
        ({"text": None}, "text must be text, got NoneType"),
        ({"text": "a" * 200_001}, "text holds 200001 characters"),
        ({"negative_text": 3}, "negative_text must be text"),
        ({"layout": "zzz"}, "layout must be one of llmga, llmga_lpw, host"),
        ({"break_at": ["hard"]}, "break_at must be one of"),
        ({"weights": "yes"}, "weights must be true or false"),
        ({"max_chunks": float("nan")}, "max_chunks must be a whole number from 1 to 64"),
        ({"max_chunks": 0}, "max_chunks must be a whole number"),
        ({"min_chunks": 65}, "min_chunks must be a whole number"),
        ({"empty_negative": "maybe"}, "empty_negative must be one of"),
        ({"match_chunks": 1}, "match_chunks must be true or false"),
        ({"break_word": "on"}, "break_word must be true or false"),
        ({"text": "a fox \ud83d"}, "text holds half a surrogate pair .* at character 7"),
        ({"negative_text": "\udc00"}, "negative_text holds half a surrogate pair"),
        ({"weights": True, "text": "(fox:500)"}, "'fox' has weight 500"),
    ],
)
def test_values_are_checked_again(clips, options, message):
    with pytest.raises(ValueError, match=message):
        run(**{"clip": clips["sd15"], "text": "a fox", **options})


def test_sdxl_has_no_weights_in_llmgas_layouts(clips):
    with pytest.raises(ValueError, match="turn weights off or set layout to host"):
        run(clips["sdxl"], "a (fox:1.2)", weights=True)


def test_schema_is_documented():
    schema = comfy.pack("nodes.encode").LongCLIPEncode.GET_SCHEMA()
    assert schema.description
    assert schema.search_aliases
    assert all(socket.tooltip for socket in (*schema.inputs, *schema.outputs))
    assert not {socket.id for socket in schema.inputs} & {socket.id for socket in schema.outputs}
