"""The editing nodes in this process: what each says of a wrong input, and of what it leaves out."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from support import comfy_inprocess as comfy
from support.edit_nodes import EDIT, LONG, SOURCE, TARGET, edit, execute, invert, p2p, picture

REASON = comfy.skip_reason()


pytestmark = pytest.mark.skipif(REASON is not None, reason=str(REASON))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "connect either inversion or image, got neither"),
        ({"image": picture(1, 1)}, "image is 1×1 pixels, and an edit needs 32 on each side; scale it up"),
        ({"image": picture(31, 64)}, "image is 64×31 pixels"),
        ({"image": torch.full((1, 64, 64, 3), float("nan"))}, "image holds NaN"),
        ({"image": torch.zeros(64, 64)}, "image must be an IMAGE"),
        ({"image": picture(), "source_prompt": 3}, "source_prompt must be text"),
        ({"image": picture(), "model": None}, "model must be a MODEL, got NoneType"),
        ({"image": picture(), "clip": None}, "clip must be a CLIP"),
        ({"image": picture(), "vae": None}, "vae must be a VAE, got NoneType"),
        ({"image": picture(), "steps": 0}, "steps must be a whole number from 1 to 999"),
        ({"image": picture(), "cfg": float("nan")}, "cfg must be a number from 1 to 30"),
        ({"image": picture(), "cross_replace": 1.5}, "cross_replace must be a number from 0 to 1"),
        ({"image": picture(), "self_replace": True}, "self_replace must be a number from 0 to 1"),
        ({"image": picture(), "local_blend": "maybe"}, "local_blend must be one of auto, off"),
        ({"image": picture(), "layout": "host"}, "layout must be one of llmga, llmga_lpw"),
        ({"image": picture(), "options": 3}, "options must come from Prompt-to-Prompt Options"),
        ({"image": picture(), "mask": torch.ones(3)}, "mask must be a MASK"),
        (
            {"image": picture(), "mask": torch.ones(2, 64, 64)},
            "mask holds 2 masks for 1 pictures in image; give one",
        ),
        (
            {"image": picture(batch=2), "mask": torch.ones(3, 64, 64)},
            "mask holds 3 masks for 2 pictures in image",
        ),
        ({"image": picture(), "source_prompt": "a \ud83d star"}, "source_prompt holds half a surrogate pair"),
        ({"image": picture(), "negative_prompt": "\udfff"}, "negative_prompt holds half a surrogate pair"),
        ({"image": picture(), "target_prompt": "a star \ud83d"}, "target_prompt holds half a surrogate pair"),
        (
            {"image": picture(), "control": {"a": 1}},
            "control must be a CONDITIONING from Apply ControlNet, got dict",
        ),
        ({"image": picture(), "control": 3}, "control must be a CONDITIONING from Apply ControlNet, got int"),
        ({"image": picture(), "inversion": "x"}, "inversion must come from Invert"),
    ],
)
def test_wrong_inputs_of_an_edit(trio: Any, options: dict[str, Any], message: str) -> None:
    given = dict(zip(("model", "clip", "vae"), trio, strict=True))
    with pytest.raises(ValueError, match=message):
        execute(
            "edit",
            "InversionEdit",
            **{"target_prompt": TARGET, **given, **EDIT, "source_prompt": SOURCE, **options},
        )


def test_what_the_inversion_has_already_is_not_asked_twice(trio: Any) -> None:
    inversion = invert(trio)[0]
    for options, message in (
        ({"image": picture()}, "inversion and image are both connected"),
        ({"control": []}, "inversion and control are both connected"),
        ({"source_prompt": "another"}, "source_prompt differs from the prompt"),
    ):
        with pytest.raises(ValueError, match=message):
            edit(trio, inversion=inversion, **options)
    edit(trio, inversion=inversion, source_prompt=f" {SOURCE}\n")
    with pytest.raises(ValueError, match="mask holds 2 masks for 1 pictures in inversion"):
        edit(trio, inversion=inversion, mask=torch.ones(2, 64, 64))


def test_null_is_no_prompt_where_a_prompt_is_optional(trio: Any) -> None:
    """ComfyUI makes the word None of a null in an API prompt."""
    inversion = invert(trio)[0]
    plain = edit(trio, inversion=inversion)
    for null in (None, "None"):
        again = edit(trio, inversion=inversion, source_prompt=null, negative_prompt=null)
        assert torch.equal(again[0], plain[0]) and again[3] == plain[3]


LONG_TARGET = "a large blue star, " + "a small quiet house by the old wide river, " * 45


CUT = "a large red star, " + "a small quiet house by the old wide river, " * 45


def test_what_is_cut_of_target_and_negative_prompt_is_said(trio: Any) -> None:
    report = edit(trio, LONG_TARGET, image=picture(), source_prompt=CUT, negative_prompt=LONG * 4)[3]
    (target,) = (line for line in report.split("\n") if line.startswith("target prompt: DROPPED"))
    assert "beyond the 4 chunks of 75 tokens that a prompt may have: " in target
    (negative,) = (line for line in report.split("\n") if line.startswith("negative prompt: DROPPED"))
    assert "beyond the 4 × 75 tokens of source and target prompt" in negative
    short = edit(trio, image=picture(), source_prompt=SOURCE, negative_prompt=LONG)[3]
    assert "negative prompt: DROPPED" in short and "beyond the 1 × 75 tokens" in short
    assert "target prompt: DROPPED" not in short
    assert "DROPPED" not in edit(trio, image=picture(), source_prompt=SOURCE, negative_prompt="a tree")[3]


def test_a_negative_prompt_without_effect_is_said(trio: Any) -> None:
    given = {"image": picture(), "source_prompt": SOURCE, "cfg": 1.0}
    assert "no effect at cfg 1" in edit(trio, negative_prompt="a tree", **given)[3]
    assert "no effect" not in edit(trio, **given)[3]


def test_embeddings_that_are_left_out_are_said(
    trio: Any, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trio[1].tokenizer.clip_l, "embedding_directory", str(tmp_path))
    given = {"image": picture(), "source_prompt": f"embedding:gone {SOURCE}"}
    report = edit(trio, f"embedding:nothere {TARGET}", negative_prompt="embedding:bad", **given)[3]
    for line in (
        "target_prompt: LEFT OUT: no embedding nothere",
        "source_prompt: LEFT OUT: no embedding gone",
    ):
        assert line in report
    assert "negative_prompt: LEFT OUT: no embedding bad" in report
    assert "source_prompt: LEFT OUT: no embedding gone" in invert(trio, f"embedding:gone {SOURCE}")[2]
    with pytest.raises(ValueError, match="target_prompt holds 'embedding:' without a name"):
        edit(trio, "a star embedding:", image=picture(), source_prompt=SOURCE)


def test_a_vae_of_another_kind_is_named(trio: Any) -> None:
    class Video:
        def encode(self, pixels: torch.Tensor) -> torch.Tensor:
            raise RuntimeError("expected 5D input")

        def decode(self, samples: torch.Tensor) -> torch.Tensor:
            raise NotImplementedError

    with pytest.raises(
        ValueError, match=r"vae cannot encode the picture \(expected 5D input\); connect the VAE"
    ):
        invert((*trio[:2], Video()))


def test_invert_takes_one_picture(trio: Any) -> None:
    with pytest.raises(ValueError, match="connect either image or latent, got neither"):
        invert(trio, image=None)
    with pytest.raises(ValueError, match="connect either image or latent, got both"):
        invert(trio, image=picture(), latent={"samples": torch.zeros(1, 4, 8, 8)})


def test_an_inversion_of_another_model(trios: dict[str, Any]) -> None:
    inversion = invert(trios["sd15"])[0]
    with pytest.raises(ValueError, match="another kind of model"):
        edit(trios["sdxl"], inversion=inversion)
    model, clip, vae = trios["sd15"]
    other = model.clone()
    weights = model.model.diffusion_model.state_dict()
    other.add_patches({"diffusion_model.out.2.bias": ("diff", (weights["out.2.bias"] * 0 + 0.1,))})
    assert "other LoRAs" in edit((other, clip, vae), inversion=inversion)[3]
    assert "other LoRAs" not in edit((model.clone(), clip, vae), inversion=inversion)[3]


@pytest.mark.parametrize(
    ("latent", "message"),
    [
        (3, "latent must be a LATENT of 4 channels"),
        ({"samples": torch.zeros(1, 16, 8, 8)}, "latent must be a LATENT of 4 channels"),
        ({"samples": torch.zeros(1, 4, 1, 1)}, "latent is of a picture of 8×8 pixels"),
    ],
)
def test_wrong_latents(trio: Any, latent: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        invert(trio, latent=latent)


@pytest.mark.parametrize("kind", ["sd3", "flux"])
def test_another_text_encoder(trio: Any, kind: str) -> None:
    with pytest.raises(ValueError, match="clip is not the text encoder of SD1.5 or SDXL"):
        invert((trio[0], comfy.tiny_clip(kind), trio[2]))


def test_the_text_encoder_of_another_checkpoint(trios: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="clip gives"):
        invert((trios["sd15"][0], trios["sdxl"][1], trios["sd15"][2]))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"word_weights": "fox"}, "word_weights must hold entries such as"),
        ({"word_weights": "fox: 21"}, "'fox' has weight 21, allowed is -20 to 20"),
        ({"word_weights": "fox: nan"}, "word_weights must hold entries"),
        ({"word_weights": "fox: 1e999"}, "word_weights must hold entries"),
        ({"word_steps": "fox: 0.5 to 0.2"}, "'fox' has 0.5 to 0.2"),
        ({"word_steps": "fox: 2"}, "'fox' has 0 to 2"),
        ({"blend_words": "a," * 101}, "at most 100 words"),
        ({"blend_threshold": -1}, "blend_threshold must be a number from 0 to 1"),
        ({"mode": "both"}, "mode must be one of auto, refine, replace"),
        ({"self_max": "x"}, "self_max must be a number"),
    ],
)
def test_wrong_options(options: dict[str, Any], message: str) -> None:
    comfy.start()
    with pytest.raises(ValueError, match=message):
        p2p(**options)


def test_schemas_are_documented() -> None:
    comfy.start()
    for module in ("edit", "edit_options", "inversion", "edit_instruction"):
        for node in comfy.pack(f"nodes.{module}").NODES:
            schema = node.GET_SCHEMA()
            assert schema.description and schema.search_aliases
            assert all(socket.tooltip for socket in (*schema.inputs, *schema.outputs))


def test_what_is_not_a_number_is_said_where_it_comes_from(trio: Any) -> None:
    model, clip, vae = trio

    class Broken:
        decode, latent_channels = vae.decode, 4

        def encode(self, image: torch.Tensor) -> torch.Tensor:
            return vae.encode(image) * torch.nan

    broken = model.clone()
    broken.set_model_unet_function_wrapper(lambda apply, given: given["input"] * torch.nan)
    with pytest.raises(ValueError, match="vae gives NaN or infinite numbers; start ComfyUI with --fp32-vae"):
        invert((model, clip, Broken()), image=picture())

    class Black(Broken):
        encode = vae.encode

        def decode(self, samples: torch.Tensor) -> torch.Tensor:
            return vae.decode(samples) * torch.nan

    with pytest.raises(ValueError, match="vae gives NaN or infinite numbers; start ComfyUI with --fp32-vae"):
        invert((model, clip, Black()), image=picture())
    with pytest.raises(ValueError, match="model, at timestep .*, gives NaN or infinite numbers; load it in"):
        invert((broken, clip, vae), image=picture())
    latent = {"samples": vae.encode(picture()) * torch.nan}
    with pytest.raises(ValueError, match="latent holds NaN or infinite numbers; look at the node that made"):
        invert(trio, image=None, latent=latent)
