"""The miniature's autoencoder and text encoder: what they start from, what they leave out, what they learn."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

pytest.importorskip("diffusers", reason="the painter's networks are diffusers'")

from llmga.evaluate import psnr
from llmga.train import LoopConfig, train
from llmga.train.log import read_log
from miniworld.models.autoencoder import AutoencoderConfig, AutoencoderTrainer, skip_idle_blocks
from miniworld.models.painter import load_text_encoder, load_unet, new_autoencoder, new_unet, write_float8
from miniworld.models.text_encoder import WordsConfig, WordsTrainer
from miniworld.world.dataset import Mix, Painted, Scenes, as_images, captions_of, painted
from miniworld.world.render import render
from miniworld.world.scene import PLACES, SIZES

LOOP = LoopConfig(steps=1, batch=8, micro_batch=8, lr=1e-3, mixed_precision="no", cpu=True)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Painted:
    return painted(Scenes(256, seed=5), tmp_path_factory.mktemp("scenes"), workers=1)


@torch.no_grad()
def test_an_autoencoder_starts_with_the_colours(source: Painted) -> None:
    trainer = AutoencoderTrainer(AutoencoderConfig(LOOP, pictures=256), source)
    images = as_images(torch.from_numpy(source.pictures[:64]))
    made = trainer.net.decoder(trainer.norm.eval()(trainer.net.encoder(images))).clamp(-1, 1)
    grey = images.mean((0, 2, 3), keepdim=True).expand_as(images)
    assert psnr(made, images, peak=2).mean() > psnr(grey, images, peak=2).mean() + 3
    coarse = torch.stack([F.avg_pool2d(x, 32).flatten() for x in (made, images)])
    assert coarse.corrcoef()[0, 1] > 0.85


@torch.no_grad()
def test_idle_blocks_are_left_out_without_a_trace(source: Painted, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    trainer = AutoencoderTrainer(AutoencoderConfig(LOOP, pictures=256), source)
    trainer.export(tmp_path, {name: module.state_dict() for name, module in trainer.modules().items()})
    weights = load_file(tmp_path / "autoencoder.safetensors")
    whole, lean = new_autoencoder(), new_autoencoder()
    for net in (whole, lean):
        net.load_state_dict(weights)
    skip_idle_blocks(lean)
    assert len(lean.state_dict()) < len(whole.state_dict())
    images = as_images(torch.from_numpy(source.pictures[:4]))
    latents = whole.encoder(images)
    torch.testing.assert_close(lean.encoder(images), latents, atol=1e-5, rtol=0)
    torch.testing.assert_close(lean.decoder(latents), whole.decoder(latents), atol=1e-5, rtol=0)
    busy = new_autoencoder()
    assert len(skip_idle_blocks(busy).state_dict()) == len(
        whole.state_dict()
    )  # weights that do something stay


def test_errors_around_objects_weigh_more(source: Painted) -> None:
    config = AutoencoderConfig(LOOP, pictures=256, objects=8.0)
    trainer = AutoencoderTrainer(config, source)
    trainer.prepare(torch.device("cpu"), 0, 1, lambda: None)
    _, weight = trainer.batch(torch.arange(32), torch.Generator())
    for i in range(32):
        scene = source.scenes[i]
        masks = torch.from_numpy(render(scene).amodal).any(0)
        if not scene.behind:  # those stand closer together than their places
            assert weight[i, 0][masks].min() == 9
        free = {"small": 18, "medium": 26, "large": 36}
        for place in scene.free_places:
            x, y = PLACES[place]
            taken = any(free[t.size] > 30 for t in scene.objects)
            assert taken or weight[i, 0, y, x] == 1
    assert set(weight.unique().tolist()) == {1.0, 9.0} and SIZES.keys() == free.keys()


def test_the_second_run_starts_where_the_first_ended(source: Painted, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    config = AutoencoderConfig(LOOP, pictures=256)
    first = AutoencoderTrainer(config, source)
    first.export(tmp_path, {name: module.state_dict() for name, module in first.modules().items()})
    second = AutoencoderTrainer(config, source, load_file(tmp_path / "autoencoder.safetensors"))
    images = as_images(torch.from_numpy(source.pictures[:4]))
    with torch.no_grad():
        wanted = first.norm.eval()(first.net.encoder(images))
        torch.testing.assert_close(second.net.encoder(images), wanted, atol=1e-4, rtol=0)


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
