"""GILL's trained part from a file and into one: the released ``pretrained_ckpt.pth.tar``, or the same as safetensors.

Both have the names of the released code, without ``module.`` of several GPUs. Sizes are read off the shapes, and every
tensor has its place or the file is refused.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import torch

from ..files.header import read_header
from ..files.kinds import shown
from ..files.known_kinds import GILL_CHECKPOINT, GILL_DECISION, check_kind
from ..files.tensors import Tensors, read_wrapped
from ..files.writing import replacing
from .heads import HeadKind
from .parts import DecisionModel, GILLParts, GILLSizes

PUBLISHED_NAMES = {
    "img_rows": "input_embeddings.weight",
    "visual_embeddings.": "visual_embeddings.",
    "visual_fc.": "visual_fc.",
    "retrieval_head.": "ret_text_hidden_fcs.0.model.",
    "generation_head.": "gen_text_hidden_fcs.0.",
    "logit_scale": "logit_scale",
}
"""Beginnings of the names in ``GILLParts``, and what stands there in a file behind ``model.``."""

_PREFIX = "model."
_HEAD = "gen_text_hidden_fcs.0."
_DECISION = {"1.weight": "linear.weight", "1.bias": "linear.bias"}
_CLIP_ROWS = 77
_LEFT = ("lm.", "visual_model.")
"""What an unpruned checkpoint may hold beside: the frozen networks."""


def load_parts(path: str | Path, dtype: torch.dtype | None = torch.float32) -> GILLParts:
    """The trained part from a ``.pth.tar`` as published, or from safetensors. Nothing in a PyTorch file is run.

    An unpruned file, with the whole table of input embeddings, serves too: its last rows are taken.

    Args:
        dtype: of the weights; None is that of the file (bfloat16 for the released one).

    Raises:
        FileNotFoundError: there is no such file.
        WrongFileError: it is damaged or another kind of file; says which.
        ValueError: a tensor is missing, left over, of another shape or not finite.
    """
    path = Path(path)
    check_kind(path, read_header(path), (GILL_CHECKPOINT,))
    tensors, _ = read_wrapped(path)
    try:
        state = _without_prefix(tensors)
        sizes = infer_sizes(state)
        return _build(state, sizes, dtype)
    except ValueError as error:
        raise ValueError(f"{shown(path)}: {error}") from error


def load_decision(path: str | Path) -> DecisionModel:
    """The decision model from ``decision_model.pth.tar``, or from safetensors; float32.

    Raises:
        FileNotFoundError: there is no such file.
        WrongFileError: it is damaged or another kind of file.
        ValueError: its shapes are not those of a decision model, or it is not finite.
    """
    path = Path(path)
    check_kind(path, read_header(path), (GILL_DECISION,))
    tensors, _ = read_wrapped(path)
    state = {name.removeprefix("module."): value for name, value in tensors.items()}
    width = state["1.weight"].shape[-1]
    if state["1.weight"].shape != (2, width) or state["1.bias"].shape != (2,):
        shapes = {name: tuple(value.shape) for name, value in state.items()}
        raise ValueError(f"{shown(path)}: a decision model has 2 outputs, this file has the shapes {shapes}")
    own = {ours: state[theirs].float() for theirs, ours in _DECISION.items()}
    _check_finite(own, shown(path))
    with torch.device("meta"):
        model = DecisionModel(width)
    model.load_state_dict(own, assign=True)
    return model.eval().requires_grad_(False)


def save_parts(parts: GILLParts | Mapping[str, torch.Tensor], path: Path) -> None:
    """Write the trained part, or its state dict, as safetensors under the published names, whole or not at all."""
    state = parts.state_dict() if isinstance(parts, GILLParts) else parts
    _save({f"{_PREFIX}{_published(name)}": value for name, value in state.items()}, path)


def save_decision(model: DecisionModel | Mapping[str, torch.Tensor], path: Path) -> None:
    """Write the decision model, or its state dict, as safetensors under the published names, whole or not at all."""
    state = model.state_dict() if isinstance(model, DecisionModel) else model
    _save({theirs: state[ours] for theirs, ours in _DECISION.items()}, path)


def infer_sizes(state: Mapping[str, torch.Tensor]) -> GILLSizes:
    """The sizes of the model that a state dict belongs to, from its shapes; names without ``model.``.

    Raises:
        ValueError: one of the tensors that show them is missing, or they contradict each other.
    """
    captioning = _matrix(state, "visual_embeddings.weight")
    rows = _matrix(state, "input_embeddings.weight")
    retrieval = _matrix(state, "visual_fc.weight")
    language = rows.shape[1]
    if captioning.shape[0] % language:
        raise ValueError(
            f"visual_embeddings.weight gives {captioning.shape[0]} numbers, which are not whole tokens of the width "
            f"{language} of input_embeddings.weight"
        )
    kind, sizes = _infer_head(state)
    return GILLSizes(
        language=language,
        vision=captioning.shape[1],
        img_tokens=_img_tokens(state, rows, kind, sizes),
        visual_tokens=captioning.shape[0] // language,
        retrieval=retrieval.shape[0],
        head=kind,
        **{name: value for name, value in sizes.items() if name != "share"},
    )


def _infer_head(state: Mapping[str, torch.Tensor]) -> tuple[HeadKind, dict[str, int]]:
    """The kind of the generation head, and its sizes; ``share`` is how many numbers it gives for one [IMG] token."""
    if f"{_HEAD}query_embs" in state:
        queries = state[f"{_HEAD}query_embs"]
        if queries.ndim != 3 or len(queries) != 1 or 0 in queries.shape:
            raise ValueError(f"query_embs has the shape {tuple(queries.shape)}; expected (1, rows, width)")
        layers = _count(state, r"tfm\.encoder\.layers\.(\d{1,3})\.")
        text = _matrix(state, f"{_HEAD}model.weight").shape[0]
        sizes = {
            "head_width": queries.shape[2],
            "head_layers": layers,
            "text_rows": queries.shape[1],
            "text": text,
        }
        return "gill_mapper", sizes
    if f"{_HEAD}model.0.weight" in state:
        kind: HeadKind = "mlp"
        sizes = {"head_width": _matrix(state, f"{_HEAD}model.0.weight").shape[0]}
        sizes["share"] = _matrix(state, f"{_HEAD}model.4.weight").shape[0]
    elif f"{_HEAD}fc.weight" in state:
        kind = "transformer_encoder"
        sizes = {"head_width": _matrix(state, f"{_HEAD}fc.weight").shape[0]}
        sizes["head_layers"] = _count(state, r"encoder\.layers\.(\d{1,3})\.")
        sizes["share"] = _matrix(state, f"{_HEAD}model.weight").shape[0]
    else:
        kind, sizes = "linear", {"share": _matrix(state, f"{_HEAD}model.weight").shape[0]}
    return kind, sizes


def _img_tokens(
    state: Mapping[str, torch.Tensor], rows: torch.Tensor, kind: HeadKind, sizes: dict[str, int]
) -> int:
    """How many [IMG] tokens there are; completes the sizes of a head whose rows are shares of theirs.

    A table of more than 64 rows is a whole vocabulary, whose last 8 are the [IMG] tokens' (8 in all released settings).
    """
    tokens = rows.shape[0] if rows.shape[0] <= 64 else 8
    if kind == "gill_mapper":
        return tokens
    numbers = sizes["share"] * tokens
    if numbers % _CLIP_ROWS:
        raise ValueError(
            f"the generation head gives {numbers} numbers for {tokens} [IMG] tokens, which are not {_CLIP_ROWS} rows"
        )
    sizes |= {"text_rows": _CLIP_ROWS, "text": numbers // _CLIP_ROWS}
    return tokens


def _build(state: Tensors, sizes: GILLSizes, dtype: torch.dtype | None) -> GILLParts:
    with torch.device("meta"):  # nothing is allocated for what does not fit
        parts = GILLParts(sizes)
    wanted = parts.state_dict()
    names = {_published(name): name for name in wanted}
    if missing := [name for name in names if name not in state]:
        raise ValueError(f"{len(missing)} of its {len(names)} tensors are missing, the first is {missing[0]}")
    if extra := [name for name in state if name not in names]:
        raise ValueError(f"it has {len(extra)} tensors more than a GILL, the first is {extra[0]}")
    state["input_embeddings.weight"] = state["input_embeddings.weight"][-sizes.img_tokens :]
    for published, name in names.items():
        if state[published].shape != wanted[name].shape:
            raise ValueError(
                f"{published} has the shape {tuple(state[published].shape)}, where the other tensors ask for "
                f"{tuple(wanted[name].shape)}"
            )
    _check_finite(state, "it")
    own = {name: state[published].to(dtype or state[published].dtype) for published, name in names.items()}
    parts.load_state_dict(own, assign=True)
    return parts.eval().requires_grad_(False)


def _without_prefix(tensors: Tensors) -> Tensors:
    """The tensors under their names in ``GILLModel``, without those of the frozen networks."""
    found: Tensors = {}
    for name, value in tensors.items():
        own = name.replace("module.", "").removeprefix(_PREFIX)
        if own.startswith(_LEFT):
            continue
        if own in found:
            raise ValueError(f"it holds {own} twice, with and without 'module.' or 'model.' before it")
        found[own] = value
    return found


def _published(name: str) -> str:
    for ours, theirs in PUBLISHED_NAMES.items():
        if name.startswith(ours):
            return theirs + name.removeprefix(ours)
    raise KeyError(name)


def _matrix(state: Mapping[str, torch.Tensor], name: str) -> torch.Tensor:
    if name not in state:
        raise ValueError(f"{name} is missing, from which the sizes of the model are read; download it again")
    if state[name].ndim != 2 or 0 in state[name].shape:
        raise ValueError(f"{name} has the shape {tuple(state[name].shape)}; expected a matrix")
    return state[name]


def _count(state: Mapping[str, torch.Tensor], pattern: str) -> int:
    found = {match[1] for name in state if (match := re.match(re.escape(_HEAD) + pattern, name))}
    return len(found)


def _check_finite(state: Mapping[str, torch.Tensor], where: str) -> None:
    for name, value in state.items():
        if not value.is_floating_point():
            raise ValueError(
                f"{where} holds {name} as {str(value.dtype).removeprefix('torch.')}; expected floats"
            )
        if not torch.isfinite(value.sum(dtype=torch.float32)):
            raise ValueError(f"{where} holds numbers in {name} that are not finite: the weights are damaged")


def _save(state: Mapping[str, torch.Tensor], path: Path) -> None:
    from safetensors.torch import save_file

    with replacing(path) as temporary:
        save_file(
            {name: value.detach().cpu().contiguous() for name, value in state.items()},
            temporary,
            metadata={"format": "pt"},
        )
