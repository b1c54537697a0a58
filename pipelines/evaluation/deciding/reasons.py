"""Why a check came out as it did, in a sentence for people."""

from __future__ import annotations

import datetime
import math

from pipelines.core.stats.clusters import FEWEST_CLUSTERS
from pipelines.core.stats.rules import Ruling
from pipelines.evaluation.catalogue import Metric


def of_limit(metric: Metric, kind: str, limit: float, ruling: Ruling) -> str:
    """Say how a metric stands to its floor or ceiling."""
    measured = f"{metric.name} {_interval(ruling, metric, limit)}"
    shown = f"the {kind} {number(limit, metric.unit)}"
    if ruling.verdict == "pass":
        return f"{measured} is at {'least' if kind == 'floor' else 'most'} {shown}"
    if ruling.verdict == "fail":
        return f"{measured} is {'below' if kind == 'floor' else 'above'} {shown}"
    return f"{measured} may be on either side of {shown}; {_undecided(ruling)}"


def of_regression(metric: Metric, margin: float, ruling: Ruling, ref: str) -> str:
    """Say how a metric has moved against the baseline; a positive gain is better."""
    gain = f"{metric.name} gained {_interval(ruling, metric, -margin, is_gain=True)} against {ref or 'the baseline'}"
    shown = number(margin, metric.unit)
    if ruling.verdict == "pass":
        return f"{gain}: not worse by more than {shown}"
    if ruling.verdict == "fail":
        return f"{gain}: worse by more than {shown}"
    if ruling.upper < 0:
        return f"{gain}: worse, but not shown to be worse by more than {shown}; {_undecided(ruling)}"
    return f"{gain}: it may be worse by more than {shown}; {_undecided(ruling)}"


HINDRANCES = {
    "few-clusters": f"its rows come from fewer than {FEWEST_CLUSTERS} independent conversations (or pairs of twins)",
    "no-range": "no sample bounds a mean whose rows have no largest value; declare `highest` in gates.yaml",
    "beyond-range": "a row lies beyond the `highest` that gates.yaml declares",
}


def _undecided(ruling: Ruling) -> str:
    if ruling.hindrance:
        more = f"; about {ruling.n_to_decide:,} more rows would decide" if ruling.n_to_decide else ""
        return f"undecided: {HINDRANCES[ruling.hindrance]}{more}"
    if ruling.is_split:
        return f"undecided: {ruling.n_missing} of {ruling.n} rows are missing and could decide either way"
    if ruling.n_missing:
        return f"undecided: {ruling.n_missing} of {ruling.n} rows are missing"
    if ruling.n_to_decide is not None:
        return f"undecided: about {ruling.n_to_decide:,} more rows would decide"
    return "undecided: it is too near the limit for any affordable number of rows"


def of_holm(reason: str, adjusted_p: float, n_checks: int) -> str:
    """Say that a failure does not stand among so many checks."""
    return (
        f"{reason}; one failure among {n_checks} checks can be chance "
        f"(p {adjusted_p:.2g} after Holm's correction), so a person decides"
    )


def too_few(metric: str, n: int, n_missing: int, max_missing_rate: float) -> str:
    """Say that there is no evidence, or too little; empty if there is enough."""
    if n == 0:
        return f"{metric}: applies to no row, so nothing was measured"
    if n_missing == n:
        return f"{metric}: all of {n} rows are missing, so nothing was measured; evaluate again"
    if n_missing > max_missing_rate * n:
        return (
            f"{metric}: {n_missing} of {n} rows are missing ({n_missing / n:.1%}, at most {max_missing_rate:.1%} "
            "may be); evaluate again"
        )
    return ""


def too_old(created: str, now: datetime.datetime, max_age_days: int) -> str:
    """Say that a baseline is too old, or has no believable date; empty if it is fresh."""
    try:
        date = datetime.datetime.fromisoformat(created)
    except ValueError:
        return f"has no date that can be read ({created[:40]!r})"
    if date.tzinfo is None:
        date = date.replace(tzinfo=datetime.UTC)
    age_days = (now - date).total_seconds() / 86_400
    if age_days < -1:
        return f"comes from the future ({created[:40]}); check the clock"
    return f"is {age_days:.0f} days old (at most {max_age_days} may be)" if age_days > max_age_days else ""


def number(value: float, unit: str, *, decimals: int = 2) -> str:
    """Write a value in its unit."""
    if not math.isfinite(value):
        return "unknown"
    if unit == "ms":
        return f"{value:,.0f} ms"
    if unit == "usd":
        return f"{value:.3g} USD"
    if unit == "tokens":
        return f"{value:,.1f} tokens"
    return f"{value:.{decimals}f}"


def _interval(ruling: Ruling, metric: Metric, limit: float, *, is_gain: bool = False) -> str:
    """Write value and bounds with as many decimals as tell them from the limit."""
    parts = (ruling.value, ruling.lower, ruling.upper)
    decimals = next(
        (n for n in (2, 3, 4) if all(round(part, n) != round(limit, n) or part == limit for part in parts[1:])), 4
    )
    value, lower, upper = (number(part, metric.unit, decimals=decimals) for part in parts)
    sign = "+" if is_gain and ruling.value > 0 else ""
    return f"{sign}{value} [{lower}, {upper}]"
