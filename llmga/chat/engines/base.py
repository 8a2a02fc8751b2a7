"""The contract of a chat engine, and of what it may offer beyond."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

from ..conversation import Conversation
from ..thinking import split_reply

if TYPE_CHECKING:
    import torch

MAX_NEW_TOKENS = 8192
MAX_THOUGHT_TOKENS = 32768
THOUGHT_TOKENS = 2048
"""How long a thought may be by default: about a page and a half of text."""

_SPACES = " \tĠ▁"
"""What stands before a word in a vocabulary: a space, as byte-level and SentencePiece tokenizers spell it."""
OnText = Callable[[str], None]
"""``on_text(text_so_far)``: called for new text and at least about twice a second while nothing arrives.

It is the progress report and the cancel point in one: whatever it raises ends the generation at once and passes
through the engine unchanged, even a ``BaseException``. What the model thinks stands first in the text, between
``<think>`` and ``</think>``, whatever its own marks are.
"""

CutAt = Literal["", "max_new_tokens", "context", "filter", "server"]
"""What ended a reply before the model did; "" where the model ended it, or had written what was asked for."""
CUT_REASONS: Mapping[CutAt, str] = {
    "max_new_tokens": "the reply ended at 'max_new_tokens', before the model had finished; raise it",
    "context": "the reply ended where the model's context is full, before the model had finished; shorten 'history' or "
    "'instruction', or take a model with a longer context",
    "filter": "the reply was ended by a content filter of its server, before the model had finished; change 'instruction'",
    "server": "the reply was given up by its server, before the model had finished; ask again, and look at the server's log",
}
"""Each said to a person, with the way out."""


@dataclass(frozen=True)
class Sampling:
    """How the reply is drawn.

    Args:
        seed: 0 .. 2**64 - 1; the same seed, conversation and engine give the same reply.
        temperature: 0 is greedy; else the logits are divided by it, up to 2.
        top_p: nucleus sampling keeps the smallest set of tokens whose probability reaches it, in (0, 1].
        max_new_tokens: 1 .. 8192.
        stop_after: the reply may end once so many ``<gen_image>`` blocks are closed in the answer, 0 .. 64; 0 lets it
            run on. An engine that cannot tell ignores it.
        thinking: the model is asked to think before it answers; else it is asked not to, where it can be asked.
        thought_tokens: 0 .. 32768, for a thought alone, whether it was asked for or not. ``max_new_tokens`` is then what
            the answer has.
        min_prompts: the answer must hold so many closed ``<gen_image>`` blocks, 0 .. 64. An engine that cannot be held to it
            ignores it, and a reply with too few ``max_new_tokens`` for its tags has them cut off.
    """

    seed: int = 0
    temperature: float = 0.2
    top_p: float = 1.0
    max_new_tokens: int = 512
    stop_after: int = 0
    thinking: bool = False
    thought_tokens: int = THOUGHT_TOKENS
    min_prompts: int = 0

    def __post_init__(self) -> None:
        _check("seed", self.seed, 0, 2**64 - 1, int)
        _check("temperature", self.temperature, 0.0, 2.0, (int, float))
        _check("top_p", self.top_p, 0.0, 1.0, (int, float))
        _check("max_new_tokens", self.max_new_tokens, 1, MAX_NEW_TOKENS, int)
        _check("stop_after", self.stop_after, 0, 64, int)
        _check("min_prompts", self.min_prompts, 0, 64, int)
        if not isinstance(self.thinking, bool):
            raise ValueError(f"thinking must be True or False, got {self.thinking!r}")
        _check("thought_tokens", self.thought_tokens, 0, MAX_THOUGHT_TOKENS, int)
        if self.top_p == 0:
            raise ValueError("top_p must be above 0 (1 keeps every token)")


_THINK, _THOUGHT = "<think>", "</think>"


@dataclass(frozen=True)
class Said:
    """A reply, with what the model thought kept apart from what it answers.

    Args:
        answer: the assistant's turn: no template tokens, no end token, no thought; ``<gen_image>`` tags untouched.
        thought: what it thought before, without marks; "" if it did not think.
        unfinished: the reply ended inside a thought, so that ``answer`` is not what was asked for.
        cut: what ended the answer before the model did.
    """

    answer: str
    thought: str = ""
    unfinished: bool = False
    cut: CutAt = ""

    @classmethod
    def of(cls, reply: str, *, thinking: bool = False, thought: str = "") -> Said:
        """Split a raw reply at the marks of thinking.

        Args:
            reply: the raw text of a model.
            thinking: the request ended inside a thought, so that the reply begins in one.
            thought: what came beside the reply as thinking; it stands before what is found in the reply.
        """
        split = split_reply(reply, thinking)
        return cls(
            split.answer, "\n\n".join(filter(None, (thought.strip(), split.thought))), split.unfinished
        )

    @property
    def shown(self) -> str:
        """Both in one text for a person to watch: the thought first, in ``<think>``, which is open while it is written."""
        if not self.thought and not self.unfinished:
            return self.answer
        if self.unfinished:
            return f"{self.answer}{_THINK}{self.thought}"
        return f"{_THINK}{self.thought}{_THOUGHT}{self.answer}"


def end_of_shown(text: str, count: int) -> str:
    """The last ``count`` characters of ``Said.shown``, after ``<think>`` where they begin inside a thought.

    A person who sees the end alone must not take a thought for the answer.
    """
    cut = len(text) - count
    if cut <= 0:
        return text
    opener = text.rfind(_THINK, 0, cut + len(_THINK) - 1)
    closer = text.rfind(_THOUGHT, 0, cut + len(_THOUGHT) - 1)
    if opener > closer:
        return _THINK + text[max(cut, opener + len(_THINK)) :]
    return text[cut if closer < 0 else max(cut, closer + len(_THOUGHT)) :]


@runtime_checkable
class ChatEngine(Protocol):
    """Continues a conversation whose last turn is the user's."""

    name: str
    """Shown to the user; never a path, a URL or a secret."""

    supports_pictures: bool

    def generate(self, conversation: Conversation, sampling: Sampling, on_text: OnText) -> Said:
        """The assistant's next turn, the thought apart from the answer.

        Raises:
            ValueError: the conversation does not end with a user turn, or shows pictures that the engine cannot see.
        """
        ...


