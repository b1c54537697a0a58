"""Run a script's main function so that users see one clear line and the right exit code, never a traceback."""

from __future__ import annotations

import argparse
import contextlib
import errno
import io
import os
import re
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Literal, NoReturn

from pipelines.core.errors import ConfigError, GatehouseError, one_line

# What the user can mend, and with which exit code it ends.
WRONG_PLACE = (errno.EISDIR, errno.ENOTDIR, errno.EEXIST, errno.ENAMETOOLONG, errno.ELOOP)
NOT_PERMITTED = (errno.EACCES, errno.EPERM, errno.EROFS)
NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
NO_MEMORY = "not enough memory; lower the batch size or close other programs"

_PLACE = re.compile(r"(?P<path>[^\s:][^:\n]*):(?P<line>[1-9][0-9]{0,8}): ")
_MESSAGE_CHARACTERS = 2000


def run(main: Callable[[], int | None]) -> NoReturn:
    """Call `main` and exit: 0 pass, 2 usage, 3 a gate says no, 4 review, 5 an outside service failed, 130 Ctrl-C.

    A traceback remains for exit code 1 only, which means a bug of ours. Any other code but 0 is also the last line.

    Args:
        main: Parses its arguments, does the work and returns an exit code (None is 0).
    """
    # A cancelled workflow sends SIGTERM: clean up as for Ctrl-C instead of dying half-way through a write.
    signal.signal(signal.SIGTERM, _interrupt)
    argparse.ArgumentParser.error = _refuse  # type: ignore[assignment, method-assign]
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a terminal without UTF-8 still shows every message
    code = _code_of(main)
    if path := os.environ.get("GATEHOUSE_EXIT_FILE"):  # DVC replaces a stage's exit code by its own
        with contextlib.suppress(FileNotFoundError):  # who asked was ended first and took the folder along
            Path(path).write_text(str(code), encoding="utf-8")
    if code:
        print(f"exit code {code}", file=sys.stderr)
    raise SystemExit(code)


def is_runner() -> bool:
    """Return whether a GitHub Actions runner executes this process."""
    return os.environ.get("GITHUB_ACTIONS") == "true"


def annotate(
    level: Literal["error", "warning", "notice"],
    message: str,
    *,
    path: str | None = None,
    line: int | None = None,
    title: str | None = None,
) -> None:
    """Point at a file and line in the run and in the pull request's changes; elsewhere print one plain line.

    Args:
        level: How it is drawn.
        message: Any text.
        path: A file, absolute or relative to the current folder.
        line: Line of that file, from 1.
        title: Short heading.
    """
    place = f"{path}:{line}: " if line else f"{path}: "
    text = one_line(message if not path or message.startswith(place) else place + message, _MESSAGE_CHARACTERS)
    if not is_runner():
        print(f"{level}: {text}", file=sys.stderr)
        return
    found = {"file": _in_repository(path) if path else None, "line": str(line) if line else None, "title": title}
    properties = ",".join(f"{key}={_property(value)}" for key, value in found.items() if value)
    # A percent sign is the runner's escape for the line break that would begin another order.
    print(f"::{level}{' ' * bool(properties)}{properties}::{text.replace('%', '%25')}", file=sys.stderr, flush=True)


def point(level: Literal["error", "warning"], message: str, root: str = "") -> None:
    """Annotate with a message that may begin `path:line: `, at that place; `path` is relative to `root`."""
    found = _PLACE.match(message)
    path = os.path.join(root, found["path"]) if found else ""  # noqa: PTH118 - Path raises on odd names
    if found and os.path.isfile(path):  # noqa: PTH113 - and not a host and its port
        annotate(level, message[found.end() :], path=path, line=int(found["line"]))
    else:
        annotate(level, message)


def _in_repository(path: str) -> str:
    """Return the path as GitHub looks for it: relative to the repository's root."""
    try:
        workspace = Path(os.environ.get("GITHUB_WORKSPACE") or ".").resolve()
        absolute = Path(path).resolve()
    except (OSError, ValueError, RuntimeError):  # a name that no file system holds, links in a circle
        return path
    return absolute.relative_to(workspace).as_posix() if absolute.is_relative_to(workspace) else path


def _property(value: str) -> str:
    return one_line(value).replace("%", "%25").replace(":", "%3A").replace(",", "%2C")


def _code_of(main: Callable[[], int | None]) -> int:
    try:
        code = main() or 0
        sys.stdout.flush()
    except GatehouseError as error:
        return _complain(str(error), error.exit_code)
    except SystemExit as stop:  # --help has been printed
        return stop.code if isinstance(stop.code, int) else 2 if stop.code else 0
    except KeyboardInterrupt:
        return _complain("interrupted; run the same command again to go on from what is saved", 130)
    except BrokenPipeError:
        _close_output()
        return 141
    except MemoryError:
        return _complain(NO_MEMORY, 5)
    except RuntimeError as error:
        if not _is_out_of_memory(error):
            raise
        return _complain(NO_MEMORY, 5)
    except OSError as error:
        cause = _cause(error)
        if cause is None:
            raise
        if error.errno in NO_SPACE:
            _close_output()  # it may be what is full, and Python would try once more at exit
        return _complain(*cause)
    return code


def _is_out_of_memory(error: RuntimeError) -> bool:
    """Tell by name and words, since nothing here may import torch: its own class on a GPU, plain errors elsewhere."""
    words = ("can't allocate memory", "CUDA error: out of memory")
    return type(error).__name__ == "OutOfMemoryError" or any(each in str(error) for each in words)


def _interrupt(signum: int, frame: object) -> NoReturn:
    raise KeyboardInterrupt


def _complain(message: str, code: int) -> int:
    point("error", message)
    return code


def _refuse(parser: argparse.ArgumentParser, message: str) -> NoReturn:
    """Complain about wrong arguments as about everything else: an action's inputs arrive here."""
    parser.print_usage(sys.stderr)
    raise ConfigError(message)


def _close_output() -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _cause(error: OSError) -> tuple[str, int] | None:
    place = f"{error.filename}: " if error.filename else ""
    if error.errno in NO_SPACE:
        return f"{place}no disk space left; free some and run again, finished work is kept", 5
    if error.errno in NOT_PERMITTED:
        return f"{place}not permitted to write or read here ({error.strerror}); check the owner and mode", 5
    if error.errno in WRONG_PLACE:
        return f"{place}cannot be used ({error.strerror}); move what is in the way or correct the path", 2
    return None
