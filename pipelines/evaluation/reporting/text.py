"""Numbers and sentences as people read them, shared by both renderings; nothing here is escaped yet."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable

from pipelines.evaluation.reporting.view import Baseline, Check, Estimate, Gate, Suite, View

WORDS = {
    "pass": "pass",
    "fail": "fail",
    "manual_review": "review",
    "error": "error",
    "not_applicable": "not applicable",
}
ICONS = {"pass": "✅", "fail": "❌", "manual_review": "🔍", "error": "⚠️", "not_applicable": "\N{HEAVY MINUS SIGN}"}
HEADLINES = {"pass": "Pass", "fail": "Fail", "manual_review": "Manual review", "error": "Error"}
URGENCY = ("error", "fail", "manual_review", "pass", "not_applicable")
NOTHING = "\N{EN DASH}"
MINUS = "\N{MINUS SIGN}"
MOST = 1e12  # beyond, digits say nothing; long rows of digits without commas also look like a commit


def value(x: float | None, unit: str, kind: str = "") -> str:
    """Write a metric's value in its unit; a share of rows is a percentage, a score of 0 to 1 is not."""
    if x is None:
        return NOTHING
    if abs(x) > MOST:
        return f"{x:.3g}"
    if kind == "binary":
        return f"{x * 100:,.1f} %"
    if unit == "ms":
        return f"{_grouped(x)} ms"
    if unit == "usd":  # one request costs so little that nobody can read it
        return f"{usd(1000 * x)} per 1k"
    if unit == "tokens":
        return f"{x:,.1f}"
    return f"{x:,.3f}"


def score(x: float | None) -> str:
    """Write one row's score."""
    return "missing" if x is None else f"{x:.3g}"


def gain(x: float | None, unit: str, kind: str = "") -> str:
    """Write a difference with its sign; of percentages, in percentage points."""
    if x is None:
        return NOTHING
    sign = "+" if x > 0 else MINUS if x < 0 else "±"
    text = value(abs(x), unit, kind)
    return f"{sign}{text.removesuffix(' %')} pp" if kind == "binary" else f"{sign}{text}"


def interval(lower: float | None, upper: float | None, unit: str, kind: str = "", *, is_gain: bool = False) -> str:
    """Write both bounds; the unit stands once."""
    if lower is None and upper is None:
        return ""
    write = gain if is_gain else value
    low, high = (
        (f"{MINUS}∞" if lower is None else write(lower, unit, kind)),
        ("∞" if upper is None else write(upper, unit, kind)),
    )
    for suffix in (" %", " pp", " ms", " USD per 1k"):
        if high.endswith(suffix):
            low = low.removesuffix(suffix)
    return f"{low} to {high}"


def usd(x: float) -> str:
    """Write an amount in USD with three digits that say something."""
    if x == 0 or abs(x) >= 1:
        return f"{x:,.2f} USD"
    digits = min(12, 2 - math.floor(math.log10(abs(x))))
    return f"{x:.{digits}f} USD"


def change(before: float | None, after: float | None) -> str:
    """Write a relative change in percent, or nothing where there is none to speak of."""
    if before is None or after is None or before == 0:
        return ""
    share = (after - before) / abs(before)
    if abs(share) < 0.0005:
        return "±0 %"
    return f"{'+' if share > 0 else MINUS}{_trimmed(abs(share) * 100, 1)} %"


def limit(check: Check) -> str:
    """Write what the rule demands: `≥ 40 %`, `≤ 500 ms`, `loss ≤ 8 pp`."""
    if check.limit is None:
        return NOTHING
    if check.rule == "max_regression":
        return _short(f"loss ≤ {gain(check.limit, check.unit, check.kind).lstrip('+±')}")
    return _short(f"{'≥' if check.rule == 'floor' else '≤'} {value(check.limit, check.unit, check.kind)}")


def duration(seconds: float | None) -> str:
    """Write a duration: `42 s`, `3 min 5 s`."""
    if seconds is None:
        return NOTHING
    if seconds < 60:
        return f"{_trimmed(seconds, 1)} s"
    return f"{int(seconds // 60):,} min {int(seconds % 60)} s"


