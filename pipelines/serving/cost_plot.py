"""Costs as a page with one chart: stacked bars by day, or a bar per group. Self-contained: no script, no network."""

from __future__ import annotations

import math
from html import escape

from pipelines.core.errors import one_line
from pipelines.serving.cost import TIMES, Costs

# Okabe and Ito's colours, which colour-blind readers tell apart; grey is for all the rest.
COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#f0e442")
OTHER = "#999999"
WIDTH, HEIGHT, LEFT, BOTTOM, TOP = 960, 360, 70, 60, 12
MOST_BARS = 120
N_TICKS = 5
STYLE = """
body{font:15px system-ui,sans-serif;margin:2rem auto;max-width:62rem;padding:0 1rem;color:#222;background:#fff}
svg{width:100%;height:auto}text{font-size:11px;fill:#555}line{stroke:#ddd}
table{border-collapse:collapse;margin-top:1rem}td,th{padding:.2rem .7rem;text-align:right;border-bottom:1px solid #eee}
th:first-child,td.key{text-align:left}.legend span{margin-right:1rem;white-space:nowrap}
.legend i{display:inline-block;width:.8em;height:.8em;margin-right:.3em}
"""


def page(costs: Costs, title: str) -> str:
    """Return an HTML page: a chart and the table below it."""
    bars, series = _arrange(costs)
    colours = {name: COLOURS[place] for place, name in enumerate(series[: len(COLOURS)])}
    legend = "".join(
        f'<span><i style="background:{colour}"></i>{_shown(name)}</span>' for name, colour in colours.items()
    )
    if len(series) > len(COLOURS):
        legend += f'<span><i style="background:{OTHER}"></i>others</span>'
    head = "".join(f"<th>{name}</th>" for name in (*costs.by, "requests", "failed", "cached", "tokens", "USD"))
    lines = "".join(
        "<tr>"
        + "".join(f'<td class="key">{_shown(key)}</td>' for key in row.keys)
        + f"<td>{row.n_requests:,}</td><td>{row.n_failed:,}</td><td>{row.n_cached:,}</td>"
        + f"<td>{row.prompt_tokens + row.completion_tokens:,}</td><td>{row.usd:,.6f}</td></tr>"
        for row in costs.rows
    )
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{escape(title)}</title><style>{STYLE}</style>'
        f"<h1>{escape(title)}</h1><p>{costs.total.usd:,.6f} USD, {costs.total.n_requests:,} requests</p>"
        f'<p class="legend">{legend if len(series) > 1 else ""}</p>{_chart(bars, colours)}'
        f"<table><tr>{head}</tr>{lines}</table></html>\n"
    )


def _arrange(costs: Costs) -> tuple[dict[str, dict[str, float]], list[str]]:
    """Return USD by bar and series, and the series, the dearest first."""
    place = next((costs.by.index(name) for name in TIMES if name in costs.by), 0)
    bars: dict[str, dict[str, float]] = {}
    sums: dict[str, float] = {}
    for row in costs.rows:
        rest = [key for index, key in enumerate(row.keys) if index != place]
        name = " / ".join(rest)
        bar = bars.setdefault(row.keys[place], {})
        bar[name] = bar.get(name, 0.0) + row.usd
        sums[name] = sums.get(name, 0.0) + row.usd
    return dict(sorted(bars.items())[-MOST_BARS:]), sorted(sums, key=lambda name: (-sums[name], name))


def _chart(bars: dict[str, dict[str, float]], colours: dict[str, str]) -> str:
    top = _ceiling(max((sum(bar.values()) for bar in bars.values()), default=0.0))
    inner = HEIGHT - BOTTOM - TOP
    parts = []
    for tick in range(N_TICKS + 1):
        y = TOP + inner * (1 - tick / N_TICKS)
        label = f"{top * tick / N_TICKS:.3g}"
        parts.append(f'<line x1="{LEFT}" x2="{WIDTH}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{label}</text>')
    step = (WIDTH - LEFT) / max(1, len(bars))
    every = max(1, math.ceil(len(bars) / 16))
    for place, (name, bar) in enumerate(bars.items()):
        x, y = LEFT + step * (place + 0.1), TOP + inner
        ordered = sorted(bar.items(), key=lambda each: list(colours).index(each[0]) if each[0] in colours else 99)
        for series, usd in ordered:
            height = inner * usd / top
            y -= height
            words = " / ".join(part for part in (_shown(name), escape(one_line(series, 80))) if part)
            parts.append(
                f'<rect x="{x:.1f}" y="{y:.1f}" width="{step * 0.8:.1f}" height="{height:.1f}" '
                f'fill="{colours.get(series, OTHER)}"><title>{words}: {usd:.6f} USD</title></rect>'
            )
        if place % every == 0:
            parts.append(f'<text x="{x:.1f}" y="{HEIGHT - BOTTOM + 18}">{_shown(name)}</text>')
    return f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="USD">{"".join(parts)}</svg>'


def _ceiling(value: float) -> float:
    """Return the next value above that reads well: 1, 2 or 5 times a power of ten."""
    if value <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    return next((step * power for step in (1, 2, 5, 10) if step * power >= value), 10 * power)


def _shown(name: str) -> str:
    return escape(one_line(name, 40) or "-")
