"""The ControlNet's trainer: against diffusers' procedure written out, resuming, its files, and that it learns edges."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import load_file
from support.tiny_training import World, components
from support.tiny_training import config as stage2_config

pytest.importorskip("diffusers", reason="the ControlNet's networks are diffusers'")

from llmga.data.edges import canny
from llmga.diffusion.ldm import controlnet_to_ldm
from llmga.train import LoopConfig, build, generator, train
from llmga.train.config import _plain, read_config
from llmga.train.controlnet import (
    SINGLE_FILE,
    ControlNetConfig,
    ControlNetStage,
    new_controlnet,
    packed,
    unpacked,
)

LEARNED = "controlnet/diffusion_pytorch_model.safetensors"


def config(loop: dict[str, Any] | None = None, **values: Any) -> ControlNetConfig:
    made = _plain(stage2_config(loop))
    return build(ControlNetConfig, {**made, "flip": False, **values})


def train_tiny(output: Path, **values: Any) -> Path:
    loop = values.pop("loop", {})
    settings = config(loop, **values)
    return train(ControlNetStage(settings, components(), World()), settings.loop, output)


def prepared(parts: Any = None, pictures: Any = None, **values: Any) -> ControlNetStage:
    stage = ControlNetStage(config(**values), parts or components(), pictures or World())
    stage.prepare(torch.device("cpu"), 0, 1, lambda: None)
    return stage


def with_kl(parts: Any) -> Any:
    """The same networks with an autoencoder whose latents are drawn, as Stable Diffusion's are."""
    from diffusers import AutoencoderKL

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        parts.vae = AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            block_out_channels=(8,) * 4,
            norm_num_groups=4,
            latent_channels=4,
        )
    return parts


def by_diffusers(settings: ControlNetConfig, parts: Any) -> dict[str, torch.Tensor]:
    """The loop of diffusers 0.42's examples/controlnet/train_controlnet.py, on the draws of our order of examples."""
    from diffusers import DDPMScheduler
    from diffusers.models.attention_processor import AttnProcessor

    from llmga.train.example_order import ExampleOrder, derive

    loop, world = settings.loop, World()
    order, scheduler = ExampleOrder(len(world), loop.seed), DDPMScheduler.from_config(parts.scheduler_config)
    tokenizer, encoder, vae, unet = parts.tokenizers[0], parts.text_encoders[0], parts.vae, parts.unet
    for net in (vae, unet, encoder):
        net.requires_grad_(False).eval()
    controlnet = new_controlnet(unet, loop.seed).train()
    for net in (
        unet,
        controlnet,
    ):  # the order of sums in a fused kernel is another, and Adam enlarges what it changes
        net.set_attn_processor(AttnProcessor())
    optimizer = torch.optim.AdamW(controlnet.parameters(), lr=loop.lr, weight_decay=loop.weight_decay)
    for step in range(loop.steps):
        rows = order.take(step * loop.batch, loop.batch).tolist()
        draw = generator(loop.seed, step, 0, "batch")
        variants = torch.randint(2**31, (loop.batch,), generator=draw).tolist()
        dropped = (torch.rand(loop.batch, generator=draw) < settings.caption_dropout).tolist()
        pixels = torch.stack([world.image(i) for i in rows])
        captions = [
            "" if drop else world.caption(i, random.Random(derive(loop.seed, i, variant, "caption")))
            for i, variant, drop in zip(rows, variants, dropped, strict=True)
        ]
        ids = tokenizer(captions, max_length=77, padding="max_length", truncation=True, return_tensors="pt")

        draw = generator(loop.seed, step, 0, "loss")
        latents = vae.encode(pixels).latent_dist.sample(draw) * vae.config.scaling_factor
        noise = torch.randn(latents.shape, generator=draw)
        timesteps = torch.randint(0, scheduler.config["num_train_timesteps"], (loop.batch,), generator=draw)
        noisy = scheduler.add_noise(latents, noise, timesteps)  # type: ignore[arg-type]
        hidden = encoder(ids.input_ids)[0]
        edges = canny(pixels / 2 + 0.5, 0.3, 0.7).expand(-1, 3, -1, -1)
        down, middle = controlnet(noisy, timesteps, hidden, controlnet_cond=edges, return_dict=False)
        predicted = unet(
            noisy,
            timesteps,
            hidden,
            down_block_additional_residuals=list(down),
            mid_block_additional_residual=middle,
            return_dict=False,
        )[0]
        loss = F.mse_loss(predicted.float(), noise.float(), reduction="mean")
        loss.backward()
        torch.nn.utils.clip_grad_norm_(controlnet.parameters(), loop.clip)
        optimizer.step()
        optimizer.zero_grad()
    return controlnet.state_dict()


