"""Counts of gateways that may be gone: the newest of each process, kept on the disk."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pipelines.core.files import write_json, write_text

NAME = re.compile(r"[A-Za-z0-9._-]{1,120}")


class KeptCounts:
    """One file per rollout and process.

    Args:
        folder: Where they lie.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def keep(self, said: Mapping[str, Any]) -> None:
        """Keep what a gateway says of its rollout; of each process only the newest."""
        rollout, process = str(said.get("rollout", "")), str(said.get("process", ""))
        if not NAME.fullmatch(rollout) or not NAME.fullmatch(process):
            return
        path = self._folder / rollout / f"{process}.json"
        began = self._read(path).get("began") or time.time()
        write_json(path, {"schema_version": 1, "began": began, "counters": said.get("counters", {})})

    def keep_unit(self, rollout: str, unit: str) -> None:
        """Keep what a rollout's A/B test compares, `user` or `request`."""
        if NAME.fullmatch(rollout):
            write_text(self._folder / rollout / "unit", unit)

    def unit(self, rollout: str) -> Literal["user", "request"]:
        """Return what a rollout's A/B test compares."""
        try:
            text = (self._folder / rollout / "unit").read_text(encoding="utf-8") if NAME.fullmatch(rollout) else ""
        except OSError:
            text = ""
        return "request" if text == "request" else "user"

    def of(self, rollout: str) -> list[dict[str, Any]]:
        """Return the counts of every process of a rollout, the first one first."""
        if not NAME.fullmatch(rollout):
            return []
        found = [self._read(path) for path in sorted((self._folder / rollout).glob("*.json"))]
        found.sort(key=lambda one: float(one.get("began") or 0))
        return [dict(one["counters"]) for one in found if isinstance(one.get("counters"), dict)]

    def _read(self, path: Path) -> dict[str, Any]:
        try:
            value = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return value if isinstance(value, dict) else {}
