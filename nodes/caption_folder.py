"""LLMGA Caption Folder: a caption beside each picture of a folder, for training."""

from __future__ import annotations

import hashlib
import re

from comfy_api.latest import io

from ..llmga.chat import LANGUAGES
from ..llmga.chat.caption_folder import caption_folder, pictures_below
from ..llmga.chat.engines.base import THOUGHT_TOKENS
from . import check, host
from .chat_inputs import (
    language_input,
    max_new_tokens_input,
    require_engine,
    sampling_of,
    temperature_input,
    thinking_inputs,
    vision_engine_input,
)
from .host_live_text import live_text
from .own_tasks import NO_STYLE, find_style, find_task, style_names, task_names

ASKED = ("describe", "similar", "chat")
"""The tasks that bring a caption of a picture."""
MAX_WORD = 200
MAX_FOLDER = 1000


class CaptionFolder(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="LLMGA_CaptionFolder",
            display_name="LLMGA Caption Folder",
            category="LLMGA/chat",
            description="Writes a caption beside each picture of a folder, as NAME.txt: a data set for a LoRA. Names stay, "
            "what has a caption is skipped, so an interrupted run goes on, and a picture that fails does not stop the "
            "others.",
            is_output_node=True,
            search_aliases=[
                "dataset",
                "data set",
                "batch caption",
                "caption images",
                "lora training",
                "tagger",
                "joycaption",
                "kohya",
                "txt",
                "trigger word",
            ],
            inputs=[
                vision_engine_input(),
                io.String.Input(
                    "folder",
                    default="",
                    optional=True,
                    tooltip="A folder below ComfyUI's input or output folder, with all folders in it; empty is that folder "
                    "itself.",
                ),
                io.Combo.Input(
                    "place",
                    options=list(host.FOLDERS),
                    default=host.FOLDERS[0],
                    optional=True,
                    tooltip="Where the folder is: in ComfyUI's input or output folder. No other is read or written.",
                ),
                io.String.Input(
                    "trigger_word",
                    default="",
                    optional=True,
                    tooltip=f"Put in front of each caption with a comma, unless the caption says it; up to {MAX_WORD} "
                    "characters.",
                ),
                io.String.Input(
                    "exclude",
                    multiline=True,
                    default="",
                    optional=True,
                    tooltip="What no caption may say, between commas or one a line, up to 100: what the LoRA is to learn "
                    "without words. A caption that says one is asked for once more, then listed in failures.",
                ),
                io.String.Input(
                    "instruction",
                    multiline=True,
                    default="",
                    optional=True,
                    tooltip="What the captions should be like, in your own words; the task chat needs it.",
                ),
                io.Int.Input(
                    "seed",
                    default=0,
                    optional=True,
                    min=0,
                    max=2**64 - 1,
                    tooltip="Of the first picture; each further one has the next, also where pictures are skipped.",
                ),
                io.Boolean.Input(
                    "overwrite",
                    default=False,
                    optional=True,
                    tooltip="On: captions that exist are written again at each run. Off: they are skipped.",
                ),
                io.Combo.Input(
                    "task",
                    options=task_names(ASKED, pictures=True),
                    default="describe",
                    optional=True,
                    advanced=True,
                    tooltip="describe: a caption. similar: a prompt for a picture like it. chat: your words as they are. "
                    "Others are the files of user/__llmga/tasks that are about a picture.",
                ),
                io.Combo.Input(
                    "style",
                    options=style_names(),
                    default=NO_STYLE,
                    optional=True,
                    advanced=True,
                    tooltip="How captions are written. default: a paragraph. prose: longer sentences. tags: for anime SDXL. "
                    "json: for painters that read it. Others are the files of user/__llmga/styles.",
                ),
                temperature_input(),
                max_new_tokens_input("Each caption"),
                language_input(
                    "What the task is said in, and so what the captions are in: en English, zh Chinese."
                ),
                *thinking_inputs(),
            ],
            outputs=[
                io.String.Output(
                    display_name="captions",
                    is_output_list=True,
                    tooltip="The captions of this run, one for each picture that had none.",
                ),
                io.String.Output(
                    display_name="failures",
                    tooltip="Which pictures have no caption, and why, one a line; empty if all have one.",
                ),
                io.String.Output(
                    display_name="readout",
                    tooltip="How many were written, skipped and failed, and the failures.",
                ),
            ],
        )

    @classmethod
    def fingerprint_inputs(cls, folder="", place="input", **_) -> str:
        """Changes with the pictures and with their captions, so that new ones are captioned.

        What comes by a link is None here: it may be any folder there, or either place.
        """
        try:
            found = [
                f"{path} {host.state_of(path)} {host.state_of(path.with_suffix('.txt'))}"
                for root in (host.FOLDERS if place is None else (place,))
                for path in pictures_below(host.folder_below(root, "" if folder is None else folder))
            ]
        except (OSError, ValueError, TypeError, AttributeError) as error:  # said when the node runs
            return type(error).__name__
        return hashlib.sha256("\n".join(found).encode("utf-8", "surrogateescape")).hexdigest()

    @classmethod
    @host.guarded
    def execute(
        cls, engine, folder, place, trigger_word, exclude, instruction, seed, overwrite, task, style, temperature,
        max_new_tokens, language, thinking=False, thought_tokens=THOUGHT_TOKENS,
    ) -> io.NodeOutput:  # fmt: skip
        require_engine(engine)
        name = check.optional_text("folder", folder, limit=MAX_FOLDER)
        words = re.split(r"[,，、;；\n]", check.optional_text("exclude", exclude))
        pictures = host.folder_below(check.choice("place", place, host.FOLDERS), name)
        on_step = host.progress()
        result = caption_folder(
            engine,
            pictures,
            sampling=sampling_of(seed, temperature, max_new_tokens, thinking, thought_tokens),
            trigger=check.optional_text("trigger_word", trigger_word, limit=MAX_WORD),
            exclude=words,
            overwrite=check.flag("overwrite", overwrite),
            task=find_task(task, task_names(ASKED, pictures=True)),
            instruction=check.optional_text("instruction", instruction),
            style=find_style(style),
            language=check.choice("language", language, LANGUAGES),
            on_step=on_step,
            on_text=live_text(),
        )
        # An empty list would leave the nodes after it without a run.
        captions = list(result.written.values()) or [""]
        return io.NodeOutput(
            captions, "\n".join(result.failures), result.report(), ui={"text": [result.report()]}
        )


NODES = [CaptionFolder]
