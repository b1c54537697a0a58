"""Talk to the runner that executes a job: outputs, summary, annotations and masks, safe for any text."""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Mapping
from pathlib import Path

from pipelines.core.command import annotate, is_runner
from pipelines.core.errors import ConfigError, one_line
from pipelines.core.github.limits import SUMMARY_BYTES, fit, utf8

__all__ = ["add_summary", "annotate", "is_runner", "mask", "set_outputs"]

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")
_CUT = "_This summary is cut off here: GitHub takes 1 MiB. The files of the run hold the rest._"


def set_outputs(outputs: Mapping[str, str]) -> None:
    """Hand values to the steps that follow; away from a runner they are printed as `name=value`.

    Args:
        outputs: Names as `${{ steps.x.outputs.NAME }}` will ask for them; the values may be any text.

    Raises:
        ConfigError: A name that a workflow could not ask for.
    """
    for name in outputs:
        if not _NAME.fullmatch(name):
            raise ConfigError(f"output {one_line(name, 60)!r}: a name has letters, digits, _ and -")
    path = os.environ.get("GITHUB_OUTPUT") if is_runner() else None
    if not path:
        for name, value in outputs.items():
            print(f"{name}={one_line(value)}")  # noqa: T201
        return
    with Path(path).open("a", encoding="utf-8", errors="backslashreplace", newline="") as stream:
        for name, value in outputs.items():
            # Whoever guesses the delimiter could write outputs of their own: it is drawn for each value.
            delimiter = f"end-{secrets.token_hex(16)}"
            stream.write(f"{name}<<{delimiter}\n{value.replace(chr(0), chr(0xFFFD))}\n{delimiter}\n")


def add_summary(markdown: str) -> None:
    """Append to the job's summary page, cut where GitHub would drop the whole of it; nothing away from a runner."""
    path = os.environ.get("GITHUB_STEP_SUMMARY") if is_runner() else None
    if not path:
        return
    with Path(path).open("a", encoding="utf-8", errors="replace", newline="") as stream:
        room = SUMMARY_BYTES - stream.tell() - 16
        if room > 1000:  # enough to say something
            stream.write(fit(markdown, room, _CUT, size=utf8).rstrip("\n") + "\n\n")


def mask(secret: str) -> None:
    """Have the runner write `***` wherever the secret would appear in the log; nothing away from a runner."""
    if is_runner():
        for line in filter(None, map(str.strip, secret.splitlines())):
            print(f"::add-mask::{line.replace('%', '%25')}", flush=True)  # noqa: T201
