"""What only our gateway is asked: equal requests at once, memory over many requests, ten minutes at 70 %."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

from benchmarks.gateway.contenders import get

if TYPE_CHECKING:
    from benchmarks.gateway.__main__ import Bench

ANSWER_MS = 2000
WARM_REQUESTS = 20_000
LONG_S = 600.0


def identical(bench: Bench, n_requests: int) -> int:
    """Return how many calls reach the upstream when one question comes many times at once."""
    get(bench.upstream.port, f"/delay/{ANSWER_MS}")
    before = count(bench)
    try:
        bench.load(bench.gatehouse.port, "gatehouse", connections=n_requests, requests=n_requests, identical=True)
    finally:
        get(bench.upstream.port, "/delay/0")
    return count(bench) - before


def count(bench: Bench) -> int:
    """Return how many calls the upstream had."""
    return int(get(bench.upstream.port, "/count").rpartition(b" ")[2].rstrip(b"}"))


def memory(bench: Bench, n_requests: int, connections: int) -> dict[str, Any]:
    """Return resident memory once caches are full, and how much of it was added by as many requests again."""
    bench.load(bench.gatehouse.port, "gatehouse", requests=WARM_REQUESTS, connections=connections)
    before = bench.gatehouse.resident_mib()
    bench.load(bench.gatehouse.port, "gatehouse", requests=n_requests, connections=connections)
    after = bench.gatehouse.resident_mib()
    return {"memory_mib": after, "memory_growth_rate": after / before - 1, "memory_requests": n_requests}


def long_run(bench: Bench, rate: float) -> dict[str, Any]:
    """Return what ten minutes of an open loop do to latency and memory."""
    samples: list[float] = []
    is_over = threading.Event()

    def watch() -> None:
        while not is_over.wait(5.0):
            samples.append(bench.gatehouse.resident_mib())

    thread = threading.Thread(target=watch)
    thread.start()
    begin = time.monotonic()
    try:
        found = bench.load(bench.gatehouse.port, "gatehouse", connections=64, rate=rate, seconds=LONG_S)
    finally:
        is_over.set()
        thread.join()
    n = max(1, len(samples) // 5)
    first, last = samples[n : 2 * n] or samples, samples[-n:]
    return {
        "long_seconds": time.monotonic() - begin,
        "long_rate_per_s": rate,
        "long_requests": found["statuses"]["200"],
        "long_latency_p50_ms": found["latency_p50_ms"],
        "long_latency_p99_ms": found["latency_p99_ms"],
        "long_memory_growth_rate": max(last) / max(first) - 1,
    }
