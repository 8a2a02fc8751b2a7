"""The losses of GILL and their masks are those of the official code, and so are the weights after ten steps."""

from __future__ import annotations

from typing import Any

import pytest
import torch

pytest.importorskip("transformers", reason="GILL needs transformers")

from support.tiny_gill import inside, recorded, recorder, said, tiny_gill

from llmga.gill import GILL
from llmga.gill.checkpoint import PUBLISHED_NAMES
from llmga.train.gill_losses import (
    GILLLossWeights,
    captioning_sequences,
    gill_losses,
    text_sequences,
    tokenise,
    total_loss,
)

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def gill(tmp_path_factory: pytest.TempPathFactory) -> GILL:
    return tiny_gill(tmp_path_factory.mktemp("gill"))


def batch(gill: GILL, number: int) -> dict[str, Any]:
    assert gill.vision is not None
    plain = recorder().batch(number)
    captions = tokenise(gill.language, plain["captions"], 8)
    pooled = gill.vision.pooled(plain["pixels"])
    return {
        "captions": captions,
        "pooled": pooled,
        "targets": plain["targets"],
        "in_pairs": plain["concatenate"],
    }


def doubled(made: dict[str, Any]) -> dict[str, Any]:
    return made | {name: made[name].double() for name in ("pooled", "targets")}


@pytest.mark.parametrize("number", range(8))
def test_the_masks(gill: GILL, number: int) -> None:
    """Batches 0 … 7 hold every choice of which modes read captions in pairs."""
    b = batch(gill, number)
    made = [captioning_sequences(gill.language, gill.parts, b["captions"], b["pooled"], b["in_pairs"][0])]
    made += [text_sequences(gill.language, gill.parts, b["captions"], pairs) for pairs in b["in_pairs"][1:]]
    assert [sequences.labels.tolist() for sequences in made] == said()["losses"][number]["labels"]
    assert len({tuple(batch(gill, n)["in_pairs"]) for n in range(8)}) == 8


@pytest.mark.parametrize("number", range(20))
def test_the_losses(gill: GILL, number: int) -> None:
    found = gill_losses(gill.language, gill.parts, **batch(gill, number))
    official = said()["losses"][number]["values"]
    for name in ("ce_captioning", "ce_retrieval", "nce", "ce_generation", "distance"):
        assert getattr(found, name).item() == pytest.approx(official[name], rel=1e-6), name
    assert total_loss(found, GILLLossWeights()).item() == pytest.approx(official["loss"], rel=1e-6)


def test_captions_that_are_too_long_end_in_the_img_tokens(gill: GILL) -> None:
    captions = tokenise(gill.language, ["snow", recorder().CAPTIONS[4]], 8, length=14)
    assert captions.lengths.tolist() == [1 + len(gill.token_ids("snow")) + 8, 14]
    assert captions.ids[1, -8:].tolist() == gill.language.img_ids(8)
    with pytest.raises(ValueError, match="max_length"):
        tokenise(gill.language, ["snow"], 8, length=9)


def test_ten_steps_give_the_same_weights(gill: GILL, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Where their AdamW shrinks the rows of the text, of which only the gradient is held at 0, ours are as they were."""
    own = tiny_gill(tmp_path_factory.mktemp("trained"))
    own.language.net.double()
    text_before = own.language.net.get_input_embeddings().weight.clone()
    parts = own.parts.double().requires_grad_(True)
    optimizer = torch.optim.AdamW(parts.parameters(), 1e-3, betas=(0.9, 0.95), weight_decay=0.01, eps=1e-8)
    norm = own.language.mean_row_norm()
    for step in range(recorder().STEPS):
        for group in optimizer.param_groups:
            group["lr"] = 1e-3 * min((step + 1) / 4, 1)
        total_loss(
            gill_losses(own.language, parts, **doubled(batch(own, step))), GILLLossWeights()
        ).backward()
        torch.nn.utils.clip_grad_norm_(parts.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        parts.scale_img_rows(norm)
    before, after = inside("gill"), inside("trained")
    for name, value in parts.state_dict().items():
        beginning = next(b for b in PUBLISHED_NAMES if name.startswith(b))
        published = f"model.{PUBLISHED_NAMES[beginning]}{name.removeprefix(beginning)}"
        moved = (after[published] - before[published]).norm()
        assert moved > 1e-3 or name.endswith("in_proj_bias"), name
        torch.testing.assert_close(
            value.float(),
            after[published],
            rtol=1e-5,
            atol=1e-5,
            msg=lambda text, name=name: f"{name}: {text}",
        )
    assert torch.equal(own.language.net.get_input_embeddings().weight, text_before)
    rates = torch.tensor([1e-3 * min((step + 1) / 4, 1) for step in range(recorder().STEPS)])
    torch.testing.assert_close(recorded()["shrunk"], 1 - rates.double() * 0.01, rtol=1e-9, atol=0)
