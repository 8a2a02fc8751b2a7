"""Names that transformers has changed between the versions that this library runs on."""

from __future__ import annotations

from dataclasses import fields


def dtype_argument() -> str:
    """The argument of ``from_pretrained`` that chooses the dtype of the weights: ``dtype`` from 5.0 on."""
    import transformers

    return "torch_dtype" if int(transformers.__version__.split(".")[0]) < 5 else "dtype"


def cache_name() -> str:
    """The argument of ``forward`` and ``generate``, and the field of their outputs, that holds keys and values.

    Newer versions call it ``cache``, and warn of ``past_key_values`` before they stop taking it.
    """
    from transformers.generation import GenerateDecoderOnlyOutput

    names = {field.name for field in fields(GenerateDecoderOnlyOutput)}
    return "cache" if "cache" in names else "past_key_values"


def generate_takes_pictures_after_a_cache() -> bool:
    """Whether ``generate`` hands pictures on to a network that has read the tokens before them already.

    Below 5.0 it drops ``pixel_values`` unless the first step starts at position 0, without a word.
    """
    import transformers

    return int(transformers.__version__.split(".")[0]) >= 5
