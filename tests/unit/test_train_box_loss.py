"""Token-in-box loss: its value and gradient, the tokens of a phrase, and its place in stage 2."""

from __future__ import annotations

import json
import math
import random
from typing import Any

import pytest
import torch

pytest.importorskip("diffusers", reason="stage 2 trains diffusers' networks")

from support.tiny_training import World, components, config

from llmga.text import CLIPPromptEncoder, clip_tokenizer
from llmga.train import Stage2
from llmga.train.box_loss import (
    AttentionMaps,
    NamedBox,
    PhraseTokens,
    batch_phrases,
    box_loss,
    coverage,
    locate_phrases,
    token_positions,
)
from llmga.train.captioned_images import CaptionedPictures

LEFT_HALF, CORNER = (0.0, 0.0, 0.5, 1.0), (0.0, 0.0, 0.5, 0.5)


def one_phrase(tokens: list[int], box: tuple[float, ...] = CORNER) -> PhraseTokens:
    return PhraseTokens(torch.tensor([0]), torch.tensor([tokens]), torch.tensor([box]))


def by_hand() -> torch.Tensor:
    """2 × 2 cells, three tokens: token 1 has three quarters of its mass in the first cell."""
    first = torch.tensor([0.6, 0.1, 0.1, 0.0])
    return torch.stack([1 - first - 0.1, first, torch.full((4,), 0.1)], 1)[None]  # (1, 4, 3)


def test_the_value_is_the_one_by_hand() -> None:
    loss, share = box_loss([by_hand()], one_phrase([1]))
    entropy = -(math.log(0.6) + 2 * math.log(0.9) + math.log(1 - 1e-5)) / 4
    assert share.item() == pytest.approx(0.75)
    assert loss.item() == pytest.approx(0.25**2 + entropy, rel=1e-5)
    # two tokens: the mean of their terms, and the sum of their attention
    loss, share = box_loss([by_hand()], one_phrase([1, 2]))
    entropy = -(math.log(0.7) + 2 * math.log(0.8) + math.log(0.9)) / 4
    assert share.item() == pytest.approx((0.75 + 0.25) / 2)
    assert loss.item() == pytest.approx((0.25**2 + 0.75**2) / 2 + entropy, rel=1e-5)
    # what is missing is no token
    assert torch.equal(
        box_loss([by_hand()], one_phrase([1, -1]))[0], box_loss([by_hand()], one_phrase([1]))[0]
    )


def test_the_gradient_is_that_of_finite_differences_and_moves_mass_into_the_box() -> None:
    maps = by_hand().double().clamp(min=0.01).requires_grad_()
    assert torch.autograd.gradcheck(
        lambda maps: box_loss([maps], one_phrase([1, 2]))[0], maps, eps=1e-4, atol=1e-3, rtol=1e-2
    )
    scores = torch.zeros(1, 4, 3, requires_grad=True)
    box_loss([scores.softmax(-1)], one_phrase([1]))[0].backward()
    assert scores.grad is not None
    assert scores.grad[0, 0, 1] < 0 and (scores.grad[0, 1:, 1] > 0).all()


def test_a_batch_that_names_nothing_costs_nothing() -> None:
    nothing = batch_phrases([[], []])
    loss, share = box_loss([by_hand()], nothing)
    assert loss == 0 and share == 0


def test_cells_are_covered_by_their_area() -> None:
    box = torch.tensor([[0.25, 0.0, 0.625, 0.5]])
    wanted = torch.tensor([[0.0, 1.0, 0.5, 0.0]] * 2 + [[0.0] * 4] * 2)
    assert torch.allclose(coverage(box, 4, 4)[0], wanted)
    assert coverage(box, 64, 64).mean() == pytest.approx(0.375 * 0.5, rel=0.02)


def test_a_phrase_is_found_where_its_words_are_encoded() -> None:
    tokenizer: Any = clip_tokenizer()
    encoder = CLIPPromptEncoder((tokenizer,), (None,), max_chunks=2)
    caption = (
        "A red star stands alone. " + "It is very calm here. " * 12 + "There is a small blue heart below."
    )
    ids = [i for chunk in encoder.chunks(caption) for i in (*chunk, *[0] * (75 - len(chunk)))]
    spans = [
        NamedBox(at, at + len(words), CORNER)
        for words in ("red star", "small blue heart")
        for at in [caption.find(words)]
    ]
    found = token_positions(encoder, caption, spans)
    assert [tokenizer.decode([ids[row - 1] for row in rows]) for rows in found] == [
        "red star",
        "small blue heart",
    ]
    assert found[0] == [2, 3] and found[1][0] > 76  # behind the first chunk, whose rest is padding
    short = CLIPPromptEncoder((tokenizer,), (None,), max_chunks=1)
    batch = batch_phrases([[], locate_phrases(short, caption, spans)])
    assert batch.example.tolist() == [1] and batch.tokens.tolist() == [[2, 3]]  # the second is cut off


class Named(World):
    """The tiny world, whose captions name one thing."""

    def named_boxes(self, i: int, caption: str) -> list[NamedBox]:
        return [NamedBox(0, caption.index(" "), LEFT_HALF)]


def prepared(**values: Any) -> Stage2:
    trainer = Stage2(config(variants=0, **values), components(), Named())
    trainer.prepare(torch.device("cpu"), 0, 1, lambda: None)
    return trainer


