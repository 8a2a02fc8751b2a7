"""Image conversions at the border of the library: picture files, tensors and PIL images, BHWC and BCHW, masks fitted to
images.

Tensors are IMAGE (BHWC, float, 0 .. 1) and MASK (BHW, float, 0 .. 1, 1 = to be generated).
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from PIL import Image

HOLE_FROM = 1 / 64
"""The least mask value that is a hole. File readers and segmenters give masks that are nowhere exactly 0: 1/256 where
black was meant is common, and 4/255 occurs."""


def holes(mask: torch.Tensor) -> torch.Tensor:
    """What a mask says: float32, 0 .. 1, and 0 where it is below ``HOLE_FROM``. Everything that asks where a hole is asks
    here first."""
    weight = mask.to(torch.float32).clamp(0, 1)
    return torch.where(weight < HOLE_FROM, 0.0, weight)


_BROKEN = (
    OSError,  # UnidentifiedImageError among them, and a file that ends too early
    SyntaxError,  # a broken PNG
    ValueError,
    EOFError,
    TypeError,
    LookupError,
    OverflowError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)
"""What Pillow raises for files that are not whole pictures."""
_ORIENTATION = 0x0112  # the EXIF tag
_BITS = 258  # the TIFF tag BitsPerSample
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What turns a picture of each orientation upright; from 5 on width and height change places."""


def read_picture(path: Path, background: str | None = None) -> Image.Image:
    """A picture file as a person sees it: RGB, upright, all levels of a deep picture scaled to 8 bits.

    The orientation that a camera noted in EXIF is applied. Grey pictures of 9 to 16 bits are divided by their white and
    not cut off at 255; float ones hold 0 .. 1. Of an animation it is the first frame.

    Args:
        background: the colour behind what is transparent; None drops the transparency and keeps the colours under it.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no whole picture, or its levels have no known white; the message names the file.
    """
    try:
        with Image.open(path) as file:
            file.load()
            turn = _UPRIGHT.get(_orientation(file))
            upright = file if turn is None else file.transpose(turn)
            return to_rgb(upright, background, _white(file))
    except FileNotFoundError:
        raise
    except _BROKEN as error:
        raise ValueError(f"{path} cannot be read as a picture: {error}") from error


def picture_size(path: Path) -> tuple[int, int]:
    """Width and height of the picture that ``read_picture`` gives, from the file's header alone.

    Raises:
        FileNotFoundError, ValueError: see ``read_picture``.
    """
    try:
        with Image.open(path) as file:
            # The TIFF tags, for Pillow turns the size of such a file but not its orientation.
            tags = getattr(file, "tag_v2", {})
            width, height = (tags.get(tag, side) for tag, side in zip((256, 257), file.size, strict=True))
            return (height, width) if _orientation(file) in (5, 6, 7, 8) else (width, height)
    except FileNotFoundError:
        raise
    except _BROKEN as error:
        raise ValueError(f"{path} cannot be read as a picture: {error}") from error


def check_files(pictures: Iterable[Path], where: str | Path) -> None:
    """Raise unless all of these picture files are there. None is opened.

    Args:
        where: what names them, such as the file of a list.

    Raises:
        FileNotFoundError: some are missing; the message says how many, names the first three and ``where``.
    """
    wanted = list(dict.fromkeys(pictures))
    missing = [str(path) for path in wanted if not path.is_file()]
    if missing:
        raise FileNotFoundError(
            f"{len(missing)} of {len(wanted)} pictures of {where} do not exist: {', '.join(missing[:3])}"
            f"{', …' * (len(missing) > 3)}; put them there, correct the folder, or take them out of the list"
        )


def to_rgb(picture: Image.Image, background: str | None = None, white: int = 0xFFFF) -> Image.Image:
    """Convert a picture of any mode to RGB; see ``read_picture``.

    Args:
        white: the brightest level of a grey picture of more than 8 bits.

    Raises:
        ValueError: a grey picture's levels lie outside of 0 .. ``white``, or a float one's outside of 0 .. 1.
    """
    if picture.mode == "F" or picture.mode.startswith("I"):
        levels = np.asarray(picture, dtype=np.float64)
        top = 1 if picture.mode == "F" else white
        if not (np.isfinite(levels).all() and levels.min() >= 0 and levels.max() <= top):
            raise ValueError(
                f"its levels lie in {levels.min():g} .. {levels.max():g}; a picture of mode {picture.mode} must hold "
                f"0 .. {top}: save it with 8 bits"
            )
        return Image.fromarray((levels * (255 / top)).round().astype(np.uint8), "L").convert("RGB")
    if background is None or not picture.has_transparency_data:
        return picture.convert("RGB")
    layers = picture.convert("RGBA")
    behind = Image.new("RGB", layers.size, background)
    behind.paste(layers, mask=layers.getchannel("A"))
    return behind


