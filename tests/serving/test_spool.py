"""The spool: what was appended is read back once and in order, whatever was torn, full or killed in between."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.core.errors import ConfigError, ServiceError
from pipelines.serving.spool import Spool
from pipelines.serving.spool_files import SpoolFiles, line_of

SEGMENT = 65_536
RECORD = b"q" + b"x" * 400


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    opened = Spool(tmp_path / "spool", SEGMENT)
    opened.open()
    yield opened
    opened.close()


@contextmanager
def no_file_larger_than(n_bytes: int) -> Iterator[None]:
    """No file of this process may grow beyond: what allocating meets on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def everything(spool: Spool, most: int = 7) -> list[bytes]:
    """Read all that was never booked, a few at a time."""
    start, found = SpoolFiles(spool._folder).saved(), []
    while start < spool.end:
        piece = spool.read(start, spool.end, most)
        found += piece.records
        start = piece.end
    return found


def test_records_come_back_in_order_over_many_files(spool: Spool) -> None:
    records = [b"%d " % number + RECORD for number in range(500)]
    for record in records:
        spool.append(record)
    assert spool.end.segment > 2
    assert everything(spool) == records


def test_what_is_booked_is_deleted_and_never_read_again(spool: Spool, tmp_path: Path) -> None:
    for _ in range(500):
        spool.append(RECORD)
    spool.save(spool.end)
    assert everything(spool) == []
    spool.append(b"the last")
    assert everything(spool) == [b"the last"]
    assert len(list((tmp_path / "spool").glob("*.spool"))) <= 2


def test_a_spool_that_was_left_goes_on_where_it_was(tmp_path: Path) -> None:
    records = [b"%d" % number for number in range(300)]
    for part in range(3):
        spool = Spool(tmp_path, SEGMENT)
        spool.open()
        for record in records[100 * part : 100 * part + 100]:
            spool.append(record)
        assert everything(spool) == records[: 100 * part + 100]
        spool.close()


def test_a_lost_position_means_that_all_is_read_again(spool: Spool, tmp_path: Path) -> None:
    for number in range(10):
        spool.append(b"%d" % number)
    spool.save(spool.read(SpoolFiles(tmp_path / "spool").saved(), spool.end, 4).end)
    assert everything(spool) == [b"%d" % number for number in range(4, 10)]
    for nonsense in ("", "x y", "1", "-3 -3", "\0" * 8):
        (tmp_path / "spool/position").write_text(nonsense)
        assert len(everything(spool)) == 10


@settings(max_examples=40, deadline=None)
@given(cut=st.integers(0, 11 * len(line_of(b"record 0"))))
def test_wherever_the_last_record_is_torn_the_others_are_there(
    tmp_path_factory: pytest.TempPathFactory, cut: int
) -> None:
    folder = tmp_path_factory.mktemp("torn")
    spool = Spool(folder, SEGMENT)
    spool.open()
    for number in range(10):
        spool.append(b"record %d" % number)
    spool.close()
    (path,) = [path for path in folder.glob("*.spool") if path.read_bytes().strip(b"\0")]
    length = len(line_of(b"record 0"))
    path.write_bytes(path.read_bytes()[:cut].ljust(SEGMENT, b"\0"))
    again = Spool(folder, SEGMENT)
    start = again.open()
    piece = again.read(start, again.end, 100)
    assert piece.records == [b"record %d" % number for number in range(min(10, cut // length))]
    assert piece.n_damaged + again.read(piece.end, again.end, 100).n_damaged == bool(cut % length and cut < 10 * length)
    again.append(b"and on")
    assert everything(again)[-1] == b"and on"
    again.close()


def test_a_changed_record_and_an_unwritten_block_are_passed_over(spool: Spool, tmp_path: Path) -> None:
    for number in range(10):
        spool.append(b"record %d" % number)
    (path,) = [path for path in (tmp_path / "spool").glob("*.spool") if path.read_bytes().strip(b"\0")]
    data = bytearray(path.read_bytes())
    length = len(line_of(b"record 0"))
    data[length * 2 + 12] ^= 1
    data[length * 5 : length * 6] = b"\0" * length
    path.write_bytes(data)
    piece = spool.read(SpoolFiles(tmp_path / "spool").saved(), spool.end, 100)
    assert piece.records == [b"record %d" % number for number in range(10) if number not in (2, 5)]
    assert piece.n_damaged == 1


def test_two_gateways_cannot_have_one_spool(spool: Spool, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=rf"another gateway \(process {os.getpid()}\) has this spool; give each"):
        Spool(tmp_path / "spool", SEGMENT).open()


def test_a_folder_that_cannot_be_used_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ServiceError, match=r"cannot be used as spool \(.*\); check `ledger.spool`"):
        Spool(tmp_path / "file/spool", SEGMENT).open()


def test_a_full_disk_is_noticed_while_there_is_room_for_what_is_under_way(spool: Spool) -> None:
    with no_file_larger_than(SEGMENT - 1):  # nothing more can be allocated
        n_taken = 0
        while spool.has_room:
            spool.append(RECORD)
            n_taken += 1
        left = SEGMENT // 2 // len(line_of(RECORD)) - 1
        for _ in range(left):
            spool.append(RECORD)
        assert spool.n_pending == 0
        assert not spool.prepare()
        assert spool.problem
    assert spool.prepare()
    assert spool.has_room
    assert len(everything(spool)) == n_taken + left


def test_what_found_no_room_at_all_is_kept_in_memory_and_written_in_order(spool: Spool) -> None:
    records = [b"%d " % number + RECORD for number in range(400)]
    with no_file_larger_than(SEGMENT - 1):
        for record in records:
            spool.append(record)
        assert spool.n_pending > 0
        assert not spool.has_room
        spool.retry()
        assert spool.n_pending > 0
    spool.retry()
    assert spool.n_pending == 0
    spool.prepare()
    assert spool.has_room
    assert everything(spool) == records


def test_a_spool_opens_on_a_full_disk_and_takes_nothing_until_there_is_room(tmp_path: Path) -> None:
    spool = Spool(tmp_path, SEGMENT)
    with no_file_larger_than(100):
        spool.open()
        assert not spool.has_room
    spool.prepare()
    assert spool.has_room
    spool.close()


def test_files_are_read_by_nobody_else(spool: Spool, tmp_path: Path) -> None:
    spool.append(RECORD)
    assert (tmp_path / "spool").stat().st_mode & 0o077 == 0
    assert not [path for path in (tmp_path / "spool").glob("*.spool") if path.stat().st_mode & 0o077]