@runtime_checkable
class CountsTokens(Protocol):
    """An engine that says how far the reply that it writes now, or wrote last, has come."""

    @property
    def written(self) -> int:
        """Tokens received, those of a thought included. Of an endpoint: pieces of its stream, which most servers send a
        token at a time.
        """
        ...


@runtime_checkable
class HasHiddenStates(Protocol):
    """An engine that also gives what its network makes of each token; ask with ``isinstance(engine, HasHiddenStates)``.

    The conversation is rendered as ``generate`` renders it. One that ends with a turn of the user is followed by the
    opening of a reply; one that ends with a turn of the assistant is read as it stands. So the states of tokens that a
    model was trained to write, such as GILL's ``[IMG0]`` … ``[IMG7]``, are read in three steps::

        answered = conversation.say("assistant", engine.generate(conversation, sampling, on_text).answer)
        ids = engine.token_ids(answered)
        states = engine.hidden(answered)[[i for i, token in enumerate(ids) if token in img_ids]]  # (8, d)
    """

    def token_ids(self, conversation: Conversation) -> list[int]:
        """The ids of the rendered conversation, of length T; a picture is as many tokens as the network reads of it."""
        ...

    def hidden(self, conversation: Conversation) -> torch.Tensor:
        """The last layer's hidden state of each token, after the final norm: (T, d), float32, on the CPU.

        It is what transformers gives as ``hidden_states[-1]``, without gradients.

        Raises:
            ValueError: the conversation holds no turn, is longer than the network reads, or shows pictures that the
                engine cannot see.
        """
        ...


@runtime_checkable
class CanUnload(Protocol):
    """An engine that can free the memory of what runs its model, until the next ``generate``."""

    def unload(self) -> None:
        """Free it, where that is wanted; otherwise do nothing.

        Raises:
            EndpointError: what runs the model did not do it.
        """
        ...


@runtime_checkable
class HasStructuredOutput(Protocol):
    """An engine that can be held to a JSON schema; ask with ``isinstance(engine, HasStructuredOutput)``."""

    def generate_json(
        self, conversation: Conversation, sampling: Sampling, on_text: OnText, schema: Mapping[str, Any]
    ) -> Said:
        """``ChatEngine.generate`` with an answer that follows a schema, as far as what runs the model heeds it.

        Args:
            schema: a JSON schema of an object; its ``title`` names it.

        Raises:
            ValueError: see ``ChatEngine.generate``.
        """
        ...


@runtime_checkable
class HasWordProbabilities(Protocol):
    """An engine that also says how likely each of some words was as the first of its reply."""

    def generate_with_probabilities(
        self, conversation: Conversation, sampling: Sampling, on_text: OnText, words: Sequence[str]
    ) -> tuple[Said, tuple[float, ...]]:
        """``ChatEngine.generate`` and for each word, 0 .. 1; near 0 for all where the reply begins otherwise.

        Args:
            words: in lower case; capitals and a space before a word do not count.

        Raises:
            ValueError: see ``ChatEngine.generate``.
        """
        ...


@runtime_checkable
class HasPromptEmbeddings(Protocol):
    """An engine that gives the prompt of a picture as an embedding, in the place of words."""

    def prompt_embedding(self, conversation: Conversation) -> torch.Tensor:
        """Text states (75·n + 2, dim) for the image generator, float32, on the CPU; n follows from what was said.

        Raises:
            ValueError: the conversation does not end with a turn of the user, is longer than the network reads, or shows
                pictures that the engine cannot see.
        """
        ...


def spells(token: str, word: str) -> bool:
    """Whether a token is a word in lower case, or that with capitals or a space before it."""
    return token.lstrip(_SPACES).lower() == word


def _check(name: str, value: float, low: float, high: float, kind: type | tuple[type, ...]) -> None:
    if isinstance(value, bool) or not isinstance(value, kind) or not low <= value <= high:
        raise ValueError(f"{name} must be between {low} and {high}, got {value!r}")


def check_conversation(conversation: Conversation, engine: ChatEngine) -> None:
    """Raise the errors that ``ChatEngine.generate`` promises."""
    if not conversation.turns or conversation.turns[-1].role != "user":
        raise ValueError("the conversation must end with a user turn")
    check_pictures_are_seen(conversation, engine)


def check_pictures_are_seen(conversation: Conversation, engine: ChatEngine) -> None:
    """Raise ``ValueError`` for a conversation with pictures and an engine that cannot see them."""
    if conversation.pictures and not engine.supports_pictures:
        raise ValueError(
            f"the language model {engine.name!r} cannot see pictures; disconnect 'image' and 'mask' (and use a history "
            "without pictures), or connect a vision-language model to 'engine'"
        )