def counted(count: int, noun: str) -> str:
    """Write a count with its noun: `1 row`, `1,234 rows`."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def headline(view: View) -> str:
    """Say in one line what the verdict rests on."""
    required = [check for gate, check in view.checks if gate.required and check.verdict != "not_applicable"]
    bad = [(gate, check) for gate, check in view.checks if gate.required and check.verdict == view.verdict]
    named = _listed(f"{gate.name}: {_rule(check)}" for gate, check in bad)
    total = counted(len(required), "required check")
    if view.verdict == "pass" and (view.approval or not required):
        return view.reasons[0] if view.reasons else "Nothing was measured."
    if view.verdict == "pass":
        return (
            f"{'Both' if len(required) == 2 else f'All {total}'} hold."
            if len(required) > 1
            else "The required check holds."
        )
    if not bad:
        return view.reasons[0] if view.reasons else "The decision names no reason."
    if view.verdict == "fail":
        return f"{len(bad)} of {total} {'fails' if len(bad) == 1 else 'fail'} ({named})."
    if view.verdict == "manual_review":
        is_quiet = all(check.verdict != "fail" for _, check in view.checks)
        whole = "Nothing fails" if is_quiet else "No required check fails"
        return f"{whole}, but {len(bad)} of {total} {'is' if len(bad) == 1 else 'are'} undecided ({named})."
    return f"No verdict: {len(bad)} of {total} could not be measured ({named})."


def baseline_line(baseline: Baseline) -> str:
    """Say what the candidate is compared with; the three states never share their words."""
    if baseline.state == "none" and "nothing is compared" in baseline.reason:
        return "Nothing was measured, so nothing is compared."
    if baseline.state == "none" and baseline.reason == "none was asked for":
        return "No baseline was asked for: floors and ceilings decide, and regression rules do not apply."
    if baseline.state == "none":
        return (
            "First release: nothing was ever released, so floors and ceilings decide and regression rules do not apply."
        )
    name = _name(baseline)
    if baseline.state != "fetched":
        why = f" ({baseline.reason.rstrip('.')})" if baseline.reason else ""
        return f"Baseline missing: {name} exists but could not be fetched{why}. Whether anything got worse is unknown."
    if baseline.age_days is not None and baseline.is_stale:
        return (
            f"Stale baseline: {name} is {counted(int(baseline.age_days), 'day')} old, "
            f"more than the {baseline.max_age_days:.0f} that gates.yaml allows."
        )
    age = "" if baseline.age_days is None else f", of {_age(baseline.age_days)}"
    return f"Compared row by row with {name}{age}."


def _name(baseline: Baseline) -> str:
    """Return the reference with its commit in short; a reference that is the commit is said once."""
    short = baseline.commit[:12]
    if len(baseline.ref) >= 7 and baseline.commit.startswith(baseline.ref):
        return short
    return f"{baseline.ref or 'the baseline'}{f' ({short})' if short else ''}"


def bounds(alpha: float | None) -> str:
    """Name the bounds of the gates by their level, if the decision says it: `one-sided 95 % bounds`."""
    return "one-sided bounds" if alpha is None else f"one-sided {100 * (1 - alpha):g} % bounds"


def to_green(view: View) -> tuple[str, ...]:
    """Say per check that is not green what would make it so, required gates first; empty for a pass."""
    if view.verdict == "pass":
        return ()
    lines = [
        f"{gate.name}{'' if gate.required else ' (optional)'}: {_advice(check)}"
        for gate, check in sorted(view.checks, key=lambda item: (not item[0].required, URGENCY.index(_known(item[1]))))
        if check.verdict not in ("pass", "not_applicable")
    ]
    if view.baseline.state not in ("none", "fetched"):
        lines.insert(0, "baseline: make it reachable (dvc pull must find the objects of that commit), then run again.")
    elif view.baseline.is_stale:
        lines.insert(
            0, "baseline: compare with a newer release, or raise max_age_days in gates.yaml on the base branch."
        )
    said = [check.reason for _, check in view.checks if check.reason]
    lines += [
        reason
        for reason in view.reasons
        if reason not in view.caps and not any(sentence in reason for sentence in said)
    ]
    return tuple(lines or ["the decision names nothing to do."])


def estimate(found: Estimate | None) -> str:
    """Write a value with its interval."""
    if found is None or found.value is None:
        return NOTHING
    bounds = interval(found.lower, found.upper, found.unit, found.kind)
    return f"{value(found.value, found.unit, found.kind)}{f' ({bounds})' if bounds else ''}"


def computed(suite: Suite) -> tuple[int, int]:
    """Return how many answers were computed and how many came from the cache."""
    found = [suite.run.get(key) for key in ("computed", "cached")]
    first, second = (item if isinstance(item, int) else 0 for item in found)
    return first, second


def verdict_word(verdict: str) -> str:
    """Write a verdict as an icon and a word, so that neither colour nor a font is needed to tell it."""
    return f"{ICONS.get(verdict, '⚠️')} {WORDS.get(verdict, 'error')}"


def ordered_gates(gates: Iterable[Gate]) -> list[Gate]:
    """Return the gates in stage order, those that need attention first within the report's tables."""
    return sorted(gates, key=lambda gate: URGENCY.index(gate.verdict if gate.verdict in URGENCY else "error"))


