"""The shipped workflows in the order in which a person meets them: title, what they show, what they need, what to try next.

A title is a file name, numbered with two digits so that browsers and file systems sort alike; the linked one has hyphens,
for a link takes no blanks. An entry has its API prompt's name.
"""

from __future__ import annotations

from dataclasses import dataclass

from .template_models import MODELS, files_of
from .template_needs import (
    DRAWN_MASK,
    ENDPOINT_ENGINE,
    FOLDER_ENGINE,
    GILL,
    INPAINTING,
    RESTORER,
    SD15_INPAINTING,
)


@dataclass(frozen=True)
class Template:
    """One shipped workflow.

    Attributes:
        title: its name in the template browser.
        about: the first paragraph of its note.
        models: a line for its card: language model and painter.
        card: the memory of the smallest card that it suits, from the sizes of its files; nothing of it is measured.
        more: further paragraphs, about what ``template_models`` does not know; small: one of its copy on the miniature.
        then: names of the workflows to try next.
    """

    title: str
    about: str
    models: str
    card: str
    then: tuple[str, ...]
    more: tuple[str, ...] = ()
    small: str = ""


QWEN_SD15 = "Qwen3-VL 4B · SD1.5"
TEMPLATES = {
    "pixeldit": Template(
        "00 Text to image, two files",
        "Two downloads, 8 GB in all. Write a few words into **LLMGA Chat** and press Run. Gemma 2 turns them into a "
        "detailed prompt, and PixelDiT paints it with no VAE, for it works on pixels. Its text encoder *is* the language "
        "model: one file chats and encodes. PixelDiT reads about 300 tokens of a prompt.",
        "Gemma 2 2B · PixelDiT 1.3B",
        "8 GB",
        ("z_image", "talk_and_change"),
        (
            "**Licence:** of [PixelDiT](https://huggingface.co/nvidia/PixelDiT-1300M-1024px), research and evaluation only, "
            "not commercial. Template 01 has a freer one.",
        ),
    ),
    "z_image": Template(
        "01 Text to image",
        "Write a few words into **LLMGA Chat** and press Run. The language model turns them into a detailed prompt, and "
        "Z-Image Turbo paints it in 8 steps. Its text encoder *is* the language model: one file chats and encodes.",
        "Qwen3 4B · Z-Image Turbo",
        "8 GB",
        ("talk_and_change", "krea_2"),
    ),
    "talk_and_change": Template(
        "02 Talk and change",
        "Two turns of one conversation, each painted by FLUX.2 Klein 4B from the same noise. The second **LLMGA Chat** gets "
        "the *history* of the first and the task *change*: the whole prompt is written anew, with that one change in it.",
        "Qwen3 4B · FLUX.2 Klein 4B",
        "8 GB",
        ("chat_many_turns", "qwen_image_edit"),
    ),
    "krea_2": Template(
        "03 Text to image, Krea 2",
        "As 01, with Krea 2 Turbo. Its text encoder, Qwen3-VL, also sees: connect a picture to *image* and set the task to "
        "*similar*.",
        "Qwen3-VL 4B · Krea 2 Turbo",
        "12 GB",
        ("qwen_image", "similar_image"),
    ),
    "qwen_image": Template(
        "04 Text to image, Qwen-Image",
        "As 01, with Qwen-Image 2512, which writes words into pictures. ComfyUI cannot chat with its text encoder, so a "
        "second, small language model does. 50 steps: the slowest of these.",
        "Qwen3-VL 4B · Qwen-Image 2512",
        "16 GB",
        ("qwen_image_edit",),
    ),
    "qwen_image_edit": Template(
        "05 Edit by words, Qwen-Image-Edit",
        "The language model looks at the picture and writes an exact instruction; Qwen-Image-Edit carries it out. *reply* "
        "and not *prompt* is connected, for an instruction is no description of a picture.",
        "Qwen3-VL 4B · Qwen-Image-Edit 2511",
        "16 GB",
        ("qwen_image_edit_keep", "instruction_edit", "inpaint"),
    ),
    "chat_with_host_model": Template(
        "06 Text to image, SD1.5",
        "As 01 for any SD1.5 checkpoint. **Long CLIP Encode** reads the whole prompt, where CLIP's own encoder stops at 75 "
        "tokens.",
        QWEN_SD15,
        "6 GB",
        ("text_to_image_sdxl", "controlnet"),
    ),
    "text_to_image_sdxl": Template(
        "07 Text to image, SDXL",
        "As 01 for any SDXL checkpoint, with the whole prompt read by both of its text encoders.",
        "Qwen3-VL 4B · SDXL",
        "8 GB",
        ("inpaint_sdxl", "chat_many_turns"),
    ),
    "similar_image": Template(
        "08 A picture like this one",
        "Load a picture. The language model looks at it and writes the prompt of one like it; the instruction says what "
        "matters to you and may stay empty.",
        QWEN_SD15,
        "6 GB",
        ("similar_images", "controlnet"),
    ),
    "similar_images": Template(
        "09 One like each of these",
        "Load pictures and batch them, or take **Load Image (from Folder)**. **LLMGA Chat per Picture** asks the same of "
        "each and gives a list of prompts; everything after it runs once for each.",
        QWEN_SD15,
        "6 GB",
        ("picture_book",),
    ),
    "chat_many_turns": Template(
        "10 A conversation in one node",
        "The turns so far stand in the panel of **LLMGA Chat**. Write what comes next below them. *Edit*, *Branch* and "
        "*Regenerate* are under each message.",
        "Ollama or another server · SD1.5",
        "4 GB",
        ("chat_with_endpoint",),
        (ENDPOINT_ENGINE,),
    ),
    "chat_with_endpoint": Template(
        "11 Two turns, saved",
        "The history of the first **LLMGA Chat** goes into the second, which changes the prompt as asked. **Save History** "
        "keeps the conversation; template 12 goes on with it.",
        "Ollama or another server · SD1.5",
        "4 GB",
        ("continue_conversation",),
        (ENDPOINT_ENGINE,),
    ),
    "continue_conversation": Template(
        "12 Go on with a saved conversation",
        "**Load History** brings back what template 11 saved as *reading corner* (run that first, then press R). Each Run "
        "adds one turn and saves it again.",
        "Ollama or another server · SD1.5",
        "4 GB",
        ("picture_book",),
        (ENDPOINT_ENGINE,),
    ),
    "picture_book": Template(
        "13 A picture book",
        "The task *picture_book* tells a story in as many pages as *pages* says (one of the advanced inputs). *prompts* and "
        "*page_texts* are lists: "
        "everything after them runs once for each page.",
        "Ollama or another server · SD1.5",
        "4 GB",
        ("similar_images",),
        (ENDPOINT_ENGINE,),
    ),
    "instruction_edit": Template(
        "14 Edit by words",
        "**LLMGA Edit Instruction** captions the picture and changes as few words of it as your instruction asks. "
        "**Invert** finds the noise that the picture comes from, **Inversion Edit** goes back with the new words. The "
        "inversion is kept while the caption stays: write it into *source_prompt* once you like it.",
        QWEN_SD15,
        "6 GB",
        ("instruction_edit_multi_turn", "edit_with_mask"),
    ),
    "instruction_edit_multi_turn": Template(
        "15 Edit by words, twice",
        "The *history* of the first **LLMGA Edit Instruction** goes into the second, whose source prompt is then the first "
        "one's target. The second **Inversion Edit** takes the edited picture and inverts it itself.",
        QWEN_SD15,
        "6 GB",
        ("edit_with_mask",),
    ),
    "edit_with_mask": Template(
        "16 Edit inside a mask",
        "Right-click the picture, *Open in MaskEditor*, and paint where it may change; without a mask, the blend words "
        "choose. **Attention Maps** shows where the model sees words of the prompt. Both prompts are written by hand here: "
        "change them to fit your picture.",
        "no language model · SD1.5",
        "4 GB",
        ("inpaint",),
    ),
    "controlnet": Template(
        "17 Keep the lines, ControlNet",
        "**Canny** finds the edges of the picture and ControlNet keeps to them; the language model looks at the same "
        "picture and writes what is painted there.",
        QWEN_SD15 + " · Canny",
        "6 GB",
        ("similar_image",),
    ),
    "inpaint": Template(
        "18 Paint a hole",
        "The language model sees the picture with its hole and writes what belongs there. Only the part around the hole is "
        "painted; **Stitch Painting** puts it back, and every other pixel stays as it is.",
        QWEN_SD15 + " inpainting",
        "8 GB",
        ("outpaint", "inpaint_sdxl"),
        (SD15_INPAINTING, DRAWN_MASK, RESTORER),
    ),
    "inpaint_sdxl": Template(
        "19 Paint a hole, SDXL",
        "As 18, with parts of 1024 × 1024 pixels. Of the checkpoint, text encoders and VAE are used.",
        "Qwen3-VL 4B · SDXL inpainting",
        "12 GB",
        ("outpaint",),
        (INPAINTING.format("llmga-sdxl-inpainting-v2", "10 GB"), DRAWN_MASK, RESTORER),
    ),
    "outpaint": Template(
        "20 Continue a picture",
        "**Pad Image for Outpainting** says how far to each side. The language model sees the picture with the new sides "
        "black; **Seam Report** says how much of the border still shows. SD1.5 paints best when the padded picture has "
        "about 512 × 768 pixels.",
        QWEN_SD15 + " inpainting",
        "8 GB",
        ("inpaint", "restore_only"),
        (SD15_INPAINTING, RESTORER),
    ),
    "restore_only": Template(
        "21 Take a seam out",
        "*Painted* is what any inpainting made, before the original was pasted in; *Original* is the picture before, of the "
        "same size, with the mask painted in its MaskEditor. The result is the original everywhere outside the mask.",
        "no language model · DiffRIR",
        "4 GB",
        ("inpaint",),
        (
            "**DiffRIR:** a file in *models/diffrir/*, here *diffrir_x1.pth*, from its authors' "
            "[page](https://github.com/Zj-BinXia/DiffRIR). Without one, set *method* to *colour correction* and disconnect "
            "the loader.",
        ),
    ),
    "text_to_image": Template(
        "22 Text to image, model folder",
        "As 06, with a language model in the transformers layout: also LLMGA's own, as published.",
        "LLaVA-1.5 7B · SD1.5",
        "16 GB",
        ("text_to_image_as_released",),
        (FOLDER_ENGINE,),
    ),
    "text_to_image_as_released": Template(
        "23 Text to image, as LLMGA was released",
        "As 22 with the settings of the released *cli-sd15*: 50 steps, cfg 7.5, no negative prompt, layout *llmga_lpw* with "
        "at most 3 chunks and weights. Its sampler is PNDM; *ipndm* with *ddim_uniform* visits the same timesteps and is "
        "ComfyUI's nearest. To compare with the paper.",
        "LLaVA-1.5 7B · SD1.5",
        "16 GB",
        ("instruction_edit",),
        (FOLDER_ENGINE,),
    ),
    "scene": Template(
        "24 A planned scene",
        "**LLMGA Scene Plan** asks the language model for objects in boxes, **LLMGA Scene Assess** takes the "
        "descriptions that agree, **LLMGA Scene Synthesis** paints each object alone and then all in one picture. "
        "Press *Keep* in the plan, drag a box and run again: only the scene is put together anew.",
        "Ollama or another server · SD1.5",
        "6 GB",
        ("scene_by_hand", "scene_into_photo"),
        (ENDPOINT_ENGINE,),
    ),
    "scene_by_hand": Template(
        "25 A scene from your own boxes",
        "Drag the boxes in **LLMGA Scene Plan**, rename them, add some. An object that only moves is not painted again.",
        "no language model · SD1.5",
        "6 GB",
        ("scene", "scene_into_photo"),
        small="Here a moved object is painted again, and goes by words: say the new place in its description, too.",
    ),
    "scene_into_photo": Template(
        "26 An object into a photograph",
        "**Invert** finds the photograph's noise; **LLMGA Scene Synthesis** puts the planned objects into it and leaves the "
        "rest. Describe the photograph in **Invert**, and its place as the background of the plan.",
        "no language model · SD1.5",
        "6 GB",
        ("scene_by_hand", "edit_with_mask"),
    ),
    "gill_story": Template(
        "27 A story's next picture, GILL",
        "**LLMGA GILL Chat** reads the story so far, words and pictures, and gives the next picture as an embedding: "
        "SD1.5 paints it without a text prompt. The first picture is shown to GILL with the second sentence.",
        "OPT 6.7B · SD1.5",
        "24 GB",
        ("gill_retrieve_or_generate", "language_or_embedding"),
        (GILL,),
    ),
    "gill_retrieve_or_generate": Template(
        "28 Your own picture or a new one, GILL",
        "**LLMGA Picture Index** makes a folder of pictures searchable. Where GILL answers with a picture, its "
        "decision model chooses: one of yours is shown, or a new one is painted. Only the branch that was chosen runs.",
        "OPT 6.7B · SD1.5",
        "24 GB",
        ("gill_story",),
        (GILL,),
    ),
    "language_or_embedding": Template(
        "29 Words or an embedding",
        "The same request goes to **LLMGA Chat**, which writes a long prompt, and to **LLMGA GILL Chat**, which gives "
        "an embedding. Both are painted from the same noise.",
        "LLaVA-1.5 7B and OPT 6.7B · SD1.5",
        "24 GB",
        ("text_to_image", "gill_story"),
        (FOLDER_ENGINE, GILL),
    ),
    "qwen_image_edit_keep": Template(
        "30 Edit by words and keep the rest",
        "As 05, and then **LLMGA Keep the Rest**: editors shift, zoom and recolour the whole picture a little. The edited "
        "picture is aligned with the original and colour-matched, what was changed on purpose is found, and everything else "
        "is the original again, bit for bit. Its readout has the numbers. The node works after any editor.",
        "Qwen3-VL 4B · Qwen-Image-Edit 2511",
        "16 GB",
        ("qwen_image_edit", "edit_with_mask"),
    ),
    "caption_folder": Template(
        "31 Caption a folder",
        "A data set for a LoRA: put your pictures into *input/my_set* and press Run. **LLMGA Caption Folder** writes a "
        "caption beside each, as *NAME.txt*. What has one is skipped, so a run that was stopped goes on, and a picture that "
        "fails costs no other. Set a trigger word, and what no caption may say.",
        "Qwen3-VL 4B",
        "6 GB",
        ("similar_images", "similar_image"),
    ),
    "flow_edit": Template(
        "32 Edit by words, flow model",
        "The language model looks at the picture and writes two prompts that differ in what you want changed; "
        "**LLMGA Flow Edit** moves the picture from one to the other. No edit model: Qwen-Image 2512, made for text to "
        "image, does it, and so does any Flux, SD3 or Z-Image in its place.",
        "Qwen3-VL 4B · Qwen-Image 2512",
        "16 GB",
        ("qwen_image_edit", "instruction_edit"),
    ),
    "inpaint_regions": Template(
        "34 Paint several holes",
        "Paint several areas in the MaskEditor and write a line for each, from left to right, into **Crop Each Region**. "
        "The language model sees one hole at a time and writes what belongs there; it is painted, and everything up to "
        "**Stitch Regions** runs again for the next hole, in the picture with the one before. All are stitched into the "
        "original at once; every other pixel stays as it is.",
        QWEN_SD15 + " inpainting",
        "8 GB",
        ("inpaint", "outpaint"),
        (
            SD15_INPAINTING,
            "**Your holes:** right-click **Load Image**, *Open in MaskEditor*, paint over what should go. A batch of masks "
            "works, too: one region each.",
            RESTORER,
        ),
    ),
    "paint_until_right": Template(
        "33 Paint until it is right",
        "Two pictures are painted, and **LLMGA Judge** looks at them: it asks yes/no questions that follow from your "
        "request and picks the better one. If it does not pass, its *better_prompt* is painted twice more; **If/Else "
        "Switch** is lazy, so the second painting runs only then. For a third try, add such a stage.",
        "Qwen3-VL 4B · Krea 2 Turbo",
        "12 GB",
        ("krea_2", "talk_and_change"),
    ),
    "klein_edit": Template(
        "35 Edit by words, FLUX.2 Klein",
        "As 30, with FLUX.2 Klein 4B in 4 steps: the picture is its reference, the language model looks at it and writes "
        "what to change, and **LLMGA Keep the Rest** puts back the rest.",
        "Qwen3-VL 4B · FLUX.2 Klein 4B",
        "8 GB",
        ("talk_and_change", "qwen_image_edit_keep"),
    ),
}
START = "chat_with_host_model"
START_HERE = Template(
    "00-Start-here",
    "Press **Run** (or Ctrl+Enter): the language model turns the words in **LLMGA Chat** into a detailed prompt, and the "
    "painter paints it, in under a minute without a GPU. Then change the words and run again.",
    "the miniature that comes with this checkout",
    "no GPU",
    ("talk_and_change", "inpaint"),
)
NAMES = {template.title: name for name, template in TEMPLATES.items()}


def note(name: str, prompt: dict) -> str:
    """The Markdown note of a workflow: what it shows, its files with links and folders, the card, what to try next."""
    template = TEMPLATES[name]
    files = files_of(prompt)
    parts = [f"## {template.title[3:]}", template.about]
    if files:
        sizes = sum(MODELS[file].gigabytes for file in files)
        lines = "\n".join(MODELS[file].line(file) for file in files)
        parts.append(f"**Files**, {sizes:.0f} GB\n{lines}")
    parts += template.more
    parts.append(
        f"**Card:** {template.card} or more, estimated from the sizes of its files; ComfyUI keeps what does not fit in RAM."
    )
    parts.append("**Try next:** " + ", ".join(f"*{TEMPLATES[one].title}*" for one in template.then))
    return "\n\n".join(parts)
