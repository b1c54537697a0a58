"""The kind of machine a figure was measured on: two machines of one kind give comparable latencies."""

from __future__ import annotations

import math
import os
import platform
import re
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple


class Machine(NamedTuple):
    """A kind of machine.

    Attributes:
        cpu: Name of the processor.
        cores: Cores that this process may use.
        gpu: Names of the GPUs, joined by commas; empty without one.
        memory_gib: Memory, rounded to a size that is sold: firmware takes more or less of it.
        system: Operating system and architecture.
    """

    cpu: str
    cores: int
    gpu: str
    memory_gib: int
    system: str


def describe() -> Machine:
    """Return what kind of machine this process runs on, without importing torch."""
    return Machine(cpu_name(), len(os.sched_getaffinity(0)), _gpu(), rounded_gib(_memory()), _system())


def cpu_name() -> str:
    """Return the processor's name, as the system gives it."""
    found = re.search(r"^model name\s*:\s*(.+)$", _cpuinfo(), re.M)
    return " ".join(found[1].split()) if found else platform.processor()


def has_bfloat16() -> bool:
    """Tell whether the processor has instructions for products of bfloat16 matrices (AVX-512 BF16 or AMX)."""
    return re.search(r"^flags\s*:.*\b(avx512_bf16|amx_bf16)\b", _cpuinfo(), re.M) is not None


def rounded_gib(n_bytes: int) -> int:
    """Return GiB rounded to the nearest size that is sold: 1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, ..."""
    sizes: list[int] = [size for power in range(24) for size in (1 << power, 3 << power)]
    return min(sizes, key=lambda size: (abs(math.log2(max(1, n_bytes) / 2**30 / size)), size))


def _system() -> str:
    return f"{platform.system()} {platform.machine()}"


def _cpuinfo() -> str:
    try:
        return Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _gpu() -> str:
    if shutil.which("nvidia-smi") is None:
        return ""
    command = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    except (subprocess.SubprocessError, OSError):
        return ""
    return ", ".join(line.strip() for line in result.stdout.splitlines() if line.strip())


def _memory() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
