"""A language model that ComfyUI itself loaded (a CLIP with ``generate``), as a chat engine."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch

from ..llmga.chat import Conversation, OnText, Said, Sampling
from ..llmga.chat.conversation import Picture
from ..llmga.chat.engines.base import check_conversation
from ..llmga.chat.engines.stream import Stream
from ..llmga.chat.formats import GEMMA4_LARGE, ChatFormat, control_pattern, find_format
from ..llmga.chat.thinking import is_mark_token, is_quoted
from ..llmga.images import from_pil
from .host import announce_loading

CANNOT_WRITE = (
    "clip is a text encoder that cannot write text ({reason}); load a language model (Qwen3, Qwen3-VL, Gemma 3 …) with "
    "Load CLIP, or use LLMGA Model Loader"
)
GEMMA4_LARGE_WIDTH = 3840  # embedding width of Gemma 4 12B; 31B is wider, E2B and E4B are narrower
VISION_TOWERS = ("visual", "vision_model")


class HostEngine:
    """Continues a conversation with the language model of a CLIP, in the chat format that its family was trained on.

    The token ids come from the tokenizer inside the CLIP and not from ``CLIP.tokenize``, which puts the painter's own
    words around a text, pads it, cuts it, and reads weights and embeddings out of it. Only the entry that stands for a
    picture comes from there, because each family prepares pictures differently.

    Attributes:
        format: the chat format.
        thinking: whether the model may write a thought before its answer.
    """

    name = "ComfyUI's language model"

    def __init__(self, clip: Any) -> None:
        """Take a CLIP whose network can write.

        Raises:
            ValueError: it cannot; the text says why.
        """
        self.clip = clip
        self.thinking = False
        self._key, self._network = _language_network(getattr(clip, "cond_stage_model", None))
        self.supports_pictures = any(hasattr(self._network, name) for name in VISION_TOWERS)
        self._tokenizer = _tokenizer_of(clip.tokenizer, self._key)
        self.format = _format_of(self._key or self._tokenizer.embedding_key, self._tokenizer)
        self._control = control_pattern((*self.format.tokens, *_special_tokens(self._tokenizer)))
        self._eos_ids = set(map(int, self._network.model.config.stop_tokens))
        self._eos_ids |= {found for token in self.format.eos if (found := self._single_id(token)) is not None}
        self._stream: Stream | None = None

    @property
    def written(self) -> int:
        """See ``CountsTokens``."""
        return 0 if self._stream is None else self._stream.received

    def __str__(self) -> str:
        """Its name and its family, which is what a person may see of it."""
        return f"{self.name} ({self.format.name})"

    def generate(self, conversation: Conversation, sampling: Sampling, on_text: OnText) -> Said:
        """See ``ChatEngine.generate``; the reply is stripped of white space at both ends.

        ``on_text`` is called first with an empty text, then for each token, and before a layer of the network if it was
        not for 0.1 s.

        Raises:
            ValueError: also if the context has no room for the conversation, or a picture did not get into it.
        """
        check_conversation(conversation, self)
        on_text("")
        thinking = self.thinking or sampling.thinking
        row = self._encode(conversation, thinking)
        wanted = sampling.max_new_tokens + (sampling.thought_tokens if thinking else 0)
        most = self._room(len(row), wanted)
        greedy = sampling.temperature == 0
        opened = self.format.opens_thought(thinking)
        stream = Stream(partial(_decode, self._tokenizer), self._eos_ids, on_text, sampling, thinking=opened)
        self._stream = stream
        announce_loading(getattr(self.clip, "patcher", None))
        with _streaming_to(self._network, stream):
            # The host draws from a generator of its own, so the global random state is left alone.
            ids = self.clip.generate(
                {self._key: [row]} if self._key else [row],
                do_sample=not greedy,
                max_length=most,
                temperature=1.0 if greedy else sampling.temperature,
                top_k=0,
                top_p=sampling.top_p,
                min_p=0.0,
                repetition_penalty=1.0,
                seed=sampling.seed,
            )
            if not stream.received:  # a network that samples in another way sent nothing
                stream.put(ids)
        return stream.end(most, wanted)

    def _encode(self, conversation: Conversation, thinking: bool = False) -> list[tuple[Any, float]]:
        """The conversation as ComfyUI's tokens with their weights; an entry in place of a token is a picture."""
        text = self.format.render(self.format.protect(conversation, self._control), thinking)
        ids = list(map(int, self._tokenizer.tokenizer(text)["input_ids"]))
        start = self._tokenizer.start_token
        if self.format.has_bos and start is not None:
            ids = [start, *(ids[1:] if ids[:1] == [start] else ids)]
        pictures = [self._picture_entry(picture) for picture in conversation.pictures]
        if not pictures:
            return [(token, 1.0) for token in ids]
        marker = self._single_id(self.format.picture or "")
        count = 0 if marker is None else ids.count(marker)
        if count != len(pictures):
            raise ValueError(
                f"the tokenizer of {self.format.name} in ComfyUI made {count} picture tokens of "
                f"{len(pictures)} pictures; disconnect 'image' and 'mask', or load another model into 'clip'"
            )
        left = iter(pictures)
        return [(next(left) if token == marker else token, 1.0) for token in ids]

    def _picture_entry(self, picture: Picture) -> dict[str, Any]:
        """What ComfyUI puts in place of the token of a picture: taken from its own template for one picture."""
        batch = from_pil([picture.to_pil()])
        tokens = self.clip.tokenize("x", image=batch, images=[batch], skip_template=False, min_length=1)
        rows = [row for part in tokens.values() for row in part] if isinstance(tokens, dict) else tokens
        entries = [
            entry[0]
            for row in rows
            for entry in row
            if isinstance(entry[0], dict) and entry[0].get("type") == "image"
        ]
        if len(entries) != 1:
            raise ValueError(
                f"ComfyUI's tokenizer {type(self.clip.tokenizer).__name__} takes no picture for {self.format.name}; "
                "disconnect 'image' and 'mask', or choose another 'type' in Load CLIP"
            )
        return entries[0]

    def _room(self, used: int, wanted: int) -> int:
        """How many tokens may be written: as many as are wanted and fit."""
        limit = getattr(self._network.model.config, "max_position_embeddings", None) or 2**31
        if used >= limit:
            raise ValueError(
                f"the conversation has {used} tokens and {self.format.name} reads {limit}, the reply included; shorten "
                "'history' or 'instruction'"
            )
        return min(wanted, limit - used)

    def _single_id(self, token: str) -> int | None:
        """The id of a control token, None if the tokenizer does not know it as one token."""
        ids = self._tokenizer.tokenizer(token)["input_ids"] if token else []
        ids = ids[1:] if len(ids) == 2 and ids[0] == self._tokenizer.start_token else ids
        return int(ids[0]) if len(ids) == 1 else None


