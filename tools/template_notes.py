"""The note of each shipped workflow, and the sources of the models that it names."""

from __future__ import annotations

CHECKPOINT_NOTE = (
    "**Checkpoint:** any SD1.5 or SDXL checkpoint in `models/checkpoints/`. The one named here is "
    "`v1-5-pruned-emaonly-fp16.safetensors`, from Comfy-Org/stable-diffusion-v1-5-archive on Hugging Face (2 GB)."
)
LOCAL_NOTE = (
    "**Language model:** a whole folder in `models/LLM/`. The one named here is `llava-1.5-7b-hf`, from "
    "llava-hf/llava-1.5-7b-hf on Hugging Face (14 GB, also sees pictures). Smaller Qwen-VL folders work too."
)
ENDPOINT_NOTE = (
    "**Language model:** a server that speaks the OpenAI protocol (Ollama, llama.cpp, vLLM, LM Studio, hosted). Write a "
    "record named `ollama` into `endpoints.json` in ComfyUI's `user/__llmga/` folder; the help page of LLMGA Endpoint "
    "shows how. Then press R."
)
HOST_NOTE = (
    "**Language model:** one that ComfyUI loads itself, in `models/text_encoders/`. The one named here is "
    "`qwen3vl_4b_fp8_scaled.safetensors`, from Comfy-Org/Qwen3-VL on Hugging Face."
)
GILL_NOTE = (
    "**GILL:** `pretrained_ckpt.pth.tar` (96 MB) and `decision_model.pth.tar` from kohjingyu/gill on GitHub into "
    "`models/gill/`, the folder `opt-6.7b` from facebook/opt-6.7b on Hugging Face (13 GB) into `models/LLM/`, and CLIP "
    "ViT-L/14 at 224 pixels into `models/clip_vision/`. It paints with SD1.5 alone."
)
NOTES = {
    "gill_story": (
        "## A story, and its next picture\n**LLMGA GILL Chat** reads the story so far, words and pictures, and gives the "
        "next picture as an embedding: SD1.5 paints it without a text prompt. The first picture is shown to GILL with the "
        "second sentence.",
        GILL_NOTE,
        CHECKPOINT_NOTE,
    ),
    "gill_retrieve_or_generate": (
        "## Your own picture, or a new one\n**LLMGA Picture Index** makes a folder of pictures searchable. Where GILL "
        "answers with a picture, its decision model chooses: one of yours is shown, or a new one is painted. Only the "
        "branch that was chosen runs.",
        GILL_NOTE,
        CHECKPOINT_NOTE,
    ),
    "language_or_embedding": (
        "## Words or an embedding\nThe same request goes to **LLMGA Chat**, which writes a long prompt, and to **LLMGA GILL "
        "Chat**, which gives an embedding. Both are painted from the same noise.",
        LOCAL_NOTE,
        GILL_NOTE,
        CHECKPOINT_NOTE,
    ),
    "text_to_image": (
        "## A chat becomes a picture\nWrite a short idea into **LLMGA Chat** and press Run. The language model turns it "
        "into a detailed prompt, **Long CLIP Encode** reads all of it, and the sampler paints it.",
        LOCAL_NOTE,
        CHECKPOINT_NOTE,
    ),
    "text_to_image_as_released": (
        "## As LLMGA's SD1.5 pipeline was released\nThe same as *text_to_image* with the settings of the released "
        "`cli-sd15`: 50 steps, cfg 7.5, no negative prompt, prompts in the layout *llmga_lpw* with at most 3 chunks and "
        "weights. Its sampler is PNDM; *ipndm* with *ddim_uniform* visits the same timesteps and is ComfyUI's nearest. To "
        "compare with the paper; *text_to_image* takes half the time.",
        LOCAL_NOTE,
        CHECKPOINT_NOTE,
    ),
    "similar_image": (
        "## A picture like this one\nLoad a picture. The language model looks at it and writes the prompt of one like it; "
        "the instruction says what matters to you and may stay empty.",
        LOCAL_NOTE,
        CHECKPOINT_NOTE,
    ),
    "similar_images": (
        "## One like each of these\nLoad pictures and batch them, or take **Load Image (from Folder)**. **LLMGA Chat per "
        "Picture** asks the same of each and gives a list of prompts; everything after it runs once for each.",
        LOCAL_NOTE,
        CHECKPOINT_NOTE,
    ),
    "chat_with_endpoint": (
        "## Two turns of one conversation\nThe history of the first **LLMGA Chat** goes into the second, which changes "
        "the prompt as asked. **Save History** keeps the conversation; *continue_conversation* goes on with it.",
        ENDPOINT_NOTE,
        CHECKPOINT_NOTE,
    ),
    "continue_conversation": (
        "## Go on with a saved conversation\n**Load History** brings back what *chat_with_endpoint* saved as "
        "`reading corner` (run that first, then press R). Each Run adds one turn and saves it again.",
        ENDPOINT_NOTE,
        CHECKPOINT_NOTE,
    ),
    "chat_with_host_model": (
        "## ComfyUI's own language model\nThe chat runs on a model that ComfyUI loads like any text encoder: no other "
        "files and no server. Its reply appears when it is finished, not while it is written.",
        HOST_NOTE,
        CHECKPOINT_NOTE,
    ),
    "scene": (
        "## A sentence becomes a planned picture\n**LLMGA Scene Plan** asks the language model for objects in boxes, "
        "**LLMGA Scene Assess** takes the descriptions that agree, **LLMGA Scene Synthesis** paints each object alone and "
        "then all in one picture. Press *Keep* in the plan, drag a box and run again: only the scene is put together anew.",
        ENDPOINT_NOTE,
        CHECKPOINT_NOTE,
    ),
    "scene_by_hand": (
        "## Boxes of your own\nDrag the boxes in **LLMGA Scene Plan**, rename them, add and remove some. No language "
        "model is needed. Each change of a place alone is painted in a third of the time.",
        CHECKPOINT_NOTE,
    ),
    "scene_into_photo": (
        "## Put an object into a photograph\n**Invert** finds the noise that the photograph comes from; **LLMGA Scene "
        "Synthesis** puts the planned objects into it and leaves every bit outside of them. Describe the photograph in "
        "Invert, and its place as the background of the plan.",
        CHECKPOINT_NOTE,
    ),
    "instruction_edit": (
        "## Edit a picture by saying what to change\n**LLMGA Edit Instruction** captions the picture and changes as few "
        "words of it as your instruction asks. **Invert** finds the noise that the picture comes from, **Inversion Edit** "
        "goes back with the new words. Change the instruction and run again: the inversion is kept only while the caption "
        "stays, so write it into *source_prompt* once you like it.",
        LOCAL_NOTE,
        CHECKPOINT_NOTE,
    ),
    "instruction_edit_multi_turn": (
        "## One edit after another\nThe *history* of the first **LLMGA Edit Instruction** goes into the second, whose "
        "source prompt is then the first one's target. The second **Inversion Edit** takes the edited picture and inverts "
        "it itself.",
        LOCAL_NOTE,
        CHECKPOINT_NOTE,
    ),
    "edit_with_mask": (
        "## Choose where a picture may change\nRight-click the picture, *Open in MaskEditor*, and paint where it may "
        "change; without a mask, the blend words choose. **Attention Maps** shows where the model sees words of the "
        "prompt. **Prompt-to-Prompt Options** makes words stronger. Both prompts are written by hand here.",
        CHECKPOINT_NOTE,
    ),
    "chat_many_turns": (
        "## A conversation inside one node\nThe turns so far stand in the panel of **LLMGA Chat**. Write what comes next "
        "below them: Enter asks the language model alone, Run also paints. *Edit*, *Branch* and *Regenerate* are under "
        "each message.",
        ENDPOINT_NOTE,
        CHECKPOINT_NOTE,
    ),
    "picture_book": (
        "## One sentence becomes a picture book\nThe task *picture_book* tells a story in as many pages as *pages* says. "
        "*prompts* and *page_texts* are lists: everything after them runs once for each page.",
        ENDPOINT_NOTE,
        CHECKPOINT_NOTE,
    ),
    "controlnet": (
        "## The lines of a picture, another scene\n**Canny** finds the edges of the picture and ControlNet keeps to them; "
        "the language model looks at the same picture and writes what is painted there.",
        LOCAL_NOTE,
        CHECKPOINT_NOTE,
        "**ControlNet:** `control_v11p_sd15_canny_fp16.safetensors` in `models/controlnet/`, from "
        "comfyanonymous/ControlNet-v1-1_fp16_safetensors on Hugging Face (0.7 GB). It fits SD1.5 checkpoints.",
    ),
}
UNET_NOTE = (
    "**UNet:** LLMGA's own for inpainting, in `models/diffusion_models/{name}/`: turn *download* on in **LLMGA UNet "
    "Loader** once, or copy the `unet` folder of binxia/{name} on Hugging Face there. "
    "Any other inpainting UNet of the same base works."
)
RESTORE_NOTE = (
    "**DiffRIR Restore** is set to *colour correction*, which needs no weights. With a DiffRIR file in `models/diffrir/`, "
    "add **DiffRIR Loader**, connect it, and set *method* to *DiffRIR*."
)
NOTES |= {
    "inpaint": (
        "## Paint into a picture\nRight-click the picture in **Load Image**, *Open in MaskEditor*, and paint over what "
        "should go. The language model sees the rest and writes the prompt. Only the part around the mask is painted; "
        "**Stitch Painting** puts it back, and every other pixel stays as it is.",
        LOCAL_NOTE,
        CHECKPOINT_NOTE,
        UNET_NOTE.format(name="llmga-sd15-inpainting-v2"),
        RESTORE_NOTE,
    ),
    "outpaint": (
        "## Continue a picture\n**Pad Image for Outpainting** says how far to each side. The language model sees the "
        "picture with the new sides black and writes the prompt; **Seam Report** says how much of the border still shows. "
        "SD1.5 paints best when the padded picture has about 512 × 768 pixels.",
        LOCAL_NOTE,
        CHECKPOINT_NOTE,
        UNET_NOTE.format(name="llmga-sd15-inpainting-v2"),
        RESTORE_NOTE,
    ),
    "inpaint_sdxl": (
        "## Paint into a picture with SDXL\nAs *inpaint*, with parts of 1024 × 1024 pixels. Right-click the picture in "
        "**Load Image**, *Open in MaskEditor*, and paint over what should go.",
        LOCAL_NOTE,
        "**Checkpoint:** `sd_xl_base_1.0.safetensors` in `models/checkpoints/`, from "
        "stabilityai/stable-diffusion-xl-base-1.0 on Hugging Face (7 GB), for its text encoders and VAE.",
        UNET_NOTE.format(name="llmga-sdxl-inpainting-v2"),
        RESTORE_NOTE,
    ),
    "restore_only": (
        "## Take the seam out of a painted picture\n*Painted* is what any inpainting made, before the original was pasted "
        "in; *Original* is the picture before, of the same size, with the mask painted in its MaskEditor. The result is "
        "the original everywhere outside the mask.",
        "**DiffRIR:** a file in `models/diffrir/`, named `diffrir_x1.pth` here. The authors link theirs from "
        "Zj-BinXia/DiffRIR on GitHub. Without one, set *method* to *colour correction* and disconnect the loader.",
    ),
}
HUGGING_FACE = "https://huggingface.co/Comfy-Org"
MODELS = {
    "v1-5-pruned-emaonly-fp16.safetensors": {
        "url": f"{HUGGING_FACE}/stable-diffusion-v1-5-archive/resolve/main/v1-5-pruned-emaonly-fp16.safetensors",
        "directory": "checkpoints",
    },
    "qwen3vl_4b_fp8_scaled.safetensors": {
        "url": f"{HUGGING_FACE}/Qwen3-VL/resolve/main/text_encoders/qwen3vl_4b_fp8_scaled.safetensors",
        "directory": "text_encoders",
    },
    "sd_xl_base_1.0.safetensors": {
        "url": "https://huggingface.co/stabilityai/stable-diffusion-xl-base-1.0/resolve/main/sd_xl_base_1.0.safetensors",
        "directory": "checkpoints",
    },
    "control_v11p_sd15_canny_fp16.safetensors": {
        "url": "https://huggingface.co/comfyanonymous/ControlNet-v1-1_fp16_safetensors/resolve/main/"
        "control_v11p_sd15_canny_fp16.safetensors",
        "directory": "controlnet",
    },
}
