"""The release as a state machine: read Git, let the step that is due act, write what it says, and look again.

Nothing is kept between two looks but what Git holds, so a run that dies anywhere is taken up by the next one.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

from pipelines.core.errors import GateFailed, ServiceError
from pipelines.release import showing
from pipelines.release.endings import Outcome as Outcome
from pipelines.release.endings import ended, paused
from pipelines.release.registry import champions, point
from pipelines.release.state import BEFORE_TRAFFIC
from pipelines.release.steps import (
    back,
    bind,
    canary,
    deploy,
    finalise,
    hold,
    register,
    restore,
    rollback,
    staging,
    verify,
)
from pipelines.release.steps.follow import follow
from pipelines.release.store import Overtaken
from pipelines.release.targets import withdraw
from pipelines.release.world import Change, Seen, Wait, World, is_placed, look, write

ATTEMPTS = 12

STEPS: Mapping[str, Callable[[Seen], Change | Wait]] = {
    "manifest": bind.run,
    "register": register.run,
    "staging": staging.run,
    "smoke": staging.smoke,
    "deploy": deploy.run,
    "ab_test": canary.ab_test,
    "canary": canary.run,
    "finalise": finalise.run,
    "rollback": rollback.run,
    "restore": restore.run,
}
WATCHING = ("ab_test", "canary")
IN_PRODUCTION = ("deploy", *WATCHING, "finalise")
"""What a run that may only touch staging leaves to another one."""
UNSTOPPED = (*WATCHING, "finalise", "rollback", "restore")
"""What a pause does not stop: watching, for harm is harm, and what was decided before it."""


class Bounds(NamedTuple):
    """How far one run goes; the next one goes on from there.

    Attributes:
        once: Do what can be done now, and wait for nothing.
        deadline: Wait for nothing that comes later, seconds since 1970.
        is_staging_only: Stop where production would be touched.
        has_traffic_only: Leave a release that no user meets yet to another run, which may have to be approved.
    """

    once: bool = False
    deadline: float = math.inf
    is_staging_only: bool = False
    has_traffic_only: bool = False


ALL_THE_WAY = Bounds()


def release(world: World, tag: str, *, once: bool = False, bounds: Bounds = ALL_THE_WAY) -> Outcome:
    """Bring a tag to its end, from wherever it is.

    Args:
        world: Everything outside.
        tag: The tag.
        once: Do what can be done now, and wait for nothing.
        bounds: How far this run goes otherwise.

    Raises:
        ConfigError: The tag is none that could be released.
        GateFailed: It may not be released, or another is on its way.
        ServiceError: Something outside failed; the same command goes on.
    """
    is_new = _apply(world, lambda seen: verify.begin(seen, tag))
    seen = look(world)
    if is_new:
        showing.began(seen)
    if seen.state.step == "idle" and seen.state.stable is not None and seen.state.stable.tag == tag:
        if not bounds.is_staging_only:
            _keep_idle(seen)
        return Outcome("released", f"{tag}: already released; it serves all traffic")
    return _run(world, bounds._replace(once=once or bounds.once))


def reconcile(world: World, *, once: bool = False, bounds: Bounds = ALL_THE_WAY) -> Outcome:
    """Finish what a dead run could not, and let target and registry follow Git; arguments as for `release`.

    Raises:
        ServiceError: Something outside failed; the same command goes on.
    """
    seen = look(world)
    if seen.state.step != "idle":
        return _run(world, bounds._replace(once=once or bounds.once))
    if seen.state.stable is None:
        return Outcome("nothing", "nothing was ever released: there is nothing to reconcile")
    is_ready = _keep_idle(seen)
    rest = "serves all traffic" if is_ready else "is being deployed; run again to see it ready"
    return Outcome("nothing", f"nothing is on its way; {seen.state.stable.tag} {rest}")


def roll_back(world: World, why: str, tag: str = "", *, once: bool = False, bounds: Bounds = ALL_THE_WAY) -> Outcome:
    """Take back what is on its way, or else the last release, and say why; arguments as for `release`.

    After a rollback only a `tag` takes what serves back as well: whoever saw a bad candidate and was a moment later
    than the gates shall not hit the version that everybody was sent back to.

    Raises:
        GateFailed: There is nothing to take back, it was taken back already, or it is not `tag`.
        ServiceError: Something outside failed; the same command goes on.
    """
    _apply(world, lambda seen: back.begin(seen, why, tag))
    return _run(world, bounds._replace(once=once or bounds.once))


def roll_back_beside(world: World, why: str, owner: str, tag: str = "") -> Outcome:
    """Commit that what is on its way goes back, and leave it to the command that owns its processes to do so.

    Args:
        world: Everything outside.
        why: The reason, for people.
        owner: That command, which sees the commit at its next look.
        tag: What is meant, where it must be nothing else.

    Raises:
        GateFailed: Nothing is on its way yet, so that command would not see it.
        ServiceError: Git cannot be reached; the same command goes on.
    """

    def begin(seen: Seen) -> Change | None:
        if seen.state.step == "idle":
            raise GateFailed(f"{owner} has begun no release yet that could be taken back; wait, or end it with Ctrl-C")
        return back.begin(seen, why, tag)

    _apply(world, begin)
    return Outcome("waiting", f"{owner} sees it at its next look and goes back")


def hold_back(world: World, why: str) -> Outcome:
    """Stop what is on its way where it is, or every release to come.

    Raises:
        GateFailed: It cannot be held.
    """
    is_new = _apply(world, lambda seen: hold.hold(seen, why))
    return Outcome("nothing", "held" if is_new else "held already")


def let_go(world: World, why: str, tag: str = "") -> Outcome:
    """Take a hold away: the pause, or the one that a rollback put on a tag.

    Raises:
        ConfigError: Nothing of that name is held.
    """
    is_new = _apply(world, lambda seen: hold.release_hold(seen, tag, why))
    return Outcome("nothing", "let go" if is_new else "nothing is held")


def _run(world: World, bounds: Bounds) -> Outcome:
    told, lost = "", 0
    while True:
        seen = look(world)
        if seen.state.step == "idle":
            if not bounds.is_staging_only:  # this run may have acted on a look that was older than the end
                withdraw(world.target, world.environment)
            return ended(seen)
        if seen.state.pause and seen.state.step not in UNSTOPPED:
            return paused(seen)
        if bounds.is_staging_only and seen.state.step in IN_PRODUCTION:
            return Outcome("staged", f"{seen.candidate.tag} passed {world.staging}; {world.environment} is next")
        if bounds.has_traffic_only and seen.state.step in BEFORE_TRAFFIC:
            return Outcome("waiting", f"{seen.candidate.tag} has no traffic yet (step {seen.state.step}): left alone")
        found = STEPS[seen.state.step](seen)
        if isinstance(found, Change):
            lost = 0 if _written(seen, found) else lost + 1
            _back_off(world, lost)
            if not lost:
                showing.moved(seen, found)
        elif seen.state.pause and seen.state.step in WATCHING:
            return paused(seen)
        elif bounds.once or found.until > bounds.deadline:
            return Outcome("waiting", f"waiting: {found.why}")
        else:
            if seen.state.step not in WATCHING:
                showing.waiting(seen, found.why)
            if world.show is None and found.why != told:
                world.say(f"waiting: {found.why}")
                told = found.why
            world.clock.wait_until(found.until)


def _apply(world: World, begin: Callable[[Seen], Change | None]) -> bool:
    """Write one change that a person asked for, on whatever state it meets; tell whether there was one."""
    lost = 0
    while True:
        seen = look(world)
        change = begin(seen)
        if change is None:
            return False
        if _written(seen, change):
            return True
        lost += 1
        _back_off(world, lost)


def _written(seen: Seen, change: Change) -> bool:
    try:
        write(seen, change)
    except Overtaken:
        return False
    return True


def _back_off(world: World, lost: int) -> None:
    """Let others go first after a lost race, and give up after many."""
    if lost >= ATTEMPTS:
        raise ServiceError(f"branch {world.store.branch}: {lost} writes were overtaken by others; run again")
    if lost:
        time.sleep(random.uniform(0, 0.05 * 2 ** min(lost, 6)))  # noqa: S311 - spreads writers, guards nothing


def _keep_idle(seen: Seen) -> bool:
    """Let target and registry be what Git says of a release that is over; tell whether stable is ready."""
    world, stable = seen.world, seen.state.stable
    assert stable is not None, "only asked where something is released"
    follow(seen)
    is_ready = is_placed(seen, world.environment, "stable", stable)
    withdraw(world.target, world.environment)
    point(world.registry, champions(seen.state))
    return is_ready
