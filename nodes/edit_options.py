"""Prompt-to-Prompt Options: what an edit does with single words."""

from __future__ import annotations

from typing import Any, get_args

from comfy_api.latest import io

from ..llmga.edit import prompt_to_prompt
from ..llmga.edit.prompt_to_prompt import ALIGNERS, ModeOption, read_phrases, read_spans, read_weights
from . import check, host
from .types import PromptToPrompt

MODES = get_args(ModeOption)


class PromptToPromptOptions(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="LLMGA_PromptToPromptOptions",
            display_name="Prompt-to-Prompt Options",
            category="LLMGA/edit",
            description="What Inversion Edit does with single words: how strong they are, when they let go of the picture, "
            "and which words say where it may change.",
            search_aliases=["p2p options", "word weight", "reweight", "local blend", "attention control"],
            inputs=[
                io.String.Input(
                    "word_weights",
                    multiline=True,
                    default="",
                    optional=True,
                    tooltip="Words of the target prompt and how strong they are, such as 'snow: 2, tall tree: 0.5', between "
                    "commas or one a line; -20 to 20, 1 changes nothing.",
                ),
                io.String.Input(
                    "word_steps",
                    multiline=True,
                    default="",
                    optional=True,
                    tooltip="Words of the target prompt and for which part of the steps they look where the picture says, "
                    "such as 'lion: 0.2' or 'lion: 0.1 to 0.5'; instead of cross_replace, 0 to 1.",
                ),
                io.String.Input(
                    "blend_words",
                    default="",
                    optional=True,
                    tooltip="Only the place of these words of either prompt may change, between commas. Empty: of the words "
                    "that differ. Has no effect with local_blend off.",
                ),
                io.String.Input(
                    "subtract_words",
                    default="",
                    optional=True,
                    tooltip="The place of these words of either prompt stays as it is, between commas.",
                ),
                io.Float.Input(
                    "blend_threshold",
                    default=0.3,
                    optional=True,
                    min=0.0,
                    max=1.0,
                    step=0.05,
                    tooltip="How hot a place must be, as part of the hottest, to belong to a word. 0 to 1; less changes "
                    "more of the picture.",
                ),
                io.Float.Input(
                    "blend_start",
                    default=0.2,
                    optional=True,
                    min=0.0,
                    max=1.0,
                    step=0.05,
                    tooltip="For this part of the steps the whole picture may still change, 0 to 1.",
                ),
                io.Combo.Input(
                    "mode",
                    options=list(MODES),
                    default="auto",
                    optional=True,
                    tooltip="refine: words of both prompts keep their place, new ones find their own. replace: each word "
                    "takes the place of the word in its position; needs as many words in both. auto: replace where words "
                    "were only swapped, else refine.",
                ),
                io.Float.Input(
                    "self_max",
                    default=0.25,
                    optional=True,
                    min=0.0,
                    max=1.0,
                    step=0.05,
                    tooltip="Layers with more cells than this part of the latent's do not keep the layout; 0.25 is up to "
                    "32×32 for a picture of 512×512.",
                ),
                io.Combo.Input(
                    "alignment",
                    options=list(ALIGNERS),
                    default="runs",
                    optional=True,
                    advanced=True,
                    tooltip="How the words of both prompts are paired. runs: whole phrases stay together, and padding pairs "
                    "with padding. reference: as Prompt-to-Prompt was published, to compare with the paper, whose edits "
                    "take mode refine; it differs where the prompts have unequal length.",
                ),
            ],
            outputs=[
                PromptToPrompt.Output(display_name="options", tooltip="For the options of Inversion Edit.")
            ],
        )

    @classmethod
    @host.guarded
    def execute(
        cls,
        word_weights,
        word_steps,
        blend_words,
        subtract_words,
        blend_threshold,
        blend_start,
        mode,
        self_max,
        alignment: Any = "runs",
    ) -> io.NodeOutput:
        check.choice("mode", mode, MODES)
        alignment = "runs" if alignment is None else alignment
        check.choice("alignment", alignment, list(ALIGNERS))
        options = prompt_to_prompt.PromptToPromptOptions(
            weights=read_weights(check.text("word_weights", word_weights)),
            spans=read_spans(check.text("word_steps", word_steps)),
            blend=read_phrases(check.text("blend_words", blend_words)),
            subtract=read_phrases(check.text("subtract_words", subtract_words)),
            threshold=check.number("blend_threshold", blend_threshold, 0, 1),
            start=check.number("blend_start", blend_start, 0, 1),
            mode=mode,
            self_max=check.number("self_max", self_max, 0, 1),
            alignment=alignment,
        )
        return io.NodeOutput(options)


NODES = [PromptToPromptOptions]
