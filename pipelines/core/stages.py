"""Run the expensive stages of `dvc.yaml`: what changed is computed, everything else is taken as it is."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from pipelines.core.errors import ConfigError, GatehouseError
from pipelines.core.files import write_json

# What DVC says of a stage, and what that means to a reader.
SAYINGS = {
    re.compile(r"^Running stage '(.+)':$", re.M): "computed",
    re.compile(r"^Stage '(.+)' is cached - skipping run"): "cached",
    re.compile(r"^Stage '(.+)' didn't change, skipping"): "unchanged",
}


class Outcome(NamedTuple):
    """What became of each stage: `computed`, `cached` (taken from DVC's run cache) or `unchanged`."""

    stages: dict[str, str]
    seconds: float


class Stopped(GatehouseError):
    """A stage ended with an error that it has already printed."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.exit_code = code


def reproduce(root: Path = Path()) -> Outcome:
    """Bring every stage of `dvc.yaml` up to date, printing one line for each that has work to do.

    Returns:
        What became of each stage; also written to `.gatehouse/stages.json` for the report.

    Raises:
        Stopped: A stage failed; it carries the stage's own exit code.
        ConfigError: DVC cannot start: no repository, a locked one, a wrong `dvc.yaml`.
    """
    from dvc.exceptions import DvcException, ReproductionError
    from dvc.lock import LockError
    from dvc.repo import Repo
    from dvc.stage.exceptions import StageCmdFailedError

    started = time.monotonic()
    stages: dict[str, str] = {}
    # Stages say `python`: it must be this one, whatever the shell would find.
    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    with tempfile.TemporaryDirectory() as folder, _listening(stages):
        exit_file = Path(folder) / "code"
        os.environ["GATEHOUSE_EXIT_FILE"] = str(exit_file)
        try:
            with contextlib.closing(Repo(str(root))) as repo:
                repo.reproduce()
        except ReproductionError as error:
            cause: BaseException | None = error.__cause__
            stage = next((name for name, what in reversed(stages.items()) if what == "computed"), "?")
            if isinstance(cause, StageCmdFailedError):
                code = int(exit_file.read_text()) if exit_file.exists() else 1
                raise Stopped(f"stage '{stage}' stopped the run; its message is above", code) from None
            raise _explained(cause or error) from None
        except (LockError, DvcException) as error:
            raise _explained(error) from None
        finally:
            os.environ.pop("GATEHOUSE_EXIT_FILE", None)
    outcome = Outcome(stages, time.monotonic() - started)
    write_json(root / ".gatehouse/stages.json", {"schema_version": 1, **outcome._asdict()})
    return outcome


def _explained(error: BaseException) -> GatehouseError:
    from dvc.lock import LockError

    if isinstance(error, KeyboardInterrupt):
        raise error
    if isinstance(error, LockError):
        return ConfigError("another DVC command runs in this folder; wait for it or use another clone")
    if isinstance(error, OSError):
        raise error
    text = " ".join(str(error).split())
    return ConfigError(f"dvc: {text[:400]}")


@contextlib.contextmanager
def _listening(stages: dict[str, str]) -> Iterator[None]:
    """Turn DVC's log into one line per working stage, and remember what became of each."""

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            message = record.getMessage()
            for pattern, what in SAYINGS.items():
                if found := pattern.search(message):
                    stages[found[1]] = what
                    if what != "unchanged":
                        print(f"\n== {found[1]}{' (from the run cache)' if what == 'cached' else ''}", flush=True)  # noqa: T201
                    return
            if record.levelno >= logging.WARNING:
                print(" ".join(message.split()), flush=True)  # noqa: T201

    logger: Any = logging.getLogger("dvc")
    before = logger.level, list(logger.handlers), logger.propagate
    listener = Listener()
    logger.handlers, logger.propagate = [listener], False
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.level, logger.handlers, logger.propagate = before