def _language_network(network: Any) -> tuple[str, Any]:
    """The language model inside a CLIP's network, with the name under which ComfyUI files its tokens ("" for none).

    Raises:
        ValueError: the network cannot write; the text says why.
    """
    parts = {"": network, **dict(network.named_children())} if isinstance(network, torch.nn.Module) else {}
    writers = {
        key: part.transformer
        for key, part in parts.items()
        if hasattr(getattr(part, "transformer", None), "generate")
    }
    if not writers or not hasattr(network, "generate"):
        kind = type(network).__name__.strip("_")
        raise ValueError(CANNOT_WRITE.format(reason=f"ComfyUI's {kind} has no text generation"))
    key, found = next(iter(writers.items()))
    config = getattr(getattr(found, "model", None), "config", None)
    if getattr(config, "final_norm", True) is False:
        reason = (
            f"ComfyUI loads {key} up to an inner layer, which its painter reads, and without an output layer"
        )
        raise ValueError(CANNOT_WRITE.format(reason=reason))
    if not getattr(config, "stop_tokens", None):
        reason = f"ComfyUI's text generation does not support {key}: it knows no token that ends its reply"
        raise ValueError(CANNOT_WRITE.format(reason=reason))
    # LTX calls every language model gemma3_12b inside, and files its tokens under the family.
    return getattr(network, "text_encoder_key", key), found


def _tokenizer_of(tokenizer: Any, key: str) -> Any:
    names = [name for name in (key, getattr(tokenizer, "clip", "")) if name]
    found = next((getattr(tokenizer, name) for name in names if hasattr(tokenizer, name)), tokenizer)
    if not callable(getattr(found, "tokenizer", None)):
        raise ValueError(
            f"clip has a tokenizer that LLMGA does not know ({type(tokenizer).__name__}); load the language model with "
            "ComfyUI's Load CLIP"
        )
    return found


def _format_of(family: str, tokenizer: Any) -> ChatFormat:
    """The chat format of the family; the size of a Gemma 4 follows from its tokenizer."""
    found = find_format(family)
    large = getattr(tokenizer, "embedding_size", 0) >= GEMMA4_LARGE_WIDTH
    return GEMMA4_LARGE if family.startswith("gemma4") and large else found


def _special_tokens(tokenizer: Any) -> set[str]:
    """What the tokenizer itself reads as a control token: each kind that ComfyUI uses says it in its own way."""
    inner = tokenizer.tokenizer
    tokens = set(getattr(inner, "special_tokens", None) or ())  # SentencePiece
    tokens |= set(getattr(inner, "_special_token_ids", None) or ())  # ComfyUI's own BPE
    added = getattr(inner, "added_tokens_decoder", None)  # transformers
    if added is None and hasattr(getattr(inner, "tokenizer", None), "get_added_tokens_decoder"):  # tokenizers
        added = inner.tokenizer.get_added_tokens_decoder()
    tokens |= {token.content for token in (added or {}).values() if token.special}
    return {token for token in tokens if isinstance(token, str) and re.search(r"\W", token)}


def _decode(tokenizer: Any, ids: list[int]) -> str:
    """The text of a reply's tokens; of the control tokens only those that mark a thought stay visible."""
    special = _special_tokens(tokenizer)
    dropped = {token for token in special if not is_mark_token(token)}
    if dropped == special:
        return tokenizer.decode(ids, skip_special_tokens=True)
    text = tokenizer.decode(ids, skip_special_tokens=False)
    return control_pattern(dropped).sub(lambda token: token[0] if is_quoted(token) else "", text)


class _FinishedError(Exception):
    """The reply is complete; raised out of the host's loop, which knows fewer ends than the chat format."""


@contextmanager
def _streaming_to(network: Any, stream: Stream) -> Iterator[None]:
    """Tell a stream of every token that this network samples, and end the block when the stream has stopped.

    Only this one network is changed, and only as long as the block runs.
    """
    before = network.__dict__.get("sample_token")
    sample = getattr(network, "sample_token", None)

    def sample_and_tell(*args: Any, **kwargs: Any) -> Any:
        token = sample(*args, **kwargs)  # type: ignore[misc]
        stream.put([int(token[0])])
        if stream.stopped:
            raise _FinishedError
        return token

    blocks = [
        block for child in network.modules() if isinstance(child, torch.nn.ModuleList) for block in child
    ]
    hooks = [block.register_forward_pre_hook(stream.on_block) for block in blocks]
    if sample is not None:
        network.sample_token = sample_and_tell
    try:
        yield
    except _FinishedError:
        pass
    finally:
        for hook in hooks:
            hook.remove()
        if sample is not None:
            del network.sample_token
            if before is not None:
                network.sample_token = before
