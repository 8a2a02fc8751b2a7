"""Stage 1: train a LLaVA on the mixture of LLMGA's tasks, whose answers are prompts in tags."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
import torch.nn.functional as F
from torch import nn

from ..chat.checkpoints.families import FAMILIES
from ..chat.checkpoints.template import fitting_template
from ..data.mixture import Mixture, Part, preset
from ..data.samples import SampleOptions, SampleTurn
from .config import check_samples
from .llava_layouts import llava_hf_names
from .loop import LoopConfig, Metrics, Weights, train
from .mixed_conversations import MixedConversations
from .turns import IGNORED, ConversationInputs, TurnEncoder

_PROBE = (SampleTurn("user", "A fox."), SampleTurn("assistant", "A red fox."))


@dataclass(frozen=True)
class NamedPart(Part):
    """A part of the mixture, under a name of its own choice."""

    name: str = ""


@dataclass(frozen=True)
class MixtureConfig:
    """See ``llmga.data.mixture``: a published mixture over the folder ``data``, or any parts."""

    preset: Literal["paper", "released-code"] | None = None
    data: Path | None = None
    parts: tuple[NamedPart, ...] = ()
    mode: Literal["weights", "fraction"] = "weights"
    """Of ``parts``; a preset has its own."""
    tag: Literal["gen_image", "gen_img"] = "gen_image"
    languages: tuple[Literal["en", "zh"], ...] = ("en",)
    edits: Literal["picture", "text"] = "picture"
    """What an edit begins with: its picture or, for half of those that have one, the caption of it; or the instruction
    alone, as the released code trains them."""

    def mixture(self, seed: int) -> Mixture:
        """Open the files.

        Raises:
            ValueError: there is neither a preset with its folder nor a part, or both; or see ``Mixture``.
        """
        if bool(self.preset) == bool(self.parts) or bool(self.preset) != bool(self.data):
            raise ValueError("mixture needs preset and data, or parts")
        parts: Mapping[str, Part] = {part.name or str(i): part for i, part in enumerate(self.parts)}
        mode = self.mode
        if self.preset and self.data:
            parts, mode = preset(self.preset, self.data)
        options = SampleOptions(tag=self.tag, languages=self.languages)
        if self.edits == "text":
            options = replace(options, edit_caption=0.0, edit_picture=0.0)
        return Mixture(parts, mode=mode, seed=seed, recipe=options)


@dataclass(frozen=True)
class Stage1Config:
    loop: LoopConfig
    base: str = ""
    """A LLaVA's transformers folder (or Hub name); unused where a net is passed in."""
    mixture: MixtureConfig = field(default_factory=MixtureConfig)
    """Unused where conversations are passed in."""
    transcript: Literal[
        "base",
        "vicuna_v1",
        "llama_3",
        "llava_llama_2",
        "mistral_instruct",
        "qwen_2",
        "phi_3",
        "gemma",
    ] = "base"
    """How a conversation is spelled: as a family of LLMGA was trained, or by the base's own chat template, which must
    end each answer with a control token. The result's folder gets it."""
    train: Literal["projector", "full", "lora"] = "full"
    """The projector alone, or with the whole language model, or with adapters in it. The tower is frozen."""
    max_length: int = 2048
    """Tokens; a longer conversation loses its end, and how many did is said."""
    system: str = ""
    """Said before every conversation, where the chat template has a place for it; "" is the family's own, if any."""
    gradient_checkpointing: bool = False
    lora_rank: int = 64
    lora_alpha: float = 16.0
    lora_dropout: float = 0.05
    export_dtype: Literal["float32", "float16", "bfloat16"] = "bfloat16"
    samples: int = 4
    """Conversations whose first answer is written out while training."""

    def __post_init__(self) -> None:
        check_samples(self)
        if self.max_length < 1 or self.lora_rank < 1:
            raise ValueError(
                f"max_length and lora_rank are at least 1, got {self.max_length} and {self.lora_rank}"
            )


class Conversations(Protocol):
    """What is learned; ``batch`` may be called from several threads."""

    def __len__(self) -> int: ...
    def batch(self, indices: torch.Tensor, device: torch.device) -> ConversationInputs: ...


