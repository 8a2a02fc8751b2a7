"""What the door of every node takes as a picture and as a mask, and what it says of all else."""

from __future__ import annotations

import pytest
import torch
from support import comfy_inprocess

pytestmark = pytest.mark.skipif(
    comfy_inprocess.comfy_path() is None, reason=str(comfy_inprocess.skip_reason())
)
FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


@pytest.fixture(scope="module")
def check():
    return comfy_inprocess.pack("nodes.check")


def odd_tensors() -> dict[str, torch.Tensor]:
    """Tensors that torch knows and no picture is."""
    plain = torch.rand(1, 8, 8, 3)
    return {
        "uint8": (plain * 255).to(torch.uint8),
        "int64": plain.long(),
        "complex": plain.to(torch.complex64),
        "float8": plain.to(torch.float8_e4m3fn),
        "sparse": plain.to_sparse(),
        "quantised": torch.quantize_per_tensor(plain, 0.1, 0, torch.quint8),
        "meta": plain.to("meta"),
        "nested": torch.nested.nested_tensor([plain[0], plain[0]]),
        "overflow": torch.full((1, 8, 8, 3), 1e300, dtype=torch.float64),
        "empty": plain[:0],
        "NaN": plain.half() * torch.nan,
    }


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_any_float_picture_becomes_float32(check, dtype: torch.dtype) -> None:
    image = torch.rand(1, 8, 8, 3).to(dtype)
    assert torch.equal(check.image("image", image), image.float())
    assert torch.equal(check.mask("mask", image[..., 0]), check.mask("mask", image[..., 0].float()))


@pytest.mark.parametrize("kind", odd_tensors())
def test_an_odd_tensor_is_refused_by_name(check, kind: str) -> None:
    given = odd_tensors()[kind]
    with pytest.raises(ValueError, match="^image "):
        check.image("image", given)
    with pytest.raises(ValueError, match="^mask "):
        check.mask(
            "mask", given if given.is_nested else given[..., 0] if given.layout == torch.strided else given
        )


@pytest.mark.parametrize("shape", [(6, 5), (2, 6, 5), (2, 1, 6, 5), (2, 6, 5, 1)], ids=str)
def test_shapes_of_masks(check, shape: tuple[int, ...]) -> None:
    given = torch.rand(shape)
    found = check.mask("mask", given)
    assert found.shape == ((1, 6, 5) if len(shape) == 2 else (2, 6, 5))
    assert torch.equal(found.flatten(), torch.where(given < 1 / 64, 0.0, given).flatten())


@pytest.mark.parametrize("shape", [(6,), (2, 6, 5, 3), (2, 3, 6, 5), (0, 6, 5)], ids=str)
def test_other_shapes_are_refused(check, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="^mask "):
        check.mask("mask", torch.rand(shape))


def test_a_mask_of_truth_values_is_a_mask(check) -> None:
    assert check.mask("mask", torch.tensor([[True, False]])).tolist() == [[[1.0, 0.0]]]


@pytest.mark.parametrize(
    "pair",
    [(torch.float16, torch.float32), (torch.float32, torch.bfloat16), (torch.float64, torch.float16)],
    ids=str,
)
@pytest.mark.parametrize("mask_type", FLOATS, ids=str)
def test_pictures_of_two_float_types_are_restored(
    pair: tuple[torch.dtype, ...], mask_type: torch.dtype
) -> None:
    node = comfy_inprocess.pack("nodes.restore").DiffRIRRestore
    image, reference = (torch.full((1, 32, 32, 3), 0.5, dtype=dtype) for dtype in pair)
    mask = torch.zeros(1, 32, 32)
    mask[:, 8:24, 8:24] = 1
    output = node.execute(image, reference, mask.to(mask_type), "colour correction", 0, "soft")
    assert output.args[0].dtype == torch.float32
    assert torch.equal(output.args[0][0, 0, 0], reference[0, 0, 0].float())


def test_a_floor_in_the_mask_does_not_open_the_whole_picture_to_an_edit() -> None:
    fitted = comfy_inprocess.pack("llmga.edit.fit").fit_edit_mask
    mask = torch.full((1, 64, 64), 1 / 256)
    mask[:, 16:32, 16:32] = 1
    assert (fitted(mask, (64, 64)) > 0).sum() == 16 * 16
    assert fitted(torch.full((1, 64, 64), 1 / 256), (64, 64)) is None


def test_an_array_in_place_of_an_optional_text_is_named(check) -> None:
    for value in (torch.rand(2, 3).numpy(), torch.rand(2, 3), [1], {"None"}):
        with pytest.raises(ValueError, match="^negative_text must be text, got "):
            check.optional_text("negative_text", value)
    assert check.optional_text("negative_text", None) == check.optional_text("negative_text", "None") == ""
