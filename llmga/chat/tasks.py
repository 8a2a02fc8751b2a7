"""Tasks that a person can ask for, and the phrasings that language models answer with a ``<gen_image>`` block.

The phrasings keep the intent and the trigger words (*generate*, *image*, *inpaint*, …) of LLMGA's training
questions, and are plain enough for a general model, which learns the answer's format from ``SYSTEM_PROMPT``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from .presets import CHINESE, DESIGN, LANGUAGES, MAX_PAGES, PICTURE_BOOK, SCENE

PROMPT_RULES = """\
A prompt is one paragraph of plain English, 50 to 150 words. It names the main subject first, then how the \
subject looks and what it does, the surroundings, the composition and viewpoint, the light, the colours, \
and the style or medium. It describes only what can be seen. It holds no parentheses and no weights such as \
(word:1.3), no lists, no comments, no other tags.\
"""
"""The paragraph of the system prompt that says what a prompt looks like; a prompt style takes its place."""

SYSTEM_PROMPT = f"""\
You are LLMGA, an assistant that talks with the user and makes pictures.

You make a picture by writing its prompt between two tags, in exactly this form:
<gen_image> the prompt </gen_image>
An image generator paints what stands between the tags. It sees nothing else, neither the conversation nor \
the pictures that you were shown, so every prompt must stand on its own. This is how you create images; no \
other tool is needed.

{PROMPT_RULES}

What the user may ask for:
- a picture of an idea: invent the details that the user left open and write one block;
- a picture similar to a shown one: one block that describes the shown picture completely;
- filling in or extending a shown picture: the black area is the hole. Imagine what belongs there and write \
one block that describes the whole finished picture; never mention the black area or the missing part;
- an edit of a shown picture: first think of a caption of the shown picture, then write one block that \
holds a minimal rewrite of this caption: change only the words that the edit concerns;
- an illustrated story: tell it in a few short parts and put one block after each part. Repeat the looks of \
the characters and the style in every block;
- a description of a shown picture, or a conversation: plain text without tags.

Answer in the user's language; prompts are always in English. Write the tags only around prompts.
"""


@dataclass(frozen=True)
class Task:
    """One kind of request.

    Args:
        name: the value of the 'task' input.
        phrasings: ways to say it, ``{instruction}`` where the user's own words go.
        expects: ``"one"`` or ``"several"`` tagged prompts; ``"pages"``, a number of them that the request names; a
            ``"caption"``, which is the reply itself; or ``"anything"``: the tags, if there are any.
        needs_instruction: false where the picture says enough.
        needs_picture: the request is about a picture.
        needs_mask: the picture shows a hole, painted black.
        language: ``"en"`` or ``"zh"``, what the phrasings of a task of one's own are in; "" where that does not matter.
    """

    name: str
    phrasings: tuple[str, ...]
    expects: Literal["one", "several", "pages", "caption", "anything"] = "one"
    needs_instruction: bool = False
    needs_picture: bool = False
    needs_mask: bool = False
    language: str = ""


_ALL = (
    Task(
        "refine",
        (
            "Please generate a detailed image from this idea: {instruction}",
            "Turn these words into one finished image: {instruction}",
            "I have a picture in mind: {instruction}\nPlease design the image.",
            "Generate an image that shows the following, with all its details worked out: {instruction}",
            "{instruction}\nGenerate this image.",
        ),
        needs_instruction=True,
    ),
    Task(
        "similar",
        (
            "Generate an image similar to this one. {instruction}",
            "Please make a new image that shows the same scene as this picture. {instruction}",
            "Create an image that could be a twin of the one I show you. {instruction}",
            "Recreate this picture as a new image. {instruction}",
        ),
        needs_picture=True,
    ),
    Task(
        "inpaint",
        (
            "Inpaint this image. {instruction}",
            "Please fill in the black part of this picture. {instruction}",
            "A piece of this image is missing; complete it. {instruction}",
            "Imagine what belongs in the blank area and inpaint the picture. {instruction}",
        ),
        needs_picture=True,
        needs_mask=True,
    ),
    Task(
        "outpaint",
        (
            "Outpaint this image. {instruction}",
            "Please extend this picture into the black border. {instruction}",
            "Continue the scene beyond the edges of this image. {instruction}",
            "Imagine what lies around this picture and outpaint it. {instruction}",
        ),
        needs_picture=True,
        needs_mask=True,
    ),
    Task(
        "edit",
        (
            "Edit this image: {instruction}",
            "Generate this picture again with one change: {instruction}",
            "Change the image as follows and keep everything else: {instruction}",
            "Here is how the image should be edited: {instruction}",
        ),
        needs_instruction=True,
        needs_picture=True,
    ),
    Task(
        "describe",
        (
            "Describe this image in detail. {instruction}",
            "What can be seen in this picture? {instruction}",
            "Please write a thorough description of the image. {instruction}",
            "Explain what this picture shows, from the subject to the background. {instruction}",
        ),
        expects="caption",
        needs_picture=True,
    ),
    Task(
        "story",
        (
            "Write a short story and generate an image for each part of it: {instruction}",
            "Tell an illustrated story in a few scenes, with one image per scene: {instruction}",
            "Create a narrative together with its illustrations: {instruction}",
            "{instruction}\nMake this a story with matching images.",
        ),
        expects="several",
        needs_instruction=True,
    ),
    Task("chat", ("{instruction}",), expects="anything", needs_instruction=True),
    *(Task(name, phrasings, needs_instruction=True) for name, phrasings in DESIGN.items()),
    Task("picture_book", PICTURE_BOOK, expects="pages", needs_instruction=True),
    Task(
        "change",
        (
            "Generate the picture as before, but with this change, and keep everything else: {instruction}",
            "Please make the same image again with one thing different: {instruction}",
            "Take the last picture and change only this: {instruction}\nGenerate the whole image anew.",
        ),
        needs_instruction=True,
    ),
    Task("scene", SCENE, expects="anything", needs_instruction=True),
)
TASKS: Mapping[str, Task] = MappingProxyType({task.name: task for task in _ALL})


TRAINED: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "refine": (
            "{instruction}\nGenerate an image based on given keywords.",
            "{instruction}\nPlease design an image.",
            "{instruction}\nCan you design this image?",
        ),
        "similar": (
            "Generate a similar image. {instruction}",
            "Generate an image similar to the given image. {instruction}",
            "Recreate the given image. {instruction}",
            "Replicate the provided image. {instruction}",
        ),
        "inpaint": (
            "Inpaint this image. {instruction}",
            "Please fill in the blanks in the picture. {instruction}",
            "Perform image inpainting. {instruction}",
            "Complete this image. {instruction}",
        ),
        "outpaint": (
            "Outpaint this image. {instruction}",
            "Extend this image. {instruction}",
            "Can you outpaint this image? {instruction}",
            "Outpaint the missing sections of this image. {instruction}",
        ),
        "edit": ("{instruction}",),
        "describe": (
            "Describe the following image. {instruction}",
            "What is this photo about? {instruction}",
            "Write a detailed description of the given image. {instruction}",
            "Explain the visual content of the image in great detail. {instruction}",
        ),
    }
)
"""What LLMGA's own training asked, to the letter; an edit is its bare instruction. Tasks that it did not train are not here.