@pytest.mark.usefixtures("one_thread")
def test_ten_steps_are_those_of_diffusers(tmp_path: Path) -> None:
    """After ten steps at lr 1e-3 half of each tensor within 1e-6, and all of it within 2 % of what it moved; captions cut at
    77 tokens. AdamW takes a full step along a gradient that is but rounding, so single weights differ from CPU to CPU."""
    loop = {"steps": 10, "batch": 4, "micro_batch": 4, "ema": 0.0, "lr": 1e-3}
    settings = config(loop, variants=0, max_chunks=1, caption_dropout=0.3)
    parts = with_kl(components())
    before = new_controlnet(parts.unet, 0).state_dict()
    frozen = {name: value.clone() for name, value in parts.unet.state_dict().items()}
    ours = load_file(train(ControlNetStage(settings, parts, World()), settings.loop, tmp_path) / LEARNED)
    theirs = by_diffusers(settings, with_kl(components()))
    assert ours.keys() == theirs.keys() == before.keys()
    for name, value in theirs.items():
        moved = (value - before[name]).abs().max()
        assert moved > 0, name  # every weight has learnt something
        apart = (ours[name] - value).abs()
        assert apart.median() <= 1e-6 and apart.max() <= 0.02 * moved, name
    assert all(torch.equal(value, frozen[name]) for name, value in parts.unet.state_dict().items())


def test_it_begins_as_the_unet_alone() -> None:
    parts = components()
    stage = prepared(parts)
    inputs = stage.batch(torch.arange(4), generator(0))
    sample, t = torch.randn(4, 4, 4, 4, generator=generator(1)), torch.tensor([3, 300, 600, 999])
    context, _ = stage._conditioning(inputs)
    with torch.no_grad():
        assert torch.equal(stage._predict(sample, t, inputs), parts.unet(sample, t, context).sample)
    assert [*stage.modules()] == ["controlnet"]
    assert not any(p.requires_grad for net in (parts.unet, parts.vae) for p in net.parameters())


@pytest.mark.usefixtures("one_thread")
def test_a_resumed_run_is_the_uninterrupted_one(tmp_path: Path) -> None:
    whole = train_tiny(tmp_path / "whole", loop={"steps": 4})
    train_tiny(tmp_path / "parts", loop={"steps": 2})
    resumed = train_tiny(tmp_path / "parts", loop={"steps": 4})
    for name in (LEARNED, SINGLE_FILE):
        one, other = load_file(whole / name), load_file(resumed / name)
        assert all(torch.equal(value, other[key]) for key, value in one.items())


@pytest.mark.parametrize("sdxl", [False, True])
def test_the_result_in_both_layouts(tmp_path: Path, sdxl: bool) -> None:
    from diffusers import ControlNetModel

    from llmga.files.header import read_header
    from llmga.files.known_kinds import kind_of

    settings = config({"steps": 2, "sample_every": 2})
    folder = train(ControlNetStage(settings, components(sdxl=sdxl), World()), settings.loop, tmp_path)
    net = ControlNetModel.from_pretrained(folder / "controlnet").state_dict()
    single = load_file(folder / SINGLE_FILE)
    assert controlnet_to_ldm({name: name for name in net}).keys() == single.keys()
    for name, file_name in controlnet_to_ldm({name: name for name in net}).items():
        assert torch.equal(net[file_name], single[name])
    # lllyasviel/ControlNet's names; an SDXL network has its label embedding beside them
    assert {name.split(".")[1] for name in single} == {
        "input_blocks",
        "middle_block",
        "time_embed",
        "zero_convs",
        "middle_block_out",
        "input_hint_block",
    } | ({"label_emb"} if sdxl else set())
    assert single["control_model.input_hint_block.14.weight"].shape == (16, 256, 3, 3)
    assert single["control_model.zero_convs.3.0.weight"].shape == (32, 32, 1, 1)
    for path in (folder / SINGLE_FILE, folder / LEARNED):
        kind = kind_of(read_header(path))
        assert kind is not None and kind.name == "a ControlNet"
    # two examples of 32 pixels: the edges, the pictures, what was generated
    assert Image.open(tmp_path / "samples/step-00000002.png").size == (64, 96)


