"""The report as a pull request's comment: what decides first, everything else folded or short."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple

from pipelines.core.markdown import code, inline
from pipelines.evaluation.reporting import chart, markdown_changes, person, text
from pipelines.evaluation.reporting.markdown_changes import rest
from pipelines.evaluation.reporting.view import Baseline, Check, Example, Gate, View

MARKER = "<!-- gatehouse:verdict -->"  # how the bot finds its own comment again
MAX_CHARACTERS = 60_000  # GitHub refuses a comment above 65,536
COMMIT = re.compile("[0-9a-f]{40}")
ALERTS = {"pass": "TIP", "fail": "CAUTION", "manual_review": "WARNING", "error": "IMPORTANT"}


class Section(NamedTuple):
    """A part of the report that can be written shorter.

    Attributes:
        name: What `SHRINK_ORDER` calls it.
        write: Renders it with at most so many items of each kind; empty text leaves it out.
        steps: Numbers of items to try, the first one is the full section.
    """

    name: str
    write: Callable[[View, int], str]
    steps: tuple[int, ...]


# The least needed for a verdict gives way first, one step at a time; a table loses whole rows and says how many.
SHRINK_ORDER = ("examples", "slices", "changes", "computed", "footer", "gates", "green", "person")


def render(view: View, *, limit: int = MAX_CHARACTERS) -> str:
    """Write the comment.

    Args:
        view: What to show.
        limit: Most characters; sections give way in `SHRINK_ORDER`, round after round, until the text fits.

    Returns:
        GitHub's Markdown whose first line is the marker; all text of models, data and declared files is escaped.
    """
    step = {section.name: 0 for section in SECTIONS}
    parts = {section.name: section.write(view, section.steps[0]) for section in SECTIONS}
    while True:
        found = "\n\n".join([MARKER, *(part for part in parts.values() if part)]) + "\n"
        shorter = [name for name in SHRINK_ORDER if step[name] + 1 < len(_SECTION[name].steps)]
        if len(found) <= limit or not shorter:
            return found
        # Turns go round: the section that has given way least is next, ties in the declared order.
        name = min(shorter, key=lambda name: (step[name], SHRINK_ORDER.index(name)))
        step[name] += 1
        parts[name] = _SECTION[name].write(view, _SECTION[name].steps[step[name]])


def _verdict(view: View, most: int) -> str:
    headline = f"**{text.HEADLINES[view.verdict]}.** {inline(text.headline(view), 400)}"
    lines = [f"> [!{ALERTS[view.verdict]}]", f"> {headline}", ""]
    icon = "⏳ " if view.baseline.is_stale else "🚫 " if view.baseline.state not in ("none", "fetched") else ""
    lines.append(f"{icon}{_baseline(view.baseline)}")
    return "\n".join(lines)


def _baseline(baseline: Baseline) -> str:
    line = inline(text.baseline_line(baseline), 400)
    if COMMIT.fullmatch(baseline.commit):  # GitHub links a whole SHA and shows it in short
        line = line.replace(inline(baseline.commit[:12]), baseline.commit, 1)
    return line


def _gates(view: View, most: int) -> str:
    gates = text.ordered_gates(view.gates)
    pairs = [(gate, check) for gate in gates for check in gate.checks]
    if not pairs:
        return ""
    lines = [
        "| Gate | Metric | Value (interval) | Limit | Gain on baseline (interval) | n | Verdict |",
        "|:--|:--|--:|--:|--:|--:|:--|",
        *(_check_row(gate, check, is_first=check is gate.checks[0]) for gate, check in pairs[:most]),
    ]
    note = f"Intervals: {text.bounds(view.alpha)} on each side. A gain is positive where the candidate is better."
    return "\n".join([*lines, "", f"<sub>{note}{_more(len(pairs), most, 'check')}</sub>"])


def _check_row(gate: Gate, check: Check, *, is_first: bool) -> str:
    unit, kind = check.unit, check.kind
    name = f"**{inline(gate.name, 60)}**{'' if gate.required else ' (optional)'}" if is_first else ""
    bounds = text.interval(check.lower, check.upper, unit, kind)
    now = text.value(check.value, unit, kind) + (f" ({bounds})" if bounds else "")
    gained = text.NOTHING
    if check.gain is not None:
        bounds = text.interval(check.gain_lower, check.gain_upper, unit, kind, is_gain=True)
        gained = f"{text.gain(check.gain, unit, kind)}{f' ({bounds})' if bounds else ''}"
        gained += f" on {text.value(check.baseline_value, unit, kind)}" if check.baseline_value is not None else ""
    n = text.NOTHING if check.n is None else f"{check.n:,}"
    n += f" ({check.n_missing:,} missing)" if check.n_missing else ""
    cells = [name, code(check.metric, 60), now, text.limit(check), gained, n, text.verdict_word(check.verdict)]
    return f"| {' | '.join(cells)} |"


def _green(view: View, most: int) -> str:
    lines = text.to_green(view)
    if not lines:
        return ""
    shown = [f"- {inline(line, 400)}" for line in lines[:most]]
    return "\n".join(["### How to get to green", "", *shown, *rest(len(lines), most)])


def _slices(view: View, most: int) -> str:
    if not view.slices:
        return ""
    lines = [
        "| Slice | Suite | Metric | Candidate (interval) | Baseline | Gain (interval) | n | |",
        "|:--|:--|:--|--:|--:|--:|--:|:--|",
    ]
    for item in view.slices[:most]:
        now = item.estimate
        bounds = text.interval(item.gain_lower, item.gain_upper, now.unit, now.kind, is_gain=True)
        gained = text.gain(item.gain, now.unit, now.kind) + (f" ({bounds})" if bounds else "")
        before = text.value(item.baseline.value if item.baseline else None, now.unit, now.kind)
        mark = "🔍 worse than allowed" if item.flagged else ""
        names = [inline(item.slice, 60), inline(item.suite, 40), code(item.metric, 60)]
        lines.append(f"| {' | '.join([*names, text.estimate(now), before, gained, f'{now.n:,}', mark])} |")
    flagged = sum(item.flagged for item in view.slices)
    title = f"Slices: {f'{flagged} flagged' if flagged else 'none flagged'}"
    if not most:
        return f"{title}: {len(view.slices):,} in report.html"
    body = "\n".join([*lines, *rest(len(view.slices), most)])
    return _folded(title, body, is_open=bool(flagged))


def _examples(view: View, most: int) -> str:
    parts = []
    for move, title in (("regressed", "Regressed examples"), ("improved", "Improved examples")):
        examples = view.examples("regressed" if move == "regressed" else "improved")
        if examples and most:
            body = "\n\n".join(_example(example) for example in examples[:most])
            parts.append(_folded(f"{title}: {len(examples):,}", f"{body}\n" + "\n".join(rest(len(examples), most))))
        elif examples:
            parts.append(f"{title}: {len(examples):,}, in report.html")
    return "\n\n".join(parts)


def _example(example: Example) -> str:
    before = example.before
    moved = ", ".join(_moved(example, name) for name in example.moved[:4])
    place = f"{inline(example.suite, 40)}{f' · {inline(example.slice, 40)}' if example.slice else ''}"
    lines = [f"**{place}** · {moved}", "", *(f"> {inline(value, 500)}" for _, value in example.inputs[:3]), ""]
    answers = [("expected", example.gold), ("baseline", before.output if before else ""), ("candidate", example.output)]
    return "\n".join(lines + [f"- {name}: {code(answer, 400) if answer else '(empty)'}" for name, answer in answers])


def _moved(example: Example, name: str) -> str:
    sides = [example.before.scores.get(name) if example.before else None, example.scores.get(name)]
    return f"{code(name, 60)} {' → '.join(text.score(side) for side in sides)}"


def _cost(view: View, most: int) -> str:
    lines = []
    for suite in view.suites:
        for name, found in suite.estimates.items():
            if found.unit not in ("ms", "usd", "tokens"):
                continue
            old = suite.baseline_estimates.get(name)
            before = text.value(old.value, found.unit, found.kind) if old else text.NOTHING
            moved = text.change(old.value if old else None, found.value) or text.NOTHING
            names = f"{inline(suite.name, 40)} | {code(name, 60)}"
            lines.append(f"| {names} | {text.estimate(found)} | {before} | {moved} |")
    if not lines:
        return ""
    if not most:
        return "\n".join(["### Cost and latency", *rest(len(lines), 0)])
    head = [
        "### Cost and latency",
        "",
        "| Suite | Metric | Candidate (interval) | Baseline | Change |",
        "|:--|:--|--:|--:|--:|",
    ]
    return "\n".join([*head, *lines[:most], *rest(len(lines), most)])


def _computed(view: View, most: int) -> str:
    lines = []
    for suite in view.suites[:most]:
        fresh, cached = text.computed(suite)
        seconds = suite.run.get("seconds")
        took = f" in {text.duration(seconds)}" if isinstance(seconds, int | float) else ""
        cost = suite.total_cost_usd
        spent = f"; all rows cost {text.usd(cost)} at the declared price" if cost is not None else ""
        lines.append(
            f"- {inline(suite.name, 40)}: {text.counted(fresh, 'answer')} computed, "
            f"{cached:,} from the cache{took}{spent}"
        )
    if view.training.get("steps"):
        seconds = view.training.get("seconds")
        took = f" in {text.duration(seconds)}" if isinstance(seconds, int | float) else ""
        lines.insert(0, f"- training: {inline(str(view.training['steps']), 20)} steps{took}")
    lines += rest(len(view.suites), most)
    return "\n".join(["### Computed and cached", "", *lines]) if lines else ""


def _footer(view: View, most: int) -> str:
    facts = [f"input {code(view.input_digest[:16], 16)}" if view.input_digest else ""]
    facts += [f"commit {code(view.commit[:12], 12)}" if view.commit else ""]
    for suite in view.suites[:most]:
        for key in ("model", "dataset", "prompt"):
            part = suite.run.get(key)
            digest = part.get("digest") if isinstance(part, dict) else None
            if digest:
                facts.append(f"{inline(suite.name, 40)} {key} {code(str(digest)[:12], 12)}")
    lines = ["---", f"<sub>{' · '.join(fact for fact in [*facts, inline(view.created, 40)] if fact)}</sub>"]
    rates = (
        [f"<sub>These gates' own error rates: {inline('; '.join(view.error_rates), 1_500 if most > 1 else 300)}.</sub>"]
        if view.error_rates
        else []
    )
    smallest = [inline(line, 200) for line in view.smallest_detectable[:most]]
    if smallest and len(view.smallest_detectable) > most:
        smallest.append(f"{len(view.smallest_detectable) - most:,} more in report.html")
    power = [f"<sub>Smallest change these rows can show: {'; '.join(smallest)}.</sub>"] if smallest else []
    return "\n\n".join([*lines, *rates, *power])


def _folded(title: str, body: str, *, is_open: bool = False) -> str:
    return f"<details{' open' if is_open else ''}><summary>{title}</summary>\n\n{body}\n\n</details>"


def _more(total: int, most: int, noun: str) -> str:
    return f" {text.counted(total - most, noun)} more in report.html." if total > most else ""


SECTIONS = (
    Section("verdict", _verdict, (1,)),
    Section("person", person.write, (20, 8)),
    Section("gates", _gates, (60, 30, 12, 6, 3, 1)),
    Section("green", _green, (30, 12, 5, 3, 1)),
    Section("changes", markdown_changes.write, (20, 8, 3, 1, 0)),
    Section("chart", lambda view, most: chart.mermaid(view), (1,)),
    Section("slices", _slices, (40, 15, 5, 2, 0)),
    Section("examples", _examples, (5, 3, 1, 0)),
    Section("cost", _cost, (24, 12, 4, 0)),
    Section("computed", _computed, (20, 8, 3, 0)),
    Section("footer", _footer, (20, 4, 1)),
)
_SECTION = {section.name: section for section in SECTIONS}
