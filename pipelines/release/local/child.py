"""Processes that end with this one, write to a log, and can be asked for their last words."""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from pipelines.core.errors import one_line

CODE = Path(__file__).resolve().parents[3]
"""Where `scripts` and `pipelines` are imported from, whatever repository is released."""
PASSED = re.compile(
    "PATH|HOME|USER|LOGNAME|SHELL|LANG|LANGUAGE|LC_[A-Z]+|TZ|TMPDIR|TERM|LD_LIBRARY_PATH|LD_PRELOAD|VIRTUAL_ENV|"
    "PYTHON[A-Z]*|XDG_[A-Z_]+|SSL_CERT_(FILE|DIR)|HF_(HOME|HUB_[A-Z_]+|ENDPOINT)|(OMP|MKL|OPENBLAS|NUMEXPR|KMP)_[A-Z_]+|"
    "(TORCH|PYTORCH|TRANSFORMERS|TOKENIZERS|CUDA|NVIDIA|NCCL|ROCR|HIP)_?[A-Z_]*"
)
"""What a process of this machine needs of the environment; anything else may be a secret."""
TAIL_BYTES = 16_384
STOP_S = 3.0
_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None)


class Child:
    """A process of this one. It is killed with it, and Ctrl-C does not reach it.

    The kernel ties it to the thread that starts it, so only the main thread may make one.

    Args:
        command: Program and arguments; a leading "python" is this interpreter.
        log: Where it writes; the log begins anew.
        folder: Where it runs.
        environment: Variables beside those that `PASSED` lets through: keys and tokens are not among them.
    """

    def __init__(
        self, command: Sequence[str], log: Path, folder: Path, environment: Mapping[str, str] | None = None
    ) -> None:
        self.log = log
        log.parent.mkdir(parents=True, exist_ok=True)
        kept = {name: value for name, value in os.environ.items() if PASSED.fullmatch(name)}
        paths = [str(CODE), *filter(None, [kept.get("PYTHONPATH", "")])]
        words = [sys.executable if word == "python" else word for word in command[:1]] + list(command[1:])
        with log.open("wb") as stream:
            self._process = subprocess.Popen(
                words,
                cwd=folder,
                env={**kept, "PYTHONPATH": os.pathsep.join(paths), "PYTHONUNBUFFERED": "1", **(environment or {})},
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=_die_with_parent,
            )

    @property
    def pid(self) -> int:
        """Return its process id."""
        return self._process.pid

    @property
    def code(self) -> int | None:
        """Return how it ended, or None while it runs."""
        return self._process.poll()

    def signal(self, number: int) -> None:
        """Send it a signal, if it still runs."""
        if self.code is None:
            self._process.send_signal(number)

    def stop(self, *, at_once: bool = False) -> None:
        """End it with all that it started, and wait until it is gone."""
        for number in (signal.SIGKILL,) if at_once else (signal.SIGTERM, signal.SIGKILL):
            if self.code is not None:
                return
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, number)  # it leads its own group
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(STOP_S)

    def said(self) -> str:
        """Return its log's end."""
        try:
            with self.log.open("rb") as stream:
                stream.seek(max(0, self.log.stat().st_size - TAIL_BYTES))
                return stream.read().decode(errors="replace")
        except OSError:
            return ""

    def last_lines(self, n: int = 8) -> list[str]:
        """Return its last lines, each made safe for a terminal."""
        lines = [one_line(line, 200) for line in self.said().splitlines() if line.strip()]
        return lines[-n:]


def free_port() -> int:
    """Return a port that nobody listens on now."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def _die_with_parent() -> None:
    if hasattr(_LIBC, "prctl"):
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
