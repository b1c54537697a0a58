"""Make a candidate the champion: Git first, then the target and the registry follow."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipelines.release import clock
from pipelines.release.registry import champions, point
from pipelines.release.state import EARLIER
from pipelines.release.targets import withdraw
from pipelines.release.version import parse_tag
from pipelines.release.world import NOTHING, Change, Seen, Wait, declared, is_placed

POLL_S = 5.0


def begin(seen: Seen, why: str, told: Mapping[str, Any] = NOTHING) -> Change:
    """Return the commit that makes the candidate stable; a cluster that is rebuilt from here on starts on it."""
    old, candidate = seen.state, seen.candidate
    # A version that comes back after its rollback is not also its own predecessor; nobody goes back to what is held.
    held = {one.content_digest for one in old.held}
    known = [one for one in (old.stable, *old.earlier) if one is not None and one.tag != candidate.tag]
    before = [one for one in known if one.content_digest not in held]
    newest = max(parse_tag(f"v{version}") for version in (candidate.version, old.newest) if version)
    state = old.changed(
        stable=candidate,
        earlier=tuple(before[:EARLIER]),
        newest=str(newest),
        step="finalise",
        since=clock.written(seen.now),
        blind_since="",
        pause=None,
    )
    instead = f" instead of {old.stable.tag}" if old.stable else ""
    said = f"Make {candidate.tag} the champion{instead}: {why}"
    files = declared(seen.world, seen.world.environment, lambda: seen.manifest(candidate))
    return Change(state, seen.event("advance" if told else "done", said, **told), seen.told, files)


def run(seen: Seen) -> Change | Wait:
    """Return the last commit of a release, or when to ask again whether stable is ready.

    Users stay on the candidate's own processes until the stable ones, which now run the same, are ready.
    """
    world, candidate = seen.world, seen.candidate
    if not is_placed(seen, world.environment, "stable", candidate):
        return Wait(clock.next_on_grid(seen.state.since, seen.now, POLL_S), f"{candidate.tag} to be ready as stable")
    withdraw(world.target, world.environment)
    point(world.registry, champions(seen.state))
    state = seen.state.changed(candidate=None, step="idle", stage=0, weight=0.0, since=clock.written(seen.now))
    said = f"Finish the release of {candidate.tag}: it serves all traffic"
    observed = {"manifest": candidate.manifest, "registry_version": candidate.registry_version}
    return Change(state, seen.event("released", said, weight=0.0, observed=observed), seen.told)
