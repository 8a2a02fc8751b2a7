"""Chat with a language model from a local transformers folder, with or without eyes."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from ..conversation import Conversation, Picture
from ..formats import break_control, control_pattern
from .base import OnText, Sampling, check_conversation
from .lookup import decode_greedily
from .model_folder import check_model_folder, one_kind_of_error
from .prefix import Position, PrefixCache, pictures_in, positions_of
from .stream import Draw, Stream

_PROBE = "llmga-probe"
_KINDS = ("image", "video", "audio", "spare")
"""Tokens that a processor may name, as ``image_token`` and so on."""


def load_local_engine(
    folder: Path,
    dtype: torch.dtype | None = None,
    *,
    base: Path | None = None,
    vision_tower: Path | None = None,
    family: str | None = None,
    towers: Iterable[Path] = (),
) -> LocalEngine:
    """Load a model folder as transformers' ``save_pretrained`` writes it (LLaVA, Qwen-VL, … or text only), or an official
    LLMGA checkpoint as published.

    It is loaded on the CPU, from these folders alone, and never with code of its own.

    Args:
        folder: with ``config.json``, safetensors weights, tokenizer, chat template and, for a model with
            eyes, its image processor. For an official checkpoint see ``checkpoints.read_checkpoint``.
        dtype: of the weights; None is the one they are stored in.
        base, vision_tower, family, towers: for an official checkpoint alone.

    Raises:
        FileNotFoundError: the folder or one of its files is missing.
        ValueError: the folder must not or cannot be loaded; the text says why.
    """
    from ..checkpoints.official import is_official

    if is_official(folder):
        return _load_official(folder, dtype, base, vision_tower, family, towers)
    if base or vision_tower or family:
        raise ValueError(
            f"{folder.name!r} is no official LLMGA checkpoint; leave 'base', 'vision_tower' and 'family' empty"
        )
    return _load_transformers(folder, dtype)


def _load_official(folder: Path, dtype: torch.dtype | None, *parts: Any) -> LocalEngine:
    from ..checkpoints.official import read_checkpoint

    checkpoint = read_checkpoint(folder, *parts)
    import transformers

    llava: Any = transformers.LlavaForConditionalGeneration
    with one_kind_of_error(folder):
        net, info = llava.from_pretrained(
            None,
            config=checkpoint.config,
            state_dict=checkpoint.weights,
            **{_dtype_name(): dtype or checkpoint.dtype},
            output_loading_info=True,
        )
        _check_loading(info)
        if checkpoint.ends:
            net.generation_config.eos_token_id = list(checkpoint.ends)
        processor = checkpoint.processor()
        if checkpoint.own:
            local: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
            processor = transformers.AutoProcessor.from_pretrained(checkpoint.own, **local)
        return LocalEngine(net, processor, folder.name)


def _load_transformers(folder: Path, dtype: torch.dtype | None) -> LocalEngine:
    check_model_folder(folder)
    import transformers

    local: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    with one_kind_of_error(folder):
        config = transformers.AutoConfig.from_pretrained(folder, **local)
        has_eyes = type(config) in transformers.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING
        if not has_eyes and type(config) not in transformers.MODEL_FOR_CAUSAL_LM_MAPPING:
            raise ValueError(f"its model_type {config.model_type!r} is no chat model")
        reader = transformers.AutoProcessor if has_eyes else transformers.AutoTokenizer
        processor = reader.from_pretrained(folder, **local)
        if has_eyes != hasattr(processor, "image_processor"):
            raise ValueError("its preprocessor_config.json or processor_config.json is missing")
        if not processor.chat_template:
            raise ValueError(
                "it has no chat template; add chat_template.jinja or chat_template.json from the model's page"
            )
        if _PROBE not in _read_back(getattr(processor, "tokenizer", processor)):
            raise ValueError("its tokenizer knows no text; is tokenizer.json (or tokenizer.model) missing?")
        family: Any = (
            transformers.AutoModelForImageTextToText if has_eyes else transformers.AutoModelForCausalLM
        )
        net, info = family.from_pretrained(
            folder,
            **local,
            **{_dtype_name(): dtype or "auto"},
            use_safetensors=True,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # _check_loading names them
        )
        _check_loading(info)
        return LocalEngine(net, processor, folder.name)


class LocalEngine:
    """A transformers model as a chat engine.

    Generation runs in the calling thread. Text of the conversation is data: where it spells one of the
    tokenizer's control tokens, a space breaks it (``< |im_end|>``), so that it can neither add a picture nor
    open a turn. A system prompt that the chat template refuses or drops is put before the first user turn.

    Sampling is ours and not ``generate``'s: the folder's own settings (repetition penalty, top_k, …) do not
    apply, the noise comes from a CPU generator of the given seed, and the global random state is not touched.

    Attributes:
        net: the bare ``PreTrainedModel``, for the host to place.
        knows_tags: it was trained to write ``<gen_image>``; its template brings the system prompt of its training.
        load: called right before generation; puts ``net`` where it shall run and returns that device. A host
            replaces it; at first it leaves ``net`` where its parameters are.
        prefixes: what was read before, on the device where ``net`` ran; a host that takes ``net`` away calls ``forget``.
        lookup: guesses in one step of a greedy reply that may repeat the conversation; 0 makes none.
    """

    def __init__(self, net: Any, processor: Any, name: str) -> None:
        """Take a model and its processor (without eyes: its tokenizer), which has a chat template."""
        from transformers import GenerationConfig

        self.net = net.eval()
        self.name = name
        self.supports_pictures = hasattr(processor, "image_processor")
        self.knows_tags = hasattr(net.config, "llmga_family")
        self.load: Callable[[], torch.device] = lambda: next(net.parameters()).device
        self.prefixes = PrefixCache(net)
        self.lookup = 0
        self._processor = processor
        self._tokenizer = getattr(processor, "tokenizer", processor)
        self._dtype = net.dtype  # asked now: a host may store the weights in another one later
        self._control = control_tokens(processor)
        self._takes_system = self._probe_system()
        self._end_ids = self._find_end_ids()
        self._probe_picture()
        pad = self._tokenizer.pad_token_id
        # In every version `generate` takes from here what a call leaves open: so it holds nothing else.
        net.generation_config = GenerationConfig(
            eos_token_id=sorted(self._end_ids), pad_token_id=min(self._end_ids) if pad is None else pad
        )

    def generate(self, conversation: Conversation, sampling: Sampling, on_text: OnText) -> str:
        """See ``ChatEngine.generate``; the reply is stripped of white space at both ends.

        ``on_text`` is called first with an empty text, then for each token, and before a block of the vision
        tower or the decoder if it was not for 0.1 s. A reply that reaches the end of the context stops there.

        Raises:
            ValueError: also if the context has no room for the conversation or the chat template refuses it.
        """
        check_conversation(conversation, self)
        on_text("")
        inputs = self._encode(conversation)
        used = inputs["input_ids"].shape[1]
        limit = getattr(self.net.config.get_text_config(), "max_position_embeddings", None) or 2**31
        if used >= limit:
            raise ValueError(
                f"the conversation has {used} tokens (a picture is many) and the model {self.name!r} reads "
                f"{limit}, the reply included; shorten 'history' or 'instruction'"
            )
        device = self.load()
        most = min(sampling.max_new_tokens, limit - used)
        stream = Stream(self._tokenizer, self._end_ids, on_text, used, sampling.stop_after)
        positions, cache, kept, fed = self._read_on(conversation, inputs, used + most, device)
        hooks = [block.register_forward_pre_hook(stream.on_block) for block in _blocks(self.net)]
        try:
            if self.lookup and not sampling.temperature and self.prefixes.usable:
                said, cache = decode_greedily(self.net, fed, cache, kept, stream, most, self.lookup)
            else:
                said, cache = self._generate(fed, cache, stream, most, sampling)
        finally:
            for hook in hooks:
                hook.remove()
        if positions is not None:
            self.prefixes.put([*positions, *said], cache)
        return stream.text.strip()

    def _generate(
        self, fed: dict[str, Any], cache: Any, stream: Stream, most: int, sampling: Sampling
    ) -> tuple[list[int], Any]:
        output = self.net.generate(
            **fed,
            **({} if cache is None else {"past_key_values": cache}),
            do_sample=False,
            max_new_tokens=most,
            logits_processor=[Draw(sampling)] if sampling.temperature else [],
            stopping_criteria=[stream],
            return_dict_in_generate=True,
        )
        return output.sequences[0, fed["input_ids"].shape[1] :].tolist(), output.past_key_values

    def _read_on(
        self, conversation: Conversation, inputs: dict[str, Any], total: int, device: torch.device
    ) -> tuple[list[Position] | None, Any, int, dict[str, Any]]:
        """Where each position comes from (None: nothing of this can be kept), what was read before and how much, and what
        is left of the inputs."""
        hashes = [picture.sha256 for picture in conversation.pictures]
        positions, cache, kept = None, None, 0
        if inputs.keys() <= {"input_ids", "attention_mask", "pixel_values"}:
            ids = inputs["input_ids"][0].tolist()
            positions = positions_of(ids, getattr(self.net.config, "image_token_index", None), hashes)
        fed = {name: self._place(value, device) for name, value in inputs.items()}
        if positions is None or (hashes and len(fed["pixel_values"]) != len(hashes)):
            return None, None, 0, fed
        cache, kept = self.prefixes.take(positions, total, device)
        if hashes and (seen := pictures_in(positions, kept, len(hashes))):
            fed["pixel_values"] = fed["pixel_values"][seen:]
            if seen == len(hashes):
                del fed["pixel_values"]
        return positions, cache, kept, fed

    def forget(self) -> None:
        """Let go of what was read before, and of the memory that it takes beside the weights'."""
        self.prefixes.clear()

    def _encode(self, conversation: Conversation) -> dict[str, Any]:
        """The model's inputs: ``input_ids`` (1, tokens) and, with pictures, what its vision tower takes."""
        prompt = self._render(self._messages(conversation), add_generation_prompt=True)
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
        """The conversation in the form that chat templates read; a turn's pictures come before its text."""
        system = self._plain(conversation.system)
        messages = [self._message("system", system)] if system and self._takes_system else []
        pending = "" if self._takes_system else system
        for turn in conversation.turns:
            text = self._plain(turn.text)
            if pending and turn.role == "user":
                text, pending = f"{pending}\n\n{text}", ""
            messages.append(self._message(turn.role, text, len(turn.pictures)))
        return messages

    def _message(self, role: str, text: str, pictures: int = 0) -> dict[str, Any]:
        if not self.supports_pictures:
            return {"role": role, "content": text}
        return {"role": role, "content": [{"type": "image"}] * pictures + [{"type": "text", "text": text}]}

    def _render(self, messages: list[dict[str, Any]], add_generation_prompt: bool) -> str:
        from jinja2 import TemplateError

        try:
            return self._processor.apply_chat_template(
                messages, tokenize=False, add_generation_prompt=add_generation_prompt
            )
        except TemplateError as error:
            raise ValueError(
                f"the chat template of {self.name!r} refuses this conversation: {error}"
            ) from error

    def _plain(self, text: str) -> str:
        return break_control(self._control, text)

    def _probe_system(self) -> bool:
        messages = [self._message("system", _PROBE), self._message("user", "?")]
        try:
            return _PROBE in self._render(messages, add_generation_prompt=True)
        except ValueError:
            return False

    def _probe_picture(self) -> None:
        picture = Picture.from_pil(Image.new("RGB", (64, 64)))
        try:
            self._encode(Conversation().say("user", "?", (picture,) * self.supports_pictures))
        except (TypeError, ValueError, KeyError, AttributeError) as error:
            raise ValueError(
                f"{self.name!r} cannot read a picture ({error}); is its processor_config.json complete?"
            ) from error

    def _find_end_ids(self) -> set[int]:
        """The ends that the folder names, and the control token that its template puts after a reply."""
        named = self.net.generation_config.eos_token_id
        ends = {*(named if isinstance(named, list) else [named]), self._tokenizer.eos_token_id}
        messages = [self._message("user", "?"), self._message("assistant", _PROBE)]
        rest = self._render(messages, add_generation_prompt=False).rpartition(_PROBE)[2]
        if match := self._control.search(rest):
            ends.add(self._tokenizer.convert_tokens_to_ids(match[0]))
        ends.discard(None)
        if not ends:
            raise ValueError(
                f"{self.name!r} names no end token: its tokenizer_config.json has no 'eos_token'"
            )
        return ends

    def _place(self, value: Any, device: torch.device) -> Any:
        if not isinstance(value, torch.Tensor):
            return value
        return value.to(device, self._dtype if value.is_floating_point() else value.dtype)


