"""A small world learned from nothing in about a minute, by the real trainers: what is asked for is what is painted.

Pictures of 64 pixels with one large object in the centre. The text encoder learns the captions, stage 2 learns to paint
them, and held-out combinations of colour, shape and background are painted and looked at. What the pictures show is read
without another network: by the nearest mean colours of the training pictures. The autoencoder is a mean of pixels, for a
real one takes half an hour. Chance is measured on the same paintings,
against each other's captions.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

pytest.importorskip("diffusers", reason="the painter's networks are diffusers'")

from llmga.text import clip_tokenizer
from llmga.train import LoopConfig, Stage2, Stage2Config, train
from llmga.train.components import Components
from miniworld.models.architecture import CONTEXT_DIM, HEADS, SCHEDULER
from miniworld.models.painter import load_text_encoder
from miniworld.models.sampling import PaintConfig, paint
from miniworld.models.text_encoder import WordsConfig, WordsTrainer
from miniworld.world.captions import short_caption
from miniworld.world.dataset import Mix, Painted, Scenes, as_images, labels_of
from miniworld.world.render import render
from miniworld.world.scene import BACKGROUNDS, COLOURS, SIDES, TONES, Scene, Thing, choose, split_of

pytestmark = pytest.mark.usefixtures("one_thread")

SIDE = 64
SHAPES = ("circle", "square", "diamond", "heart")  # their middle shows their colour
STEPS = {"words": 60, "painter": 400}
PICTURES = 96  # paintings that are judged


@dataclass(frozen=True)
class World:
    """Scenes with their pictures and captions, as stage 2 takes them (see ``llmga.train.Pictures``)."""

    scenes: list[Scene]
    pixels: np.ndarray
    captions: list[str]

    def __len__(self) -> int:
        return len(self.scenes)

    @property
    def images(self) -> torch.Tensor:
        return as_images(torch.from_numpy(self.pixels))

    def image(self, i: int) -> torch.Tensor:
        return as_images(torch.from_numpy(self.pixels[i : i + 1]))[0]

    def caption(self, i: int, rng: random.Random) -> str:
        return self.captions[i]

    def mask(self, i: int, generator: torch.Generator) -> torch.Tensor:
        raise NotImplementedError

    def fingerprint(self) -> str:
        return "a minute"

    @property
    def truth(self) -> dict[str, torch.Tensor]:
        return {
            "colour": torch.tensor([COLOURS.index(scene.objects[0].colour) for scene in self.scenes]),
            "background": torch.tensor([BACKGROUNDS.index(scene.background) for scene in self.scenes]),
        }


def world(split: str, variants: int) -> World:
    """Each combination that belongs to the split, with ``variants`` backdrops and lights."""
    scenes = []
    for i, (_, shape, colour, background) in enumerate(
        product(range(variants), SHAPES, COLOURS, BACKGROUNDS)
    ):
        thing = Thing(
            shape, colour, "large", "plain", "centre", shift=(8, 8)
        )  # the middle of a latent's cell
        light = choose(SIDES, i, "light")
        scene = Scene(
            (thing,), background, choose(TONES, i, "tone"), light, choose(range(256), i, "backdrop")
        )
        scenes += [scene] if split_of(scene) == split else []
    pixels = np.stack([np.asarray(render(scene, SIDE).image) for scene in scenes])
    return World(scenes, pixels, [short_caption(scene, i) for i, scene in enumerate(scenes)])


def loop(steps: int, **values: Any) -> LoopConfig:
    return LoopConfig(
        steps=steps,
        batch=32,
        micro_batch=32,
        schedule="cosine",
        warmup=min(5, steps),
        betas=(0.9, 0.99),
        weight_decay=0.0,
        mixed_precision="no",
        deterministic=True,
        cpu=True,
        log_every=50,
        save_every=10_000,
        keep=1,
        **values,
    )


class Colours(nn.Module):
    """An autoencoder that needs no training: three latents are the mean colour of 8 × 8 pixels, the fourth is empty."""

    config = SimpleNamespace(scaling_factor=1.0, latent_channels=4)
    scale = 2.0

    def encode(self, images: torch.Tensor) -> Any:
        return SimpleNamespace(latents=F.pad(self.scale * F.avg_pool2d(images, 8), (0, 0, 0, 0, 0, 1)))

    def decode(self, latents: torch.Tensor) -> Any:
        return SimpleNamespace(sample=F.interpolate(latents[:, :3] / self.scale, scale_factor=8.0))


def small_unet() -> Any:
    from diffusers import UNet2DConditionModel

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return UNet2DConditionModel(
            sample_size=SIDE // 8,
            block_out_channels=(32, 64),
            layers_per_block=1,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
            cross_attention_dim=CONTEXT_DIM,
            attention_head_dim=HEADS,
            norm_num_groups=16,
        )


def learn(seen: World, steps: dict[str, int], folder: Path) -> Any:
    """Train the text encoder and the UNet; a pipeline of the results."""
    from safetensors.torch import load_file

    labels = np.array([labels_of(scene) for scene in seen.scenes], dtype=np.int8)
    source = Painted(Scenes(len(seen)), seen.pixels, labels)
    words = WordsConfig(loop(steps["words"], lr=3e-3), scenes=len(seen), captions=Mix())
    told = train(WordsTrainer(words, source, seen.captions), words.loop, folder / "words")
    text_encoder = load_text_encoder(told / "words.safetensors")
    settings = Stage2Config(
        loop(steps["painter"], lr=2e-3, ema=0.95),
        max_chunks=1,
        caption_dropout=0.1,
        flip=False,
        loss_weight="inverse_alpha",
        cache=folder / "cache",
        cache_in_memory=True,
        cache_dtype="float32",
    )
    unet, tokenizer = small_unet(), clip_tokenizer()
    parts = Components(unet, Colours(), (text_encoder,), (tokenizer,), dict(SCHEDULER))
    painted = train(Stage2(settings, parts, seen), settings.loop, folder / "painter")
    unet.load_state_dict(load_file(painted / "unet" / "diffusion_pytorch_model.safetensors"))
    return painter(unet, text_encoder)


def painter(unet: Any, text_encoder: Any) -> Any:
    """What ``paint`` needs of a pipeline."""
    from diffusers import DDIMScheduler

    return SimpleNamespace(
        unet=unet.eval(),
        text_encoder=text_encoder,
        tokenizer=clip_tokenizer(),
        vae=Colours(),
        scheduler=DDIMScheduler(**SCHEDULER),
    )


def features(images: torch.Tensor) -> dict[str, torch.Tensor]:
    """What is looked at, in cells of 8 × 8 pixels: the middle one; mean and spread of those along top and bottom."""
    cells = F.avg_pool2d(images, 8)
    edges = cells[:, :, [0, -1]].flatten(2)
    return {"colour": cells[:, :, 4, 4], "background": torch.cat([edges.mean(2), edges.std(2)], 1)}


def read(images: torch.Tensor, known: World) -> dict[str, torch.Tensor]:
    """Each picture's colour and background: those whose training pictures look most alike on average."""
    known_features, truth, found = features(known.images), known.truth, features(images)
    result = {}
    for name, rows in found.items():
        kinds = range(int(truth[name].max()) + 1)
        means = torch.stack([known_features[name][truth[name] == kind].mean(0) for kind in kinds])
        result[name] = torch.cdist(rows, means).argmin(1)
    return result


