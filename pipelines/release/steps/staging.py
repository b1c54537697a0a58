"""Try a candidate where no user is: deploy it to staging, and ask it a few fixed questions."""

from __future__ import annotations

from pipelines.release import clock
from pipelines.release.steps import rollback
from pipelines.release.targets import Comparing
from pipelines.release.world import Change, Seen, Wait, is_placed


def run(seen: Seen) -> Change | Wait:
    """Return the commit that says it runs in staging, or when to ask again, or the way back."""
    world, candidate, plan = seen.world, seen.candidate, seen.plan()
    if not _is_placed(seen):
        if seen.elapsed_s >= plan.ready_within_s:
            return rollback.begin(seen, f"it was not ready in {world.staging} within {plan.ready_within_s:.0f} s")
        until = clock.next_on_grid(seen.state.since, seen.now, plan.poll_every_s)
        return Wait(until, f"{candidate.tag} to be ready in {world.staging}")
    state = seen.state.changed(step="smoke", since=clock.written(seen.now))
    said = f"Deploy {candidate.tag} to {world.staging}"
    return Change(state, seen.event("done", said, observed={"manifest": candidate.manifest}), seen.told)


def smoke(seen: Seen) -> Change:
    """Return the commit that says the smoke tests pass, or the way back."""
    world, candidate = seen.world, seen.candidate
    if not _is_placed(seen):  # it was gone since
        return rollback.begin(seen, f"it stopped answering in {world.staging}")
    found = world.target.smoke(world.staging, "stable")
    if not found.passed:
        return rollback.begin(seen, f"smoke tests failed in {world.staging}: {found.said}")
    state = seen.state.changed(step="deploy", since=clock.written(seen.now))
    said = f"Pass the smoke tests of {candidate.tag} in {world.staging}: {found.said}"
    return Change(state, seen.event("done", said, observed={"smoke": found.said}), seen.told)


def _is_placed(seen: Seen) -> bool:
    world, stable = seen.world, seen.state.stable
    if stable is not None and isinstance(world.target, Comparing):
        world.target.compare_with(seen.manifest(stable))
    return is_placed(seen, world.staging, "stable", seen.candidate)
