"""transformers' Trainer on packed batches, with checkpoints that survive a kill and a progress bar for people."""

from __future__ import annotations

import contextlib
import math
import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch.nn.functional import cross_entropy
from tqdm import tqdm
from transformers import (
    AttentionInterface,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from pipelines.core.errors import ConfigError
from pipelines.training.attention import NAME, Segments, packed_attention
from pipelines.training.checkpoints import keep, seal
from pipelines.training.packing import Example, Packed, pack

AttentionInterface.register(NAME, packed_attention)


class PackedTrainer(Trainer):
    """A Trainer whose batches are packed sequences and whose loss is the mean over all answer tokens of a batch."""

    def __init__(
        self, model: Any, arguments: TrainingArguments, examples: list[Example], prefix: list[int], n_kept: int
    ) -> None:
        super().__init__(
            model=model,
            args=arguments,
            train_dataset=examples,
            data_collator=lambda batch: collate(batch, prefix),
            callbacks=[Checkpoints(n_kept), Progress(len(examples))],
        )
        self.remove_callback(PrinterCallback)
        self.model_accepts_loss_kwargs = True  # makes the Trainer count answer tokens over accumulation and processes
        self._started = time.monotonic()
        self._earlier_s: float | None = None

    def training_step(self, model: Any, inputs: dict[str, Any], num_items_in_batch: Any = None) -> torch.Tensor:
        """Add the gradient of one batch, packed sequence by packed sequence, so that memory holds one at a time."""
        model.train()
        inputs = self._prepare_inputs(inputs)
        total = torch.zeros((), device=self.args.device)
        packs = inputs["packs"]
        for number, packed in enumerate(packs, start=1):
            # Processes have different numbers of sequences, but must exchange gradients equally often.
            is_last = number == len(packs)
            with contextlib.nullcontext() if is_last else self.accelerator.no_sync(model):
                with self.compute_loss_context_manager():
                    # Processes average their gradients, the loss is a mean over the tokens of all.
                    loss = summed_loss(model, packed) / num_items_in_batch * self.accelerator.num_processes
                self.accelerator.backward(loss)
            total += loss.detach()
        if not math.isfinite(total.item()):
            raise ConfigError(
                f"training: the loss is {total.item()} at step {self.state.global_step + 1}; "
                "lower train.learning_rate (or use train.precision float32)"
            )
        return total

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Record the seconds since the start with each point of the loss curve, over interruptions."""
        if self._earlier_s is None:
            self._earlier_s = max((point.get("seconds", 0.0) for point in self.state.log_history), default=0.0)
        logs["seconds"] = round(self._earlier_s + time.monotonic() - self._started, 2)
        super().log(logs, start_time)


def collate(batch: list[Example], prefix: list[int]) -> dict[str, Any]:
    """Pack a batch; the Trainer looks for `labels` and counts `shift_labels`: all tokens to predict."""
    packs = pack(batch, prefix)
    targets = torch.cat([packed.targets for packed in packs])
    return {"packs": [packed._asdict() for packed in packs], "labels": targets, "shift_labels": targets}


def use_packed_attention(model: Any) -> None:
    """Let a model attend segment by segment where that is faster and its architecture allows it."""
    if model.device.type == "cpu" and getattr(model, "_supports_attention_backend", False):
        model.set_attn_implementation(NAME)


def summed_loss(model: Any, packed: dict[str, Any]) -> torch.Tensor:
    """Return the sum of the negative log-likelihoods (nats) of a packed sequence's answer tokens.

    Args:
        model: A causal language model.
        packed: The fields of a `Packed`.
    """
    values = Packed(**packed)
    segments = Segments(values.sizes)
    if model_config(model)._attn_implementation == NAME:
        seen: dict[str, Any] = {"segments": segments}
    else:
        seen = {"attention_mask": segments.dense_mask(values.input_ids.device)}
    # Logits at answers only: the vocabulary is the widest layer, and the prompt teaches nothing.
    logits = model(
        input_ids=values.input_ids,
        position_ids=values.position_ids,
        logits_to_keep=values.predicting,
        use_cache=False,
        **seen,
    ).logits
    return cross_entropy(logits[0].float(), values.targets, reduction="sum")


def model_config(model: Any) -> Any:
    """Return the configuration of a model, also of one that is wrapped for several processes."""
    return getattr(model, "module", model).config


def mean_loss(model: Any, examples: list[Example], prefix: list[int], *, batch_size: int) -> float:
    """Return the mean negative log-likelihood (nats per answer token) of examples, without training on them."""
    model.eval()
    total, count = 0.0, 0
    with torch.no_grad():
        for start in range(0, len(examples), batch_size):
            for packed in pack(examples[start : start + batch_size], prefix):
                on_device = {
                    name: value.to(model.device) if isinstance(value, torch.Tensor) else value
                    for name, value in packed._asdict().items()
                }
                total += summed_loss(model, on_device).item()
                count += len(packed.targets)
    return total / count


class Checkpoints(TrainerCallback):
    """Seals each checkpoint once it is written, then lets the oldest go."""

    def __init__(self, n_kept: int) -> None:
        self.n_kept = n_kept

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Seal the checkpoint that was just written."""
        if torch.distributed.is_initialized():
            torch.distributed.barrier()  # every process writes its own random state
        if state.is_world_process_zero:
            seal(Path(str(args.output_dir)) / f"checkpoint-{state.global_step}")
            keep(Path(str(args.output_dir)), self.n_kept)


class Progress(TrainerCallback):
    """One line on stderr: steps, loss, rows per second, time left."""

    def __init__(self, n_rows: int) -> None:
        self.n_rows = n_rows
        self.bar: Any = None

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Start where an earlier run left off."""
        if state.is_world_process_zero:
            self.bar = tqdm(
                total=state.max_steps, initial=state.global_step, desc="train", unit="step", file=sys.stderr
            )
            self.bar.rows_per_step = args.train_batch_size * args.gradient_accumulation_steps * args.world_size

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **_: Any,
    ) -> None:
        """Show the last step's loss."""
        if self.bar is not None and logs and "loss" in logs:
            done = state.global_step - self.bar.initial
            rows_per_s = done * self.bar.rows_per_step / max(self.bar.format_dict["elapsed"], 1e-9)
            self.bar.set_postfix_str(f"loss {logs['loss']:.3f}, {rows_per_s:.1f} rows/s", refresh=False)
            self.bar.update(state.global_step - self.bar.n)

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Leave the finished bar on the screen."""
        if self.bar is not None:
            self.bar.close()
