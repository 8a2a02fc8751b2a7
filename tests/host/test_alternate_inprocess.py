"""A language model and a UNet take turns on a card too small for both: same results, and nothing is left behind.

One of the language models is three times as large as the card itself.

The card is simulated, ComfyUI's memory management is not. A tensor on it says ``lazy:0``, a device that torch knows and
has no kernels for, keeps its numbers in ordinary memory, and refuses to be mixed with a CPU tensor; the card counts the
bytes of every storage on it, activations and cached keys too, and raises torch's out-of-memory error when they are more
than it has. So ComfyUI loads, splits and unloads models as on a GPU, in a process of its own: this file is its program.
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import json
import os
import shutil
import subprocess
import sys
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from support import comfy_inprocess
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from tools.miniature import CHECKPOINT

ROOT = comfy_inprocess.ROOT
FOLDER = Path(os.environ.get("LLMGA_MINIATURE") or ROOT / "miniature")
DEVICE = torch.device("lazy", 0)
MB = 2**20
RESERVE = 8 * MB
"""What ComfyUI leaves free for a model's work: here instead of its 1.2 GB, more than these models take."""
PROMPTS = 20
LANGUAGE, PAINTER = "_Managed", "BaseModel"
WISHES = tuple(
    f"Please generate a detailed image from this idea: {idea}"
    for idea in ("a blue circle in the night sky", "a green square on snow", "a yellow heart on water")
)
pytestmark = [
    pytest.mark.skipif(comfy_inprocess.skip_reason() is not None, reason=str(comfy_inprocess.skip_reason())),
    pytest.mark.skipif(
        not sys.platform.startswith("linux"), reason="resident memory is read from Linux's /proc"
    ),
]
aten = torch.ops.aten
CROSSING = {
    aten.copy_.default,
    aten._to_copy.default,
    aten.index.Tensor,
    aten.index_put_.default,
    aten._has_compatible_shallow_copy_type.default,
}
"""What takes tensors of both devices on a GPU too."""
COMPOUND = {aten.to, aten.type_as}
"""What inference mode does not take apart by itself, and may be a move or none."""
LARGER = "a language model larger than the card"
CARDS = {"a part of the language model leaves": 42, "neither beside the other": 17, LARGER: 39}
"""Their MB. The weights are 10 and 18 MB, and ComfyUI reckons with 19 for a step: the second never holds the UNet whole, nor
all of the language model beside what is reserved. The third's language model has 117 MB."""
PACKED_CARD = 30
"""MB for the third language model in int4, which then has 23."""
LARGE = {
    "hidden_size": 768,
    "intermediate_size": 2048,
    "num_hidden_layers": 4,
    "num_attention_heads": 12,
    "num_key_value_heads": 12,
    "head_dim": 64,
}


class Stored(torch.Tensor):
    """A tensor on the card; ``inner`` holds its numbers."""

    inner: torch.Tensor

    @staticmethod
    def __new__(cls, inner: torch.Tensor) -> Stored:
        # Named arguments that torch's stubs do not know.
        make: Any = torch.Tensor._make_wrapper_subclass
        layout = {"strides": inner.stride(), "storage_offset": inner.storage_offset()}
        stored = make(cls, inner.shape, dtype=inner.dtype, device=DEVICE, **layout)
        stored.inner = inner
        return stored

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise RuntimeError(f"{func} on the card, whose mode is off")


