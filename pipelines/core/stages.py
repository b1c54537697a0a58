"""Run the expensive stages of `dvc.yaml`: what changed is computed, everything else is taken as it is."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from pipelines.core.errors import ConfigError, GatehouseError, one_line
from pipelines.core.files import write_json

# What DVC says of a stage, and what that means to a reader.
SAYINGS = {
    re.compile(r"^Running stage '(.+)':$", re.M): "computed",
    re.compile(r"^Stage '(.+)' is cached - skipping run"): "cached",
    re.compile(r"^Stage '(.+)' didn't change, skipping"): "unchanged",
}


class Outcome(NamedTuple):
    """What became of each stage.

    Attributes:
        stages: `computed`, `cached` (taken from DVC's run cache) or `unchanged`, by stage.
        seconds: Wall time of the whole run.
        stage_seconds: Wall time of each computed stage, saving its outputs included.
    """

    stages: dict[str, str]
    seconds: float
    stage_seconds: dict[str, float]


class Stopped(GatehouseError):
    """A stage did not end well; it has printed why, unless it was killed.

    Attributes:
        exit_code: The stage's own, never 0.
    """

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        if code == 0:
            raise ValueError("a run that was stopped cannot have passed")
        self.exit_code = code


def reproduce(
    root: Path = Path(), targets: Sequence[str] = (), *, before: Callable[[Any], None] | None = None
) -> Outcome:
    """Bring stages of `dvc.yaml` up to date, printing one line for each that has work to do.

    Args:
        root: The repository.
        targets: Stages to end with, such as `train` or `evaluate@reply`, with all they need; by default every stage.
        before: Called with DVC's repository object before the first stage, to say where it finds objects.

    Returns:
        What became of each stage; also written to `.gatehouse/stages.json` for the report.

    Raises:
        Stopped: A stage failed; it carries the stage's own exit code.
        ConfigError: DVC cannot start: no repository, a locked one, a wrong `dvc.yaml`, an unknown target.
        GatehouseError: Whatever `before` raises, or what it put in place of DVC's parts.
    """
    from dvc.exceptions import DvcException, ReproductionError
    from dvc.lock import LockError
    from dvc.repo import Repo
    from dvc.stage.exceptions import StageCmdFailedError

    started = time.monotonic()
    stages: dict[str, str] = {}
    begun: dict[str, float] = {}
    # Stages say `python`: it must be this one, whatever the shell would find.
    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    with tempfile.TemporaryDirectory() as folder:
        exit_file = Path(folder) / "code"
        os.environ["GATEHOUSE_EXIT_FILE"] = str(exit_file)
        try:
            with _listening(stages, begun, exit_file), contextlib.closing(Repo(str(root))) as repo:
                if before is not None:
                    before(repo)
                repo.reproduce(list(targets) or None)
        except ReproductionError as error:
            cause: BaseException | None = error.__cause__
            stage = next((name for name, what in reversed(stages.items()) if what == "computed"), "?")
            if isinstance(cause, StageCmdFailedError):
                raise _stopped(stage, exit_file, cause) from None
            raise _explained(cause or error) from None
        except (LockError, DvcException) as error:
            raise _explained(error) from None
        finally:
            os.environ.pop("GATEHOUSE_EXIT_FILE", None)
    ended = time.monotonic()
    outcome = Outcome(stages, ended - started, _durations(stages, begun, ended))
    write_json(root / ".gatehouse/stages.json", {"schema_version": 1, **outcome._asdict()})
    return outcome


def until(stage: str, root: Path = Path()) -> tuple[str, ...]:
    """Return the stages of `dvc.yaml` from the first to `stage`, loops filled in.

    Raises:
        ConfigError: There is no such stage.
    """
    declared = yaml.safe_load((root / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
    if stage not in declared:
        raise ConfigError(f"--until {one_line(stage, 60)}: dvc.yaml has no such stage (known: {', '.join(declared)})")
    return tuple(list(declared)[: list(declared).index(stage) + 1])


def _durations(stages: dict[str, str], begun: dict[str, float], ended: float) -> dict[str, float]:
    """Return the seconds of each computed stage: DVC runs one after the other, so it lasts until the next begins."""
    ends = [*list(begun.values())[1:], ended]
    spans = zip(begun.items(), ends, strict=True) if begun else ()
    return {name: round(end - start, 3) for (name, start), end in spans if stages[name] == "computed"}


def _stopped(stage: str, exit_file: Path, error: BaseException) -> Stopped:
    """Say how a stage ended: by the exit code it wrote, else by a signal, else by a bug."""
    written = exit_file.read_text(encoding="utf-8") if exit_file.exists() else ""
    if written.isdecimal() and int(written):
        return Stopped(f"stage '{stage}' stopped the run; its message is above", int(written))
    found = re.search(r"exited with (-?\d+)$", str(error))
    status = int(found[1]) if found else 1
    number = -status if status < 0 else status - 128  # a shell between adds 128 to a signal's number
    if number not in {one.value for one in signal.Signals}:
        return Stopped(f"stage '{stage}' stopped the run; its message is above", 1)
    hint = " (out of memory?)" if number == signal.SIGKILL else ""
    name = signal.Signals(number).name
    return Stopped(f"stage '{stage}' was killed by {name}{hint}; run again, finished work is kept", 5)


def _explained(error: BaseException) -> GatehouseError:
    from dvc.lock import LockError

    if isinstance(error, GatehouseError):
        return error
    if isinstance(error, KeyboardInterrupt):
        raise error
    if isinstance(error, LockError):
        return ConfigError("another DVC command runs in this folder; wait for it or use another clone")
    if isinstance(error, FileNotFoundError) and error.filename:
        return ConfigError(
            f"{error.filename}: no such file, and a stage of dvc.yaml depends on it; restore it or drop it there"
        )
    if isinstance(error, OSError):
        raise error
    text = " ".join(str(error).split())
    return ConfigError(f"dvc: {text[:400]}")


@contextlib.contextmanager
def _listening(stages: dict[str, str], begun: dict[str, float], exit_file: Path) -> Iterator[None]:
    """Turn DVC's log into one line per working stage, and remember what became of each and when it began.

    As a stage begins, the exit code that the one before it left in `exit_file` is removed.
    """

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            message = record.getMessage()
            for pattern, what in SAYINGS.items():
                if found := pattern.search(message):
                    stages[found[1]] = what
                    begun[found[1]] = time.monotonic()
                    exit_file.unlink(missing_ok=True)
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