def test_a_name_that_is_no_controlnets_is_refused() -> None:
    for name in ("controlnet_tail.weight", "controlnet_down_blocks.0.1.weight", "up_block.weight"):
        with pytest.raises(ValueError, match=name):
            controlnet_to_ldm({name: 0})


class Pale(World):
    """Bars from faint to strong, so that thresholds decide what is an edge."""

    def image(self, i: int) -> torch.Tensor:
        return (super().image(i) + 1) * (i + 1) / 8 - 1

    def caption(self, i: int, rng: random.Random) -> str:
        return "a bar"


def test_cached_edges_are_those_of_the_pictures_mirrored_or_not(tmp_path: Path) -> None:
    world = Pale()
    values: dict[str, Any] = {"flip": True, "low_threshold": [0.1, 0.3], "high_threshold": [0.3, 2.0]}
    live, cached = (prepared(None, world, cache=folder, **values) for folder in (None, tmp_path))
    pairs = [(i, variant) for i in range(8) for variant in range(2)]
    where = torch.tensor(pairs)
    dropped = torch.zeros(len(pairs), dtype=torch.bool)
    kept, found = (
        stage._inputs(where[:, 0], where[:, 1], dropped).images["edges"] for stage in (cached, live)
    )
    assert torch.equal(kept, found)
    draws = live._variants()
    low, high = (torch.tensor([draws._threshold(pair, name) for pair in pairs]) for name in ("low", "high"))
    assert 0.1 <= low.min() < low.max() <= 0.3 <= high.min() < high.max() <= 2.0
    pictures = torch.stack([draws.picture(*pair)[0] for pair in pairs])
    mirrored = [
        not torch.equal(picture, world.image(i)) for picture, (i, _) in zip(pictures, pairs, strict=True)
    ]
    assert 0 < sum(mirrored) < len(pairs)
    assert torch.equal(unpacked(found.byte()), canny(pictures / 2 + 0.5, low, high).expand(-1, 3, -1, -1))
    assert not torch.equal(
        found,
        prepared(None, world, **values | {"high_threshold": [0.3, 0.4]})
        ._inputs(where[:, 0], where[:, 1], dropped)
        .images["edges"],
    )


def test_edges_are_packed_eight_a_byte() -> None:
    edges = (torch.rand(3, 1, 16, 24, generator=generator(0)) < 0.3).float()
    small = packed(edges)
    assert small.shape == (3, 16, 3) and small.dtype == torch.uint8
    assert torch.equal(unpacked(small), edges.expand(-1, 3, -1, -1))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ("task: inpainting", "task must be one of t2i; got 'inpainting'"),
        ("train_text_encoder: true", "train_text_encoder must be one of False; got True"),
        ("box_loss: 0.1", "UNet of a ControlNet is frozen; set box_loss=0"),
        ("box_loss_end: 0.1", "UNet of a ControlNet is frozen; set box_loss=0"),
        ("low_threshold: [0.3, 0.1]", r"low_threshold must be \[least, most\]"),
        ("low_threshold: [0.0, 0.1]", "0 < low"),
        ("low_threshold: [0.1, 0.8]", "low_threshold ends at 0.8, above the least high_threshold, 0.7"),
        ("high_threshold: 0.7", "high_threshold must be"),
    ],
)
def test_a_configuration_that_does_not_fit_is_refused(tmp_path: Path, values: str, message: str) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("loop: {steps: 1, batch: 1, micro_batch: 1, lr: 1e-5}\n" + values, encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        read_config(ControlNetConfig, path)


def test_networks_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="shrinks pictures by 8, that of base shrinks by 2"):
        ControlNetStage(config(), components(kl=True), World())
    with pytest.raises(ValueError, match="4 input channels, not 9"):
        ControlNetStage(config(), components(channels=9), World())
    with pytest.raises(ValueError, match="whose cross_attention_dim is 8, to fit the UNet of base; it is 20"):
        other = new_controlnet(components(sdxl=True).unet, 0)
        ControlNetStage(config(), components(), World(), other)

    class Odd(World):
        def image(self, i: int) -> torch.Tensor:
            return super().image(i)[..., :28]

    with pytest.raises(ValueError, match="multiples of 8, got 28 × 32; change pictures.resolution"):
        prepared(pictures=Odd())._inputs(torch.tensor([0]), torch.tensor([0]), torch.tensor([False]))


