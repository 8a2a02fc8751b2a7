"""How one OpenAI-compatible server differs from the others: parameters that it does not know, and what it wants instead.

A record of ``endpoints.json`` may say so beforehand. Without that, a request that is refused for one parameter is asked
again without it, or with its newer name.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, get_args

PARAMETERS = (
    *("temperature", "top_p", "max_tokens", "seed", "stream", "response_format"),
    *("logprobs", "top_logprobs"),
)
"""What a request may do without."""
_TOGETHER = {"logprobs", "top_logprobs"}  # neither is of use without the other
RENAMED = {"max_tokens": "max_completion_tokens"}
"""The newer names of parameters that servers refuse under the old one."""
EXTRA = frozenset(
    "chat_template_kwargs enable_thinking frequency_penalty keep_alive logit_bias metadata min_p num_ctx options "
    "presence_penalty provider reasoning reasoning_effort repeat_penalty repetition_penalty response_format safe_prompt "
    "service_tier stop structured_outputs thinking top_k transforms typical_p user verbosity".split()
)
"""What a record may add to each request. Messages, model and tools are not among them."""
MAX_EXTRA_BYTES = 8192

PictureFormat = Literal["auto", "png", "jpeg"]
ThinkingSwitch = Literal["", "chat_template_kwargs", "enable_thinking", "reasoning_effort"]

Unload = Literal["", "ollama", "llamacpp", "lmstudio", "vllm"]
Constraint = Literal["", "llamacpp", "vllm", "vllm_guided", "structural_tag"]

_REFUSED_SYSTEM = re.compile(
    r"system[\s_-]{1,3}(?:role|prompt|message|instruction)|role[^a-z]{1,3}(?:does not support[^a-z]{1,3})?system"
    # what the templates of the first Mistrals say of a system prompt
    r"|developer instruction|roles must alternate",
    re.IGNORECASE,
)
_REFUSED_FORM = re.compile(r"grammar|structured_outputs|structural_tag|response_format", re.IGNORECASE)
_NEW_NAME = re.compile(r"[\w.-]{1,64}", re.ASCII)
# A limit that was passed is no missing parameter: the number has to change, and the owner decides which.
_LIMIT = re.compile(
    r"too (?:large|long|many|high)|exceed|context (?:length|window|size)|maximum|at most|less than or equal",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Dialect:
    """What a server is asked with.

    Args:
        omit: parameters of ``PARAMETERS`` that are left out.
        rename: their names on this server.
        system: False puts the system prompt in front of the first user turn, for models without a system role.
        stream: False asks for the reply in one piece.
        thinking: the parameter that turns thinking on and off: ``chat_template_kwargs`` (vLLM, SGLang, llama.cpp: its
            ``enable_thinking``), ``enable_thinking`` itself, or ``reasoning_effort`` ("medium" or "low"). Without it
            nothing is sent, and the server decides.
        extra: parameters added to each request, of ``EXTRA``; they win over what ``thinking`` sends.
        constrain: how the server is held to the form of a prompt, ``<gen_image> … </gen_image>``, where a task expects one
            and no thinking is asked for; see ``engines.prompt_grammar.form_parameters``. "" leaves it to the model.
        unload: the kind of server, which is then asked to free its memory when a node has asked all that it asks; "" leaves
            the model loaded.
        picture_format: "auto" sends PNG up to a size and JPEG above it.
        max_picture_bytes: of one encoded picture; larger ones are sent as JPEG, and smaller.
        max_pictures: in one request; of older turns they are left out first. 0 sends all.

    Raises:
        ValueError: a field is not as said above.
    """

    omit: tuple[str, ...] = ()
    rename: Mapping[str, str] = field(default_factory=dict, hash=False)
    system: bool = True
    stream: bool = True
    thinking: ThinkingSwitch = ""
    extra: Mapping[str, Any] = field(default_factory=dict, hash=False, repr=False)
    constrain: Constraint = ""
    unload: Unload = ""
    picture_format: PictureFormat = "auto"
    max_picture_bytes: int = 3_500_000
    max_pictures: int = 0

    def __post_init__(self) -> None:
        if not isinstance(self.omit, (list, tuple)) or not set(self.omit) <= set(PARAMETERS):
            raise ValueError(f"'omit' must be a list of {', '.join(PARAMETERS)}")
        if not isinstance(self.rename, Mapping) or not all(
            old in PARAMETERS and isinstance(new, str) and _NEW_NAME.fullmatch(new)
            for old, new in self.rename.items()
        ):
            raise ValueError(f"'rename' must give new names to any of {', '.join(PARAMETERS)}")
        if set(self.rename.values()) & {"model", "messages"}:
            raise ValueError("'rename' may not give the name 'model' or 'messages'")
        for flag in ("system", "stream"):
            if not isinstance(getattr(self, flag), bool):
                raise ValueError(f"{flag!r} must be true or false")
        if self.thinking not in get_args(ThinkingSwitch):
            raise ValueError(f"'thinking' must be one of {', '.join(get_args(ThinkingSwitch)[1:])}")
        if self.constrain not in get_args(Constraint):
            raise ValueError(f"'constrain' must be one of {', '.join(get_args(Constraint)[1:])}")
        if self.unload not in get_args(Unload):
            raise ValueError(f"'unload' must be one of {', '.join(get_args(Unload)[1:])}")
        if not isinstance(self.extra, Mapping) or not set(self.extra) <= EXTRA:
            raise ValueError(f"'extra' must be an object with any of {', '.join(sorted(EXTRA))}")
        if len(json.dumps(dict(self.extra))) > MAX_EXTRA_BYTES:
            raise ValueError(f"'extra' must hold at most {MAX_EXTRA_BYTES} bytes")
        if self.picture_format not in get_args(PictureFormat):
            raise ValueError(f"'picture_format' must be one of {', '.join(get_args(PictureFormat))}")
        _check_count("max_picture_bytes", self.max_picture_bytes, 10_000, 50_000_000)
        _check_count("max_pictures", self.max_pictures, 0, 16)

    def body(
        self,
        messages: list[dict[str, Any]],
        model: str,
        wanted: Mapping[str, Any],
        thinking: bool = False,
    ) -> dict[str, Any]:
        """The request as it goes out: what equals the server's own default is left out.

        Args:
            messages: of the conversation; a system message stands first.
            wanted: values of ``PARAMETERS``.
            thinking: whether the model is asked to think, where the record says how.
        """
        given = {**wanted, "stream": self.stream}
        if given.get("top_p") == 1:  # keeps every token; some servers refuse the value
            del given["top_p"]
        if not self.stream:
            del given["stream"]
        omit = {*self.omit, *(_TOGETHER if _TOGETHER & {*self.omit} else ())}
        sent = {self.rename.get(name, name): value for name, value in given.items() if name not in omit}
        if not self.system:
            messages = _without_system(messages)
        return {"model": model, "messages": messages, **sent, **self._added(thinking)}

    def _added(self, thinking: bool) -> dict[str, Any]:
        """``extra``, and the switch of thinking where it leaves that open."""
        match self.thinking:
            case "chat_template_kwargs":
                given = self.extra.get("chat_template_kwargs")
                given = given if isinstance(given, Mapping) else {}
                return {**self.extra, "chat_template_kwargs": {"enable_thinking": thinking, **given}}
            case "enable_thinking":
                return {"enable_thinking": thinking, **self.extra}
            case "reasoning_effort":
                return {"reasoning_effort": "medium" if thinking else "low", **self.extra}
        return dict(self.extra)

    def adapted(self, refusal: str, named: str = "") -> Dialect | None:
        """The dialect that avoids what a 400 or 422 complains of, or None if it names nothing that can be avoided.

        Args:
            refusal: the server's words.
            named: the parameter that its error document names, if it does.
        """
        refusal = refusal[:4000]
        if self.constrain and _REFUSED_FORM.search(f"{named} {refusal}"):
            return replace(self, constrain="")
        if self.system and _REFUSED_SYSTEM.search(refusal):
            return replace(self, system=False)
        if (name := self._refused(refusal, named)) is None:
            return None
        if name == "stream":
            return replace(self, stream=False)
        newer = RENAMED.get(name)
        if newer is not None and name not in self.rename:
            return replace(self, rename={**self.rename, name: newer})
        return replace(self, omit=(*self.omit, name))

    def difference(self, after: Dialect) -> str:
        """What requests do differently after this one, in words for the log."""
        if self.constrain != after.constrain:
            return "it refuses the grammar of prompts ('constrain'), which is left out"
        if self.system != after.system:
            return "it takes no system prompt, which now stands in front of the first message"
        if self.stream != after.stream:
            return "it refuses to stream"
        if self.omit != after.omit:
            return f"it refuses {after.omit[-1]!r}, which is left out"
        return f"it wants other names: {', '.join(f'{old} is {new}' for old, new in after.rename.items())}"

    def _refused(self, refusal: str, named: str) -> str | None:
        """The parameter, under its usual name, that a refusal names first; None if it is only beyond a limit."""
        sent = {self.rename.get(name, name): name for name in PARAMETERS if name not in self.omit}
        if not self.stream:
            sent.pop("stream", None)
        pattern = rf"(?<![\w-])(?:{'|'.join(map(re.escape, sent))})(?![\w-])"
        found = named if named in sent else getattr(re.search(pattern, refusal), "group", lambda: None)()
        if found is None and "stream" in sent and re.search(r"\bstreaming\b", refusal):
            found = "stream"
        if found is None or (sent[found] == "max_tokens" and _LIMIT.search(refusal)):
            return None
        return sent[found]


def _without_system(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The system prompt put in front of the first user turn."""
    if not messages or messages[0]["role"] != "system":
        return messages
    words, rest = messages[0]["content"], messages[1:]
    for i, message in enumerate(rest):
        if message["role"] == "user":
            content = message["content"]
            joined = (
                f"{words}\n\n{content}"
                if isinstance(content, str)
                else [{"type": "text", "text": words}, *content]
            )
            return [*rest[:i], {**message, "content": joined}, *rest[i + 1 :]]
    return rest


def _check_count(name: str, value: Any, low: int, high: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise ValueError(f"{name!r} must be a whole number from {low} to {high}")
