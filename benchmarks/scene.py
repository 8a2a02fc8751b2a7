"""A planned scene against RFNet's procedure as released, on the same tiny random weights: passes, layers, time and memory.

    python benchmarks/scene.py [--steps 50] [--size 32] [--objects 2] [--threads 2]

The released procedure guides with whole passes of the UNet, keeps the probabilities of every token, and takes one more
gradient after the loss has fallen to its threshold. Ours ends a guidance pass after the last layer that the loss reads and
keeps the chosen tokens alone. Counted are guidance passes forward and backward, the attention layers that ran in them, and
the largest sum of probabilities held at once; timed is the guidance of one step, in CPU seconds.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from support import scene_cases as cases  # noqa: E402
from support.tiny_clip import clip_l  # noqa: E402
from support.tiny_unet import noise, tiny_unet  # noqa: E402

from llmga.diffusion import DiffusersContext, DiffusersDenoiser, autograd_enabled  # noqa: E402
from llmga.scene import GuidanceSettings, LossWeights, ObjectCache, SceneSession, SceneSettings  # noqa: E402
from llmga.scene.attention import WordAttention, WordTaps, guidance_sites  # noqa: E402
from llmga.scene.losses import alone_loss  # noqa: E402
from llmga.scene.plan import SceneBox, SceneObject, ScenePlan  # noqa: E402
from llmga.text import CLIPPromptEncoder, clip_tokenizer  # noqa: E402

BOX = SceneBox(0.25, 0.3, 0.5, 0.5)
TOKENS = [4, 5, 6]


class CountingTaps(WordTaps):
    """Counts the layers of a pass, and the numbers of the probabilities that are kept."""

    layers = 0

    def attend(self, *arguments: Any) -> None:
        self.layers += 1
        super().attend(*arguments)

    @property
    def kept(self) -> int:
        return sum(one.maps.numel() for one in self.recorded.values())


def pass_of(denoiser: DiffusersDenoiser, x: torch.Tensor, as_released: bool) -> tuple[float, int, int]:
    """One guidance pass with its gradient: CPU seconds, layers, and numbers of probabilities kept."""
    sites = guidance_sites(denoiser.sites)
    taps = CountingTaps(sites, range(77) if as_released else TOKENS, stop=not as_released)
    start = time.process_time()
    with autograd_enabled():
        variable = x.clone().requires_grad_()
        denoiser.with_gradient(variable, 681, [DiffusersContext(cases.context("a"))], taps)
        recorded = taps.recorded
        if as_released:
            recorded = {s: WordAttention(one.maps[..., TOKENS], one.size) for s, one in recorded.items()}
        torch.autograd.grad(alone_loss(recorded, BOX, LossWeights()), variable)
    return time.process_time() - start, taps.layers, taps.kept


def compare_passes(denoiser: DiffusersDenoiser, size: int, tries: int = 5) -> None:
    x = noise("x", 1, 4, size, size)
    print(f"{'one guidance pass':<20}{'CPU s':>10}{'layers':>9}{'probabilities':>16}")
    for name, as_released in (("ours", False), ("as released", True)):
        found = min(pass_of(denoiser, x, as_released) for _ in range(tries))
        print(f"{name:<20}{found[0]:>10.3f}{found[1]:>9}{found[2]:>16}")


def compare_scenes(denoiser: DiffusersDenoiser, size: int, steps: int, objects: int) -> None:
    """The passes of a whole scene for three thresholds, painted first and after one object was moved."""
    session = SceneSession(denoiser, CLIPPromptEncoder((clip_tokenizer(),), (clip_l(),)), cache=ObjectCache())
    side = 0.9 / objects
    things = [
        SceneObject(f"thing {i}", SceneBox(0.05 + i * side, 0.3, side * 0.9, 0.4), ("plain",))
        for i in range(objects)
    ]
    print(f"\n{'whole scene':<26}{'gradients':>11}{'most':>7}{'rows':>7}{'CPU s':>9}")
    for threshold in (0.0, 5.0, 9.0):
        guided = GuidanceSettings(threshold=threshold)
        settings = SceneSettings(steps, alone=guided, together=guided)
        for name, top in (("painted", 0.3), ("one object moved", 0.4)):
            moved = SceneObject(things[0].name, SceneBox(0.05, top, side * 0.9, 0.4), ("plain",))
            plan = ScenePlan((moved, *things[1:]), "a place")
            start = time.process_time()
            scene = session.paint(plan, (size, size), settings)
            spent = time.process_time() - start
            fresh = [one.run for one in scene.objects if not one.cached]
            passes = scene.together.guidance.backward_passes + sum(r.guidance.backward_passes for r in fresh)
            rows = scene.together.rows + sum(run.rows for run in fresh)
            most = guided.most_passes(steps) * (objects + 1)
            label = f"threshold {threshold:g}, {name}"
            print(f"{label:<26}{passes:>11}{most:>7}{rows:>7}{spent:>9.1f}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--size", type=int, default=32, help="side of the latent")
    parser.add_argument("--objects", type=int, default=2)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    denoiser = DiffusersDenoiser(tiny_unet(cases.UNET, cases.SHARPNESS))
    compare_passes(denoiser, options.size)
    compare_scenes(denoiser, options.size, options.steps, options.objects)


if __name__ == "__main__":
    main()
