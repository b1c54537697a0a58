"""The model servers of this machine: started, watched, started again with growing pauses, stopped."""

from __future__ import annotations

import asyncio
import ctypes
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from pipelines.core.errors import ConfigError, ServiceError
from pipelines.core.files import read_json
from pipelines.serving.config_upstreams import ProcessUpstream
from pipelines.serving.last_words import LastWords
from pipelines.serving.logs import Log

SERVED = Path(".gatehouse/served")
HEALTHY_S = 60.0
"""A process that ran so long and then died is started again at once."""
MOST_PAUSE_S = 30.0
STOP_S = 10.0
_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None)


class Processes:
    """Supervises one `transformers serve` per declared upstream.

    Args:
        declared: By upstream.
        root: Folder of the repository.
        log: Told when one starts, is ready, dies.
        program: What is started; by default the `transformers` of this environment.
    """

    def __init__(
        self, declared: Mapping[str, ProcessUpstream], root: Path, log: Log, *, program: str | None = None
    ) -> None:
        self._declared = declared
        self._root = root.resolve()
        self._log = log
        beside = str(Path(sys.executable).parent)
        self._program = program or shutil.which("transformers", path=beside) or "transformers"
        self._tasks: list[asyncio.Task[None]] = []

    async def prepare(self) -> dict[str, str]:
        """Lay every model out as one folder of safetensors, adapters merged; return model digests by upstream.

        Raises:
            ConfigError: A model is not there.
            ServiceError: Merging failed.
        """
        digests = {}
        for name, upstream in self._declared.items():
            source = self._root / "models" / upstream.model
            card_path = source / "model.json"
            if not card_path.exists():
                raise ConfigError(f"{card_path}: no such file; `make run` fetches and trains what `make serve` serves")
            card = read_json(card_path)
            digests[name] = str(card["digest"])
            place = self._place(upstream)
            if (place / "model.json").exists() and read_json(place / "model.json").get("digest") == card["digest"]:
                continue
            if card.get("kind") != "adapter":
                _link(place, source)
                continue
            self._log.event("merging", upstream=name, model=upstream.model)
            command = [sys.executable, "-m", "scripts.merge", "--model", str(source), "--to", str(place)]
            process = await asyncio.create_subprocess_exec(*command, cwd=self._root)
            if await process.wait():
                raise ServiceError(f"upstream {name}: its model could not be prepared; see the lines above")
        return digests

    def start(self, tell: Callable[[str, bool], None]) -> None:
        """Start supervising.

        Args:
            tell: Called with an upstream and whether it answers, whenever that changes.
        """
        self._tell = tell
        for name, upstream in self._declared.items():
            self._tasks.append(asyncio.get_running_loop().create_task(self._supervise(name, upstream)))

    async def stop(self) -> None:
        """Stop every process and wait until it is gone."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _place(self, upstream: ProcessUpstream) -> Path:
        return self._root / SERVED / upstream.model

    async def _supervise(self, name: str, upstream: ProcessUpstream) -> None:
        pause_s = 0.5
        while True:
            started = time.monotonic()
            process = await self._launch(upstream)
            assert process.stderr is not None
            words = LastWords(process.stderr)
            self._log.event("process_started", upstream=name, pid=process.pid, port=upstream.port)
            self._tell(name, False)
            watch = asyncio.get_running_loop().create_task(self._wait_until_ready(name, upstream, process))
            try:
                code = await process.wait()
            except asyncio.CancelledError:
                await _stop(process)
                raise
            finally:
                watch.cancel()
            self._tell(name, False)
            pause_s = 0.5 if time.monotonic() - started > HEALTHY_S else min(MOST_PAUSE_S, pause_s * 2)
            said = await words.said()
            self._log.event("process_died", upstream=name, code=code, again_in_s=pause_s, said=said)
            await asyncio.sleep(pause_s)

    async def _wait_until_ready(
        self, name: str, upstream: ProcessUpstream, process: asyncio.subprocess.Process
    ) -> None:
        started = time.monotonic()
        while time.monotonic() - started < upstream.start_timeout_s:
            if await _is_healthy(upstream.port):
                self._log.event("process_ready", upstream=name, after_s=round(time.monotonic() - started, 1))
                self._tell(name, True)
                return
            await asyncio.sleep(0.25)
        self._log.event("process_not_ready", upstream=name, after_s=upstream.start_timeout_s)
        await _stop(process)

    async def _launch(self, upstream: ProcessUpstream) -> asyncio.subprocess.Process:
        environment = os.environ | {
            "OMP_NUM_THREADS": str(upstream.threads),
            "HF_HUB_OFFLINE": "1",
            "TOKENIZERS_PARALLELISM": "false",
        }
        for name in [name for name in environment if name.startswith("GATEHOUSE_")]:
            del environment[name]  # the model's process needs none of the gateway's secrets
        # By its plain name below the folder: requests must name it so, and no path of this machine is in its answers.
        command = [self._program, "serve", upstream.model, "--host", "127.0.0.1", "--port", str(upstream.port)]
        return await asyncio.create_subprocess_exec(
            *command,
            *upstream.arguments,
            cwd=self._root / SERVED,
            env=environment,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
            preexec_fn=die_with_parent,
        )


def die_with_parent() -> None:
    """Let the kernel end this process when the gateway is killed, which then can end nothing itself (Linux only)."""
    if hasattr(_LIBC, "prctl"):
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


async def _is_healthy(port: int) -> bool:
    try:
        async with asyncio.timeout(2.0):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            try:
                writer.write(b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
                return b" 200 " in await reader.readline()
            finally:
                writer.close()
    except (OSError, TimeoutError):
        return False


def _link(place: Path, source: Path) -> None:
    """Serve a model from where it is."""
    if place.is_symlink():
        place.unlink()
    elif place.exists():
        shutil.rmtree(place)
    place.parent.mkdir(parents=True, exist_ok=True)
    place.symlink_to(source, target_is_directory=True)


async def _stop(process: asyncio.subprocess.Process) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        if process.returncode is not None:
            return
        try:
            os.killpg(process.pid, number)  # it leads its own group: its children go with it
        except ProcessLookupError:
            return
        try:
            async with asyncio.timeout(STOP_S):
                await process.wait()
        except TimeoutError:
            continue
