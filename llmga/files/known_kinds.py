"""The kinds of weight files that people mistake for another, by the names and shapes of their tensors.

``kind_of`` is what every loader asks; a kind's advice names the node that takes such a file. To add a kind: its entry
in ``KINDS``, a tiny header with its true names in the tests' table, and ``before`` where the tests find an overlap.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from pathlib import Path

from .header import TRAINING_STATE, Header
from .kinds import Kind, Registry, WrongFileError, fault
from .storage import look_through

Matches = Callable[[Header], bool]

SD15_UNET = "a UNet of SD1.5"
SDXL_UNET = "a UNet of SDXL"
SMALL_UNET = "a UNet of Stable Diffusion's kind in other sizes, or a part of one"
CHECKPOINT = "a whole checkpoint"
DIFFRIR = "a DiffRIR"
DIFFRIR_S1 = "a DiffRIR of the first stage (S1)"
LANGUAGE_MODEL = "a language model"
VISION_LANGUAGE_MODEL = "a vision-language model"
GILL_CHECKPOINT, GILL_DECISION = "a GILL checkpoint", "the decision model of a GILL"

UNKNOWN = fault("a weight file of a kind that LLMGA does not know", "choose another file")

_NO_LOADER = "ComfyUI has no loader of its own for it"
_LLM = "put its folder into models/LLM for LLMGA Model Loader; if it is ComfyUI's text encoder, load it with Load CLIP"


def kind_of(header: Header) -> Kind[Header] | None:
    """What the weights of a file or of all files of a model are, whatever their storage layout; None if unknown."""
    return KINDS.find(plain_names(header))


def plain_names(header: Header) -> Header:
    """The header without scales and descriptions, and without the prefix of PyTorch's wrapper for several GPUs."""
    weights = look_through(header).weights
    if weights and all(name.startswith("module.") for name in weights):
        return {name.removeprefix("module."): weight for name, weight in weights.items()}
    return weights


def check_kind(path: Path, header: Header, wanted: Collection[str]) -> None:
    """Raise unless a file is one of the kinds named in ``wanted``.

    Raises:
        WrongFileError: it is another one, or unknown.
    """
    kind = kind_of(header)
    if kind is None:
        names = ", ".join(sorted(header)[:3])
        raise WrongFileError(
            path, UNKNOWN, f"its {len(header):,} weights are called {names}{' …' * (len(header) > 3)}"
        )
    if kind.name not in wanted:
        raise WrongFileError(path, kind)


def check_language_model(path: Path, header: Header) -> None:
    """Raise if the weights of a model folder are surely of something else than a language model.

    A kind that is not in the registry passes: transformers knows more language models than this list.

    Args:
        path: the first file of the weights, to name it.
        header: of all its files together.

    Raises:
        WrongFileError: it is another kind.
    """
    kind = kind_of(header)
    if kind is not None and kind.name not in (LANGUAGE_MODEL, VISION_LANGUAGE_MODEL):
        raise WrongFileError(path, kind)


def _load(node: str) -> str:
    return f"load it with {node}"


def _some(pattern: str) -> Matches:
    """Some name holds the pattern; "^" is the beginning of a name."""
    search = re.compile(pattern).search
    return lambda header: any(search(name) for name in header)


def _all(*tests: Matches) -> Matches:
    return lambda header: all(test(header) for test in tests)


def _not(test: Matches) -> Matches:
    return lambda header: not test(header)


_INSIDE = r"^(?:model\.diffusion_model\.|diffusion_model\.)?"
_UNET = _some(
    _INSIDE + r"(?:(?:down|up)_blocks\.\d+\.(?:resnets|attentions|downsamplers|upsamplers)\.|mid_block\.|"
    r"time_embedding\.linear|add_embedding\.|conv_norm_out\.|(?:input|output)_blocks\.\d+\.\d+\.|middle_block\.\d+\.|"
    r"time_embed\.\d|label_emb\.\d)"
)


def _context(header: Header) -> set[int]:
    """Widths of the text that the cross attentions look at."""
    return {
        w.shape[1] for name, w in header.items() if name.endswith(".attn2.to_k.weight") and len(w.shape) == 2
    }


def _input_channels(header: Header) -> int | None:
    for name, weight in header.items():
        if re.search(_INSIDE + r"(?:conv_in|input_blocks\.0\.0)\.weight$", name) and len(weight.shape) == 4:
            return weight.shape[1]
    return None


def _unet(context: int | None = None, channels: Collection[int] | None = None) -> Matches:
    """A UNet, of that width of text, or with those input channels."""
    return lambda header: (
        _UNET(header)
        and (context is None or _context(header) == {context})
        and (channels is None or _input_channels(header) in channels)
    )


