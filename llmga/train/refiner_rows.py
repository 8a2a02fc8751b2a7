"""Conversations as token rows for a base with a chat template of its own: the answers and their end tokens are labels.

A row is read as the chat engine reads a conversation with thinking off. Pictures keep their shape, and take as many tokens
as the base's processor gives them.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from PIL import Image

from ..chat.engines.thought import opens_thought, template_variables
from ..chat.formats import break_control, control_tokens
from ..data.mixture import Mixture
from ..data.samples import Sample
from .turns import IGNORED, pad_id_of

_PROBE = "llmga-probe"
_QUESTION, _ANSWER = ("user", "A fox.", False), ("assistant", "A red fox.", False)
_Spoken = tuple[str, str, bool]  # role, text, whether it shows the picture


class AnswerRow(NamedTuple):
    """One row of a batch.

    ``sequences`` are (1, T): input_ids, attention_mask, labels and what else the processor makes for each token.
    ``pictures`` is what the vision tower takes; empty for a row of words. ``cut`` is whether its end was lost
    to ``max_length``.
    """

    sequences: dict[str, torch.Tensor]
    pictures: dict[str, torch.Tensor]
    cut: bool


class AnswerEncoder:
    """Makes rows of samples, in which exactly the answers and their end tokens are learned.

    What is learned lies between two texts that are tokenised too: the one that asks for an answer, which is what the model
    reads when it is used, and the one that ends with it. Some chat templates write a past answer in another way than the one
    that was just given (Qwen3 leaves out its empty thought): such an answer is learned in a row of its own, which ends with
    it, so that one sample may become several rows.

    A row beyond ``max_length`` tokens loses its end, and with it a picture that does not fit as a whole.

    Args:
        processor: of the base, with a chat template; a tokenizer for a base that reads words alone.
        max_length: tokens of a row.
        max_pixels: a larger picture is scaled down to as many, its aspect kept.

    Raises:
        ValueError: there is no chat template, or where its answers stand cannot be told.

    Source: ``TurnEncoder``, for bases whose processor is not a LLaVA's. TRL 1.16's own masks (``assistant_only_loss``) need
    ``{% generation %}`` in the template, which it brings for templates that it knows by their text alone.
    """

    def __init__(self, processor: Any, max_length: int, max_pixels: int = 1 << 20) -> None:
        if not processor.chat_template:
            raise ValueError(
                "the base has no chat template; take its instruct version, or add its chat_template.jinja"
            )
        self.processor, self.max_length, self.max_pixels = processor, max_length, max_pixels
        self.has_vision = hasattr(processor, "image_processor")
        self._tokenizer = getattr(processor, "tokenizer", processor)
        self._control = control_tokens(processor)
        self._variables = template_variables(str(processor.chat_template), thinking=False)
        image = getattr(processor, "image_token", None)
        self._image_id = self._tokenizer.convert_tokens_to_ids(image) if image else None
        special = {i for i, token in self._tokenizer.added_tokens_decoder.items() if token.special}
        self._end_ids = special - {self._image_id, self._tokenizer.unk_token_id}
        self._takes_system = self._probe_system()
        self._answers([_QUESTION, _ANSWER])  # a template that cannot be learned from says so now

    @property
    def pad_id(self) -> int:
        return pad_id_of(self._tokenizer, self._image_id)

    def encode(self, sample: Sample, system: str = "") -> list[AnswerRow]:
        """The rows of a sample, most often one.

        Args:
            system: said before the conversation, where the sample has no system text of its own.

        Raises:
            ValueError: the sample shows a picture and the base reads none, the picture cannot be read, or the template gives
                an answer no exact place.
            OSError: the picture's file cannot be read.
        """
        picture = sample.picture()
        if picture is not None and not self.has_vision:
            raise ValueError(
                "the sample shows a picture, and the base reads words alone; set base to a model with a vision tower, or "
                "leave the parts with pictures out of mixture"
            )
        spoken = self._spoken(sample, sample.system or system)
        shown = None if picture is None else self._scaled(picture)
        return [
            self._row(text, labels, shown if any(shows for *_, shows in spoken[:count]) else None)
            for text, labels, count in self._answers(spoken)
        ]

    def _spoken(self, sample: Sample, system: str) -> list[_Spoken]:
        """The turns in order, the system text first or, where the template has no place for it, before the first request."""
        plain = [
            # The engine strips what it gives out, and a line break would melt into the one before an answer.
            (turn.role, turn.text.strip() if turn.role == "assistant" else turn.text, turn.shows_image)
            for turn in sample.turns
        ]
        spoken: list[_Spoken] = [(role, break_control(self._control, text), s) for role, text, s in plain]
        said = break_control(self._control, system)
        if said and self._takes_system:
            return [("system", said, False), *spoken]
        if said:
            role, text, shows = spoken[0]
            spoken[0] = (role, f"{said}\n\n{text}", shows)
        return spoken

    def _answers(self, spoken: Sequence[_Spoken]) -> list[tuple[str, list[int], int]]:
        """Of each row its text, its labels while a picture is one mark, and how many turns it holds; the whole first."""
        text = self._text(spoken)
        whole = self._ids(text)
        labels, rows = [IGNORED] * len(whole), []
        for k, (role, answer, _) in enumerate(spoken):
            if role != "assistant":
                continue
            request, given = self._exchange(spoken[: k + 1])
            asked, answered = self._ids(request), self._ids(given)
            start, stop = len(asked), self._stop(answered)
            if answered[:start] != asked or stop <= start:
                raise ValueError(
                    f"the chat template gives the answer {answer[:80]!r} no exact place: it writes no control token "
                    "behind it, or what it writes of a conversation with its answer does not begin with what it writes "
                    "to ask for one. A base that always thinks is such a one: take its instruct version"
                )
            if whole[:stop] == answered[:stop]:
                labels[start:stop] = whole[start:stop]
            else:
                ignored = [IGNORED] * len(answered)
                rows.append((given, ignored[:start] + answered[start:stop] + ignored[stop:], k + 1))
        learned = any(label != IGNORED for label in labels)
        return [(text, labels, len(spoken)), *rows] if learned else rows

    def _exchange(self, spoken: Sequence[_Spoken]) -> tuple[str, str]:
        """What asks for the last turn, an answer, and what ends with it.

        Where a template opens an answer with an empty thought and leaves that out afterwards (Qwen3.5), it is put in.
        """
        request, given = self._text(spoken[:-1], ask=True), self._text(spoken)
        before = given[: given.rfind(spoken[-1][1])]
        if given.startswith(request) or not request.startswith(before) or opens_thought(before, request):
            return request, given
        return request, request + given[len(before) :]

    def _row(self, text: str, labels: list[int], picture: Image.Image | None) -> AnswerRow:
        plain = self._ids(text)
        if self.has_vision:
            images = None if picture is None else [[picture]]
            made = self.processor(
                text=[text], images=images, add_special_tokens=self._adds_bos(text), return_tensors="pt"
            )
        else:
            made = self._tokenizer(text, add_special_tokens=False, return_tensors="pt")
        ids = made["input_ids"][0].tolist()
        spread, start, stop = self._around_picture(plain, labels, ids)
        sequences = {"labels": torch.tensor([spread])}
        pictures = {}
        for name, value in made.items():
            (sequences if tuple(value.shape[:2]) == (1, len(ids)) else pictures)[name] = value
        end = self.max_length
        if start < stop and start < end < stop:
            end = start
        if end <= start:
            pictures = {}
        return AnswerRow({name: v[:, :end] for name, v in sequences.items()}, pictures, len(ids) > end)

    def _around_picture(
        self, plain: list[int], labels: list[int], ids: list[int]
    ) -> tuple[list[int], int, int]:
        """The labels where a picture is all of its tokens, and where in the row it begins and ends.

        ``plain`` and ``ids`` are the same before and behind it. A row without a picture has it at its end, empty.
        """
        marks = [i for i, token in enumerate(ids) if token == self._image_id]
        if plain == ids:  # words alone, or a picture of a single token
            return labels, *((marks[0], marks[-1] + 1) if marks else (len(ids), len(ids)))
        head = len(os.path.commonprefix([plain, ids]))
        tail = len(os.path.commonprefix([plain[head:][::-1], ids[head:][::-1]]))
        if not marks or any(label != IGNORED for label in labels[head : len(plain) - tail]):
            raise ValueError(
                "the base's processor changes the text of an answer, so that what is learned has no exact place"
            )
        spread = labels[:head] + [IGNORED] * (len(ids) - tail - head) + labels[len(plain) - tail :]
        # Gemma 3 has lines and other tokens around those that the tower fills, and names the first of them alone.
        return spread, min(head, marks[0]), max(len(ids) - tail, marks[-1] + 1)

    def _text(self, spoken: Sequence[_Spoken], ask: bool = False) -> str:
        import jinja2

        messages = [{"role": role, "content": self._content(text, shows)} for role, text, shows in spoken]
        try:
            return self.processor.apply_chat_template(
                messages, tokenize=False, add_generation_prompt=ask, **self._variables
            )
        except jinja2.TemplateError as error:
            raise ValueError(f"the base's chat template refuses this conversation: {error}") from error

    def _content(self, text: str, shows_image: bool) -> Any:
        if not self.has_vision:
            return text
        return [{"type": "image"}] * shows_image + [{"type": "text", "text": text}]

    def _adds_bos(self, text: str) -> bool:
        """Whether the tokenizer is to add what begins every text; for words alone the template does, as in the engine."""
        bos = self._tokenizer.bos_token
        return self.has_vision and not (bos and text.startswith(bos))

    def _ids(self, text: str) -> list[int]:
        return self._tokenizer(text, add_special_tokens=self._adds_bos(text))["input_ids"]

    def _stop(self, ids: list[int]) -> int:
        """Behind the last control token, which ends the answer; the template may write more, such as a newline."""
        return next((i + 1 for i in reversed(range(len(ids))) if ids[i] in self._end_ids), 0)

    def _scaled(self, picture: Image.Image) -> Image.Image:
        scale = math.sqrt(self.max_pixels / (picture.width * picture.height))
        if scale >= 1:
            return picture
        size = (max(1, int(picture.width * scale)), max(1, int(picture.height * scale)))
        return picture.resize(size, Image.Resampling.BICUBIC)

    def _probe_system(self) -> bool:
        try:
            return _PROBE in self._text([("system", _PROBE, False), _QUESTION], ask=True)
        except ValueError:
            return False


class AnswerCollator:
    """Makes a batch of sample numbers: their rows, padded on the right, as the arguments of the model's ``forward``.

    Args:
        mixture: gives the samples by number.
        system: see ``AnswerEncoder.encode``.

    Attributes:
        cut: (1,) int64, how many rows lost their end; worker processes share it.
    """

    def __init__(self, mixture: Mixture, encoder: AnswerEncoder, system: str = "") -> None:
        self.encoder = encoder
        self._mixture, self._system = mixture, system
        self.cut = torch.zeros(1, dtype=torch.int64).share_memory_()

    def __call__(self, examples: Sequence[Mapping[str, int]]) -> dict[str, torch.Tensor]:
        """A batch of ``{"index": number}``.

        Raises:
            ValueError: a sample cannot be read, or the pictures of a batch do not fit into one tensor; it says which.
        """
        rows: list[AnswerRow] = []
        for example in examples:
            number = int(example["index"])
            try:
                rows += self.encoder.encode(self._mixture[number], self._system)
            except (ValueError, OSError) as error:
                part, record = self._mixture.place(number)
                raise ValueError(f"mixture part {part!r}, record {record}: {error}") from error
        self.cut += sum(row.cut for row in rows)
        return self.collate(rows)

    def collate(self, rows: Sequence[AnswerRow]) -> dict[str, torch.Tensor]:
        """Rows as one batch: sequences (B, T), pictures one behind the other."""
        length = max(row.sequences["input_ids"].shape[1] for row in rows)
        padding = {"input_ids": self.encoder.pad_id, "labels": IGNORED}
        batch: dict[str, torch.Tensor] = {}
        for name in sorted({name for row in rows for name in row.sequences}):
            some = next(row.sequences[name] for row in rows if name in row.sequences)
            whole = some.new_full((len(rows), length, *some.shape[2:]), padding.get(name, 0))
            for into, row in zip(whole, rows, strict=True):
                if name in row.sequences:
                    value = row.sequences[name][0]
                    into[: len(value)] = value
            batch[name] = whole
        for name in sorted({name for row in rows for name in row.pictures}):
            values = [row.pictures[name] for row in rows if name in row.pictures]
            if len({tuple(value.shape[1:]) for value in values}) > 1:
                raise ValueError(
                    f"the base's processor makes {name} of another shape for each picture, which no batch can hold; "
                    "set loop.micro_batch to 1"
                )
            batch[name] = torch.cat(values)
        return batch
