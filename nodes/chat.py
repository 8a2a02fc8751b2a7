"""LLMGA Chat: an instruction, and perhaps a picture, becomes a reply and a detailed generation prompt."""

from __future__ import annotations

from dataclasses import replace
from typing import get_args

import torch
from comfy_api.latest import io

from ..llmga.chat import (
    LANGUAGES,
    MAX_PAGES,
    MAX_TRANSCRIPT,
    TASKS,
    Conversation,
    Picture,
    Policy,
    Sampling,
    check_pictures,
    read_transcript,
    respond,
)
from ..llmga.chat.engines.base import MAX_NEW_TOKENS, MAX_THOUGHT_TOKENS, THOUGHT_TOKENS, ChatEngine
from ..llmga.images import paint_hole_black, to_pil
from . import check, host, panel
from .types import Engine, History, temperature_input, thinking_inputs

POLICIES = get_args(Policy)


class Chat(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="LLMGA_Chat",
            display_name="LLMGA Chat",
            category="LLMGA/chat",
            description="Talks to a language model about the picture you want. It answers with a reply and a detailed "
            "generation prompt for Long CLIP Encode. Go on in its panel, or connect its history to the next LLMGA Chat.",
            is_output_node=True,  # so that one can talk without painting
            search_aliases=[
                "LLM",
                "VLM",
                "prompt enhancer",
                "refine prompt",
                "caption",
                "assistant",
                "gen_image",
            ],
            inputs=[
                Engine.Input(
                    "engine",
                    tooltip="The language model: LLMGA Model Loader, LLMGA Endpoint or LLMGA Host Language Model.",
                ),
                io.String.Input(
                    "instruction",
                    multiline=True,
                    default="",
                    tooltip="What you want, in your own words. Up to 200,000 characters; the tasks similar, inpaint, "
                    "outpaint and describe also work without.",
                ),
                io.Combo.Input(
                    "task",
                    options=list(TASKS),
                    default="refine",
                    tooltip="refine: a short idea becomes a detailed prompt. similar: a prompt for a picture like the one "
                    "shown. inpaint, outpaint: a prompt for the masked hole or border. edit: a caption of the shown "
                    "picture, changed as little as the instruction asks. describe: a caption. story: several prompts. "
                    "chat: your words as they are. logo, poster, character, tshirt, infographic: a design, thought "
                    "through. picture_book: text and one prompt for each page. change: the picture as before, but changed "
                    "as you say. scene: a plan of the picture in boxes, as JSON for LLMGA Scene Plan.",
                ),
                io.Int.Input(
                    "seed",
                    default=0,
                    min=0,
                    max=2**64 - 1,
                    control_after_generate=True,
                    tooltip="Same inputs and seed, same reply. It also picks how the task is worded.",
                ),
                temperature_input(),
                io.Float.Input(
                    "top_p",
                    default=1.0,
                    min=0.01,
                    max=1.0,
                    step=0.01,
                    tooltip="Draws from the likeliest words whose probabilities add up to this, 0.01 to 1; 1 keeps all.",
                ),
                io.Int.Input(
                    "max_new_tokens",
                    default=512,
                    min=1,
                    max=MAX_NEW_TOKENS,
                    tooltip=f"The reply ends after this many tokens at the latest, 1 to {MAX_NEW_TOKENS}.",
                ),
                policy_input(),
                io.Image.Input(
                    "image",
                    optional=True,
                    tooltip="Pictures to show with this instruction; a batch is shown in one turn, up to 16.",
                ),
                io.Mask.Input(
                    "mask",
                    optional=True,
                    tooltip="1 = to be generated. The model sees the picture with this area black, as in LLMGA's training. "
                    "Any size; an empty mask counts as none.",
                ),
                History.Input(
                    "history",
                    optional=True,
                    tooltip="The conversation so far, from another LLMGA Chat or from Load History. Without, a new one.",
                ),
                io.Combo.Input(
                    "language",
                    options=list(LANGUAGES),
                    default="en",
                    optional=True,
                    tooltip="What the task is said in, and so what the reply is in: en English, zh Chinese. Prompts are "
                    "English in both; the task chat is your words alone.",
                ),
                io.Int.Input(
                    "pages",
                    default=4,
                    min=1,
                    max=MAX_PAGES,
                    optional=True,
                    tooltip=f"How many pages a picture_book has, 1 to {MAX_PAGES}; no other task uses it.",
                ),
                io.String.Input(
                    "transcript",
                    default="",
                    optional=True,
                    extra_dict={"hidden": True},  # the panel shows it
                    tooltip="The turns before this one, after those of history, as JSON text. The panel writes it when you "
                    "go on, edit or branch; leave it empty to begin anew.",
                ),
                *thinking_inputs(),
            ],
            outputs=[
                io.String.Output(display_name="reply", tooltip="What the model said, without tags."),
                io.String.Output(
                    display_name="prompt", tooltip="The first generation prompt, or empty when there is none."
                ),
                io.String.Output(
                    display_name="prompts",
                    is_output_list=True,
                    tooltip="Every generation prompt, as a list: what follows runs once for each.",
                ),
                io.Boolean.Output(display_name="has_prompt", tooltip="Whether there is a generation prompt."),
                History.Output(display_name="history", tooltip="The conversation with this exchange added."),
                io.String.Output(
                    display_name="page_texts",
                    is_output_list=True,
                    tooltip="The words told before each prompt, as a list beside prompts: the text of a picture book.",
                ),
                io.String.Output(
                    display_name="thought",
                    tooltip="What the model thought before it answered, or empty. No prompt holds any of it.",
                ),
            ],
        )

    @classmethod
    @host.guarded
    def execute(
        cls, engine, instruction, task, seed, temperature, top_p, max_new_tokens, policy,
        image=None, mask=None, history=None, language="en", pages=4, transcript="",
        thinking=False, thought_tokens=THOUGHT_TOKENS,
    ) -> io.NodeOutput:  # fmt: skip
        history = Conversation() if history is None else history
        check.instance(
            "engine", engine, ChatEngine, "an LLMGA loader: Model Loader, Endpoint or Host Language Model"
        )
        check.instance("history", history, Conversation, "LLMGA Chat or Load History")
        check.choice("task", task, list(TASKS))
        settled = read_transcript(
            check.optional_text("transcript", transcript, limit=MAX_TRANSCRIPT), panel.kept
        )
        conversation = replace(history, turns=history.turns + settled)
        pictures, masked = shown_pictures(image, mask)
        check_pictures(task, image=bool(pictures or conversation.pictures), mask=masked or not pictures)
        known = {
            picture for turn in settled for picture in turn.pictures
        }  # what stays connected is shown once
        reply = respond(
            engine,
            conversation,
            task=task,
            instruction=check.text("instruction", instruction),
            pictures=[picture for picture in pictures if picture not in known],
            sampling=Sampling(
                seed,
                temperature,
                top_p,
                max_new_tokens,
                thinking=check.flag("thinking", thinking),
                thought_tokens=check.integer("thought_tokens", thought_tokens, 0, MAX_THOUGHT_TOKENS),
            ),
            policy=policy,
            on_text=host.live_text(),
            language=check.choice("language", language, LANGUAGES),
            pages=check.integer("pages", pages, 1, MAX_PAGES),
        )
        record = panel.record(reply, history.turns, task, instruction)
        panel.remember(getattr(cls.hidden, "extra_pnginfo", None), host.running_node(), record)
        # An empty list would leave the nodes after it without a run.
        prompts, page_texts = list(reply.prompts) or [""], list(reply.passages) or [""]
        return io.NodeOutput(
            reply.text, reply.prompt, prompts, reply.has_prompt, reply.conversation, page_texts, reply.thought,
            ui={"text": [reply.text], panel.KEY: [record]},
        )  # fmt: skip


def policy_input() -> io.Combo.Input:
    return io.Combo.Input(
        "policy",
        options=list(POLICIES),
        default="ask_again",
        tooltip="What to do with a reply that holds no prompt where one was asked for. ask_again: ask once more. "
        "whole_reply: use the reply as the prompt (a refusal is still an error). keep_previous: the last prompt of the "
        "history. error: stop.",
    )


def shown_pictures(image: torch.Tensor | None, mask: torch.Tensor | None) -> tuple[tuple[Picture, ...], bool]:
    """The pictures of this turn with the hole painted black, and whether there is a hole.

    An empty mask is none: LoadImage gives 64×64 zeros for a picture without one.
    """
    masked = mask is not None and bool(check.mask("mask", mask).any())
    if image is None:
        if masked:
            raise ValueError(
                "mask says where the hole of a picture is, but image is not connected; connect both"
            )
        return (), False
    image = check.image("image", image)
    if masked:
        image = paint_hole_black(image, check.mask("mask", mask))
    return tuple(Picture.from_pil(picture) for picture in to_pil(image)), masked


NODES = [Chat]
