"""Stage 1's conversations: samples of a mixture, encoded, and what was lost of them counted."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence

import torch

from ..data.mixture import Mixture
from ..data.samples import Sample
from .turns import IGNORED, ConversationInputs, Encoded, TurnEncoder

_log = logging.getLogger(__name__)

_CHECKED = 16  # samples of each part of the mixture that are encoded before the run begins


class MixedConversations:
    """The samples of a mixture, encoded when asked for.

    ``cut`` counts those that ``max_length`` cut, and ``unlearned`` those of which no token is learned.
    """

    def __init__(self, mixture: Mixture, encoder: TurnEncoder, system: str = "") -> None:
        self._mixture, self._encoder, self._system = mixture, encoder, system
        self.cut = self.unlearned = 0
        self._counting = threading.Lock()

    def __len__(self) -> int:
        return len(self._mixture)

    def name(self, index: int) -> str:
        """Where a sample comes from, for a person."""
        part, record = self._mixture.place(index)
        return f"{self._mixture.path(part)}, record {record}"

    def batch(self, indices: torch.Tensor, device: torch.device) -> ConversationInputs:
        """Encode these samples.

        Raises:
            ValueError, FileNotFoundError: one cannot be encoded or its picture not be read; the message names file and
                record.
        """
        rows = [self._encoded(i) for i in indices.tolist()]
        self._count(rows)
        return self._encoder.collate(rows, device)

    def check(self) -> None:
        """Encode the first samples of each part, so that a ``max_length`` that leaves nothing to learn is told early.

        Raises:
            ValueError: a picture does not fit ``max_length``, or no answer of a part's first samples does.
        """
        length, picture = self._encoder.max_length, self._encoder.image_tokens
        for part, indices in self._mixture.first_samples(_CHECKED).items():
            samples = [self._mixture[i] for i in indices]
            if picture >= length and any(sample.image is not None for sample in samples):
                raise ValueError(
                    f"max_length is {length}, and one picture takes {picture} tokens: {self._mixture.path(part)} shows "
                    "pictures; raise max_length"
                )
            labels = (
                self._encoder.tokens(sample.turns, sample.system or self._system)[1] for sample in samples
            )
            if all(label == IGNORED for row in labels for label in row):
                raise ValueError(
                    f"max_length is {length}, which cuts off all answers of the first {len(samples)} samples of "
                    f"{self._mixture.path(part)}, so that nothing is learned of them; raise max_length"
                )

    def _encoded(self, index: int) -> Encoded:
        sample: Sample = self._mixture[index]
        try:
            picture = sample.picture()
            return self._encoder.encode(
                sample.turns, [picture] if picture else [], sample.system or self._system
            )
        except (ValueError, FileNotFoundError) as error:
            raise type(error)(f"{self.name(index)}: {error}") from error

    def _count(self, rows: Sequence[Encoded]) -> None:
        """Count what was cut, and say it whenever the number has doubled."""
        with self._counting:
            before = self.cut
            self.cut += sum(row.cut for row in rows)
            self.unlearned += sum(not row.learned for row in rows)
            if before.bit_length() < self.cut.bit_length():
                _log.warning(
                    "%d conversations so far were longer than max_length (%d) and lost their end, %d of them all of their "
                    "answers",
                    self.cut,
                    self._encoder.max_length,
                    self.unlearned,
                )
