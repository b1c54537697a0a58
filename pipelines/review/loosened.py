"""Which rules of `gates.yaml` a pull request loosens: every old rule must be met by a new one that is as strict."""

from __future__ import annotations

import math
from typing import NamedTuple

from pipelines.core.gates import Evaluation, Rule, SliceRule
from pipelines.evaluation.catalogue import METRICS

KINDS = ("floor", "ceiling", "max_regression")


class Limit(NamedTuple):
    """One limit on one metric of one suite; which gate holds it, and that gate's name, are no part of its strictness.

    Attributes:
        kind: `floor`, `ceiling` or `max_regression`.
        value: In the metric's unit.
        is_required: Whether it can block.
        is_exact: Whether its bounds are exact, which are wider.
        highest: Largest value of a row that is declared, the larger the wider the bounds; infinity if none is.
    """

    suite: str
    metric: str
    kind: str
    value: float
    is_required: bool
    is_exact: bool
    highest: float = math.inf

    def holds(self, other: Limit) -> bool:
        """Tell whether keeping to this limit means keeping to the other."""
        return (
            self[:3] == other[:3]
            and not self._is_looser_value(other)
            and self.is_required >= other.is_required
            and self.is_exact >= other.is_exact
            and self.highest >= other.highest
        )

    def _is_looser_value(self, other: Limit) -> bool:
        return self.value < other.value if self.kind == "floor" else self.value > other.value

    def against(self, other: Limit) -> str:
        """Say in what this limit is looser than the other."""
        found = []
        if self._is_looser_value(other):
            found.append(f"{'lowered' if self.kind == 'floor' else 'raised'} from {other.value:g} to {self.value:g}")
        if self.is_required < other.is_required:
            found.append("no longer required")
        if self.is_exact < other.is_exact:
            found.append("measured by narrower bounds (exact: false)")
        if self.highest < other.highest:
            was = "nothing" if math.isinf(other.highest) else f"{other.highest:g}"
            found.append(f"measured by narrower bounds (highest: from {was} to {self.highest:g})")
        return " and ".join(found)


def loosened(before: Evaluation, after: Evaluation) -> tuple[str, ...]:
    """Say what of `before` the rules of `after` no longer hold a candidate to.

    A renamed gate, a rule that moved to another gate and a stricter rule are no loosening. A change of `alpha` is one
    in either direction: a larger one passes more, a smaller one turns failures into questions.

    Returns:
        One sentence for each; none where everything is at least as strict as before.
    """
    old, new = limits(before), limits(after)
    found = [_of_limit(limit, new) for limit in old if not any(other.holds(limit) for other in new)]
    found += [_of_slice(rule, after.slices) for rule in before.slices if not _is_kept(rule, after.slices)]
    for name in ("max_missing_rate", "max_age_days"):
        was, now = getattr(before, name), getattr(after, name)
        if now > was:
            found.append(f"gates.yaml: {name}: raised from {was:g} to {now:g}")
    if before.alpha != after.alpha:
        word = "raised" if after.alpha > before.alpha else "lowered"
        found.append(f"gates.yaml: alpha: {word} from {before.alpha:g} to {after.alpha:g}")
    return tuple(dict.fromkeys(found))


def limits(rules: Evaluation) -> list[Limit]:
    """Return every limit that gates declare."""
    return [
        Limit(
            gate.suite,
            metric,
            kind,
            float(getattr(rule, kind)),
            gate.required,
            _is_exact(metric, rule),
            math.inf if rule.highest is None else rule.highest,
        )
        for gate in rules.gates
        for metric, rule in gate.metrics.items()
        for kind in KINDS
        if getattr(rule, kind) is not None
    ]


def _is_exact(metric: str, rule: Rule) -> bool:
    if rule.exact is not None:
        return rule.exact
    return metric in METRICS and METRICS[metric].is_safety


def _of_limit(limit: Limit, new: list[Limit]) -> str:
    place = f"gates.yaml: suite '{limit.suite}', {limit.metric}: {limit.kind}"
    alike = [other for other in new if other[:3] == limit[:3]]
    if not alike:
        return f"{place} {limit.value:g} removed"
    # Of several, the one that gives away least is what the old rule became.
    return f"{place} {min((other.against(limit) for other in alike), key=len)}"


def _is_kept(rule: SliceRule, slices: tuple[SliceRule, ...]) -> bool:
    return any(
        (other.suite, other.metric) == (rule.suite, rule.metric)
        and other.max_regression <= rule.max_regression
        and other.false_discovery_rate >= rule.false_discovery_rate
        for other in slices
    )


def _of_slice(rule: SliceRule, slices: tuple[SliceRule, ...]) -> str:
    place = f"gates.yaml: slices of suite '{rule.suite}', {rule.metric}"
    alike = [other for other in slices if (other.suite, other.metric) == (rule.suite, rule.metric)]
    if not alike:
        return f"{place}: no longer compared"
    nearest = min(alike, key=lambda other: other.max_regression)
    if nearest.max_regression > rule.max_regression:
        return f"{place}: max_regression raised from {rule.max_regression:g} to {nearest.max_regression:g}"
    return f"{place}: false_discovery_rate lowered from {rule.false_discovery_rate:g}, so that less is flagged"
