"""Who judges a rollout by `gates.yaml`: the canary's verdict, and before it the A/B test's; and the plan of both."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from pipelines.core.declared import check
from pipelines.core.errors import ConfigError
from pipelines.core.gates import Gates
from pipelines.core.rollout import AbRun, AbTest, RateRule, RatingRule, Rollout, Target
from pipelines.core.source import Source, parse
from pipelines.release import abtest, canary, tallies
from pipelines.release.canary import AB_TEST, plain
from pipelines.release.plan import Plan, Stage
from pipelines.release.sample_ratio import Split

POLL_S = 5.0


class Judged(NamedTuple):
    """A verdict as the state machine and its history take it.

    Attributes:
        name: advance, rollback, hold or invalid.
        told: Everything that led to it, as plain values.
    """

    name: str
    told: dict[str, Any]

    def as_json(self) -> dict[str, Any]:
        """Return everything that led to it."""
        return self.told


@dataclass(frozen=True)
class RolloutJudge:
    """Judges what was counted; the same for every target, and with the standard library alone.

    Attributes:
        rollout: Canary stages, gates and levels.
        test: The A/B test, where one is declared.
        run: How the target runs it, where it does.
    """

    rollout: Rollout
    test: AbTest | None = None
    run: AbRun | None = None

    def judge(self, counters: Mapping[str, Any], stage: Mapping[str, Any]) -> Judged:
        """Return the verdict; a candidate that harms is taken back in any stage, the A/B test among them.

        Args:
            counters: As `tallies.read` takes them.
            stage: `kind`, and for a canary stage its `index`.

        Raises:
            ConfigError: There is no such stage.
        """
        kind, index = stage.get("kind"), stage.get("index")
        is_test = kind == AB_TEST and self.test is not None and self.run is not None
        is_canary = kind == "canary" and isinstance(index, int) and 0 <= index < len(self.rollout.stages)
        if not (is_test or is_canary):
            raise ConfigError(f"gates.yaml: declares no stage of kind {kind!r} and index {index!r}")
        try:
            tally = tallies.read(counters)
        except ConfigError as error:
            return self._told(canary.Verdict("invalid", (str(error),)))
        found = canary.verdict(tally.canary, None if is_test else index, self.rollout)
        if is_canary or found.verdict in ("rollback", "invalid"):
            return self._told(found)
        return self._tested(found, tally)

    def _tested(self, harmless: canary.Verdict, tally: tallies.Tally) -> Judged:
        """Judge the A/B test of a candidate that no gate finds harmful."""
        assert self.test is not None, "the caller looked"
        assert self.run is not None, "the caller looked"
        users = Split(*tally.admitted, self.run.weight / 100)
        found = abtest.verdict(tally.outcomes, users, self.test, self.run)
        more = {
            "reasons": list(found.reasons),
            "comparisons": [plain(one) for one in found.comparisons],
            "sample_ratio_p": plain(found)["sample_ratio_p"],
        }
        return Judged(found.verdict, {**self._told(harmless).told, **more})

    def _told(self, found: canary.Verdict) -> Judged:
        told = {name: value for name, value in found.as_json().items() if name != "verdict"}
        return Judged(found.verdict, {**told, "alpha": self.rollout.alpha})


def plan_of(target: Target) -> Callable[[bytes], Plan]:
    """Return what makes a target's plan of the bytes of a `gates.yaml`.

    The plan raises ConfigError, as `scripts.check` words it, where the file is wrong or declares no such rollout.
    """
    return partial(_plan, target)


def _plan(target: Target, data: bytes) -> Plan:
    gates, source = _declared(data)
    rollout = gates.canary.rollout(target) if gates.canary else None
    if rollout is None:
        key = ("canary",) if gates.canary else ()
        raise ConfigError(str(source.problem(key, f"no rollout is declared for '{target}'; write canary.{target}")))
    run = gates.ab_test.run(target) if gates.ab_test else None
    test = gates.ab_test if run else None
    more: dict[str, Any] = {"unit": run.unit, "window_s": run.window_s} if run else {}
    return Plan(
        gates_sha256=hashlib.sha256(data).hexdigest(),
        stages=tuple(
            Stage(
                f"{one.weight:g} %",
                one.weight / 100,
                one.max_duration_s,
                _rules(one.require, one.min_requests, rollout),
            )
            for one in rollout.stages
        ),
        judge=RolloutJudge(rollout, test, run),
        ab_test=_test_stage(run, rollout) if run else None,
        look_every_s=rollout.look_every_s,
        max_unknown_s=rollout.max_unknown_s,
        ready_within_s=rollout.ready_within_s,
        poll_every_s=min(POLL_S, rollout.look_every_s),
        on_insufficient=rollout.on_insufficient,
        max_requests_per_user=rollout.max_requests_per_user,
        rollout=rollout,
        test=test,
        run=run,
        **more,
    )


def _declared(data: bytes) -> tuple[Gates, Source]:
    from pipelines.release import declaration  # reads serving.yaml's model too, which a verdict does not need

    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "gates.yaml"
        copy.write_bytes(data)
        source = parse(copy, "gates.yaml")
    gates, problems = check(source, Gates)
    if gates is not None and not problems:
        problems = declaration.unreachable(gates, source)
    if gates is None or problems:
        more = f" (and {len(problems) - 1} more; run `python -m scripts.check`)" if len(problems) > 1 else ""
        raise ConfigError(f"{problems[0]}{more}")
    return gates, source


def _test_stage(run: AbRun, rollout: Rollout) -> Stage:
    rules = {**run.model_dump(include={"min_per_arm", "n_opt", "unit", "window_s"}), "gates": _limits(rollout)}
    return Stage("A/B test", run.weight / 100, run.max_duration_s, rules, AB_TEST, run.on_insufficient)


def _rules(require: str, min_requests: int, rollout: Rollout) -> dict[str, Any]:
    return {"require": require, "min_requests": min_requests, "gates": _limits(rollout)}


def _limits(rollout: Rollout) -> dict[str, float | None]:
    """Return the ceiling or floor of each gate, as declared."""
    return {
        name: rule.floor if isinstance(rule, RatingRule) else rule.ceiling
        for name, rule in rollout.gates.rules().items()
        if not isinstance(rule, RateRule) or rule.ceiling is not None
    }
