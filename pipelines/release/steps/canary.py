"""Watch a candidate with a share of traffic: judge what both sides counted, and go on, back, or wait."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from pipelines.core.errors import one_line
from pipelines.release import clock, showing
from pipelines.release.deciding import Situation, decide
from pipelines.release.plan import Plan, Stage
from pipelines.release.state import Pause, Release
from pipelines.release.steps import deploy, finalise, rollback
from pipelines.release.targets import CountersUnavailable, InForce, Slot
from pipelines.release.world import Change, Seen, Wait, is_current, is_placed

REASON_CHARACTERS = 160


class Measured(NamedTuple):
    """What one look saw: the counters (None where they cannot be read), the verdict, and its reason."""

    counters: dict[str, Any] | None
    verdict: dict[str, Any]
    why: str


def run(seen: Seen) -> Change | Wait:
    """Return what becomes of the canary stage that runs."""
    plan = seen.plan()
    return watch(seen, plan, plan.stages[seen.state.stage], seen.state.stage + 1)


def ab_test(seen: Seen) -> Change | Wait:
    """Return what becomes of the A/B test."""
    plan = seen.plan()
    assert plan.ab_test is not None, "the step is only entered where the plan declares one"
    return watch(seen, plan, plan.ab_test, 0)


def watch(seen: Seen, plan: Plan, stage: Stage, following: int) -> Change | Wait:
    """Judge the counters first, so that a candidate that failed gets no traffic again; then keep up what Git declares.

    Args:
        seen: What was read.
        plan: The plan of the release.
        stage: The stage that runs.
        following: Index of the canary stage after it; the end of the ladder is past the last.
    """
    measured = _measure(seen, plan, stage)
    name = str(measured.verdict["name"])
    showing.judged(seen, plan, stage, measured.counters, measured.verdict)
    situation = _situation(seen, plan, stage, name)
    decided = decide(name, situation)
    told = {
        "stage": _told_of(seen, stage), "counters": measured.counters, "verdict": measured.verdict,
        "situation": situation._asdict(),
    }  # fmt: skip
    why = one_line(measured.why, REASON_CHARACTERS)
    if decided.action == "rollback":
        return rollback.begin(
            seen, ": ".join(filter(None, (decided.why, why))) or "a gate failed", at=stage.name, told=told
        )
    if decided.action == "advance":
        if following < len(plan.stages):
            return deploy.start(seen, plan.stages[following], following, plan, why or f"{stage.name} advanced", told)
        return finalise.begin(seen, why or f"{stage.name} advanced", told)
    if decided.action == "hold":
        return _held(seen, stage, decided.why, told)
    if (name == "unknown") != bool(seen.state.blind_since):
        return _blinded(seen, stage, why, told)
    if name == "unknown" and _is_lost(seen, plan):
        return _taken_up(seen, stage, told)
    _keep_up(seen, plan, stage)
    return Wait(clock.next_on_grid(seen.state.since, seen.now, plan.look_every_s), f"{name} at {stage.name}: {why}")


def _measure(seen: Seen, plan: Plan, stage: Stage) -> Measured:
    """Judge what was counted. What would only let the candidate go on does not count while it does not serve."""
    world, state = seen.world, seen.state
    since = clock.read(seen.told.traffic_since(state.attempt))
    try:
        counters = json.loads(json.dumps(dict(world.target.counters(seen.rollout, since))))
    except CountersUnavailable as error:
        if world.target.split().rollout == seen.rollout:
            return Measured(None, *_unknown(str(error)))
        counters = {}  # the splitter was not told of this rollout yet, so there is nothing that could be missing
    before = seen.told.counters_before(state.attempt)
    found = plan.judge.judge(counters, {**_told_of(seen, stage), "before": before})
    verdict = {**json.loads(json.dumps(found.as_json())), "name": found.name}
    if found.name not in ("rollback", "invalid") and not _serves(seen):
        return Measured(None, *_unknown(f"{seen.candidate.tag} is not ready"))
    reasons = verdict.get("reasons")
    why = reasons[0] if isinstance(reasons, list | tuple) and reasons else verdict.get("reason", "")
    return Measured(counters, verdict, str(why))


def _unknown(why: str) -> tuple[dict[str, Any], str]:
    return {"name": "unknown", "reasons": [why]}, why


def _serves(seen: Seen) -> bool:
    """Tell whether both sides run what Git names, and are ready."""
    target, environment, state = seen.world.target, seen.world.environment, seen.state
    sides: tuple[tuple[Slot, Release | None], ...] = (("stable", state.stable), ("candidate", state.candidate))
    return all(
        release is not None
        and target.deployed(environment, slot) == release.manifest
        and target.is_ready(environment, slot)
        for slot, release in sides
    )


def _situation(seen: Seen, plan: Plan, stage: Stage, name: str) -> Situation:
    state = seen.state
    return Situation(
        0.0 if _is_renewed(seen, stage, name) else seen.elapsed_s, _blind_s(seen, plan), plan.look_every_s,
        stage.max_duration_s, plan.max_unknown_s, stage.on_insufficient or plan.on_insufficient,
        state.pause is not None, name != "advance" or seen.world.target.split()[:3] == _wanted(seen, stage)[:3],
    )  # fmt: skip


def _is_renewed(seen: Seen, stage: Stage, name: str) -> bool:
    """Tell whether a stage gets its time anew: it ran out while nothing served, as on a machine that was off."""
    return bool(seen.state.blind_since) and name != "unknown" and seen.elapsed_s >= stage.max_duration_s


def _wanted(seen: Seen, stage: Stage) -> InForce:
    """Return what the splitter is to go by; while somebody holds the rollout, the stage's clock stands."""
    since = 0.0 if seen.state.pause else clock.read(seen.state.since)
    return InForce(seen.state.weight, seen.rollout, stage.key(seen.state.stage), since)


