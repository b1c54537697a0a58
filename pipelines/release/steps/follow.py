"""Let what serves follow what changed around it: an environment's keys and limits are no release's."""

from __future__ import annotations

from contextlib import suppress

from pipelines.release.store import Overtaken
from pipelines.release.world import Seen, declared


def follow(seen: Seen) -> None:
    """Deploy stable again and declare it, where its declaration in Git is not what it would be today.

    Args:
        seen: What was read, with nothing on its way.

    Raises:
        ServiceError: Target or remote cannot be reached; the next look does it.
    """
    world, stable = seen.world, seen.state.stable
    assert stable is not None, "only asked where something is released"
    files = declared(world, world.environment, lambda: seen.manifest(stable))
    if not files or world.store.read_each(seen.tip, *files) == list(files.values()):
        return
    world.target.deploy(world.environment, "stable", seen.manifest(stable))
    subject = f"Declare {stable.tag} in {world.environment} with what has changed around it"
    with suppress(Overtaken):  # the next look writes it
        world.store.write(seen.tip, files, subject)
        world.say(subject)
