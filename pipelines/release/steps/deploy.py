"""Deploy a candidate beside the stable version, still without traffic, and give it the first share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipelines.release import clock
from pipelines.release.plan import Plan, Stage
from pipelines.release.steps import finalise, rollback
from pipelines.release.world import NOTHING, Change, Seen, Wait, is_placed


def run(seen: Seen) -> Change | Wait:
    """Return the commit that sends the first traffic, or when to ask again, or the way back."""
    world, candidate, plan = seen.world, seen.candidate, seen.plan()
    stable = seen.state.stable
    is_ready = (stable is None or is_placed(seen, world.environment, "stable", stable)) and is_placed(
        seen, world.environment, "candidate", candidate
    )
    if not is_ready:
        if seen.elapsed_s >= plan.ready_within_s:
            return rollback.begin(seen, f"it was not ready in {world.environment} within {plan.ready_within_s:.0f} s")
        until = clock.next_on_grid(seen.state.since, seen.now, plan.poll_every_s)
        return Wait(until, f"{candidate.tag} to be ready in {world.environment}")
    if stable is None:
        return finalise.begin(seen, "it is the first release, nothing serves that it could be compared with")
    first = plan.ab_test or plan.stages[0]
    return start(seen, first, 0, plan, f"it is ready beside {stable.tag}")


def start(seen: Seen, stage: Stage, index: int, plan: Plan, why: str, told: Mapping[str, Any] = NOTHING) -> Change:
    """Return the commit that begins a stage.

    Args:
        seen: What was read.
        stage: The stage that begins.
        index: Its place among the canary stages, from 0.
        plan: The plan it belongs to.
        why: What lets it begin.
        told: What else the event holds: the stage that ended, its counters and verdict.
    """
    tag = seen.candidate.tag
    share = f"{stage.weight * 100:g} % of traffic"
    if stage.kind == "ab_test":
        said = f"Start the A/B test of {tag} with {share}: {why}"
    else:
        said = f"Send {share} to {tag} (canary {index + 1} of {len(plan.stages)}): {why}"
    state = seen.state.changed(
        step=stage.kind, stage=index, weight=stage.weight, since=clock.written(seen.now), blind_since=""
    )
    return Change(state, seen.event("advance" if told else "start", said, weight=stage.weight, **told), seen.told)
