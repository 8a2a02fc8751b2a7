"""Where language models come from: a local folder, a named endpoint, or a model that ComfyUI loaded."""

from __future__ import annotations

import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from comfy_api.latest import io

from ..llmga.chat.checkpoints.families import FAMILIES
from ..llmga.chat.endpoints import find_endpoint, load_endpoints
from ..llmga.chat.published import PUBLISHED_MODELS, download_language_model
from . import check, host, host_memory
from .types import Engine

if TYPE_CHECKING:
    from ..llmga.chat.checkpoints import CheckpointOptions
    from ..llmga.chat.engines.local import LocalEngine

NO_MODEL = "(no folder in models/LLM)"
NO_ENDPOINT = "(no endpoint configured)"
MAX_LOOKUP = 32
ANY_FAMILY = "auto"
PRECISIONS = {
    "auto": None,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
    "float32": torch.float32,
}
WEIGHT_BITS = {"int8": 8, "int4": 4}


class ModelLoader(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="LLMGA_ModelLoader",
            display_name="LLMGA Model Loader",
            category="LLMGA/loaders",
            description="Loads a language model from a folder below models/LLM: any LLaVA, Qwen-VL or other "
            "vision-language model in the transformers layout, a text-only one, or an official LLMGA model as published. "
            "Nothing is downloaded unless you ask for it and the machine's owner allows it.",
            search_aliases=["load LLM", "load VLM", "LLaVA", "Qwen", "Qwen-VL", "transformers", "local LLM"],
            inputs=[
                io.Combo.Input(
                    "model",
                    options=host.names_on_disk(choices) or list(PUBLISHED_MODELS),
                    tooltip="A folder below models/LLM with config.json, weights and tokenizer files. A few published "
                    "models are always listed; they need download if they are not here.",
                ),
                io.Combo.Input(
                    "precision",
                    options=[*PRECISIONS, *WEIGHT_BITS],
                    default="auto",
                    optional=True,
                    advanced=True,
                    tooltip="The weights' type in memory. auto: bfloat16 or float16 on a GPU, float32 on the CPU. int8 and "
                    "int4: computed as auto, but the language model's layers take half or 0.28 of bfloat16's memory; int4 "
                    "costs some accuracy. The readout says what is taken.",
                ),
                io.Int.Input(
                    "lookup",
                    default=0,
                    min=0,
                    max=MAX_LOOKUP,
                    optional=True,
                    advanced=True,
                    tooltip="At temperature 0, words that the reply may repeat from the conversation are guessed this many "
                    f"at a time, 0 to {MAX_LOOKUP}: the same reply, sooner where much repeats, as in edits. 0 guesses none.",
                ),
                io.Combo.Input(
                    "family",
                    options=[ANY_FAMILY, *FAMILIES],
                    default=ANY_FAMILY,
                    optional=True,
                    advanced=True,
                    tooltip="For an official LLMGA model: whose chat format it was trained on. auto: told by its files, "
                    "then by its folder's name; the readout says which. Choose one only where that is wrong.",
                ),
                io.Boolean.Input(
                    "download",
                    default=False,
                    optional=True,
                    tooltip="On: a published model that is not here is fetched from Hugging Face into models/LLM, if the "
                    "machine's owner allows it (see this node's help): "
                    + "; ".join(f"{name}, {model.gigabytes:g} GB" for name, model in PUBLISHED_MODELS.items())
                    + ". It can be cancelled and goes on later. Off: nothing is fetched.",
                ),
            ],
            outputs=[Engine.Output(display_name="engine", tooltip="The language model, for LLMGA Chat.")],
        )

    @classmethod
    def fingerprint_inputs(cls, model="", **_) -> str:
        """Changes with the files of the folder, so that a model that was replaced there is loaded anew."""
        try:
            return host.state_of_choice(host.language_models(), model)
        except (OSError, RuntimeError) as error:  # said when the node runs
            return type(error).__name__

    @classmethod
    @host.guarded
    def execute(cls, model, precision, lookup, family, download) -> io.NodeOutput:
        from ..llmga.chat.checkpoints import CheckpointOptions

        dtype = PRECISIONS.get(check.choice("precision", precision, [*PRECISIONS, *WEIGHT_BITS]))
        check.integer("lookup", lookup, 0, MAX_LOOKUP)
        check.choice("family", family, [ANY_FAMILY, *FAMILIES])
        folder = place_of(model, check.flag("download", download))
        options = CheckpointOptions(
            family=None if family == ANY_FAMILY else family,
            towers=tuple(host.clip_vision_files()),
            weight_bits=WEIGHT_BITS.get(precision),
        )
        engine = shared_engine(folder, dtype or host.language_model_dtype(), options, lookup)
        readout = "\n".join((f"{engine.name}: {str(engine.net.dtype).removeprefix('torch.')}", *engine.notes))
        host.logger.info("%s", readout.replace("\n", "; "))
        return io.NodeOutput(engine, ui={"text": [readout]})


_engines: weakref.WeakValueDictionary[Any, LocalEngine] = weakref.WeakValueDictionary()


