"""Go back from a released version to the one before it."""

from __future__ import annotations

from pipelines.core.errors import ConfigError, GateFailed, GatehouseError, one_line
from pipelines.release import clock
from pipelines.release.history import ENDS
from pipelines.release.plan import Plan
from pipelines.release.registry import champions, point
from pipelines.release.state import EARLIER, Held, Release, State
from pipelines.release.steps.finalise import POLL_S
from pipelines.release.steps.rollback import WHY_CHARACTERS, with_held
from pipelines.release.targets import withdraw
from pipelines.release.world import Change, Seen, Wait, declared, history_of, is_placed, plan_at

WAYS = "--tag, TAG= of make, tag of rollback.yml"


def begin(seen: Seen, why: str, *, is_named: bool = False) -> Change:
    """Return the commit that makes the version before stable again.

    Args:
        seen: What was read.
        why: The reason, for people.
        is_named: They named the version that serves, so it is meant even after a rollback.

    Raises:
        GateFailed: The last thing that happened was a rollback, or there is nothing to go back to.
    """
    old = seen.state
    events = seen.history.of_attempt(old.attempt) if seen.history else []
    # A hold, or its end, may have been told since.
    last = next((event.action for event in reversed(events) if event.action in ENDS), "")
    if last not in ("", "released") and not is_named:
        gone = seen.told.tag
        rest = f"{old.stable.tag} serves all traffic" if old.stable else "nothing is released"
        also = f", or name {old.stable.tag} to take it back as well ({WAYS})" if old.stable and old.earlier else ""
        raise GateFailed(
            f"{gone} was rolled back already, and {rest}; a rollback is not rolled back: release a new version{also}"
        )
    if old.stable is None:
        raise GateFailed("nothing is released, so nothing can be rolled back")
    held_before = {one.content_digest for one in old.held}
    at = next((at for at, one in enumerate(old.earlier) if one.content_digest not in held_before), None)
    if at is None:
        what = (
            "has nothing before it that is not held"
            if old.held
            else "is the first release: there is nothing to go back to"
        )
        raise GateFailed(f"{old.stable.tag} {what}")
    bad, stable = old.stable, old.earlier[at]
    history = history_of(seen.world, seen.tip, bad.rollout_id) or seen.told
    attempt = max((event.attempt for event in history.events), default=1)
    why, now = one_line(why, WHY_CHARACTERS), clock.written(seen.now)
    held = Held(content_digest=bad.content_digest, tag=bad.tag, rollout_id=bad.rollout_id, why=why, at=now)
    state = old.changed(
        stable=stable, leaving=bad, earlier=old.earlier[at + 1 :], rollout_id=bad.rollout_id, attempt=attempt,
        step="restore", weight=0.0, since=now, held=with_held(old.held, held),
    )  # fmt: skip
    event = seen.event("rollback", f"Roll back {bad.tag} to {stable.tag}: {why}", attempt=attempt, step="restore")
    return Change(state, event, history, declared(seen.world, seen.world.environment, lambda: seen.manifest(stable)))


def run(seen: Seen) -> Change | Wait:
    """Return the last commit of the way back, or when to ask again whether the old version is ready.

    When its time is over that is told, once; it is tried on, and from then on a newer release may begin instead.
    """
    world, stable = seen.world, seen.state.stable
    assert stable is not None, "the step is only entered with a version to go back to"
    try:
        is_ready, problem = is_placed(seen, world.environment, "stable", stable), ""
    except GatehouseError as error:  # such as a model whose files are gone
        is_ready, problem = False, f" ({one_line(str(error), WHY_CHARACTERS)})"
    if not is_ready:
        if not is_late(seen) and _waited_s(seen) >= _ready_within_s(seen, stable):
            return _late(seen, stable, problem)
        instead = ", or a newer release" if is_late(seen) else ""
        until = clock.next_on_grid(seen.state.since, seen.now, POLL_S)
        return Wait(until, f"{stable.tag} to be ready again{problem}{instead}")
    withdraw(world.target, world.environment)
    point(world.registry, champions(seen.state))
    state = seen.state.changed(step="idle", leaving=None, since=clock.written(seen.now))
    said = f"Finish the rollback of {seen.told.tag}: {stable.tag} serves all traffic"
    return Change(state, seen.event("restored", said, weight=0.0), seen.told)


def is_late(seen: Seen) -> bool:
    """Tell whether the way back was told to take too long."""
    if seen.state.step != "restore" or seen.state.leaving is None:
        return False
    actions = [event.action for event in seen.told.of_attempt(seen.state.attempt)]
    return "late" in actions[max((at for at, action in enumerate(actions) if action == "rollback"), default=0) :]


def given_up(state: State) -> State:
    """Return the state of a way back that nobody waits for any more: what was to be left serves, so it is stable."""
    earlier = tuple(one for one in (state.stable, *state.earlier) if one is not None)
    return state.changed(stable=state.leaving, earlier=earlier[:EARLIER], leaving=None, step="idle")


def _late(seen: Seen, stable: Release, problem: str) -> Change:
    still = f"{seen.told.tag} still serves; a newer release may begin instead"
    time_s = _ready_within_s(seen, stable)
    said = f"Keep trying to bring {stable.tag} back: not ready within {time_s:.0f} s{problem}; {still}"
    return Change(seen.state, seen.event("late", said, weight=0.0), seen.told)


def _waited_s(seen: Seen) -> float:
    """Return the seconds since the way back began; nothing holds it, so no pause counts."""
    return seen.now - clock.read(seen.state.since)


def _ready_within_s(seen: Seen, stable: Release) -> float:
    """Return how long a deployment may take, as the version to come back declares it."""
    try:
        return plan_at(seen.world, stable.commit, "").ready_within_s
    except ConfigError:
        return Plan.ready_within_s