class Stage1:
    """The trainer (see ``loop.Trainer``) of any LLaVA that transformers knows.

    Args:
        net: a ``LlavaForConditionalGeneration``, float32.
        processor: saved with the result.

    Raises:
        ValueError: the net is not a LLaVA.

    Source: LLMGA, llmga/llava/train/train.py (7e32eb6). Deviation: a mean over the learned tokens of a part, where
    theirs is one over those of a process.
    """

    def __init__(self, config: Stage1Config, net: Any, processor: Any, conversations: Conversations) -> None:
        self.config, self.net, self.processor = config, net, processor
        self._conversations = conversations
        self._image_id = processor.tokenizer.convert_tokens_to_ids(processor.image_token)
        modules = dict(net.named_modules())
        try:
            self._projector_name, self._projector = _ending(modules, "multi_modal_projector")
            _, tower = _ending(modules, "vision_tower")
        except LookupError as error:
            raise ValueError(f"{type(net).__name__} is not a LLaVA: it has no {error}") from error
        if config.train == "lora":
            self._add_adapters(modules)
        for name, parameter in net.named_parameters():
            adapter = config.train == "lora" and ".lora_" in name
            parameter.requires_grad_(config.train == "full" or adapter)
        self._projector.requires_grad_(True)
        tower.requires_grad_(False)
        if config.gradient_checkpointing:
            net.gradient_checkpointing_enable({"use_reentrant": False})

    def _add_adapters(self, modules: Mapping[str, nn.Module]) -> None:
        from peft import LoraConfig, inject_adapter_in_model

        c = self.config
        targets = [
            name
            for name, module in modules.items()
            if isinstance(module, nn.Linear) and "language_model." in name and not name.endswith("lm_head")
        ]
        alpha: Any = c.lora_alpha  # peft's type says int; it only divides by the rank
        settings = LoraConfig(
            r=c.lora_rank, lora_alpha=alpha, lora_dropout=c.lora_dropout, target_modules=targets
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(c.loop.seed)
            inject_adapter_in_model(settings, self.net)

    def __len__(self) -> int:
        return len(self._conversations)

    def modules(self) -> Mapping[str, nn.Module]:
        # The projector's checkpoints hold the projector only.
        return {"projector": self._projector} if self.config.train == "projector" else {"model": self.net}

    def prepare(self, device: torch.device, rank: int, world: int, barrier: Callable[[], None]) -> None:
        self._device = device
        if self.config.train == "projector":
            self.net.to(device)

    def batch(self, indices: torch.Tensor, generator: torch.Generator) -> ConversationInputs:
        return self._conversations.batch(indices, self._device)

    def loss(self, inputs: ConversationInputs, generator: torch.Generator) -> tuple[torch.Tensor, Metrics]:
        pictures = {"pixel_values": inputs.pixels} if len(inputs.pixels) else {}
        learned = F.pad(inputs.labels[:, 1:] != IGNORED, (0, 1))  # (B, T): whose next token is learned
        with _only(self.net.get_output_embeddings(), learned):
            logits = self.net(input_ids=inputs.ids, use_cache=False, **pictures).logits.float()  # (n, words)
        labels = inputs.labels[:, 1:][learned[:, :-1]]
        counts = labels.new_ones(len(labels)).float()
        if inputs.weights is not None:
            counts = inputs.weights[:, 1:][learned[:, :-1]]
        whole = counts.sum() + (counts.sum() == 0)
        loss = (F.cross_entropy(logits, labels, reduction="none") * counts).sum() / whole
        if not pictures:
            # Every trained weight takes part in every step: several processes wait for its gradient.
            loss = loss + 0 * sum(p.float().sum() for p in self._projector.parameters())
        right = ((logits.argmax(-1) == labels) * counts).sum() / whole
        return loss, {"accuracy": right}

    def sample(self, step: int, folder: Path) -> None:
        """A text file: what the first conversations ask, the answer they teach, and the net's own."""
        tokenizer = self.processor.tokenizer
        texts = []
        for i in range(min(self.config.samples, len(self))):
            inputs = self._conversations.batch(torch.tensor([i]), self._device)
            learned = inputs.labels[0] != IGNORED
            if not learned.any():
                texts.append(f"(conversation {i}: max_length cuts its answers off)")
                continue
            start = int(learned.int().argmax())  # where the first answer begins
            length = int(learned[start:].int().cumprod(0).sum())
            asked, taught = inputs.ids[:, :start], inputs.ids[0, start : start + length]
            image = inputs.ids[0] == self._image_id
            shown = int(image[:start].sum()) * len(inputs.pixels) // max(int(image.sum()), 1)
            made = self.net.generate(
                input_ids=asked,
                attention_mask=torch.ones_like(asked),
                max_new_tokens=2 * length + 8,
                do_sample=False,
                **({"pixel_values": inputs.pixels[:shown]} if shown else {}),
            )
            texts += [tokenizer.decode(ids) for ids in (asked[0][~image[:start]], taught, made[0, start:])]
        (folder / f"step-{step:08d}.txt").write_text("\n----\n".join(texts), encoding="utf-8")

    def export(self, folder: Path, weights: Weights) -> None:
        """A transformers folder: ``config.json``, ``model.safetensors`` and the processor's files."""
        from safetensors.torch import save_file

        if self.config.train == "projector":
            trained = {f"{self._projector_name}.{name}": v for name, v in weights["projector"].items()}
            state = {name: value.cpu() for name, value in self.net.state_dict().items()} | trained
        else:
            state = weights["model"]
        if self.config.train == "lora":
            state = merged(state, self.config.lora_alpha / self.config.lora_rank)
        state = llava_hf_names(state)
        if self.net.config.tie_word_embeddings:
            state.pop("language_model.lm_head.weight", None)
        dtype = getattr(torch, self.config.export_dtype)
        state = {name: value.to(dtype).contiguous() for name, value in state.items()}
        save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
        self.net.config.dtype = dtype
        self.net.config.save_pretrained(folder)
        self.net.generation_config.save_pretrained(folder)
        self.processor.save_pretrained(folder)


def merged(weights: Mapping[str, torch.Tensor], scale: float) -> dict[str, torch.Tensor]:
    """The weights of a net with low-rank adapters (as peft names them) with each adapter added to its layer."""
    plain = {}
    for name, value in weights.items():
        layer, base, rest = name.partition(".base_layer.")
        if base and rest == "weight":
            up, down = weights[f"{layer}.lora_B.default.weight"], weights[f"{layer}.lora_A.default.weight"]
            value = value + scale * (up.float() @ down.float()).to(value)
        if ".lora_" not in name:
            plain[f"{layer}.{rest}" if base else name] = value
    return plain


def set_transcript(processor: Any, transcript: str) -> None:
    """Give a processor the chat template of a family of LLMGA; ``base`` leaves it its own.

    Raises:
        ValueError: the family's control tokens are not this tokenizer's.

    Source: LLMGA 7e32eb6, ``--version`` of scripts/*.sh and llmga/llava/train/train.py:483-488.
    """
    if transcript != "base":
        processor.chat_template = fitting_template(
            FAMILIES[transcript], processor.tokenizer, processor.image_token
        )


def run(config: Stage1Config, output: Path) -> Path:
    """Train what a configuration alone describes; returns the folder of the result.

    Raises:
        ValueError: ``base`` or ``mixture`` is missing, the base's transcript teaches no answer's end, ``max_length`` leaves
            nothing to learn, or see ``loop.train``.
    """
    if not config.base:
        raise ValueError("base (a transformers folder of a LLaVA) is needed")
    import transformers

    mixture = config.mixture.mixture(config.loop.seed)
    mixture.check()
    dtype = "torch_dtype" if int(transformers.__version__.split(".")[0]) < 5 else "dtype"
    net = transformers.AutoModelForImageTextToText.from_pretrained(config.base, **{dtype: torch.float32})
    processor = transformers.AutoProcessor.from_pretrained(config.base)
    set_transcript(processor, config.transcript)
    encoder = TurnEncoder(processor, config.max_length)
    encoder.tokens(_PROBE, config.system)  # a base that cannot be taught says so before the run begins
    conversations = MixedConversations(mixture, encoder, config.system)
    conversations.check()
    return train(Stage1(config, net, processor, conversations), config.loop, output, config)


@contextlib.contextmanager
def _only(head: nn.Module, chosen: torch.Tensor) -> Iterator[None]:
    """Let the output layer read these states only: of a long picture or request it would make logits for nothing."""
    hook = head.register_forward_pre_hook(lambda _, args: (args[0][chosen],))  # (B, T, d) -> (n, d)
    try:
        yield
    finally:
        hook.remove()


def _ending(modules: Mapping[str, nn.Module], name: str) -> tuple[str, nn.Module]:
    """The module of this name, wherever this version of transformers keeps it."""
    for path, module in modules.items():
        if path.rpartition(".")[2] == name:
            return path, module
    raise LookupError(name)
