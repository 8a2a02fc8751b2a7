"""GILL: text and pictures in, in any order; text, pictures to generate and pictures to retrieve out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from PIL import Image

from ..chat.engines.base import CutAt, Sampling
from ..chat.engines.stream import GumbelMaxSampler
from .language import FrozenLanguage
from .parts import DecisionModel, GILLParts
from .vision import FrozenVision

PromptPart = str | Image.Image
"""A piece of what GILL reads; a text may spell ``[IMG0]`` … for a picture that GILL itself has put there."""

OnReply = Callable[[str], object]
"""``on_reply(text_so_far)``, before each pass of the network; whatever it raises ends the generation."""


@dataclass(frozen=True)
class ReplyOptions:
    """How a reply is written. The defaults are those of the released code.

    Args:
        max_tokens: a picture counts as one; 1 .. 1024.
        min_tokens: so many tokens come before the first picture may.
        temperature: 0 takes the likeliest token; else the logits are divided by it.
        top_p: only the likeliest tokens whose probability together reaches it are drawn from.
        seed: of the draw.
        retrieval_scale: above 1 the logit of [IMG0] becomes its magnitude times this.
        generation_scale: the same once more. 1e5 always gives a picture at once, as the paper's evaluation does.
        stop_at_end: the end token ends the reply. OPT, which GILL was published with, was not trained to write one.
    """

    max_tokens: int = 32
    min_tokens: int = 0
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0
    retrieval_scale: float = 1.0
    generation_scale: float = 1.0
    stop_at_end: bool = False

    def __post_init__(self) -> None:
        if not 1 <= self.max_tokens <= 1024:
            raise ValueError(f"max_tokens must be between 1 and 1024, got {self.max_tokens}")
        if self.min_tokens < 0:
            raise ValueError(f"min_tokens must not be negative, got {self.min_tokens}")
        for name in ("retrieval_scale", "generation_scale"):
            if not 0 <= getattr(self, name) <= 1e6:
                raise ValueError(f"{name} must be between 0 and 1e6, got {getattr(self, name)}")
        if self.temperature == 0 and self.top_p != 1:
            raise ValueError(
                f"top_p cannot be used at temperature 0, which takes the likeliest token; got top_p {self.top_p:g}: set it "
                "to 1, or raise temperature"
            )
        self.sampling  # noqa: B018 - its ranges are checked

    @property
    def sampling(self) -> Sampling:
        return Sampling(seed=self.seed, temperature=self.temperature, top_p=self.top_p)


@dataclass(frozen=True)
class Written:
    """A reply as ids, up to the line's end.

    Args:
        ids: (T,); each picture is all of its [IMG] tokens.
        states: hidden states (T, d), float32, on the CPU; of a last token that is no part of a picture they are 0.
        cut: what ended the reply before its line did; "" where the line or a picture ended it.
    """

    ids: tuple[int, ...]
    states: torch.Tensor
    cut: CutAt = ""


class GILL:
    """A frozen language model, a frozen vision encoder and the trained parts between them.

    Attributes:
        place: called right before the networks run, with the sequence to come; a host puts them where they shall run.

    Source: kohjingyu/gill 4600b71, gill/models.py.
    """

    def __init__(
        self,
        language: FrozenLanguage,
        vision: FrozenVision | None,
        parts: GILLParts,
        decision: DecisionModel | None = None,
    ) -> None:
        """
        Raises:
            ValueError: the widths of the four do not fit each other.
        """
        sizes = parts.sizes
        if sizes.language != language.width:
            raise ValueError(
                f"this GILL was trained for a language model of width {sizes.language}; {language.name!r} has "
                f"{language.width}. Choose the one that it was trained with in 'language' (OPT-6.7B for the released one)"
            )
        if vision is not None:
            vision.use_width(sizes.vision)
        if decision is not None and decision.linear.in_features != language.width:
            raise ValueError(
                f"the decision model was trained for a language model of width {decision.linear.in_features}; "
                f"{language.name!r} has {language.width}. Choose another file in 'decision', or none"
            )
        self.language, self.vision, self.parts, self.decision = language, vision, parts, decision
        self.place: Callable[[], object] = lambda: None
        self._img_ids = language.img_ids(sizes.img_tokens)
        newline = language.token_ids("\n", 0)
        self._newline = newline[-1] if newline else None

    @property
    def img_text(self) -> str:
        """How a picture is written in a text."""
        return "".join(f"[IMG{i}]" for i in range(self.parts.sizes.img_tokens))

    def token_ids(self, text: str) -> list[int]:
        """The ids of a text, with ``[IMG0]`` … as tokens and no token before it."""
        return self.language.token_ids(text, self.parts.sizes.img_tokens)

    @torch.no_grad()
    def pooled(self, picture: Image.Image) -> torch.Tensor:
        """What the vision encoder makes of a picture, (1, vision).

        Raises:
            ValueError: there is no vision encoder.
        """
        if self.vision is None:
            raise ValueError(
                "'gill' has no vision encoder, so it cannot see pictures; choose one in 'vision' of LLMGA GILL Loader"
            )
        return self.vision.pooled(self.vision.pixels(picture)[None]).to(self.parts.img_rows.device)

    @torch.no_grad()
    def embed(self, prompt: Sequence[PromptPart]) -> torch.Tensor:
        """Input embeddings (1, T, d) of text and pictures in their order.

        The token that begins a text stands once, before the first piece that is text.

        Raises:
            ValueError: the prompt is empty, or shows pictures that GILL cannot see.
        """
        found: list[torch.Tensor] = []
        begins = self.language.bos
        for part in prompt:
            if isinstance(part, str):
                ids = [*begins, *self.token_ids(part)]
                begins = []
                if ids:
                    found.append(self._embed_ids(ids))
            else:
                found.append(
                    self.parts.visual_tokens(self.pooled(part).to(self.parts.visual_fc.weight.dtype))
                )
        if not found:
            raise ValueError("there is nothing to read: write a message, or connect a picture")
        return torch.cat([piece.to(self.language.device, self.language.dtype) for piece in found], 1)

    def _embed_ids(self, ids: Sequence[int]) -> torch.Tensor:
        return self.language.embed(torch.tensor([list(ids)], device=self.language.device), self._rows())

    def _rows(self) -> torch.Tensor:
        return self.parts.img_rows.to(self.language.device)

    @torch.no_grad()
    def hidden(self, prompt: Sequence[PromptPart]) -> torch.Tensor:
        """The last layer's state of each token of a prompt, (T, d), float32, on the CPU."""
        self.place()
        return self.language.read(self.embed(prompt), self._rows()).hidden[0].float().cpu()

    @torch.no_grad()
    def picture_states(self, prompt: Sequence[PromptPart]) -> torch.Tensor:
        """The states (img_tokens, d) of a picture that stands right behind the prompt, whatever GILL would write there."""
        self.place()
        embeddings = torch.cat([self.embed(prompt), self._embed_ids(self._img_ids)], 1)
        count = len(self._img_ids)
        return self.language.read(embeddings, self._rows()).hidden[0, -count:].float().cpu()

    @torch.no_grad()
    def write(
        self,
        prompt: Sequence[PromptPart],
        options: ReplyOptions | None = None,
        on_reply: OnReply = lambda text: None,
    ) -> Written:
        """Write a reply token by token until the line ends.

        [IMG1] … are never chosen; when [IMG0] is, all of them are written. A line's end that comes first of all ends
        nothing, and neither does a later one then, as in the released code. That code runs on behind the line's end and
        cuts; ours stops there. Where the language model's context is full the reply ends too, and what was written is kept;
        the released code raises there.

        Raises:
            ValueError: the prompt is empty, too long, or shows pictures that GILL cannot see.
        """
        options = options or ReplyOptions()
        self.place()
        draw = GumbelMaxSampler(options.sampling)
        rows = self._rows()
        embeddings = self.embed(prompt)
        read = self.language.read(embeddings, rows, keep_cache=True)
        room = self.language.context - embeddings.shape[1]
        ids: list[int] = []
        states: list[torch.Tensor] = []
        cut: CutAt = ""
        for step in range(options.max_tokens):
            on_reply(self.language.text_of(ids))
            token = self._choose(read.logits[:, -1].float().clone(), step, options, draw)
            if (token == self._newline and ids and self._newline not in ids) or (
                options.stop_at_end and token == self.language.tokenizer.eos_token_id
            ):
                break
            is_picture = token == self._img_ids[0]
            new = self._img_ids if is_picture else [token]
            fits = len(ids) + len(new) <= room
            if is_picture and not fits:
                if not ids:
                    self.language.check_length(embeddings.shape[1] + len(new))
                cut = "context"
                break
            ids += new
            is_last = step + 1 == options.max_tokens
            if not is_picture and (is_last or not fits):  # it need not be read
                states.append(torch.zeros(1, self.language.width))
                cut = "max_new_tokens" if is_last else "context"
                break
            read = self.language.read(self._embed_ids(new), rows, read.cache, keep_cache=True)
            states.append(read.hidden[0].float().cpu())
        on_reply(self.language.text_of(ids))
        found = torch.cat(states) if states else torch.zeros(0, self.language.width)
        return Written(tuple(ids), found, cut)

    def _choose(self, logits: torch.Tensor, step: int, options: ReplyOptions, draw: GumbelMaxSampler) -> int:
        """The next id, from logits (1, vocabulary), which are changed."""
        first, last = self._img_ids[0], self._img_ids[-1]
        logits[:, first + 1 : last + 1] = -torch.inf
        if step < options.min_tokens:
            logits[:, first] = -torch.inf
        for scale in (options.retrieval_scale, options.generation_scale):
            if scale > 1 and step >= options.min_tokens:
                logits[:, first] = logits[:, first].abs() * scale
        if options.temperature == 0:
            return int(logits.argmax(-1))
        return int(draw(torch.empty(0), logits).argmax(-1))