_DISTILLED_SDXL = _all(
    _unet(2048),  # whole at both ends, but without the ten transformer blocks of SDXL's middle
    _some(_INSIDE + r"(?:conv_out|out\.2)\."),
    _some(_INSIDE + r"(?:up_blocks|output_blocks)\.0\."),
    _some(_INSIDE + r"(?:down_blocks\.2|input_blocks\.7)\."),
    _not(_some(_INSIDE + r"(?:mid_block\.attentions\.0|middle_block\.1)\.transformer_blocks\.9\.")),
)
_UNETS = (
    SD15_UNET,
    SDXL_UNET,
    SMALL_UNET,
    "a UNet of SD2",
    "the UNet of the SDXL refiner",
    "a small relative of SDXL's UNet (SSD-1B, Segmind Vega, KOALA)",
    "an InstructPix2Pix UNet",
    "a UNet with other inputs than a picture and a mask (depth, upscaling)",
    "a UNet of a video model (Stable Video Diffusion)",
)
_DIT = "a diffusion transformer (Flux, SD3, Qwen-Image, Wan or a relative)"
_LORA = "a LoRA"
_MOTION = "an AnimateDiff motion module"
_CLIP = "a CLIP text encoder"
_VAE = "a VAE"
_VISION = "a CLIP vision model"
_TOKENS = r"^(?:(?:cond_stage_model|conditioner\.embedders\.\d|text_encoders|clip_[lgh]|text_model|transformer|model)\.)*"
_LAYERS = (
    r"^(?:base_model\.model\.)?(?:(?:language_model|model|llm|thinker|decoder|text_model)\.)*layers\.\d+\."
)
_LANGUAGE = _some(
    _LAYERS + r"(?:self_attn|mlp|block_sparse_moe|linear_attn|mixer)\.|"
    r"^(?:transformer\.)?h\.\d+\.|^gpt_neox\.|^backbone\.layers\."
)

