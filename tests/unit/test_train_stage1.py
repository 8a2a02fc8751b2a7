"""Stage 1: what is learned of a conversation, what is trained, what is written."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

pytest.importorskip("transformers", reason="stage 1 trains a transformers model")

from safetensors.torch import load_file
from support.tiny_stage1 import PICTURE, values, write_base, write_data
from transformers import AutoModelForImageTextToText, AutoProcessor

from llmga.chat.folders import load_local_engine
from llmga.data.samples import SampleTurn
from llmga.train import build, presets, read_config
from llmga.train.llava_layouts import official_to_transformers, to_official
from llmga.train.log import read_log
from llmga.train.stage1 import MixedConversations, MixtureConfig, Stage1, Stage1Config, merged, run
from llmga.train.turns import IGNORED, TurnEncoder

pytestmark = pytest.mark.usefixtures("one_thread")

TALK = (
    SampleTurn("user", "Draw a cat.", True),
    SampleTurn("assistant", "<gen_image> a cat </gen_image>"),
    SampleTurn("user", "And a dog"),
    SampleTurn("assistant", "No."),
)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_base(tmp_path_factory.mktemp("models") / "tiny-llava")


@pytest.fixture()
def processor(base: Path) -> Any:
    return AutoProcessor.from_pretrained(base, local_files_only=True)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("data"))


def test_answers_and_their_ends_are_learned_and_nothing_else(processor: Any) -> None:
    encoded = TurnEncoder(processor, 500).encode(TALK, [PICTURE])
    said = [
        "USER: ",
        "\nDraw a cat. ASSISTANT:",
        " <gen_image> a cat </gen_image>",
        "USER: And a dog ASSISTANT:",
    ]
    said += [" No."]
    tokenizer = processor.tokenizer
    start, asked, first, again, second = (
        tokenizer(text, add_special_tokens=False)["input_ids"] for text in said
    )
    bos, end, image = (tokenizer.convert_tokens_to_ids(token) for token in ("<s>", "</s>", "<image>"))
    learned = [(start, 0), ([image] * 4, 0), (asked, 0), ([*first, end], 1), (again, 0), ([*second, end], 1)]
    # The template writes "USER: " and "ASSISTANT: "; its spaces belong to what follows.
    ids = [bos, *(i for piece, _ in learned for i in piece)]
    labels = [IGNORED, *(i if taught else IGNORED for piece, taught in learned for i in piece)]
    assert encoded.ids.tolist() == ids
    assert encoded.labels.tolist() == labels
    assert encoded.pixels.shape == (1, 3, 28, 28)


def test_the_ids_are_those_that_the_chat_reads(base: Path, processor: Any) -> None:
    from llmga.chat import Conversation, Picture

    ids = TurnEncoder(processor, 500).encode(TALK, [PICTURE]).ids
    engine = load_local_engine(base)
    talk = Conversation().say("user", TALK[0].text, (Picture.from_pil(PICTURE),))
    talk = talk.say("assistant", TALK[1].text).say("user", TALK[2].text)
    read = engine._encode(talk)["input_ids"][0]
    assert ids[: len(read)].tolist() == read.tolist()


def test_text_that_spells_a_control_token_is_text(processor: Any) -> None:
    turns = (SampleTurn("user", "an <image> </s>"), SampleTurn("assistant", "<image></s> no"))
    encoded = TurnEncoder(processor, 500).encode(turns, [])
    tokenizer = processor.tokenizer
    assert tokenizer.convert_tokens_to_ids("<image>") not in encoded.ids
    assert (encoded.ids == tokenizer.convert_tokens_to_ids("</s>")).sum() == 1


def test_a_long_conversation_loses_its_end_and_no_picture_is_cut(processor: Any) -> None:
    turns = (*TALK, SampleTurn("user", "Look", True), SampleTurn("assistant", "I see."))
    whole = TurnEncoder(processor, 500).encode(turns, [PICTURE, PICTURE])
    image = processor.tokenizer.convert_tokens_to_ids("<image>")
    for length in range(1, len(whole.ids) + 2):
        cut = TurnEncoder(processor, length).encode(turns, [PICTURE, PICTURE])
        assert length - 3 <= len(cut.ids) <= length or len(cut.ids) == len(whole.ids)
        assert cut.ids.tolist() == whole.ids[: len(cut.ids)].tolist()
        assert cut.labels.tolist() == whole.labels[: len(cut.ids)].tolist()
        assert (cut.ids == image).sum() == 4 * len(cut.pixels)


def test_a_template_that_rewrites_what_was_said_raises(processor: Any) -> None:
    processor.chat_template = "{{ messages | length }}" + processor.chat_template
    with pytest.raises(ValueError, match="exact place"):
        TurnEncoder(processor, 500).encode(TALK, [PICTURE])


def test_a_template_without_ends_raises(processor: Any) -> None:
    processor.chat_template = processor.chat_template.replace("eos_token", "''")
    with pytest.raises(ValueError, match="exact place"):
        TurnEncoder(processor, 500).encode(TALK[:2], [PICTURE])


def test_pictures_are_squashed_and_stay_so(processor: Any, tmp_path: Path) -> None:
    encoder = TurnEncoder(processor, 500)
    square = encoder.pixels([PICTURE.resize((28, 28), Image.Resampling.BICUBIC)])
    assert torch.allclose(encoder.pixels([PICTURE]), square, atol=0.1)
    processor.save_pretrained(tmp_path)
    again = AutoProcessor.from_pretrained(tmp_path, local_files_only=True)
    assert torch.equal(
        again.image_processor(images=[PICTURE], return_tensors="pt")["pixel_values"],
        encoder.pixels([PICTURE]),
    )


def stage1(base: Path, data: Path, **other: Any) -> Stage1:
    config = build(Stage1Config, values(data, base, **other))
    net = AutoModelForImageTextToText.from_pretrained(base, local_files_only=True)
    encoder = TurnEncoder(AutoProcessor.from_pretrained(base, local_files_only=True), config.max_length)
    trainer = Stage1(config, net, encoder.processor, MixedConversations(config.mixture.mixture(0), encoder))
    trainer.prepare(torch.device("cpu"), 0, 1, lambda: None)
    return trainer


def test_the_loss_is_the_mean_over_learned_tokens_whatever_the_padding(base: Path, data: Path) -> None:
    trainer, draw = stage1(base, data), torch.Generator()
    total, count = torch.zeros(()), 0
    for i in range(len(trainer)):
        inputs = trainer.batch(torch.tensor([i]), draw)
        pixels = {"pixel_values": inputs.pixels} if len(inputs.pixels) else {}
        own = trainer.net(input_ids=inputs.ids, labels=inputs.labels, **pixels).loss
        learned = int((inputs.labels != IGNORED).sum())
        total, count = total + own * learned, count + learned
    together = trainer.batch(torch.arange(len(trainer)), draw)
    assert len(together.pixels) == 2 and (together.labels == IGNORED).any()
    assert trainer.loss(together, draw)[0].item() == pytest.approx((total / count).item(), rel=1e-4)


def test_a_token_counts_as_its_weight_says(base: Path, data: Path) -> None:
    trainer, draw = stage1(base, data), torch.Generator()
    inputs = trainer.batch(torch.arange(len(trainer)), draw)
    kept = torch.rand(inputs.labels.shape, generator=draw.manual_seed(0)) < 0.5
    some = inputs._replace(labels=inputs.labels.masked_fill(~kept, IGNORED))
    losses = [
        trainer.loss(each, draw)[0].item()
        for each in (
            inputs,
            some,
            inputs._replace(weights=kept.float()),
            inputs._replace(weights=kept.float() * 3),
        )
    ]
    assert losses[1] == pytest.approx(losses[2], rel=1e-5) == pytest.approx(losses[3], rel=1e-5)
    assert losses[0] != pytest.approx(losses[1], rel=1e-3)


def test_logits_are_made_where_the_next_token_is_learned_only(base: Path, data: Path) -> None:
    trainer, draw = stage1(base, data), torch.Generator()
    inputs = trainer.batch(torch.arange(len(trainer)), draw)
    sizes: list[int] = []
    head = trainer.net.get_output_embeddings()
    spy = head.register_forward_hook(lambda module, args, out: sizes.append(out.numel()))
    loss, _ = trainer.loss(inputs, draw)
    spy.remove()
    assert sizes == [int((inputs.labels[:, 1:] != IGNORED).sum()) * head.weight.shape[0]]
    loss.backward()
    got = head.weight.grad.clone()
    trainer.net.zero_grad()
    trainer.net(input_ids=inputs.ids, labels=inputs.labels, pixel_values=inputs.pixels).loss.backward()
    assert torch.allclose(got, head.weight.grad, atol=1e-6)  # and outside of training all are there again


@pytest.mark.parametrize("kind", ["projector", "full", "lora"])
def test_only_what_is_to_be_trained_changes_and_the_loss_falls(
    kind: str, base: Path, data: Path, tmp_path: Path
) -> None:
    loop = {"steps": 30, "lr": 3e-3, "save_every": 30}
    config = build(Stage1Config, values(data, base, loop, train=kind, lora_rank=4, lora_alpha=4.0))
    result = run(config, tmp_path)
    losses = [row["loss"] for row in read_log(tmp_path / "log.jsonl")]
    assert sum(losses[-5:]) < (0.99 if kind == "projector" else 0.8) * sum(losses[:5])
    before, after = (
        {
            name: value.clone()
            for name, value in AutoModelForImageTextToText.from_pretrained(folder).state_dict().items()
        }
        for folder in (base, result)
    )
    assert before.keys() == after.keys()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert any("multi_modal_projector" in name for name in changed)
    assert not any("vision_tower" in name for name in changed)
    assert any("language_model" in name for name in changed) == (kind != "projector")
    assert any("embed_tokens" in name for name in changed) == (kind == "full")
    load_local_engine(result)


def test_adapters_are_merged_exactly(base: Path, data: Path) -> None:
    trainer = stage1(base, data, train="lora", lora_rank=4, lora_alpha=2.0, lora_dropout=0.0)
    for name, parameter in trainer.net.named_parameters():
        if ".lora_B." in name:
            torch.nn.init.normal_(parameter)
    trainer.net.eval()
    plain = AutoModelForImageTextToText.from_pretrained(base, local_files_only=True).eval()
    inputs = trainer.batch(torch.tensor([0]), torch.Generator())
    assert not torch.allclose(plain(inputs.ids).logits, trainer.net(inputs.ids).logits, atol=1e-2)
    plain.load_state_dict(merged(trainer.net.state_dict(), 0.5))
    assert torch.allclose(plain(inputs.ids).logits, trainer.net(inputs.ids).logits, atol=1e-3)


def test_a_part_without_pictures_still_trains_the_projector_in_every_process(base: Path, data: Path) -> None:
    trainer = stage1(base, data, train="projector")
    texts = [
        i for i in range(len(trainer)) if not len(trainer.batch(torch.tensor([i]), torch.Generator()).pixels)
    ]
    loss, _ = trainer.loss(trainer.batch(torch.tensor(texts), torch.Generator()), torch.Generator())
    loss.backward()
    grads = [p.grad for p in trainer.modules()["projector"].parameters()]
    assert grads and all(grad is not None and not grad.any() for grad in grads)


def test_a_resumed_run_is_the_uninterrupted_one(base: Path, data: Path, tmp_path: Path) -> None:
    config = build(Stage1Config, values(data, base, {"steps": 4}))
    whole = load_file(run(config, tmp_path / "whole") / "model.safetensors")
    half = replace(config, loop=replace(config.loop, steps=2))
    run(half, tmp_path / "parts")
    resumed = load_file(run(config, tmp_path / "parts") / "model.safetensors")
    assert whole.keys() == resumed.keys()
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_samples_show_question_lesson_and_answer(base: Path, data: Path, tmp_path: Path) -> None:
    trainer = stage1(base, data, samples=2)
    trainer.sample(7, tmp_path)
    parts = (tmp_path / "step-00000007.txt").read_text().split("\n----\n")
    assert len(parts) == 6
    assert parts[0].endswith("ASSISTANT:") and "<image>" not in parts[0] and parts[1].endswith("</s>")


def test_a_net_that_is_no_llava(base: Path, data: Path, processor: Any) -> None:
    config = build(Stage1Config, values(data, base))
    with pytest.raises(ValueError, match="no multi_modal_projector"):
        Stage1(config, torch.nn.Linear(1, 1), processor, [])  # type: ignore[arg-type]


def test_what_a_mixture_needs(data: Path) -> None:
    for wrong in (MixtureConfig(), MixtureConfig(preset="paper"), MixtureConfig(data=data)):
        with pytest.raises(ValueError, match="preset and data, or parts"):
            wrong.mixture(0)


@pytest.mark.parametrize("name", [name for name in presets() if name.startswith("stage1-")])
def test_presets(name: str) -> None:
    config = read_config(Stage1Config, name)
    assert config.loop.batch % (8 * config.loop.micro_batch) == 0
    assert config.loop.warmup == pytest.approx(0.03 * config.loop.steps, abs=1)
    assert bool(config.mixture.preset) != bool(config.mixture.parts)


@pytest.fixture(scope="module")
def official(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return to_official(base, tmp_path_factory.mktemp("models") / "official")


def test_the_official_layout_has_its_names(official: Path) -> None:
    names = set(load_file(official / "model.safetensors"))
    vision = "model.vision_tower.vision_tower.vision_model."
    assert {
        "lm_head.weight",
        "model.embed_tokens.weight",
        "model.norm.weight",
        "model.layers.0.self_attn.q_proj.weight",
        "model.mm_projector.0.weight",
        "model.mm_projector.2.bias",
        f"{vision}embeddings.patch_embedding.weight",
        f"{vision}encoder.layers.2.mlp.fc1.bias",
    } <= names
    starts = (
        "lm_head.",
        "model.embed_tokens.",
        "model.norm.",
        "model.layers.",
        "model.mm_projector.",
        vision,
    )
    assert all(name.startswith(starts) for name in names)
    config = json.loads((official / "config.json").read_text())
    assert config["model_type"] == "llava_llama" and config["hidden_size"] == 64
    assert config["mm_hidden_size"] == 32 and config["mm_projector_type"] == "mlp2x_gelu"
    assert config["mm_vision_select_layer"] == -2


def test_there_and_back_is_exact(base: Path, official: Path, tmp_path: Path) -> None:
    back = official_to_transformers(official, tmp_path / "back")
    nets = [AutoModelForImageTextToText.from_pretrained(folder).eval() for folder in (base, back)]
    one, two = (net.state_dict() for net in nets)
    assert one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)
    processor = AutoProcessor.from_pretrained(back, local_files_only=True)
    inputs = processor(text="USER: <image> what?", images=PICTURE, return_tensors="pt")
    assert torch.equal(*(net(**inputs).logits for net in nets))
    assert (
        to_official(back, tmp_path / "again")
        and (tmp_path / "again" / "model.safetensors").read_bytes()
        == (official / "model.safetensors").read_bytes()
    )
    load_local_engine(back)


def test_the_official_layout_that_cannot_be_read(official: Path, tmp_path: Path) -> None:
    config = json.loads((official / "config.json").read_text())
    for key, value in (
        ("mm_projector_type", "linear"),
        ("mm_vision_tower", "somewhere"),
        ("model_type", "llama"),
    ):
        folder = tmp_path / key
        folder.mkdir()
        changed = copy.deepcopy(config) | {key: value}
        (folder / "config.json").write_text(json.dumps(changed))
        with pytest.raises(ValueError, match=key):
            official_to_transformers(folder, tmp_path / "out")
    with pytest.raises(ValueError, match="is not a LLaVA"):
        to_official(official, tmp_path / "out")