Source: LLMGA 7e32eb6, llmga/llava/prompt_temp.py and llmga/llava/datasets/edit_dataset.py:69.
"""


def get_task(name: str | Task) -> Task:
    """The task of that name, or the given task itself; raises ``ValueError`` for any other name."""
    if isinstance(name, Task):
        return name
    if name not in TASKS:
        raise ValueError(f"'task' must be one of {', '.join(TASKS)}, got {name!r}")
    return TASKS[name]


_ANSWER_IN = {"en": "Answer in English.", "zh": "请用中文回答。"}


def render(
    task: str | Task,
    instruction: str,
    phrasing: int,
    *,
    language: str = "en",
    pages: int = 4,
    trained: bool = False,
) -> str:
    """The user's turn: the task's phrasing number ``phrasing`` (modulo their count) around the instruction.

    The instruction of ``chat`` is passed on verbatim, any other is trimmed.

    Args:
        language: ``"en"`` or ``"zh"``: the language of the request, and so what the reply is in.
        pages: 1 to 12, of a picture book.
        trained: ask in the phrases of LLMGA's training (``TRAINED``), where it has some; they are English only.

    Raises:
        ValueError: the task or language is unknown, the task needs an instruction and has none, or there are too
            many pages.
    """
    asked = get_task(task)
    if language not in LANGUAGES:
        raise ValueError(f"'language' must be one of {', '.join(LANGUAGES)}, got {language!r}")
    if isinstance(pages, bool) or not isinstance(pages, int) or not 1 <= pages <= MAX_PAGES:
        raise ValueError(f"'pages' must be a whole number from 1 to {MAX_PAGES}, got {pages!r}")
    if asked.needs_instruction and not instruction.strip():
        raise ValueError(f"the task {asked.name!r} needs words to work with, but 'instruction' is empty")
    if asked is TASKS["chat"]:
        return instruction
    built_in = TASKS.get(asked.name) is asked
    phrasings = asked.phrasings
    if built_in and language == "zh":
        phrasings = CHINESE[asked.name]
    elif built_in and trained:
        phrasings = TRAINED.get(asked.name, phrasings)
    template = phrasings[phrasing % len(phrasings)].replace("{pages}", str(pages))
    if asked.language not in ("", language):
        template = f"{template}\n{_ANSWER_IN[language]}"
    return template.replace("{instruction}", instruction.strip()).strip()


def check_pictures(task: str | Task, *, image: bool, mask: bool = True) -> None:
    """Raise the error of a task that lacks its picture or its mask.

    Args:
        image: whether there is a picture, in this turn or earlier in the conversation.
        mask: whether a mask says where the hole is; a caller whose picture shows the hole already leaves it.

    Raises:
        ValueError: the task is unknown, needs a picture, or needs a mask.
    """
    asked = get_task(task)
    if asked.needs_picture and not image:
        raise ValueError(
            f"the task {asked.name!r} is about a picture; connect one to 'image', or choose another 'task'"
        )
    if asked.needs_mask and not mask:
        raise ValueError(
            f"the task {asked.name!r} fills a hole; connect a mask (1 = to be generated) to 'mask', or choose "
            "another 'task'"
        )