def rates(reading: dict[str, torch.Tensor], asked: dict[str, torch.Tensor]) -> dict[str, tuple[float, float]]:
    """How often what was asked for was read, and how often against each other picture's caption."""
    result = {}
    for name, found in reading.items():
        same = found[:, None] == asked[name][None]
        right, count = same.diagonal().sum().item(), len(found)
        result[name] = right / count, (same.sum().item() - right) / (count * (count - 1))
    return result


@pytest.fixture(scope="module")
def seen() -> World:
    return world("train", variants=3)


@pytest.fixture(scope="module")
def unseen() -> World:
    return world("validation", variants=8)


def judged(pipeline: Any, unseen: World, seen: World) -> dict[str, tuple[float, float]]:
    config = PaintConfig(steps=8, guidance=6.0, batch=len(unseen))
    return rates(read(paint(pipeline, unseen.captions, config), seen), unseen.truth)


def test_true_pictures_are_read_rightly(seen: World, unseen: World) -> None:
    said = {(scene.background, scene.objects[0].colour, scene.objects[0].shape) for scene in seen.scenes}
    held_out = {(s.background, s.objects[0].colour, s.objects[0].shape) for s in unseen.scenes}
    assert len(unseen) >= PICTURES and not said & held_out
    for right, chance in rates(read(unseen.images, seen), unseen.truth).values():
        assert right > 0.9 and chance < 0.25


def test_a_minute_of_training_paints_what_is_asked_for(seen: World, unseen: World, tmp_path: Path) -> None:
    result = judged(learn(seen, STEPS, tmp_path / "trained"), unseen, seen)
    for name, (right, chance) in result.items():
        assert right > 2 * chance + 0.1, f"{name}: {right:.2f}, by chance {chance:.2f}"


def test_without_training_it_is_chance(seen: World, unseen: World, tmp_path: Path) -> None:
    result = judged(learn(seen, dict.fromkeys(STEPS, 1), tmp_path / "untrained"), unseen, seen)
    for name, (right, chance) in result.items():
        assert right < 2 * chance, f"{name}: {right:.2f}, by chance {chance:.2f}"
