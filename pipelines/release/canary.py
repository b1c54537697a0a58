"""What to do with a candidate that serves some of the traffic: advance, rollback, hold, unknown or invalid.

One pure function of a few counters, asked by every target at every look. It may be asked as often as one likes: all
evidence is e-processes (evidence.py, ratings.py, sample_ratio.py), which stay valid at every look.
"""

from __future__ import annotations

import math
from typing import Any, Literal, NamedTuple

from pipelines.core.rollout import CanaryStage, Rollout
from pipelines.release import figures
from pipelines.release.checks import Check, check_all
from pipelines.release.counters import Counters
from pipelines.release.evidence import log_sum
from pipelines.release.sample_ratio import Split, p_value

Word = Literal["advance", "rollback", "hold", "invalid"]
AB_TEST: Literal["ab_test"] = "ab_test"
UNITS = {"ttft_p95_ms": "streams", "rating": "ratings"}


class Verdict(NamedTuple):
    """What to do, and why.

    Attributes:
        verdict: `advance` to the next stage; `rollback`; `hold`: go on as it is; `invalid`: the counters cannot be
            trusted, so neither advance nor believe a comparison. Time decides nothing here (deciding.py).
        reasons: One sentence each, the weightiest first.
        checks: Every limit and every comparison with stable.
        n_requests: Candidate requests in this stage.
        n_total: Candidate requests in the whole rollout.
        sample_ratio_p: p-value that users were split as declared, valid at every look.
        requests_to_decide: Further candidate requests until this stage is decided, if all goes on in the same shares.
    """

    verdict: Word
    reasons: tuple[str, ...]
    checks: tuple[Check, ...] = ()
    n_requests: float = 0
    n_total: float = 0
    sample_ratio_p: float = 1.0
    requests_to_decide: int | None = None

    def as_json(self) -> dict[str, Any]:
        """Return plain values; what is infinite is None."""
        return plain(self) | {"reasons": list(self.reasons), "checks": [plain(check) for check in self.checks]}


def verdict(counters: Counters, stage: int | None, rollout: Rollout) -> Verdict:
    """Decide about the stage that is in force.

    In this order: counters that cannot be true; harm; a split that is not the declared one; enough requests without
    harm, or proof, as the stage requires. The probability that a candidate which keeps every limit is ever rolled back
    for harm is at most alpha over all stages and looks, and so is the probability that one which misses a limit is ever
    taken for proven.

    Args:
        counters: Everything counted since the rollout began.
        stage: Index into the rollout's stages; None during the A/B test before them, which nothing here lets advance.
        rollout: Stages, gates and levels, as declared.
    """
    if problems := counters.problems():
        return Verdict("invalid", tuple(problems[:5]))
    try:
        checks = tuple(check_all(counters, rollout))
    except ValueError as error:
        return Verdict("invalid", (str(error),))
    splits = [Split(epoch.candidate.users, epoch.stable.users, epoch.weight / 100) for epoch in counters.epochs]
    # An A/B test comes before every other epoch, so whether there is one is known from the first look on.
    has_test = any(epoch.stage == AB_TEST for epoch in counters.epochs)
    p_split = p_value(splits, len(rollout.stages) + has_test)
    at = None if stage is None else rollout.stages[stage]
    here = counters.at(math.nan, AB_TEST) if at is None else counters.at(at.weight, f"canary-{(stage or 0) + 1}")
    n, n_total = here.candidate.requests, counters.candidate().requests
    word, reasons = _decide(checks, n, p_split, at, rollout)
    more = _requests_to_decide(checks, n, at) if word == "hold" and at is not None else None
    return Verdict(word, tuple(reasons), checks, n, n_total, p_split, more)


