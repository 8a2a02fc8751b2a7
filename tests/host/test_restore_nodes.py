"""DiffRIR Loader, DiffRIR Restore and Seam Report as ComfyUI calls them: odd pictures and masks, exact outside the mask."""

from __future__ import annotations

import importlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from support import comfy_inprocess
from support.small_models import RESTORER, write_restorer
from support.weight_headers import write_sparse

pytestmark = pytest.mark.skipif(
    comfy_inprocess.skip_reason() is not None, reason=str(comfy_inprocess.skip_reason())
)
NETWORK, COLOUR = "DiffRIR", "colour correction"


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """``models/diffrir`` with a x1, a x2, a first stage, and a few files that are no DiffRIR."""
    comfy_inprocess.start()
    comfy_inprocess.pack("nodes.host").register_folders()
    paths: Any = importlib.import_module("folder_paths")
    place = Path(paths.get_folder_paths("diffrir")[0])
    # The test writes with the pack's own classes, which it knows under another name.
    with pytest.MonkeyPatch.context() as patch:
        import sys

        for name in ("llmga", "llmga.restore"):
            patch.setitem(sys.modules, name, comfy_inprocess.pack(name))
        write_restorer(place / RESTORER)
        write_restorer(place / "x2.safetensors", scale=2)
        write_restorer(place / "s1.pth", stage=1)
    write_sparse(place / "vae.safetensors", {"encoder.conv_in.weight": (1,)})
    (place / "cut.pth").write_bytes((place / RESTORER).read_bytes()[:5000])
    (place / "notes.txt").write_text("no weights")
    paths.filename_list_cache.clear()
    yield place
    shutil.rmtree(place)


def nodes() -> Any:
    return comfy_inprocess.pack("nodes.restore")


@pytest.fixture(scope="module")
def restorer(folder: Path) -> Any:
    return nodes().DiffRIRLoader.execute(RESTORER, "float32")[0]


def restore(image: Any, reference: Any, mask: Any, restorer: Any = None, **widgets: Any) -> Any:
    options = {"method": NETWORK if restorer else COLOUR, "seed": 0, "blend": "soft", **widgets}
    output = nodes().DiffRIRRestore.execute(image, reference, mask, restorer=restorer, **options)
    assert output.ui == {"text": [output[2]]}
    return output


def picture(height: int, width: int, batch: int = 1, channels: int = 3, seed: int = 0) -> torch.Tensor:
    coarse = torch.rand(batch, channels, 3, 5, generator=torch.Generator().manual_seed(seed))
    fine = torch.nn.functional.interpolate(coarse, (height, width), mode="bilinear", align_corners=True)
    return fine.movedim(1, -1).contiguous()