class Card(TorchDispatchMode):
    """Every operation while it is entered; ``total`` and ``used`` in bytes."""

    def __init__(self, total: int) -> None:
        super().__init__()
        self.total = total
        self.used = self.peak = 0
        self._storages: dict[int, list[int]] = {}  # address: tensors on it, bytes

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func.overloadpacket in COMPOUND:
            with self:
                return func.decompose(*args, **kwargs)
        tensors = [leaf for leaf in _leaves((*args, *kwargs.values())) if isinstance(leaf, torch.Tensor)]
        stored = {id(tensor.inner): tensor for tensor in tensors if isinstance(tensor, Stored)}
        if stored and func not in CROSSING and any(t.dim() for t in tensors if not isinstance(t, Stored)):
            raise RuntimeError(f"Expected all tensors to be on the same device, but {func} got the CPU's too")
        device = kwargs.get("device")
        here = bool(stored) if device is None else torch.device(device).type == DEVICE.type
        if not here and not stored:
            return func(*args, **kwargs)
        if func is aten.copy_.default:
            here = isinstance(args[0], Stored)
        result = func(*map(_inner, args), **{name: _inner(value) for name, value in kwargs.items()})
        if not here:
            return result
        if isinstance(result, (list, tuple)):
            return type(result)(self._store(out, stored) for out in result)
        return self._store(result, stored)

    def _store(self, out: Any, stored: dict[int, Stored]) -> Any:
        if not isinstance(out, torch.Tensor):
            return out
        if id(out) in stored:  # written in place
            return stored[id(out)]
        storage = out.untyped_storage()
        address, size = storage.data_ptr(), storage.nbytes()
        entry = self._storages.setdefault(address, [0, size])
        entry[0] += 1
        if entry[0] == 1:
            self.used += size
            self.peak = max(self.peak, self.used)
        weakref.finalize(out, self._drop, address)
        if self.used > self.total:
            raise torch.OutOfMemoryError(f"the card has {self.total} bytes, and {self.used} are asked for")
        return Stored(out)

    def _drop(self, address: int) -> None:
        entry = self._storages[address]
        entry[0] -= 1
        if entry[0] == 0:
            del self._storages[address]
            self.used -= entry[1]