def _decide(
    checks: tuple[Check, ...], n: float, p_split: float, at: CanaryStage | None, rollout: Rollout
) -> tuple[Word, list[str]]:
    is_split_wrong = p_split <= rollout.sample_ratio_alpha
    split = f"users are not split as the weights say (p = {p_split:.2g}); comparisons with stable cannot be trusted"
    # A wrong split spoils the comparisons, not what the candidate's own requests show.
    believed = [check for check in checks if check.kind == "limit" or not is_split_wrong]
    if is_harmful([check.log_e_fail for check in believed], len(checks), rollout.alpha):
        worst = sorted(believed, key=lambda check: -check.log_e_fail)
        failed = [check for check in worst if check.status == "failed"]
        return "rollback", [describe(check) for check in failed] or [
            f"together: {describe(check)}" for check in worst[:3] if check.log_e_fail > 0
        ]
    if is_split_wrong:
        return "invalid", [split]
    if at is None:
        return "hold", []
    reasons = []
    if n < at.min_requests:
        reasons.append(f"{n:g} of {at.min_requests} requests in this stage")
    if at.require == "proven":
        reasons += [f"not yet proven: {describe(c)}" for c in checks if c.is_to_prove and c.status != "proven"]
    if reasons:
        return "hold", reasons
    what = "every limit is proven" if at.require == "proven" else "nothing speaks against it"
    return "advance", [f"{n:g} requests at {at.weight:g} %, and {what}"]


def is_harmful(log_e_values: list[float], n_checks: int, alpha: float) -> bool:
    """Tell whether all evidence of harm together reaches 1 / alpha.

    The mean of e-values is one, however they depend on each other (Vovk & Wang 2021). It reaches 1 / alpha wherever one
    of G reaches G / alpha (Bonferroni), and also where several nearly do.

    Args:
        log_e_values: Log e-values of the checks that count; the others count as 0.
        n_checks: G, all checks that there are.
        alpha: Most false rollbacks.
    """
    return bool(log_e_values) and log_sum(log_e_values) - math.log(n_checks) >= -math.log(alpha)


def _requests_to_decide(checks: tuple[Check, ...], n: float, at: CanaryStage) -> int | None:
    """Return the further requests that the slowest needed check asks for."""
    more = [max(0, math.ceil(at.min_requests - n))]
    for check in checks:
        if at.require == "proven" and check.is_to_prove and check.status == "open":
            if check.requests_to_decide is None:
                return None
            more.append(check.requests_to_decide)
    return max(more)


def describe(check: Check) -> str:
    """Say what was counted for a check, in which bounds, against what."""
    is_rate = check.kind == "limit" and check.gate != "rating"
    limit = f"{check.limit * 100:g} %" if is_rate else f"{check.limit:g}"
    if check.value is None:
        return f"{check.gate}: nothing counted yet, limit {limit}"
    span = figures.span(_shown(check, check.lower), _shown(check, check.upper))
    if check.kind == "ratio":
        seen = f"{check.value:.2f} times stable's rate ({span}; {check.events:g} of {check.n:g} events)"
        return f"{check.gate}: {seen}, limit {limit}"
    if check.gate == "rating":
        return f"rating: mean {check.value:.2f} ({span}) of {check.n:g} ratings, floor {limit}"
    what = f"{check.events:g} of {check.n:g} {UNITS.get(check.gate, 'requests')}"
    slow = " too slow" if check.gate.endswith("_ms") else ""
    return f"{check.gate}: {what}{slow}, {figures.percent(check.value)} ({span}), limit {limit}"


def _shown(check: Check, value: float) -> str:
    if check.kind == "ratio":
        return "any" if math.isinf(value) else f"{value:.2f}"
    return f"{value:.2f}" if check.gate == "rating" else figures.percent(value)


def plain(values: NamedTuple) -> dict[str, Any]:
    """Return a named tuple as plain values: nine digits of a number, which any machine agrees to; None if infinite."""
    return {name: _plain(value) for name, value in values._asdict().items()}


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.9g}") if math.isfinite(value) else None
    return value
