"""The loop: what a step trains on, its rates, its average of the weights, two processes, an adversary."""

from __future__ import annotations

import math
import socket
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import nn

pytest.importorskip("accelerate", reason="training needs accelerate")

from support.fork_server import fork_server
from support.line_training import Line, assert_same, losses, settings, weights
from support.tiny_training import one_of_two, train_tiny

from llmga.train import ExampleOrder, derive, generator, learning_rate, train
from llmga.train import checkpoint as checkpoints
from llmga.train.log import read_log


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
    again = settings(steps=150, warmup=10, schedule="cosine", lr=1.0, milestones=(110,))
    assert all(learning_rate(again, s) == learning_rate(cosine, s) for s in range(110))
    shorter = settings(steps=40, warmup=10, schedule="cosine", lr=1.0)
    assert all(learning_rate(again, 110 + s) == learning_rate(shorter, s) for s in range(40))
    late = settings(steps=110, warmup=10, schedule="cosine", lr=1.0, milestones=(200,))
    assert all(learning_rate(late, s) == learning_rate(cosine, s) for s in range(110))
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


def test_a_sampler_that_fails_costs_no_training(tmp_path: Path) -> None:
    class Unlucky(Line):
        def sample(self, step: int, folder: Path) -> None:
            raise RuntimeError("no sample")

    with pytest.raises(RuntimeError, match="no sample"):
        train(Unlucky(), settings(sample_every=4), tmp_path)
    assert checkpoints.steps(tmp_path / "checkpoints") == [2, 4]


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
