"""A rollout's counters out of Prometheus: what all replicas of the gateway counted, those that are gone included.

Every start of a gateway has a label `process` of its own and no count of it ever falls, so the largest value of a
series is its last one, and sums of these are exact. All families come with one request, evaluated at one moment.
"""

from __future__ import annotations

import http.client
import json
import math
import re
import time
import urllib.error
import urllib.parse
import urllib.request
from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Any, Literal

from pipelines.core.errors import ConfigError, one_line
from pipelines.release.tallies import merged
from pipelines.release.targets import CountersUnavailable

KEY = re.compile(r"[A-Za-z0-9._+-]{1,200}")
TIMEOUT_S = 10.0
MOST_BYTES = 32 << 20
MARGIN_S = 600  # two clocks may differ, and a scrape may come late
PLACE = "stage, weight, variant"
PREFIX = "gatehouse_rollout_"
# Each family with its further labels; what is counted per user is needed per process (see `tallies.merged`).
FAMILIES = {
    "requests_total": "",
    "events_total": "event",
    "departures_total": "",
    "duration_seconds_bucket": "le",
    "time_to_first_token_seconds_bucket": "le",
    "ratings_total": "rating",
    "ratings_withdrawn_total": "rating",
    "users_total": "process",
    "admitted_total": "process",
    "outcomes_total": "process, metric, sum",
}
SUMS = ("n", "total", "squares")
Sample = tuple[dict[str, str], float]


def counters(
    url: str, rollout: str, since: float, unit: Literal["user", "request"] = "user", *, token: str = ""
) -> dict[str, Any]:
    """Return what was counted of a rollout, as `tallies.read` takes it.

    Args:
        url: Of the Prometheus server (or of anything that answers like it), without `/api/v1/query`.
        rollout: Key of the rollout.
        since: When its traffic began, seconds since 1970.
        unit: Of the A/B test.
        token: Bearer token, where the server asks for one.

    Raises:
        CountersUnavailable: The server does not answer, has nothing of the rollout, or not all of it.
        ConfigError: There can be no such address, or no such rollout.
    """
    if not KEY.fullmatch(rollout):
        raise ConfigError(f"rollout {one_line(rollout, 60)!r}: is no key of a rollout")
    seconds = math.ceil(max(0.0, time.time() - since)) + MARGIN_S
    samples = _samples(_asked(url, query(rollout, seconds), token))
    if not samples:
        raise CountersUnavailable(f"Prometheus at {shown(url)} has nothing of rollout {rollout} (yet)")
    try:
        return merged(list(_tallies(samples)), unit)
    except (KeyError, ValueError, ConfigError) as error:
        said = one_line(f"{type(error).__name__}: {error}", 200)
        raise CountersUnavailable(f"Prometheus at {shown(url)} has other series of the rollout ({said})") from None


def query(rollout: str, seconds: int) -> str:
    """Return the PromQL expression for a rollout: one vector whose label `family` names what each sample belongs to."""
    parts = []
    for family, labels in FAMILIES.items():
        by = f"{PLACE}, {labels}" if labels else PLACE
        every = by if "process" in by else f"{by}, process"
        # One process may be scraped twice, under several names of a job or an instance: it still counts once.
        found = f'max by ({every}) (max_over_time({PREFIX}{family}{{rollout="{rollout}"}}[{seconds}s]))'
        parts.append(f'label_replace(sum by ({by}) ({found}), "family", "{family}", "", "")')
    return " or ".join(parts)


def shown(url: str) -> str:
    """Return an address for people, without user and password."""
    scheme, colon, rest = url.partition("://")
    return one_line(scheme + colon + rest.rpartition("@")[2], 100)


