"""The embedding process as the gateway sees it: asked over a pipe, watched, started again with growing pauses."""

from __future__ import annotations

import asyncio
import contextlib
import os
import struct
import sys
import time
from collections import deque
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipelines.serving.processes import die_with_parent

Array = NDArray[np.float32]

ROOT = Path(__file__).parents[2]
VECTOR_BYTES = 384 * 4
MOST_WAITING = 32
"""More would wait longer than an answer may be delayed."""
MOST_CHARACTERS = 2000
"""A longer text is hardly ever one that the model reads to its end (256 tokens)."""
HEALTHY_S = 60.0
MOST_PAUSE_S = 30.0


class Embedder:
    """Asks one process, in order.

    Args:
        timeout_s: A text that is not embedded in that time is not looked up.
    """

    def __init__(self, timeout_s: float) -> None:
        self.timeout_s = timeout_s
        self._waiting: deque[asyncio.Future[Array | None]] = deque()
        self._process: asyncio.subprocess.Process | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int | None:
        """Id of the process that runs now."""
        return self._process.pid if self._process is not None else None

    def start(self) -> None:
        """Start the process and watch it."""
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._supervise())

    async def embed(self, text: str) -> Array | None:
        """Return a text's embedding, shape (384,), or None if there is none to be had in time."""
        process = self._process
        if process is None or process.stdin is None or len(self._waiting) >= MOST_WAITING:
            return None
        if len(text) > MOST_CHARACTERS:
            return None
        content = text.encode("utf-8", "replace")
        answer: asyncio.Future[Array | None] = asyncio.get_running_loop().create_future()
        self._waiting.append(answer)
        process.stdin.write(struct.pack("<I", len(content)) + content)
        try:
            async with asyncio.timeout(self.timeout_s):
                vector = await answer
        except TimeoutError:
            return None
        return vector if vector is not None and vector.any() else None

    async def close(self) -> None:
        """Stop the process."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            self._task = None

    async def _supervise(self) -> None:
        pause_s = 0.25
        while True:
            started = time.monotonic()
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "pipelines.serving.minilm",
                cwd=ROOT,
                env=_environment(),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.DEVNULL,
                preexec_fn=die_with_parent,
            )
            self._process = process
            try:
                await self._read(process)
            finally:
                self._process = None
                if process.returncode is None:
                    process.kill()
                    await process.wait()
                self._give_up()
            pause_s = 0.25 if time.monotonic() - started > HEALTHY_S else min(MOST_PAUSE_S, pause_s * 2)
            await asyncio.sleep(pause_s)

    async def _read(self, process: asyncio.subprocess.Process) -> None:
        """Hand out what the process answers, until it ends."""
        assert process.stdout is not None
        with contextlib.suppress(asyncio.IncompleteReadError, OSError):
            while True:
                content = await process.stdout.readexactly(VECTOR_BYTES)
                answer = self._waiting.popleft()
                if not answer.done():
                    answer.set_result(np.frombuffer(content, dtype="<f4"))

    def _give_up(self) -> None:
        while self._waiting:
            answer = self._waiting.popleft()
            if not answer.done():
                answer.set_result(None)


def _environment() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GATEHOUSE_")}
    # One thread: a second one would take the gateway's core, and short texts gain nothing from it.
    return kept | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
