"""Nothing is half-written, and a file that cannot be used is refused with its line."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipelines.core.errors import ConfigError
from pipelines.core.files import (
    canonical_json,
    digest,
    each_line,
    only_one,
    read_json,
    read_jsonl,
    read_text,
    replacing,
    sha256,
    write_json,
    write_jsonl,
    write_text,
)

ROOT = Path(__file__).parents[2]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
)  # fmt: skip


# --- writing --------------------------------------------------------------------------------------------------


def write_half(path: Path, fail: Callable[[], None]) -> None:
    with replacing(path, "w") as stream:
        stream.write("half")
        fail()


def interrupt() -> None:
    raise KeyboardInterrupt


def fill_the_disk() -> None:
    with Path("/dev/full").open("wb", buffering=0) as full:
        full.write(b"x")


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"old": 1})
    with pytest.raises(ValueError, match="Out of range"):
        write_json(path, {"new": [1.0, float("nan")]})
    with pytest.raises(KeyboardInterrupt):
        write_half(path, interrupt)
    assert read_json(path) == {"old": 1}
    assert [found.name for found in tmp_path.iterdir()] == ["a.json"]


def test_a_full_disk_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write_text(path, "old")
    with pytest.raises(OSError, match="No space left") as raised:
        write_half(path, fill_the_disk)
    assert raised.value.errno == errno.ENOSPC
    assert path.read_text() == "old"
    assert len(list(tmp_path.iterdir())) == 1


def test_a_kill_during_a_write_leaves_the_old_file_and_nothing_to_commit(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write_text(path, "old")
    shutil.copy(ROOT / ".gitignore", tmp_path)
    for command in (["init", "--quiet"], ["add", "--all"]):
        subprocess.run(["git", *command], cwd=tmp_path, check=True)
    code = (
        "import os, signal, sys; from pathlib import Path; from pipelines.core.files import replacing\n"
        "with replacing(Path(sys.argv[1])) as stream:\n"
        "    stream.write(b'x' * 100_000); stream.flush(); os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    process = subprocess.run([sys.executable, "-c", code, str(path)], cwd=ROOT)
    assert process.returncode == -signal.SIGKILL
    assert path.read_text() == "old"
    assert len(list(tmp_path.glob(".a.txt.*.tmp"))) == 1
    status = subprocess.run(["git", "status", "--porcelain"], cwd=tmp_path, check=True, capture_output=True, text=True)
    assert status.stdout.splitlines() == ["A  .gitignore", "A  a.txt"]


def test_a_written_file_has_the_mode_of_any_other_even_among_threads(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        threads = [threading.Thread(target=write_text, args=(tmp_path / f"{n}", "x")) for n in range(40)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o640}
    finally:
        assert os.umask(before) == 0o027


def test_a_name_as_long_as_the_disk_allows_can_be_written(tmp_path: Path) -> None:
    path = tmp_path / "deeper" / ("n" * 255)
    write_text(path, "x")
    assert path.read_text() == "x"


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
@given(rows=st.lists(st.dictionaries(st.text(st.characters(exclude_categories=["Cs"]), max_size=4), JSON), min_size=1))
def test_rows_come_back_as_they_were_written(tmp_path: Path, rows: list[dict[str, Any]]) -> None:
    path = tmp_path / "a.jsonl"
    write_jsonl(path, rows)
    assert read_jsonl(path) == list(enumerate(rows, start=1))


# --- reading --------------------------------------------------------------------------------------------------


def refused(read: Any, path: Path) -> str:
    with pytest.raises(ConfigError) as raised:
        read(path)
    assert "\n" not in str(raised.value)
    return str(raised.value).replace(str(path), "FILE")


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "file").touch()
    assert refused(read_text, tmp_path / "none") == "FILE: no such file; create it or correct the path"
    assert refused(read_text, tmp_path) == "FILE: is a folder, a file is needed"
    assert refused(read_text, tmp_path / "pipe") == "FILE: is a pipe or a device, a file is needed"
    assert refused(read_text, Path("/dev/zero")) == "FILE: is a pipe or a device, a file is needed"
    assert refused(read_text, tmp_path / "loop").startswith("FILE: cannot be read (Too many levels of symbolic links)")
    assert refused(read_text, tmp_path / "file/below").startswith("FILE: cannot be read (Not a directory)")
    assert refused(read_text, tmp_path / ("n" * 300)).startswith("FILE: cannot be read (File name too long)")
    assert refused(read_text, Path("a\0b")).endswith("cannot be read (embedded null byte); correct the path")


def test_a_file_of_someone_else_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write_text(path, "secret")
    path.chmod(0)
    is_root = os.geteuid() == 0
    if is_root:  # root may read everything, so be someone else for a moment
        os.seteuid(65534)
    try:
        assert refused(read_text, path).startswith("FILE: cannot be read (Permission denied); check the path")
    finally:
        if is_root:
            os.seteuid(0)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (b'{"a": 1}\n{"a": \n', "FILE:2: not valid JSON (Expecting value, column 7); is the line cut off?"),
        (
            b'{"a": 1}\n\n{"a": "b',
            "FILE:3: not valid JSON (Unterminated string starting at, column 7); is the line cut",
        ),
        (b'{"a": NaN}', "FILE:1: not valid JSON (NaN is not a finite number)"),
        (b'{"a": -Infinity}', "FILE:1: not valid JSON (-Infinity is not a finite number)"),
        (b'{"a": 1e999}', "FILE:1: not valid JSON (1e999 is not a finite number)"),
        (b'{"a": 1, "b": 2, "a": 3}', "FILE:1: not valid JSON (key 'a' stands in one object twice)"),
        (b'{"a": "\\ud83d"}', "FILE:1: a \\uD800-\\uDFFF escape stands alone; write the character itself"),
        (b'{"a": 1}\n[1]', "FILE:2: a JSON object is needed, found list"),
        (b'{"a": 1}\n{"a": \xff}', "FILE:2: byte 0xff is not UTF-8; save the file as UTF-8"),
        (b"[" * 100_000, "FILE:1: not valid JSON (maximum recursion depth exceeded"),
        (b'{"a": ' + b"9" * 5000 + b"}", "FILE:1: not valid JSON (Exceeds the limit"),
        (b" \n\n", "FILE: is empty; at least one row is needed"),
    ],
)
def test_a_broken_line_is_named(tmp_path: Path, text: bytes, line: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(text)
    assert refused(read_jsonl, path).startswith(line)


def test_whole_surrogate_pairs_and_marks_are_read(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"a": "\\ud83d\\ude00 \xe2\x80\xa8"}\r\n')
    assert read_jsonl(path) == [(1, {"a": "😀 \u2028"})]


def test_lines_after_a_broken_one_are_read_too(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"a": 1}\n{\n{"a": 2}\n[]\n')
    found = list(each_line(path, shown="a.jsonl"))
    assert [number for number, _ in found] == [1, 2, 3, 4]
    assert [isinstance(value, ConfigError) for _, value in found] == [False, True, False, True]


def test_a_broken_json_file_names_its_own_line(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text('{\n  "a": 1,\n  "b" 2\n}\n')
    assert refused(read_json, path) == "FILE:3: not valid JSON (Expecting ':' delimiter, column 7)"


# --- digests and locks ----------------------------------------------------------------------------------------


@given(value=JSON)
def test_equal_values_have_equal_digests_whatever_the_order_of_keys(value: Any) -> None:
    turned = {"b": value, "a": 1}
    assert digest({"a": 1, "b": value}) == digest(turned)
    assert digest(turned) != digest({"a": 2, "b": value})


def test_a_digest_is_sha_256_of_canonical_json(tmp_path: Path) -> None:
    assert canonical_json({"b": [1, "é"], "a": None}) == '{"a":null,"b":[1,"é"]}'
    write_text(tmp_path / "a", canonical_json({"a": 1}))
    assert sha256(tmp_path / "a") == digest({"a": 1})


def test_a_second_run_in_one_folder_is_refused_and_told_who_runs(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from pipelines.core.files import only_one\n"
        "with only_one('train', root=Path(sys.argv[1])):\n"
        "    print('held', flush=True); sys.stdin.read()\n"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    with (
        pytest.raises(ConfigError, match=rf"another `train` \(process {holder.pid}\) runs"),
        only_one("train", root=tmp_path),
    ):
        pass
    with only_one("evaluate", root=tmp_path):
        pass
    holder.kill()
    holder.wait()
    with only_one("train", root=tmp_path):
        pass
