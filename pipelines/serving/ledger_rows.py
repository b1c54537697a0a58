"""What the ledger keeps of a request, as it lies on the spool and in the database; holds no content and no key."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import orjson

from pipelines.serving.exchange import Exchange

ROW, RATING = b"q", b"r"
"""First byte of a record on the spool."""
DAY_S = 86_400


class Column(NamedTuple):
    """One column: its name and its type in both databases."""

    name: str
    kind: str


COLUMNS = tuple(
    Column(*pair)
    for pair in (
        ("id", "TEXT"), ("time_s", "DOUBLE PRECISION"), ("day", "TEXT"), ("project", "TEXT"), ("key_name", "TEXT"),
        ("user_id", "TEXT"), ("route", "TEXT"), ("variant", "TEXT"), ("endpoint", "TEXT"), ("model", "TEXT"),
        ("upstream", "TEXT"), ("prompt_tokens", "BIGINT"), ("completion_tokens", "BIGINT"),
        ("usd", "DOUBLE PRECISION"), ("is_estimated", "INTEGER"), ("n_attempts", "INTEGER"), ("is_stream", "INTEGER"),
        ("latency_ms", "DOUBLE PRECISION"), ("ttft_ms", "DOUBLE PRECISION"), ("cache", "TEXT"), ("guardrail", "TEXT"),
        ("status", "INTEGER"), ("error", "TEXT"),
    )
)  # fmt: skip
MAY_BE_NULL = ("ttft_ms",)


class Rating(NamedTuple):
    """What a user thought of an answer.

    Attributes:
        id: Of the request.
        project: Whose it is.
        rating: 1 to 5.
        rated_s: Seconds since 1970, later than every earlier rating of the same request; the latest counts.
    """

    id: str
    project: str
    rating: int
    rated_s: float


class Cost(NamedTuple):
    """What one request on the spool cost, and what a rating must know of it."""

    id: str
    project: str
    route: str
    variant: str
    time_s: float
    usd: float


class Days:
    """Names days and months (UTC); remembers the last one, because requests come in the order of time."""

    def __init__(self) -> None:
        self._number = -1
        self._name = ""

    def name(self, time_s: float) -> str:
        """Return the day, such as `2026-01-31`; its first seven characters are the month."""
        number = int(time_s // DAY_S)
        if number != self._number:
            self._name = time.strftime("%Y-%m-%d", time.gmtime(number * DAY_S))
            self._number = number
        return self._name


def row_record(exchange: Exchange, day: str) -> bytes:
    """Return a finished request as a record of the spool."""
    user = exchange.user
    return ROW + orjson.dumps(
        {
            "id": exchange.id,
            "time_s": exchange.time_s,
            "day": day,
            "project": exchange.project,
            "key_name": exchange.key,
            "user_id": user.replace("\0", "\N{REPLACEMENT CHARACTER}") if "\0" in user else user,
            "route": exchange.route,
            "variant": exchange.variant,
            "endpoint": exchange.endpoint,
            "model": exchange.model,
            "upstream": exchange.upstream,
            "prompt_tokens": exchange.prompt_tokens,
            "completion_tokens": exchange.completion_tokens,
            "usd": exchange.usd,
            "is_estimated": int(exchange.is_estimated),
            "n_attempts": exchange.n_attempts,
            "is_stream": int(exchange.is_stream),
            "latency_ms": round(exchange.latency_ms, 3),
            "ttft_ms": None if exchange.ttft_ms is None else round(exchange.ttft_ms, 3),
            "cache": exchange.cache,
            "guardrail": exchange.guardrail,
            "status": exchange.status,
            "error": exchange.error,
        }
    )


def rating_record(rating: Rating) -> bytes:
    """Return a rating as a record of the spool."""
    return RATING + orjson.dumps(list(rating))


def split(records: Iterable[bytes]) -> tuple[list[bytes], list[Rating]]:
    """Return rows (JSON objects) and ratings of some records, each in their order; what is neither is left out."""
    rows, ratings = [], []
    for record in records:
        if record[:1] == ROW:
            rows.append(record[1:])
        elif record[:1] == RATING:
            ratings.append(Rating(*orjson.loads(record[1:])))
    return rows, ratings


def array(rows: list[bytes]) -> bytes:
    """Return JSON objects as one JSON array, without looking into them."""
    return b"[" + b",".join(rows) + b"]"


def costs(records: Iterable[bytes]) -> Iterator[Cost]:
    """Read what requests cost from their records."""
    for record in records:
        if record[:1] == ROW:
            row: dict[str, Any] = orjson.loads(record[1:])
            yield Cost(row["id"], row["project"], row["route"], row["variant"], row["time_s"], row["usd"])
