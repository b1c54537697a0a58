"""What a rollout will ask for, as lines that are read before it begins: requests and time per stage, and per gate."""

from __future__ import annotations

from pipelines.core.rollout import AbRun, AbTest, LatencyRule, Rollout
from pipelines.release import figures
from pipelines.release.forecast import MOST_REQUESTS, Required, expected_stages, required_requests

Row = tuple[str, ...]
HEALTHY, BROKEN = 0.2, 3.0  # times the limit: what the table tells of


def lines(rollout: Rollout, test: AbTest | None = None, run: AbRun | None = None) -> list[str]:
    """Return what a healthy candidate will need, stage by stage, and how soon a broken one is taken back.

    Args:
        rollout: Stages and gates of the target.
        test: The A/B test before them, if there is one.
        run: How the target runs it.
    """
    per_minute = rollout.requests_per_minute
    rows: list[Row] = [("stage", "share", "candidate requests", "expected", "at most")]
    total = least_s = most_s = 0.0
    if test is not None and run is not None:
        needed, seconds = _ab_test(run, per_minute)
        rows.append(
            (
                "A/B test",
                f"{run.weight:g} %",
                f"at least {needed:,}",
                figures.duration(seconds),
                figures.duration(run.max_duration_s),
            )
        )
        total, least_s, most_s = needed, seconds, run.max_duration_s
    for stage in expected_stages(rollout, requests_per_minute=per_minute, health=HEALTHY, before=round(total)):
        expected = figures.duration(stage.minutes * 60)
        rows.append(
            (
                f"{stage.weight:g} %",
                f"{stage.weight:g} %",
                f"{stage.n_requests:,}",
                expected,
                figures.duration(stage.most_minutes * 60),
            )
        )
        total, least_s, most_s = (
            total + stage.n_requests,
            least_s + stage.minutes * 60,
            most_s + stage.most_minutes * 60,
        )
    rows.append(("all", "", f"{total:,.0f}", figures.duration(least_s), figures.duration(most_s)))
    head = f"expected of a healthy candidate at {per_minute:g} requests a minute, both sides together:"
    return [head, *_aligned(rows), *_gates(rollout)]


def _ab_test(run: AbRun, per_minute: float) -> tuple[int, float]:
    """Return the candidate's outcomes that a test needs at least, and the seconds until they are there."""
    smaller = min(run.weight, 100 - run.weight) / 100
    needed = round(run.min_per_arm * run.weight / 100 / smaller)
    return needed, run.min_per_arm / (per_minute / 60 * smaller) + min(run.window_s, run.max_duration_s)


def _gates(rollout: Rollout) -> list[str]:
    """Return how many requests each gate asks for: to be proven well below its limit, to fail well above."""
    found: dict[str, dict[float, Required]] = {}
    for one in required_requests(rollout):
        found.setdefault(one.gate, {})[round(one.rate / one.limit, 6)] = one
    rows: list[Row] = [("gate", "limit", "proven within", "rolled back within")]
    for gate, by_health in found.items():
        any_one = next(iter(by_health.values()))
        rule = rollout.gates.rules()[gate]
        slow = f" slower than {rule.ceiling / 1000:g} s" if isinstance(rule, LatencyRule) else ""
        cells = [_requests(by_health.get(health)) for health in (HEALTHY, BROKEN)]
        cells[0] = "not asked" if rule.prove == "none" else cells[0]
        rows.append((gate, f"{any_one.limit * 100:g} %{slow}", *cells))
    note = "half of the candidates are decided by then: at a fifth of the limit, and at three times it"
    return ["", *_aligned(rows), note]


def _requests(one: Required | None) -> str:
    if one is None:
        return figures.NOTHING
    return f"{one.course.median:,} requests" if one.course.median is not None else f"more than {MOST_REQUESTS:,}"


def _aligned(rows: list[Row]) -> list[str]:
    """Set rows as columns: the first flush left, the others flush right."""
    widths = [max(len(row[at]) for row in rows) for at in range(len(rows[0]))]
    return [
        "  "
        + "  ".join(
            f"{cell:<{size}}" if at == 0 else f"{cell:>{size}}"
            for at, (cell, size) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]
