"""Networks under ComfyUI's memory management: loaded whole, or a language model of which only a part fits on the card."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import comfy.model_management
import comfy.model_patcher
import comfy.ops
import comfy.patcher_extension
import torch

from ..llmga.chat.engines.memory import cache_bytes, unpacked_bytes
from ..llmga.chat.engines.weight_only import WeightOnlyLinear
from .host import announce_loading

if TYPE_CHECKING:
    from ..llmga.chat.engines.local import LocalEngine

MOSTLY = 0.5
"""The share of a language model's bytes that must be able to stay behind, or it is loaded whole."""


class _Managed(torch.nn.Module):
    """A network in the shape ModelPatcher expects: it assigns ``device``, which a transformers model does not allow."""

    def __init__(self, net: torch.nn.Module, forget: Callable[[], object] = lambda: None) -> None:
        super().__init__()
        self.net = net
        self.device = next(net.parameters()).device
        self.forget = forget


class _Patcher(comfy.model_patcher.ModelPatcher):
    """ComfyUI's, where a model that gives up a part of its room drops first what it has kept of earlier runs."""

    def partially_unload(self, *args: Any, **kwargs: Any) -> int:
        self.model.forget()
        return super().partially_unload(*args, **kwargs)


def _patcher(net: torch.nn.Module, forget: Callable[[], object] | None) -> _Patcher:
    patcher = _Patcher(
        _Managed(net, forget or (lambda: None)),
        load_device=comfy.model_management.get_torch_device(),
        offload_device=comfy.model_management.text_encoder_offload_device(),
    )
    patcher.add_callback(comfy.patcher_extension.CallbacksMP.ON_DETACH, lambda *_: patcher.model.forget())
    return patcher


def managed(net: torch.nn.Module, forget: Callable[[], object] | None = None) -> Callable[[], torch.device]:
    """Put a network under ComfyUI's memory management; ``forget`` is called whenever the host takes it off the device.

    Returns a function to call right before each use: it brings the whole network to the compute device, pushing other
    models out if it must, and returns the device. Full loads only: a module that is not the host's own and stayed behind
    on the CPU would not be noticed by the patcher.
    """
    patcher = _patcher(net, forget)

    def load() -> torch.device:
        announce_loading(patcher)
        comfy.model_management.load_models_gpu([patcher], force_full_load=True)
        return patcher.load_device

    return load


def managed_language_model(engine: LocalEngine) -> Callable[[], torch.device]:
    """Put an engine's network under ComfyUI's memory management, so that it may be larger than the card.

    The linear layers of its decoder and its output head become ComfyUI's own, which the host may leave in ordinary memory:
    they bring their weights along at each use. All else, such as embeddings, norms and the vision tower, is always loaded.
    What the engine keeps of earlier conversations is dropped when the host needs room. A network that is mostly other layers
    (a package's quantised ones, a mixture of experts) is loaded whole.

    Returns a function to call right before each use: it loads what fits beside the keys and values of the coming run, and
    returns the device.
    """
    net: Any = engine.net
    partly = _reclass(net)
    patcher = _patcher(net, engine.forget)

    def load() -> torch.device:
        device = patcher.load_device
        if not patcher.loaded_size():
            announce_loading(patcher)
        if partly:
            _place_rest(net, device)
        needed = engine.planned * cache_bytes(net) + unpacked_bytes(net)
        comfy.model_management.load_models_gpu([patcher], memory_required=needed, force_full_load=not partly)
        if partly:
            _place_rest(net, device)  # the host may have made room with it
        return device

    return load


class _WeightOnlyLinear(WeightOnlyLinear, comfy.ops.CastWeightBiasOp):
    """It moves its parts to its input by itself; the attributes tell the host that it may stay behind."""


_OPERATIONS: dict[type, type] = {
    torch.nn.Linear: comfy.ops.manual_cast.Linear,
    WeightOnlyLinear: _WeightOnlyLinear,
}


def _reclass(net: Any) -> bool:
    """Make the host's own what can be of the decoder and the output head; whether that is most of the network's bytes.

    The embedding is not among them, nor a head that shares its weight: transformers takes the device of a model's first
    weight for that of the model.
    """
    head = net.get_output_embeddings()
    tied = head is None or head.weight is net.get_input_embeddings().weight
    for module in (*net.get_decoder().modules(), *([] if tied else [head])):
        if type(module) in _OPERATIONS:
            module.__class__ = _OPERATIONS[type(module)]
    whole = sum(value.nbytes for value in (*net.parameters(), *net.buffers()))
    return sum({id(value): value.nbytes for _, _, value in _rest(net)}.values()) < (1 - MOSTLY) * whole


def _rest(net: torch.nn.Module) -> list[tuple[torch.nn.Module, str, torch.Tensor]]:
    """Every weight and buffer that cannot stay behind, with its module and its name there."""
    found = []
    for module in net.modules():
        if not hasattr(module, "comfy_cast_weights"):
            own = (*module.named_parameters(recurse=False), *module.named_buffers(recurse=False))
            found += [(module, name, value) for name, value in own]
    return found


def _place_rest(net: torch.nn.Module, device: torch.device) -> None:
    """Move what cannot stay behind, and make room for it: the host leaves it in ordinary memory where only a part fits."""
    missing = [(module, name, value) for module, name, value in _rest(net) if value.device != device]
    if not missing:
        return
    size = sum({id(value): value.nbytes for _, _, value in missing}.values())
    comfy.model_management.free_memory(size + comfy.model_management.minimum_inference_memory(), device)
    moved: dict[int, torch.Tensor] = {}  # weights that are shared stay shared
    for module, name, value in missing:
        if id(value) not in moved:
            there = value.detach().to(device)
            is_weight = isinstance(value, torch.nn.Parameter)
            moved[id(value)] = torch.nn.Parameter(there, requires_grad=False) if is_weight else there
        setattr(module, name, moved[id(value)])
