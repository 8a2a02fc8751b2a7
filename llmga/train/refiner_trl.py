"""TRL's SFTTrainer under the settings of ``LoopConfig``, with atomic checkpoints and a log as the other stages have."""

from __future__ import annotations

import logging
import os
import shutil
from pathlib import Path
from typing import Any

import torch

from . import checkpoint, finite, log
from .loop import LoopConfig, learning_rate
from .refiner_rows import AnswerCollator
from .run_config import write_run_config

_log = logging.getLogger(__name__)
_ADAM = ("betas", "eps", "weight_decay")
_UNFINISHED = "checkpoint-*"  # what Trainer writes, before it is published under our name


def precision_of(loop: LoopConfig) -> str:
    """The mixed precision of a run: where the settings say none, that of ``accelerate launch``."""
    return loop.mixed_precision or os.environ.get("ACCELERATE_MIXED_PRECISION", "no")


def sft_arguments(loop: LoopConfig, output: Path, gradient_checkpointing: bool) -> Any:
    """TRL's ``SFTConfig`` of a run whose collator makes rows, labels and padding.

    Raises:
        ValueError: the processes cannot share a batch evenly.
    """
    from accelerate import PartialState
    from trl import SFTConfig

    world, precision = PartialState(cpu=loop.cpu).num_processes, precision_of(loop)
    if loop.batch % (loop.micro_batch * world):
        raise ValueError(
            f"loop.batch ({loop.batch}) must be a multiple of loop.micro_batch ({loop.micro_batch}) times the "
            f"{world} processes"
        )
    return SFTConfig(
        output_dir=str(output / "checkpoints"),
        max_steps=loop.steps,
        per_device_train_batch_size=loop.micro_batch,
        gradient_accumulation_steps=loop.batch // (loop.micro_batch * world),
        learning_rate=loop.lr,
        adam_beta1=loop.betas[0],
        adam_beta2=loop.betas[1],
        adam_epsilon=loop.adam_eps,
        weight_decay=loop.weight_decay,
        max_grad_norm=loop.clip,
        bf16=precision == "bf16",
        fp16=precision == "fp16",
        use_cpu=loop.cpu,
        seed=loop.seed,
        gradient_checkpointing=gradient_checkpointing,
        gradient_checkpointing_kwargs={"use_reentrant": False},
        dataloader_num_workers=loop.prefetch,
        dataloader_pin_memory=torch.cuda.is_available() and not loop.cpu,
        logging_steps=loop.log_every,
        logging_nan_inf_filter=False,  # a loss that is no longer finite ends the run
        save_steps=loop.save_every,
        report_to="none",
        max_length=None,
        remove_unused_columns=False,
        dataset_kwargs={"skip_prepare_dataset": True},
    )


def make_trainer(
    net: Any, lora: Any, collator: AnswerCollator, arguments: Any, loop: LoopConfig, processor: Any
) -> Any:
    """An ``SFTTrainer`` that reads the samples 0, 1, … in their order, with the learning rate of the loop.

    Args:
        net: the base, which gets adapters.
        lora: a ``peft.LoraConfig``.
        arguments: from ``sft_arguments``.
        processor: saved with each checkpoint.
    """
    from datasets import Dataset
    from torch.utils.data import SequentialSampler
    from trl import SFTTrainer

    class OrderedTrainer(SFTTrainer):
        """The mixture has shuffled the samples, epoch by epoch; they are taken as they come."""

        def _get_train_sampler(self, train_dataset: Any = None) -> Any:
            samples: Any = self.train_dataset if train_dataset is None else train_dataset
            return SequentialSampler(samples)

        def _send_telemetry(self) -> None:
            """TRL reports each run to its makers; this library reports nothing."""

        def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
            if self.lr_scheduler is None:
                moved: Any = optimizer or self.optimizer
                self.asked = [{name: group[name] for name in _ADAM} for group in moved.param_groups]
                self.lr_scheduler = torch.optim.lr_scheduler.LambdaLR(
                    moved, lambda step: learning_rate(loop, step) / (loop.lr or 1)
                )
                self._created_lr_scheduler = True
            return self.lr_scheduler

    trainer = OrderedTrainer(
        model=net,
        args=arguments,
        data_collator=collator,
        train_dataset=Dataset.from_dict({"index": range(loop.steps * loop.batch)}),
        processing_class=processor,
        peft_config=lora,
    )
    # Qwen's and Gemma's vision-language classes say that their own loss takes no count of tokens, but TRL's does. Without it
    # the loss of a step is a mean over its parts, in which a token of a short answer counts more than one of a long answer.
    trainer.model_accepts_loss_kwargs = True
    if trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled:
        raise ValueError(
            "the stage refiner trains whole weights in every process; launch it without FSDP and DeepSpeed"
        )
    return trainer