def _orientation(file: Image.Image) -> int:
    """1 where EXIF says nothing, or cannot be read: a picture with a damaged note is still a picture."""
    try:
        return file.getexif().get(_ORIENTATION, 1)
    except _BROKEN:
        return 1


def _white(file: Image.Image) -> int:
    """The brightest level of a deep grey picture: 4095 for a TIFF of 12 bits, else that of 16."""
    bits = getattr(file, "tag_v2", {}).get(_BITS, (16,))[0]
    return (1 << bits) - 1 if 8 < bits < 16 else 0xFFFF


def to_pil(image: torch.Tensor) -> list[Image.Image]:
    """Convert to one RGB image per batch item: grey is repeated, alpha dropped, values clamped and rounded to 8 bits.

    Args:
        image: (B, H, W, C) with C = 1, 3 or 4, any float dtype and device.
    """
    rgb = image.detach().to("cpu", torch.float32)
    rgb = rgb.expand(-1, -1, -1, 3) if rgb.shape[-1] == 1 else rgb[..., :3]
    bytes_ = rgb.clamp(0, 1).mul(255).round().to(torch.uint8).numpy()
    return [Image.fromarray(np.ascontiguousarray(item), "RGB") for item in bytes_]


def from_pil(pictures: list[Image.Image]) -> torch.Tensor:
    """Convert images of one size to (B, H, W, 3) float32 in 0 .. 1.

    Raises:
        ValueError: there is no picture, or their sizes differ.
    """
    sizes = {picture.size for picture in pictures}
    if len(sizes) != 1:
        raise ValueError(f"a batch needs pictures of one size, got {sorted(sizes) or 'none'}")
    arrays = [np.asarray(to_rgb(picture), dtype=np.float32) / 255 for picture in pictures]
    return torch.from_numpy(np.stack(arrays))


def paint_hole_black(image: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Paint the hole black, as in the images that LLMGA was trained to see.

    Args:
        image: (B, H, W, C).
        mask: (B or 1, h, w), resized bilinearly to the picture.

    Raises:
        ValueError: there are several masks, but not one for each picture.

    Source: LLMGA, llmga/llava/train/inpainting_dataset.py:104-108.
    """
    keep = 1 - fit_mask(mask, image)[..., None]  # BHW -> BHW1
    return image * keep.to(image.dtype)


def channels_first(image: torch.Tensor) -> torch.Tensor:
    """Convert BHWC, C = 1, 3 or 4, to (B, 3, H, W): grey is repeated, alpha dropped, values clamped to 0 .. 1."""
    rgb = image.expand(-1, -1, -1, 3) if image.shape[-1] == 1 else image[..., :3]
    return rgb.movedim(-1, 1).clamp(0, 1)


def channels_last(image: torch.Tensor) -> torch.Tensor:
    """Convert BCHW to contiguous BHWC."""
    return image.movedim(1, -1).contiguous()


def fit_mask(mask: torch.Tensor, image: torch.Tensor) -> torch.Tensor:
    """Resize masks to the images and give one for each: (B, H, W) float32, what ``holes`` says of them.

    Args:
        mask: (B or 1, h, w), resized bilinearly to the pictures.
        image: (B, H, W, C).

    Raises:
        ValueError: there are several masks, but not one for each picture.
    """
    if mask.shape[0] not in (1, image.shape[0]):
        raise ValueError(
            f"mask holds {mask.shape[0]} masks for {image.shape[0]} pictures in image; give one, or one each"
        )
    weight = holes(mask.to(image.device))[:, None]  # BHW -> B1HW
    if weight.shape[-2:] != image.shape[1:3]:
        weight = torch.nn.functional.interpolate(
            weight, size=image.shape[1:3], mode="bilinear", antialias=True
        )
    return holes(weight[:, 0]).expand(image.shape[0], -1, -1)
