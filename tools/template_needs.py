"""What shipped workflows need beside the files of ``template_models``: a paragraph of Markdown each, for their notes."""

from __future__ import annotations

FOLDER_ENGINE = (
    "**Language model:** a folder in *models/LLM/*, here *llava-1.5-7b-hf* (14 GB): "
    "*download* in **LLMGA Model Loader** where the owner allows it, *hf download llava-hf/llava-1.5-7b-hf --local-dir "
    "models/LLM/llava-1.5-7b-hf*, or [by hand](https://huggingface.co/llava-hf/llava-1.5-7b-hf/tree/main). "
    "[Qwen2.5-VL-3B](https://huggingface.co/Qwen/Qwen2.5-VL-3B-Instruct/tree/main) (7.5 GB) fits smaller cards, and "
    "so does *precision* *int4*; what does not fit is loaded partly, and is slower."
)
ENDPOINT_ENGINE = (
    "**Language model:** a server that speaks the OpenAI protocol: [Ollama](https://ollama.com/download), llama.cpp, vLLM, "
    "LM Studio. Write a record named *ollama* into *user/__llmga/endpoints.json* (the help of LLMGA Endpoint shows how), "
    "then press R."
)
DRAWN_MASK = (
    "**Your own hole:** right-click **Load Image**, *Open in MaskEditor*, paint over what should go, and set *source* of "
    "**Prepare Mask** to *given*. Until then a hole is drawn for you."
)
RESTORER = (
    "**DiffRIR Restore** is set to *colour correction*, which needs no weights. A DiffRIR file from its authors' "
    "[page](https://github.com/Zj-BinXia/DiffRIR) goes into *models/diffrir/*; add **DiffRIR Loader** and set *method* to "
    "*DiffRIR*."
)
INPAINTING = (
    "**UNet:** *unet/* of [binxia/{0}](https://huggingface.co/binxia/{0}/tree/main) ({1}) as "
    "*models/diffusion_models/{0}/*, or *download* in **LLMGA UNet Loader** where the owner allows it. Any inpainting UNet "
    "of the same base works."
)
GILL = (
    "**GILL:** *pretrained_ckpt.pth.tar* (96 MB) and *decision_model.pth.tar* of "
    "[kohjingyu/gill](https://github.com/kohjingyu/gill/tree/main/checkpoints/gill_opt) into *models/gill/*, and the folder "
    "[facebook/opt-6.7b](https://huggingface.co/facebook/opt-6.7b/tree/main) (13 GB) into *models/LLM/opt-6.7b/*. It paints "
    "with SD1.5 alone."
)
SD15_INPAINTING = INPAINTING.format("llmga-sd15-inpainting-v2", "3.4 GB")
