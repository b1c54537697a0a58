"""Questions that mean the same get the same answer: the last thing a user says may differ, all else is equal."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from pipelines.serving.config_policies import SemanticCache
from pipelines.serving.likeness import Features, features, may_share
from pipelines.serving.nearest import Nearest
from pipelines.serving.parts import Answer, Body, Question
from pipelines.serving.questions import DELIVERY, digest

Array = NDArray[np.float32]

MOST_PENDING = 1024
ENTRY_BYTES = 6144
"""What an entry takes beside its answer: the vector, its words, the parsed answer's frame."""
PARSED_PER_BYTE = 3
ROUNDING = 1e-4
"""Two embeddings of one text may differ by so much."""


class Embeds(Protocol):
    """What turns texts into vectors of unit length, shape (384,)."""

    def start(self) -> None:
        """Begin to work."""

    async def embed(self, text: str) -> Array | None:
        """Return a text's embedding, or None if there is none to be had in time."""

    async def close(self) -> None:
        """Stop."""


class Asked(NamedTuple):
    """A question's two parts.

    Attributes:
        group: Digest of all but the text: model, prompt, rules, scope, parameters, earlier messages.
        text: What may differ: the user's last message, or the prompt.
    """

    group: bytes
    text: str


class Entry(NamedTuple):
    """One remembered answer."""

    ends: float
    size: int
    features: Features
    answer: Answer


class Group:
    """Entries that differ in their text only."""

    def __init__(self) -> None:
        self.nearest = Nearest()
        self.entries: dict[int, Entry] = {}


class Semantic:
    """The semantic cache, in memory.

    Args:
        declared: Threshold and limits.
        embedder: What turns texts into vectors.
        clock: Monotonic seconds.
    """

    def __init__(
        self, declared: SemanticCache, embedder: Embeds, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._declared = declared
        self._embedder = embedder
        self._clock = clock
        self._groups: dict[bytes, Group] = {}
        self._order: OrderedDict[tuple[bytes, int], None] = OrderedDict()  # the oldest first
        self._pending: OrderedDict[bytes, tuple[Asked, Array]] = OrderedDict()
        self.n_bytes = 0

    def __len__(self) -> int:
        return len(self._order)

    async def get(self, question: Question) -> Answer | None:
        """Return the answer to the most similar question that is similar enough."""
        asked = split(question)
        if asked is None:
            return None
        vector = await self._embedder.embed(asked.text)
        if vector is None:
            return None
        self._pending[question.key] = (asked, vector)
        if len(self._pending) > MOST_PENDING:
            self._pending.popitem(last=False)
        return self.find(asked, vector)

    def find(self, asked: Asked, vector: Array) -> Answer | None:
        """Look a question up whose embedding is known, shape (384,)."""
        group = self._groups.get(asked.group)
        if group is None:
            return None
        found = group.nearest.find(vector, self._declared.min_similarity - ROUNDING)
        if not found:
            return None
        own, now = features(asked.text), self._clock()
        for slot, _ in found:
            entry = group.entries[slot]
            if now >= entry.ends:
                self._drop(asked.group, slot)
            elif may_share(own, entry.features):
                return entry.answer
        return None

    async def put(self, question: Question, answer: Answer) -> None:
        """Remember an answer, if the question's embedding is known or to be had."""
        known = self._pending.pop(question.key, None)
        if known is None:
            asked = split(question)
            vector = await self._embedder.embed(asked.text) if asked is not None else None
            if asked is None or vector is None:
                return
            known = (asked, vector)
        self.add(*known, answer)

    def add(self, asked: Asked, vector: Array, answer: Answer) -> None:
        """Remember an answer to a question whose embedding is known, shape (384,)."""
        size = ENTRY_BYTES + len(answer.content) * (1 + PARSED_PER_BYTE)
        if size > self._declared.max_bytes:
            return
        group = self._groups.setdefault(asked.group, Group())
        slot = group.nearest.add(vector)
        ends = self._clock() + self._declared.ttl_s
        group.entries[slot] = Entry(ends, size, features(asked.text), answer)
        self._order[(asked.group, slot)] = None
        self.n_bytes += size
        self._shrink()

    def resize(self, declared: SemanticCache) -> None:
        """Take over new limits."""
        self._declared = declared
        self._shrink()

    def start(self) -> None:
        """Start the embedding process."""
        self._embedder.start()

    async def close(self) -> None:
        """Stop the embedding process."""
        await self._embedder.close()

    def _shrink(self) -> None:
        while len(self._order) > self._declared.max_entries or self.n_bytes > self._declared.max_bytes:
            self._drop(*next(iter(self._order)))

    def _drop(self, name: bytes, slot: int) -> None:
        group = self._groups[name]
        self.n_bytes -= group.entries.pop(slot).size
        group.nearest.remove(slot)
        del self._order[(name, slot)]
        if not group.entries:
            del self._groups[name]


def split(question: Question) -> Asked | None:
    """Return a question's two parts, or None if it cannot be compared by its meaning."""
    body = question.body
    if question.endpoint == "completions" and isinstance(body.get("prompt"), str):
        text, rest = body["prompt"], {**body, "prompt": None}
    elif question.endpoint == "chat":
        last = _last_message(body)
        if last is None:
            return None
        text, rest = last, {**body, "messages": [*body["messages"][:-1], None]}
    else:
        return None
    if not text.strip():
        return None
    rest = {key: value for key, value in rest.items() if key not in DELIVERY}
    return Asked(digest([question.endpoint, question.scope, question.identity, rest]), text)


def _last_message(body: Body) -> str | None:
    messages = body.get("messages")
    last = messages[-1] if isinstance(messages, list) and messages else None
    if not isinstance(last, dict) or set(last) != {"role", "content"} or last["role"] != "user":
        return None
    return last["content"] if isinstance(last["content"], str) else None
