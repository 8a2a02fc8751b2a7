"""A chat engine around a transformers model in this process, text-only or vision-language."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import torch
from PIL import Image

from ..conversation import Conversation, Picture
from ..formats import break_control, control_tokens
from .base import OnText, Said, Sampling, check_conversation, check_pictures_are_seen
from .chat_template import reason_of, render_template
from .first_word import FirstWord
from .lookup import decode_greedily
from .messages import PROBE, MessageWriter
from .prefix import Position, PrefixCache, pictures_in, positions_of
from .prompt_form import PromptForm
from .stream import FolderSampling, GumbelMaxSampler, NamedTokens, RepetitionPenalty, Stream
from .thought import ThoughtReader, opens_thought, template_variables
from .transformers_names import cache_name, generate_takes_pictures_after_a_cache

_log = logging.getLogger(__name__)


class LocalEngine:
    """A transformers model as a chat engine.

    Generation runs in the calling thread. Text of the conversation is data: where it spells one of the
    tokenizer's control tokens, a space breaks it (``< |im_end|>``), so that it can neither add a picture nor
    open a turn. A system prompt that the chat template refuses or drops is put before the first user turn.

    Sampling is ours and not ``generate``'s: of the folder's own settings top_k and the repetition penalty apply, the noise
    comes from a CPU generator of the given seed, and the global random state is not touched. LLMGA's own models count
    repetitions in the reply alone, as the official code does, which hands ``generate`` embeddings; others in all that
    they read. A conversation may fill the model's whole context; the official code cuts it at 2048 tokens, the newest
    first.

    A chat template that knows how to switch thinking off or on is told so; whether a thought is open at the end of the
    request is read from the request. A model that thinks all the same has room for that beside ``max_new_tokens``.

    Attributes:
        net: the bare ``PreTrainedModel``, for the host to place.
        knows_tags: it was trained to write ``<gen_image>``; its template brings the system prompt of its training.
        trained_phrases: it is one of LLMGA's own models, whose training asked in ``tasks.TRAINED`` phrases.
        load: called right before generation; puts ``net`` where it shall run and returns that device. A host
            replaces it; at first it leaves ``net`` where its parameters are.
        planned: tokens that the run about to begin reads and writes at most, for a host that makes room in ``load``.
        prefixes: keys and values of earlier conversations, on the device where ``net`` ran; a host that moves ``net`` away
            calls ``forget``.
        lookup: tokens guessed in one step of a greedy reply that may repeat the conversation; 0 guesses none.
        notes: what was found, guessed and left out while the folder was read, a sentence each.
        folder_sampling: what the folder's makers ask for.
    """

    def __init__(
        self,
        net: Any,
        processor: Any,
        name: str,
        notes: tuple[str, ...] = (),
        folder_sampling: FolderSampling | None = None,
    ) -> None:
        """Take a model and its processor (its tokenizer, if it is text-only), which has a chat template."""
        from transformers import GenerationConfig

        self.net = net.eval()
        self.name = name
        self.notes = notes
        self.folder_sampling = folder_sampling or FolderSampling()
        self.supports_pictures = hasattr(processor, "image_processor")
        self.knows_tags = hasattr(net.config, "llmga_family")
        self.trained_phrases = self.knows_tags
        self.load: Callable[[], torch.device] = lambda: next(net.parameters()).device
        self.planned = 0
        self.prefixes = PrefixCache(net)
        self.lookup = 0
        self._stream: Stream | None = None
        self._processor = processor
        self._tokenizer = getattr(processor, "tokenizer", processor)
        self._dtype = net.dtype  # asked now: a host may store the weights in another one later
        self._control = control_tokens(processor)
        self._thoughts = ThoughtReader(processor)
        self._named = NamedTokens(self._tokenizer)
        self._writer = MessageWriter(
            partial(self._render, add_generation_prompt=True),
            self.supports_pictures,
            getattr(processor, "image_token", ""),
        )
        self._end_ids = self._find_end_ids()
        self._probe_picture()
        pad = self._tokenizer.pad_token_id
        # In every version `generate` takes from here what a call leaves open: so it holds nothing else.
        net.generation_config = GenerationConfig(
            eos_token_id=sorted(self._end_ids), pad_token_id=min(self._end_ids) if pad is None else pad
        )

    def generate(self, conversation: Conversation, sampling: Sampling, on_text: OnText) -> Said:
        """See ``ChatEngine.generate``; the answer is stripped of white space at both ends.

        ``on_text`` is called first with an empty text, then for each token, and before a block of the vision
        tower or the decoder if it was not for 0.1 s. A reply that reaches the end of the context stops there.

        Raises:
            ValueError: also if the context has no room for the conversation or the chat template refuses it.
        """
        return self._reply(conversation, sampling, on_text, self._named)

    def generate_with_probabilities(
        self, conversation: Conversation, sampling: Sampling, on_text: OnText, words: Sequence[str]
    ) -> tuple[Said, tuple[float, ...]]:
        """See ``HasWordProbabilities``; they are those of temperature 1."""
        first = FirstWord(self._named, self._tokenizer, words)
        return self._reply(conversation, sampling, on_text, first), first.probabilities

    def _reply(
        self, conversation: Conversation, sampling: Sampling, on_text: OnText, named: NamedTokens | FirstWord
    ) -> Said:
        check_conversation(conversation, self)
        on_text("")
        messages = self._messages(conversation)
        inputs = self._encode(conversation, sampling.thinking, lambda: on_text(""))
        used = inputs["input_ids"].shape[1]
        opened = opens_thought(
            self._render(messages, False, sampling.thinking), self._render(messages, True, sampling.thinking)
        )
        may_think = opened or self._thoughts.may_think
        wanted = sampling.max_new_tokens + (sampling.thought_tokens if may_think else 0)
        max_new_tokens = min(wanted, self._room(inputs))
        self.planned = used + max_new_tokens
        device = self.load()
        stream = Stream(self._thoughts.decode, self._end_ids, on_text, sampling, used, opened)
        self._stream = stream
        positions, cache, cached, placed = self._resume(conversation, inputs, used + max_new_tokens, device)
        hooks = [block.register_forward_pre_hook(stream.on_block) for block in _blocks(self.net)]
        penalty = RepetitionPenalty(
            self.folder_sampling.repetition_penalty, used if self.trained_phrases else 0
        )
        form = PromptForm(stream, self._tokenizer, self._end_ids, sampling.min_prompts, max_new_tokens)
        try:
            if self.lookup and not sampling.temperature and self.prefixes.usable:
                new_ids, cache = decode_greedily(
                    self.net, placed, cache, cached, stream, max_new_tokens, self.lookup, named, penalty, form
                )  # fmt: skip
            else:
                new_ids, cache = self._generate(
                    placed, cache, stream, max_new_tokens, sampling, named, penalty, form
                )
        finally:
            for hook in hooks:
                hook.remove()
        if positions is not None:
            self.prefixes.put([*positions, *new_ids], cache)
        return stream.end(max_new_tokens, wanted)

    @property
    def written(self) -> int:
        """See ``CountsTokens``."""
        return 0 if self._stream is None else self._stream.received

    def __str__(self) -> str:
        """Its name, which is what a person may see of it."""
        return self.name

    def token_ids(self, conversation: Conversation) -> list[int]:
        """See ``HasHiddenStates.token_ids``."""
        return self._encode_for_reading(conversation)["input_ids"][0].tolist()

    @torch.no_grad()
    def hidden(self, conversation: Conversation) -> torch.Tensor:
        """See ``HasHiddenStates.hidden``. What was kept of earlier replies is neither used nor changed."""
        inputs = self._encode_for_reading(conversation)
        self._room(inputs)
        device = self.load()
        placed = {name: self._place(value, device) for name, value in inputs.items()}
        output = self.net(**placed, output_hidden_states=True, use_cache=False)
        return output.hidden_states[-1][0].float().cpu()

    def states_behind(self, conversation: Conversation, rows: torch.Tensor) -> torch.Tensor:
        """The last layer's states (K, d), float32, of input embeddings (K, d) that stand behind a conversation.

        With gradients for ``rows``, if they are on; none for the network. The result is on the network's device.

        Raises:
            ValueError: as ``hidden``.
        """
        inputs = self._encode_for_reading(conversation)
        if self._room(inputs) < len(rows):
            raise ValueError(f"the conversation leaves no room for {len(rows)} tokens more; shorten it")
        device = self.load()
        with torch.no_grad():
            placed = {name: self._place(value, device) for name, value in inputs.items()}
            cache = self.net(**placed, use_cache=True)[cache_name()]
        given = {"inputs_embeds": rows[None].to(device, self._dtype), cache_name(): cache}
        return self.net(**given, output_hidden_states=True, use_cache=True).hidden_states[-1][0].float()

    def _encode_for_reading(self, conversation: Conversation) -> dict[str, Any]:
        if not conversation.turns:
            raise ValueError("the conversation holds no turn, so there is nothing to read")
        check_pictures_are_seen(conversation, self)
        return self._encode(conversation)

    def _room(self, inputs: dict[str, Any]) -> int:
        """How many tokens fit behind these inputs; raises ``ValueError`` if none does, or the model lacks one of them."""
        self._check_known(inputs["input_ids"])
        self.planned = used = inputs["input_ids"].shape[1]
        limit = getattr(self.net.config.get_text_config(), "max_position_embeddings", None) or 2**31
        if used >= limit:
            raise ValueError(
                f"the conversation has {used} tokens (a picture is many) and the model {self.name!r} reads "
                f"{limit}, the reply included; shorten 'history', 'instruction' or 'request'"
            )
        return limit - used

    def _check_known(self, ids: torch.Tensor) -> None:
        """A tokenizer that was extended or belongs to another model may have tokens for which there is no embedding."""
        rows = len(self.net.get_input_embeddings().weight)
        pictures = {getattr(self.net.config, name, None) for name in ("image_token_index", "image_token_id")}
        beyond = [
            id_ for id_ in ids[ids >= rows].tolist() if id_ not in pictures
        ]  # the vision tower embeds those
        if beyond:
            token = self._tokenizer.convert_ids_to_tokens(beyond[0])
            raise ValueError(
                f"the tokenizer of {self.name!r} makes {token!r} of the conversation, token {beyond[0]:,}, but the model "
                f"has only {rows:,}; take the tokenizer files that were published with its weights"
            )

    def _generate(
        self,
        inputs: dict[str, Any],
        cache: Any,
        stream: Stream,
        max_new_tokens: int,
        sampling: Sampling,
        named: NamedTokens | FirstWord,
        penalty: RepetitionPenalty,
        form: PromptForm,
    ) -> tuple[list[int], Any]:
        """The reply's token ids, and the cache of all that was read."""
        output = self.net.generate(
            **inputs,
            **({} if cache is None else {cache_name(): cache}),
            do_sample=False,
            max_new_tokens=max_new_tokens,
            logits_processor=[
                named,
                penalty,
                *([GumbelMaxSampler(sampling, self.folder_sampling.top_k)] if sampling.temperature else []),
                form,
            ],
            stopping_criteria=[stream],
            return_dict_in_generate=True,
        )
        return output.sequences[0, inputs["input_ids"].shape[1] :].tolist(), output[cache_name()]

    def _resume(
        self, conversation: Conversation, inputs: dict[str, Any], total: int, device: torch.device
    ) -> tuple[list[Position] | None, Any, int, dict[str, Any]]:
        """What need not be read again.

        Returns:
            The positions of the whole conversation, or None where nothing of it can be kept; the cache of its beginning,
            or None; the length of that beginning in tokens; and the inputs on ``device``, without the pictures in it.
        """
        hashes = [picture.sha256 for picture in conversation.pictures]
        positions, cache, cached = None, None, 0
        if inputs.keys() <= {"input_ids", "attention_mask", "pixel_values"}:
            ids = inputs["input_ids"][0].tolist()
            positions = positions_of(ids, getattr(self.net.config, "image_token_index", None), hashes)
        placed = {name: self._place(value, device) for name, value in inputs.items()}
        if positions is None or (hashes and len(placed["pixel_values"]) != len(hashes)):
            return None, None, 0, placed
        cache, cached = self.prefixes.take(positions, total, device)
        seen = pictures_in(positions, cached, len(hashes)) if hashes else 0
        if cached and seen < len(hashes) and not generate_takes_pictures_after_a_cache():
            _log.info("%s: a kept beginning is dropped, for a picture follows it", self.name)
            return positions, None, 0, placed
        if seen:
            placed["pixel_values"] = placed["pixel_values"][seen:]
            if seen == len(hashes):
                del placed["pixel_values"]
        return positions, cache, cached, placed

    def forget(self) -> None:
        """Free the keys and values of earlier conversations, and the memory that they take beside the weights."""
        self.prefixes.clear()

    def _encode(
        self,
        conversation: Conversation,
        thinking: bool = False,
        on_wait: Callable[[], object] = lambda: None,
    ) -> dict[str, Any]:
        """The model's inputs: ``input_ids`` (1, tokens) and, with pictures, what its vision tower takes.

        After a turn of the user the opening of a reply is part of them.
        """
        asks = not conversation.turns or conversation.turns[-1].role == "user"
        prompt = self._render(self._messages(conversation), asks, thinking, on_wait)
        if not self.supports_pictures:
            tokens = self._tokenizer(prompt, add_special_tokens=False, return_tensors="pt")
            return {name: tokens[name] for name in ("input_ids", "attention_mask")}
        bos = self._tokenizer.bos_token
        keeps = getattr(self._processor, "keeps_pictures", False)
        pictures = [picture if keeps else picture.to_pil() for picture in conversation.pictures]
        return self._processor(
            text=[prompt],
            images=[pictures] if pictures else None,
            add_special_tokens=not (bos and prompt.startswith(bos)),
            return_tensors="pt",
        )

    def _messages(self, conversation: Conversation) -> list[dict[str, Any]]:
        return self._writer.messages(conversation, self._plain)

    def _render(
        self,
        messages: list[dict[str, Any]],
        add_generation_prompt: bool,
        thinking: bool = False,
        on_wait: Callable[[], object] = lambda: None,
    ) -> str:
        template = self._processor.chat_template
        if isinstance(template, dict):  # several, by name
            template = template.get("default") or next(iter(template.values()))
        names: dict[str, Any] = {
            name: str(token)
            for name, token in self._tokenizer.special_tokens_map.items()
            if token is not None
        }
        names |= template_variables(self._thoughts.template, thinking)
        try:
            return render_template(template, messages, add_generation_prompt, on_wait, **names)
        except ValueError as error:
            raise ValueError(
                f"the chat template of {self.name!r} refuses this conversation: {error}"
            ) from error

    def _plain(self, text: str) -> str:
        return break_control(self._control, text)

    def _probe_picture(self) -> None:
        picture = Picture.from_pil(Image.new("RGB", (64, 64)))
        try:
            self._encode(Conversation().say("user", "?", (picture,) * self.supports_pictures))
        except (TypeError, ValueError, KeyError, AttributeError) as error:
            raise ValueError(
                f"{self.name!r} cannot read a picture ({reason_of(error)}); is its processor_config.json complete?"
            ) from error

    def _find_end_ids(self) -> set[int]:
        """The end tokens that the folder names, and the control token that its template puts after a reply."""
        named = self.net.generation_config.eos_token_id
        end_ids = {*(named if isinstance(named, list) else [named]), self._tokenizer.eos_token_id}
        messages = [self._writer.message("user", "?"), self._writer.message("assistant", PROBE)]
        rest = self._render(messages, add_generation_prompt=False).rpartition(PROBE)[2]
        if match := self._control.search(rest):
            end_ids.add(self._tokenizer.convert_tokens_to_ids(match[0]))
        end_ids.discard(None)
        if not end_ids:
            raise ValueError(
                f"{self.name!r} names no end token: its tokenizer_config.json has no 'eos_token'"
            )
        return end_ids

    def _place(self, value: Any, device: torch.device) -> Any:
        if not isinstance(value, torch.Tensor):
            return value
        return value.to(device, self._dtype if value.is_floating_point() else value.dtype)


def _blocks(module: torch.nn.Module) -> Iterator[torch.nn.Module]:
    """The repeated blocks of every tower; a block's own lists, such as experts, are part of it."""
    for child in module.children():
        yield from child if isinstance(child, torch.nn.ModuleList) else _blocks(child)
