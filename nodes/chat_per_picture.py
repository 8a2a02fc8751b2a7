"""LLMGA Chat per Picture: the same request about every picture of a batch, a reply and a prompt for each."""

from __future__ import annotations

from comfy_api.latest import io

from ..llmga.chat import (
    LANGUAGES,
    Conversation,
    Failed,
    check_pictures,
    respond_each,
    shortcomings,
)
from ..llmga.chat.engines.base import THOUGHT_TOKENS
from . import check, host
from .chat_checks import complaint, require_room
from .chat_inputs import (
    POLICIES,
    holes_of,
    language_input,
    max_new_tokens_input,
    policy_input,
    require_engine,
    sampling_of,
    shown_pictures,
    temperature_input,
    thinking_inputs,
    vision_engine_input,
)
from .host_live_text import live_text
from .own_tasks import find_task, task_names
from .types import History, seed_input

ASKED = ("similar", "inpaint", "outpaint", "edit", "describe", "chat")
"""The tasks that are about a picture."""


class ChatPerPicture(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="LLMGA_ChatPerPicture",
            display_name="LLMGA Chat per Picture",
            category="LLMGA/chat",
            description="Asks the same of every picture of a batch, one after the other, and gives lists: a reply and a "
            "prompt for each. For captions and variations of many pictures; LLMGA Chat shows a batch in one turn instead.",
            is_output_node=True,
            search_aliases=[
                "batch caption",
                "caption images",
                "dataset",
                "VLM",
                "describe image",
                "image to prompt",
                "interrogate",
                "vqa",
            ],
            inputs=[
                vision_engine_input(),
                io.Image.Input(
                    "image", tooltip="The pictures; each is asked about as if it were the only one."
                ),
                io.String.Input(
                    "instruction",
                    multiline=True,
                    default="",
                    optional=True,
                    tooltip="What you want, in your own words, up to 200,000 characters; the tasks edit and chat need it.",
                ),
                io.Combo.Input(
                    "task",
                    options=task_names(ASKED, pictures=True),
                    default="describe",
                    optional=True,
                    tooltip="describe: a caption. similar: a prompt for a picture like it. inpaint, outpaint: a prompt for "
                    "the masked hole or border. edit: a caption, changed as little as the instruction asks. chat: your "
                    "words as they are. Others are the files of user/__llmga/tasks that are about a picture.",
                ),
                seed_input(
                    "Of the first picture; each further one has the next. Alone with its seed a picture gets the "
                    "same reply."
                ),
                temperature_input(),
                max_new_tokens_input("Each reply"),
                policy_input(),
                io.Mask.Input(
                    "mask",
                    optional=True,
                    tooltip="1 = to be generated: one for all pictures, or one for each. They are seen with this area "
                    "black.",
                ),
                History.Input(
                    "history",
                    optional=True,
                    tooltip="A conversation that every picture goes on from, each by itself.",
                ),
                language_input(
                    "What the task is said in, and so what the replies are in: en English, zh Chinese."
                ),
                *thinking_inputs(),
            ],
            outputs=[
                io.String.Output(
                    display_name="replies",
                    is_output_list=True,
                    tooltip="What was said of each picture, without tags.",
                ),
                io.String.Output(
                    display_name="prompts",
                    is_output_list=True,
                    tooltip="The generation prompt of each picture, or empty text: what follows runs once for each.",
                ),
                io.String.Output(
                    display_name="failures",
                    tooltip="Which pictures have no reply, and why, and which replies were cut off, one a line; empty if "
                    "all have a whole one. Pictures without a reply have empty text in both lists.",
                ),
            ],
        )

    @classmethod
    def validate_inputs(cls, task=None, instruction=None, input_types=None):
        allowed = task_names(ASKED, pictures=True)
        return complaint(cls, task or "describe", instruction, input_types or {}, allowed)

    @classmethod
    @host.guarded
    def execute(
        cls, engine, image, instruction, task, seed, temperature, max_new_tokens, policy,
        mask=None, history=None, language="en", thinking=False, thought_tokens=THOUGHT_TOKENS,
    ) -> io.NodeOutput:  # fmt: skip
        require_engine(engine)
        history = Conversation() if history is None else history
        check.instance("history", history, Conversation, "LLMGA Chat or Load History")
        asked = find_task(task, task_names(ASKED, pictures=True))
        pictures, masked = shown_pictures(image, mask)
        check_pictures(asked, image=True, mask=masked)
        require_room(history, (), pictures[:1])
        replies = respond_each(
            engine,
            history,
            task=asked,
            instruction=check.text("instruction", instruction),
            pictures=pictures,
            holes=holes_of(mask, len(pictures)),
            sampling=sampling_of(seed, temperature, max_new_tokens, thinking, thought_tokens),
            policy=check.choice("policy", policy, POLICIES),
            on_text=live_text(engine, len(pictures) * max_new_tokens),
            language=check.choice("language", language, LANGUAGES),
        )
        texts = ["" if isinstance(reply, Failed) else reply.text for reply in replies]
        prompts = ["" if isinstance(reply, Failed) else reply.prompt for reply in replies]
        shown = [
            reply.reason if isinstance(reply, Failed) else "\n\n".join((reply.text, *reply.remarks))
            for reply in replies
        ]
        return io.NodeOutput(texts, prompts, "\n".join(shortcomings(replies)), ui={"text": shown})


NODES = [ChatPerPicture]