class Literals(TorchFunctionMode):
    """``torch.tensor`` of numbers never reaches a dispatch mode: they are made on the CPU and moved."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is torch.Tensor.tolist:
            return func(args[0].cpu())
        device = kwargs.get("device")
        if func not in (torch.tensor, torch.as_tensor) or device is None:
            return func(*args, **kwargs)
        return func(*args, **{**kwargs, "device": "cpu"}).to(device)


def _leaves(values: Any) -> Iterator[Any]:
    for value in values:
        if isinstance(value, (list, tuple)):
            yield from _leaves(value)
        else:
            yield value


def _inner(value: Any) -> Any:
    if isinstance(value, Stored):
        return value.inner
    if isinstance(value, (list, tuple)):
        return [_inner(part) for part in value]
    return torch.device("cpu") if isinstance(value, torch.device) and value.type == DEVICE.type else value


class Studio:
    """ComfyUI with the miniature's checkpoint, a language model and a card: one chat and one picture at a time."""

    def __init__(self, card: Card, language: Path) -> None:
        comfy_inprocess.start()
        self.card = card
        self.language = language
        self.management: Any = importlib.import_module("comfy.model_management")
        paths: Any = importlib.import_module("folder_paths")
        paths.add_model_folder_path("LLM", str(self.language.parent))
        importlib.import_module("miniworld.pack").register()
        real = self.management.get_free_memory

        def free(dev: Any = None, torch_free_too: bool = False) -> Any:
            if dev is not None and dev.type != DEVICE.type:
                return real(dev, torch_free_too)
            left = card.total - card.used
            return (left, 0) if torch_free_too else left

        self.management.get_torch_device = lambda: DEVICE
        self.management.get_free_memory = free
        self.management.minimum_inference_memory = lambda: RESERVE
        self.management.EXTRA_RESERVED_VRAM = 0
        self.management.vram_state = self.management.VRAMState.NORMAL_VRAM
        # A converted parameter stays the same object, as on a GPU: tied weights stay tied.
        torch.__future__.set_swap_module_params_on_conversion(True)

    def engine(self, precision: str = "auto") -> Any:
        return (
            comfy_inprocess.pack("nodes.loaders").ModelLoader.execute(self.language.name, precision).args[0]
        )

    def checkpoint(self) -> tuple[Any, Any]:
        load = importlib.import_module("comfy.sd").load_checkpoint_guess_config
        return load(str(FOLDER / "checkpoints" / CHECKPOINT), output_vae=False)[:2]

    def reply(self, engine: Any, wish: str) -> str:
        execute = comfy_inprocess.pack("nodes.chat").Chat.execute
        return execute(engine, wish, "chat", 7, 0.2, 1.0, 16, "whole_reply").args[0]

    def latent(self, model: Any, clip: Any, prompt: str) -> torch.Tensor:
        encode = comfy_inprocess.core_node("CLIPTextEncode")().encode
        empty = {"samples": torch.zeros(1, 4, 8, 8)}
        sample = comfy_inprocess.core_node("KSampler")().sample
        rows = [encode(clip, text)[0] for text in (prompt, "")]
        # cfg 1: at another one the host samples both rows at once or in turn, as memory allows, and rounds differently.
        return sample(model, 7, 2, 1.0, "euler", "normal", *rows, empty)[0]["samples"]

    def loaded(self) -> dict[str, list[int]]:
        """What ComfyUI counts as loaded on the card, and the size, by the model's class."""
        found = [entry for entry in self.management.current_loaded_models if entry.device == DEVICE]
        return {
            type(entry.model.model).__name__: [entry.model_loaded_memory(), entry.model_memory()]
            for entry in found
        }

    def alternate(self) -> list[dict[str, Any]]:
        """20 prompts: the words of each and its picture, equal to what the models give alone or not, and what is held."""
        card, self.card.total = self.card.total, 1024 * MB
        load = comfy_inprocess.pack("llmga.chat.folders").load_local_engine
        engine = load(self.language, torch.float32)
        replies = [self.reply(engine, wish) for wish in WISHES]  # on the CPU, without ComfyUI's management
        model, clip = self.checkpoint()
        latents = [self.latent(model, clip, reply) for reply in replies]
        whole = self.loaded()
        self.management.unload_all_models()
        del engine, model
        gc.collect()
        if self.card.used or len(whole) != 1:
            raise RuntimeError(f"{whole} was loaded, and {self.card.used} bytes are still on the card")
        self.card.total, self.card.peak = card, 0
        engine, (model, clip) = self.engine(), self.checkpoint()
        rows = []
        for i in range(PROMPTS):
            wish = i % len(WISHES)
            reply = self.reply(engine, WISHES[wish])
            talking = self.loaded()
            latent = self.latent(model, clip, reply)
            row = {"reply": reply, "reply equal": reply == replies[wish], "talking": talking}
            row |= {"latent equal": torch.equal(latent, latents[wish]), "painting": self.loaded()}
            row |= {"spread": latent.std().item(), "kept": engine.prefixes.nbytes}
            del latent
            rows.append(row | held() | {"card": self.card.used, "peak": self.card.peak})
        return rows

    def in_int4(self, total: int) -> dict[str, Any]:
        """A reply of the language model in int4 on a card of ``total`` bytes, equal to that without ComfyUI or not."""
        self.management.unload_all_models()
        self.card.total = total
        options = comfy_inprocess.pack("llmga.chat.checkpoints").CheckpointOptions(weight_bits=4)
        alone = comfy_inprocess.pack("llmga.chat.folders").load_local_engine(
            self.language, torch.float32, options
        )
        engine = self.engine("int4")
        equal = self.reply(engine, WISHES[0]) == self.reply(alone, WISHES[0])
        return {"equal": equal, "loaded": self.loaded()[LANGUAGE], "note": engine.notes[1]}


def write_large(folder: Path) -> Path:
    """A language model with the miniature's tokenizer and random weights of the sizes in ``LARGE``."""
    import transformers

    shutil.copytree(FOLDER / "LLM" / "llmga-mini", folder)
    config: Any = transformers.AutoConfig.from_pretrained(folder, dtype=torch.float32)
    for key, value in LARGE.items():
        setattr(config.text_config, key, value)
    net: Any = transformers.LlavaForConditionalGeneration(config).float()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for _, weight in sorted(net.named_parameters()):
            if weight.dim() > 1:
                weight.normal_(std=2 / weight[0].numel() ** 0.5, generator=generator)
    (folder / "model.safetensors").unlink()
    net.save_pretrained(folder)
    return folder


