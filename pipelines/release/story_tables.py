"""The tables of a release's story: gates, A/B test, what it is made of. All text is made safe."""

from __future__ import annotations

import math
from typing import Any

from pipelines.core.markdown import code, inline
from pipelines.release import figures
from pipelines.release.looks import Compared, Gate, Told
from pipelines.release.manifest import Manifest

MARKS = {
    "failed": "❌ failed",
    "proven": "✅ proven",
    "open": "▫️ open",
    "watched": "▫️ watched",
    "worse": "❌ worse",
    "within": "✅ within",
}
SHORT = 12
MOST_ROWS = 40
UNBROKEN = 24  # characters


def gates(told: Told) -> str:
    """Return the gates of a verdict as a table."""
    lines = ["| gate | counted | rate (interval) | limit | e harm | e proof | |", "|:--|--:|--:|--:|--:|--:|:--|"]
    lines += [_gate(one) for one in told.gates[:MOST_ROWS]]
    notes = ["Intervals hold at every look."]
    if told.alpha:
        e = f"{1 / told.alpha:g}"
        notes.append(f"A mean e-value of {e} for harm rolls back; one of {e} for proof proves a gate.")
    if told.split_p is not None:
        notes.append(f"Users are split as declared: p = {told.split_p:.2g}.")
    return "\n".join([*lines, "", f"<sub>{' '.join(notes)}</sub>"])


def _gate(one: Gate) -> str:
    name = code(one.name, 60) + (" against stable" if one.kind == "ratio" else "")
    rate = f"{figures.value(one, one.value)} ({figures.interval(one)})"
    e_values = [figures.e_value(one.harm).replace(">", "&gt;"), figures.e_value(one.proof).replace(">", "&gt;")]
    cells = [name, figures.counted(one), rate, figures.limit(one), *e_values, MARKS.get(figures.status(one), "")]
    return f"| {' | '.join(map(unbroken, cells))} |"


def compared(told: Told) -> str:
    """Return an A/B test's comparisons as a table, with the tests that readers expect beside them."""
    lines = [
        "| metric | candidate | stable | gain (interval) | margin | p harm | p safe | Welch's t (p) | Cohen's d | |",
        "|:--|--:|--:|--:|--:|--:|--:|--:|--:|:--|",
        *(_compared(one, told.alpha) for one in told.compared[:MOST_ROWS]),
    ]
    note = (
        "A gain is positive where the candidate is better. Interval and p-values hold at every look; "
        "Welch's t is valid for a single look only, and is not what decides."
    )
    return "\n".join([*lines, "", f"<sub>{note}</sub>"])


def _compared(one: Compared, alpha: float | None) -> str:
    sides = [
        f"{figures.measure(one.metric, mean)} of {figures.count(n)}"
        for mean, n in ((one.mean_candidate, one.n_candidate), (one.mean_stable, one.n_stable))
    ]
    gained = f"{figures.measure(one.metric, one.gain, is_signed=True)} ({figures.gain_interval(one)})"
    welch = (
        figures.NOTHING if one.welch_t is None else f"{figures.signed(one.welch_t)} ({figures.p_value(one.welch_p)})"
    )
    p_values = [figures.p_value(one.adjusted_p_harm), figures.p_value(one.p_safe)]
    cells = [
        code(one.metric, 60),
        *sides,
        gained,
        figures.measure(one.metric, one.margin),
        *p_values,
        welch,
        figures.signed(one.cohens_d),
    ]
    cells.append(MARKS[figures.standing(one, alpha)])
    return f"| {' | '.join(unbroken(cell.replace('<', '&lt;')) for cell in cells)} |"


def made_of(manifest: Manifest) -> str:
    """Return a manifest as a table: everything that was bound to the tag, by its SHA-256."""
    decision = manifest.decision
    approved = f", approved by {inline(decision.approval.get('user', ''), 60)}" if decision.approval else ""
    rows = [
        ("commit", code(manifest.commit[:SHORT], SHORT)),
        ("decision", f"{inline(decision.verdict, 30)}{approved}, about inputs {_short(manifest.input_digest)}"),
        *((f"model {inline(name, 60)}", _short(model.digest)) for name, model in manifest.models.items()),
        *((inline(path, 100), _short(sha)) for path, sha in manifest.prompts.items()),
        *((inline(path, 100), _short(sha)) for path, sha in manifest.data.items()),
        ("gates.yaml", _short(manifest.gates_sha256)),
        ("params.yaml", _short(manifest.params_sha256)),
        ("serving.yaml", _short(manifest.serving_sha256)),
        *((f"image {inline(name, 60)}", code(value, 100)) for name, value in manifest.images.items()),
        ("manifest", _short(manifest.name)),
    ]
    shown = [f"| {name} | {value} |" for name, value in rows if value][:MOST_ROWS]
    more = [f"| and {len(rows) - MOST_ROWS} more | |"] if len(rows) > MOST_ROWS else []
    return "\n".join(["| | digest |", "|:--|:--|", *shown, *more])


def unbroken(cell: str) -> str:
    """Keep a short cell on one line: 100 % would be broken before its sign."""
    return cell.replace(" ", "\N{NO-BREAK SPACE}") if len(cell) <= UNBROKEN else cell


def _short(sha: str) -> str:
    return code(sha[:SHORT], SHORT) if sha else ""


def number(value: Any) -> float | None:
    """Return a finite number, or None for anything else that a file may hold."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return float(value) if is_number else None
