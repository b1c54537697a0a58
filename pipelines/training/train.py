"""Fine-tune the base model on the prepared rows: LoRA, the prompt masked out of the loss, interruptible at any time."""

from __future__ import annotations

import contextlib
import hashlib
import math
import shutil
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import peft
import torch
import transformers
from safetensors import SafetensorError

from pipelines.core.errors import ConfigError, ServiceError, one_line
from pipelines.core.files import digest, sha256, write_json
from pipelines.core.folders import replacing_folder
from pipelines.core.machine import has_bfloat16
from pipelines.core.params import Params, Train
from pipelines.core.rows import Row, read_rows
from pipelines.llm.local_model import LocalModel, ModelCard, load, read_card, resolve_device, resolve_precision
from pipelines.llm.prompts import load_prompt
from pipelines.training import adapter, checkpoints, environment
from pipelines.training.packing import Example, shared_prefix, to_examples
from pipelines.training.trainer import PackedTrainer, mean_loss, use_packed_attention
from pipelines.training.weights import adapter_digest

CANDIDATE = Path("models/candidate")
# What decides the weights beside the inputs: a checkpoint of older code must not be taken up.
CODE = ("adapter.py", "attention.py", "packing.py", "train.py", "trainer.py")

# torch's writer hides the cause and only says that it stands where it did not expect to.
DISK_WORDS = ("No space left", "File too large", "PytorchStreamWriter", "unexpected pos")


class Outcome(NamedTuple):
    """What came out of a training run.

    Attributes:
        record: What `training.json` holds.
        n_left_out: Training rows that are longer than `train.max_tokens`.
        resumed_at: Step at which an interrupted run was taken up; 0 is from the start.
    """

    record: dict[str, Any]
    n_left_out: int
    resumed_at: int


class Job(NamedTuple):
    """Everything that one run reads.

    Attributes:
        settings: The declared training.
        seed: Of every draw.
        card: The base model's card.
        base: The base model.
        examples: Training rows in tokens.
        validation: Held-out rows in tokens, possibly none.
        rows_digest: SHA-256 (hex) over the training rows.
        work: Folder of this run's checkpoints, named by the digest of its inputs.
    """

    settings: Train
    seed: int
    card: ModelCard
    base: LocalModel
    examples: list[Example]
    validation: list[Example]
    rows_digest: str
    work: Path


def train(params: Params, *, root: Path = Path()) -> Outcome:
    """Train the candidate that `params.yaml` declares and write `models/candidate/`, whole or not at all.

    A run that was killed goes on from its last whole checkpoint and ends with the weights it would have had.

    Args:
        params: The declared parameters.
        root: The repository.

    Raises:
        ConfigError: Rows, base model or settings are wrong, or the loss is not finite.
        ServiceError: The disk is full.
    """
    transformers.logging.disable_progress_bar()  # type: ignore[no-untyped-call]  # ours is the only one
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")
    rows = nested_share(_read(params, "train", root), params.train.rows_share)
    job = _prepare(params, rows, root)
    with _clear_disk_errors(job.work):
        trainer = _trainer(job)
        resume = _take_up(job.work)
        trainer.train(resume_from_checkpoint=str(resume) if resume else None)
        record = _record(job, trainer, root)
        if trainer.is_world_process_zero():
            _write(job, trainer, record, root)
    return Outcome(record, len(rows) - len(job.examples), int(resume.name.rpartition("-")[2]) if resume else 0)


def nested_share(rows: Sequence[Row], share: float) -> list[Row]:
    """Take a share of the rows by the hash of their ids: a larger share holds every smaller one.

    Returns:
        At least one row, in the order of the hash, whatever the order of `rows`.
    """
    ordered = sorted(rows, key=lambda row: hashlib.sha256(row.id.encode()).digest())
    return ordered[: max(1, math.ceil(share * len(ordered) - 1e-9))]


def _read(params: Params, split: str, root: Path) -> list[Row]:
    path = root / "data" / "prepared" / params.train.dataset / f"{split}.jsonl"
    if path.exists() and path.read_bytes().strip():
        return read_rows(path)
    if split == "validation":  # only shows how well training went
        return []
    if not path.exists():
        raise ConfigError(f"{path}: no such file; run `python -m scripts.prepare`")
    raise ConfigError(
        f"{path}: has no rows; give datasets.{params.train.dataset}.splits.train a share above 0 in params.yaml"
    )


