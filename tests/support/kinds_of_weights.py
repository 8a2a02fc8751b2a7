"""The tensors of one weight file of every kind that people mistake for another: true names, and the shapes that tell."""

from __future__ import annotations

from dataclasses import replace

from llmga.diffusion.ldm import unet_to_ldm
from llmga.diffusion.unet_shapes import SD15, SDXL, Sizes, shapes

from .tensor_names import (
    CLIP_L,
    DIFFRIR_S1,
    DIFFRIR_S2,
    LDM_CONTROLNET,
    LLM,
    OPEN_CLIP,
    SD2,
    SIGLIP,
    UNET_ATTENTION,
    VAE_DIFFUSERS,
    VAE_LDM,
    VISION,
    Shapes,
    inside,
    names,
    without,
)

WEIGHTS: dict[str, tuple[str, Shapes]] = {
    # What it is: the kind's name, and its tensors.
    "LoRA of kohya": (
        "a LoRA",
        names(
            "lora_unet_down_blocks_0_attentions_0_proj_in.lora_down.weight",
            "lora_unet_down_blocks_0_attentions_0_proj_in.alpha",
            "lora_te_text_model_encoder_layers_0_mlp_fc1.lora_up.weight",
        ),
    ),
    "LoRA of diffusers": (
        "a LoRA",
        names(
            f"unet.{UNET_ATTENTION}.to_q.lora_A.weight",
            f"unet.{UNET_ATTENTION}.to_q.lora_B.weight",
            "text_encoder.text_model.encoder.layers.0.self_attn.q_proj.lora_A.weight",
        ),
    ),
    "LoRA of older diffusers": ("a LoRA", names(f"{UNET_ATTENTION}.processor.to_q_lora.down.weight")),
    "LoRA of Flux": ("a LoRA", names("transformer.single_transformer_blocks.0.attn.to_q.lora_A.weight")),
    "LoRA of Flux (ComfyUI's names)": (
        "a LoRA",
        names("diffusion_model.double_blocks.0.img_attn.qkv.lora_down.weight"),
    ),
    "LoHa": ("a LoRA", names("lora_unet_mid_block_attentions_0_proj_in.hada_w1_a")),
    "LoKr": ("a LoRA", names("lycoris_mid_block_attentions_0_proj_in.lokr_w1")),
    "OFT": ("a LoRA", names("oft_unet_mid_block_attentions_0_proj_in.oft_blocks")),
    "DoRA": ("a LoRA", names("mid_block_attentions_0_proj_in.dora_scale")),
    "LoRA of a language model": (
        "a LoRA of a language model",
        names("base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"),
    ),
    "ControlNet-LLLite": (
        "a ControlNet-LLLite",
        names("lllite_unet_input_blocks_4_1_transformer_blocks_0_attn1_to_q.down.0.weight"),
    ),
    "ControlNet (original)": ("a ControlNet", LDM_CONTROLNET),
    "ControlNet (diffusers)": (
        "a ControlNet",
        {
            **without(shapes(SD15), "up_blocks", "conv_out", "conv_norm_out"),
            **names("controlnet_cond_embedding.conv_in.weight", "controlnet_down_blocks.0.weight"),
        },
    ),
    "control-lora of SDXL": (
        "a ControlNet",
        names(
            "lora_controlnet",
            "input_blocks.4.1.transformer_blocks.0.attn1.to_q.down",
            "input_blocks.4.1.transformer_blocks.0.attn1.to_q.up",
            "input_hint_block.0.weight",
            "zero_convs.0.0.weight",
        ),
    ),
    "ControlNet of Flux": (
        "a ControlNet",
        names(
            "controlnet_blocks.0.weight",
            "controlnet_x_embedder.weight",
            "transformer_blocks.0.attn.to_q.weight",
        ),
    ),
    "T2I-Adapter": (
        "a T2I-Adapter",
        names("body.0.block1.weight", "body.0.block2.weight", "body.2.in_conv.weight", "conv_in.weight"),
    ),
    "T2I-Adapter (light)": ("a T2I-Adapter", names("body.0.in_conv.weight", "body.0.body.0.block1.weight")),
    "T2I-Adapter (diffusers)": (
        "a T2I-Adapter",
        names("adapter.conv_in.weight", "adapter.body.0.resnets.0.block1.weight"),
    ),
    "IP-Adapter": (
        "an IP-Adapter",
        names("image_proj.proj.weight", "image_proj.norm.weight", "ip_adapter.1.to_k_ip.weight"),
    ),
    "IP-Adapter FaceID": (
        "an IP-Adapter",
        names(
            "image_proj.proj.0.weight", "ip_adapter.0.to_q_lora.down.weight", "ip_adapter.1.to_k_ip.weight"
        ),
    ),
    "IP-Adapter of Flux": (
        "an IP-Adapter",
        names(
            "double_blocks.0.processor.ip_adapter_double_stream_k_proj.weight",
            "ip_adapter_proj_model.proj.weight",
        ),
    ),
    "PhotoMaker": (
        "a PhotoMaker",
        names(
            "id_encoder.visual_projection_2.weight", "lora_weights.unet.down_blocks.1.to_q_lora.down.weight"
        ),
    ),
    "AnimateDiff motion module": (
        "an AnimateDiff motion module",
        names("down_blocks.0.motion_modules.0.temporal_transformer.proj_in.weight"),
    ),
    "UNet with motion modules": (
        "an AnimateDiff motion module",
        {**shapes(SD15), **names("down_blocks.0.motion_modules.0.temporal_transformer.proj_in.weight")},
    ),
    "motion LoRA": (
        "a motion LoRA of AnimateDiff",
        names(
            "down_blocks.0.motion_modules.0.temporal_transformer.transformer_blocks.0.attention_blocks.0.processor."
            "to_q_lora.down.weight"
        ),
    ),
    "GLIGEN": (
        "a GLIGEN",
        names(
            "position_net.linears.0.weight",
            "input_blocks.1.1.transformer_blocks.0.fuser.alpha_attn",
            "input_blocks.1.1.transformer_blocks.0.fuser.attn.to_q.weight",
        ),
    ),
    "style adapter": ("a style model", names("style_embedding", "ln_post.weight", "proj")),
    "Flux Redux": ("a style model", names("redux_down.weight", "redux_up.weight")),
    "textual inversion (safetensors)": ("a textual inversion embedding", {"emb_params": (2, 768)}),
    "textual inversion of SDXL": ("a textual inversion embedding", {"clip_l": (2, 768), "clip_g": (2, 1280)}),
    "textual inversion (diffusers)": ("a textual inversion embedding", {"<cat-toy>": (768,)}),
    "UNet of SD1.5": ("a UNet of SD1.5", shapes(SD15)),
    "UNet of SD1.5 for inpainting": ("a UNet of SD1.5", shapes(replace(SD15, channels=9))),
    "UNet of SD1.5 (original names)": ("a UNet of SD1.5", unet_to_ldm(shapes(SD15))),
    "UNet of SDXL": ("a UNet of SDXL", shapes(SDXL)),
    "UNet of SDXL for inpainting": ("a UNet of SDXL", shapes(replace(SDXL, channels=9))),
    "UNet of SD2": ("a UNet of SD2", shapes(SD2)),
    "UNet of SD2 (original names)": (
        "a UNet of SD2",
        inside("model.diffusion_model.", unet_to_ldm(shapes(SD2))),
    ),
    "refiner": ("the UNet of the SDXL refiner", shapes(replace(SDXL, context=1280, widths=(384, 768, 1536)))),
    "SSD-1B": (
        "a small relative of SDXL's UNet (SSD-1B, Segmind Vega, KOALA)",
        without(shapes(replace(SDXL, depths=(0, 2, 4))), "mid_block.attentions"),
    ),
    "InstructPix2Pix": ("an InstructPix2Pix UNet", shapes(replace(SD15, channels=8))),
    "depth UNet of SD2": (
        "a UNet with other inputs than a picture and a mask (depth, upscaling)",
        shapes(replace(SD2, channels=5)),
    ),
    "UNet of other widths": (
        "a UNet of Stable Diffusion's kind in other sizes, or a part of one",
        shapes(Sizes((64, 128), (0, 1), 1, 96, 4)),
    ),
    "Stable Video Diffusion (diffusers)": (
        "a UNet of a video model (Stable Video Diffusion)",
        {
            **without(shapes(SD2), "mid_block"),
            **names("down_blocks.0.attentions.0.temporal_transformer_blocks.0.norm_in.weight"),
        },
    ),
    "checkpoint of SD1.5": (
        "a whole checkpoint",
        {
            **inside("model.diffusion_model.", unet_to_ldm(shapes(SD15))),
            **inside("first_stage_model.", VAE_LDM),
            **inside("cond_stage_model.transformer.", CLIP_L),
        },
    ),
    "checkpoint of SD2": (
        "a whole checkpoint",
        {
            **inside("model.diffusion_model.", unet_to_ldm(shapes(SD2))),
            **inside("first_stage_model.", VAE_LDM),
            **inside("cond_stage_model.model.", OPEN_CLIP),
        },
    ),
    "checkpoint of Flux": (
        "a whole checkpoint",
        {
            **names("model.diffusion_model.double_blocks.0.img_attn.qkv.weight"),
            **inside("vae.", VAE_LDM),
            **inside("text_encoders.clip_l.transformer.", CLIP_L),
        },
    ),
    "VAE (original)": ("a VAE", VAE_LDM),
    "VAE (inside its checkpoint's names)": ("a VAE", inside("first_stage_model.", VAE_LDM)),
    "VAE (diffusers)": ("a VAE", VAE_DIFFUSERS),
    "VAE of Wan": (
        "a VAE",
        names("encoder.downsamples.0.residual.0.gamma", "decoder.upsamples.0.residual.0.gamma"),
    ),
    "TAESD (diffusers)": (
        "a tiny VAE (TAESD)",
        names("encoder.layers.0.weight", "encoder.layers.1.conv.0.weight", "decoder.layers.2.conv.0.weight"),
    ),
    "TAESD decoder": ("a tiny VAE (TAESD)", names("1.weight", "3.conv.0.weight", "3.conv.2.weight")),
    "CLIP-L": ("a CLIP text encoder", CLIP_L),
    "CLIP-G": ("a CLIP text encoder", OPEN_CLIP),
    "T5": (
        "a T5 text encoder",
        names(
            "shared.weight",
            "encoder.block.0.layer.0.SelfAttention.q.weight",
            "encoder.final_layer_norm.weight",
        ),
    ),
    "CLIP vision": ("a CLIP vision model", VISION),
    "SigLIP": ("a SigLIP vision model", SIGLIP),
    "CLIP of text and vision": ("a whole CLIP or SigLIP, text and vision", {**CLIP_L, **VISION}),
    "SigLIP of text and vision": ("a whole CLIP or SigLIP, text and vision", {**CLIP_L, **SIGLIP}),
    "DINOv2": (
        "a DINO vision model",
        names(
            "embeddings.cls_token", "encoder.layer.0.layer_scale1.lambda1", "encoder.layer.0.mlp.fc1.weight"
        ),
    ),
    "language model": ("a language model", LLM),
    "GPT-2": ("a language model", names("transformer.h.0.attn.c_attn.weight", "transformer.wte.weight")),
    "LLaVA": (
        "a vision-language model",
        {
            **inside("language_model.", LLM),
            **inside("vision_tower.", VISION),
            **names("multi_modal_projector.linear_1.weight"),
        },
    ),
    "LLaVA (official names)": (
        "a vision-language model",
        {
            **LLM,
            **names(
                "model.mm_projector.0.weight",
                "model.vision_tower.vision_tower.vision_model.post_layernorm.weight",
            ),
        },
    ),
    "Qwen2-VL": (
        "a vision-language model",
        {**LLM, **names("visual.blocks.0.attn.qkv.weight", "visual.patch_embed.proj.weight")},
    ),
    "LLaVA projector": (
        "the projector of a LLaVA",
        names("model.mm_projector.0.weight", "model.mm_projector.2.bias"),
    ),
    "GILL": (
        "a GILL checkpoint",
        names(
            "model.gen_text_hidden_fcs.0.fc.weight", "model.ret_text_hidden_fcs.0.weight", "model.logit_scale"
        ),
    ),
    "decision model of GILL": (
        "the decision model of a GILL",
        {"1.weight": (2, 4096), "1.bias": (2,)},
    ),
    "Flux": (
        "a diffusion transformer (Flux, SD3, Qwen-Image, Wan or a relative)",
        names("double_blocks.0.img_attn.qkv.weight", "single_blocks.0.linear1.weight", "img_in.weight"),
    ),
    "Flux (diffusers)": (
        "a diffusion transformer (Flux, SD3, Qwen-Image, Wan or a relative)",
        names("single_transformer_blocks.0.attn.to_q.weight", "transformer_blocks.0.attn.add_q_proj.weight"),
    ),
    "SD3": (
        "a diffusion transformer (Flux, SD3, Qwen-Image, Wan or a relative)",
        names("model.diffusion_model.joint_blocks.0.x_block.attn.qkv.weight"),
    ),
    "Qwen-Image": (
        "a diffusion transformer (Flux, SD3, Qwen-Image, Wan or a relative)",
        names(
            "transformer_blocks.0.img_mod.1.weight",
            "transformer_blocks.0.attn.to_q.weight",
            "txt_norm.weight",
        ),
    ),
    "Wan": (
        "a diffusion transformer (Flux, SD3, Qwen-Image, Wan or a relative)",
        names(
            "blocks.0.self_attn.q.weight",
            "blocks.0.cross_attn.k.weight",
            "head.modulation",
            "patch_embedding.weight",
        ),
    ),
    "Z-Image": (
        "a diffusion transformer (Flux, SD3, Qwen-Image, Wan or a relative)",
        names(
            "cap_embedder.0.weight", "layers.0.attention.qkv.weight", "noise_refiner.0.attention.qkv.weight"
        ),
    ),
    "ESRGAN (older names)": (
        "an ESRGAN upscaler",
        names("model.0.weight", "model.1.sub.0.RDB1.conv1.0.weight", "model.1.sub.23.weight"),
    ),
    "ESRGAN": (
        "an ESRGAN upscaler",
        names("conv_first.weight", "body.0.rdb1.conv1.weight", "conv_last.weight"),
    ),
    "SRVGG": (
        "a compact upscaler (SRVGG)",
        names("body.0.weight", "body.0.bias", "body.1.weight", "body.2.weight", "body.2.bias"),
    ),
    "SwinIR": (
        "a transformer upscaler (SwinIR, HAT, DAT)",
        names(
            "conv_first.weight", "patch_embed.norm.weight", "layers.0.residual_group.blocks.0.attn.qkv.weight"
        ),
    ),
    "DAT": (
        "a transformer upscaler (SwinIR, HAT, DAT)",
        names("conv_first.weight", "layers.0.blocks.0.attn.qkv.weight", "before_RG.1.weight"),
    ),
    "DiffRIR S2": ("a DiffRIR", DIFFRIR_S2),
    "DiffRIR S2 (under a wrapper for several GPUs)": ("a DiffRIR", inside("module.", DIFFRIR_S2)),
    "DiffRIR S1": (
        "a DiffRIR of the first stage (S1)",
        DIFFRIR_S1,
    ),
    "part of a DiffRIR": (
        "a part of a DiffRIR",
        names("condition.E.0.weight", "condition.E.2.body.0.weight"),
    ),
    "DiffRIR discriminator": (
        "the discriminator of a training (DiffRIR, Real-ESRGAN)",
        names("conv0.weight", "conv0.bias", "conv1.parametrizations.weight.original", "conv9.weight"),
    ),
    "Restormer": (
        "a Restormer, whose blocks no prior steers",
        names("patch_embed.proj.weight", "encoder_level1.0.attn.temperature", "latent.0.attn.temperature"),
    ),
    # Quantised ones are looked through.
    "VAE in scaled_fp8": (
        "a VAE",
        {**VAE_LDM, **names("scaled_fp8", "encoder.mid.attn_1.q.scale_weight", shape=(1,))},
    ),
    "Flux in comfy_quant": (
        "a diffusion transformer (Flux, SD3, Qwen-Image, Wan or a relative)",
        names(
            "double_blocks.0.img_attn.qkv.weight",
            "double_blocks.0.img_attn.qkv.weight_scale",
            "double_blocks.0.img_attn.qkv.comfy_quant",
        ),
    ),
    "Flux in bitsandbytes": (
        "a diffusion transformer (Flux, SD3, Qwen-Image, Wan or a relative)",
        names(
            "double_blocks.0.img_attn.qkv.weight",
            "double_blocks.0.img_attn.qkv.weight.absmax",
            "double_blocks.0.img_attn.qkv.weight.quant_state.bitsandbytes__nf4",
        ),
    ),
    "something unknown": ("a weight file of a kind that LLMGA does not know", names("a.weight", "b.weight")),
}
