"""LLMGA Chat: an instruction, with or without pictures, becomes a reply and a detailed generation prompt."""

from __future__ import annotations

from dataclasses import replace

from comfy_api.latest import io

from ..llmga.chat import (
    LANGUAGES,
    MAX_PAGES,
    MAX_TRANSCRIPT,
    SYSTEM_PROMPT,
    Conversation,
    check_pictures,
    read_transcript,
    respond,
)
from ..llmga.chat.engines.base import THOUGHT_TOKENS
from ..llmga.chat.engines.written import WrittenReply
from ..llmga.chat.transcript import SHA256
from . import check, host, panel
from .chat_checks import complaint, require_room, require_words
from .chat_inputs import (
    language_input,
    max_new_tokens_input,
    policy_input,
    require_engine,
    sampling_of,
    shown_pictures,
    temperature_input,
    thinking_inputs,
)
from .host_live_text import live_text
from .own_tasks import NO_STYLE, find_style, find_task, skipped_files, style_names, task_names
from .types import Engine, History, seed_input


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
                "magic prompt",
                "image to prompt",
                "img2prompt",
                "describe image",
                "interrogate",
                "vqa",
                "ask about image",
                "chatgpt",
                "qwen",
                "change object",
            ],
            inputs=[
                Engine.Input(
                    "engine",
                    lazy=True,  # an edited reply needs none
                    tooltip="The language model: LLMGA Model Loader, LLMGA Endpoint or LLMGA Host Language Model.",
                ),
                io.String.Input(
                    "instruction",
                    multiline=True,
                    default="",
                    optional=True,
                    tooltip="What you want, in your own words. Up to 200,000 characters; the tasks similar, inpaint, "
                    "outpaint and describe also work without.",
                ),
                io.Combo.Input(
                    "task",
                    options=task_names(),
                    default="refine",
                    optional=True,
                    tooltip="refine: a short idea becomes a detailed prompt. similar: a prompt for a picture like the one "
                    "shown. inpaint, outpaint: a prompt for the masked hole or border. edit: a caption of the shown "
                    "picture, changed as little as the instruction asks. describe: a caption. story: several prompts. "
                    "chat: your words as they are. logo, poster, character, tshirt, infographic: a design, thought "
                    "through. picture_book: text and one prompt for each page. change: the picture as before, but changed "
                    "as you say. scene: a plan of the picture in boxes, as JSON for LLMGA Scene Plan. Others are the files "
                    "of user/__llmga/tasks.",
                ),
                seed_input("Same inputs and seed, same reply. It also picks how the task is worded."),
                temperature_input(),
                io.Float.Input(
                    "top_p",
                    default=1.0,
                    min=0.01,
                    max=1.0,
                    step=0.01,
                    optional=True,
                    advanced=True,
                    tooltip="Draws from the likeliest words whose probabilities add up to this, 0.01 to 1; 1 keeps all.",
                ),
                max_new_tokens_input("The reply"),
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
                language_input(
                    "What the task is said in, and so what the reply is in: en English, zh Chinese. Prompts are "
                    "English in both; the task chat is your words alone."
                ),
                io.Int.Input(
                    "pages",
                    default=4,
                    min=1,
                    max=MAX_PAGES,
                    optional=True,
                    advanced=True,
                    tooltip=f"How many pages a picture_book has, 1 to {MAX_PAGES}; no other task uses it.",
                ),
                io.String.Input(
                    "transcript",
                    default="",
                    optional=True,
                    extra_dict={"hidden": True},  # the panel shows it
                    tooltip="The turns before this one, after those of history, as JSON text. The panel writes it when you "
                    "go on, edit or branch; leave it empty to start a new conversation.",
                ),
                *thinking_inputs(),
                io.String.Input(
                    "system",
                    multiline=True,
                    default="",
                    optional=True,
                    advanced=True,
                    tooltip="A system prompt of your own in place of LLMGA's; {default} stands for LLMGA's, which teaches "
                    "the <gen_image> tags. Empty: LLMGA's. Up to 200,000 characters.",
                ),
                io.Combo.Input(
                    "style",
                    options=style_names(),
                    default=NO_STYLE,
                    optional=True,
                    advanced=True,
                    tooltip="How prompts are written. default: a paragraph, for SD1.5 and SDXL. prose: longer sentences, "
                    "for Flux, Qwen-Image, Z-Image. tags: for anime SDXL. json: for painters that read it. Others are the "
                    "files of user/__llmga/styles.",
                ),
                io.String.Input(
                    "edited_reply",
                    default="",
                    optional=True,
                    advanced=True,
                    extra_dict={"hidden": True},  # the panel shows it
                    tooltip="A reply to use as it stands; the language model is then neither asked nor loaded. The panel "
                    "writes it when you edit a prompt or go back to an earlier reply. Empty: the model is asked.",
                ),
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
                    tooltip="The text before each prompt, as a list beside prompts: the text of a picture book.",
                ),
                io.String.Output(
                    display_name="thought",
                    tooltip="What the model thought before it answered, or empty. No prompt holds any of it.",
                ),
            ],
        )

    @classmethod
    def validate_inputs(cls, task=None, instruction=None, transcript="", input_types=None):
        links = input_types or {}
        earlier = bool(links.keys() & {"history", "transcript"} or SHA256.search(str(transcript)))
        return complaint(cls, task, instruction, links, task_names(), earlier)

    @classmethod
    def check_lazy_status(cls, engine=None, edited_reply="", **inputs) -> list[str]:
        """The language model is not needed, and so not loaded, where its reply is given or a value is wrong."""
        if not isinstance(edited_reply, str | None) or (edited_reply or "").strip():
            return []
        instruction, task = inputs.get("instruction"), inputs.get("task", "refine")
        asked = find_task(task, task_names())
        if isinstance(instruction, str):
            require_words(asked, instruction)
        check.number("temperature", inputs.get("temperature", 0.2), 0.0, 2.0)
        transcript = check.optional_text("transcript", inputs.get("transcript", ""), limit=MAX_TRANSCRIPT)
        read_transcript(transcript, panel.kept)
        return ["engine"] if engine is None else []

    @classmethod
    @host.guarded
    def execute(
        cls, engine, instruction, task, seed, temperature, top_p, max_new_tokens, policy,
        image=None, mask=None, history=None, language="en", pages=4, transcript="",
        thinking=False, thought_tokens=THOUGHT_TOKENS, system="", style=NO_STYLE, edited_reply="",
    ) -> io.NodeOutput:  # fmt: skip
        history = Conversation() if history is None else history
        edited = check.optional_text("edited_reply", edited_reply)
        if edited.strip():
            engine, policy = WrittenReply(edited), "whole_reply"
        require_engine(engine)
        check.instance("history", history, Conversation, "LLMGA Chat or Load History")
        asked = find_task(task, task_names())
        settled = read_transcript(
            check.optional_text("transcript", transcript, limit=MAX_TRANSCRIPT), panel.kept
        )
        pictures, masked = shown_pictures(image, mask)
        known = {picture for turn in settled for picture in turn.pictures}
        new = [picture for picture in pictures if picture not in known]  # what stays connected is shown once
        require_room(history, settled, new)
        conversation = with_system(
            replace(history, turns=history.turns + settled), check.optional_text("system", system)
        )
        check_pictures(asked, image=bool(pictures or conversation.pictures), mask=masked or not pictures)
        sampling = sampling_of(seed, temperature, max_new_tokens, thinking, thought_tokens, top_p)
        on_text = live_text(engine, max_new_tokens + thinking * thought_tokens)
        reply = respond(
            engine,
            conversation,
            task=asked,
            instruction=check.text("instruction", instruction),
            pictures=new,
            sampling=sampling,
            policy=policy,
            on_text=on_text,
            language=check.choice("language", language, LANGUAGES),
            pages=check.integer("pages", pages, 1, MAX_PAGES),
            style=find_style(style),
        )
        remarks = (*reply.remarks, *skipped_files())
        record = panel.record(
            reply, history.turns, task, instruction, edited=bool(edited.strip()), remarks=remarks
        )
        record["speed"] = {"tokens": on_text.tokens, "rate": round(on_text.rate, 1)}
        panel.remember(getattr(cls.hidden, "extra_pnginfo", None), host.running_node(), record)
        # An empty list would leave the nodes after it without a run.
        prompts, page_texts = list(reply.prompts) or [""], list(reply.passages) or [""]
        return io.NodeOutput(
            reply.text, reply.prompt, prompts, reply.has_prompt, reply.conversation, page_texts, reply.thought,
            ui={"text": [reply.text], panel.KEY: [record]},
        )  # fmt: skip


def with_system(conversation: Conversation, system: str) -> Conversation:
    """The conversation with a person's own system prompt, in which ``{default}`` stands for LLMGA's; "" leaves it."""
    if not system.strip():
        return conversation
    return replace(conversation, system=system.replace("{default}", SYSTEM_PROMPT))


NODES = [Chat]
