from __future__ import annotations

import json
import pickle
import struct
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from pipelines.core.errors import ConfigError
from pipelines.training.weights import format_of


def safetensors_bytes(header: dict[str, Any], data: bytes) -> bytes:
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def entry(begin: int = 0, end: int = 8, shape: tuple[int, ...] = (2,), dtype: str = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}


def test_safetensors_are_known_by_their_header_whatever_the_name(tmp_path: Path) -> None:
    path = tmp_path / "pytorch_model.bin"
    save_file({"a": torch.zeros(3, 2), "b": torch.zeros((), dtype=torch.bfloat16)}, path)
    assert format_of(path) == "safetensors"


def test_gguf_is_known_by_its_magic_whatever_the_name(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    path.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 1, 1))
    assert format_of(path) == "gguf"


class Bomb:
    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path("exploded"),))


def write_torch(path: Path) -> None:
    torch.save({"weight": torch.zeros(2)}, path)


def write_old_torch(path: Path) -> None:
    torch.save({"weight": torch.zeros(2)}, path, _use_new_zipfile_serialization=False)


def write_zip(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("weights.txt", "1")


@pytest.mark.parametrize(
    ("write", "said"),
    [
        (write_torch, "a PyTorch pickle"),
        (write_old_torch, "a pickle"),
        *[
            (lambda path, protocol=protocol: path.write_bytes(pickle.dumps(Bomb(), protocol=protocol)), "a pickle")
            for protocol in range(6)
        ],
        (lambda path: path.write_bytes(pickle.dumps({"a": 1}, protocol=0)), "a pickle"),
        (write_zip, "a zip archive"),
        (lambda path: path.write_bytes(b"PK\x03\x04broken"), "a damaged zip archive"),
        (lambda path: path.write_bytes(b"\x00" * 64), "neither safetensors nor GGUF"),
        (lambda path: path.write_bytes(b""), "neither safetensors nor GGUF"),
        (
            lambda path: path.write_bytes(b"version https://git-lfs.github.com/spec/v1\n"),
            "neither safetensors nor GGUF",
        ),
    ],
)
def test_what_could_run_code_is_refused_in_one_line_under_an_honest_looking_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: Any, said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "model.safetensors"
    write(path)
    with pytest.raises(ConfigError, match=said) as caught:
        format_of(path)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (safetensors_bytes({"a": entry()}, b"\0" * 7), "promises 8 bytes of weights, the file holds 7"),
        (safetensors_bytes({"a": entry()}, b"\0" * 9), "promises 8 bytes of weights, the file holds 9"),
        (safetensors_bytes({"a": entry(end=12)}, b"\0" * 12), "'a' does not fill its place"),
        (safetensors_bytes({"a": entry(begin=-8, end=0)}, b""), "no count"),
        (safetensors_bytes({"a": entry(dtype="PICKLE")}, b"\0" * 8), "unknown type 'PICKLE'"),
        (safetensors_bytes({"a": {"dtype": "F32"}}, b""), "header is damaged"),
        (safetensors_bytes({"a": 1}, b""), "header is damaged"),
        (safetensors_bytes({"a": entry()}, b"")[:20], "cut off inside the safetensors header"),
        (struct.pack("<Q", 20) + b"{" + b"[" * 19, "header is damaged"),
        (struct.pack("<Q", 2**40) + b"{}", "neither safetensors nor GGUF"),
        (b"GGUF\x03\x00", "cut off inside the GGUF header"),
        (b"GGUF" + struct.pack("<IQQ", 99, 1, 1), r"unknown version \(99\)"),
        (b"GGUF" + struct.pack("<IQQ", 3, 2**60, 1), "GGUF header is damaged"),
    ],
)
def test_a_damaged_file_is_refused_before_anything_parses_it(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=said):
        format_of(path)


def test_the_whole_header_counts_and_an_intact_file_passes(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    header = {"__metadata__": {"format": "pt"}, "a": entry(), "b": entry(8, 9, (), "U8"), "c": entry(9, 9, (0, 4))}
    path.write_bytes(safetensors_bytes(header, b"\0" * 9))
    assert format_of(path) == "safetensors"
