"""Start training in several processes, one per GPU, through `accelerate launch`."""

from __future__ import annotations

import os
import subprocess
import sys

from pipelines.core.errors import ConfigError, ServiceError


def is_worker() -> bool:
    """Tell whether this process was started by `accelerate launch`."""
    return "LOCAL_RANK" in os.environ


def launch(processes: int, module: str) -> None:
    """Run a module once per GPU and wait for all.

    Args:
        processes: Declared number of GPUs.
        module: What each process runs, as `python -m` takes it.

    Raises:
        ConfigError: Fewer GPUs are there than declared.
        ServiceError: A process failed; it has printed why.
    """
    import torch

    n_gpus = torch.cuda.device_count()
    if n_gpus < processes:
        raise ConfigError(
            f"params.yaml: train.processes: {processes} GPUs are declared, {n_gpus} are here; "
            f"lower it to {max(1, n_gpus)}"
        )
    code = subprocess.run(command(processes, module), check=False).returncode
    if code:
        raise ServiceError(f"a training process ended with code {code}; its message is above")


def command(processes: int, module: str) -> list[str]:
    """Return the command line of `launch`.

    Args:
        processes: Number of processes on this machine.
        module: What each process runs.
    """
    # Everything is said here, so that a user's own accelerate configuration cannot change a run.
    options = ["--num_processes", str(processes), "--num_machines", "1", "--mixed_precision", "no"]
    options += ["--dynamo_backend", "no", "--main_process_port", "0", "--multi_gpu"]
    return [sys.executable, "-m", "accelerate.commands.launch", *options, "-m", module]
