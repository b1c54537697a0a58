"""Hold a rollout where it is, or every release, and let it go again."""

from __future__ import annotations

from pipelines.core.errors import ConfigError, GateFailed, one_line
from pipelines.release import clock
from pipelines.release.history import History
from pipelines.release.state import Pause
from pipelines.release.steps.rollback import WHY_CHARACTERS
from pipelines.release.world import Change, Seen, history_of


def hold(seen: Seen, why: str) -> Change | None:
    """Return the commit that holds what is on its way, or every release; None where it is held already.

    Raises:
        GateFailed: There is no release to tell it in, or a rollback is under way, which nobody holds.
    """
    state = seen.state
    if state.pause:
        return None
    if state.step in ("rollback", "restore"):
        raise GateFailed(f"{seen.told.tag} is being rolled back, which cannot be held")
    if seen.history is None:
        raise GateFailed("nothing was ever released here, so nothing can be held")
    why = one_line(why, WHY_CHARACTERS)
    after = state.changed(pause=Pause(by=seen.world.by, at=clock.written(seen.now), why=why))
    what = f"{state.candidate.tag} at {state.weight * 100:g} % of traffic" if state.candidate else "every release"
    return Change(after, seen.event("hold", f"Hold {what}: {why}"), seen.history)


def release_hold(seen: Seen, tag: str, why: str) -> Change | None:
    """Return the commit that lets go what is held; None where nothing is.

    Args:
        seen: What was read.
        tag: What was rolled back and may come again; empty for what a person (or a stage without verdict) holds.
        why: The reason, for people.

    Raises:
        ConfigError: Nothing of that name is held.
    """
    why = one_line(why, WHY_CHARACTERS)
    return _lift(seen, tag, why) if tag else _resume(seen, why)


def _resume(seen: Seen, why: str) -> Change | None:
    state = seen.state
    if state.pause is None:
        return None
    # The pause does not count; a stage that ran out of time gets its time anew.
    is_over = seen.told.last_action == "hold" and seen.told.events[-1].verdict is not None
    since = seen.now if is_over else clock.read(state.since) + seen.now - clock.read(state.pause.at)
    after = state.changed(pause=None, since=clock.written(since))
    what = state.candidate.tag if state.candidate else "releases"
    return Change(after, seen.event("resume", f"Let {what} go on: {why}"), seen.told)


def _lift(seen: Seen, tag: str, why: str) -> Change:
    state = seen.state
    held = [one for one in state.held if one.tag == tag]
    if not held:
        names = ", ".join(one.tag for one in state.held) or "nothing is"
        raise ConfigError(f"{one_line(tag, 60)}: is not held (held: {names})")
    after = state.changed(held=tuple(one for one in state.held if one.tag != tag))
    history: History | None = history_of(seen.world, seen.tip, held[-1].rollout_id)
    attempt = max((event.attempt for event in history.events), default=1) if history else state.attempt
    event = seen.event("lift", f"Let {tag} be released again: {why}", attempt=attempt, step="idle", weight=0.0)
    return Change(after, event, history or seen.told)