def _asked(url: str, expression: str, token: str) -> Any:
    """Ask, and return what was said as plain values."""
    if not url.startswith(("http://", "https://")):
        raise ConfigError(f"Prometheus: {shown(url)!r} is no address; http://HOST:PORT is needed")
    if "@" in url:
        raise ConfigError(f"Prometheus: {shown(url)!r}: user and password do not belong into the address; use a token")
    form = urllib.parse.urlencode({"query": expression, "timeout": f"{TIMEOUT_S:g}s"}).encode()
    try:
        request = urllib.request.Request(f"{url.rstrip('/')}/api/v1/query", data=form)  # noqa: S310 - it is http
    except ValueError as error:
        raise ConfigError(f"Prometheus: {shown(url)!r} is no address ({one_line(str(error), 100)})") from None
    if token:
        request.add_unredirected_header("Authorization", f"Bearer {token}")
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as response:  # noqa: S310 - it is http
            text = response.read(MOST_BYTES + 1)
    except urllib.error.HTTPError as error:
        said = _reason(error)
        raise CountersUnavailable(f"Prometheus at {shown(url)} answers {error.code}{said}") from None
    except (OSError, http.client.HTTPException, ValueError) as error:
        said = one_line(str(getattr(error, "reason", "") or error) or type(error).__name__, 160)
        raise CountersUnavailable(f"Prometheus at {shown(url)} does not answer ({said})") from None
    if len(text) > MOST_BYTES:
        raise CountersUnavailable(f"Prometheus at {shown(url)} answers with more than {MOST_BYTES:,} bytes")
    try:
        found = json.loads(text)
        if found["status"] != "success" or found["data"]["resultType"] != "vector":
            raise ValueError(found["status"])
        warnings = found.get("warnings") or []
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise CountersUnavailable(f"Prometheus at {shown(url)} answers something else than its API says") from None
    if warnings:  # a part of the series is missing, so fewer events are known than there were
        raise CountersUnavailable(f"Prometheus at {shown(url)} warns: {one_line(str(warnings[0]), 160)}")
    return found["data"]["result"]


def _reason(error: urllib.error.HTTPError) -> str:
    try:
        with error:
            return f" ({one_line(str(json.loads(error.read(MOST_BYTES))['error']), 160)})"
    except (OSError, http.client.HTTPException, ValueError, KeyError, TypeError, RecursionError):
        return ""


def _samples(result: Any) -> list[Sample]:
    try:
        found = [(dict(one["metric"]), float(one["value"][1])) for one in result]
    except (ValueError, KeyError, TypeError, IndexError, AttributeError):
        raise CountersUnavailable("Prometheus answers something else than a vector of samples") from None
    if not all(math.isfinite(value) for _, value in found):
        raise CountersUnavailable("Prometheus answers with a count that is no number")
    return found


def _tallies(samples: list[Sample]) -> Iterator[Mapping[str, Any]]:
    """Return one tally with what is summed already, and one for each process with what its users did."""
    by_process = defaultdict[str, list[Sample]](list)
    for labels, value in samples:
        by_process[labels.get("process", "")].append((labels, value))
    for found in by_process.values():
        yield _tally(found)


def _tally(samples: list[Sample]) -> Mapping[str, Any]:
    epochs: dict[tuple[str, float], dict[str, Any]] = {}
    admitted: dict[str, float] = {}
    outcomes: dict[str, dict[str, list[float]]] = {}
    for labels, found in samples:
        family, side, value = labels["family"], labels["variant"], _whole(found)
        if family == "admitted_total":
            admitted[side] = value
        elif family == "outcomes_total":
            sums = outcomes.setdefault(labels["metric"], {}).setdefault(side, [0, 0, 0])
            sums[SUMS.index(labels["sum"])] = value
        else:
            place = labels["stage"], _whole(float(labels["weight"]))
            epoch = epochs.setdefault(place, {"stage": place[0], "weight": place[1], "candidate": {}, "stable": {}})
            _count(epoch[side], family, labels, value)
    for epoch in epochs.values():
        for arm in (epoch["candidate"], epoch["stable"]):
            levels = {name: found for name, found in arm.items() if isinstance(found, dict)}
            arm.update({name: sorted(map(list, found.items())) for name, found in levels.items()})
    return {"canary": {"epochs": list(epochs.values())}, "ab_test": {"admitted": admitted, "outcomes": outcomes}}


def _count(arm: dict[str, Any], family: str, labels: Mapping[str, str], value: float) -> None:
    """Add one sample to one side of an epoch."""
    if family in ("requests_total", "departures_total", "users_total"):
        arm[family.removesuffix("_total")] = value
    elif family == "events_total":
        arm[labels["event"]] = value
    elif family in ("ratings_total", "ratings_withdrawn_total"):
        given, level = arm.setdefault("ratings", {}), float(labels["rating"])
        given[level] = given.get(level, 0) + (value if family == "ratings_total" else -value)
    else:
        name, bound = "latency" if family == "duration_seconds_bucket" else "ttft", float(labels["le"])
        if math.isfinite(bound):
            arm.setdefault(name, {})[bound] = value
        elif name == "ttft":
            arm["streams"] = value


def _whole(value: float) -> float:
    """Return a whole number as one, as the gateway's own page has it."""
    return int(value) if value.is_integer() else value
