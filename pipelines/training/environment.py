"""What a training run ran on, for its record."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any

import peft
import torch
import transformers

from pipelines.core.commit import head
from pipelines.core.machine import cpu_name


def describe(precision: str, root: Path) -> dict[str, Any]:
    """Return versions, hardware and Git commit.

    Args:
        precision: Type of the computation.
        root: The repository.
    """
    has_gpu = torch.cuda.is_available()
    commit, is_changed = head(root)
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "peft": peft.__version__,
        "cuda": torch.version.cuda if has_gpu else None,
        "gpu": torch.cuda.get_device_name(0) if has_gpu else None,
        "gpus": torch.cuda.device_count(),
        "cpu": cpu_name(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": torch.get_num_threads(),
        "precision": precision,
        "commit": commit,
        "commit_is_changed": is_changed,
    }
