"""Weight-only quantisation: what is stored, how near it is, and that a folder loads into it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

pytest.importorskip("transformers", reason="folders are loaded through transformers")

from support.tiny_official import write_official

from llmga.chat.checkpoints import CheckpointOptions
from llmga.chat.conversation import Conversation
from llmga.chat.engines.base import Sampling
from llmga.chat.engines.local import LocalEngine
from llmga.chat.engines.weight_only import GROUP, WeightOnlyLinear, quantise
from llmga.chat.folders import load_local_engine
from miniworld.models.random_language import write_tiny_qwen_vl, write_tiny_text

pytestmark = pytest.mark.usefixtures("one_thread")

STEPS = {8: 127, 4: 7.5}
"""Half a step is the largest error of a number, as a share of the largest of its row or group: 1 / (2 · steps)."""
SHARES = {8: 0.55, 4: 0.32}
LAYOUTS = ("text", "qwen-vl", "vicuna_v1")


@pytest.fixture
def linear() -> nn.Linear:
    made = nn.Linear(4 * GROUP, 2000)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        made.weight.normal_(std=0.02, generator=generator)
        made.weight[7] = 0
        made.weight[8, GROUP : 2 * GROUP] *= 1e-4
    return made


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_no_number_is_further_away_than_half_a_step(linear: nn.Linear, bits: int, dtype: torch.dtype) -> None:
    layer = WeightOnlyLinear(linear, bits)
    wide = GROUP if bits == 4 else linear.in_features
    error = (layer.unpacked(dtype).float() - linear.weight).abs().unflatten(1, (-1, wide))
    largest = linear.weight.abs().unflatten(1, (-1, wide)).amax(2, keepdim=True)
    # int4 clips what lies opposite of the largest number by half a step more; bfloat16 rounds scale and product.
    allowed = largest * ((1.02 if bits == 4 else 0.52) / STEPS[bits] + 2**-8) + 1e-9
    assert (error <= allowed).all()
    assert layer.unpacked(dtype)[7].abs().max() == 0


@pytest.mark.parametrize("bits", [8, 4])
def test_the_layer_computes_with_what_it_stores(linear: nn.Linear, bits: int) -> None:
    layer = WeightOnlyLinear(linear, bits)
    x = torch.randn(3, 5, linear.in_features, generator=torch.Generator().manual_seed(1))
    assert torch.equal(layer(x), nn.functional.linear(x, layer.unpacked(torch.float32), linear.bias))
    half = layer(x.bfloat16())
    assert half.dtype == torch.bfloat16 and half.shape == (3, 5, 2000)
    assert layer.weight.nbytes + layer.scale.nbytes <= SHARES[bits] * 2 * linear.weight.numel()


@pytest.mark.parametrize("bits", [8, 4])
def test_what_is_stored_exactly_comes_back_exactly(bits: int) -> None:
    generator = torch.Generator().manual_seed(5)
    low, high = (-127, 127) if bits == 8 else (-8, 7)
    whole = torch.randint(low, high + 1, (40, 2 * GROUP), generator=generator).float()
    whole[:, 0::GROUP] = low
    linear = nn.Linear(2 * GROUP, 40)
    linear.weight.data = whole * 2**-9
    assert torch.equal(WeightOnlyLinear(linear, bits).unpacked(torch.float32), linear.weight)


def test_a_layer_used_twice_stays_one_and_odd_widths_stay_whole() -> None:
    net = nn.Module()
    net.a, net.odd = nn.Linear(GROUP, 8), nn.Linear(GROUP + 1, 8)
    net.again = net.a
    said = quantise(_decoder(net), 4)
    assert net.a is net.again and isinstance(net.a, WeightOnlyLinear) and type(net.odd) is nn.Linear
    assert (said.layers, said.left) == (1, 1) and "1 of odd widths" in str(said)
    with pytest.raises(ValueError, match="no linear layer that int8 fits"):
        quantise(_decoder(net.a), 8)
    with pytest.raises(ValueError, match="bits must be one of"):
        quantise(_decoder(net), 3)


def _decoder(inner: nn.Module) -> nn.Module:
    outer = nn.Module()
    outer.get_decoder = lambda: inner  # type: ignore[assignment]
    return outer


# --- folders ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=LAYOUTS)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("models")
    if request.param == "vicuna_v1":
        return write_official(root / request.param, "vicuna_v1", seed=2)
    write = write_tiny_text if request.param == "text" else write_tiny_qwen_vl
    return write(root / request.param, seed=1)


def load(folder: Path, bits: int | None, dtype: torch.dtype | None = torch.float32) -> LocalEngine:
    return load_local_engine(folder, dtype, CheckpointOptions(weight_bits=bits))


def states(engine: LocalEngine) -> torch.Tensor:
    return engine.hidden(Conversation().say("user", "a red fox under an old tree"))


@pytest.mark.parametrize("bits", [8, 4])
def test_a_folder_is_quantised_while_it_loads(folder: Path, bits: int) -> None:
    whole, packed = load(folder, None), load(folder, bits)
    layers = {n: m for n, m in packed.net.named_modules() if isinstance(m, WeightOnlyLinear)}
    decoder = whole.net.get_decoder()
    assert len(layers) == sum(type(m) is nn.Linear for m in decoder.modules()) > 0
    assert type(packed.net.get_output_embeddings()) is nn.Linear
    assert any(f"int{bits}: {len(layers)} linear layers" in note for note in packed.notes)
    assert any(note.startswith("memory at most: ") and "unpacked" in note for note in packed.notes)
    assert not torch.equal(states(packed), states(whole))
    for name, layer in layers.items():
        whole.net.get_submodule(name).weight.data = layer.unpacked(torch.float32)
    assert torch.equal(states(packed), states(whole))
    said = packed.generate(
        Conversation().say("user", "a red fox"), Sampling(max_new_tokens=4), lambda _: None
    )
    assert isinstance(said.answer, str)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, None])
def test_the_rest_has_the_type_that_was_asked_for(folder: Path, dtype: torch.dtype | None) -> None:
    whole, packed = load(folder, None, dtype), load(folder, 8, dtype)
    expected = {name: p.dtype for name, p in whole.net.named_parameters()}
    for name, parameter in packed.net.named_parameters():
        if parameter.is_floating_point():
            assert parameter.dtype == expected[name], name
    buffers = {name: b.dtype for name, b in whole.net.named_buffers()}
    assert {n: b.dtype for n, b in packed.net.named_buffers() if not n.endswith(".scale")} == buffers
    assert torch.isfinite(states(packed)).all()


def test_weights_of_the_asked_for_type_are_views_of_the_file_until_they_are_packed(folder: Path) -> None:
    """What makes the memory while loading that of the packed layers: nothing is converted before."""
    packed = load(folder, 8, torch.bfloat16)
    stored = load(folder, None, None)
    kept = dict(stored.net.named_parameters())
    for name, module in packed.net.named_modules():
        if isinstance(module, WeightOnlyLinear):
            again = WeightOnlyLinear(_linear(kept[f"{name}.weight"]), 8)
            assert torch.equal(module.weight, again.weight), (
                name
            )  # from the stored numbers, not from rounded ones
            assert torch.equal(module.scale, again.scale), name


def _linear(weight: torch.Tensor) -> nn.Linear:
    made = nn.Linear(weight.shape[1], weight.shape[0], bias=False, dtype=weight.dtype)
    made.weight = nn.Parameter(weight, requires_grad=False)
    return made
