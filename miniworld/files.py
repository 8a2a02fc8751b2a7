"""Names of a miniature's files, below the folder that holds it; the folders are named as ComfyUI's."""

# Needed by later stages only:
ENCODER, AUTOENCODER, WORDS, BASE = (
    f"parts/{name}.safetensors" for name in ("encoder", "autoencoder", "words", "base")
)
# To be used:
CHECKPOINT = "checkpoints/llmga-mini.safetensors"
UNETS = {
    "stage2": "diffusion_models/llmga-mini-t2i/unet",
    "inpainting": "diffusion_models/llmga-mini-inpainting-base/unet",
    "stage2_inpainting": "diffusion_models/llmga-mini-inpainting/unet",
}
WEIGHTS = "diffusion_pytorch_model.safetensors"
LANGUAGE = "LLM/llmga-mini"
RESTORERS = {
    name: f"diffrir/llmga-mini-x1{name.replace('restorer', '').replace('no ', '-no-')}.safetensors"
    for name in ("restorer", "no reference", "no colour")
}
CONTROLNET = "controlnet/llmga-mini-canny.safetensors"
GILL_FILE = "gill/llmga-mini.safetensors"
GILL_DECISION_FILE = "gill/llmga-mini-decision.safetensors"
EMBEDDING = "gill/llmga-mini-embedding"
READER = "reader.safetensors"
CHECK = "check.json"
MANIFEST = "manifest.json"