def hole(height: int, width: int, batch: int = 1) -> torch.Tensor:
    mask = torch.zeros(batch, height, width)
    mask[:, height // 4 : height // 2 + 1, width // 4 : width // 2 + 1] = 1
    return mask


def test_why_no_colours_were_corrected_is_said() -> None:
    """White around the hole is clipped, and says nothing of a gain."""
    reference, mask = torch.ones(1, 16, 24, 3), hole(16, 24)
    said = restore(reference * 0.9, reference, mask)[2]
    assert said.startswith(
        "colour correction from 0 pixels: none, for 16 that are neither black nor white are needed"
    )
    assert "none, for" not in restore(picture(16, 24) * 0.9, picture(16, 24), mask)[2]


def test_a_soft_mask_below_one_half_has_no_border() -> None:
    said = nodes().SeamReport.execute(picture(16, 24), hole(16, 24) * 0.4, 8)[4]
    assert "no border, the mask is empty, below one half everywhere, or covers everything" in said


@pytest.mark.parametrize("bad", [[1], [0, 1]])
def test_a_network_that_overflows_is_said_and_does_not_lose_the_other_pictures(
    bad: list[int], restorer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In half precision; NaN would be shown as black."""
    image, reference, mask = picture(16, 24, 2), picture(16, 24, 2, seed=1), hole(16, 24)
    good = restore(image, reference, mask, restorer)
    real = nodes().restore

    def overflowing(*given: Any, **options: Any) -> torch.Tensor:
        made = real(*given, **options)
        made[bad, :, 6, 8] = float("nan")
        return made

    monkeypatch.setattr(nodes(), "restore", overflowing)
    if len(bad) == 2:
        with pytest.raises(ValueError, match="restorer gives NaN or infinite numbers; choose the precision"):
            restore(image, reference, mask, restorer)
        return
    made = restore(image, reference, mask, restorer)
    assert torch.equal(made[0][0], good[0][0]) and not made[1][1].any()
    assert torch.equal(made[0][1], torch.lerp(reference[1], image[1], mask[0, ..., None]))
    assert "picture 1: restorer gives NaN" in made[2] and "picture 0: restorer" not in made[2]


METHODS = pytest.mark.parametrize("method", [NETWORK, COLOUR])


def given(method: str, restorer: Any) -> Any:
    return restorer if method == NETWORK else None


def test_the_loader_reads_what_a_file_is(folder: Path) -> None:
    loader = nodes().DiffRIRLoader
    assert "notes.txt" not in loader.define_schema().inputs[0].options
    assert RESTORER in loader.define_schema().inputs[0].options
    found, said = loader.execute(RESTORER, "float32").result
    assert said.startswith("DiffRIR x1") and next(found.net.parameters()).dtype == torch.float32
    assert loader.execute("x2.safetensors", "float16")[1].startswith("DiffRIR x2")
    for name, words in {
        "s1.pth": "first stage",
        "vae.safetensors": "vae.safetensors",
        "cut.pth": "cut.pth is a damaged or incomplete",
        "../secret.pth": "restorer_file must be one of",
    }.items():
        with pytest.raises(ValueError, match=words):
            loader.execute(name, "float32")
    with pytest.raises(ValueError, match="precision must be one of"):
        loader.execute(RESTORER, "int8")
    before = loader.fingerprint_inputs(RESTORER, "float32")
    assert before == loader.fingerprint_inputs(RESTORER, "float32") != "missing"
    assert loader.fingerprint_inputs("gone.pth", "float32") == "missing"
    # An API prompt may leave the optional input out; an error here would load the network anew at each run.
    assert loader.fingerprint_inputs(restorer_file=RESTORER) == before


@METHODS
@pytest.mark.parametrize(("height", "width"), [(1, 1), (7, 513), (513, 7), (40, 56)])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_any_size_and_alpha(restorer: Any, method: str, height: int, width: int, channels: int) -> None:
    image, reference = (picture(height, width, 1, channels, seed) for seed in (1, 2))
    mask = hole(height, width)
    result, difference, _ = restore(image, reference, mask, given(method, restorer)).result
    rgb = reference[..., :3].expand(-1, -1, -1, 3)
    assert result.shape == difference.shape == (1, height, width, 3)
    assert torch.equal(result[mask == 0], rgb[mask == 0]) and not difference[mask == 0].any()
    assert result.isfinite().all() and 0 <= result.min() and result.max() <= 1


@METHODS
def test_a_batch_is_the_loop(restorer: Any, method: str) -> None:
    image, reference = (picture(32, 40, 5, seed=seed) for seed in (1, 2))
    masks = torch.stack([torch.roll(hole(32, 40)[0], 3 * i, 1) for i in range(5)])
    whole = restore(image, reference, masks, given(method, restorer), seed=3)[0]
    for i in range(5):
        one = slice(i, i + 1)
        alone = restore(image[one], reference[one], masks[one], given(method, restorer), seed=3)[0]
        assert torch.equal(whole[one], alone)
    assert restore(image, reference[:1], masks[:1], given(method, restorer))[0].shape == (5, 32, 40, 3)
    with pytest.raises(ValueError, match=r"image.*reference|reference.*image"):
        restore(image, reference[:2], masks[:1], given(method, restorer))


def test_a_soft_mask_of_the_network_is_said(restorer: Any) -> None:
    image, reference = picture(32, 32, seed=1), picture(32, 32, seed=2)
    hard = torch.zeros(1, 32, 32)
    hard[:, 8:20, 8:20] = 1
    soft = hard.clone()
    soft[:, 7, 8:20] = 0.5
    said = [
        restore(image, reference, mask, restorer, blend=blend)[2]
        for mask, blend in ((soft, "soft"), (soft, "hard"), (hard, "soft"))
    ]
    assert ["the mask is soft" in text for text in said] == [True, False, False]


@METHODS
def test_an_empty_mask_changes_nothing(restorer: Any, method: str) -> None:
    image, reference = picture(32, 32, seed=1), picture(32, 32, seed=2)
    for mask in (torch.zeros(1, 32, 32), torch.zeros(1, 64, 64)):  # the second as LoadImage gives it
        result, difference, said = restore(image, reference, mask, given(method, restorer)).result
        assert torch.equal(result, reference) and not difference.any()
        assert "the mask is empty: nothing was changed" in said


@METHODS
def test_each_picture_that_its_mask_leaves_alone_is_said(restorer: Any, method: str) -> None:
    image, reference = picture(32, 32, 3, seed=1), picture(32, 32, 3, seed=2)
    masks = torch.stack([hole(32, 32)[0], torch.zeros(32, 32), hole(32, 32)[0] * 0.4])
    result, _, said = restore(image, reference, masks, given(method, restorer), blend="hard").result
    assert [bool(torch.equal(*pair)) for pair in zip(result, reference, strict=True)] == [False, True, True]
    assert "picture 1: the mask is empty: nothing was changed" in said and "picture 0: the" not in said
    assert "picture 2: the mask is below one half everywhere, and blend is hard: nothing was changed" in said
    assert ("picture 2: colour correction from" in said) == (method == COLOUR)
    alone = restore(image[2:], reference[2:], masks[2:], given(method, restorer), blend="hard")[2]
    assert "\nthe mask is below one half everywhere" in alone and "picture" not in alone


@METHODS
def test_a_full_mask_is_allowed_and_said(restorer: Any, method: str) -> None:
    image, reference = picture(32, 32, seed=1), picture(32, 32, seed=2)
    result, _, said = restore(image, reference, torch.ones(1, 8, 8), given(method, restorer)).result
    assert "the mask covers everything" in said
    if method == COLOUR:
        assert torch.equal(result, image) and "from 0 pixels" in said
    else:
        other = restore(image, picture(32, 32, seed=5), torch.ones(1, 8, 8), restorer)[0]
        assert torch.equal(result, other)  # nothing of the reference is left to see


@METHODS
def test_masks_of_another_size_and_soft_ones(restorer: Any, method: str) -> None:
    image, reference = picture(32, 64, seed=1), picture(32, 64, seed=2)
    coarse = hole(8, 16)
    fine = torch.nn.functional.interpolate(coarse[:, None], (32, 64), mode="bilinear", antialias=True)[:, 0]
    assert ((fine > 0) & (fine < 1)).any()
    found = restore(image, reference, coarse, given(method, restorer))[0]
    assert torch.equal(found, restore(image, reference, fine, given(method, restorer))[0])
    for mask in (fine, coarse):
        hard, difference, _ = restore(image, reference, mask, given(method, restorer), blend="hard").result
        assert torch.equal(hard[fine < 0.5], reference[fine < 0.5]) and not torch.equal(hard, found)
        assert not difference[fine < 0.5].any()
    soft = (fine > 0) & (fine < 0.5)
    assert not torch.equal(found[soft], reference[soft])


def test_the_colour_correction_undoes_a_gain_and_a_bias() -> None:
    reference, mask = picture(48, 48, seed=2) * 0.6 + 0.2, hole(48, 48)
    image = reference * 0.9 + 0.05
    result, difference, said = restore(image, reference, mask).result
    assert (result - reference).abs().max() < 1e-4
    assert said.startswith("colour correction from") and "R × 1.111 -0.056" in said
    assert torch.allclose(
        difference, ((result - torch.where(mask[..., None] > 0, image, reference)).abs() * 8).clamp(0, 1)
    )


def test_a_correction_too_large_is_called_so() -> None:
    reference, mask = picture(48, 48, seed=2) * 0.4 + 0.1, hole(48, 48)
    assert "more than a VAE does" in restore(reference + 0.3, reference, mask)[2]
    assert "more than a VAE does" not in restore(reference * 1.08 + 0.05, reference, mask)[2]


def test_it_is_never_silent(restorer: Any) -> None:
    image, mask = picture(32, 32, seed=1), hole(32, 32)
    with pytest.raises(
        ValueError, match="restorer must come from DiffRIR Loader .or set method to colour correction"
    ):
        restore(image, image, mask, None, method=NETWORK)
    assert restore(image, image * 0.5, mask, restorer)[2].startswith("DiffRIR x1")
    pasted = torch.where(mask[..., None] > 0, image, picture(32, 32, seed=2))
    assert (
        "image equals reference around the hole"
        in restore(pasted, picture(32, 32, seed=2), mask, restorer)[2]
    )


def test_a_x2_makes_twice_the_size(folder: Path) -> None:
    restorer = nodes().DiffRIRLoader.execute("x2.safetensors", "float32")[0]
    reference, mask = picture(64, 96, seed=2), hole(64, 96)
    result, _, said = restore(picture(32, 48, seed=1), reference, mask, restorer).result
    assert result.shape == reference.shape and torch.equal(result[mask == 0], reference[mask == 0])
    assert "image is 48×32, reference and result are 96×64" in said
    with pytest.raises(ValueError, match="different shapes"):
        restore(picture(16, 480, seed=1), reference, mask, restorer)


def test_the_seed(restorer: Any) -> None:
    image, reference, mask = picture(32, 32, seed=1), picture(32, 32, seed=2), hole(32, 32)
    first, again, other = (
        restore(image, reference, mask, restorer, seed=seed)[0] for seed in (7, 7, 2**64 - 1)
    )
    assert torch.equal(first, again) and first.shape == other.shape
    state = torch.random.get_rng_state()
    restore(image, reference, mask, restorer, seed=7)
    assert torch.equal(state, torch.random.get_rng_state())


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("image", torch.full((1, 8, 8, 3), float("nan"))),
        ("image", torch.zeros(0, 8, 8, 3)),
        ("reference", torch.zeros(8, 8)),
        ("mask", "text"),
        ("mask", torch.full((1, 8, 8), float("nan"))),
        ("method", "best"),
        ("seed", -1),
        ("seed", 0.5),
        ("blend", "feather"),
        ("restorer", "text"),
    ],
)
def test_a_wrong_value_is_named(restorer: Any, name: str, value: Any) -> None:
    plain = {"image": picture(8, 8), "reference": picture(8, 8), "mask": hole(8, 8), "restorer": restorer}
    plain |= {"method": NETWORK, "seed": 0, "blend": "soft"}
    with pytest.raises(ValueError, match=name):
        nodes().DiffRIRRestore.execute(**{**plain, name: value})


def test_it_can_be_cancelled(restorer: Any) -> None:
    management: Any = importlib.import_module("comfy.model_management")
    management.interrupt_current_processing(True)
    with pytest.raises(management.InterruptProcessingException):
        restore(picture(32, 32, seed=1), picture(32, 32, seed=2), hole(32, 32), restorer)
    management.interrupt_current_processing(False)


def report(image: Any, mask: Any, band: int = 4) -> Any:
    return nodes().SeamReport.execute(image, mask, band).result


def test_the_seam_report_sees_a_seam() -> None:
    reference, mask = picture(64, 64, seed=2) * 0.6 + 0.2, hole(64, 64)
    seamed = torch.where(mask[..., None] > 0, reference + 0.1, reference)
    calm, loud = report(reference, mask), report(seamed, mask)
    assert loud[1] > calm[1] + 0.05 and loud[1] == pytest.approx(0.1, abs=0.05)
    assert loud[3].shape == (1, 64, 64, 3) and "beside it" in loud[4] and "brightness" in loud[4]
    batch = report(torch.cat([reference, seamed]), mask)
    assert batch[1] == pytest.approx((calm[1] + loud[1]) / 2) and batch[4].count("picture") == 2


@pytest.mark.parametrize("mask", [torch.zeros(1, 64, 64), torch.ones(1, 3, 3)])
def test_without_a_border_there_is_no_seam(mask: torch.Tensor) -> None:
    texture, brightness, contrast, shown, said = report(picture(20, 20), mask)
    assert (texture, brightness, contrast) == (0, 0, 0) and "no border" in said and shown.isfinite().all()


@pytest.mark.parametrize(("height", "width", "channels"), [(1, 1, 3), (7, 513, 4), (30, 30, 1)])
def test_the_report_takes_any_picture(height: int, width: int, channels: int) -> None:
    *numbers, shown, _ = report(picture(height, width, 2, channels), hole(height, width))
    assert shown.shape == (2, height, width, 3) and all(0 <= number <= 1 for number in numbers)
    with pytest.raises(ValueError, match="mask holds 3 masks for 2 pictures"):
        report(picture(8, 8, 2), hole(8, 8, 3))
    with pytest.raises(ValueError, match="band"):
        report(picture(8, 8), hole(8, 8), 0)
