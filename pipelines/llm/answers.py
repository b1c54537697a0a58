"""What the local engine and the client share: a request, its answer, and the cache that makes both resumable."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

from pipelines.core.files import canonical_json, digest
from pipelines.llm.prompts import Message

State = Literal["scored", "model_error", "infra_error"]
Progress = Callable[[int, int], None]
"""Called with (requests done, of which from cache)."""


class Request(NamedTuple):
    """One question to a model.

    Attributes:
        id: The row it belongs to; not part of the cache key, so that equal questions are asked once.
        messages: The rendered chat messages.
        max_tokens: Longest answer, in tokens.
        temperature: 0 is greedy.
        top_p: Nucleus; only tokens within this probability mass are drawn.
        repeat: Which of several draws for the same question (from 0).
        wants_json: The answer is complete as soon as its JSON value closes.
    """

    id: str
    messages: tuple[Message, ...]
    max_tokens: int
    temperature: float = 0.0
    top_p: float = 1.0
    repeat: int = 0
    wants_json: bool = False


class Answer(NamedTuple):
    """What came back.

    Attributes:
        text: The answer; empty in an error.
        state: `scored`; `model_error` (the model cannot answer this: scores worst); `infra_error` (missing).
        error: One line for people, empty if scored.
        finish_reason: `stop`, `length`, `error`, or what an endpoint says.
        prompt_tokens: Tokens of the rendered prompt.
        completion_tokens: Tokens generated, the end-of-answer token included.
        latency_ms: Wall time of an uncached single request, else None.
        ttft_ms: Time to its first token, else None.
        is_cached: It came from the cache.
        is_estimated: The server did not count tokens; the counts are guessed from the texts.
    """

    text: str
    state: State
    error: str
    finish_reason: str
    prompt_tokens: int
    completion_tokens: int
    latency_ms: float | None = None
    ttft_ms: float | None = None
    is_cached: bool = False
    is_estimated: bool = False


class Shard(NamedTuple):
    """One of several runners that answer a suite together.

    Attributes:
        number: Which one, from 1.
        of: How many there are.
    """

    number: int
    of: int

    def keys(self, batches: Sequence[Sequence[str]]) -> set[str]:
        """Return the cache keys of the batches that are this runner's: dealt out in the order of their content's hash.

        Every runner sees the same batches, so each is answered by exactly one, and as a whole: the last bits of a
        number depend on what else is in its batch.

        Args:
            batches: The cache keys of every batch.
        """
        ordered = sorted(batches, key=lambda keys: digest(list(keys)))
        return {key for keys in ordered[self.number - 1 :: self.of] for key in keys}


class Answerer(Protocol):
    """Anything that answers requests: the local engine, or an endpoint."""

    @property
    def identity(self) -> str:
        """Everything about the answerer that can change an answer; part of every cache key."""
        ...

    def answer(self, requests: Sequence[Request], *, on_progress: Progress | None = None) -> list[Answer]:
        """Answer all requests, in their order, from the cache where it can."""
        ...

    def time_one(self, request: Request) -> Answer:
        """Answer one request without the cache, with `latency_ms` and `ttft_ms`."""
        ...


def cache_key(identity: str, request: Request) -> str:
    """Return the content address of an answer: SHA-256 (hex) of all that can change it."""
    return digest(
        {
            "identity": identity,
            "messages": [[message.role, message.content] for message in request.messages],
            "max_tokens": request.max_tokens,
            "temperature": float(request.temperature),
            "top_p": float(request.top_p),
            "repeat": request.repeat,
            "wants_json": request.wants_json,
        }
    )


class AnswerCache:
    """Content-addressed JSON files, one per answer, so that a killed run loses nothing that was answered."""

    def __init__(self, folder: Path = Path(".cache/answers")) -> None:
        self.folder = folder

    def get(self, key: str) -> dict[str, Any] | None:
        """Return the value stored under a key; None if there is none, or if its file is broken."""
        try:
            entry = json.loads(self._path(key).read_bytes())
            # The digest guards against a file that is whole JSON and still not what was written.
            intact = entry["key"] == key and entry["digest"] == digest(entry["value"])
            return entry["value"] if intact and isinstance(entry["value"], dict) else None
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return None

    def put(self, key: str, value: dict[str, Any]) -> None:
        """Store a JSON object, whole or not at all."""
        path = self._path(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        # No fsync, unlike `files.replacing`: what a power cut breaks counts as a miss.
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        try:
            temporary.write_text(
                canonical_json({"key": key, "digest": digest(value), "value": value}),
                encoding="utf-8",
                errors="surrogatepass",
            )
            temporary.replace(path)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise

    def get_answer(self, key: str) -> Answer | None:
        """Return the answer stored under a key, marked as cached and without its times."""
        value = self.get(key)
        if value is None:
            return None
        try:
            return Answer(**value, is_cached=True)
        except TypeError:
            return None

    def put_answer(self, key: str, answer: Answer) -> None:
        """Store an answer unless it is an error, which may not happen again."""
        if answer.state == "scored":
            value = answer._asdict()
            for name in ("latency_ms", "ttft_ms", "is_cached"):
                del value[name]
            self.put(key, value)

    def _path(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key}.json"
