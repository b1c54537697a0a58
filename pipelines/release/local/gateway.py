"""The gateway in front of the model processes of one environment: started, told of new files, asked for its counts."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pipelines.core import split as splits
from pipelines.core.errors import ServiceError, one_line
from pipelines.core.split import Split
from pipelines.release.local.asking import Answered, ask
from pipelines.release.local.child import Child
from pipelines.release.local.serving_file import SPLIT, Placed, write

PATIENCE_S = 15.0
LOOK_S = 0.05
KEY = ".gatehouse/serving.key"


class LocalGateway:
    """One gateway process; its files lie in a folder of its own.

    Args:
        folder: That folder.
        root: The repository.
    """

    def __init__(self, folder: Path, root: Path) -> None:
        self.folder = folder
        self._root = root
        self._child: Child | None = None
        self._written: dict[str, Any] = {}
        self._keys: dict[str, str] = {}
        self.url = self._private_url = ""
        self.split = Split(weight=0.0)
        self._gates = folder / "gates.yaml"
        (folder / SPLIT).unlink(missing_ok=True)  # what begins anew begins on stable

    @property
    def is_alive(self) -> bool:
        """Tell whether it listens."""
        return bool(self.url) and self._child is not None and self._child.code is None

    @property
    def key(self) -> str:
        """Return the key that it made for this machine."""
        return (self.folder / KEY).read_text(encoding="utf-8").strip()

    def apply(self, stable: Placed, candidate: Placed | None, routes: Sequence[str]) -> None:
        """Let it serve these on some routes, without dropping a request; returns when it does.

        Raises:
            ServiceError: It refuses, or does not start.
        """
        before = self._written
        path = self.folder / "serving.yaml"
        self._gates.parent.mkdir(parents=True, exist_ok=True)
        self._gates.write_bytes((candidate or stable).declared.file("gates.yaml"))
        self._written = write(self.folder, stable, candidate, routes)
        keys = keys_of(self._written)
        if not self.is_alive or not keys.items() <= self._keys.items():  # a process cannot be given another variable
            self._start(path, keys)
        elif before != self._written:
            n_before = len(self._events())
            assert self._child is not None, "it is alive"
            self._child.signal(signal.SIGHUP)
            found = self._wait_for(("reloaded", "reload_refused"), after=n_before)
            if found["event"] != "reloaded":
                self._written = {}
                raise ServiceError(f"{path}: the gateway refuses it: {one_line(str(found.get('problem', '')), 300)}")

    def set_split(self, split: Split) -> None:
        """Let it split its users so; returns when it does.

        Raises:
            ServiceError: It does not.
        """
        splits.write(self.folder / SPLIT, split)

        def has_it() -> bool:
            found = self.rollout()
            if found is None or (found.status == 200 and not isinstance(found.value, dict)):
                return False
            if split.weight == 0:
                return found.status == 404 or found.value["weight"] == 0
            names = ("rollout", "stage", "weight")
            return found.status == 200 and all(found.value[name] == getattr(split, name) for name in names)

        if self.is_alive:
            self._until(has_it, f"the gateway did not take over {SPLIT}")
        self.split = split

    def rollout(self) -> Answered | None:
        """Return what its private port says of the rollout, or None where it does not answer."""
        return ask(f"{self._private_url}/v1/rollout") if self.is_alive else None

    def verdict(self) -> Any:
        """Return what its private port says is to be done with the candidate, or None."""
        found = ask(f"{self._private_url}/v1/verdict", timeout_s=10.0) if self.is_alive else None
        return found.value if found is not None and found.status == 200 else None

    def stop(self) -> None:
        """Stop it; it books what is on its spool first."""
        if self._child is not None:
            self._child.stop()
        self.url = ""

    def _start(self, path: Path, keys: dict[str, str]) -> None:
        if self._child is not None:
            self._child.stop(at_once=not self.is_alive)
        self._keys = keys
        command = ["python", "-m", "scripts.serve", "--root", str(self.folder.resolve()), "--port", "0"]
        command += ["--private-port", "0", "--quiet"]
        environment = {**keys, "GATEHOUSE_GATES": str(self._gates.resolve())}
        self._child = Child(command, self.folder / "gateway.log", self._root, environment)
        found = self._wait_for(("listening",), after=0)
        self.url = f"http://127.0.0.1:{found['port']}"
        self._private_url = f"http://127.0.0.1:{found['private_port']}"
        if self.split.weight:
            self.set_split(self.split)

    def _events(self) -> list[dict[str, Any]]:
        """Return what it logged."""
        assert self._child is not None, "only asked of a process"
        found = []
        for line in self._child.log.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                value = json.loads(line)
            except ValueError:
                continue
            if isinstance(value, dict) and "event" in value:
                found.append(value)
        return found

    def _wait_for(self, events: tuple[str, ...], *, after: int) -> dict[str, Any]:
        found: list[dict[str, Any]] = []

        def is_there() -> bool:
            found[:] = [one for one in self._events()[after:] if one["event"] in events]
            return bool(found)

        self._until(is_there, "the gateway does not answer")
        return found[0]

    def _until(self, is_so: Callable[[], bool], otherwise: str) -> None:
        assert self._child is not None, "only waited for a process"
        ends = time.monotonic() + PATIENCE_S
        while not is_so():
            if self._child.code is not None or time.monotonic() > ends:
                said = "; ".join(self._child.last_lines(3)) or f"exit code {self._child.code}"
                raise ServiceError(f"{otherwise}: {one_line(said, 400)} ({self._child.log})")
            time.sleep(LOOK_S)


def keys_of(declared: Any) -> dict[str, str]:
    """Return the variables that a serving file names, as far as they are set: the keys of upstreams and guardrails."""
    if isinstance(declared, list):
        return {name: value for each in declared for name, value in keys_of(each).items()}
    found: dict[str, str] = {}
    for name, value in declared.items() if isinstance(declared, dict) else ():
        if name == "api_key_variable" and isinstance(value, str) and value in os.environ:
            found[value] = os.environ[value]
        found |= keys_of(value)
    return found
