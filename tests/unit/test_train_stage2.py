"""Stage 2: its inputs against literal compositions and the inference encoders, caches, joint training, overfitting."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import load_file
from support.tiny_training import World, components, config, result

pytest.importorskip("diffusers", reason="stage 2 needs diffusers")

from llmga.text import encode_sd15, encode_sdxl, join_chunks
from llmga.train import CaptionedPictures, Stage2, generator, names_a_side, train
from llmga.train import cache as caching
from llmga.train.log import read_log

TEXTS = ["", "a red bar", "a bar and so on" * 30, "one" * 40 + " bar" * 80]


class Told(World):
    """Captions of no, one and several chunks, and no chance in them."""

    def __len__(self) -> int:
        return len(TEXTS)

    def caption(self, i: int, rng: Any) -> str:
        return TEXTS[i]


def prepared(parts: Any, pictures: Any = None, **values: Any) -> Stage2:
    trainer = Stage2(config(**values), parts, pictures or World())
    trainer.prepare(torch.device("cpu"), 0, 1, lambda: None)
    return trainer


def losses(output: Path) -> list[float]:
    return [row["loss"] for row in read_log(output / "log.jsonl")]


def inputs_of(trainer: Stage2, count: int, dropped: list[int] | None = None) -> Any:
    drops = torch.tensor([i in (dropped or []) for i in range(count)])
    return trainer._inputs(torch.arange(count), torch.zeros(count, dtype=torch.int64), drops)


class Recorder(torch.nn.Module):
    """Stands in for the UNet: keeps what it was given."""

    def __init__(self, unet: Any) -> None:
        super().__init__()
        self.config = unet.config

    def forward(self, sample, timesteps, context, **added):
        self.given = (sample, timesteps, context, added)
        return type("Output", (), {"sample": sample[:, :4] * 0})


def test_the_conditioning_is_that_of_inference_sd15() -> None:
    parts = components()
    trainer = prepared(parts, Told())
    inputs = inputs_of(trainer, len(TEXTS))
    ours = join_chunks(inputs.chunks["hidden"][inputs.where], "llmga")
    theirs = encode_sd15(parts.tokenizers[0], parts.text_encoders[0], TEXTS)
    assert ours.shape == theirs.shape == (4, 75 * 2 + 2, 8)
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)
    # dropped captions are empty ones, and a batch is as long as its longest that is left
    dropped = inputs_of(trainer, len(TEXTS), [2, 3])
    theirs = encode_sd15(parts.tokenizers[0], parts.text_encoders[0], [*TEXTS[:2], "", ""])
    torch.testing.assert_close(
        join_chunks(dropped.chunks["hidden"][dropped.where], "llmga"), theirs, atol=1e-5, rtol=1e-5
    )


def test_the_conditioning_is_that_of_inference_sdxl() -> None:
    parts = components(sdxl=True)
    trainer = prepared(parts, Told())
    parts.unet = Recorder(parts.unet)
    trainer.loss(inputs_of(trainer, len(TEXTS)), generator(0))
    *_, context, added = parts.unet.given
    hidden, pooled = encode_sdxl(parts.tokenizers, parts.text_encoders, TEXTS)  # type: ignore[arg-type]
    torch.testing.assert_close(context, hidden, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(added["added_cond_kwargs"]["text_embeds"], pooled, atol=1e-5, rtol=1e-5)
    assert added["added_cond_kwargs"]["time_ids"].tolist() == [[32, 32, 0, 0, 32, 32]] * 4


def test_inpainting_inputs_are_the_literal_composition() -> None:
    """The official trainer's: cat(noisy, nearest mask, latents of the picture with a grey hole); ε-MSE."""
    parts, world = components(channels=9, kl=True), World()
    trainer = prepared(parts, world, task="inpainting", flip=False)
    inputs = inputs_of(trainer, 8)
    parts.unet = Recorder(parts.unet)
    loss, _ = trainer.loss(inputs, generator(3))
    sample, timesteps, *_ = parts.unet.given

    from diffusers import DDPMScheduler

    image = torch.stack([world.image(i) for i in range(8)])
    mask = torch.stack([world.mask(i, generator(0, i, 0, "mask")) for i in range(8)])
    draw = generator(3)
    with torch.no_grad():
        dist = parts.vae.encode(image).latent_dist
        hidden = parts.vae.encode(image * (1 - mask)).latent_dist
    scale = parts.vae.config.scaling_factor
    latents = (dist.mean + dist.std * torch.randn(dist.mean.shape, generator=draw)) * scale
    noise = torch.randn(latents.shape, generator=draw)
    times = torch.randint(1000, (8,), generator=draw)
    masked = (hidden.mean + hidden.std * torch.randn(hidden.mean.shape, generator=draw)) * scale
    noisy = DDPMScheduler.from_config(parts.scheduler_config).add_noise(latents, noise, times)
    literal = torch.cat([noisy, F.interpolate(mask, latents.shape[-2:], mode="nearest"), masked], 1)
    assert torch.equal(timesteps, times)
    assert 0 < literal[:, 4].mean() < 1
    torch.testing.assert_close(sample, literal, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(loss, noise.square().mean(), atol=1e-6, rtol=0)


def test_the_loss_weight_is_one_over_alpha_up_to_60() -> None:
    parts = components()
    trainer = prepared(parts, loss_weight="inverse_alpha")
    parts.unet = Recorder(parts.unet)
    loss, metrics = trainer.loss(inputs_of(trainer, 8), generator(3))
    draw = generator(3)
    noise = torch.randn(8, 4, 4, 4, generator=draw)
    alpha = trainer._scheduler.alphas_cumprod[torch.randint(1000, (8,), generator=draw)]
    squares = noise.square().mean((1, 2, 3))
    assert (1 / alpha).max() > 60 > (1 / alpha).min()
    torch.testing.assert_close(loss, (squares * (1 / alpha).clamp(max=60)).mean())
    torch.testing.assert_close(metrics["mse"], squares.mean())


def test_offset_noise_hides_the_mean_and_stratified_timesteps_are_spread() -> None:
    shape = torch.Size((4000, 4, 8, 8))
    for strength in (0.0, 0.3):
        noise = prepared(components(), noise_offset=strength)._noise(shape, generator(0))
        assert noise.mean((2, 3)).var().item() == pytest.approx(1 / 64 + strength**2, rel=0.05)
        assert (noise - noise.mean((2, 3), keepdim=True)).var().item() == pytest.approx(63 / 64, rel=0.02)
    plain = torch.randn(shape, generator=generator(0))
    assert torch.equal(prepared(components())._noise(shape, generator(0)), plain)
    trainer, seen = prepared(components(), stratified=True), []
    for seed in range(200):
        times = trainer._timesteps(8, generator(seed))
        assert times.min() >= 0 and times.max() < 1000
        assert (times.sort().values // 125).unique().numel() >= 7  # one in each eighth, but for rounding
        seen.append(times)
    first = torch.stack(seen)[:, 0].float()
    assert (
        first.mean().item() == pytest.approx(499.5, abs=70) and first.std() > 200
    )  # uniform for each example
    with pytest.raises(ValueError, match="noise_offset must not be negative"):
        config(noise_offset=-0.1)


def test_widening_for_inpainting_keeps_what_the_net_says() -> None:
    narrow, wide = components(), components()
    Stage2(config(task="inpainting"), wide, World())
    x, t, text = torch.randn(1, 9, 4, 4), torch.tensor([5]), torch.randn(1, 77, 8)
    with torch.no_grad():
        assert torch.equal(wide.unet.eval()(x, t, text).sample, narrow.unet.eval()(x[:, :4], t, text).sample)
    assert wide.unet.config.in_channels == 9


@pytest.mark.parametrize("case", ["t2i", "inpainting", "sdxl", "joint"])
def test_cached_is_uncached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str) -> None:
    """To 1e-5 of the loss: encoders round differently in batches of another size."""
    monkeypatch.setattr(caching, "ROWS_PER_SHARD", 5)  # several shards
    values: dict[str, Any] = {"task": "inpainting"} if case == "inpainting" else {}
    values |= {"train_text_encoder": True} if case == "joint" else {}
    runs = {
        "live": {},
        "disk": {"cache": tmp_path / "cache"},
        "memory": {"cache": tmp_path / "cache", "cache_in_memory": True},
    }
    for name, extra in runs.items():
        settings = config({"steps": 4}, **values, **extra)
        parts = components(sdxl=case == "sdxl", channels=9 if case == "inpainting" else 4)
        train(Stage2(settings, parts, World()), settings.loop, tmp_path / name)
    assert losses(tmp_path / "disk") == losses(tmp_path / "memory")
    assert losses(tmp_path / "live") == pytest.approx(losses(tmp_path / "disk"), rel=1e-5)
    assert len({round(loss, 6) for loss in losses(tmp_path / "live")}) == 4
    folders = list((tmp_path / "cache").iterdir())
    assert len(folders) == 1
    assert len(list(folders[0].glob("images-*.safetensors"))) == 4  # 16 draws, 5 a shard


def test_a_cache_goes_on_where_it_was_left_and_knows_its_inputs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(caching, "ROWS_PER_SHARD", 5)
    calls: list[int] = []

    class Counting(World):
        def image(self, i: int) -> torch.Tensor:
            calls.append(i)
            return super().image(i)

    def images_read(**values: Any) -> int:
        calls.clear()
        prepared(components(), Counting(), cache=tmp_path, **values)
        return len(calls)

    assert images_read() == 16
    assert images_read() == 0
    (folder,) = tmp_path.iterdir()
    assert json.loads((folder / "manifest.json").read_text(encoding="utf-8"))["pictures"] == "bars"
    (folder / "images-00001.safetensors").unlink()
    assert images_read() == 5
    assert images_read(flip=False) == 16
    assert images_read(cache_dtype="float16") == 16


def test_pictures_are_mirrored_only_where_no_side_is_named() -> None:
    trainer = prepared(components(), variants=0)
    draws = trainer._source.encoder.draws  # type: ignore[attr-defined]
    mirrored = {
        i: sum(not torch.equal(draws.picture(i, v)[0], World().image(i)) for v in range(60)) for i in (0, 6)
    }
    assert mirrored[0] == 0 and 15 < mirrored[6] < 45
    assert (
        names_a_side("The LEFT one") and names_a_side("左边") and not names_a_side("bright, cleft, upright")
    )


def test_the_text_encoder_is_trained_too_and_exported(tmp_path: Path) -> None:
    from transformers import CLIPTextModel

    settings = config({"steps": 3}, train_text_encoder=True)
    parts = components()
    before = {name: value.clone() for name, value in parts.text_encoders[0].state_dict().items()}
    folder = train(Stage2(settings, parts, World()), settings.loop, tmp_path)
    exported = CLIPTextModel.from_pretrained(folder / "text_encoder").state_dict()
    moved = [name for name in before if not torch.equal(before[name], exported[name])]
    assert any("q_proj" in name for name in moved) and any("token_embedding" in name for name in moved)
    average = load_file(tmp_path / "checkpoints/step-00000003/ema.safetensors")
    assert all(
        torch.equal(exported[n], average[f"parts.text_encoder.{n}"])
        for n in exported
        if f"parts.text_encoder.{n}" in average
    )
    frozen = components()
    train(Stage2(config({"steps": 3}), frozen, World()), settings.loop, tmp_path / "frozen")
    assert all(torch.equal(before[n], v) for n, v in frozen.text_encoders[0].state_dict().items())


def test_the_result_is_a_diffusers_folder_and_samples_are_drawn(tmp_path: Path) -> None:
    from diffusers import DDIMScheduler, UNet2DConditionModel

    settings = config({"steps": 2, "sample_every": 2}, task="inpainting")
    folder = train(Stage2(settings, components(), World()), settings.loop, tmp_path)
    unet = UNet2DConditionModel.from_pretrained(folder / "unet")
    assert unet.config["in_channels"] == 9
    assert all(torch.equal(v, result(folder)[n]) for n, v in unet.state_dict().items())
    assert DDIMScheduler.from_pretrained(folder / "scheduler").config["beta_schedule"] == "scaled_linear"
    # two examples of 32 pixels: the pictures, their masked versions, what was generated
    assert Image.open(tmp_path / "samples/step-00000002.png").size == (64, 96)


def test_it_learns_eight_pictures(tmp_path: Path) -> None:
    loop = {"steps": 60, "batch": 8, "micro_batch": 8, "lr": 3e-3, "save_every": 60}
    settings = config(loop, caption_dropout=0.0, cache=tmp_path / "cache", cache_in_memory=True)
    train(Stage2(settings, components(), World()), settings.loop, tmp_path)
    curve = losses(tmp_path)
    assert sum(curve[-10:]) / 10 < 0.6 * sum(curve[:5]) / 5


def test_what_does_not_fit_is_refused() -> None:
    parts = components()
    parts.scheduler_config["prediction_type"] = "v_prediction"
    with pytest.raises(ValueError, match="v_prediction"):
        Stage2(config(), parts, World())
    with pytest.raises(ValueError, match="two"):
        Stage2(config(train_text_encoder=True), components(sdxl=True), World())
    with pytest.raises(ValueError, match="4 input channels, not 9"):
        Stage2(config(), components(channels=9), World())
    with pytest.raises(ValueError, match="cache_in_memory needs cache"):
        config(cache_in_memory=True)


def test_the_official_list(tmp_path: Path) -> None:
    Image.new("L", (30, 20), 255).save(tmp_path / "grey.png")
    Image.new("RGBA", (16, 16), (255, 0, 0, 0)).save(tmp_path / "clear.png")
    half = Image.new("RGB", (40, 20), "black")
    half.paste("white", (20, 0, 40, 20))
    half.save(tmp_path / "half.png")
    names = ["grey.png", "clear.png", "half.png"]
    records = [{"image": name, "caption": "long", "ori_caption": "short"} for name in names]
    path = tmp_path / "train.json"
    path.write_text(json.dumps(records), encoding="utf-8")
    pictures = CaptionedPictures(path, tmp_path, 10, short_captions=0.3)
    assert len(pictures) == 3
    assert torch.equal(pictures.image(0), torch.ones(3, 10, 10)) and torch.equal(
        pictures.image(1), torch.ones(3, 10, 10)
    )
    centre = pictures.image(2)  # 20 × 10, of which columns 5 to 14 are kept
    assert centre[:, :, :4].max() == -1 and centre[:, :, 6:].min() == 1
    assert pictures.size(2) == (20, 40, 0, 5, 10, 10)
    import random

    drawn = [pictures.caption(0, random.Random(seed)) for seed in range(200)]
    assert 30 < drawn.count("short") < 90
    mask = pictures.mask(0, generator(1))
    assert mask.shape == (1, 10, 10) and set(mask.unique().tolist()) <= {0.0, 1.0}
    assert torch.equal(mask, pictures.mask(0, generator(1)))
    before = pictures.fingerprint()
    Image.new("L", (31, 20)).save(tmp_path / "grey.png")
    assert CaptionedPictures(path, tmp_path, 10, 0.3).fingerprint() != before
    path.write_text('[{"image": "a"}]', encoding="utf-8")
    with pytest.raises(ValueError, match="record 0: 'image' and 'caption'"):
        CaptionedPictures(path, tmp_path, 10)
