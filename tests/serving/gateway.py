"""A real gateway process on a scratch folder, for tests."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from hashlib import sha256
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
KEY = "gh-test-key-of-the-first-project"
OTHER_KEY = "gh-test-key-of-the-second-project"
PRICE = {"prompt_usd": 1.0, "completion_usd": 2.0}

Declared = dict[str, Any]


def upstream(url: str, model: str = "small", **more: Any) -> Declared:
    return {"kind": "openai", "base_url": url, "model": model, **more}


def declared(upstreams: Declared, routes: Declared, **more: Any) -> Declared:
    """A `serving.yaml` with two projects and a key each."""
    return {
        "schema_version": 1,
        "upstreams": upstreams,
        "prices": {
            each["model"]: PRICE if each["kind"] != "mlflow" else {"request_usd": 0.5} for each in upstreams.values()
        },
        "routes": routes,
        "projects": {"first": {}, "second": {}},
        "keys": [
            {"name": "one", "project": "first", "sha256": sha256(KEY.encode()).hexdigest()},
            {"name": "two", "project": "second", "sha256": sha256(OTHER_KEY.encode()).hexdigest()},
        ],
        **more,
    }


class Running:
    """The process; `lines` are its log, parsed."""

    def __init__(
        self, folder: Path, serving: Declared, *arguments: str, environment: dict[str, str] | None = None
    ) -> None:
        self.folder = folder
        self.declare(serving)
        command = [sys.executable, "-m", "scripts.serve", "--root", str(folder), "--port", "0", "--private-port", "0"]
        self.process = subprocess.Popen(
            [*command, *arguments],
            cwd=ROOT,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **(environment or {})},
        )
        self.follow()

    def follow(self) -> None:
        """Read what the process says, and wait until it listens."""
        self.lines: list[Any] = []
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()
        found = self.wait_for("listening")
        self.url = f"http://127.0.0.1:{found['port']}"
        self.private_url = f"http://127.0.0.1:{found['private_port']}"
        self.port = int(found["port"])

    def declare(self, serving: Declared) -> None:
        (self.folder / "serving.yaml").write_text(json.dumps(serving, indent=1))

    def reload(self, serving: Declared) -> dict[str, Any]:
        """Declare something else, and return how the gateway took it."""
        self.declare(serving)
        n_before = len(self.lines)
        self.process.send_signal(signal.SIGHUP)
        return self.wait_for("reloaded", "reload_refused", after=n_before)

    def wait_for(self, *events: str, after: int = 0, timeout_s: float = 30.0) -> dict[str, Any]:
        ends = time.monotonic() + timeout_s
        while time.monotonic() < ends:
            for line in self.lines[after:]:
                if isinstance(line, dict) and line.get("event") in events:
                    return line
            if self.process.poll() is not None and not self._thread.is_alive():
                break
            time.sleep(0.01)
        raise AssertionError(f"no {events} among {self.lines}")

    def requests(self, n: int = 1) -> list[dict[str, Any]]:
        """The last n lines of requests."""
        ends = time.monotonic() + 10
        while time.monotonic() < ends:
            found = [line for line in self.lines if isinstance(line, dict) and line.get("event") == "request"]
            if len(found) >= n:
                time.sleep(0.25)  # a line too many would be a defect too
                found = [line for line in self.lines if isinstance(line, dict) and line.get("event") == "request"]
                return found[-n:]
            time.sleep(0.02)
        raise AssertionError(f"fewer than {n} requests among {self.lines}")

    def stop(self) -> int:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(timeout=60)
        self._thread.join(timeout=5)
        return code

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            value: Any = line
            with contextlib.suppress(ValueError):
                value = json.loads(line)
            self.lines.append(value)
