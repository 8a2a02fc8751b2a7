"""The loop: what a step trains on, resuming to the bit, kills, half-written checkpoints, two processes, an adversary."""

from __future__ import annotations

import json
import math
import socket
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import nn

pytest.importorskip("accelerate", reason="training needs accelerate")

from support.fork_server import fork_server
from support.kill_and_resume import kill_and_resume, same_weights
from support.line_training import Line, assert_same, losses, settings, weights
from support.tiny_training import one_of_two, short_run, train_tiny

from llmga.train import ExampleOrder, derive, generator, learning_rate, train
from llmga.train import checkpoint as checkpoints
from llmga.train.log import append, drop_rows_after, plot, read_log


@given(st.integers(1, 40), st.integers(0, 200), st.integers(1, 90), st.integers(0, 5))
def test_order_is_one_sequence_of_permutations(examples: int, start: int, count: int, seed: int) -> None:
    taken = ExampleOrder(examples, seed).take(start, count).tolist()
    whole = ExampleOrder(examples, seed).take(0, start + count).tolist()
    assert taken == whole[start:]
    for epoch in range((start + count) // examples):
        assert sorted(whole[epoch * examples : (epoch + 1) * examples]) == list(range(examples))


def test_order_differs_by_seed_and_epoch() -> None:
    order = ExampleOrder(50, 1)
    first, second = order.take(0, 50), order.take(50, 50)
    assert not torch.equal(first, second)
    assert not torch.equal(first, ExampleOrder(50, 2).take(0, 50))
    assert torch.equal(torch.rand(3, generator=generator(1, "a")), torch.rand(3, generator=generator(1, "a")))
    with pytest.raises(ValueError, match="no examples"):
        ExampleOrder(0, 1)


def test_learning_rates() -> None:
    cosine = settings(steps=110, warmup=10, schedule="cosine", lr=1.0)
    assert [learning_rate(cosine, s) for s in (0, 4, 9, 10)] == pytest.approx([0.1, 0.5, 1.0, 1.0])
    assert learning_rate(cosine, 60) == pytest.approx(0.5)
    assert learning_rate(cosine, 109) == pytest.approx(0.5 * (1 + math.cos(math.pi * 0.99)))
    steps = settings(schedule="multistep", milestones=(3, 5), lr=1.0, gamma=0.1)
    assert [learning_rate(steps, s) for s in range(7)] == pytest.approx([1, 1, 1, 0.1, 0.1, 0.01, 0.01])
    assert learning_rate(settings(lr=0.3), 9) == 0.3


def test_the_log_has_the_norm_of_the_gradient_before_it_is_clipped(tmp_path: Path) -> None:
    """That of the whole batch, the same whatever it is clipped to; without clipping it is not computed."""

    class Slope:
        """loss = 3·w over the examples of a part, so that its gradient is 3 whatever w is."""

        def __init__(self) -> None:
            self.net = nn.Linear(1, 1, bias=False)

        def __len__(self) -> int:
            return 8

        def modules(self):
            return {"net": self.net}

        def prepare(self, device, rank, world, barrier) -> None:
            pass

        def batch(self, indices, generator):
            return torch.full((len(indices), 1), 3.0)

        def loss(self, inputs, generator):
            return self.net(inputs).mean(), {}

        def sample(self, step: int, folder: Path) -> None:
            pass

        def export(self, folder: Path, weights) -> None:
            pass

    for clip in (0.0, 0.5, 100.0):
        train(Slope(), settings(clip=clip, sample_every=0), tmp_path / str(clip))
        rows = read_log(tmp_path / str(clip) / "log.jsonl")
        norms = [row.get("grad_norm") for row in rows]
        assert norms == ([None] * len(rows) if not clip else pytest.approx([3.0] * len(rows)))


def test_a_run_writes_log_checkpoints_samples_and_result(tmp_path: Path) -> None:
    trainer = Line()
    before = torch.get_rng_state()
    folder = train(trainer, settings(keep=2), tmp_path)
    assert torch.equal(torch.get_rng_state(), before)
    assert folder == tmp_path / "result"
    assert [step for step, _ in losses(tmp_path)] == [2, 3, 4, 6, 8, 9, 10]
    row = read_log(tmp_path / "log.jsonl")[0]
    assert row["twice"] == pytest.approx(2 * row["loss"])
    assert row["lr"] == 0.01 and row["seconds"] > 0 and row["examples_per_second"] > 0
    assert checkpoints.steps(tmp_path / "checkpoints") == [8, 10]
    assert trainer.sampled == [5, 10]
    assert [i for part in trainer.seen for i in part] == ExampleOrder(8, 0).take(0, 40).tolist()
    assert not torch.are_deterministic_algorithms_enabled()


@pytest.mark.parametrize("cut", [1, 4, 8, 15])
@pytest.mark.parametrize("prefetch", [0, 2])
def test_a_resumed_run_is_the_uninterrupted_one(tmp_path: Path, cut: int, prefetch: int) -> None:
    alone, again = tmp_path / "alone", tmp_path / "again"
    train(Line(), settings(), alone)
    broken = Line()
    broken.fail_at = cut
    with pytest.raises(KeyboardInterrupt):
        train(broken, settings(prefetch=prefetch), again)
    assert not (again / "result").exists()
    torch.rand(cut)
    resumed = Line()
    train(resumed, settings(prefetch=prefetch), again)
    assert len(resumed.seen) < 20 or cut < 5
    assert_same(weights(alone / "result"), weights(again / "result"))
    for name in ("model", "ema"):
        last = [
            load_file(run / "checkpoints/step-00000010" / f"{name}.safetensors") for run in (alone, again)
        ]
        assert_same(*last)
    assert losses(alone) == losses(again)


def test_the_average_is_exported_and_differs_from_the_weights(tmp_path: Path) -> None:
    train(Line(), settings(), tmp_path)
    last = tmp_path / "checkpoints" / "step-00000010"
    average = load_file(last / "ema.safetensors")
    raw = load_file(last / "model.safetensors")
    exported = weights(tmp_path / "result")
    assert torch.equal(exported["0.weight"], average["parts.net.0.weight"])
    assert not torch.equal(exported["0.weight"], raw["parts.net.0.weight"])
    train(Line(), settings(ema=0.0), tmp_path / "raw")
    assert_same({f"parts.net.{k}": v for k, v in weights(tmp_path / "raw" / "result").items()}, raw)


def test_the_average_is_that_of_diffusers() -> None:
    from diffusers.training_utils import EMAModel

    from llmga.train.ema import Ema

    net = nn.Linear(3, 2)
    ours, theirs = Ema(dict(net.named_parameters()), 0.4), EMAModel(net.parameters(), decay=0.4)
    for step in range(8):
        with torch.no_grad():
            net.weight.add_(torch.randn(2, 3, generator=generator(step)))
        ours.update(step)
        theirs.step(net.parameters())
        torch.testing.assert_close(ours.average["weight"], theirs.shadow_params[0])
    with ours.swapped_in():
        assert torch.equal(net.weight, ours.average["weight"])
    assert not torch.equal(net.weight, ours.average["weight"])


def test_a_run_is_this_literal_loop(tmp_path: Path) -> None:
    expected = Line()
    optimizer = torch.optim.AdamW(expected.net.parameters(), lr=0.01)
    for step in range(10):
        total = torch.zeros(())
        for part in range(2):
            inputs = expected.batch(
                ExampleOrder(8, 0).take((2 * step + part) * 2, 2), generator(0, step, part, "batch")
            )
            torch.manual_seed(derive(0, step, part, "layers"))
            total = total + expected.loss(inputs, generator(0, step, part, "loss"))[0] / 2
        optimizer.zero_grad()
        total.backward()
        nn.utils.clip_grad_norm_(expected.net.parameters(), 1.0)
        optimizer.step()
    literal = weights(train(Line(), settings(ema=0.0), tmp_path / "c"))
    for name, value in expected.net.state_dict().items():
        torch.testing.assert_close(literal[name], value, atol=1e-6, rtol=1e-5)


def test_half_written_and_damaged_checkpoints_are_passed_over(tmp_path: Path) -> None:
    train(Line(), settings(steps=4, keep=5), tmp_path)
    root = tmp_path / "checkpoints"
    (root / ".step-00000008.partial").mkdir()
    (root / "step-00000006").mkdir()  # no state: copied half
    assert checkpoints.latest(root) == root / "step-00000004"
    model = root / "step-00000004" / "model.safetensors"
    model.write_bytes(model.read_bytes()[:-1])
    assert checkpoints.latest(root) == root / "step-00000002"
    (root / "step-00000002" / "state.json").write_text("{", encoding="utf-8")
    assert checkpoints.latest(root) is None
    train(Line(), settings(), tmp_path)
    train(Line(), settings(), tmp_path.with_name("alone"))
    assert_same(weights(tmp_path / "result"), weights(tmp_path.with_name("alone") / "result"))


def test_damaged_checkpoints_are_named_and_cost_neither_old_rows_nor_new_checkpoints(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    train(Line(), settings(steps=8, keep=2), tmp_path)
    rows, root = read_log(tmp_path / "log.jsonl"), tmp_path / "checkpoints"
    folders = [checkpoints.folder_of(root, step) for step in (6, 8)]
    for folder in folders:
        (folder / "model.safetensors").write_bytes(b"half")
    assert checkpoints.damaged(root) == folders
    stopped = Line()
    stopped.fail_at = 11  # a part of step 6: two checkpoints were saved, all older than the damaged ones
    with pytest.raises(KeyboardInterrupt):
        train(stopped, settings(steps=8, keep=2), tmp_path)
    said = [record.getMessage() for record in caplog.records]
    for folder in folders:
        assert any(f"{folder} is damaged and passed over" in line for line in said)
    assert read_log(tmp_path / "log-before-1.jsonl") == rows
    assert any("log-before-1.jsonl" in line for line in said)
    assert checkpoints.steps(root) == [2, 4, 6, 8]
    train(Line(), settings(steps=8, keep=2), tmp_path)  # goes on from step 4
    assert checkpoints.steps(root) == [6, 8] and not checkpoints.damaged(root)
    assert not (tmp_path / "log-before-2.jsonl").exists()
    assert [step for step, _ in losses(tmp_path)] == [row["step"] for row in rows]


def test_a_sampler_that_fails_costs_no_training(tmp_path: Path) -> None:
    class Unlucky(Line):
        def sample(self, step: int, folder: Path) -> None:
            raise RuntimeError("no sample")

    with pytest.raises(RuntimeError, match="no sample"):
        train(Unlucky(), settings(sample_every=4), tmp_path)
    assert checkpoints.steps(tmp_path / "checkpoints") == [2, 4]


def test_what_killed_runs_left_is_swept_and_nothing_else(tmp_path: Path) -> None:
    kept = [
        tmp_path / "checkpoints/.mine.partial",
        tmp_path / ".notes.part",
        tmp_path / "x.0123456789ab.part",
    ]
    left = [tmp_path / "checkpoints/.step-00000777.partial", tmp_path / ".result.partial"]
    for folder in (kept[0], *left):
        folder.mkdir(parents=True)
        (folder / "model.safetensors").write_bytes(b"half")
    parts = [tmp_path / ".config.yaml.0123456789ab.part", tmp_path / ".log.jsonl.ffffffffffff.part"]
    for path in (*kept[1:], *parts):
        path.write_text("half")
    train(Line(), settings(steps=2, save_every=2), tmp_path)
    assert all(path.exists() for path in kept)
    assert not any(path.exists() for path in (*left, *parts))


def test_optimizer_states_load_without_running_code(tmp_path: Path) -> None:
    train(Line(), settings(steps=2), tmp_path)
    state = torch.load(tmp_path / "checkpoints/step-00000002/optimizer.bin", weights_only=True)
    assert state["state"][0]["step"] == 2


def test_a_checkpoint_of_another_run_is_refused(tmp_path: Path) -> None:
    train(Line(), settings(steps=2), tmp_path)
    with pytest.raises(ValueError, match="'seed': 0.*'seed': 1"):
        train(Line(), settings(steps=4, seed=1), tmp_path)


def test_a_loss_that_is_no_number_stops_the_run(tmp_path: Path) -> None:
    with pytest.raises(FloatingPointError, match="loss is"):
        train(Line(), settings(lr=1e30), tmp_path)


class SteepLine(Line):
    """A line whose loss stays finite while its gradient is not a number, from a step on."""

    def __init__(self, steep_from: int) -> None:
        super().__init__()
        self.steep_from, self.step = steep_from, 0

    def begin_step(self, step: int) -> None:
        self.step = step

    def loss(self, inputs, generator):
        error, metrics = super().loss(inputs, generator)
        if self.step >= self.steep_from:  # the root of zero is zero, and its slope is infinite
            error = error + (0 * self.net[0].bias.sum()).sqrt()
        return error, metrics


@pytest.mark.parametrize("clip", [1.0, 0.0])
def test_a_gradient_that_is_no_number_reaches_no_checkpoint_and_no_result(
    tmp_path: Path, clip: float
) -> None:
    """Without clipping its norm is not known, and the weights themselves are looked at."""
    what = (
        "the grad_norm is nan by step 4"
        if clip
        else "weights, .*bias among them, are not finite after step 4"
    )
    good = checkpoints.folder_of(tmp_path / "checkpoints", 2)
    with pytest.raises(FloatingPointError, match=f"{what}; the last good checkpoint is {good}.*lower lr"):
        train(SteepLine(3), settings(clip=clip, log_every=2, prefetch=0), tmp_path)
    assert checkpoints.steps(tmp_path / "checkpoints") == [2] and not (tmp_path / "result").exists()
    other = tmp_path / "from the start"
    with pytest.raises(
        FloatingPointError, match="no earlier checkpoint, so the next run starts anew: lower lr"
    ):
        train(SteepLine(1), settings(clip=clip, log_every=2), other)
    train(Line(), settings(clip=clip), tmp_path)  # goes on from step 2
    assert all(value.isfinite().all() for value in weights(tmp_path / "result").values())


def test_a_checkpoint_with_a_weight_that_is_no_number_is_not_exported(tmp_path: Path) -> None:
    """Such as an older version saved."""
    train(Line(), settings(steps=4, ema=0.0), tmp_path)
    folder = checkpoints.folder_of(tmp_path / "checkpoints", 4)
    file = folder / "model.safetensors"
    save_file({name: value * math.nan for name, value in load_file(file).items()}, file, {"format": "pt"})
    before = weights(tmp_path / "result")
    with pytest.raises(FloatingPointError, match=f"delete {folder}, which holds them; .*step-00000002"):
        train(Line(), settings(steps=4, ema=0.0), tmp_path)
    assert_same(weights(tmp_path / "result"), before)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"batch": 5}, "multiple of micro_batch"),
        ({"steps": 0}, "steps must be at least 1"),
        ({"lr": -1.0}, "lr must not be negative"),
        ({"ema": 1.0}, "0 <= ema < 1"),
    ],
)
def test_settings_that_cannot_be(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        settings(**values)


class Critic:
    """Moves its weight to the trainer's output; the trainer ignores it."""

    def __init__(self) -> None:
        self.net = nn.Linear(1, 1, bias=False)
        nn.init.zeros_(self.net.weight)

    def modules(self):
        return {"critic": self.net}

    def loss(self, inputs, generator):
        return (self.net(inputs / 8) - inputs / 4).square().mean(), {}


def test_an_adversary_is_trained_on_the_same_inputs_and_resumed(tmp_path: Path) -> None:
    alone, again = Critic(), Critic()
    train(Line(adversary=alone), settings(), tmp_path / "alone")
    broken = Line(adversary=again)
    broken.fail_at = 9
    with pytest.raises(KeyboardInterrupt):
        train(broken, settings(), tmp_path / "again")
    last = Critic()
    train(Line(adversary=last), settings(), tmp_path / "again")
    assert alone.net.weight.item() > 0.05
    assert torch.equal(alone.net.weight, last.net.weight)
    train(Line(), settings(), tmp_path / "without")
    assert_same(weights(tmp_path / "alone/result"), weights(tmp_path / "without/result"))
    assert "adversary_loss" in read_log(tmp_path / "alone/log.jsonl")[0]


def test_two_processes_give_the_result_of_one(tmp_path: Path) -> None:
    """Weights of order 0.1 after 4 steps: gradients are added in another order, and AdamW divides by their size."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    context = fork_server()
    values: dict[str, Any] = {"steps": 4, "batch": 8, "micro_batch": 2}
    processes = [
        context.Process(target=one_of_two, args=(tmp_path / "two", rank, port, values)) for rank in (0, 1)
    ]
    for process in processes:
        process.start()
    train_tiny(tmp_path / "one", **values)
    for process in processes:
        process.join(3600)  # only processes that wait for each other for ever are cut off
        if process.exitcode is None:
            process.kill()
        assert process.exitcode == 0
    one, two = (
        load_file(tmp_path / run / "result/unet/diffusion_pytorch_model.safetensors")
        for run in ("one", "two")
    )
    for name in one:
        torch.testing.assert_close(two[name], one[name], atol=1e-4, rtol=0)
    assert [s for _, s in losses(tmp_path / "two")] == pytest.approx(
        [s for _, s in losses(tmp_path / "one")], rel=1e-5
    )


def test_kills_change_nothing(tmp_path: Path) -> None:
    alone, runs = kill_and_resume(short_run, tmp_path, kills=2)
    for run in runs:
        assert same_weights(alone / "result", run / "result")
        assert losses(run) == losses(alone)


def test_the_log_forgets_what_will_be_repeated(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    for step in range(1, 30):
        append(path, {"step": step, "loss": 1 / step})
    path.write_text(path.read_text(encoding="utf-8") + '{"step": 30, "lo', encoding="utf-8")
    assert [row["step"] for row in read_log(path)] == list(range(1, 30))
    drop_rows_after(path, 20)
    assert [json.loads(line)["step"] for line in path.read_text(encoding="utf-8").splitlines()] == list(
        range(1, 21)
    )
    plot(path, tmp_path / "curve.png")
    from PIL import Image

    picture = Image.open(tmp_path / "curve.png").convert("RGB")
    dark = [
        xy
        for xy in ((x, y) for x in range(85, 940) for y in range(35, 510))
        if picture.getpixel(xy) == (31, 78, 156)
    ]
    assert min(x for x, _ in dark) < 100 and max(x for x, _ in dark) > 930  # the curve crosses the picture
    with pytest.raises(ValueError, match="0 rows with 'psnr'"):
        plot(path, tmp_path / "curve.png", "psnr")


def test_an_adversary_may_have_rates_of_its_own(tmp_path: Path) -> None:
    """As DiffRIR's critic, whose optimizer keeps its rate where the restorer's is halved."""
    values: dict[str, Any] = {"steps": 4, "schedule": "multistep", "milestones": (2,), "lr": 0.1, "ema": 0.0}
    learned = {}
    own = settings(**{**values, "milestones": (4,)})
    for name, rates in (("shared", None), ("same", settings(**values)), ("own", own)):
        critic: Any = Critic()
        critic.loop = rates
        result = train(Line(adversary=critic), settings(**values), tmp_path / name)
        learned[name] = (critic.net.weight.detach().clone(), weights(result))
    assert torch.equal(learned["shared"][0], learned["same"][0])
    assert not torch.equal(learned["shared"][0], learned["own"][0])
    assert_same(learned["shared"][1], learned["own"][1])