def _told_of(seen: Seen, stage: Stage) -> dict[str, Any]:
    """Return the stage as judge and history know it, with its place among the canary stages."""
    return {**stage.as_json(), "index": seen.state.stage}


def _blind_s(seen: Seen, plan: Plan) -> float:
    """Return for how long nothing could be measured though a run was at it, seconds."""
    since = seen.state.blind_since
    return max(0.0, seen.now - clock.read(since)) if since and not _is_lost(seen, plan) else 0.0


def _is_lost(seen: Seen, plan: Plan) -> bool:
    """Tell whether the target does not even have the candidate, though it was told to a look or more ago.

    The run that told it is dead, and no user meets the candidate: blindness counts from when it is deployed again.
    """
    since, world = seen.state.blind_since, seen.world
    is_old = bool(since) and seen.now - clock.read(since) >= plan.look_every_s
    return is_old and world.target.deployed(world.environment, "candidate") != seen.candidate.manifest


def _keep_up(seen: Seen, plan: Plan, stage: Stage) -> None:
    """Make the target what Git declares. A rebuilt one starts on stable: no traffic before both sides are ready."""
    target, environment, state = seen.world.target, seen.world.environment, seen.state
    if not _serves(seen) and target.weight() != 0.0:
        target.set_weight(0.0)
    is_up = state.stable is not None and is_placed(seen, environment, "stable", state.stable)
    wanted = _wanted(seen, stage)
    is_up = is_placed(seen, environment, "candidate", seen.candidate) and is_up
    if is_up and target.split() != wanted and is_current(seen):
        target.set_weight(wanted.share, plan.terms(wanted.rollout, wanted.stage, wanted.since))


def _blinded(seen: Seen, stage: Stage, why: str, told: dict[str, Any]) -> Change:
    tag = seen.candidate.tag
    if seen.state.blind_since:
        since = seen.state.since
        if _is_renewed(seen, stage, "known"):
            since = seen.state.pause.at if seen.state.pause else clock.written(seen.now)
        state = seen.state.changed(blind_since="", since=since)
        return Change(state, seen.event("known", f"Measure {tag} at {stage.name} again", **told), seen.told)
    state = seen.state.changed(blind_since=clock.written(seen.now))
    return Change(state, seen.event("unknown", f"Keep {tag} at {stage.name} unmeasured: {why}", **told), seen.told)


def _taken_up(seen: Seen, stage: Stage, told: dict[str, Any]) -> Change:
    state = seen.state.changed(blind_since=clock.written(seen.now))
    said = f"Take {seen.candidate.tag} at {stage.name} up again: nothing of it was running"
    return Change(state, seen.event("unknown", said, **told), seen.told)


def _held(seen: Seen, stage: Stage, why: str, told: dict[str, Any]) -> Change:
    state = seen.state.changed(pause=Pause(by=seen.world.by, at=clock.written(seen.now), why=why))
    said = f"Hold {seen.candidate.tag} at {stage.name}: {why}"
    return Change(state, seen.event("hold", said, **told), seen.told)
