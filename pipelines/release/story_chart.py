"""The chart of a release's story as a Mermaid block, which GitHub draws itself: numbers and plain letters only."""

from __future__ import annotations

from collections.abc import Sequence

from pipelines.release import clock
from pipelines.release.history import Event

# Readable on white and on black, and flat.
PALETTE = '{"xyChart": {"height": 280}, "themeVariables": {"xyChart": {"plotColorPalette": "#6f9ceb"}}}'
POINTS = 96


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
UNITS = (("days", 86_400.0, 172_800.0), ("hours", 3600.0, 7200.0), ("minutes", 60.0, 120.0), ("seconds", 1.0, 0.0))


def _steps(events: Sequence[Event]) -> list[tuple[float, float]]:
    """Return (moment, percent) at every change; a released version has all traffic at its end."""
    steps = [(seconds(event.at), max(0.0, min(1.0, event.weight)) * 100) for event in events]
    if events[-1].action == "released":
        steps[-1] = (steps[-1][0], 100.0)
    return steps


def _at(steps: Sequence[tuple[float, float]], moment: float) -> float:
    return next((value for at, value in reversed(steps) if at <= moment + 1e-6), 0.0)


def seconds(at: str) -> float:
    """Return when something happened, seconds since 1970; 0 for what is no time, since a file may say anything."""
    try:
        return clock.read(at)
    except ValueError:
        return 0.0


def _block(lines: list[str]) -> str:
    return "\n".join(["```mermaid", f"%%{{init: {PALETTE}}}%%", "xychart-beta", *lines, "```"])
