"""What decides the local engine's answers beside the model: its code, the libraries, the kind of device."""

from __future__ import annotations

from pathlib import Path

from pipelines.core.files import digest, sha256
from pipelines.core.libraries import versions

# Cached answers and kept times of other code, or of other libraries, are not taken up.
CODE = ("attention.py", "decoding.py", "engine.py", "json_values.py", "local_model.py")
LIBRARIES = ("peft", "tokenizers", "torch", "transformers")


def engine_digest(folder: Path = Path(__file__).parent) -> str:
    """Return the SHA-256 (hex) over the engine's modules and the versions of the libraries they compute with.

    Args:
        folder: Where the modules are.
    """
    return digest({"code": {name: sha256(folder / name) for name in CODE}, "libraries": versions(LIBRARIES)})
