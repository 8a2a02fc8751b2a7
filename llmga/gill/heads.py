"""Heads that turn the hidden states of GILL's [IMG] tokens into text states for an image generator."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import nn

HeadKind = Literal["gill_mapper", "linear", "mlp", "transformer_encoder"]
HEAD_KINDS: tuple[HeadKind, ...] = get_args(HeadKind)
ATTENTION_HEADS = 4
"""Of every attention layer of the mapper (G/layers.py:22); no weight file shows it."""


class GILLMapper(nn.Module):
    """An encoder reads the [IMG] states, and a decoder with learned queries writes the text states.

    The names of the weights are those of the released checkpoint. The layers are ``torch.nn``'s own and not a host's
    ``operations``: the whole mapper has 32 M numbers, and ``nn.Transformer`` fixes what its layers are.

    Source: kohjingyu/gill 4600b71, gill/layers.py:15-44. No dropout, normalisation first, no masks.
    """

    def __init__(self, width_in: int, rows: int, width_out: int, width: int = 512, layers: int = 4) -> None:
        super().__init__()
        self.fc = nn.Linear(width_in, width)
        self.tfm = nn.Transformer(
            d_model=width,
            nhead=ATTENTION_HEADS,
            num_decoder_layers=layers,
            dim_feedforward=4 * width,
            dropout=0.0,
            custom_encoder=_encoder(width, layers),
            batch_first=True,
            norm_first=True,
        )
        self.model = nn.Linear(width, width_out)
        self.query_embs = nn.Parameter(torch.randn(1, rows, width))

    def forward(
        self, states: torch.Tensor, img_rows: torch.Tensor, shift: torch.Tensor | None = None
    ) -> torch.Tensor:
        """States (B, K, width_in) of the K [IMG] tokens and their input rows (K, width_in) to (B, rows, width_out).

        Args:
            shift: (B, 1, width) to add to the queries; ``llmga.gill.embedding`` tells the chunks of a prompt by it.
        """
        queries = self.query_embs.expand(len(states), -1, -1)
        queries = queries if shift is None else queries + shift
        return self.model(self.tfm(self.fc(states + img_rows), queries))


class LinearHead(nn.Module):
    """One linear layer for each [IMG] state; the outputs, one behind the other, are cut into rows.

    Source: ``TextFcLayer`` in the mode ``linear`` (gill/layers.py:15-16) with ``gen_emb_dim`` = 77·768/8 (main.py:265).
    """

    def __init__(self, width_in: int, rows: int, width_out: int, tokens: int) -> None:
        super().__init__()
        self.rows = rows
        self.model = nn.Linear(width_in, _share(rows, width_out, tokens))

    def forward(self, states: torch.Tensor, img_rows: torch.Tensor) -> torch.Tensor:
        """See ``GILLMapper.forward``; the input rows are not used."""
        return self.model(states).reshape(len(states), self.rows, -1)


class MLPHead(LinearHead):
    """Three linear layers with LeakyReLU between them for each [IMG] state.

    The released code holds only the linear head and the mapper; the widths between the layers, ``width``, are ours.
    """

    def __init__(self, width_in: int, rows: int, width_out: int, tokens: int, width: int = 512) -> None:
        super().__init__(width_in, rows, width_out, tokens)
        self.model = nn.Sequential(
            nn.Linear(width_in, width),
            nn.LeakyReLU(),
            nn.Linear(width, width),
            nn.LeakyReLU(),
            nn.Linear(width, _share(rows, width_out, tokens)),
        )


class TransformerEncoderHead(nn.Module):
    """A bidirectional encoder over the [IMG] states, each of whose outputs is a share of the rows.

    The released code does not hold it; it has the encoder of ``GILLMapper`` and the outputs of ``LinearHead``.
    """

    def __init__(
        self, width_in: int, rows: int, width_out: int, tokens: int, width: int = 512, layers: int = 4
    ) -> None:
        super().__init__()
        self.rows = rows
        self.fc = nn.Linear(width_in, width)
        self.encoder = _encoder(width, layers)
        self.model = nn.Linear(width, _share(rows, width_out, tokens))

    def forward(self, states: torch.Tensor, img_rows: torch.Tensor) -> torch.Tensor:
        """See ``GILLMapper.forward``."""
        return self.model(self.encoder(self.fc(states + img_rows))).reshape(len(states), self.rows, -1)


def _encoder(width: int, layers: int) -> nn.TransformerEncoder:
    layer = nn.TransformerEncoderLayer(
        width, ATTENTION_HEADS, 4 * width, dropout=0.0, batch_first=True, norm_first=True
    )
    return nn.TransformerEncoder(layer, layers, nn.LayerNorm(width), enable_nested_tensor=False)


def _share(rows: int, width_out: int, tokens: int) -> int:
    """How many of the ``rows * width_out`` numbers each of the [IMG] tokens gives."""
    if rows * width_out % tokens:
        raise ValueError(
            f"this head cuts {rows} rows of {width_out} numbers into {tokens} equal shares, which leaves a rest; "
            "choose the head 'gill_mapper', or another number of [IMG] tokens"
        )
    return rows * width_out // tokens