def _prepare(params: Params, rows: list[Row], root: Path) -> Job:
    settings = params.train
    folder = root / "models" / settings.base
    card = read_card(folder)
    if card.kind != "transformers":
        raise ConfigError(
            f"params.yaml: train.base: '{settings.base}' is an {card.kind}; training needs a model of its own weights"
        )
    if settings.quantization == "nf4":
        base = adapter.load_quantized(folder)
    else:
        base = load(folder, precision=_precision(settings), device="auto")
        use_packed_attention(base.model)
    prompt = load_prompt(root / settings.prompt)
    held_out = _read(params, "validation", root)

    def tokenised(some: list[Row], split: str) -> list[Example]:
        path = Path("data/prepared") / settings.dataset / f"{split}.jsonl"
        return to_examples(some, prompt, base.tokenizer, max_tokens=settings.max_tokens, path=path)

    examples = tokenised(rows, "train")
    validation = tokenised(held_out, "validation") if held_out else []
    ignored = {"checkpoint_steps", "checkpoints_kept", "base", "prompt", "dataset", "precision"}
    inputs = {
        "settings": settings.model_dump(mode="json", exclude=ignored),
        "seed": params.seed,
        "base": card.digest,
        "examples": examples,
        "precision": base.precision,
        "device": base.device,
        "threads": torch.get_num_threads(),
        "versions": [torch.__version__, transformers.__version__, peft.__version__],
        "code": [sha256(Path(__file__).with_name(name)) for name in CODE],
    }
    rows_digest = digest([row._asdict() for row in rows])
    work = root / "checkpoints" / digest(inputs)
    return Job(settings, params.seed, card, base, examples, validation, rows_digest, work)


def _precision(settings: Train) -> str:
    device = resolve_device("auto")
    # Half the time on a processor that multiplies bfloat16 itself; several times as long on any other.
    if settings.precision == "auto" and device == "cpu" and has_bfloat16():
        return "bfloat16"
    dtype = resolve_precision(settings.precision, device)
    return str(dtype).removeprefix("torch.")


def _trainer(job: Job) -> PackedTrainer:
    settings = job.settings
    arguments = transformers.TrainingArguments(
        output_dir=str(job.work),
        per_device_train_batch_size=settings.batch_size,
        gradient_accumulation_steps=settings.gradient_accumulation,
        num_train_epochs=settings.epochs,
        learning_rate=settings.learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=settings.warmup_share,  # below 1 it is a share
        weight_decay=settings.weight_decay,
        max_grad_norm=settings.max_grad_norm,
        optim="adamw_torch",
        seed=job.seed,
        data_seed=job.seed,
        bf16=job.base.precision == "bfloat16",
        use_cpu=job.base.device == "cpu",
        save_strategy="steps",
        save_steps=settings.checkpoint_steps,
        save_total_limit=None,  # `Checkpoints` deletes the old only once the new is whole
        logging_steps=1,
        logging_nan_inf_filter=False,
        report_to="none",
        disable_tqdm=True,
        remove_unused_columns=False,
        dataloader_pin_memory=job.base.device == "cuda",
        ddp_find_unused_parameters=False,
    )
    transformers.set_seed(job.seed)
    model = adapter.attach(job.base.model, settings.lora, seed=job.seed)
    return PackedTrainer(model, arguments, job.examples, shared_prefix(job.examples), settings.checkpoints_kept)


def _take_up(work: Path) -> Path | None:
    """Find where an interrupted run of the same inputs can go on; one process clears the broken for all."""
    from accelerate import PartialState

    with PartialState().main_process_first():
        return checkpoints.latest(work)


def _record(job: Job, trainer: PackedTrainer, root: Path) -> dict[str, Any]:
    history = [point for point in trainer.state.log_history if "loss" in point]
    keys = ("step", "loss", "learning_rate", "seconds")
    seconds = history[-1]["seconds"] if history else 0.0
    model, prefix = trainer.model, shared_prefix([*job.examples, *job.validation])
    held_out = mean_loss(model, job.validation, prefix, batch_size=job.settings.batch_size) if job.validation else None
    return {
        "schema_version": 1,
        "loss": [{key: point[key] for key in keys} for point in history],
        "validation_loss": held_out,
        "steps": trainer.state.global_step,
        "rows": len(job.examples),
        "epochs": job.settings.epochs,
        "seconds": seconds,
        "rows_per_s": round(len(job.examples) * job.settings.epochs / seconds, 2) if seconds else None,
        "seed": job.seed,
        "environment": environment.describe(job.base.precision, root),
    }


def _write(job: Job, trainer: PackedTrainer, record: dict[str, Any], root: Path) -> None:
    settings = job.settings
    with replacing_folder(root / CANDIDATE) as folder:
        adapter.save(trainer.accelerator.unwrap_model(trainer.model), folder, base=f"models/{settings.base}")
        write_json(folder / "training.json", record)
        card = {
            "schema_version": 1,
            "kind": "adapter",
            "digest": adapter_digest(folder, job.card.digest),
            "family": job.card.family,
            "license": job.card.license,
            "source": {
                "source": "train",
                "dataset": settings.dataset,
                "prompt": settings.prompt,
                "rows": job.rows_digest,
            },
            "base": f"models/{settings.base}",
            "base_digest": job.card.digest,
        }
        write_json(folder / "model.json", card)
    shutil.rmtree(job.work, ignore_errors=True)


@contextlib.contextmanager
def _clear_disk_errors(work: Path) -> Iterator[None]:
    """Say that the disk is full where torch and safetensors say it in words of their own."""
    try:
        yield
    except (OSError, SafetensorError, RuntimeError) as error:
        if not any(words in str(error) for words in DISK_WORDS):
            raise
        raise ServiceError(
            f"{work}: a checkpoint or the candidate cannot be written, the disk is probably full "
            f"({one_line(str(error), 120)}); free some and run again, finished steps are kept"
        ) from None
