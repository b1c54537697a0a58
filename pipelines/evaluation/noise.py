"""A/A: how often the gates speak up although nothing changed, over halves of the rows, repeats and training seeds."""

from __future__ import annotations

import datetime
from collections.abc import Iterator, Mapping, Sequence
from itertools import permutations
from typing import Any, NamedTuple

import numpy as np

from pipelines.core.gates import Evaluation, Rule
from pipelines.core.markdown import code
from pipelines.core.stats.multiple import holm
from pipelines.evaluation.baseline import Baseline
from pipelines.evaluation.catalogue import Metric
from pipelines.evaluation.deciding.checks import Check, Evidence, check_metric
from pipelines.evaluation.results import Column, Results, Run

VERDICTS = ("pass", "manual_review", "fail")
Side = Mapping[str, Results]


class Comparison(NamedTuple):
    """One side held against the other by every margin of `gates.yaml`.

    Attributes:
        verdict: Of all required gates together, after Holm's correction.
        checks: By gate, suite and metric.
    """

    verdict: str
    checks: dict[tuple[str, str, str], Check]


class Noise(NamedTuple):
    """What many comparisons of equals ended in.

    Attributes:
        what: Of what they were.
        n: How many there were.
        verdicts: Share of each verdict, 0 to 1.
        checks: The same by gate, suite and metric, with the margin and the rows that spoke.
    """

    what: str
    n: int
    verdicts: dict[str, float]
    checks: list[dict[str, Any]]


def compare(
    candidate: Side, baseline: Side, metrics: Mapping[str, Mapping[str, Metric]], rules: Evaluation
) -> Comparison:
    """Hold one side against the other by the declared margins alone: floors and ceilings compare nothing.

    A suite that is not on both sides is left out.
    """
    now = datetime.datetime.now(datetime.UTC)
    released = Baseline("fetched", "A/A", "0" * 40, now.isoformat())
    evidence = Evidence(metrics, {name: frozenset() for name in metrics}, candidate, released, baseline, now)
    checks: dict[tuple[str, str, str], Check] = {}
    required: list[tuple[str, str, str]] = []
    for gate in rules.gates:
        for name, rule in gate.metrics.items():
            if rule.max_regression is None or gate.suite not in candidate or gate.suite not in baseline:
                continue
            key = (gate.name, gate.suite, name)
            margin = Rule(max_regression=rule.max_regression)
            checks[key] = check_metric(gate.suite, name, margin, evidence, rules)[0]
            required += [key] if gate.required else []
    return Comparison(_together([checks[key] for key in required], rules.alpha), checks)


def _together(checks: Sequence[Check], level: float) -> str:
    """Return the verdict of all required margins: a failure stands only after Holm's correction, as in the gate."""
    tested = [check for check in checks if check.p_value is not None]
    adjusted = [float(p) for p in holm([float(check.p_value or 0.0) for check in tested])] if tested else []
    stands = any(check.verdict == "fail" and p < level for check, p in zip(tested, adjusted, strict=True))
    if stands or any(check.verdict == "fail" and check.p_value is None for check in checks):
        return "fail"
    return "pass" if all(check.verdict == "pass" for check in checks) else "manual_review"


def halves(side: Side, *, n_rounds: int, rng: np.random.Generator) -> Iterator[tuple[Side, Side]]:
    """Split every suite's rows at random, again and again, and pair the halves: one model, other rows.

    Rows of one cluster (a conversation, a pair of twins) are not told apart: each row of a half stands alone.

    Args:
        side: The candidate's rows by suite; one with fewer than four rows is left out.
        n_rounds: How often.
        rng: Source of every draw.
    """
    large = {name: results for name, results in side.items() if len(results.ids) >= 4}
    for _ in range(n_rounds):
        pairs = {name: _halved(results, rng) for name, results in large.items()}
        yield {name: pair[0] for name, pair in pairs.items()}, {name: pair[1] for name, pair in pairs.items()}


def _halved(results: Results, rng: np.random.Generator) -> tuple[Results, Results]:
    half = len(results.ids) // 2
    mixed = rng.permutation(len(results.ids))
    run = results.run.model_copy(update={"dataset": results.run.dataset.model_copy(update={"n": half})})
    return _rows(results, mixed[:half], run), _rows(results, mixed[half : 2 * half], run)


def _rows(results: Results, places: Any, run: Run) -> Results:
    """Return some rows under numbers of their own, so that the two halves are paired in the order of their draw."""
    ids = np.array([f"{number:08d}" for number in range(len(places))])
    columns = {name: Column(column.values[places], column.applies[places]) for name, column in results.columns.items()}
    return Results(ids, results.slices[places], None, columns, run, is_whole=True)


def each_against_each(sides: Sequence[Side]) -> Iterator[tuple[Side, Side]]:
    """Pair sides in both directions: repeats of one model, or models that differ in nothing but their seed."""
    yield from permutations(sides, 2)


def measure(
    what: str,
    pairs: Iterator[tuple[Side, Side]],
    metrics: Mapping[str, Mapping[str, Metric]],
    rules: Evaluation,
) -> Noise | None:
    """Compare every pair, and count what the comparisons ended in; None where there is nothing to compare.

    Args:
        what: What the pairs are, for people.
        pairs: Candidate and baseline; nothing but chance tells them apart.
        metrics: Declared metrics by suite.
        rules: What `gates.yaml` declares.
    """
    found = [compare(candidate, baseline, metrics, rules) for candidate, baseline in pairs]
    if not found or not found[0].checks:
        return None
    rows = []
    for gate, suite, metric in found[0].checks:
        checks = [one.checks[gate, suite, metric] for one in found]
        shares = _shares([check.verdict for check in checks])
        most = max((abs(check.gain) for check in checks if check.gain is not None), default=None)
        known = {"gate": gate, "suite": suite, "metric": metric, "margin": checks[0].limit, "n_rows": checks[0].n}
        rows.append({**known, "verdicts": shares, "largest_difference": most})
    return Noise(what, len(found), _shares([one.verdict for one in found]), rows)


def _shares(verdicts: Sequence[str]) -> dict[str, float]:
    # What neither passes nor fails asks a person, whatever it is called.
    named = [verdict if verdict in ("pass", "fail") else "manual_review" for verdict in verdicts]
    return {name: named.count(name) / len(named) for name in VERDICTS}


def as_markdown(found: Sequence[Noise]) -> str:
    """Return the figures as a summary page: how often the margins failed or asked although nothing changed."""
    lines = ["## A/A: the candidate against itself", ""]
    if not found:
        lines.append("No gate has a margin (`max_regression`) on rows that are here: there is nothing to compare.")
    for noise in found:
        fails, reviews = noise.verdicts["fail"], noise.verdicts["manual_review"]
        lines += [
            f"**{noise.what}** ({noise.n:,} comparisons): the required gates failed in {fails:.1%} and asked for "
            f"review in {reviews:.1%}.",
            "",
            "| gate | metric | margin | rows | failed | asked for review | largest difference |",
            "|---|---|---:|---:|---:|---:|---:|",
        ]
        for row in noise.checks:
            most = "" if row["largest_difference"] is None else f"{row['largest_difference']:.4g}"
            shares = f"{row['verdicts']['fail']:.1%} | {row['verdicts']['manual_review']:.1%}"
            name = f"{code(row['gate'])} | {code(row['suite'] + ': ' + row['metric'])}"
            lines.append(f"| {name} | {row['margin']:.4g} | {row['n_rows']} | {shares} | {most} |")
        lines.append("")
    return "\n".join(lines).rstrip() + "\n"
