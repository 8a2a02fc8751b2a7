"""Published folders with quantised weights: which ones are loaded, what each needs, and what becomes of its weights.

Five kinds are read, by transformers' own quantisers and the packages that those need. Weights of FP8 and compressed-tensors
are unpacked while they are loaded, so that the model is an ordinary one that can be loaded partly and quantised anew;
bitsandbytes, AWQ and GPTQ keep the layers of their packages, which ComfyUI can only load whole.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

KEY = "quantization_config"


@dataclass(frozen=True)
class QuantMethod:
    """One way in which published weights are quantised.

    Args:
        packages: that loading needs, by the names under which pip installs them.
        unpacked: its weights become ordinary ones while they are loaded.
    """

    packages: tuple[str, ...]
    unpacked: bool = False


QUANT_METHODS: dict[str, QuantMethod] = {
    "fp8": QuantMethod(("accelerate",), unpacked=True),
    "compressed-tensors": QuantMethod(("compressed-tensors",), unpacked=True),
    "bitsandbytes": QuantMethod(("bitsandbytes", "accelerate")),
    "awq": QuantMethod(("gptqmodel", "accelerate")),
    "gptq": QuantMethod(("optimum", "gptqmodel")),
}
"""By the ``quant_method`` of a folder's config.json. AWQ's package is transformers 5's; older ones ask for autoawq."""
_ADVICE = "take the unquantised model, with 'precision' int8 or int4 if memory is short"


def quant_method_of(config: Mapping[str, Any]) -> str | None:
    """The ``quant_method`` of a config.json, or None where nothing is quantised; see ``check_quantisation``."""
    found = config.get(KEY)
    if not isinstance(found, Mapping):
        return None
    if found.get("load_in_4bit") or found.get("load_in_8bit"):
        return "bitsandbytes"
    return found.get("quant_method")


def check_quantisation(config: Mapping[str, Any], where: str) -> None:
    """Raise for a config.json whose weights are quantised in a way that cannot be read here.

    Raises:
        ValueError: the method is not one of ``QUANT_METHODS``, or a package that it needs is missing (it is named).
    """
    if config.get(KEY) is None:
        return
    if not isinstance(config[KEY], Mapping):
        raise ValueError(f"{where}: {KEY} must be a JSON object, got {type(config[KEY]).__name__}")
    method = quant_method_of(config)
    known = QUANT_METHODS.get(method) if isinstance(method, str) else None
    if known is None:
        raise ValueError(
            f"{where}: its weights are quantised by {str(method)[:60]!r}, and only {', '.join(QUANT_METHODS)} are read; "
            f"{_ADVICE}"
        )
    missing = [name for name in known.packages if not _is_installed(name)]
    if missing:
        raise ValueError(
            f"{where}: its weights are quantised by {method}, which needs {' and '.join(missing)}; run `pip install "
            f"{' '.join(missing)}` with ComfyUI's Python, or {_ADVICE}"
        )


def _is_installed(package: str) -> bool:
    names = (package, "awq") if package == "gptqmodel" else (package,)
    return any(find_spec(name.replace("-", "_")) is not None for name in names)


def check_precision(method: str | None, bits: int | None) -> None:
    """Raise ``ValueError`` where int8 or int4 is asked for of weights that stay quantised by a package."""
    if bits and method is not None and not QUANT_METHODS[method].unpacked:
        raise ValueError(
            f"its weights are quantised by {method} already, so int{bits} cannot be made of them; set 'precision' to auto"
        )


def ask_to_unpack(config: Any) -> None:
    """Make transformers unpack what ``QUANT_METHODS`` says is unpacked.

    Args:
        config: transformers'; its quantisation is changed.
    """
    import transformers

    found = getattr(config, KEY, None)
    method = quant_method_of({KEY: found})
    if found is None or method is None or not QUANT_METHODS[method].unpacked:
        return
    settings = transformers.FineGrainedFP8Config if method == "fp8" else transformers.CompressedTensorsConfig
    if "dequantize" in inspect.signature(settings.__init__).parameters:
        found["dequantize"] = True
    else:  # before transformers 5
        found["run_compressed"] = False


def quantisation_note(method: str | None) -> tuple[str, ...]:
    """A sentence on what became of quantised weights, if they are."""
    if method is None:
        return ()
    if QUANT_METHODS[method].unpacked:
        return (f"published as {method}; its weights were unpacked while loading",)
    return (f"quantised by {method}, as published; it is loaded whole",)
