"""The gateway's benchmark says what it was asked for, and its load generator hides no stall."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks.gateway.contenders import HERE, LITELLM_LOCK, Process, get, upstream

ROOT = Path(__file__).parents[2]
KEYS = ("added_p50_ms", "added_p99_ms", "requests_per_s", "added_ttft_p99_ms")


def load(port: int, *arguments: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.gateway.load", f"--port={port}", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.fixture
def server() -> Iterator[Process]:
    process = upstream(None)
    yield process
    process.stop()


def test_it_prints_what_it_measured_beside_a_floor() -> None:
    command = [sys.executable, "-m", "benchmarks.gateway", "--json", "--rounds=1", "--requests=40", "--seconds=0.3"]
    command += ["--connections=4", "--identical=20", "--memory=0", "--without=litellm,nginx"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    for key in (*KEYS, *(f"floor_{key}" for key in KEYS[:3]), *(f"bare_{key}" for key in KEYS)):
        assert isinstance(found[key], float), key
    assert found["requests_per_s"] > 0
    assert 1 <= found["identical_upstream_calls"] <= 20
    assert found["features"]["status"] == 200


def test_every_request_is_counted_once_and_no_two_are_equal(server: Process) -> None:
    found = load(server.port, "--requests=60", "--connections=3", "--skip=10")
    assert found["statuses"] == {"200": 60}
    assert json.loads(get(server.port, "/count")) == {"count": 60}
    streamed = load(server.port, "--requests=20", "--stream")
    assert 0 < streamed["ttft_p50_ms"] <= streamed["latency_p50_ms"]


def test_a_server_that_cannot_keep_up_is_seen_in_an_open_loop_only(server: Process) -> None:
    get(server.port, "/delay/50")
    closed = load(server.port, "--requests=10")
    opened = load(server.port, "--rate=100", "--seconds=0.4")
    assert opened["statuses"] == {"200": 40}
    assert opened["latency_p50_ms"] > 5 * closed["latency_p50_ms"]


def test_an_answer_that_is_no_200_or_is_lost_is_told(server: Process) -> None:
    get(server.port, "/delay/60000")
    command = [
        sys.executable,
        "-m",
        "benchmarks.gateway.load",
        f"--port={server.port}",
        "--requests=2",
        "--connections=2",
    ]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    while json.loads(get(server.port, "/count"))["count"] < 2:
        assert process.poll() is None
    server.process.kill()
    found = json.loads(process.communicate()[0])
    assert found["statuses"] == {"lost": 2}
    assert found["latency_p50_ms"] is None


def test_litellm_is_locked_by_hash_and_none_of_the_hijacked_ones() -> None:
    lock = LITELLM_LOCK.read_text()
    packages = re.findall(r"^([a-z0-9][^ =]*)==([^ \\]+)", lock, re.MULTILINE)
    blocks = re.split(r"(?m)^(?=[a-z0-9])", lock)[1:]
    assert len(blocks) == len(packages) > 50
    assert all("--hash=sha256:" in block for block in blocks)
    (version,) = [version for name, version in packages if name == "litellm"]
    assert version not in ("1.82.7", "1.82.8")
    assert "!=1.82.7,!=1.82.8" in (HERE / "litellm.in").read_text()
