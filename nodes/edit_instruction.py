"""LLMGA Edit Instruction: a picture and an instruction become the two prompts of an edit."""

from __future__ import annotations

from typing import get_args

from comfy_api.latest import io

from ..llmga.chat import Conversation
from ..llmga.chat.engines.base import THOUGHT_TOKENS
from ..llmga.edit.instruction import EditPolicy, rewrite
from ..llmga.images import to_pil
from . import check, host
from .chat_checks import complaint
from .chat_inputs import (
    encoded,
    max_new_tokens_input,
    require_engine,
    sampling_of,
    temperature_input,
    thinking_inputs,
)
from .host_live_text import live_text
from .types import Engine, History, seed_input

POLICIES = get_args(EditPolicy)


class EditInstruction(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="LLMGA_EditInstruction",
            display_name="LLMGA Edit Instruction",
            category="LLMGA/edit",
            description="Turns an instruction such as 'make the fox blue' into the two prompts of an edit: a caption of "
            "the picture, and the same caption with as few words changed as the instruction asks. For Invert and "
            "Inversion Edit.",
            search_aliases=[
                "instruct",
                "instruction edit",
                "rewrite prompt",
                "instructpix2pix",
                "LLM",
                "VLM",
                "edit image",
                "change object",
                "remove object",
                "image edit",
            ],
            inputs=[
                Engine.Input(
                    "engine",
                    tooltip="The language model: LLMGA Model Loader, LLMGA Endpoint or LLMGA Host Language Model. It "
                    "must see pictures, unless source_prompt says what the picture shows.",
                ),
                io.String.Input(
                    "instruction",
                    multiline=True,
                    default="",
                    optional=True,
                    tooltip="What to change, in your own words, up to 200,000 characters. One change at a time is edited "
                    "best.",
                ),
                seed_input("Same inputs and seed, same prompts. It also picks how the request is worded."),
                temperature_input(),
                max_new_tokens_input("Each reply"),
                io.Combo.Input(
                    "policy",
                    options=list(POLICIES),
                    default="ask_again",
                    optional=True,
                    advanced=True,
                    tooltip="What to do with a reply that holds no prompt. ask_again: ask once more, also when the "
                    "rewrite changes nothing or more than half of the words. whole_reply: use the reply as the prompt. "
                    "error: stop.",
                ),
                io.Image.Input(
                    "image",
                    optional=True,
                    tooltip="The picture to edit; the first of a batch. Not needed where source_prompt or history says "
                    "what it shows.",
                ),
                io.String.Input(
                    "source_prompt",
                    multiline=True,
                    optional=True,
                    default="",
                    tooltip="A caption of the picture, if you have one: it is rewritten, and the picture is not looked "
                    "at. Empty: the language model writes one.",
                ),
                History.Input(
                    "history",
                    optional=True,
                    tooltip="The history of the edit before: its target prompt becomes this edit's source prompt.",
                ),
                *thinking_inputs(),
            ],
            outputs=[
                io.String.Output(
                    display_name="source", tooltip="The picture as it is. For the source_prompt of Invert."
                ),
                io.String.Output(
                    display_name="target",
                    tooltip="The picture after the edit. For the target_prompt of Inversion Edit.",
                ),
                History.Output(
                    display_name="history", tooltip="The conversation with this edit, for the next one."
                ),
                io.String.Output(
                    display_name="report", tooltip="How many words were kept, and what to expect of that."
                ),
                io.String.Output(
                    display_name="thought",
                    tooltip="What the model thought before its replies, or empty. No prompt holds any of it.",
                ),
            ],
        )

    @classmethod
    def validate_inputs(cls, instruction=None, input_types=None):
        return complaint(cls, "edit", instruction, input_types or {}, ["edit"], earlier=True)

    @classmethod
    @host.guarded
    def execute(
        cls, engine, instruction, seed, temperature, max_new_tokens, policy, image=None, source_prompt="",
        history=None, thinking=False, thought_tokens=THOUGHT_TOKENS,
    ) -> io.NodeOutput:  # fmt: skip
        history = Conversation() if history is None else history
        require_engine(engine)
        check.instance("history", history, Conversation, "LLMGA Edit Instruction, LLMGA Chat or Load History")
        check.choice("policy", policy, POLICIES)
        pictures = [] if image is None else to_pil(check.image("image", image)[:1])
        edit = rewrite(
            engine,
            history,
            check.text("instruction", instruction),
            picture=encoded(pictures[0]) if pictures else None,
            source=check.optional_text("source_prompt", source_prompt),
            sampling=sampling_of(seed, temperature, max_new_tokens, thinking, thought_tokens),
            policy=policy,
            on_text=live_text(engine, 2 * max_new_tokens),
        )
        text = f"{edit.report()}\n\nsource: {edit.source}\n\ntarget: {edit.target}"
        return io.NodeOutput(
            edit.source, edit.target, edit.conversation, edit.report(), edit.thought, ui={"text": [text]}
        )


NODES = [EditInstruction]
