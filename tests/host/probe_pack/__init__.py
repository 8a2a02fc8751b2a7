"""Nodes for the host tests alone: engines that misbehave, values that no widget would send, a tiny host language model."""

from __future__ import annotations

import asyncio
import sys
import time
from types import SimpleNamespace

import torch
from comfy_api.latest import ComfyExtension, io

RAISED = {
    "SystemExit": SystemExit,
    "KeyboardInterrupt": KeyboardInterrupt,
    "GeneratorExit": GeneratorExit,
    "CancelledError": asyncio.CancelledError,
    "MemoryError": MemoryError,
}
RETURNED = {
    "bytes": b"<gen_image> a fox </gen_image>",
    "none": None,
    "number": 3,
    "empty": "",
    "surrogate": "<gen_image> a fox \ud800 </gen_image>",
    "control": "<gen_image> a \x00 fox \x1b[31m \u202e </gen_image>",
    "markup": "<img src=x onerror=alert(1)><gen_image> a <b>fox</b> </gen_image>",
}
VALUES = {
    "nan": float("nan"),
    "infinity": float("inf"),
    "negative": -1,
    "none": None,
    "bytes": b"x",
    "list": [1, 2],
    "set": {1},
    "dict": {"a": 1, 2: "b"},
    "huge": 10**400,
    "text": "text",
    "long": "x" * 200_001,
    "parent": "../../etc/passwd",
    "absolute": "/etc/passwd",
    "device": "NUL",
    "nul": "a\x00b",
    "true": True,
    "nan_image": torch.full((1, 8, 8, 3), float("nan")),
    "empty_image": torch.zeros(0, 8, 8, 3),
    "flat_image": torch.zeros(8, 8),
    "two_masks": torch.ones(2, 8, 8),
    "object": object(),
}


def said(reply: str):
    """What an engine returns, of the class that the pack under test has under whatever name it was loaded."""
    base = next(module for name, module in sys.modules.items() if name.endswith("llmga.chat.engines.base"))
    return base.Said.of(reply)


class Engine:
    name = "probe"
    supports_pictures = True

    def __init__(self, behaviour: str) -> None:
        self.behaviour = behaviour

    def generate(self, conversation, sampling, on_text):
        if self.behaviour in RAISED:
            raise RAISED[self.behaviour]("from inside")
        reply = RETURNED[self.behaviour]
        on_text(reply)
        return said(reply) if isinstance(reply, str) else reply


class ProbeEngine(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="LLMGATest_Engine",
            category="test",
            inputs=[io.Combo.Input("behaviour", options=[*RAISED, *RETURNED])],
            outputs=[io.Custom("LLMGA_ENGINE").Output()],
        )

    @classmethod
    def execute(cls, behaviour):
        return io.NodeOutput(Engine(behaviour))


class ProbeValue(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="LLMGATest_Value",
            category="test",
            inputs=[io.Combo.Input("kind", options=list(VALUES))],
            outputs=[io.AnyType.Output()],
        )

    @classmethod
    def execute(cls, kind):
        return io.NodeOutput(VALUES[kind])


class ProbeLanguageModel(io.ComfyNode):
    """ComfyUI's own Qwen3 class, tiny, with random weights: a CLIP that can write."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="LLMGATest_HostLanguageModel", category="test", inputs=[], outputs=[io.Clip.Output()]
        )

    @classmethod
    def execute(cls):
        import comfy.sd
        import comfy.text_encoders.z_image as source

        size = {
            "hidden_size": 64,
            "intermediate_size": 64,
            "num_hidden_layers": 3,
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
        }
        target = SimpleNamespace(params={}, clip=source.ZImageTEModel, tokenizer=source.ZImageTokenizer)
        clip = comfy.sd.CLIP(target, model_options={"dtype": torch.float32, "qwen3_4b_model_config": size})
        generator = torch.Generator().manual_seed(0)
        for parameter in clip.cond_stage_model.parameters():
            parameter.data.normal_(0, 0.2, generator=generator)
        return io.NodeOutput(clip)


class ProbeSame(io.ComfyNode):
    """Whether two values are equal, tensors bit for bit: an error names the first difference."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="LLMGATest_Same",
            category="test",
            is_output_node=True,
            inputs=[io.AnyType.Input("first"), io.AnyType.Input("second")],
            outputs=[],
        )

    @classmethod
    def execute(cls, first, second):
        if not equal(first, second):
            raise ValueError(f"they differ: {str(first)[:300]} and {str(second)[:300]}")
        return io.NodeOutput(ui={"text": ["same"]})


class ProbeModules(io.ComfyNode):
    """The names of all modules that the server has loaded."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="LLMGATest_Modules", category="test", is_output_node=True, inputs=[], outputs=[]
        )

    @classmethod
    def fingerprint_inputs(cls):
        return len(sys.modules)

    @classmethod
    def execute(cls):
        return io.NodeOutput(ui={"text": sorted(sys.modules)})


class ProbeDtype(io.ComfyNode):
    """The type of a picture's numbers."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="LLMGATest_Dtype",
            category="test",
            inputs=[io.Image.Input("image")],
            outputs=[io.String.Output(display_name="dtype")],
        )

    @classmethod
    def execute(cls, image):
        return io.NodeOutput(str(image.dtype))


class ProbeWait(io.ComfyNode):
    """Gives a picture on, or waits to be cancelled where the text says so."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="LLMGATest_Wait",
            category="test",
            inputs=[io.Image.Input("image"), io.String.Input("text")],
            outputs=[io.Image.Output()],
        )

    @classmethod
    def execute(cls, image, text):
        import comfy.model_management

        while text == "wait":
            comfy.model_management.throw_exception_if_processing_interrupted()
            time.sleep(0.01)
        return io.NodeOutput(image)


def equal(first, second) -> bool:
    if isinstance(first, torch.Tensor):
        return isinstance(second, torch.Tensor) and torch.equal(first, second)
    if isinstance(first, (list, tuple)):
        return len(first) == len(second) and all(map(equal, first, second))
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(equal(first[key], second[key]) for key in first)
    return first == second


class ProbeExtension(ComfyExtension):
    async def get_node_list(self):
        return [ProbeEngine, ProbeValue, ProbeLanguageModel, ProbeSame, ProbeModules, ProbeDtype, ProbeWait]


async def comfy_entrypoint():
    return ProbeExtension()
