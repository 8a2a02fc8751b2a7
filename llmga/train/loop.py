"""The training loop that all trainers share.

A run is a pure function of its configuration. A step trains on one global batch, cut into ``batch / micro_batch`` parts;
which examples a part holds and every random number drawn for it follow from (seed, step, part) alone. So a resumed run
is the uninterrupted one, and how many processes share the parts changes only the order in which gradients are added up.
"""

from __future__ import annotations

import contextlib
import logging
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
from torch import nn

from . import checkpoint, finite, log
from .determinism import determinism, forked_random_state
from .ema import Ema
from .example_order import ExampleOrder, derive, generator
from .prefetch import prefetched
from .run_config import check_config, write_run_config

_log = logging.getLogger(__name__)

Metrics = Mapping[str, torch.Tensor]
Weights = dict[str, dict[str, torch.Tensor]]


@dataclass(frozen=True)
class LoopConfig:
    """Settings of the training loop."""

    steps: int
    """Optimizer steps of the whole run."""
    batch: int
    """Examples of one optimizer step, over all processes."""
    micro_batch: int
    """Examples of one forward pass on one device; the rest of a process's share of a batch is accumulated."""
    lr: float
    schedule: Literal["constant", "cosine", "multistep"] = "constant"
    warmup: int = 0
    """Steps of linear warm-up."""
    milestones: tuple[int, ...] = ()
    """Steps at which ``multistep`` multiplies lr by ``gamma``, and ``cosine`` restarts, warm-up and all."""
    gamma: float = 0.5
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 0.01
    adam_eps: float = 1e-8
    clip: float = 1.0
    """Largest norm of the gradient; 0 lets every gradient pass. The log's ``grad_norm`` is the norm before clipping."""
    ema: float = 0.0
    """Decay of the average of the weights; 0 keeps none."""
    seed: int = 0
    mixed_precision: Literal["no", "fp16", "bf16"] | None = None
    """None is what accelerate's own configuration says."""
    deterministic: bool = False
    cpu: bool = False
    """Use no accelerator even where there is one."""
    log_every: int = 10
    save_every: int = 1000
    sample_every: int = 0
    """Steps; 0 draws no samples."""
    keep: int = 2
    """Checkpoints kept on disk."""
    prefetch: int = 0
    """Steps whose inputs threads prepare ahead."""

    def __post_init__(self) -> None:
        for name in ("steps", "batch", "micro_batch", "log_every", "save_every", "keep"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("warmup", "clip", "sample_every", "prefetch", "lr", "weight_decay"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative, got {getattr(self, name)}")
        if self.batch % self.micro_batch:
            raise ValueError(f"batch ({self.batch}) must be a multiple of micro_batch ({self.micro_batch})")
        if not 0 <= self.ema < 1:
            raise ValueError(f"ema must lie in 0 <= ema < 1, got {self.ema}")


class Objective(Protocol):
    """One loss and the modules that one optimizer moves to lower it."""

    def modules(self) -> Mapping[str, nn.Module]: ...

    def loss(self, inputs: Any, generator: torch.Generator) -> tuple[torch.Tensor, Metrics]:
        """The mean loss of a part and scalars for the log. All randomness comes from ``generator`` (CPU);
        dropout layers may use torch's global one, which the loop seeds."""
        ...


class Trainer(Objective, Protocol):
    """What is trained on what. An optional attribute ``adversary``, an Objective, is updated after it on the same
    inputs; its own attribute ``loop``, a LoopConfig, says its learning rates where they are others. An optional method
    ``begin_step(step)`` is called before each step, counted from 0, and ``after_step()`` behind each; the latter may change
    the trained weights."""

    def __len__(self) -> int:
        """How many examples there are."""
        ...

    def prepare(self, device: torch.device, rank: int, world: int, barrier: Callable[[], None]) -> None:
        """Called once before training: move frozen modules to the device, fill caches. ``barrier`` waits for all."""
        ...

    def batch(self, indices: torch.Tensor, generator: torch.Generator) -> Any:
        """The inputs of a part from example indices (n,), on the device. It may run in another thread
        (``prefetch``), so it must draw from ``generator`` only."""
        ...

    def sample(self, step: int, folder: Path) -> None:
        """Write pictures into ``folder``; the modules hold the averaged weights and are in eval mode."""
        ...

    def export(self, folder: Path, weights: Weights) -> None:
        """Write the result into the empty ``folder``, from state dicts by module name (averaged, if ``ema``)."""
        ...


def learning_rate(config: LoopConfig, step: int) -> float:
    """The rate of the optimizer step ``step``, counted from 0."""
    if config.schedule == "cosine" and config.milestones:  # of the run that this step belongs to
        ends = (0, *config.milestones, config.steps)
        begun, end = max(e for e in ends if e <= step), min((e for e in ends if e > step), default=step + 1)
        return learning_rate(replace(config, steps=end - begun, milestones=()), step - begun)
    if step < config.warmup:
        return config.lr * (step + 1) / config.warmup
    if config.schedule == "cosine":
        progress = (step - config.warmup) / max(config.steps - config.warmup, 1)
        return config.lr * 0.5 * (1 + math.cos(math.pi * progress))
    if config.schedule == "multistep":
        return config.lr * config.gamma ** sum(step >= milestone for milestone in config.milestones)
    return config.lr


def train(trainer: Trainer, config: LoopConfig, output: Path, run_config: Any = None) -> Path:
    """Train from the newest whole checkpoint in ``output``, or from the start, and export the result.

    Writes ``checkpoints/``, ``log.jsonl``, ``samples/`` and, at the end, ``result/``, whose path it returns.

    Args:
        run_config: the configuration of the whole run, of which ``config`` is a part. It is held against the
            ``config.yaml`` in ``output``, and written there once the run was accepted.

    Raises:
        ValueError: the settings do not fit each other, the data, the number of processes, the checkpoint or what was
            trained in ``output`` before; there, nothing was changed.
        FloatingPointError: the loss, the gradient or the weights are no longer finite; nothing of them is saved.
    """
    from accelerate.state import AcceleratorState

    if run_config is not None:
        check_config(run_config, output)
    try:
        with determinism(config.deterministic), forked_random_state():
            run = _Run(trainer, config, output)
            run.resume(run_config)
            run.steps()
            return run.export()
    finally:
        # accelerate keeps its settings for the life of the process; the next run may have others.
        AcceleratorState._reset_state()


class _Net(nn.Module):
    """An objective's modules as the one that accelerate wraps, so that its forward pass is the loss."""

    def __init__(self, objective: Objective) -> None:
        super().__init__()
        self.parts = nn.ModuleDict(dict(objective.modules()))
        self._loss = objective.loss

    def forward(self, inputs: Any, generator: torch.Generator) -> tuple[torch.Tensor, Metrics]:
        return self._loss(inputs, generator)


class _Run:
    def __init__(self, trainer: Trainer, config: LoopConfig, output: Path) -> None:
        from accelerate import Accelerator
        from accelerate.utils import DistributedType

        self.trainer, self.config, self.output = trainer, config, output
        self.accelerator = Accelerator(mixed_precision=config.mixed_precision, cpu=config.cpu)
        rank, world = self.accelerator.process_index, self.accelerator.num_processes
        self.all_parts = config.batch // config.micro_batch
        if self.all_parts % world:
            raise ValueError(
                f"a batch of {config.batch} in parts of {config.micro_batch} gives {self.all_parts} parts, which "
                f"{world} processes cannot share evenly; change batch or micro_batch"
            )
        self.parts = range(rank, self.all_parts, world)
        self.accelerator.gradient_accumulation_steps = len(self.parts)
        self.sharded = self.accelerator.distributed_type in (DistributedType.FSDP, DistributedType.DEEPSPEED)
        if self.accelerator.distributed_type == DistributedType.DEEPSPEED:
            plugin: Any = self.accelerator.state.deepspeed_plugin
            plugin.deepspeed_config["train_micro_batch_size_per_gpu"] = config.micro_batch
        if self.sharded and config.ema:
            raise ValueError("ema needs whole weights in every process; set ema=0 for FSDP and DeepSpeed")
        if not config.deterministic and self.accelerator.device.type == "cuda":
            torch.set_float32_matmul_precision("high")  # TF32
        output.mkdir(parents=True, exist_ok=True)
        if self.accelerator.is_main_process and (left := checkpoint.sweep_run(output)):
            _log.info(
                "%s: removed %d unfinished files and folders of a run that was killed", output, len(left)
            )
        self.accelerator.wait_for_everyone()
        trainer.prepare(self.accelerator.device, rank, world, self.accelerator.wait_for_everyone)
        self.order = ExampleOrder(len(trainer), config.seed)
        adversary = getattr(trainer, "adversary", None)
        self.sides = [self._side(objective) for objective in (trainer, adversary) if objective is not None]
        self.rates = [config, getattr(adversary, "loop", None) or config][: len(self.sides)]
        net = self.accelerator.unwrap_model(self.sides[0][0])
        trained = {name: p for name, p in net.named_parameters() if p.requires_grad}
        self.ema = Ema(trained, config.ema) if config.ema else None
        self.done = 0
        self.total: dict[str, torch.Tensor] = {}
        self.since, self.clock = 0, time.perf_counter()

    def _side(self, objective: Objective) -> tuple[nn.Module, Any]:
        net = _Net(objective)
        trained = [p for p in net.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(trained, lr=self.config.lr, **self.adam)
        return self.accelerator.prepare(net.train(), optimizer)

    @property
    def adam(self) -> dict[str, Any]:
        """AdamW's settings but for the learning rate, which each step sets."""
        c = self.config
        return {"betas": c.betas, "eps": c.adam_eps, "weight_decay": c.weight_decay}

    @property
    def checkpoints(self) -> Path:
        return self.output / "checkpoints"

    @property
    def identity(self) -> dict[str, int]:
        """What must not change in a run that is resumed."""
        c = self.config
        return {"seed": c.seed, "batch": c.batch, "micro_batch": c.micro_batch, "examples": len(self.trainer)}

    def resume(self, run_config: Any = None) -> None:
        folder = checkpoint.latest(self.checkpoints)
        if folder is not None:
            state: Any = checkpoint.read_state(folder)
            checkpoint.check_same_run(folder, state, self.identity, self.config.steps)
            checkpoint.check_holds(folder, ema=self.config.ema, scaled=self.accelerator.scaler is not None)
            self.accelerator.load_state(str(folder))
            for _, optimizer in self.sides:
                for group in optimizer.param_groups:
                    group.update(self.adam)  # the checkpoint's are those of the run before
            if self.ema:
                from safetensors.torch import load_file

                self.ema.load(load_file(folder / "ema.safetensors"))
            self.done = state["step"]
        if self.accelerator.is_main_process:
            if run_config is not None:
                write_run_config(run_config, self.output)
            log.resume(self.output / "log.jsonl", self.done, checkpoint.damaged(self.checkpoints))

    def steps(self) -> None:
        from tqdm import tqdm

        c = self.config
        main = self.accelerator.is_main_process
        begin_step = getattr(self.trainer, "begin_step", lambda step: None)
        with tqdm(total=c.steps, initial=self.done, disable=None if main else True, unit="step") as bar:
            for inputs in prefetched(self._inputs, self.done, c.steps, c.prefetch):
                begin_step(self.done)
                for (net, optimizer), rates in zip(self.sides, self.rates, strict=True):
                    for group in optimizer.param_groups:
                        group["lr"] = learning_rate(rates, self.done)
                    self._update(net, optimizer, inputs)
                if after_step := getattr(self.trainer, "after_step", None):
                    after_step()
                if self.ema:
                    self.ema.update(self.done)
                self.done += 1
                self.since += 1
                bar.update()
                saves = self.done % c.save_every == 0 or self.done == c.steps
                # The window of a mean never crosses a checkpoint: a resumed run logs the same numbers.
                if saves or self.done % c.log_every == 0:
                    bar.set_postfix(self._log(), refresh=False)
                if saves:
                    self._save()  # first, so that a sampler that fails costs no training
                if c.sample_every and (self.done % c.sample_every == 0 or self.done == c.steps):
                    self._sample()

    def _inputs(self, step: int) -> list[Any]:
        size, seed = self.config.micro_batch, self.config.seed
        inputs = []
        for part in self.parts:
            indices = self.order.take((step * self.all_parts + part) * size, size)
            inputs.append(self.trainer.batch(indices, generator(seed, step, part, "batch")))
        return inputs

    def _update(self, net: nn.Module, optimizer: Any, inputs: list[Any]) -> None:
        c, step = self.config, self.done
        side = "" if net is self.sides[0][0] else "adversary_"
        optimizer.zero_grad()  # an adversary holds gradients of the other side's loss
        for part, batch in zip(self.parts, inputs, strict=True):
            torch.manual_seed(derive(c.seed, step, part, "layers"))  # for dropout layers
            with self.accelerator.accumulate(net):
                loss, metrics = net(batch, generator(c.seed, step, part, "loss"))
                self.accelerator.backward(loss)
                if self.accelerator.sync_gradients and c.clip:
                    norm = self.accelerator.clip_grad_norm_(net.parameters(), c.clip)
                    if norm is not None:  # DeepSpeed may give none
                        self._add(f"{side}grad_norm", torch.as_tensor(norm, device=loss.device))
                optimizer.step()
            for name, value in {f"{side}loss": loss, **metrics}.items():
                self._add(name, value / len(self.parts))

    def _add(self, name: str, value: torch.Tensor) -> None:
        """Add to the sum over the steps since the last line of the log."""
        self.total[name] = self.total.get(name, torch.zeros(())) + value.detach().float()

    def _log(self) -> dict[str, float]:
        names = list(self.total)
        mean = torch.stack([self.total[name] for name in names]) / self.since
        means: Any = self.accelerator.reduce(mean, "mean")
        values = dict(zip(names, means.tolist(), strict=True))
        scaled = self.accelerator.scaler is not None
        finite.check_means(values, self.done, self.checkpoints, scaled=scaled)
        seconds = time.perf_counter() - self.clock
        if self.accelerator.is_main_process:
            row = {
                "step": self.done,
                **values,
                "lr": learning_rate(self.config, self.done - 1),
                "seconds": round(seconds, 3),
                "examples_per_second": round(self.since * self.config.batch / seconds, 2),
            }
            log.append(self.output / "log.jsonl", row)
        self.total, self.since, self.clock = {}, 0, time.perf_counter()
        return values

    def _sample(self) -> None:
        # A sharded net can only run in all processes at once, and sample runs in one.
        if self.accelerator.is_main_process and not self.sharded:
            folder = self.output / "samples"
            folder.mkdir(exist_ok=True)
            net = self.sides[0][0].eval()
            with self.ema.swapped_in() if self.ema else contextlib.nullcontext(), torch.no_grad():
                self.trainer.sample(self.done, folder)
            net.train()
        self.accelerator.wait_for_everyone()

    def _check_weights(self) -> None:
        trained = [pair for net, _ in self.sides for pair in net.named_parameters() if pair[1].requires_grad]
        averages = (
            [(f"the average of {name}", value) for name, value in self.ema.average.items()]
            if self.ema
            else []
        )
        finite.check_weights([*trained, *averages], self.done, self.checkpoints, self.accelerator)

    def _save(self) -> None:
        from safetensors.torch import save_file

        self._check_weights()
        folder = checkpoint.folder_of(self.checkpoints, self.done)
        partial = folder.with_name(f".{folder.name}.partial")
        if self.accelerator.is_main_process:
            checkpoint.begin(folder)
        self.accelerator.wait_for_everyone()
        self.accelerator.save_state(str(partial), safe_serialization=True)
        self.accelerator.wait_for_everyone()
        if self.accelerator.is_main_process:
            if self.ema:
                save_file(self.ema.average, partial / "ema.safetensors")
            checkpoint.publish(partial, folder, {"step": self.done, "identity": self.identity})
            checkpoint.prune(self.checkpoints, self.config.keep)
        self.accelerator.wait_for_everyone()
        self.clock = time.perf_counter()  # examples per second are those of training

    def export(self) -> Path:
        self._check_weights()
        folder = self.output / "result"
        flat: dict[str, Any] = {}
        for net, _ in self.sides:
            flat = {**self.accelerator.get_state_dict(net), **flat}
        if self.accelerator.is_main_process:
            flat |= self.ema.average if self.ema else {}
            weights: Weights = {}
            for name, value in flat.items():
                _, module, inner = name.split(".", 2)
                weights.setdefault(module, {})[inner] = value.detach().cpu().contiguous()
            partial = checkpoint.begin(folder)
            self.trainer.export(partial, weights)
            checkpoint.publish(partial, folder)
        self.accelerator.wait_for_everyone()
        return folder
