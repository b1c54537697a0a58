"""The charts of a release's story as Mermaid blocks, which GitHub draws itself: numbers and plain letters only."""

from __future__ import annotations

from collections.abc import Sequence

from pipelines.release import clock
from pipelines.release.history import Event
from pipelines.release.looks import Told

PALETTE = '{"themeVariables": {"xyChart": {"plotColorPalette": "#6f9ceb, #b8792a"}}}'  # readable on white and on black
POINTS = 48
MOST_BARS = 8
HIGHEST = 300.0  # percent of a limit: beyond, how far no longer matters


def shares(events: Sequence[Event]) -> str:
    """Draw the candidate's share of traffic over time.

    Args:
        events: Of one attempt.

    Returns:
        A fenced block; nothing where no traffic ever came.
    """
    if not any(event.weight > 0 for event in events):
        return ""
    steps = _steps(events)
    start, end = steps[0][0], steps[-1][0]
    if end <= start:
        return ""
    unit, size = next((unit, size) for unit, size, least in UNITS if end - start >= least)
    moments = [start + (end - start) * at / (POINTS - 1) for at in range(POINTS)]
    values = ", ".join(f"{_at(steps, moment):.0f}" for moment in moments)
    return _block(
        [
            '    title "Share of traffic that the candidate was given"',
            f'    x-axis "{unit} since the release began" 0 --> {(end - start) / size:.1f}',
            '    y-axis "percent" 0 --> 100',
            f"    line [{values}]",
        ]
    )


# Name of a unit of time, its seconds, and from how many seconds on it is used.
UNITS = (("days", 86_400.0, 2 * 86_400.0), ("hours", 3600.0, 2 * 3600.0), ("minutes", 60.0, 0.0))


def _steps(events: Sequence[Event]) -> list[tuple[float, float]]:
    """Return (moment, percent) at every change; a released version has all traffic at its end."""
    steps = [(clock.read(event.at), max(0.0, min(1.0, event.weight)) * 100) for event in events]
    if events[-1].action == "released":
        steps[-1] = (steps[-1][0], 100.0)
    return steps


def _at(steps: Sequence[tuple[float, float]], moment: float) -> float:
    return next((value for at, value in reversed(steps) if at <= moment + 1e-6), 0.0)


def limits(told: Told | None) -> str:
    """Draw how much of each limit was used: what was measured, and the upper bound.

    Args:
        told: A verdict, or None.

    Returns:
        A fenced block; nothing where no share was held against a limit.
    """
    rows = [
        (gate.name, gate.value / gate.limit, (gate.upper or gate.value) / gate.limit)
        for gate in (told.gates if told else ())
        if gate.kind == "limit" and gate.name != "rating" and gate.value is not None and gate.limit > 0
    ][:MOST_BARS]
    if len(rows) < 2:  # a line needs two points
        return ""
    highest = max(120.0, *(_percent(upper) for _, _, upper in rows), *(_percent(value) for _, value, _ in rows))
    return _block(
        [
            '    title "Percent of each limit (bars: measured, line: upper bound)"',
            f"    x-axis [{', '.join(_label(name) for name, _, _ in rows)}]",
            f'    y-axis "percent of the limit" 0 --> {highest:.0f}',
            f"    bar [{', '.join(f'{_percent(value):.1f}' for _, value, _ in rows)}]",
            f"    line [{', '.join(f'{_percent(upper):.1f}' for _, _, upper in rows)}]",
        ]
    )


def _block(lines: list[str]) -> str:
    return "\n".join(["```mermaid", f"%%{{init: {PALETTE}}}%%", "xychart-beta", *lines, "```"])


def _percent(share: float) -> float:
    return max(0.0, min(HIGHEST, share * 100))


def _label(name: str) -> str:
    plain = "".join(letter if letter.isascii() and (letter.isalnum() or letter in " _-") else " " for letter in name)
    return f'"{plain[:20].strip() or "other"}"'
