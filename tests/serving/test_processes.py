"""The model servers of this machine are started, noticed when they answer, started again, and stopped."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

from pipelines.core.errors import ConfigError
from pipelines.serving.config_upstreams import ProcessUpstream
from pipelines.serving.logs import Log
from pipelines.serving.processes import Processes
from tests.serving.gateway import ROOT

# Takes what `transformers serve MODEL --host H --port P` takes; the rest is a real server.
PROGRAM = """#!/bin/sh
test "$1 $2 $3 $4 $5" = "serve base --host 127.0.0.1 --port" || exit 9
test -f "$2/model.json" || exit 8
env > "$0.environment"
cd {root} && exec {python} -m tests.serving.upstreams --port "$6"
"""


@pytest.fixture
def program(tmp_path: Path) -> Path:
    path = tmp_path / "transformers"
    path.write_text(PROGRAM.format(root=ROOT, python=sys.executable))
    path.chmod(0o755)
    folder = tmp_path / "models/base"
    folder.mkdir(parents=True)
    (folder / "model.json").write_text(json.dumps({"schema_version": 1, "kind": "transformers", "digest": "d1"}))
    return path


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def events(log: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in log.read_text().splitlines()]


def test_a_model_server_that_dies_is_started_again_and_all_stop_at_the_end(
    program: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GATEHOUSE_LEDGER_URL", "postgres://user:secret@db/ledger")
    log_path = tmp_path / "log"

    async def scenario() -> None:
        told: list[tuple[str, bool]] = []

        async def until(state: list[bool]) -> None:
            async with asyncio.timeout(20):
                while [is_ready for _, is_ready in told] != state:
                    await asyncio.sleep(0.02)

        log = Log(os.open(log_path, os.O_WRONLY | os.O_CREAT))
        declared = {"one": ProcessUpstream(kind="process", model="base", port=free_port())}
        processes = Processes(declared, tmp_path, log, program=str(program))
        assert await processes.prepare() == {"one": "d1"}
        processes.start(lambda name, is_ready: told.append((name, is_ready)))
        await until([False, True])
        log.flush()
        first = next(event["pid"] for event in events(log_path) if event["event"] == "process_started")
        os.kill(first, signal.SIGKILL)
        await until([False, True, False, False, True])
        await processes.stop()
        log.flush()
        pids = [event["pid"] for event in events(log_path) if event["event"] == "process_started"]
        assert len(pids) == 2
        assert not any(psutil.pid_exists(pid) for pid in pids)
        assert [event["code"] for event in events(log_path) if event["event"] == "process_died"] == [-signal.SIGKILL]

    asyncio.run(scenario())
    environment = (tmp_path / "transformers.environment").read_text()
    assert "HF_HUB_OFFLINE=1" in environment
    assert "secret" not in environment


FAILING = r"""#!/bin/sh
i=0; while [ $i -lt 40 ]; do echo "line $i" >&2; i=$((i+1)); done
printf 'loading 10%%\rloading 90%%\r' >&2
printf '::error::forged \033[31m' >&2
printf '%09999d' 7 >&2
echo >&2
printf 'OSError: no such weights' >&2
exit 3
"""


def test_what_a_model_server_said_last_stands_in_the_log_when_it_dies(program: Path, tmp_path: Path) -> None:
    program.write_text(FAILING)
    log_path = tmp_path / "log"

    async def scenario() -> None:
        log = Log(os.open(log_path, os.O_WRONLY | os.O_CREAT))
        declared = {"one": ProcessUpstream(kind="process", model="base", port=free_port())}
        processes = Processes(declared, tmp_path, log, program=str(program))
        await processes.prepare()
        processes.start(lambda name, is_ready: None)
        async with asyncio.timeout(20):
            while "process_died" not in log_path.read_text():
                await asyncio.sleep(0.05)
                log.flush()
        await processes.stop()
        log.flush()

    asyncio.run(scenario())
    died = next(event for event in events(log_path) if event["event"] == "process_died")
    *lines, forged, last = died["said"]
    assert died["code"] == 3
    assert lines[-3:] == ["line 39", "loading 10%", "loading 90%"]
    assert lines[0] == f"line {40 - (12 - 4)}"
    assert forged.startswith("\\x3a:error::forged \\x1b[31m0000")
    assert len(forged) < 320
    assert last == "OSError: no such weights"


GATEWAY = """
import asyncio, sys
from pathlib import Path
from pipelines.serving.config_upstreams import ProcessUpstream
from pipelines.serving.logs import Log
from pipelines.serving.processes import Processes

async def main():
    declared = {"one": ProcessUpstream(kind="process", model="base", port=int(sys.argv[2]))}
    processes = Processes(declared, Path(sys.argv[1]), Log(1), program=sys.argv[1] + "/transformers")
    await processes.prepare()
    processes.start(lambda name, is_ready: None)
    await asyncio.sleep(60)

asyncio.run(main())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux lets a process ask to die with its parent")
def test_a_gateway_that_is_killed_leaves_no_model_server_behind(program: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-c", GATEWAY, str(tmp_path), str(free_port())]
    gateway = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert gateway.stdout is not None
    pid = next(event["pid"] for event in map(json.loads, gateway.stdout) if event["event"] == "process_started")
    server = psutil.Process(pid)
    assert server.is_running()
    gateway.kill()
    gateway.wait()
    psutil.wait_procs([server], timeout=10)
    assert not server.is_running() or server.status() == psutil.STATUS_ZOMBIE


def test_a_model_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    declared = {"one": ProcessUpstream(kind="process", model="base", port=1)}
    processes = Processes(declared, tmp_path, Log(), program="no")
    with pytest.raises(ConfigError, match=r"models/base/model\.json: no such file; `make run`"):
        asyncio.run(processes.prepare())
