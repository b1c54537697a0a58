"""What to type next, on the target where a release is."""

from __future__ import annotations

from typing import NamedTuple

from pipelines.core.errors import one_line
from pipelines.release.targets import KNOWN
from pipelines.release.world import World


class Words(NamedTuple):
    """What to type, on this target."""

    release: str
    compare: str
    roll_back: str
    let_go: str
    go_on: str
    reconcile: str


def words_of(world: World) -> Words:
    """Return the commands that act on a world's target."""
    remote = "" if world.store.remote == "origin" else f" --remote {one_line(world.store.remote or 'none', 60)}"
    name = world.target.name
    where = remote if name == "local" else f" --target {name if name in KNOWN else '...'}{remote}"
    return Words(
        release="make release" if name == "local" else "python -m scripts.bump patch --push",
        compare=f"python -m scripts.compare {{}} {{}}{remote} shows what changed",
        roll_back="make rollback WHY=..." if name == "local" else f"python -m scripts.rollback{where} --why ...",
        let_go=f"python -m scripts.hold{where} --release={{}} --why ...",
        reconcile=f"python -m scripts.reconcile{where}",
        go_on=f"python -m scripts.hold{where} --release --why ...",
    )
