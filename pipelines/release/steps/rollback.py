"""Take a candidate back: traffic first, then the commit with the evidence, then the rest."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipelines.core.errors import one_line
from pipelines.release import clock
from pipelines.release.registry import champions, point
from pipelines.release.state import Held
from pipelines.release.targets import withdraw
from pipelines.release.world import NOTHING, Change, Seen

WHY_CHARACTERS = 300


def begin(seen: Seen, why: str, at: str = "", told: Mapping[str, Any] = NOTHING) -> Change:
    """Take all traffic from the candidate, and return the commit that says why; its content is held from then on.

    Should Git be out of reach now, users are safe already, and the next run comes to the same verdict.

    Args:
        seen: What was read.
        why: The reason, for people.
        at: Name of the stage.
        told: The evidence: stage, counters, verdict, situation.
    """
    old, candidate = seen.state, seen.candidate
    if old.stable is not None and seen.world.target.weight() != 0.0:
        seen.world.target.set_weight(0.0)
    why = one_line(why, WHY_CHARACTERS)
    now = clock.written(seen.now)
    held = Held(
        content_digest=candidate.content_digest, tag=candidate.tag, rollout_id=candidate.rollout_id, why=why, at=now
    )
    state = old.changed(
        step="rollback", weight=0.0, since=now, blind_since="", pause=None, held=with_held(old.held, held)
    )
    said = f"Roll back {candidate.tag}{f' at {at}' if at else ''}: {why}"
    return Change(state, seen.event("rollback", said, weight=0.0, **told), seen.told)


def with_held(held: tuple[Held, ...], new: Held) -> tuple[Held, ...]:
    """Return what is held, the same content once."""
    return (*(one for one in held if one.content_digest != new.content_digest), new)


def run(seen: Seen) -> Change:
    """Return the last commit of a rollback: the candidate is gone, and no alias names it."""
    world, candidate = seen.world, seen.candidate
    withdraw(world.target, world.environment)
    point(world.registry, champions(seen.state))
    state = seen.state.changed(candidate=None, step="idle", stage=0, since=clock.written(seen.now))
    rest = f"{state.stable.tag} serves all traffic" if state.stable else "nothing is released"
    said = f"Finish the rollback of {candidate.tag}: {rest}"
    return Change(state, seen.event("rolled_back", said, weight=0.0), seen.told)
