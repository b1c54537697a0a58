"""A rollout's numbers as people read them, in the terminal and on a page; nothing here is escaped."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pipelines.release.looks import Compared, Gate

NOTHING = "\N{EN DASH}"
MINUS = "\N{MINUS SIGN}"
MILLISECONDS = ("latency_ms", "ttft_ms")


def count(value: float | None) -> str:
    """Write a number of requests."""
    return NOTHING if value is None else f"{value:,.0f}"


def share(value: float) -> str:
    """Write a share of traffic, 0 to 1."""
    return f"{value * 100:g} %"


def duration(seconds: float) -> str:
    """Write a span of time: 0:41, 12:05, 3 h 05 min, 2 d 4 h."""
    whole = max(0, round(seconds))
    if whole < 3600:
        return f"{whole // 60}:{whole % 60:02d}"
    if whole < 2 * 86_400:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min".removesuffix(" 00 min")
    return f"{whole // 86_400} d {whole % 86_400 // 3600} h".removesuffix(" 0 h")


def signed(value: float | None) -> str:
    """Write a statistic with two digits; one that is almost nothing has no sign."""
    return NOTHING if value is None else f"{round(value, 2) + 0.0:.2f}".replace("-", MINUS)


def e_value(value: float) -> str:
    """Write an e-value; beyond 1,000 digits say nothing."""
    if value >= 1000:
        return "> 1,000"
    return f"{value:.0f}" if value >= 10 else f"{value:.1f}"


def p_value(value: float | None) -> str:
    """Write a p-value."""
    if value is None:
        return NOTHING
    return "< 0.001" if value < 0.001 else f"{value:.2g}"


def counted(gate: Gate) -> str:
    """Write what was counted: 2 of 31."""
    if gate.name == "rating" and gate.kind == "limit":
        return f"{count(gate.n)} ratings"
    return f"{count(gate.events)} of {count(gate.n)}"


def value(gate: Gate, number: float | None) -> str:
    """Write a gate's value or one of its bounds: a share, a multiple of stable's rate, or a mean rating."""
    if number is None:
        return NOTHING
    if gate.kind == "ratio":
        return f"{number:.2g} x" if number < 1000 else "> 1,000 x"
    return f"{number:.2f}" if gate.name == "rating" else percent(number)


def percent(number: float) -> str:
    """Write a share as percent, with as many digits as say something."""
    found = number * 100
    return f"{found:.0f} %" if found >= 10 or found == 0 else f"{found:.1f} %" if found >= 0.1 else f"{found:.2f} %"


def span(low: str, high: str) -> str:
    """Write two bounds; the unit stands once."""
    for unit in (" %", " x", " ms", " USD"):
        if high.endswith(unit):
            low = low.removesuffix(unit)
    return f"{low} to {high}"


def interval(gate: Gate) -> str:
    """Write a gate's bounds."""
    low = value(gate, gate.lower if gate.lower is not None else 0.0)
    return span(low, "any" if gate.upper is None else value(gate, gate.upper))


def limit(gate: Gate) -> str:
    """Write what a gate allows: a share, a multiple of stable's rate, a mean; of a percentile, who may be slower."""
    if gate.kind == "ratio":
        return f"{gate.limit:g} x stable"
    if gate.name == "rating":
        return f"≥ {gate.limit:g}"
    slow = " slower" if gate.name.endswith("_ms") else ""
    if gate.bound_ms is not None:
        slow = f" over {gate.bound_ms / 1000:g} s"
    return f"≤ {gate.limit * 100:g} %{slow}"


def status(gate: Gate) -> str:
    """Say how a gate stands: failed, proven, open, or that nothing waits for it."""
    return gate.status if gate.status != "open" or gate.is_to_prove else "watched"


def measure(metric: str, number: float | None, *, is_signed: bool = False) -> str:
    """Write a value of an A/B test's metric in its unit.

    Args:
        metric: Its name.
        number: The value, or None.
        is_signed: It is a difference.
    """
    if number is None:
        return NOTHING
    sign = (MINUS if number < 0 else "+" if number > 0 else "") if is_signed else MINUS if number < 0 else ""
    size = abs(number)
    if metric in MILLISECONDS:
        return f"{sign}{size:,.0f} ms"
    if metric == "cost_usd":
        return f"{sign}{size:.3g} USD"
    return f"{sign}{size:.2f}" if metric == "rating" else f"{sign}{percent(size)}"


def gain_interval(one: Compared) -> str:
    """Write the bounds of a gain."""
    return span(*(measure(one.metric, end, is_signed=True) for end in (one.lower, one.upper)))


def standing(one: Compared, alpha: float | None) -> str:
    """Say how a comparison stands: worse beyond its margin, within it, or open."""
    if one.margin is not None and one.upper is not None and one.upper < -one.margin:
        return "worse"
    if alpha is not None and one.adjusted_p_harm is not None and one.adjusted_p_harm <= alpha:
        return "worse"
    if one.margin is not None and one.lower is not None and one.lower > -one.margin:
        return "within"
    return "open"
