"""LLMGA Flow Edit: change a real picture as its prompt is changed, with a flow model."""

from __future__ import annotations

from comfy_api.latest import io

from ..llmga.edit.fit import fit_image
from . import check, embeddings, host, host_denoiser, host_flow
from .edit_inputs import fitted_mask
from .flow_inputs import (
    METHODS,
    MOST_AVERAGED,
    MOST_GUIDANCE,
    MOST_STEPS,
    SIDES,
    FlowInputs,
    cells_of,
    decoded,
    encoded,
    encoded_latent,
)
from .host_flow import Guided
from .types import seed_input


class FlowEdit(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="LLMGA_FlowEdit",
            display_name="LLMGA Flow Edit",
            category="LLMGA/edit",
            description="Changes a real picture as its prompt is changed, with a flow model that was made for text to "
            "image: Flux, SD3, Qwen-Image, Z-Image. FlowEdit needs no inversion and no further weights. For SD1.5 and SDXL "
            "there is Inversion Edit.",
            search_aliases=[
                "FlowEdit",
                "RF-Inversion",
                "rectified flow",
                "flux edit",
                "qwen image edit",
                "z-image edit",
                "sd3 edit",
                "edit image",
                "change object",
                "img2img",
                "unsampler",
            ],
            inputs=[
                io.Model.Input(
                    "model",
                    tooltip="A flow model for text to image, with its LoRAs: Flux, SD3, Qwen-Image, Z-Image. Not SD1.5 or "
                    "SDXL, and without EasyCache or TeaCache.",
                ),
                io.Clip.Input("clip", tooltip="The text encoder of the same model (Load CLIP)."),
                io.Vae.Input("vae", tooltip="The VAE of the same model."),
                io.Image.Input(
                    "image",
                    tooltip="The picture, or a batch of one size. Alpha is dropped, sides are cut to multiples of 16.",
                ),
                io.String.Input(
                    "source_prompt",
                    multiline=True,
                    dynamic_prompts=True,
                    tooltip="What the picture shows now; LLMGA Edit Instruction writes it. Up to 200,000 characters.",
                ),
                io.String.Input(
                    "target_prompt",
                    multiline=True,
                    dynamic_prompts=True,
                    tooltip="What it should show: best the source prompt with few words changed. Not empty, up to 200,000 "
                    "characters.",
                ),
                io.Float.Input(
                    "strength",
                    default=0.85,
                    optional=True,
                    min=0.0,
                    max=1.0,
                    step=0.05,
                    tooltip="The part of the steps that is taken, 0 to 1: how far to noise the picture goes. Lower keeps "
                    "more of it. The paper: 0.85 for Flux, 0.65 for SD3.",
                ),
                io.Float.Input(
                    "source_guidance",
                    default=1.5,
                    optional=True,
                    min=1.0,
                    max=MOST_GUIDANCE,
                    step=0.5,
                    tooltip="How strongly the source prompt pulls, 1 to 30. cfg; for Flux dev its own guidance. The paper: "
                    "1.5 for Flux, 3.5 for SD3.",
                ),
                io.Float.Input(
                    "target_guidance",
                    default=5.5,
                    optional=True,
                    min=1.0,
                    max=MOST_GUIDANCE,
                    step=0.5,
                    tooltip="How strongly the target prompt pulls, 1 to 30; more changes more. The paper: 5.5 for Flux, "
                    "13.5 for SD3. Distilled models (Turbo, Lightning, Schnell, Klein) want 1 to 2.",
                ),
                io.Int.Input(
                    "steps",
                    default=28,
                    optional=True,
                    min=1,
                    max=MOST_STEPS,
                    tooltip=f"The steps of the whole way, 1 to {MOST_STEPS}, of which strength is a part. The paper: 28 for "
                    "Flux, 50 for SD3. With sigmas: as many as they are.",
                ),
                seed_input("Of the noise; every picture of a batch gets the same."),
                io.Combo.Input(
                    "method",
                    options=list(METHODS),
                    default="FlowEdit",
                    optional=True,
                    tooltip="FlowEdit: straight from picture to picture, keeps its layout. RF-Inversion: to noise and back, "
                    "pulled to the picture; changes more of it, as for a new style.",
                ),
                io.String.Input(
                    "negative_prompt",
                    multiline=True,
                    dynamic_prompts=True,
                    optional=True,
                    default="",
                    tooltip="What guidance leads away from; mostly empty. Has no effect at guidance 1, nor on Flux dev.",
                ),
                io.Mask.Input(
                    "mask",
                    optional=True,
                    tooltip="1 = may change; elsewhere the latent stays as it is. Any size; one mask or one for each "
                    "picture; an empty mask counts as none.",
                ),
                io.Sigmas.Input(
                    "sigmas",
                    optional=True,
                    tooltip="The noise levels of the whole way, from BasicScheduler or Flux2Scheduler, in place of steps. "
                    "Else those of the scheduler simple.",
                ),
                io.Int.Input(
                    "n_avg",
                    default=1,
                    optional=True,
                    min=1,
                    max=MOST_AVERAGED,
                    advanced=True,
                    tooltip=f"FlowEdit: noises that each step averages over, 1 to {MOST_AVERAGED}; each costs as much as "
                    "the first.",
                ),
                io.Int.Input(
                    "n_min",
                    default=0,
                    optional=True,
                    min=0,
                    max=MOST_STEPS,
                    advanced=True,
                    tooltip="FlowEdit: so many of the last steps are ordinary sampling under the target prompt, which lets "
                    "style and fine things change. 0 to the steps that are taken.",
                ),
                io.Float.Input(
                    "gamma",
                    default=0.5,
                    optional=True,
                    min=0.0,
                    max=1.0,
                    step=0.05,
                    advanced=True,
                    tooltip="RF-Inversion: how strongly the way to noise is pulled to ordinary noise, 0 to 1. More is "
                    "easier to edit and keeps less.",
                ),
                io.Float.Input(
                    "eta",
                    default=0.9,
                    optional=True,
                    min=0.0,
                    max=1.0,
                    step=0.05,
                    advanced=True,
                    tooltip="RF-Inversion: how strongly the way back is pulled to the picture, 0 to 1. 1 at eta_part 1 "
                    "gives the picture back.",
                ),
                io.Float.Input(
                    "eta_part",
                    default=0.25,
                    optional=True,
                    min=0.0,
                    max=1.0,
                    step=0.05,
                    advanced=True,
                    tooltip="RF-Inversion: the first part of the way back for which eta acts, 0 to 1. More keeps more.",
                ),
            ],
            outputs=[
                io.Image.Output(display_name="edited", tooltip="The edited picture."),
                io.Latent.Output(
                    display_name="samples", tooltip="The same as a latent, for a second edit or upscaling."
                ),
                io.String.Output(
                    display_name="report",
                    tooltip="What was cut, how guidance acts on this model, and how often the model ran.",
                ),
            ],
        )

    @classmethod
    def fingerprint_inputs(cls, **inputs) -> str:
        return embeddings.fingerprint(inputs)

    @classmethod
    @host.guarded
    def execute(cls, model, clip, vae, image, source_prompt, target_prompt, **others) -> io.NodeOutput:
        inputs = FlowInputs(source_prompt, target_prompt, **others)
        host_flow.require_flow(model)
        sigmas = inputs.levels(model)
        pixels, note = fit_image(check.image("image", image), cell=SIDES)
        mask = fitted_mask(inputs.mask, len(pixels), (pixels.shape[1], pixels.shape[2]), cell=SIDES)
        texts = {"source_prompt": source_prompt, "target_prompt": target_prompt}
        texts["negative_prompt"] = inputs.negative_prompt
        source, target, negative = (encoded(clip, name, text) for name, text in texts.items())
        latent = encoded_latent(model, vae, pixels)
        on_step = host_denoiser.progress(model, inputs.taken(len(sigmas) - 1))
        samples = host_flow.run(
            model,
            {
                "source": Guided(source, inputs.source_guidance),
                "target": Guided(target, inputs.target_guidance),
            },
            negative,
            latent,
            inputs.work(sigmas, None if mask is None else cells_of(mask, latent), on_step),
        )
        report = "\n".join(
            [note, *inputs.notes(model, sigmas, mask), *embeddings.notes(clip, texts, weights=True)]
        )
        return io.NodeOutput(decoded(vae, samples), {"samples": samples}, report, ui={"text": [report]})


NODES = [FlowEdit]
