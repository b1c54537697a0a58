"""Go back from a released version to the one before it."""

from __future__ import annotations

from pipelines.core.errors import GateFailed, one_line
from pipelines.release import clock
from pipelines.release.history import ENDS
from pipelines.release.registry import champions, point
from pipelines.release.state import Held
from pipelines.release.steps.finalise import POLL_S
from pipelines.release.steps.rollback import WHY_CHARACTERS, with_held
from pipelines.release.world import Change, Seen, Wait, declared, history_of, is_placed, next_on_grid


def begin(seen: Seen, why: str) -> Change:
    """Return the commit that makes the version before stable again.

    Raises:
        GateFailed: The last thing that happened was a rollback, or there is nothing to go back to.
    """
    old, last = seen.state, seen.history.last_action if seen.history else ""
    if last in ENDS and last != "released":
        gone = seen.told.tag
        rest = f"{old.stable.tag} serves all traffic" if old.stable else "nothing is released"
        raise GateFailed(
            f"{gone} was rolled back already, and {rest}; a rollback is not rolled back, release a new version"
        )
    if old.stable is None:
        raise GateFailed("nothing is released, so nothing can be rolled back")
    if not old.earlier:
        raise GateFailed(f"{old.stable.tag} is the first release: there is nothing to go back to")
    bad, stable = old.stable, old.earlier[0]
    history = history_of(seen.world, seen.tip, bad.rollout_id) or seen.told
    attempt = max((event.attempt for event in history.events), default=1)
    why, now = one_line(why, WHY_CHARACTERS), clock.written(seen.now)
    held = Held(content_digest=bad.content_digest, tag=bad.tag, rollout_id=bad.rollout_id, why=why, at=now)
    state = old.changed(
        stable=stable, earlier=old.earlier[1:], rollout_id=bad.rollout_id, attempt=attempt, step="restore",
        weight=0.0, since=now, held=with_held(old.held, held),
    )  # fmt: skip
    event = seen.event("rollback", f"Roll back {bad.tag} to {stable.tag}: {why}", attempt=attempt, step="restore")
    return Change(state, event, history, declared(seen.world, seen.world.environment, lambda: seen.manifest(stable)))


def run(seen: Seen) -> Change | Wait:
    """Return the last commit of the way back, or when to ask again whether the old version is ready."""
    world, stable = seen.world, seen.state.stable
    assert stable is not None, "the step is only entered with a version to go back to"
    if not is_placed(seen, world.environment, "stable", stable):
        return Wait(next_on_grid(seen.state.since, seen.now, POLL_S), f"{stable.tag} to be ready again")
    if world.target.weight() != 0.0:
        world.target.set_weight(0.0)
    if world.target.deployed(world.environment, "candidate"):
        world.target.remove(world.environment, "candidate")
    point(world.registry, champions(seen.state))
    state = seen.state.changed(step="idle", since=clock.written(seen.now))
    said = f"Finish the rollback of {seen.told.tag}: {stable.tag} serves all traffic"
    return Change(state, seen.event("restored", said, weight=0.0), seen.told)
