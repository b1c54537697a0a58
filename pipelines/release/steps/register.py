"""Register a release as one version of the model registry, and send it to staging."""

from __future__ import annotations

from pipelines.release import clock
from pipelines.release.registry import CHALLENGER, champions, point, registered
from pipelines.release.state import State, release_path
from pipelines.release.world import Change, Seen, declared


def run(seen: Seen) -> Change:
    """Return the commit that names the version; the registry has it by then.

    Raises:
        ServiceError: The registry cannot be reached.
    """
    world, candidate = seen.world, seen.candidate
    manifest = seen.manifest(candidate)
    version = registered(world.registry, candidate.rollout_id, manifest)
    point(world.registry, champions(seen.state) | {CHALLENGER: version})
    release = candidate.model_copy(update={"registry_version": version})
    now = clock.written(seen.now)
    state = seen.state.changed(candidate=release, step="staging", since=now)
    staging = State(stable=release, rollout_id=release.rollout_id, since=now, newest=release.version)
    said = f"Register {release.tag} as model version {version} and send it to {world.staging}"
    event = seen.event("done", said, observed={"registry_version": version})
    files = {release_path(world.staging): staging.as_file(), **declared(world, world.staging, lambda: manifest)}
    return Change(state, event, seen.told, files)