def test_the_presets_are_what_they_say() -> None:
    diffusers = read_config(ControlNetConfig, "controlnet-diffusers-sd15")
    loop = diffusers.loop
    assert (loop.lr, loop.batch, loop.weight_decay, loop.clip) == (1e-5, 4, 0.01, 1.0)
    assert (loop.schedule, loop.warmup, loop.ema, diffusers.caption_dropout) == ("constant", 0, 0.0, 0.0)
    assert not diffusers.flip and (diffusers.low_threshold, diffusers.high_threshold) == (
        (0.3,) * 2,
        (0.7,) * 2,
    )
    paper = read_config(ControlNetConfig, "controlnet-paper-sd15")
    assert paper.caption_dropout == 0.5 and paper.loop == loop
    assert (
        paper.low_threshold[0] < paper.low_threshold[1] and paper.high_threshold[0] < paper.high_threshold[1]
    )
    assert isinstance(loop, LoopConfig) and diffusers.pictures is not None


def test_a_run_from_files_goes_on_from_another_controlnet(tmp_path: Path) -> None:
    """Everything that ``llmga train controlnet`` reads, written as published: a pipeline, records, pictures."""
    import json

    from llmga.__main__ import main
    from miniworld.models.painter import pipeline_of

    parts = components()
    pipeline_of(parts.unet, parts.text_encoders[0], parts.vae).save_pretrained(tmp_path / "base")
    records = []
    for i in range(4):
        pixels = ((World().image(i) / 2 + 0.5) * 255).byte().permute(1, 2, 0).numpy()
        Image.fromarray(pixels).save(tmp_path / f"{i}.png")
        records.append({"image": f"{i}.png", "caption": f"bar {i}"})
    (tmp_path / "records.json").write_text(json.dumps(records), encoding="utf-8")
    begun = new_controlnet(parts.unet, 9)
    begun.save_pretrained(tmp_path / "begun")
    (tmp_path / "run.yaml").write_text(
        f"base: {tmp_path / 'base'}\nstart: {tmp_path / 'begun'}\n"
        f"pictures: {{records: {tmp_path / 'records.json'}, root: {tmp_path}, resolution: 32}}\n"
        "loop: {steps: 1, batch: 4, micro_batch: 2, lr: 0.0, cpu: true, weight_decay: 0.0}\n",
        encoding="utf-8",
    )
    arguments = ["--config", str(tmp_path / "run.yaml"), "--output", str(tmp_path / "run")]
    assert main(["train", "controlnet", *arguments]) == 0
    learned = load_file(tmp_path / "run" / "result" / LEARNED)
    assert all(torch.equal(value, learned[name]) for name, value in begun.state_dict().items())


def test_edges_are_larger_behind_an_encoder_that_begins_as_he_says() -> None:
    unet = components().unet
    edges = (torch.rand(2, 3, 32, 32, generator=generator(0)) < 0.1).float()
    sizes = {}
    for name in ("diffusers", "he"):
        encoder = new_controlnet(unet, 0, name).controlnet_cond_embedding
        assert not any(p.any() for p in encoder.conv_out.parameters())
        with torch.no_grad():
            both = []
            for x in (edges, edges * 0):
                for layer in (encoder.conv_in, *encoder.blocks):
                    x = F.silu(layer(x))
                both.append(x)
        sizes[name] = float((both[0] - both[1]).std())
    assert sizes["diffusers"] < 1e-3 and sizes["he"] > 100 * sizes["diffusers"]
    made = ControlNetStage(config(hint_init="he"), components(), World()).controlnet
    assert torch.equal(
        made.controlnet_cond_embedding.conv_in.weight,
        new_controlnet(unet, 0, "he").state_dict()["controlnet_cond_embedding.conv_in.weight"],
    )
