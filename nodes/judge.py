"""LLMGA Judge: does a picture show what was asked for, what is wrong, and which of several is the best?"""

from __future__ import annotations

from typing import get_args

from comfy_api.latest import io

from ..llmga.chat.engines.base import THOUGHT_TOKENS
from ..llmga.chat.engines.endpoint import EndpointError
from ..llmga.chat.judge import (
    MOST_QUESTIONS,
    Asking,
    PictureCheck,
    best_index,
    better_prompt,
    check_each,
    derive_claims,
    given_claims,
)
from . import check, host
from .chat_inputs import (
    max_new_tokens_input,
    require_engine,
    sampling_of,
    shown_pictures,
    temperature_input,
    thinking_inputs,
    vision_engine_input,
)
from .host_live_text import live_text
from .types import seed_input

ASKING = get_args(Asking)


class Judge(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="LLMGA_Judge",
            display_name="LLMGA Judge",
            category="LLMGA/chat",
            description="Looks at pictures and says whether they show what was asked for: the language model derives yes/no "
            "questions from your request and answers them about each picture. Gives the best picture, its score, what is "
            "wrong, and a better prompt to paint again with.",
            search_aliases=[
                "best of n",
                "VQA",
                "check image",
                "score image",
                "rate image",
                "rank images",
                "pick best",
                "quality check",
                "retry",
                "loop",
                "self-correct",
                "TIFA",
                "VLM",
                "critic",
            ],
            inputs=[
                vision_engine_input(),
                io.Image.Input(
                    "image", tooltip="The pictures to choose from: a batch of any number, or one."
                ),
                io.String.Input(
                    "request",
                    multiline=True,
                    default="",
                    optional=True,
                    tooltip="What the picture should show, in your own words, up to 200,000 characters. Empty: prompt is "
                    "taken for it.",
                ),
                io.String.Input(
                    "prompt",
                    multiline=True,
                    default="",
                    optional=True,
                    tooltip="What it was painted from; better_prompt is this prompt, corrected. Empty: request is taken for "
                    "it.",
                ),
                io.Float.Input(
                    "threshold",
                    default=1.0,
                    min=0.0,
                    max=1.0,
                    step=0.05,
                    optional=True,
                    tooltip="passed is true from this score on, 0 to 1: the share of questions that are answered with yes.",
                ),
                io.Int.Input(
                    "max_questions",
                    default=8,
                    min=1,
                    max=MOST_QUESTIONS,
                    optional=True,
                    tooltip=f"How many questions are asked at most, 1 to {MOST_QUESTIONS}.",
                ),
                io.String.Input(
                    "questions",
                    multiline=True,
                    default="",
                    optional=True,
                    tooltip="Your own questions, one a line, each to be answered with yes if the picture is right; none are "
                    f"then derived. Up to {MOST_QUESTIONS}. A second Judge takes the questions of the first one here.",
                ),
                io.Combo.Input(
                    "asking",
                    options=list(ASKING),
                    default="together",
                    optional=True,
                    tooltip="together: all questions in one turn for each picture. one by one: slower, better with small "
                    "language models; says how likely yes is where the engine can. describe first: the same, but each "
                    "question follows the model's own description of the picture.",
                ),
                io.Boolean.Input(
                    "rewrite",
                    default=True,
                    optional=True,
                    tooltip="Writes a better prompt where the best picture does not pass. Off: better_prompt is prompt.",
                ),
                seed_input("Same inputs and seed, same answers."),
                temperature_input(),
                max_new_tokens_input("Each reply"),
                *thinking_inputs(),
            ],
            outputs=[
                io.Image.Output(
                    display_name="best",
                    tooltip="The picture with the highest score, the likeliest of equals.",
                ),
                io.Float.Output(
                    display_name="score", tooltip="Its share of questions answered with yes, 0 to 1."
                ),
                io.Boolean.Output(
                    display_name="passed",
                    tooltip="Whether the score reaches threshold: for If/Else Switch, to paint again only if it does not.",
                ),
                io.String.Output(
                    display_name="better_prompt",
                    tooltip="The prompt, rewritten by what is wrong in the best picture; unchanged if it passed.",
                ),
                io.String.Output(
                    display_name="report",
                    tooltip="Every question and its answer for each picture, what is wrong, and which picture was chosen.",
                ),
                io.Int.Output(
                    display_name="index", tooltip="The number of the best picture in the batch, from 0."
                ),
                io.String.Output(
                    display_name="asked",
                    tooltip="The questions that were asked, one a line, for another Judge.",
                ),
            ],
        )

    @classmethod
    @host.guarded
    def execute(
        cls, engine, image, request, prompt, threshold, max_questions, questions, asking, rewrite, seed,
        temperature, max_new_tokens, thinking=False, thought_tokens=THOUGHT_TOKENS,
    ) -> io.NodeOutput:  # fmt: skip
        require_engine(engine)
        request, prompt = (check.optional_text(*one) for one in (("request", request), ("prompt", prompt)))
        own = given_claims(check.optional_text("questions", questions))
        check.number("threshold", threshold, 0, 1)
        check.integer("max_questions", max_questions, 1, MOST_QUESTIONS)
        check.flag("rewrite", rewrite)
        sampling = sampling_of(seed, temperature, max_new_tokens, thinking, thought_tokens)
        spoken = {"sampling": sampling, "on_text": live_text(engine)}
        image = check.image("image", image)
        pictures, _ = shown_pictures(image, None)
        notes = []
        if not (claims := own):
            derived = derive_claims(engine, request.strip() or prompt, most=max_questions, **spoken)
            claims, notes = derived.claims, [derived.remark] if derived.remark else []
        asking = check.choice("asking", asking, ASKING)
        checks = check_each(engine, pictures, claims, asking=asking, **spoken)
        best = best_index(checks)
        score = checks[best].score
        passed = score >= threshold and not checks[best].failure
        better = prompt.strip() or request.strip()
        if rewrite and not passed and better:
            try:
                found = better_prompt(engine, request, prompt, checks[best], **spoken)
                if not found:
                    notes.append("the model wrote no better prompt: the prompt stays as it is")
                better = found or better
            except (ValueError, EndpointError) as error:  # the verdicts are complete
                notes.append(f"the prompt stays as it is, for writing a better one failed: {error}")
        report = "\n".join([*described(checks, best, passed), *notes])
        asked = "\n".join(claim.question for claim in claims)
        return io.NodeOutput(
            image[best : best + 1], score, passed, better, report, best, asked, ui={"text": [report]}
        )


def described(checks: list[PictureCheck], best: int, passed: bool) -> list[str]:
    """The answers in words: the chosen picture and its verdict, then every picture."""
    of = f"picture {best} of {len(checks)}"
    lines = [f"{of}: {checks[best].score:.2f}, {'passed' if passed else 'not passed'}"]
    for i, one in enumerate(checks):
        if one.failure:
            lines.append(f"picture {i} could not be checked: {one.failure}")
            continue
        lines.append(f"picture {i}: {one.score:.2f}")
        lines += [f"  {verdict}" for verdict in one.verdicts]
        if one.description:
            lines.append(f"  described as: {one.description}")
        if one.remark:
            lines.append(f"  {one.remark}")
    return lines


NODES = [Judge]
