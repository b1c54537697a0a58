"""What was spent, by project, day, model, route, variant or user: read from the ledger, never from memory."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

from pipelines.core.errors import ConfigError, one_line
from pipelines.serving.ledger_database import SUM_TERMS, SUMS, Database
from pipelines.serving.ledger_rows import DAY_S, Days

DIMENSIONS = {
    "project": "project",
    "day": "day",
    "month": "substr(day, 1, 7)",
    "route": "route",
    "variant": "variant",
    "model": "model",
    "user": "user_id",
}
TIMES = ("day", "month")
BAR_WIDTH = 24
EIGHTHS = " ▏▎▍▌▋▊▉"
MOST_LABEL = 40


class CostRow(NamedTuple):
    """One group and its sums; tokens are those that were paid for."""

    keys: tuple[str, ...]
    n_requests: int
    n_failed: int
    n_cached: int
    n_estimated: int
    prompt_tokens: int
    completion_tokens: int
    usd: float


class Costs(NamedTuple):
    """What was spent.

    Attributes:
        by: Names of the groups' keys.
        rows: In the order of their keys.
        total: The same sums over everything.
    """

    by: tuple[str, ...]
    rows: list[CostRow]
    total: CostRow


class Wanted(NamedTuple):
    """What is asked for.

    Attributes:
        by: Names of DIMENSIONS.
        since: First day, or "".
        until: Last day, or "".
        project: Only this one, or "".
    """

    by: tuple[str, ...]
    since: str = ""
    until: str = ""
    project: str = ""


def parse_by(text: str) -> tuple[str, ...]:
    """Read `project,day`.

    Raises:
        ConfigError: A name is unknown, or twice there.
    """
    names = tuple(name.strip() for name in text.split(","))
    for name in names:
        if name not in DIMENSIONS or names.count(name) > 1:
            known = ", ".join(DIMENSIONS)
            raise ConfigError(f"--by: different names out of {known} are needed, found {one_line(name, 40)!r}")
    return names


def parse_day(option: str, text: str, now: float) -> str:
    """Read a day (2026-01-31), or `7d`: so many days up to today. UTC. Nothing stays nothing.

    Raises:
        ConfigError: It is neither.
    """
    if not text:
        return ""
    if re.fullmatch(r"[1-9][0-9]{0,4}d", text):
        return Days().name(now - (int(text[:-1]) - 1) * DAY_S)
    try:
        return time.strftime("%Y-%m-%d", time.strptime(text, "%Y-%m-%d"))
    except ValueError:
        raise ConfigError(
            f"{option}: a day such as 2026-01-31, or 7d, is needed, found {one_line(text, 40)!r}"
        ) from None


def add_up(database: Database, wanted: Wanted) -> Costs:
    """Return what was spent.

    Users stand in single rows only, everything else was added up while it was booked.

    Raises:
        Away: The database does not answer.
    """
    limits = {"day >= ?": wanted.since, "day <= ?": wanted.until, "project = ?": wanted.project}
    given = {condition: value for condition, value in limits.items() if value}
    where = f"WHERE {' AND '.join(given)}" if given else ""
    groups = ", ".join(DIMENSIONS[name] for name in wanted.by)
    if "user" in wanted.by:
        table, sums = "gatehouse_requests", SUM_TERMS
    else:
        table, sums = "gatehouse_spending", ", ".join(f"sum({name})" for name in SUMS)
    sql = f"SELECT {groups}, {sums} FROM {table} {where} GROUP BY {groups} ORDER BY {groups}"  # noqa: S608 - our names
    n_keys = len(wanted.by)
    rows = [_row(found[:n_keys], found[n_keys:]) for found in database.query(sql, list(given.values()))]
    total = [sum(row[place] for row in rows) for place in range(1, len(SUMS) + 1)]  # type: ignore[misc]
    return Costs(wanted.by, rows, _row(("total",), total))


def _row(keys: Sequence[Any], sums: Sequence[Any]) -> CostRow:
    requests, failed, cached, estimated, prompt, completion = map(int, sums[:-1])
    return CostRow(tuple(map(str, keys)), requests, failed, cached, estimated, prompt, completion, float(sums[-1]))


def as_json(costs: Costs) -> dict[str, Any]:
    """Return the same as JSON."""

    def sums(row: CostRow) -> dict[str, Any]:
        found = row._asdict()
        del found["keys"]
        return found

    rows = [dict(zip(costs.by, row.keys, strict=True)) | sums(row) for row in costs.rows]
    return {"by": list(costs.by), "rows": rows, "total": sums(costs.total)}


def table(costs: Costs) -> str:
    """Return a table with a bar for every row, for a terminal."""
    has_guesses = costs.total.n_estimated > 0
    heads = [*costs.by, "requests", "failed", "cached", "prompt tokens", "completion tokens", "USD"]
    lines = [[*map(_label, row.keys), *_cells(row, has_guesses)] for row in costs.rows]
    total = ["total", *[""] * (len(costs.by) - 1), *_cells(costs.total, has_guesses)]
    widths = [max(len(line[place]) for line in [heads, *lines, total]) for place in range(len(heads))]
    most = max((row.usd for row in costs.rows), default=0.0)

    def shown(line: list[str], tail: str = "") -> str:
        n_keys = len(costs.by)
        cells = [
            cell.ljust(width) if place < n_keys else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(line, widths, strict=True))
        ]
        return f"{'  '.join(cells)}  {tail}".rstrip()

    bars = [_bar(row.usd / most if most else 0.0) for row in costs.rows]
    text = [shown(heads), *(shown(line, bar) for line, bar in zip(lines, bars, strict=True)), shown(total)]
    if has_guesses:
        text.append(f"~ {costs.total.n_estimated:,} requests are estimated: their upstream gave no token counts")
    return "\n".join(text)


def _cells(row: CostRow, has_guesses: bool) -> list[str]:
    usd = f"{row.usd:,.6f}"
    if has_guesses:
        usd = ("~" if row.n_estimated else " ") + usd
    counts = (row.n_requests, row.n_failed, row.n_cached, row.prompt_tokens, row.completion_tokens)
    return [*(f"{count:,}" for count in counts), usd]


def _label(key: str) -> str:
    return one_line(key, MOST_LABEL) or "-"


def _bar(share: float) -> str:
    eighths = round(share * BAR_WIDTH * 8)
    return "█" * (eighths // 8) + EIGHTHS[eighths % 8].strip()