def _dtype_name() -> str:
    import transformers

    return "torch_dtype" if int(transformers.__version__.split(".")[0]) < 5 else "dtype"


def control_tokens(processor: Any) -> re.Pattern[str]:
    """Matches what the tokenizer would read as a control token instead of text, the longest first."""
    tokenizer = getattr(processor, "tokenizer", processor)
    tokens = {token.content for token in tokenizer.added_tokens_decoder.values() if token.special}
    tokens |= {str(token) for token in tokenizer.all_special_tokens}
    tokens |= {str(getattr(processor, f"{kind}_token", None) or "") for kind in _KINDS}
    return control_pattern(tokens)


def _read_back(tokenizer: Any) -> str:
    """A tokenizer without its files loads all the same, and reads every text as nothing."""
    return tokenizer.decode(tokenizer(_PROBE, add_special_tokens=False)["input_ids"])


def _blocks(module: torch.nn.Module) -> Iterator[torch.nn.Module]:
    """The repeated blocks of every tower; a block's own lists, such as experts, are part of it."""
    for child in module.children():
        yield from child if isinstance(child, torch.nn.ModuleList) else _blocks(child)


def _check_loading(info: dict[str, Any]) -> None:
    """Weights out of place leave a model that talks nonsense; transformers only warns of them."""
    for fault, of in (("missing", "its files"), ("unexpected", "the model"), ("mismatched", "the model")):
        keys = sorted(key[0] if isinstance(key, tuple) else key for key in info.get(f"{fault}_keys", ()))
        if keys:
            raise ValueError(
                f"{len(keys)} tensors are {fault} in {of}: {', '.join(keys[:3])}{', …' * (len(keys) > 3)}"
            )
