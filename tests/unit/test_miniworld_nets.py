"""The miniature's autoencoder and text encoder: what they start from, what they leave out, what they learn."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

pytest.importorskip("diffusers", reason="the painter's networks are diffusers'")

from llmga.evaluate import psnr
from llmga.train import LoopConfig, train
from llmga.train.log import read_log
from miniworld.models.architecture import PICTURE
from miniworld.models.autoencoder import AutoencoderConfig, AutoencoderTrainer
from miniworld.models.batch_renorm import BatchRenorm
from miniworld.models.narrow_taesd import NarrowTaesd, narrowed, widened
from miniworld.models.painter import load_text_encoder, load_unet, new_autoencoder, new_unet, write_float8
from miniworld.models.text_encoder import WordsConfig, WordsTrainer
from miniworld.world.dataset import Mix, Painted, Scenes, as_images, captions_of, painted
from miniworld.world.scene import PLACES, UNIT

LOOP = LoopConfig(steps=1, batch=8, micro_batch=8, lr=1e-3, mixed_precision="no", cpu=True)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Painted:
    return painted(Scenes(256, seed=5), tmp_path_factory.mktemp("scenes"), workers=1, size=PICTURE)


@torch.no_grad()
def test_an_autoencoder_starts_with_the_colours(source: Painted) -> None:
    trainer = AutoencoderTrainer(AutoencoderConfig(LOOP, pictures=64), source)
    images = as_images(torch.from_numpy(source.pictures[:12]))
    made = trainer.net.decoder(trainer.norm.eval()(trainer.net.encoder(images))).clamp(-1, 1)
    grey = images.mean((0, 2, 3), keepdim=True).expand_as(images)
    assert psnr(made, images, peak=2).mean() > psnr(grey, images, peak=2).mean() + 3
    coarse = torch.stack([F.avg_pool2d(x, 32).flatten() for x in (made, images)])
    assert coarse.corrcoef()[0, 1] > 0.85


@torch.no_grad()
def test_the_narrow_net_is_itself_in_taesds_layout(source: Painted) -> None:
    from diffusers import AutoencoderTiny

    images = as_images(torch.from_numpy(source.pictures[:2, :128, :128]))
    torch.manual_seed(0)
    narrow, wide = NarrowTaesd(), new_autoencoder()
    wide.load_state_dict(widened(narrow.state_dict()))
    latents = narrow.encoder(images)
    # float32, sums with zeros between them: another order
    torch.testing.assert_close(wide.encode(images).latents, latents, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(wide.decode(latents).sample, narrow.decoder(latents), atol=1e-5, rtol=1e-5)
    weights = sum(value.numel() for value in wide.state_dict().values())
    lean = narrowed(wide)
    assert sum(value.numel() for value in lean.state_dict().values()) < 0.6 * weights
    torch.testing.assert_close(lean.decode(latents).sample, narrow.decoder(latents), atol=1e-5, rtol=1e-5)
    assert isinstance(lean, AutoencoderTiny)
    # weights that do something stay; blocks of zeros do nothing
    busy = new_autoencoder()
    before, made = busy.encoder.layers[3], busy.encode(images).latents
    for weight in before.parameters():
        weight.zero_()
    without = busy.encode(images).latents
    assert not torch.equal(made, without)
    assert isinstance(narrowed(busy).encoder.layers[3], torch.nn.ReLU)
    torch.testing.assert_close(busy.encode(images).latents, without, atol=1e-5, rtol=1e-5)
    assert busy.encoder.layers[4].conv[0].weight.shape[0] == 64


def test_crops_lie_around_objects(source: Painted) -> None:
    marked = replace(source, pictures=np.zeros_like(source.pictures))
    for picture, labels in zip(marked.pictures, source.labels, strict=True):
        for k, (x, y) in enumerate(PLACES.values()):
            if labels[4 * k] >= 0:
                picture[y * PICTURE // UNIT, x * PICTURE // UNIT] = 255
    shares = {}
    for share in (0.0, 0.5, 1.0):
        trainer = AutoencoderTrainer(AutoencoderConfig(LOOP, 32, around_objects=share), marked)
        trainer.prepare(torch.device("cpu"), 0, 1, lambda: None)
        crops = trainer.batch(torch.arange(32).repeat(8), torch.Generator().manual_seed(0))
        assert crops.shape == (256, 3, 64, 64)
        shares[share] = (crops.amax((1, 2, 3)) > 0).float().mean().item()
    assert shares[1.0] == 1 and shares[0.0] < shares[0.5] < 0.9
    with pytest.raises(ValueError, match="at most the pictures' 256 pixels, got 264"):
        AutoencoderTrainer(AutoencoderConfig(LOOP, 32, crop=264), source)


def test_renormalised_latents_follow_the_running_statistics_and_learn_like_batchnorms() -> None:
    x = torch.randn(4, 4, 3, 3, generator=torch.Generator().manual_seed(0)) * 2 + 1
    for seen, plain in ((0, 10), (20, 10)):
        norm, batch = BatchRenorm(4, plain=plain), torch.nn.BatchNorm2d(4, eps=1e-8, affine=False)
        norm.running_mean.fill_(0.5)  # type: ignore[union-attr]
        norm.running_var.fill_(3.0)  # type: ignore[union-attr]
        norm.num_batches_tracked.fill_(seen)  # type: ignore[union-attr]
        running = (x - 0.5) / 3**0.5
        inputs = [x.clone().requires_grad_() for _ in range(2)]
        made, wanted = norm(inputs[0]), batch(inputs[1])
        torch.testing.assert_close(made, running if seen else wanted, atol=1e-5, rtol=1e-5)
        made.pow(3).sum().backward()
        # BatchNorm's gradient: none along the batch's mean, none along its scale
        gradient = inputs[0].grad
        assert gradient is not None
        centred, most = x - x.mean((0, 2, 3), keepdim=True), 1e-3 * gradient.abs().sum()
        assert gradient.sum((0, 2, 3)).abs().max() < most
        assert (gradient * centred).sum((0, 2, 3)).abs().max() < most
        assert norm.num_batches_tracked == seen + 1 and norm.running_mean[0] != 0.5  # type: ignore[index]
        mean, variance = norm.running_mean.clone(), norm.running_var.clone()  # type: ignore[union-attr]
        used = norm.eval()(x)
        torch.testing.assert_close(used, (x - mean.view(1, -1, 1, 1)) / variance.sqrt().view(1, -1, 1, 1))


def test_a_frozen_encoder_stays_to_the_bit(source: Painted, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    first = AutoencoderTrainer(AutoencoderConfig(LOOP, pictures=16), source)
    first.export(tmp_path, {name: module.state_dict() for name, module in first.modules().items()})
    start = load_file(tmp_path / "autoencoder.safetensors")
    config = AutoencoderConfig(replace(LOOP, steps=2), pictures=16, frozen_encoder=True)
    result = train(AutoencoderTrainer(config, source, start), config.loop, tmp_path / "run")
    found = load_file(result / "autoencoder.safetensors")
    same = {name: torch.equal(found[name], value) for name, value in start.items() if value.any()}
    assert all(same[name] for name in same if name.startswith("encoder"))
    assert not any(same[name] for name in same if name.startswith("decoder"))
    with pytest.raises(ValueError, match="needs an encoder to start from"):
        AutoencoderTrainer(config, source)


def test_the_second_run_starts_where_the_first_ended(source: Painted, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    config = AutoencoderConfig(LOOP, pictures=10)
    first = AutoencoderTrainer(config, source)
    first.export(tmp_path, {name: module.state_dict() for name, module in first.modules().items()})
    second = AutoencoderTrainer(config, source, load_file(tmp_path / "autoencoder.safetensors"))
    images = as_images(torch.from_numpy(source.pictures[:10]))
    with torch.no_grad():
        raw, latents = first.net.encoder(images), second.net.encoder(images)
    standard = (raw - raw.mean((0, 2, 3), keepdim=True)) / raw.std((0, 2, 3), keepdim=True)
    torch.testing.assert_close(latents, standard, atol=1e-3, rtol=0)  # mean 0, variance 1 over whole pictures
    for name, value in first.net.decoder.state_dict().items():
        assert torch.equal(value, second.net.decoder.state_dict()[name])


def test_words_are_learned(source: Painted, tmp_path: Path) -> None:
    scenes = Scenes(256, seed=5)
    loop = replace(LOOP, steps=90, batch=16, micro_batch=16, lr=3e-3, log_every=15)
    captions = captions_of(scenes, Mix(1.0), workers=1)
    result = train(WordsTrainer(WordsConfig(loop, 256), source, captions), loop, tmp_path)
    losses = [row["loss"] for row in read_log(tmp_path / "log.jsonl")]
    assert losses[-1] < losses[0] - 0.5
    net = load_text_encoder(result / "words.safetensors")
    table = net.get_input_embeddings().weight
    assert torch.equal(table.to(torch.float8_e4m3fn).float(), table)  # the frozen table is still float8's
    with pytest.raises(ValueError, match="vague must be 0"):
        WordsConfig(loop, 256, Mix(0.5, 0.0, 0.5))


@torch.no_grad()
def test_a_unet_in_float8_loads_and_predicts_nearly_the_same(tmp_path: Path) -> None:
    net = new_unet(3)
    net.save_config(tmp_path)
    write_float8(net.state_dict(), tmp_path / "diffusion_pytorch_model.safetensors")
    loaded = load_unet(tmp_path)
    draw = torch.Generator().manual_seed(0)
    x, context = torch.randn(2, 4, 16, 16, generator=draw), torch.randn(2, 77, 96, generator=draw)
    expected, found = net(x, 500, context).sample, loaded(x, 500, context).sample
    assert (found - expected).square().mean() < 0.05 * expected.square().mean()
    assert next(loaded.parameters()).dtype == torch.float32