def _advice(check: Check) -> str:
    """Say what is missing in figures; where figures say nothing, the gate's own sentence does."""
    bound, missing = limit(check), _missing(check)
    if check.verdict == "error" or not missing or missing <= 0 or (check.verdict != "fail" and not check.n_to_decide):
        return check.reason or f"{_rule(check)} ({bound}): no reason was given"
    short = gain(missing, check.unit, check.kind).lstrip(f"+±{MINUS}")
    n = check.n or 0
    flips = math.ceil(missing * n - 1e-9) if check.kind == "binary" else 0
    rows = f", about {counted(flips, 'row')} of {n:,}" if flips else ""
    if check.rule == "max_regression":
        state = f"{check.metric} moved by {gain(check.gain, check.unit, check.kind)} against the baseline ({bound})"
    else:
        state = f"{check.metric} is {value(check.value, check.unit, check.kind)} ({bound})"
    if check.verdict == "fail":
        return f"{state}; it must get better by {short}{rows} to pass."
    return (
        f"{state}, undecided: {check.n_to_decide:,} more rows would decide it (there are {n:,}), "
        f"or a change for the better by {short}{rows}."
    )


def _missing(check: Check) -> float | None:
    """Return by how much the deciding bound misses the limit: what has to be gained if the interval stays as wide."""
    if check.limit is None:
        return None
    if check.rule == "max_regression":
        bound = check.gain_lower
        return None if bound is None else -check.limit - bound
    bound = check.lower if check.rule == "floor" else check.upper
    return None if bound is None else (check.limit - bound if check.rule == "floor" else bound - check.limit)


def _rule(check: Check) -> str:
    return f"{check.metric} regression" if check.rule == "max_regression" else check.metric


def _known(check: Check) -> str:
    return check.verdict if check.verdict in URGENCY else "error"


def _listed(names: Iterable[str]) -> str:
    unique = list(dict.fromkeys(names))
    return ", ".join(unique[:3]) + (f" and {len(unique) - 3} more" if len(unique) > 3 else "")


def _age(days: float) -> str:
    return "today" if days < 1 else f"{counted(int(days), 'day')} ago"


def _short(text: str) -> str:
    """Drop zeros that a declared limit does not have: `76.0 %` is `76 %`."""
    return re.sub(r"\.(\d*?)0+(?=\D|$)", lambda match: f".{match[1]}" if match[1] else "", text)


def _grouped(x: float) -> str:
    return f"{x:,.0f}" if abs(x) >= 100 else f"{x:,.1f}"


def _trimmed(x: float, digits: int) -> str:
    return f"{x:,.{digits}f}".removesuffix("." + "0" * digits)
