"""What a training run ran on, for its record."""

from __future__ import annotations

import os
import platform
import re
from pathlib import Path
from typing import Any

import peft
import torch
import transformers

from pipelines.core.commit import head


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
        "cpu": _cpu(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": torch.get_num_threads(),
        "precision": precision,
        "commit": commit,
        "commit_is_changed": is_changed,
    }


def has_bfloat16_cpu() -> bool:
    """Tell whether the processor has instructions for products of bfloat16 matrices (AVX-512 BF16 or AMX)."""
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    return re.search(r"^flags\s*:.*\b(avx512_bf16|amx_bf16)\b", flags, re.M) is not None


def _cpu() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return platform.processor()
    found = re.search(r"^model name\s*:\s*(.+)$", text, re.M)
    return " ".join(found[1].split()) if found else platform.processor()
