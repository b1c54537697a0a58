"""The report as one HTML page that asks nothing of any server and runs no script but its own."""

from __future__ import annotations

import base64
import hashlib
import itertools
import json
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from pipelines.evaluation.catalogue import LATENCY_SUITE
from pipelines.evaluation.reporting import person, plots, text
from pipelines.evaluation.reporting.difference import differences, to_html
from pipelines.evaluation.reporting.hidden import uncover
from pipelines.evaluation.reporting.view import Example, SliceResult, Suite, View

TEMPLATES = Path(__file__).parent / "templates"
MAX_ROWS = 5_000  # in the browser's table: about 5 MB of page; rows that moved or failed come first
SHOWN_EXAMPLES = 5  # without JavaScript
KINDS = {"same": 0, "removed": 1, "added": 2}


def render(view: View) -> str:
    """Write the page.

    Args:
        view: What to show.

    Returns:
        HTML whose only style and script are inline and named by their hash in the content security policy.
    """
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_uncovered,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["marked"] = to_html
    environment.filters["breakable"] = lambda name: escape(uncover(name)).replace("_", Markup("_<wbr>"))
    environment.globals.update({"text": text, "plots": plots, "differences": differences})
    style, script = (_source(name) for name in ("report.css", "report.js"))
    rows = _chosen(view)
    return environment.get_template("report.html.j2").render(
        view=view,
        person=person,
        policy=f"default-src 'none'; style-src '{_hash(style)}'; script-src '{_hash(script)}'; "
        "base-uri 'none'; form-action 'none'",
        style=style,
        script=script,
        rows=_json(_table(view, rows)),
        n_held=sum(check.verdict == "pass" for _, check in view.checks),
        n_checks=sum(check.verdict != "not_applicable" for _, check in view.checks),
        n_rows=len(rows),
        n_all=sum(len(suite.examples) for suite in view.suites if suite.name != LATENCY_SUITE),
        slices=_slice_groups(view.slices),
        latency=_latency(view),
        loss=plots.loss(view.curve),
        confusions=[table for suite in view.suites for table in plots.confusions(suite.name, _first(suite), _object)],
        moves=[(move, view.examples(move)) for move in ("regressed", "improved")],
        shown_examples=SHOWN_EXAMPLES,
    )


def _uncovered(value: Any) -> Any:
    return uncover(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _source(name: str) -> Markup:
    return Markup((TEMPLATES / name).read_text(encoding="utf-8"))  # noqa: S704  our own file, not the data's


def _hash(source: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()}"


def _json(value: Any) -> Markup:
    """Write JSON for a <script> element: without `<`, no text can close it or open a comment inside it."""
    found = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")
    found = found.encode("utf-8", "replace").decode()  # a lone surrogate fits no file, and crashes a browser
    return Markup(found)  # noqa: S704  `<` is gone, and nothing else has a meaning inside a script element


def _chosen(view: View) -> list[Example]:
    """Return the rows of the table: all, or those that matter first."""
    rows = [example for suite in view.suites if suite.name != LATENCY_SUITE for example in suite.examples]
    if len(rows) <= MAX_ROWS:
        return rows
    return sorted(rows, key=lambda row: (row.move not in ("regressed", "improved"), row.state == "scored"))[:MAX_ROWS]


def _table(view: View, rows: list[Example]) -> dict[str, Any]:
    suites = [suite for suite in view.suites if suite.name != LATENCY_SUITE]
    metrics = {
        suite.name: [
            {"name": name, "unit": found.unit, "kind": found.kind, "direction": found.direction}
            for name, found in suite.estimates.items()
        ]
        for suite in suites
    }
    index = {suite.name: number for number, suite in enumerate(suites)}
    return {
        "suites": [{"name": suite.name, "metrics": metrics[suite.name]} for suite in suites],
        "rows": [_row(row, index[row.suite], [metric["name"] for metric in metrics[row.suite]]) for row in rows],
    }


def _row(row: Example, suite: int, metrics: list[str]) -> dict[str, Any]:
    before = row.before
    has_moved = before is not None and before.output != row.output
    pieces = (
        [[KINDS[kind], words] for kind, words in differences(before.output, row.output)]
        if before and has_moved
        else None
    )
    found: dict[str, Any] = {
        "suite": suite,
        "id": row.id,
        "repeat": row.repeat,
        "slice": row.slice,
        "line": row.line,
        "inputs": row.inputs,
        "gold": row.gold,
        "output": row.output,
        "state": row.state,
        "error": row.error,
        "move": row.move,
        "size": round(row.size, 4),
        "moved": row.moved,
        "scores": _scores(row.scores, metrics),
        "baseline": None if before is None or has_moved else before.output,
        "pieces": pieces,
        "before": None if before is None else _scores(before.scores, metrics),
    }
    return {key: value for key, value in found.items() if value not in (None, "", ())}


def _scores(scores: dict[str, float | None], metrics: list[str]) -> list[float | str | None]:
    """Return one entry per metric: a number, null (does not apply) or "missing"."""
    return [
        ("missing" if (x := scores[name]) is None else float(f"{x:.6g}")) if name in scores else None
        for name in metrics
    ]


def _slice_groups(
    slices: tuple[SliceResult, ...],
) -> list[tuple[str, str, list[tuple[SliceResult, plots.Track | None]]]]:
    ordered = sorted(slices, key=lambda item: (item.suite, item.metric, item.slice))
    groups = []
    for (suite, metric), group in itertools.groupby(ordered, key=lambda item: (item.suite, item.metric)):
        items = list(group)
        groups.append((suite, metric, list(zip(items, plots.slice_tracks(items), strict=True))))
    return groups


def _latency(view: View) -> plots.Plot | None:
    limits = [check.limit for _, check in view.checks if check.metric == "latency_p95_ms" and check.rule == "ceiling"]
    suite = next((suite for suite in view.suites if suite.latencies_ms), None)
    if suite is None:
        return None
    return plots.latency(suite.latencies_ms, suite.baseline_latencies_ms, limits[0] if limits else None)


def _first(suite: Suite) -> list[Example]:
    """Return one row per example: repeats of one row would count it several times."""
    return (
        list({example.id: example for example in reversed(suite.examples)}.values())
        if suite.name != LATENCY_SUITE
        else []
    )


def _object(answer: str) -> dict[str, Any] | None:
    try:
        value = json.loads(answer)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None