KINDS: Registry[Header] = Registry(
    (
        # What changes a network and names its layers.
        Kind(
            "an IP-Adapter",
            _some(r"^(?:image_proj|ip_adapter|ip_adapter_proj_model)\.|ip_adapter_(?:double|single)_stream"),
            _NO_LOADER,
            before=(_LORA, _DIT),
        ),
        Kind("a PhotoMaker", _some(r"^id_encoder\."), _load("PhotoMakerLoader"), before=(_LORA,)),
        Kind(
            "a motion LoRA of AnimateDiff",
            _some(r"motion_modules\..*lora"),
            _NO_LOADER,
            before=(_LORA, _MOTION),
        ),
        Kind(
            "a LoRA of a language model",
            _some(_LAYERS + r"(?:self_attn|mlp)\..*lora_[AB]"),
            "convert it together with its base model (python -m llmga convert)",
            before=(_LORA, LANGUAGE_MODEL, VISION_LANGUAGE_MODEL),
        ),
        Kind("a ControlNet-LLLite", _some(r"^lllite_"), _NO_LOADER),
        Kind(
            _LORA,
            _some(
                r"lora_(?:up|down|mid|A|B)\b|^lora_(?:unet|te\d?|transformer|prior)_|[._]lora\.(?:up|down)\.|\.hada_w\d|"
                r"\.lokr_w\d|\.oft_(?:blocks|diag|R)\b|\.boft_|\.dora_scale|\.glora_"
            ),
            "load it with Load LoRA, after the model that it changes",
            before=(*_UNETS, _DIT, _CLIP, "a T5 text encoder"),
        ),
        Kind(
            "a ControlNet",
            _some(
                r"^control_model\.|^controlnet_(?:cond_embedding|down_blocks|mid_block|blocks|x_embedder|mode)|"
                r"^input_hint_block\.|^zero_convs\.|^lora_controlnet$"
            ),
            _load("Load ControlNet Model"),
            before=(*_UNETS, _DIT),
        ),
        Kind(
            "a T2I-Adapter",
            _some(r"^(?:adapter\.)?body\.\d+\.(?:(?:resnets|body)\.\d+\.)?(?:block[12]|in_conv|out_conv)\."),
            _load("Load ControlNet Model"),
        ),
        Kind(_MOTION, _some(r"(?:^|\.)motion_modules\.|^motion_module\."), _NO_LOADER, before=_UNETS),
        Kind(
            "a GLIGEN",
            _some(r"^position_net\.|\.fuser\.(?:alpha_attn|alpha_dense|linear|attn|ff)"),
            _load("Load GLIGEN Model"),
            before=_UNETS,
        ),
        Kind("a style model", _some(r"^style_embedding$|^redux_(?:up|down)\."), _load("Load Style Model")),
        Kind("a hypernetwork", _some(r"^\d{3,4}\.[01]\.linear\.\d+\."), _load("Load Hypernetwork")),
        Kind(
            "a textual inversion embedding",
            lambda header: (
                _some(r"^(?:string_to_param\.|emb_params$)")(header)
                or len(header) <= 3
                and all(re.fullmatch(r"clip_[lgh]|t5xxl|<.{1,200}>", name) for name in header)
            ),
            "put it into models/embeddings and write embedding:NAME in a prompt",
        ),
        # Whole networks.
        Kind(
            CHECKPOINT,
            _all(
                _some(r"^model\.diffusion_model\."),
                _some(r"^(?:first_stage_model|cond_stage_model|conditioner|text_encoders|vae)\."),
            ),
            _load("Load Checkpoint"),
            before=(*_UNETS, _DIT, _VAE, "a tiny VAE (TAESD)", _CLIP, "a T5 text encoder", _VISION),
        ),
        Kind(
            "a UNet of a video model (Stable Video Diffusion)",
            _all(
                _UNET, _some(r"\.time_stack\.|\.time_mixer\.|\.temporal_(?:transformer_blocks|res_block)\.")
            ),
            _load("Load Diffusion Model"),
            before=_UNETS[:8],
        ),
        Kind("a UNet of SD2", _unet(1024), _load("Load Diffusion Model"), before=(SMALL_UNET,)),
        Kind(
            "the UNet of the SDXL refiner", _unet(1280), _load("Load Diffusion Model"), before=(SMALL_UNET,)
        ),
        Kind(
            "an InstructPix2Pix UNet",
            _unet(channels=(8,)),
            _load("Load Diffusion Model"),
            before=(SD15_UNET, SDXL_UNET, SMALL_UNET, _UNETS[5]),
        ),
        Kind(
            "a UNet with other inputs than a picture and a mask (depth, upscaling)",
            lambda header: _UNET(header) and _input_channels(header) not in (None, 4, 8, 9),
            _load("Load Diffusion Model"),
            before=(SD15_UNET, SDXL_UNET, SMALL_UNET, "a UNet of SD2", _UNETS[5]),
        ),
        Kind(
            "a small relative of SDXL's UNet (SSD-1B, Segmind Vega, KOALA)",
            _DISTILLED_SDXL,
            _load("Load Diffusion Model"),
            before=(SDXL_UNET, SMALL_UNET),
        ),
        Kind(SD15_UNET, _unet(768), _load("LLMGA UNet Loader"), before=(SMALL_UNET,)),
        Kind(SDXL_UNET, _unet(2048), _load("LLMGA UNet Loader"), before=(SMALL_UNET,)),
        Kind(SMALL_UNET, _UNET, _load("LLMGA UNet Loader")),
        Kind(
            _DIT,
            _some(
                r"^(?:model\.diffusion_model\.|diffusion_model\.|model\.|net\.|transformer\.)?(?:double_blocks\.\d|"
                r"single_blocks\.\d|joint_blocks\.\d|single_transformer_blocks\.\d|transformer_blocks\.\d+\.(?:attn|img_mod|"
                r"attn1|norm1)\b|blocks\.\d+\.(?:self_attn\.[qkvo]|cross_attn|modulation|adaLN|block\d)\b|noise_refiner\.|"
                r"context_refiner\.|cap_embedder\.|adaln_single\.|distilled_guidance_layer\.|double_layers\.\d)"
            ),
            _load("Load Diffusion Model"),
        ),
        Kind(
            "a tiny VAE (TAESD)",
            _some(r"^taesd_(?:encoder|decoder)\.|^(?:(?:encoder|decoder)\.layers\.)?\d+\.conv\.\d+\.weight$"),
            "put it into models/vae_approx; Load VAE lists it once the files of encoder and decoder are there",
        ),
        Kind(
            _VAE,
            _some(
                r"^(?:first_stage_model\.|vae\.)?(?:encoder|decoder)\.(?:down|up|mid|conv_in|conv_out|down_blocks|up_blocks|"
                r"mid_block|downsamples|upsamples)\."
            ),
            _load("Load VAE"),
        ),
        Kind(
            "a whole CLIP or SigLIP, text and vision",
            _all(_some(r"^(?:vision_model|visual)\."), _some(r"^(?:text_model|transformer\.resblocks)\.")),
            _load("Load CLIP Vision"),
            before=(_CLIP, _VISION, "a SigLIP vision model"),
        ),
        Kind(
            _CLIP,
            _some(
                _TOKENS
                + r"(?:encoder\.layers\.\d+\.(?:self_attn|mlp|layer_norm\d)\.|embeddings\.token_embedding\.|resblocks\.\d)"
            ),
            _load("Load CLIP"),
        ),
        Kind("a T5 text encoder", _some(r"(?:^|\.)encoder\.block\.\d+\.layer\.\d"), _load("Load CLIP")),
        Kind(
            "a SigLIP vision model",
            _all(_some(r"^vision_model\.head\."), _some(r"^vision_model\.encoder\.")),
            _load("Load CLIP Vision"),
            before=(_VISION,),
        ),
        Kind(
            _VISION,
            _some(r"^(?:vision_model|visual)\.(?:encoder|embeddings|transformer|conv1)\b"),
            _load("Load CLIP Vision"),
        ),
        Kind(
            "a DINO vision model", _some(r"^encoder\.layer\.\d+\.layer_scale\d\."), _load("Load CLIP Vision")
        ),
        Kind(
            "the projector of a LLaVA",
            _all(_some(r"^(?:model\.)?mm_projector\."), _not(_LANGUAGE)),
            "put it into the folder of its language model",
        ),
        Kind(
            GILL_CHECKPOINT,
            _some(r"(?:ret|gen)_text_hidden_fcs\."),
            _load("LLMGA GILL Loader"),
            before=(LANGUAGE_MODEL, VISION_LANGUAGE_MODEL),
        ),
        Kind(GILL_DECISION, lambda h: h.keys() == {"1.weight", "1.bias"}, _load("LLMGA GILL Loader")),
        Kind(
            VISION_LANGUAGE_MODEL,
            _all(
                _LANGUAGE,
                _some(
                    r"^(?:model\.|thinker\.)*(?:vision_tower|visual|vision_model|vision_encoder|mm_projector|"
                    r"multi_modal_projector)\."
                ),
            ),
            _LLM,
            before=(LANGUAGE_MODEL, _VISION, "a SigLIP vision model"),
        ),
        Kind(LANGUAGE_MODEL, _LANGUAGE, _LLM),
        # What restores and enlarges.
        Kind(
            DIFFRIR,
            _all(_some(r"^condition\.E\.0\."), _some(r"^G\.patch_embed\.")),
            _load("DiffRIR Loader"),
            before=("a part of a DiffRIR",),
        ),
        Kind(
            DIFFRIR_S1,
            _all(_some(r"^E\.E\.0\."), _some(r"^G\.patch_embed\.")),
            "it is given the true picture, so it cannot restore; choose the file of the second stage (S2 or its GAN stage)",
            before=("a part of a DiffRIR",),
        ),
        Kind(
            "a part of a DiffRIR",
            _some(
                r"^(?:G\.(?:patch_embed|encoder_level|latent|decoder|output|refinement)|E\.E\.\d|condition\.E\.\d|diffusion\.(?:model|betas)|denoise\.resmlp)"
            ),
            "choose the file of the whole network (BasicSR calls it net_g_*.pth)",
        ),
        Kind(
            "the discriminator of a training (DiffRIR, Real-ESRGAN)",
            _all(_some(r"^conv0\.(?:weight|parametrizations)"), _some(r"^conv9\.")),
            "choose the generator (BasicSR calls it net_g_*.pth)",
        ),
        Kind(
            TRAINING_STATE.name,
            _some(r"^(?:optimizers?|optimizer_states)\.|^state\.\d+\.(?:exp_avg|momentum_buffer|step)"),
            TRAINING_STATE.advice,
        ),
        Kind(
            "a Restormer, whose blocks no prior steers",
            _all(_some(r"^patch_embed\.proj\."), _some(r"^encoder_level1\.")),
            _load("Load Upscale Model"),
        ),
        Kind(
            "a transformer upscaler (SwinIR, HAT, DAT)",
            _some(r"^layers\.\d+\.(?:residual_group|blocks)\."),
            _load("Load Upscale Model"),
            before=("an ESRGAN upscaler",),
        ),
        Kind(
            "an ESRGAN upscaler",
            _some(r"^model\.\d+\.sub\.|^RRDB_trunk\.|^(?:body|trunk)\.\d+\.(?:rdb|RDB)\d|^conv_first\."),
            _load("Load Upscale Model"),
        ),
        Kind(
            "a compact upscaler (SRVGG)",
            _all(*(_some(rf"^body\.{i}\.weight$") for i in range(3))),
            _load("Load Upscale Model"),
        ),
    )
)
