"""The host's MODEL as ``llmga.diffusion.Denoiser``.

``run`` puts the work inside a guider and a sampler of the host's own kind, so that the host loads, offloads, patches and
cleans up as for any KSampler: LoRA, hooks, ControlNet, wrappers, lowvram. The host's sampling function is not used: it
feeds one latent to all conditionings, and an edit needs a different latent in each row.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal
from weakref import WeakKeyDictionary

import comfy.model_management
import comfy.patcher_extension
import comfy.samplers
import comfy.utils
import latent_preview
import torch
from comfy.ldm.modules.attention import SpatialTransformer, optimized_attention

from ..llmga.diffusion.denoiser import Site, StopForward, Taps
from ..llmga.diffusion.gradient import autograd_enabled, require_variable
from ..llmga.diffusion.schedule import Schedule
from . import check, host
from .host_conflicts import refuse_replaced, require_editable
from .host_control import control_hints, with_control
from .host_gradient import differentiable_attention, input_gradients
from .prompt_encoder import Conditioning

Work = Callable[["HostDenoiser", dict[str, "HostContext"]], Any]


@dataclass(frozen=True, eq=False)
class HostContext:
    """One prompt, encoded: the host's own entries, of which a schedule lets one act at a time."""

    name: str
    entries: list[dict[str, Any]]


