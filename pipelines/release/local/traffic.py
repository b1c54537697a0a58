"""Traffic for a rollout on this machine: rows of the evaluation, replayed as fast as they are answered."""

from __future__ import annotations

import http.client
import random
import secrets
import threading
import time
from collections.abc import Sequence
from typing import NamedTuple
from urllib.parse import urlsplit

from pipelines.release.local.asking import exchange, headers_of

WORKERS = 8
SHORTEST_S = 0.2
"""A worker starts no second request sooner: what fails at once would else fail a thousand times a second."""
TIMEOUT_S = 120.0
SEED = 7


class Question(NamedTuple):
    """One row for one route."""

    route: str
    inputs: dict[str, str]


class Traffic:
    """A few workers that ask a gateway while it is their turn; each request comes from a user of its own.

    They are threads, so they end with the process. `n_answered` counts what came back, whatever it was.

    Args:
        url: The gateway's public address.
        key: Its key.
        questions: What is asked, in a random order, again and again.
        workers: How many questions at once.
    """

    def __init__(self, url: str, key: str, questions: Sequence[Question], *, workers: int = WORKERS) -> None:
        self._url, self._headers = url, headers_of(key)
        self._questions = list(questions)
        self._random = random.Random(SEED)  # noqa: S311 - the order of rows guards nothing
        self._order: list[Question] = []
        self._run = secrets.token_hex(4)  # a run that is taken up again has other users than the one before
        self._lock = threading.Lock()
        self._flowing, self._over = threading.Event(), threading.Event()
        self._n_asked = self.n_answered = 0
        self._threads = [threading.Thread(target=self._work, daemon=True) for _ in range(workers)]
        for thread in self._threads:
            thread.start()

    @property
    def is_flowing(self) -> bool:
        """Tell whether questions are asked now."""
        return self._flowing.is_set()

    def flow(self, *, on: bool) -> None:
        """Begin, or let no further question begin."""
        if on:
            self._flowing.set()
        else:
            self._flowing.clear()

    def stop(self) -> None:
        """End for good; what is under way is not waited for."""
        self._over.set()
        self._flowing.set()

    def _next(self) -> tuple[str, Question]:
        with self._lock:
            if not self._order:
                self._order = self._random.sample(self._questions, len(self._questions))
            self._n_asked += 1
            return f"{self._run}-{self._n_asked}", self._order.pop()

    def _work(self) -> None:
        parts = urlsplit(self._url)
        connection = http.client.HTTPConnection(parts.hostname or "127.0.0.1", parts.port, timeout=TIMEOUT_S)
        while self._flowing.wait() and not self._over.is_set():
            user, question = self._next()
            started = time.monotonic()
            try:
                body = {"inputs": question.inputs, "user": user}
                exchange(connection, f"/v1/predict/{question.route}", body, self._headers)
                with self._lock:
                    self.n_answered += 1
            except (OSError, http.client.HTTPException):
                connection.close()  # the next request opens a new one
            self._over.wait(max(0.0, SHORTEST_S - (time.monotonic() - started)))
