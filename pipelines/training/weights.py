"""Tell weight files by their structure: safetensors and GGUF hold numbers only, a pickle can run code when opened."""

from __future__ import annotations

import json
import math
import struct
import zipfile
from pathlib import Path
from typing import Any, Literal

from pipelines.core.errors import ConfigError
from pipelines.core.files import digest, sha256

SAFE = "safetensors and GGUF only"
# Bytes per value of safetensors' types: https://huggingface.co/docs/safetensors. Two F4 values share a byte.
BITS = {
    **dict.fromkeys(("F4",), 4),
    **dict.fromkeys(("F6_E2M3", "F6_E3M2"), 6),
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E5M2", "F8_E4M3", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ"), 8),
    **dict.fromkeys(("I16", "U16", "F16", "BF16"), 16),
    **dict.fromkeys(("I32", "U32", "F32"), 32),
    **dict.fromkeys(("I64", "U64", "F64", "C64"), 64),
}
MOST_HEADER_BYTES = 100_000_000  # the format's own limit
MOST_ENTRIES = 10_000_000


def format_of(path: Path) -> Literal["gguf", "safetensors"]:
    """Tell a weight file's format by what is in it, whatever its name says.

    Raises:
        ConfigError: It is a pickle, damaged, or neither safetensors nor GGUF.
    """
    size = path.stat().st_size
    with path.open("rb") as stream:
        head = stream.read(24)
    if head[:4] == b"GGUF":
        _check_gguf(path, head)
        return "gguf"
    if found := _pickle(path, head):
        raise ConfigError(f"{path}: is {found}, which can run code when it is opened; use {SAFE}")
    header_bytes = int.from_bytes(head[:8], "little")
    if size < 10 or head[8:9] != b"{" or header_bytes > MOST_HEADER_BYTES:
        raise ConfigError(f"{path}: is neither safetensors nor GGUF (starts with {head[:8]!r}); use {SAFE}")
    _check_safetensors(path, header_bytes, size)
    return "safetensors"


def _pickle(path: Path, head: bytes) -> str | None:
    """Say which kind of pickle or archive the file is; None for neither."""
    if head[:2] == b"PK":
        try:
            with zipfile.ZipFile(path) as archive:
                names = archive.namelist()
        except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
            return "a damaged zip archive"
        return "a PyTorch pickle" if any(name.endswith(".pkl") for name in names) else "a zip archive"
    # Protocol 2 and later begin with the opcode PROTO; 0 and 1 with a mark, a container or a global reference.
    if head[:1] == b"\x80" and head[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        return "a pickle"
    if head[:1] in (b"(", b"]", b"}", b"c") and head[8:9] != b"{":
        return "a pickle"
    if path.suffix in (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt") and head[8:9] != b"{":
        return f"a '{path.suffix}' file without a safe format inside"
    return None


def _check_gguf(path: Path, head: bytes) -> None:
    if len(head) < 24:
        raise ConfigError(f"{path}: is cut off inside the GGUF header; download it again")
    version, n_tensors, n_keys = struct.unpack("<IQQ", head[4:24])
    if version not in (2, 3) or n_tensors > MOST_ENTRIES or n_keys > MOST_ENTRIES:
        raise ConfigError(
            f"{path}: its GGUF header is damaged or of an unknown version ({version}); versions 2 and 3 work"
        )


def _check_safetensors(path: Path, header_bytes: int, size: int) -> None:
    data_bytes = size - 8 - header_bytes
    if data_bytes < 0:
        raise ConfigError(f"{path}: is cut off inside the safetensors header; download it again")
    with path.open("rb") as stream:
        stream.seek(8)
        text = stream.read(header_bytes)
    try:
        header = json.loads(text)
        ends = [_end_of(name, entry) for name, entry in header.items() if name != "__metadata__"]
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ConfigError(f"{path}: its safetensors header is damaged ({error}); download it again") from None
    if max(ends, default=0) != data_bytes:
        raise ConfigError(
            f"{path}: its safetensors header promises {max(ends, default=0)} bytes of weights, "
            f"the file holds {data_bytes}; download it again"
        )


def _end_of(name: str, entry: dict[str, Any]) -> int:
    begin, end = entry["data_offsets"]
    shape = entry["shape"]
    if not all(isinstance(number, int) and number >= 0 for number in (begin, end, *shape)):
        raise ValueError(f"tensor '{name}' has a place or shape that is no count")
    if entry["dtype"] not in BITS:
        raise ValueError(f"tensor '{name}' has the unknown type {str(entry['dtype'])[:20]!r}")
    if (end - begin) * 8 != math.prod(shape) * BITS[entry["dtype"]]:
        raise ValueError(f"tensor '{name}' does not fill its place")
    return int(end)


def weights_digest(folder: Path) -> str:
    """Return the SHA-256 (hex) of a model folder's weights: the file's own, or of all names and hashes if several."""
    files = {path.name: sha256(path) for path in sorted(folder.glob("*.safetensors"))}
    return next(iter(files.values())) if len(files) == 1 else digest(files)


def model_digest(folder: Path) -> str:
    """Return the SHA-256 (hex) of all that decides a model folder's answers: weights, configuration, tokenizer."""
    return digest({path.name: sha256(path) for path in sorted(folder.iterdir()) if path.name != "model.json"})


def adapter_digest(folder: Path, base_digest: str) -> str:
    """Return the SHA-256 (hex) of an adapter's weights and configuration and of the model that it changes."""
    names = ("adapter_model.safetensors", "adapter_config.json")
    return digest({"base": base_digest, **{name: sha256(folder / name) for name in names}})