def loss_of(trainer: Stage2) -> tuple[torch.Tensor, Any]:
    inputs = trainer.batch(torch.arange(4), torch.Generator().manual_seed(0))
    return trainer.loss(inputs, torch.Generator().manual_seed(1))


def test_stage_2_adds_it_with_a_weight_that_falls() -> None:
    plain, _ = loss_of(prepared(caption_dropout=0.0))
    trainer = prepared(caption_dropout=0.0, box_loss=2.0, box_loss_end=0.02)
    for step, weight in ((0, 2.0), (3, 0.2), (6, 0.02)):  # of 6
        trainer.begin_step(step)
        loss, metrics = loss_of(trainer)
        assert (loss - plain).item() == pytest.approx(weight * metrics["box_loss"].item(), rel=1e-3)
        assert 0 < metrics["in_box"] < 1
    dropped = prepared(caption_dropout=1.0, box_loss=2.0)
    assert loss_of(dropped)[1]["box_loss"] == 0


def test_it_teaches_the_maps(tmp_path: Any) -> None:
    torch.set_num_threads(1)
    trainer = prepared(caption_dropout=0.0, box_loss=1.0)
    optimizer = torch.optim.Adam(trainer.components.unet.parameters(), 2e-3)
    shares = []
    for _ in range(25):
        loss, metrics = loss_of(trainer)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        shares.append(metrics["in_box"].item())
    assert shares[0] == pytest.approx(0.5, abs=0.1) and shares[-1] > shares[0] + 0.1


def test_the_maps_are_taken_once_and_stand_in_the_graph() -> None:
    unet = components().unet
    maps = AttentionMaps(unet)
    unet(torch.randn(1, 4, 8, 8), 1, torch.randn(1, 77, unet.config.cross_attention_dim))
    taken = maps.take()
    assert taken and all(each.requires_grad and each.shape[2] == 77 for each in taken)
    assert all(torch.allclose(each.sum(2), torch.ones(())) for each in taken) and maps.take() == []


def test_mirrored_pictures_have_mirrored_boxes() -> None:
    from llmga.train.captioned_images import ExampleVariants

    class Red(Named):
        def caption(self, i: int, rng: random.Random) -> str:
            return "red fox"

    draws = ExampleVariants(Red(), seed=0, flip=True, inpainting=False)
    mirrored = set()
    for variant in range(12):
        [named] = draws.named_boxes(0, variant)
        whole = torch.equal(draws.picture(0, variant)[0], Red().image(0))
        assert named.box == (LEFT_HALF if whole else (0.5, 0.0, 1.0, 1.0))
        mirrored.add(not whole)
    assert mirrored == {True, False}


def test_settings_that_cannot_be_are_refused() -> None:
    with pytest.raises(ValueError, match="gradient_checkpointing"):
        config(box_loss=1.0, gradient_checkpointing=True)
    with pytest.raises(ValueError, match="box_loss_end must be positive"):
        config(box_loss=1.0, box_loss_end=0.0)
    with pytest.raises(ValueError, match="pictures that know boxes"):
        Stage2(config(box_loss=1.0), components(), World())


def test_noun_chunks_of_a_list_follow_the_crop(tmp_path: Any) -> None:
    from PIL import Image

    # a red block on black, 60 × 20 pixels at (90, 30) of 200 × 100: the crop takes the middle 100 × 100
    picture = Image.new("RGB", (200, 100))
    picture.paste((255, 0, 0), (90, 30, 150, 50))
    picture.save(tmp_path / "a.png")
    chunk, outside = [2, 11, 90 / 200, 0.3, 150 / 200, 0.5, 0.9], [12, 14, 0.0, 0.0, 0.3, 0.3]
    row = {
        "image": "a.png",
        "caption": "a red block on black",
        "ori_caption": "block",
        "noun_chunks": [chunk, outside],
    }
    records = tmp_path / "list.json"
    records.write_text(json.dumps([row]))
    pictures = CaptionedPictures(records, tmp_path, 64)
    [named] = pictures.named_boxes(0, row["caption"])  # what the crop leaves out has no box
    assert row["caption"][named.start : named.end] == "red block"
    rows, columns = (pictures.image(0)[0] > 0).nonzero(as_tuple=True)
    seen = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    assert [64 * edge for edge in named.box] == pytest.approx([int(edge) for edge in seen], abs=1.01)
    assert pictures.named_boxes(0, "block") == []
    for wrong in ([0, 99, 0, 0, 1, 1], [0, 1, 0.5, 0, 0.2, 1], [0, 1, 0, 0, 1], "red"):
        records.write_text(json.dumps([{**row, "noun_chunks": [wrong]}]))
        with pytest.raises(ValueError, match="record 0: a noun chunk must be"):
            CaptionedPictures(records, tmp_path, 64)
    for wrong in (5, "red", {}, False):
        records.write_text(json.dumps([row, {**row, "noun_chunks": wrong}]))
        with pytest.raises(ValueError, match="list.json, record 1: 'noun_chunks' must be a list, got "):
            CaptionedPictures(records, tmp_path, 64)
    records.write_text(json.dumps([{"image": "a.png", "caption": "a red block"}]))
    with pytest.raises(ValueError, match="no record has noun_chunks"):
        CaptionedPictures(records, tmp_path, 64).named_boxes(0, "a red block")
