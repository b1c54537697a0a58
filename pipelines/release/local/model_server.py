"""One model's process: laid out, merged where it is an adapter, started, warmed up, and watched. Nothing here waits."""

from __future__ import annotations

import shutil
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from pipelines.core.files import read_json
from pipelines.release.local.asking import ask
from pipelines.release.local.child import Child, free_port
from pipelines.release.manifest import MODELS

BATCHING = ("--continuous-batching", "--cb-block-size", "32", "--cb-num-blocks", "512")
"""Its cache takes 9 GB unless it is bounded: 16,384 tokens. Blocks are small, because only whole ones can be shared."""
WARM_UP_S = 180.0
PAUSES_S = (0.0, 1.0, 5.0, 15.0)
FLAWLESS = ("none", "")

Phase = Literal["merging", "starting", "warming", "ready", "ended"]


class Settings(NamedTuple):
    """How a model is served.

    Attributes:
        model: Name that it is asked by.
        place: Folder with `models/<name>`, as `model_files.lay_out` makes it.
        logs: Folder for logs.
        name: What its logs are named by.
        arguments: Further ones for `transformers serve`.
        threads: CPU threads.
        temperature: Of the warm-up, which decides how a batching server samples from then on.
        fault: What is to fail in front of it, or "none".
        delay_ms: What the fault `latency` adds, milliseconds.
    """

    model: str
    place: Path
    logs: Path
    name: str = ""
    arguments: tuple[str, ...] = ()
    threads: int = 1
    temperature: float = 0.0
    fault: str = "none"
    delay_ms: float = 0.0


class ModelServer:
    """A `transformers serve` process; `advance` is called again and again, and takes it one step further.

    Attributes:
        phase: How far it is.
        n_ended: How often a process ended that should not have.
    """

    def __init__(self, settings: Settings, *, program: str = "") -> None:
        beside = str(Path(sys.executable).parent)
        self.settings = settings
        self._program = program or shutil.which("transformers", path=beside) or "transformers"
        self._served = settings.place / "served"
        self._marker = settings.logs / f"{settings.name or settings.model}.crashed"
        self._marker.unlink(missing_ok=True)
        self._child: Child | None = None
        self._proxy: Child | None = None
        self._warming: threading.Thread | None = None
        self._is_warm = False
        self._again_at = 0.0
        self.n_ended = 0
        self.port = self.fault_port = 0
        self.phase: Phase = "merging"

    def url(self, *, with_fault: bool) -> str:
        """Return where it answers, below /v1; users meet its fault."""
        port = self.fault_port if with_fault and self.fault_port else self.port
        return f"http://127.0.0.1:{port}"

    @property
    def is_ready(self) -> bool:
        """Tell whether it answers, as far as `advance` saw."""
        return self.phase == "ready"

    def advance(self) -> None:
        """Look at the process and take the next step."""
        if self.phase == "ended":
            self._start_again()
        elif self.phase == "merging":
            self._merge()
        elif self._has_ended():
            self._end()
        elif self.phase == "starting":
            found = ask(f"{self.url(with_fault=False)}/health", timeout_s=2.0)
            if found is not None and found.status == 200:
                self.phase, self._is_warm = "warming", False
                self._warming = threading.Thread(target=self._warm_up, daemon=True)
                self._warming.start()
        elif self.phase == "warming" and self._warming is not None and not self._warming.is_alive():
            self.phase = "ready" if self._is_warm else "starting"

    def stop(self) -> None:
        """End everything at once: nobody is asked to finish a thought."""
        for child in (self._proxy, self._child):
            if child is not None:
                child.stop(at_once=True)

    def last_lines(self) -> list[str]:
        """Return the last lines of what it wrote."""
        return self._child.last_lines() if self._child is not None else []

    def _merge(self) -> None:
        model, target = self.settings.model, self._served / self.settings.model
        if (target / "model.json").exists():
            self._launch()
        elif self._child is None:
            source = Path(MODELS) / model
            card = read_json(self.settings.place / source / "model.json")
            if card.get("kind") != "adapter":
                self._served.mkdir(exist_ok=True)
                target.symlink_to(Path("..") / source, target_is_directory=True)
                self._launch()
                return
            command = ["python", "-m", "scripts.merge", "--model", str(source), "--to", f"served/{model}"]
            self._child = Child(command, self._log("merge"), self.settings.place, {"OMP_NUM_THREADS": "2"})
        elif self._child.code is not None:
            self._end()

    def _launch(self) -> None:
        settings = self.settings
        # The same port again, unless that is what ended it.
        self.port = self.port if self.port and self.n_ended < 2 else free_port()
        # By its plain name below the folder: requests must name it so.
        command = [self._program, "serve", settings.model, "--host", "127.0.0.1", "--port", str(self.port)]
        more: Sequence[str] = () if "--continuous-batching" in settings.arguments else BATCHING
        environment = {
            "OMP_NUM_THREADS": str(settings.threads),
            "HF_HUB_OFFLINE": "1",
            "TOKENIZERS_PARALLELISM": "false",
        }
        self._child = Child([*command, *more, *settings.arguments], self._log("model"), self._served, environment)
        if settings.fault not in FLAWLESS:
            self.fault_port = self.fault_port or free_port()
            words = ["python", "-m", "pipelines.release.local.fault", "--kind", settings.fault]
            words += ["--upstream", str(self.port), "--port", str(self.fault_port), "--victim", str(self._child.pid)]
            words += ["--delay-ms", f"{settings.delay_ms:g}", "--marker", str(self._marker)]
            self._proxy = Child(words, self._log("fault"), self.settings.place)
        self.phase = "starting"

    def _warm_up(self) -> None:
        """Ask once, because the first call stalls; no request of a user is to wait for that."""
        body = {
            "model": self.settings.model,
            "messages": [{"role": "user", "content": "Hello."}],
            "max_tokens": 2,
            "temperature": self.settings.temperature,
        }
        found = ask(f"{self.url(with_fault=False)}/v1/chat/completions", body, timeout_s=WARM_UP_S)
        self._is_warm = found is not None and found.status == 200

    def _has_ended(self) -> bool:
        return any(child is not None and child.code is not None for child in (self._child, self._proxy))

    def _end(self) -> None:
        self.stop()
        self.n_ended += 1
        self._again_at = time.monotonic() + PAUSES_S[min(self.n_ended, len(PAUSES_S)) - 1]
        self.phase = "ended"

    def _start_again(self) -> None:
        if self._marker.exists() or time.monotonic() < self._again_at:  # a crash on request does not come back
            return
        self._child = self._proxy = None
        self.phase = "merging"
        self.advance()

    def _log(self, what: str) -> Path:
        return self.settings.logs / f"{self.settings.name or self.settings.model}-{what}.log"
