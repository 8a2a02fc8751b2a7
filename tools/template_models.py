"""The model files that the shipped workflows name: where each comes from, where it goes, and how large it is."""

from __future__ import annotations

from dataclasses import dataclass

HUB = "https://huggingface.co"


@dataclass(frozen=True)
class ModelFile:
    """One file to download.

    Attributes:
        directory: the folder below ``models``.
        repository: on Hugging Face.
        path: inside the repository.
        gigabytes: about; shown, never checked.
    """

    directory: str
    repository: str
    path: str
    gigabytes: float

    @property
    def url(self) -> str:
        return f"{HUB}/{self.repository}/resolve/main/{self.path}"

    def line(self, name: str) -> str:
        """An entry of a Markdown list: link, size and folder. Not as code, which Nodes 2.0 shows blue on blue."""
        return f"- [{name}]({self.url}) ({self.gigabytes:g} GB) into *models/{self.directory}/*"


MODELS = {
    "gemma_2_2b_it_elm_bf16.safetensors": ModelFile(
        "text_encoders", "Comfy-Org/PixelDiT", "text_encoders/gemma_2_2b_it_elm_bf16.safetensors", 5.2
    ),
    "pixeldit_1300m_1024px_bf16.safetensors": ModelFile(
        "diffusion_models",
        "Comfy-Org/PixelDiT",
        "diffusion_models/pixeldit_1300m_1024px_bf16.safetensors",
        2.6,
    ),
    "qwen_3_4b.safetensors": ModelFile(
        "text_encoders", "Comfy-Org/z_image_turbo", "split_files/text_encoders/qwen_3_4b.safetensors", 8.0
    ),
    "qwen3vl_4b_fp8_scaled.safetensors": ModelFile(
        "text_encoders", "Comfy-Org/Qwen3-VL", "text_encoders/qwen3vl_4b_fp8_scaled.safetensors", 5.2
    ),
    "qwen_2.5_vl_7b_fp8_scaled.safetensors": ModelFile(
        "text_encoders",
        "Comfy-Org/Qwen-Image_ComfyUI",
        "split_files/text_encoders/qwen_2.5_vl_7b_fp8_scaled.safetensors",
        9.4,
    ),
    "z_image_turbo_bf16.safetensors": ModelFile(
        "diffusion_models",
        "Comfy-Org/z_image_turbo",
        "split_files/diffusion_models/z_image_turbo_bf16.safetensors",
        12.3,
    ),
    "flux-2-klein-4b-fp8.safetensors": ModelFile(
        "diffusion_models",
        "black-forest-labs/FLUX.2-klein-4b-fp8",
        "flux-2-klein-4b-fp8.safetensors",
        4.1,
    ),
    "krea2_turbo_fp8_scaled.safetensors": ModelFile(
        "diffusion_models", "Comfy-Org/Krea-2", "diffusion_models/krea2_turbo_fp8_scaled.safetensors", 12.3
    ),
    "qwen_image_2512_fp8_e4m3fn.safetensors": ModelFile(
        "diffusion_models",
        "Comfy-Org/Qwen-Image_ComfyUI",
        "split_files/diffusion_models/qwen_image_2512_fp8_e4m3fn.safetensors",
        20.4,
    ),
    "qwen_image_edit_2511_fp8mixed.safetensors": ModelFile(
        "diffusion_models",
        "Comfy-Org/Qwen-Image-Edit_ComfyUI",
        "split_files/diffusion_models/qwen_image_edit_2511_fp8mixed.safetensors",
        20.5,
    ),
    "ae.safetensors": ModelFile("vae", "Comfy-Org/z_image_turbo", "split_files/vae/ae.safetensors", 0.3),
    "flux2-vae.safetensors": ModelFile(
        "vae", "Comfy-Org/flux2-dev", "split_files/vae/flux2-vae.safetensors", 0.3
    ),
    "qwen_image_vae.safetensors": ModelFile(
        "vae", "Comfy-Org/Qwen-Image_ComfyUI", "split_files/vae/qwen_image_vae.safetensors", 0.3
    ),
    "v1-5-pruned-emaonly-fp16.safetensors": ModelFile(
        "checkpoints",
        "Comfy-Org/stable-diffusion-v1-5-archive",
        "v1-5-pruned-emaonly-fp16.safetensors",
        2.1,
    ),
    "sd_xl_base_1.0.safetensors": ModelFile(
        "checkpoints", "stabilityai/stable-diffusion-xl-base-1.0", "sd_xl_base_1.0.safetensors", 6.9
    ),
    "control_v11p_sd15_canny_fp16.safetensors": ModelFile(
        "controlnet",
        "comfyanonymous/ControlNet-v1-1_fp16_safetensors",
        "control_v11p_sd15_canny_fp16.safetensors",
        0.7,
    ),
    "clip-vit-large-patch14.safetensors": ModelFile(
        "clip_vision", "openai/clip-vit-large-patch14", "model.safetensors", 1.7
    ),
}
"""Links as ComfyUI's own templates have them (comfyui-workflow-templates 0.11.44); sizes from the same."""


def files_of(prompt: dict) -> list[str]:
    """The files that an API prompt names and ``MODELS`` knows, in the order of the graph, each once."""
    named = (value for node in prompt.values() for value in node["inputs"].values() if isinstance(value, str))
    return list(dict.fromkeys(value for value in named if value in MODELS))
