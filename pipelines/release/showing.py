"""Tell whoever watches where a running release is, after each look and each change; nothing here can stop it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipelines.core.errors import GatehouseError
from pipelines.release import clock, forecast_text
from pipelines.release.history import ENDS
from pipelines.release.looks import Look, Progress, Rung, Told, told
from pipelines.release.plan import Plan, Stage
from pipelines.release.state import Release, State
from pipelines.release.world import Change, Seen

BEFORE_STAGES = ("staging", "smoke", "deploy")


def judged(
    seen: Seen, plan: Plan, stage: Stage, counters: Mapping[str, Any] | None, verdict: Mapping[str, Any]
) -> None:
    """Show what a look at a stage's counters said."""
    if seen.world.show is None:
        return
    found = _look(seen, seen.state, plan, seen.state.step, told(verdict, counters, stage.as_json()))
    seen.world.show(found._replace(stage=stage.name, most_s=stage.max_duration_s))


def began(seen: Seen) -> None:
    """Tell what a rollout will ask for, before anything of it is touched; a first release asks for no traffic."""
    plan = _plan(seen) if seen.state.candidate and seen.state.stable else None
    if plan is not None and plan.rollout is not None:
        for line in forecast_text.lines(plan.rollout, plan.test, plan.run):
            seen.world.say(line)


def waiting(seen: Seen, why: str) -> None:
    """Show what a step waits for, and what the target says it is doing meanwhile."""
    show = seen.world.show
    if show is None or seen.state.candidate is None:
        return
    plan = _plan(seen)
    if plan is not None:
        said = str(getattr(seen.world.target, "doing", ""))  # a target need not say anything
        doing = f" ({said})" if said else ""
        most_s = plan.ready_within_s if seen.state.step in BEFORE_STAGES else None
        show(_look(seen, seen.state, plan, seen.state.step)._replace(waiting=f"{why}{doing}", most_s=most_s))


def moved(seen: Seen, change: Change) -> None:
    """Show where a release is after a change that was written."""
    show = seen.world.show
    if show is None or seen.state.candidate is None:
        return
    plan = _plan(seen)
    if plan is not None:
        show(_look(seen, change.state, plan, change.event.step, ended=change.event.action)._replace(elapsed_s=0.0))


def _plan(seen: Seen) -> Plan | None:
    """Return the plan, or nothing where it cannot be read: what is shown never stops a release."""
    try:
        return seen.plan()
    except GatehouseError:
        return None


def _look(seen: Seen, state: State, plan: Plan, step: str, told: Told | None = None, ended: str = "") -> Look:
    before = _before(state, seen.candidate)
    ladder = _ladder(plan, is_first=before is None)
    events = seen.history.of_attempt(state.attempt) if seen.history else []
    is_back = "rollback" in (state.step, ended) or ended == "rolled_back"
    if is_back:
        step = next((event.step for event in reversed(events) if event.action == "rollback"), step)
    place = _place(ladder, step if is_back or ended in ENDS else state.step, state.stage, plan)
    if ended == "released":
        place = len(ladder)
    return Look(
        tag=seen.candidate.tag,
        instead=before.tag if before else "",
        rungs=tuple(Rung(name, _progress(at, place, is_back)) for at, name in enumerate(ladder)),
        stage=ladder[place] if 0 <= place < len(ladder) else state.step,
        weight=1.0 if ended == "released" else state.weight,
        told=told,
        total_s=max(0.0, seen.now - clock.read(events[0].at)) if events else 0.0,
        elapsed_s=seen.elapsed_s,
        blind_s=max(0.0, seen.now - clock.read(state.blind_since)) if state.blind_since else 0.0,
        held=f"{state.pause.by}: {state.pause.why}" if state.pause else "",
        end=_serves(state) if ended in ENDS else "",
    )


def _before(state: State, candidate: Release) -> Release | None:
    """Return the version that the candidate is to follow; at the end the candidate itself is already stable."""
    if state.stable is None or state.stable.rollout_id != candidate.rollout_id:
        return state.stable
    return state.earlier[0] if state.earlier else None


def _serves(state: State) -> str:
    return f"{state.stable.tag} serves all traffic" if state.stable else "nothing is released"


def _ladder(plan: Plan, *, is_first: bool) -> list[str]:
    """Return every step that people know by name; a first release meets no traffic that could be compared."""
    if is_first:
        return [*BEFORE_STAGES, "champion"]
    return [
        *BEFORE_STAGES,
        *([plan.ab_test.name] if plan.ab_test else []),
        *(one.name for one in plan.stages),
        "champion",
    ]


def _place(ladder: list[str], step: str, stage: int, plan: Plan) -> int:
    """Return which rung a step is; -1 before the first."""
    if step in BEFORE_STAGES:
        return BEFORE_STAGES.index(step)
    if step == "ab_test":
        return len(BEFORE_STAGES)
    if step == "canary":
        return min(len(BEFORE_STAGES) + bool(plan.ab_test) + stage, len(ladder) - 1)
    return len(ladder) - 1 if step == "finalise" else -1


def _progress(at: int, place: int, is_back: bool) -> Progress:
    if at == place:
        return "failed" if is_back else "now"
    return "done" if at < place else "next"