def shared_engine(folder: Path, dtype: torch.dtype, options: CheckpointOptions, lookup: int) -> LocalEngine:
    """The engine of a folder: the same one for every loader that asks for the same, as long as one of them holds it."""
    from ..llmga.chat.folders import load_local_engine

    key = (folder, states_of(folder), dtype, options, lookup)
    engine = _engines.get(key)
    if engine is None:
        host.announce_loading(size=sum(path.stat().st_size for path in folder.glob("*.safetensors")))
        engine = load_local_engine(folder, dtype, options)
        engine.load = host_memory.managed_language_model(engine)
        engine.lookup = lookup
        _engines[key] = engine
    return engine


def states_of(folder: Path) -> tuple[tuple[str, str], ...]:
    """Name, size and time of each file in a folder."""
    return tuple((path.name, host.state_of(path)) for path in sorted(folder.iterdir()) if path.is_file())


def choices() -> dict[str, Path | None]:
    """The folders that are here, and the published models that are not (None)."""
    here = host.language_models()
    return {**here, **{name: None for name in PUBLISHED_MODELS if name not in here}}


def place_of(name: Any, download: bool) -> Path:
    """Where a model is, after a download if that is needed, wanted and allowed.

    Raises:
        ValueError: no such model, or downloads are not allowed.
        FileNotFoundError: a published one that is not here, and nobody asked for its download.
    """
    known = choices()
    place = known[check.choice("model", name, list(known))]
    if place is not None:
        return place
    published = PUBLISHED_MODELS[name]
    by_hand = f"put all files of {published.repository} into models/LLM/{name} and press R"
    if not download:
        raise FileNotFoundError(
            f"model {name!r} is not on this machine; turn 'download' on to fetch it from Hugging Face ({published}), if the "
            f"machine's owner allows downloads (LLMGA_ALLOW_DOWNLOADS=1), or {by_hand}"
        )
    if not host.downloads_allowed():
        raise ValueError(
            f"model {name!r} ({published}) is not on this machine, and its owner has not allowed downloads: a workflow "
            "alone starts none. Set LLMGA_ALLOW_DOWNLOADS=1 where ComfyUI starts, or make an empty file allow_downloads "
            f"in user/__llmga; or {by_hand}"
        )
    host.logger.info("LLMGA downloads %s at %s", published, published.revision)
    return download_language_model(name, host.language_model_folder(), host.progress())


class HostLanguageModel(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="LLMGA_HostLanguageModel",
            display_name="LLMGA Host Language Model",
            category="LLMGA/loaders",
            description="Uses a language model that ComfyUI loaded itself (Load CLIP with Qwen3, Qwen3-VL, Gemma 3 …), "
            "in the model's own chat format and with live text. It needs no other files and shares ComfyUI's memory.",
            search_aliases=["text generate", "Qwen", "Gemma", "native LLM", "magic prompt"],
            inputs=[
                io.Clip.Input(
                    "clip",
                    tooltip="A language model from Load CLIP; a text encoder that cannot write is an error.",
                )
            ],
            outputs=[Engine.Output(display_name="engine", tooltip="The language model, for LLMGA Chat.")],
        )

    @classmethod
    @host.guarded
    def execute(cls, clip) -> io.NodeOutput:
        from .host_language import HostEngine

        return io.NodeOutput(HostEngine(clip))


class Endpoint(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="LLMGA_Endpoint",
            display_name="LLMGA Endpoint",
            category="LLMGA/loaders",
            description="A language model behind an OpenAI-compatible server: vLLM, llama.cpp, Ollama, LM Studio, or a "
            "hosted one. Address, model and key belong to a record in the owner's file endpoints.json; a workflow only "
            "names it.",
            search_aliases=["OpenAI", "ChatGPT", "Ollama", "vLLM", "llama.cpp", "LM Studio", "API", "Qwen"],
            inputs=[
                io.Combo.Input(
                    "endpoint",
                    options=host.names_on_disk(endpoint_names) or [NO_ENDPOINT],
                    tooltip="A record of endpoints.json in ComfyUI's user/__llmga folder (see this node's help).",
                )
            ],
            outputs=[Engine.Output(display_name="engine", tooltip="The language model, for LLMGA Chat.")],
        )

    @classmethod
    def fingerprint_inputs(cls, endpoint) -> str:
        return host.state_of(host.private_directory() / "endpoints.json")

    @classmethod
    @host.guarded
    def execute(cls, endpoint) -> io.NodeOutput:
        from ..llmga.chat.engines.endpoint import EndpointEngine

        record = find_endpoint(
            host.private_directory() / "endpoints.json", check.text("endpoint", endpoint, limit=200)
        )
        return io.NodeOutput(EndpointEngine(record, forbidden=host.own_origins()))


def endpoint_names() -> list[str]:
    """The names of the records that can be used."""
    return sorted(load_endpoints(host.private_directory() / "endpoints.json"))


NODES = [ModelLoader, HostLanguageModel, Endpoint]
