"""DiffRIR's trainers: what they train on, their losses against literal ones, resuming after kills, presets."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

pytest.importorskip("accelerate", reason="training needs accelerate")

from safetensors.torch import load_file, save_file
from support.kill_and_resume import kill_and_resume
from support.tiny_restoration import (
    Clean,
    architecture,
    config,
    distance,
    examples,
    files,
    teacher,
    train_gan_tiny,
    train_s1_tiny,
    train_s2_tiny,
)

from llmga.__main__ import main
from llmga.data.degradations import Degradation, Pass
from llmga.restore import DiffRIRS1, DiffRIRS2, join_inputs
from llmga.train import LoopConfig, generator, read_config, train
from llmga.train.command import STAGES
from llmga.train.degraded_images import Crops, DegradedImages, PictureList, sharpen
from llmga.train.diffrir import new_net
from llmga.train.diffrir_gan import GanConfig, GanTrainer
from llmga.train.diffrir_s1 import S1Config, S1Trainer
from llmga.train.diffrir_s2 import S2Config, S2Trainer
from llmga.train.log import read_log
from llmga.train.loop import learning_rate

pytestmark = pytest.mark.usefixtures("one_thread")
STILL = Pass(blur=0, resize=(1, 1), noise_sigma=(0, 0), gaussian=1, jpeg=0)
TRAINERS = {"s1": train_s1_tiny, "s2": train_s2_tiny, "gan": train_gan_tiny}


def prepared(trainer: Any) -> Any:
    trainer.prepare(torch.device("cpu"), 0, 1, lambda: None)
    return trainer


def drawn(images: list[torch.Tensor], crops: Crops, scale: int = 1) -> Any:
    pictures: Any = type("Pictures", (list,), {"image": list.__getitem__})(images)
    indices, rng = range(len(images)), np.random.default_rng(0)
    return DegradedImages(pictures, crops, scale).part(indices, rng, torch.device("cpu"))


def part_of(trainer: Any, count: int = 3) -> Any:
    return trainer.batch(torch.arange(count), generator(1))


# What is trained on


@pytest.mark.parametrize("scale", [1, 2, 4])
def test_parts_are_aligned_crops(scale: int) -> None:
    """With nothing spoilt but the size, the degraded picture is the truth, made smaller."""
    crops = Crops(80, 32, degradation=Degradation(STILL, STILL, final_sinc=0, gain=0, bias=0))
    ramp = torch.linspace(0, 1, 90).expand(3, 70, 90)
    image = torch.stack([ramp[0], ramp[0].flip(-1), torch.linspace(0, 1, 70)[:, None].expand(70, 90)])
    part = drawn([image] * 4, crops, scale)
    assert part.image.shape == (4, 3, 32 // scale, 32 // scale)
    assert part.truth.shape == (4, 3, 32, 32) and part.mask.shape == (4, 1, 32, 32)
    assert torch.equal(part.real, part.truth) and set(part.mask.unique().tolist()) == {0.0, 1.0}
    small = F.avg_pool2d(part.truth, scale)
    assert (part.image - small).abs().max() < 0.04  # a step of the ramp is 1/69; rounding; bicubic
    assert len({tuple(one.flatten()[:2].tolist()) for one in part.truth}) == 4


def test_colour_is_shifted_all_over_and_the_same_for_all_channels() -> None:
    plain = Degradation(STILL, STILL, final_sinc=0, gain=0.08, bias=0.05)
    grey = torch.full((3, 40, 40), 0.5)
    part = drawn([grey] * 64, Crops(40, 32, degradation=plain))
    assert torch.equal(part.image.amax((1, 2, 3)), part.image.amin((1, 2, 3)))
    shift = part.image[:, 0, 0, 0] - 0.5
    assert 0.03 < shift.abs().max() <= 0.5 * 0.08 + 0.05 + 1 / 255 and shift.std() > 0.02


def test_the_same_seed_draws_the_same_part_and_threads_may_draw() -> None:
    trainer = prepared(S1Trainer(config(S1Config), examples(config(S1Config))))
    one, two = part_of(trainer), part_of(trainer)
    assert all(torch.equal(getattr(one, n), getattr(two, n)) for n in ("image", "truth", "mask", "real"))


def test_sharpening_leaves_flat_parts_alone() -> None:
    image = torch.full((1, 3, 64, 96), 0.5)
    assert torch.equal(sharpen(image), image)
    image[..., 48:] = 0.7
    sharp = sharpen(image)
    assert sharp[..., 48].mean() > 0.71 and sharp[..., 47].mean() < 0.49
    crops = Crops(64, 32, sharpen=True)
    part = drawn([image[0]] * 4, crops)
    assert not torch.equal(part.truth, part.real)


def test_lists_of_pictures(tmp_path: Path) -> None:
    Image.new("L", (5, 4), 255).save(tmp_path / "grey one.png")
    (tmp_path / "list.txt").write_text("grey one.png (4,5,1)\n\n", encoding="utf-8")
    pictures = PictureList(tmp_path / "list.txt", tmp_path)
    assert len(pictures) == 1 and torch.equal(pictures.image(0), torch.ones(3, 4, 5))
    (tmp_path / "list.txt").write_text("\n", encoding="utf-8")
    with pytest.raises(ValueError, match="names no picture"):
        PictureList(tmp_path / "list.txt", tmp_path)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"size": 48}, "multiple of 32"),
        ({"canvas": 30, "size": 32}, "within canvas"),
        ({"masks": "round"}, "masks must be one of stage1.*got 'round'"),
    ],
)
def test_crops_that_do_not_fit(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Crops(**values)


# Losses


def test_from_the_start_each_picture_has_a_prior_of_its_own() -> None:
    settings = config(S1Config)
    trainer = prepared(S1Trainer(settings, examples(settings)))
    part = part_of(trainer, 8)
    with torch.no_grad():
        prior = trainer.net.prior(trainer.inputs(part), part.truth)
    assert prior.std(0).mean() > 0.01


def test_s1_is_told_the_truth_and_scored_all_over() -> None:
    trainer = prepared(S1Trainer(config(S1Config), examples(config(S1Config))))
    part = part_of(trainer)
    loss, metrics = trainer.loss(part, generator(2))
    made = trainer.net(join_inputs(part.image, part.truth, part.mask, architecture()), part.truth)
    torch.testing.assert_close(loss, (made - part.truth).abs().mean())
    torch.testing.assert_close(metrics["psnr"], -10 * (made - part.truth).square().mean().log10())
    assert set(trainer.modules()) == {"G", "E"}


@pytest.mark.parametrize("composite", [True, False])
def test_s2_is_scored_by_the_hole_and_by_the_prior(composite: bool) -> None:
    settings = config(S2Config, composite=composite)
    s1, net = teacher(settings), new_net(DiffRIRS2, settings)
    trainer = prepared(S2Trainer(settings, examples(settings), s1, net))
    part = part_of(trainer)
    loss, metrics = trainer.loss(part, generator(2))
    joined = join_inputs(part.image, part.truth, part.mask, architecture())
    wanted = s1.prior(joined, part.truth)
    noise = torch.randn(3, 16, generator=generator(2))
    alpha = (1 - net.diffusion.betas).prod()
    prior = net.prior(joined, alpha.sqrt() * wanted + (1 - alpha).sqrt() * noise)
    made = net.G(joined, prior)
    if composite:
        made = part.truth * (1 - part.mask) + made * part.mask
    torch.testing.assert_close(metrics["prior"], (prior - wanted).abs().mean())
    torch.testing.assert_close(loss, (made - part.truth).abs().mean() + (prior - wanted).abs().mean())
    loss.backward()
    assert all(p.grad is not None for p in net.parameters())  # or several devices would wait for them
    assert all(p.grad is None for p in s1.parameters())

    first = prepared(S2Trainer(settings, examples(settings), s1, net, only_prior=True))
    assert set(first.modules()) == {"condition", "denoise"}
    torch.testing.assert_close(first.loss(part, generator(2))[0], metrics["prior"])


def test_the_critics_game() -> None:
    settings = config(GanConfig, critic_features=4, gan_weight=0.5, perceptual_weight=2.0)
    net = new_net(DiffRIRS2, settings)
    trainer = prepared(GanTrainer(settings, examples(settings), teacher(settings), net, distance()))
    critic = trainer.adversary.critic.eval()  # so that its spectral norms stand still
    part = part_of(trainer)
    loss, m = trainer.loss(part, generator(2))
    assert part.made is not None and not part.made.requires_grad
    torch.testing.assert_close(m["pixel"], (part.made - part.truth).abs().mean())  # nothing is pasted in
    torch.testing.assert_close(m["fooled"].detach(), F.softplus(-critic(part.made)).mean().detach())
    torch.testing.assert_close(m["perceptual"].detach(), distance()(part.made, part.truth))
    torch.testing.assert_close(loss, m["pixel"] + m["prior"] + 0.5 * m["fooled"] + 2 * m["perceptual"])
    loss.backward()
    assert all(p.grad is None and p.requires_grad for p in critic.parameters())
    other, _ = trainer.adversary.loss(part, generator(3))
    literal = F.softplus(-critic(part.real)).mean() + F.softplus(critic(part.made)).mean()
    torch.testing.assert_close(other, literal)


def test_the_critic_keeps_its_rate_where_the_restorers_is_halved() -> None:
    preset = read_config(GanConfig, "diffrir-gan-released-code-x1")
    loop = replace(preset.loop, steps=400_000)
    settings = replace(
        config(GanConfig, critic_features=4), loop=loop, critic_milestones=preset.critic_milestones
    )
    net = new_net(DiffRIRS2, settings)
    critic = GanTrainer(settings, examples(settings), teacher(settings), net, distance()).adversary
    assert critic.loop is not None
    rates = [(learning_rate(each, 299_999), learning_rate(each, 300_000)) for each in (loop, critic.loop)]
    assert rates == [(1e-4, 5e-5), (1e-4, 1e-4)]
    settings = replace(settings, critic_milestones=None)
    assert GanTrainer(settings, examples(settings), teacher(settings), net, distance()).adversary.loop is None


def test_feature_distances() -> None:
    measure, a = distance(), torch.rand(2, 3, 16, 16)
    assert measure(a, a) == 0 and measure(a, 1 - a) > 0.01
    torch.testing.assert_close(measure(a, 1 - a), measure(1 - a, a))
    mean, deviation = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    first, _, second, _ = measure.layers[0], None, measure.layers[2], None
    features = [
        second(F.relu(first((x - mean[:, None, None]) / deviation[:, None, None]))) for x in (a, 1 - a)
    ]
    torch.testing.assert_close(measure(a, 1 - a), 0.1 * (features[0] - features[1]).abs().mean())


def test_vgg_is_torchvisions_before_its_relus(tmp_path: Path) -> None:
    models = pytest.importorskip("torchvision.models", reason="the named perceptual net is torchvision's")
    from llmga.train.critic import VGG_LAYERS, vgg_distance

    with torch.device("meta"):
        layers = models.vgg19().features
    widths = {i: layers[i].out_channels for i in VGG_LAYERS}
    assert widths == {2: 64, 7: 128, 16: 256, 25: 512, 34: 512}
    assert all(isinstance(layers[i + 1], torch.nn.ReLU) for i in VGG_LAYERS)
    assert all(isinstance(layers[i + 2], torch.nn.MaxPool2d) for i in VGG_LAYERS)
    with pytest.raises(FileNotFoundError, match="vgg19-dcbb9e9d.pth"):
        vgg_distance(tmp_path / "missing.pth")


# Runs


@pytest.mark.parametrize("stage", TRAINERS)
def test_kills_at_any_moment_change_nothing(tmp_path: Path, stage: str) -> None:
    alone, runs = kill_and_resume(TRAINERS[stage], tmp_path, kills=2)
    wanted = files(alone / "result")
    assert wanted
    for run in runs:
        made = files(run / "result")
        assert made.keys() == wanted.keys()
        assert all(torch.equal(made[name], value) for name, value in wanted.items())
    assert [row["loss"] for row in read_log(alone / "log.jsonl")] == [
        row["loss"] for row in read_log(runs[-1] / "log.jsonl")
    ]


def test_results_and_samples(tmp_path: Path) -> None:
    result = train_s1_tiny(tmp_path / "s1", sample_every=4)
    # two examples of 32 pixels, five rows
    assert Image.open(tmp_path / "s1/samples/step-00000004.png").size == (64, 160)
    s1 = new_net(DiffRIRS1, config(S1Config))
    before = {name: value.clone() for name, value in s1.state_dict().items()}
    s1.load_state_dict(load_file(result / "restorer.safetensors"))
    assert all(not torch.equal(before[n], v) for n, v in s1.state_dict().items() if v.ndim > 1)

    result = train_s2_tiny(tmp_path / "s2", sample_every=4)
    for folder in ("s2", "s2/prior"):
        assert Image.open(tmp_path / folder / "samples/step-00000004.png").size == (64, 160)
    settings = config(S2Config)
    first, last = (load_file(tmp_path / f"s2/{f}result/restorer.safetensors") for f in ("prior/", ""))
    fresh, given = new_net(DiffRIRS2, settings).state_dict(), teacher(settings).G.state_dict()
    assert first.keys() == last.keys() == fresh.keys()
    for name in first:
        part, _, inner = name.partition(".")
        if part == "G":  # the first phase leaves S1's restorer as it is
            assert torch.equal(first[name], given[inner])
        elif first[name].ndim > 1:
            assert not torch.equal(first[name], fresh[name]), name
        if first[name].ndim > 1:  # a bias of a layer whose output is cut off may stand still
            assert not torch.equal(last[name], first[name]), name

    result = train_gan_tiny(tmp_path / "gan")
    critic = load_file(result / "critic.safetensors")
    assert "conv1.parametrizations.weight.original" in critic
    row = read_log(tmp_path / "gan/log.jsonl")[-1]
    assert {"pixel", "prior", "psnr", "fooled", "perceptual", "adversary_loss", "critic_real"} <= row.keys()


@pytest.mark.parametrize("scale", [2, 4])
def test_larger_results_train_too(tmp_path: Path, scale: int) -> None:
    settings = config(S2Config, {"steps": 1}, {"scale": scale})
    trainer = S2Trainer(settings, examples(settings), teacher(settings), new_net(DiffRIRS2, settings))
    result = train(trainer, settings.loop, tmp_path)
    DiffRIRS2(settings.network).load_state_dict(load_file(result / "restorer.safetensors"))


def test_it_learns_to_undo_a_shift_of_colours(tmp_path: Path) -> None:
    """Of smooth pictures: what S2 makes is nearer to the truth than what it is given."""
    crops = Crops(32, 32, degradation=Degradation(STILL, STILL, final_sinc=0, gain=0.3, bias=0.1))
    loop = {"steps": 150, "batch": 8, "micro_batch": 8, "lr": 1e-3, "save_every": 150, "ema": 0.9}
    settings = S1Config(LoopConfig(**{**vars(config(S1Config).loop), **loop}), architecture(), crops)
    trainer = S1Trainer(settings, examples(settings))
    train(trainer, settings.loop, tmp_path)
    part = part_of(trainer, 8)
    with torch.no_grad():
        made = trainer.restored(part, generator(0))
    assert (made - part.truth).abs().mean() < 0.6 * (part.image - part.truth).abs().mean()


# Configurations


@pytest.mark.parametrize(
    ("preset", "kind", "steps", "lr", "size", "gain", "composite"),
    [
        ("s1-released-code-x1", S1Config, 400_000, 2e-4, 256, 0.06, None),
        ("s1-released-code-x4", S1Config, 1_000_000, 2e-4, 256, 0.06, None),
        ("s2-released-code-x1", S2Config, 900_000, 2e-4, 256, 0.08, True),
        ("s2-released-code-x2", S2Config, 900_000, 2e-4, 256, 0.08, False),
        ("gan-released-code-x1", GanConfig, 400_000, 1e-4, 256, 0.06, False),
        ("gan-released-code-x4-v2", GanConfig, 400_000, 1e-4, 256, 0.08, False),
        ("s1-paper", S1Config, 400_000, 2e-4, 64, 0.06, None),
        ("s2-paper", S2Config, 300_000, 2e-4, 64, 0.06, True),
        ("gan-paper", GanConfig, 400_000, 2e-4, 64, 0.06, False),
    ],
)
def test_presets(
    preset: str, kind: Any, steps: int, lr: float, size: int, gain: float, composite: bool | None
) -> None:
    settings = read_config(kind, f"diffrir-{preset}")
    loop, crops, network = settings.loop, settings.crops, settings.network
    assert (loop.steps, loop.lr, loop.batch, loop.betas, loop.clip) == (steps, lr, 64, (0.9, 0.99), 0)
    assert (loop.weight_decay, loop.ema) == (0, 0.0 if kind is S1Config else 0.999)
    assert (crops.size, crops.canvas, crops.masks, crops.sharpen) == (size, 400, "diffrir", "v2" in preset)
    assert (crops.degradation.gain, crops.degradation.bias) == (gain, 0.05)
    assert (network.dim, network.num_blocks, network.n_feats) == (64, (13, 1, 1, 1), 64)
    assert network.scale == (int(preset.partition("-x")[2][0]) if "-x" in preset else 1)
    assert getattr(settings, "composite", None) is composite
    if kind is GanConfig:  # optimizer_d has the scheduler's one milestone, at the end
        assert settings.critic_milestones == (400_000,)
    if kind is S2Config:
        assert (settings.prior.steps, settings.prior.milestones, settings.prior.gamma) == (
            100_000,
            (60_000,),
            0.1,
        )


def test_the_command_runs_all_three_stages(tmp_path: Path) -> None:
    """From pictures in a folder to a restorer, as a lab would; the stages are found by name."""
    for i in range(4):
        pixels = (Clean().image(i) * 255).byte().permute(1, 2, 0).numpy()
        Image.fromarray(np.ascontiguousarray(pixels)).save(tmp_path / f"{i}.png")
    (tmp_path / "list.txt").write_text("".join(f"{i}.png\n" for i in range(4)), encoding="utf-8")
    small = [
        *("network.dim=8", "network.num_blocks=[1, 1, 1, 0]", "network.num_refinement_blocks=1"),
        *("network.n_feats=4", "network.n_encoder_res=1", "crops.canvas=40", "crops.size=32"),
        *("loop.steps=2", "loop.batch=2", "loop.micro_batch=2", "loop.cpu=true", "loop.sample_every=0"),
        *(f"pictures.paths={tmp_path / 'list.txt'}", f"pictures.root={tmp_path}", "loop.prefetch=0"),
    ]
    results = {k: f"{tmp_path / k}/result/restorer.safetensors" for k in ("s1", "s2")}
    extra = {
        "s1": [],
        "s2": [
            *("prior.steps=2", "prior.batch=2", "prior.micro_batch=2", "prior.cpu=true", "prior.prefetch=0"),
            f"s1={results['s1']}",
        ],
        "gan": [
            *(f"s1={results['s1']}", f"s2={results['s2']}"),
            *("perceptual_weight=0.0", "critic_features=4"),
        ],
    }
    for stage, values in extra.items():
        start = ["train", f"diffrir-{stage}", "--config", f"diffrir-{stage}-released-code-x1"]
        assert main([*start, "--output", str(tmp_path / stage), *small, *values]) == 0
        assert (tmp_path / stage / "config.yaml").is_file()
        assert (tmp_path / stage / "result/restorer.safetensors").is_file()
    assert {"diffrir-s1", "diffrir-s2", "diffrir-gan"} <= STAGES.keys()


def test_what_a_stage_needs_is_asked_for(tmp_path: Path) -> None:
    from llmga.train import diffrir_gan, diffrir_s1, diffrir_s2

    with pytest.raises(ValueError, match="pictures"):
        diffrir_s1.run(config(S1Config), tmp_path)
    with pytest.raises(ValueError, match="s1 is needed"):
        diffrir_s2.run(config(S2Config), tmp_path)
    with pytest.raises(FileNotFoundError, match="s1: .*nowhere does not exist"):
        diffrir_s2.run(config(S2Config, s1=str(tmp_path / "nowhere")), tmp_path)
    with pytest.raises(ValueError, match="vgg .*perceptual_weight=0"):
        diffrir_gan.run(config(GanConfig), tmp_path)
    with pytest.raises(ValueError, match="settings of S2"):
        config(GanConfig, composite=True)
    path = tmp_path / "other.safetensors"
    save_file(new_net(DiffRIRS1, config(S1Config, network={"dim": 16})).state_dict(), path)
    with pytest.raises(ValueError, match="s1: .*does not fit network"):
        diffrir_s2.run(config(S2Config, s1=str(path)), tmp_path)
