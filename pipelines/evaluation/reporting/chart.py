"""The one chart of a comment, as a Mermaid block."""

from __future__ import annotations

from pipelines.evaluation.reporting.view import View

PALETTE = '{"themeVariables": {"xyChart": {"plotColorPalette": "#6f9ceb, #b8792a"}}}'  # readable on white and on black


def mermaid(view: View) -> str:
    """Draw the slices of one metric where there are any, else what the gates measured.

    Args:
        view: What to show.

    Returns:
        A fenced `mermaid` block, which GitHub draws itself, of numbers and plain letters only; nothing if there is
        nothing to draw.
    """
    slices = [item for item in view.slices if item.estimate.value is not None and item.estimate.unit in ("", "share")]
    if slices:
        first = next((item for item in slices if item.flagged), slices[0])
        chosen = [item for item in slices if (item.suite, item.metric) == (first.suite, first.metric)][:12]
        chosen.sort(key=lambda item: item.slice)
        title = f"{first.suite} {first.metric} by slice"
        bars = [(item.slice, item.estimate.value, item.baseline.value if item.baseline else None) for item in chosen]
    else:
        shares = {(gate.suite, check.metric): check for gate, check in view.checks if check.unit in ("", "share")}
        title = "metrics"
        bars = [(name, check.value, check.baseline_value) for (_, name), check in list(shares.items())[:8]]
    bars = [bar for bar in bars if bar[1] is not None]
    if not bars:
        return ""
    has_line = all(bar[2] is not None for bar in bars) and len(bars) > 1
    lowest = min(0.0, *(min(bar[1] or 0.0, bar[2] or 0.0) for bar in bars))
    lines = [
        "```mermaid",
        f"%%{{init: {PALETTE}}}%%",
        "xychart-beta",
        f'    title "{_plain(title)} (bars: candidate{", line: baseline" if has_line else ""})"',
        f"    x-axis [{', '.join(_label(bar[0]) for bar in bars)}]",
        f'    y-axis "percent" {_percent(lowest):.0f} --> 100',
        f"    bar [{', '.join(f'{_percent(bar[1]):.1f}' for bar in bars)}]",
        *([f"    line [{', '.join(f'{_percent(bar[2]):.1f}' for bar in bars)}]"] if has_line else []),
        "```",
    ]
    return "\n".join(lines)


def _percent(share: float | None) -> float:
    """Return percent that can be drawn: no share is beyond, and a file may say anything."""
    return max(-100.0, min(100.0, (share or 0.0) * 100))


def _plain(name: str) -> str:
    return "".join(letter if letter.isascii() and (letter.isalnum() or letter in " _-") else " " for letter in name)[
        :60
    ]


def _label(name: str) -> str:
    return f'"{_plain(name)[:18].strip() or "other"}"'