def train_from_newest(
    trainer: Any, collator: AnswerCollator, config: Any, output: Path, identity: dict[str, int]
) -> None:
    """Train to the end, from the newest whole checkpoint in ``output`` or from the start.

    Args:
        config: the run's, written as ``config.yaml`` once the checkpoint was accepted.
        identity: what must not change in a run that is resumed, beside its seed and its batches.

    Raises:
        ValueError: the checkpoint is of another run.
        FloatingPointError: the loss, the gradient or the weights are no longer finite; nothing of them is saved.
    """
    loop: LoopConfig = config.loop
    root, main = output / "checkpoints", trainer.accelerator.is_main_process
    identity = {"seed": loop.seed, "batch": loop.batch, "micro_batch": loop.micro_batch, **identity}
    if main:
        left = [*checkpoint.sweep_run(output), *root.glob(_UNFINISHED)]
        for path in left:
            shutil.rmtree(path, ignore_errors=True)
        if left:
            _log.info("%s: removed %d unfinished folders of a run that was killed", output, len(left))
    trainer.accelerator.wait_for_everyone()
    folder, done = checkpoint.latest(root), 0
    if folder is not None:
        state: Any = checkpoint.read_state(folder)
        checkpoint.check_same_run(folder, state, identity, loop.steps)
        done = state["step"]
    if main:
        write_run_config(config, output)
        log.resume(output / "log.jsonl", done, checkpoint.damaged(root))
    trainer.add_callback(_records(trainer, collator, loop, output, identity))
    trainer.train(resume_from_checkpoint=None if folder is None else str(folder))
    finite.check_weights(_adapters(trainer), trainer.state.global_step, root, trainer.accelerator)


def _adapters(trainer: Any) -> list[tuple[str, torch.Tensor]]:
    """The weights that are trained, by name."""
    return [pair for pair in trainer.model.named_parameters() if pair[1].requires_grad]


def _records(
    trainer: Any, collator: AnswerCollator, loop: LoopConfig, output: Path, identity: dict[str, int]
) -> Any:
    """The callback that writes the log and publishes checkpoints."""
    from transformers import TrainerCallback

    main, wait = trainer.accelerator.is_main_process, trainer.accelerator.wait_for_everyone
    root = output / "checkpoints"

    class Records(TrainerCallback):
        cut = 0

        def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            # A checkpoint brings the settings of the run before; what is asked for now takes their place.
            state.compute_steps(args, args.max_steps)
            schedule = trainer.lr_scheduler
            schedule.base_lrs = [loop.lr] * len(schedule.base_lrs)
            schedule._last_lr = [loop.lr * factor(schedule.last_epoch) for factor in schedule.lr_lambdas]
            groups = trainer.optimizer.param_groups
            for group, asked, lr in zip(groups, trainer.asked, schedule._last_lr, strict=True):
                group.update(asked, initial_lr=loop.lr, lr=lr)

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            # The window of a mean never crosses a checkpoint: a resumed run logs the same numbers.
            control.should_log |= control.should_save

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
            if "loss" not in logs:  # the summary at the end
                return
            advice = "raise max_length; " if collator.cut else ""  # a cut talk may have no answer left
            scaled = trainer.accelerator.scaler is not None
            finite.check_means(logs, state.global_step, root, scaled=scaled, advice=advice)
            if main:
                names = {"accuracy": "mean_token_accuracy", "grad_norm": "grad_norm", "lr": "learning_rate"}
                row = {name: logs[key] for name, key in names.items() if key in logs}
                log.append(output / "log.jsonl", {"step": state.global_step, "loss": logs["loss"], **row})
            if self.cut < (cut := int(collator.cut)):
                self.cut = cut
                _log.warning("%d conversations so far were longer than max_length and lost their end", cut)

        def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            finite.check_weights(_adapters(trainer), state.global_step, root, trainer.accelerator)
            wait()
            if main:
                made = root / f"checkpoint-{state.global_step}"
                step = {"step": state.global_step, "identity": identity}
                checkpoint.publish(made, checkpoint.folder_of(root, state.global_step), step)
                checkpoint.prune(root, loop.keep)
            wait()

    return Records()