def held() -> dict[str, int]:
    """Of this process: modules, the bytes of all tensors' storages, and resident memory in KiB."""
    gc.collect()
    everything = gc.get_objects()
    modules = sum(issubclass(type(item), torch.nn.Module) for item in everything)
    tensors = [item for item in everything if issubclass(type(item), torch.Tensor)]
    plain = [tensor.inner if isinstance(tensor, Stored) else tensor for tensor in tensors]
    storages = [tensor.untyped_storage() for tensor in plain if tensor.device.type == "cpu"]
    size = sum({storage.data_ptr(): storage.nbytes() for storage in storages}.values())
    del everything, tensors, plain, storages
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    status = Path("/proc/self/status").read_text().splitlines()
    resident = next(int(line.split()[1]) for line in status if line.startswith("VmRSS:"))
    return {"modules": modules, "tensors": size, "resident": resident}


@pytest.fixture(scope="module", params=CARDS)
def prompts(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, list[Any]]:
    if not (FOLDER / "checkpoints" / CHECKPOINT).is_file():
        pytest.skip(f"THE TRAINED MINIATURE IS MISSING: no weights in {FOLDER}")
    path = tmp_path_factory.mktemp("card") / "prompts.json"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")])}
    command = [sys.executable, __file__, str(CARDS[request.param]), str(path), str(request.param == LARGER)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]
    return request.param, json.loads(path.read_text())


def test_every_reply_and_picture_is_that_of_the_model_alone(prompts: tuple[str, list[Any]]) -> None:
    _, rows = prompts
    assert len(rows) == PROMPTS
    assert [row["reply equal"] for row in rows] == [True] * PROMPTS
    assert [row["latent equal"] for row in rows] == [True] * PROMPTS
    assert len({row["reply"] for row in rows}) == len({row["spread"] for row in rows}) == len(WISHES)


def test_each_model_makes_room_for_the_other(prompts: tuple[str, list[Any]]) -> None:
    kind, rows = prompts
    for row in rows:
        assert row["peak"] <= CARDS[kind] * MB
        language, size = row["talking"][LANGUAGE]
        painter, whole = row["painting"][PAINTER]
        if kind == LARGER:
            assert size >= 3 * CARDS[kind] * MB
            assert 0 < language < CARDS[kind] * MB
            assert 0 < painter <= whole
        elif kind == "neither beside the other":
            assert 0 < language < size
            assert PAINTER not in row["talking"]
            assert LANGUAGE not in row["painting"] and row["kept"] == 0
            assert 0 < painter < whole
        else:
            assert language == size
            assert 0 < row["painting"][LANGUAGE][0] < size
            assert painter == whole


def test_a_part_of_a_quantised_model_may_stay_behind(prompts: tuple[str, list[Any]]) -> None:
    kind, rows = prompts
    if kind == LARGER:
        found = rows[-1]["int4"]
        assert found["equal"]
        loaded, size = found["loaded"]
        assert 0 < loaded < size < PACKED_CARD * MB
        assert found["note"].startswith("int4: 28 linear layers")


def test_nothing_is_left_behind_after_the_second_prompt(prompts: tuple[str, list[Any]]) -> None:
    _, (_, second, *_, last) = prompts
    assert second["reply"] == last["reply"]
    for name in ("card", "tensors", "modules"):
        assert last[name] == second[name], name
    assert last["resident"] < 1.02 * second["resident"]


def main() -> None:
    card = Card(int(sys.argv[1]) * MB)
    language = FOLDER / "LLM" / "llmga-mini"
    if sys.argv[3] == "True":
        language = write_large(Path(sys.argv[2]).parent / "LLM" / "large")
    with torch.inference_mode(), card, Literals():  # as ComfyUI runs every node
        studio = Studio(card, language)
        rows = studio.alternate()
        if language.name == "large":
            rows[-1]["int4"] = studio.in_int4(PACKED_CARD * MB)
    Path(sys.argv[2]).write_text(json.dumps(rows))


if __name__ == "__main__":
    main()
