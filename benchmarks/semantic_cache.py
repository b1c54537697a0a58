"""Time a hit of the semantic cache at 10,000 entries, embedding included, and the lookup alone; rules beside them.

    python -m benchmarks.semantic_cache [--json] [--entries N]

Entries are real embeddings of sentences put together from word lists; the embedding runs in its own process, as in the
gateway. Milliseconds are medians and 99th percentiles of wall time; `cpu` is the time of this process alone.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from pipelines.serving.config_policies import Guardrails, RouteCache, SemanticCache
from pipelines.serving.embedder import Embedder
from pipelines.serving.exchange import Exchange
from pipelines.serving.guardrails import RouteGuard
from pipelines.serving.minilm import MiniLM
from pipelines.serving.parts import Answer, Question
from pipelines.serving.questions import question
from pipelines.serving.semantic import Semantic, split

N_LOOKUPS = 400
N_HITS = 60
N_RULES = 3000
WORDS = (
    ("How do I", "Can you", "Please help me to", "I want to", "Is it possible to", "Tell me how to"),
    ("return", "repair", "charge", "pair", "update", "clean", "mount", "replace", "order", "track"),
    ("my speaker", "the doorbell", "a thermostat", "my lamp", "the camera", "a sensor", "my parcel", "the invoice"),
    ("with a phone", "at home", "in the garden", "this week", "in winter", "by myself", "for a friend", "in my flat"),
)
ANSWER = Answer({}, b"{}", "small", "one", 1, 1)
RULES = {
    "in": [
        {"rule": "length", "max_characters": 8000},
        {"rule": "pii"},
        {"rule": "injection"},
        {"rule": "patterns", "name": "rivals", "patterns": [r"\bacme( corp)?\b"]},
    ],
    "out": [{"rule": "secrets"}, {"rule": "pii"}],
}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.semantic_cache", description=__doc__.splitlines()[0])
    parser.add_argument("--entries", type=int, default=10_000)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments = parser.parse_args()
    figures = asyncio.run(measure(arguments.entries))
    if arguments.json:
        print(json.dumps(figures))
        return
    for name, value in figures.items():
        print(f"{name:32} {value:,.4g}")


async def measure(n_entries: int) -> dict[str, float]:
    """Return every figure."""
    embedder = Embedder(60.0)
    embedder.start()
    declared = SemanticCache.model_validate({"must_differ": [{"one": "a", "other": "b"}]})
    cache = Semantic(declared, embedder)
    texts = sentences()
    fill(cache, texts, n_entries)
    probe = texts[len(texts) // 2]
    while (vector := await embedder.embed(probe)) is None:
        await asyncio.sleep(0.1)
    asked = split(ask(probe))
    assert asked is not None
    assert cache.find(asked, vector) is not None
    lookup = timed(lambda: cache.find(asked, vector), N_LOOKUPS)
    hits = []
    for text in itertools.islice(itertools.cycle(texts[:: len(texts) // N_HITS]), N_HITS):
        began = time.perf_counter()
        assert await cache.get(ask(text)) is not None
        hits.append((time.perf_counter() - began) * 1000)
    await embedder.close()
    return {
        "entries": n_entries,
        "hit_p50_ms": statistics.median(hits),
        "hit_p99_ms": float(np.percentile(hits, 99)),
        "lookup_p50_ms": lookup[0],
        "lookup_p99_ms": lookup[1],
        "lookup_cpu_ms": lookup[2],
        **await rules(),
    }


def sentences() -> list[str]:
    """Return the sentences that really are embedded."""
    return [" ".join(words) + "?" for words in itertools.product(*WORDS)][::8]


def fill(cache: Semantic, texts: list[str], n_entries: int) -> None:
    """Enter the sentences, and neighbours of them up to the number: embedding all would take minutes."""
    model = MiniLM()
    rng = np.random.default_rng(7)
    known = [model.embed(text) for text in texts]
    for number in range(n_entries):
        place = number % len(texts)
        text = texts[place] if number < len(texts) else f"{texts[place]} {number}"
        vector = known[place] if number < len(texts) else near(known[place], rng)
        asked = split(ask(text))
        assert asked is not None
        cache.add(asked, vector, ANSWER)


def near(vector: Any, rng: np.random.Generator) -> Any:
    """Return a unit vector at a cosine of about 0.6 from another, shape (384,)."""
    noise = rng.standard_normal(384).astype(np.float32)
    moved = vector + 1.3 * noise / np.linalg.norm(noise)
    return moved / np.linalg.norm(moved)


def ask(text: str) -> Question:
    """Return a chat's question."""
    body = {"messages": [{"role": "system", "content": "Be kind."}, {"role": "user", "content": text}]}
    return Question(text.encode(), "desk", "project:first", "1", "chat", body)


def timed(work: Callable[[], object], n: int) -> tuple[float, float, float]:
    """Return median and 99th percentile of wall time, and mean processor time, in ms."""
    times = []
    cpu = time.process_time()
    for _ in range(n):
        began = time.perf_counter()
        work()
        times.append((time.perf_counter() - began) * 1000)
    return statistics.median(times), float(np.percentile(times, 99)), (time.process_time() - cpu) / n * 1000


async def rules() -> dict[str, float]:
    """Return what guardrails and the exact cache's key take of a short chat, in microseconds of processor time."""
    guard = RouteGuard(Guardrails.model_validate(RULES))
    text = "How do I pair my speaker with a new phone? It worked with the old one until last week, in room 12. " * 3
    body = {"model": "desk", "temperature": 0, "messages": [{"role": "user", "content": text}]}
    answer = {"choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}]}
    exchange = Exchange("chat")
    exchange.route = "desk"
    routes = {"desk": RouteCache()}
    found = {}
    for name in ("guard_in", "guard_out"):
        began = time.process_time()
        for _ in range(N_RULES):
            await (
                guard.inspect_in(exchange, body) if name == "guard_in" else guard.inspect_out(exchange, body, answer)
            )
        found[f"{name}_cpu_us"] = (time.process_time() - began) / N_RULES * 1e6
    began = time.process_time()
    for _ in range(N_RULES):
        question(routes, exchange, "identity", body)
    found["exact_key_cpu_us"] = (time.process_time() - began) / N_RULES * 1e6
    pieces = text.replace(" ", " \0").split("\0")
    began = time.process_time()
    for _ in range(N_RULES // 30):
        stream = guard.open_stream(exchange)
        for piece in pieces:
            stream.feed(piece)
        stream.close()
    found["guard_piece_cpu_us"] = (time.process_time() - began) / (N_RULES // 30) / len(pieces) * 1e6
    return found


if __name__ == "__main__":
    main()