class HostDenoiser:
    """``eps`` of the host's UNet, for as long as ``run`` lasts. Rows of one call share hooks and ControlNet."""

    def __init__(self, net: Any, model_options: dict[str, Any], pictures: int, device: torch.device) -> None:
        """``net`` is the host's BaseModel, loaded; ``pictures`` the batch that ControlNet repeats its hints for."""
        self._net, self._model_options, self._pictures = net, model_options, pictures
        self.device = device
        self._sigmas = net.model_sampling.sigmas.to(device, torch.float32)
        self.schedule = schedule_of(net.model_sampling)
        self.sites = sites_of(net.diffusion_model)
        self._taps: Taps | None = None
        self._hooked: dict[str, Any] = {}
        """The transformer options of the hooks that act now."""
        self._patches: dict[str, dict[Any, Any]] = {"attn1": {}, "attn2": {}}
        for site in self.sites:
            kind = "attn1" if site.kind == "self" else "attn2"
            self._patches[kind][(site.block, site.number, site.index)] = partial(self._attend, site)

    def eps(
        self, x: torch.Tensor, timestep: int, contexts: Sequence[HostContext], taps: Taps | None = None
    ) -> torch.Tensor | None:
        """See ``Denoiser``."""
        host.raise_if_cancelled()
        entries = self._entries(contexts, x, timestep)
        return self._predict(x, timestep, contexts, entries, taps)

    def with_gradient(
        self, x: torch.Tensor, timestep: int, contexts: Sequence[HostContext], taps: Taps | None = None
    ) -> torch.Tensor | None:
        """See ``Denoiser``: outside inference mode, with layers that never save the host's inference weights."""
        host.raise_if_cancelled()
        require_variable(x)
        # Hooks patch weights in place, which the host does in inference mode.
        with torch.inference_mode():
            entries = self._entries(contexts, x, timestep)
        control = entries[0].get("control")
        nets = [self._net.diffusion_model]
        if control is not None:
            nets += [patcher.model for patcher in control.get_models()]
        with autograd_enabled(), input_gradients(module for net in nets for module in net.modules()):
            return self._predict(x, timestep, contexts, entries, taps, differentiable=True)

    def _predict(
        self,
        x: torch.Tensor,
        timestep: int,
        contexts: Sequence[HostContext],
        entries: Sequence[dict[str, Any]],
        taps: Taps | None,
        differentiable: bool = False,
    ) -> torch.Tensor | None:
        sigma = self._sigmas[timestep].clone()
        # The host's UNet takes latents in sigma space and divides by this again.
        scaled = x.to(self.device, torch.float32) * (1 + sigma**2).sqrt()
        call = self._call(contexts, entries, sigma.expand(len(x)), scaled, taps, differentiable)
        self._taps = taps
        try:
            denoised = self._apply(scaled, sigma.expand(len(x)), call)
        except StopForward:
            return None
        finally:
            self._taps = None
        found = ((scaled - denoised) / sigma).to(x.device)
        check.finite(
            f"model, at timestep {timestep}, gives", found, "load it in another precision (weight_dtype)"
        )
        return found

    def _entries(
        self, contexts: Sequence[HostContext], x: torch.Tensor, timestep: int
    ) -> list[dict[str, Any]]:
        """The entry of each row that acts at this timestep; their hooks are put into the weights."""
        if len(contexts) != len(x):
            raise ValueError(f"contexts must be one for each of {len(x)} rows, got {len(contexts)}")
        sigmas = self._sigmas[timestep].expand(len(x))
        entries = [_active(context, float(sigmas[0])) for context in contexts]
        patcher, hooks = self._net.current_patcher, _shared("hooks", entries)
        if hooks is not None:
            patcher.prepare_hook_patches_current_keyframe(sigmas, hooks, self._model_options)
        patcher.prepare_state(sigmas, self._model_options)
        self._hooked = patcher.apply_hooks(hooks=hooks)
        return entries

    def _call(
        self,
        contexts: Sequence[HostContext],
        entries: Sequence[dict[str, Any]],
        sigmas: torch.Tensor,
        scaled: torch.Tensor,
        taps: Taps | None,
        differentiable: bool,
    ) -> dict[str, Any]:
        """The keyword arguments of the host's ``apply_model``, as its own sampling function makes them."""
        control = _shared("control", entries)
        options = comfy.patcher_extension.merge_nested_dicts(
            self._hooked, self._model_options.get("transformer_options", {}), copy_dict1=False
        )
        chunks = len(contexts) // self._pictures if len(contexts) % self._pictures == 0 else len(contexts)
        heads = contexts[:: len(contexts) // chunks]
        options["cond_or_uncond"] = [int(context.name == "negative") for context in heads]
        options["uuids"] = [entry["uuid"] for entry in entries[:: len(contexts) // chunks]]
        options["sigmas"] = sigmas
        if differentiable:
            options["optimized_attention_override"] = differentiable_attention
        if taps is not None:
            refuse_replaced(options)
            options["patches_replace"] = {**options.get("patches_replace", {}), **self._patches}
        call = {name: _rows(name, entries) for name in entries[0]["model_conds"]}
        if differentiable:  # autograd cannot save what was made in inference mode
            call = {name: rows.clone() for name, rows in call.items()}
        call["transformer_options"] = options
        if control is not None:
            call["control"] = control_hints(control, scaled, sigmas, call, chunks, options)
        return call

    def _apply(self, scaled: torch.Tensor, sigmas: torch.Tensor, call: dict[str, Any]) -> torch.Tensor:
        wrapper = self._model_options.get("model_function_wrapper")
        if wrapper is None:
            return self._net.apply_model(scaled, sigmas, **call)
        cond_or_uncond = call["transformer_options"]["cond_or_uncond"]
        arguments = {"input": scaled, "timestep": sigmas, "c": call, "cond_or_uncond": cond_or_uncond}
        return wrapper(self._net.apply_model, arguments)

    def _attend(
        self, site: Site, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, extra: dict[str, Any]
    ) -> torch.Tensor:
        """The host's replace patch of one site."""
        heads, (height, width) = extra["n_heads"], extra["activations_shape"][-2:]
        taken = self._taps.attend(site, q, k, v, heads, (height, width)) if self._taps else None
        if taken is not None:
            return taken
        return optimized_attention(
            q, k, v, heads, attn_precision=extra["attn_precision"], transformer_options=extra
        )


@dataclass(frozen=True)
class HostRunner:
    """``llmga.diffusion.DenoiserRunner`` on the host's MODEL, with a ControlNet if there is one."""

    model: Any
    control: Conditioning | None = None

    def run(self, prompts: Mapping[str, Conditioning], shape: Sequence[int], work: Work) -> Any:
        conditionings = {name: with_control(prompt, self.control) for name, prompt in prompts.items()}
        return run(self.model, conditionings, shape, work)


def run(model: Any, conditionings: Mapping[str, Conditioning], shape: Sequence[int], work: Work) -> Any:
    """Call ``work(denoiser, contexts)`` with the model loaded, and return what it returns.

    Args:
        model: the host's MODEL; left as it was.
        conditionings: by name; ``negative`` is the unconditional one for the patches of other packs. ``contexts`` has
            the same names.
        shape: of the latent batch (B, 4, h, w), from which the host estimates the memory.

    Raises:
        ValueError: the model cannot be edited with; see ``require_editable``.
    """
    require_editable(model)
    _require_context(model, conditionings)
    guider = comfy.samplers.CFGGuider(model)
    guider.inner_set_conds(dict(conditionings))
    shell = _Shell(work)
    sigmas = model.get_model_object("model_sampling").sigmas.flip(0).float()
    # An empty latent: what the host would shift and scale is kept out of its hands.
    empty = torch.zeros(tuple(shape), device=comfy.model_management.intermediate_device())
    guider.sample(empty, empty, shell, sigmas, disable_pbar=True, seed=0)
    return shell.result


def _require_context(model: Any, conditionings: Mapping[str, Conditioning]) -> None:
    wanted = model.model.model_config.unet_config.get("context_dim")
    for conditioning in conditionings.values():
        for cond, _ in conditioning:
            if isinstance(wanted, int) and cond.shape[-1] != wanted:
                raise ValueError(
                    f"clip gives {cond.shape[-1]} numbers a token, and model reads {wanted}; connect the CLIP of the "
                    "checkpoint that 'model' is from"
                )


class _Shell(comfy.samplers.Sampler):
    def __init__(self, work: Work) -> None:
        self._work = work
        self.result: Any = None

    def sample(
        self,
        model_wrap,
        sigmas,
        extra_args,
        callback,
        noise,
        latent_image=None,
        denoise_mask=None,
        disable_pbar=False,
    ):
        contexts = {name: HostContext(name, entries) for name, entries in model_wrap.conds.items()}
        options = extra_args["model_options"]
        denoiser = HostDenoiser(model_wrap.inner_model, options, noise.shape[0], noise.device)
        self.result = self._work(denoiser, contexts)
        return latent_image


def progress(model: Any, steps: int) -> Callable[..., None]:
    """An ``on_step`` for the running node: the host's progress bar and preview, and the cancel point."""
    show = latent_preview.prepare_callback(model, steps)
    bar = comfy.utils.ProgressBar(steps)

    def on_step(i: int, n: int, preview: torch.Tensor | None = None) -> None:
        host.raise_if_cancelled()
        if preview is None:
            bar.update_absolute(i, n)
        else:
            show(i - 1, preview, None, n)

    return on_step


def schedule_of(model_sampling: Any) -> Schedule:
    return Schedule(1 / (1 + model_sampling.sigmas.detach().cpu().double() ** 2))


def sites_of(unet: Any) -> list[Site]:
    """Every attention layer of the host's UNet in the order in which it runs."""
    found: list[Site] = []
    sides: tuple[tuple[Literal["input", "middle", "output"], Any], ...] = (
        ("input", unet.input_blocks),
        ("middle", [unet.middle_block]),
        ("output", unet.output_blocks),
    )
    for name, blocks in sides:
        for number, block in enumerate(blocks):
            for layer in block if block is not None else ():
                if isinstance(layer, SpatialTransformer):
                    for index, inner in enumerate(layer.transformer_blocks):
                        found.append(Site(name, number, index, "self"))
                        if inner.attn2 is not None:
                            found.append(Site(name, number, index, "cross"))
    return found


def _active(context: HostContext, sigma: float) -> dict[str, Any]:
    """The entry that acts at this sigma; the host's later ones win where a schedule overlaps itself."""
    acting = [
        entry
        for entry in context.entries
        if float(entry.get("timestep_end", 0.0)) <= sigma <= float(entry.get("timestep_start", math.inf))
    ]
    if not acting:
        raise ValueError(f"clip: its schedule leaves no {context.name} prompt at sigma {sigma:.3f}")
    return acting[-1]


def _shared(name: str, entries: Sequence[dict[str, Any]]) -> Any:
    values = [entry.get(name) for entry in entries]
    if any(value is not values[0] for value in values):
        raise ValueError(f"clip: the prompts of one edit must share their {name}; connect one CLIP to all")
    return values[0]


def _rows(name: str, entries: Sequence[dict[str, Any]]) -> torch.Tensor:
    # process_cond gives one row; concat repeats shorter contexts to a common multiple, which is exact.
    conds = [entry["model_conds"][name].process_cond(batch_size=1, area=None) for entry in entries]
    return conds[0].concat(conds[1:])


_NUMBERS: WeakKeyDictionary[Any, int] = WeakKeyDictionary()
_COUNT = itertools.count()


def number_of(value: Any) -> int:
    """A number that no other object ever has, which ``id`` gives again."""
    return _NUMBERS.setdefault(value, next(_COUNT))


@dataclass(frozen=True)
class Identity:
    """Which MODEL something was made with."""

    kind: str
    """Models of another kind have other latents and contexts."""
    weights: Any
    """Changes with every LoRA."""


def identity(model: Any) -> Identity:
    config = model.model.model_config.unet_config
    kind = {name: config.get(name) for name in ("model_channels", "context_dim", "adm_in_channels")}
    sampling = model.get_model_object("model_sampling")
    ends = [round(float(sampling.sigmas[i]), 4) for i in (0, -1)]
    return Identity(f"{type(model.model.latent_format).__name__} {kind} {ends}", model.patches_uuid)
