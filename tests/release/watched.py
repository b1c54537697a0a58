"""Releases by the shipped gates with simulated traffic, and everything that was shown of them."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from pipelines.release import machine
from pipelines.release.history import History
from pipelines.release.judge import plan_of
from pipelines.release.looks import Look
from pipelines.release.manifest import Manifest
from pipelines.release.world import World, look
from tests.release.counting import CountingTarget
from tests.release.site import Site

ROOT = Path(__file__).parents[2]


class Watched(NamedTuple):
    """A release that is over: how it ended, what was said and shown, and what Git has of it."""

    outcome: machine.Outcome
    world: World
    said: list[str]
    shown: list[Look]
    history: History
    manifest: Manifest | None


def site_with_gates(folder: Path) -> Site:
    """A repository with the shipped gates whose first version is tagged."""
    site = Site.make(folder, has_remote=False)
    site.commit({"gates.yaml": (ROOT / "gates.yaml").read_text()}, "Declare the gates")
    site.tag("v1.0.0")
    return site


def watch(site: Site, tag: str, errors: float = 0.0) -> Watched:
    """Release a tag, of whose requests a share fails, and keep what people see."""
    said, shown = list[str](), list[Look]()
    site.script(errors=errors, per_second=2)
    world = site.world(target=CountingTarget(site.file), plan_of=plan_of("local"), say=said.append, show=shown.append)
    outcome = machine.release(world, tag)
    seen = look(world)
    assert seen.history is not None
    release = seen.state.stable if seen.state.stable and seen.state.stable.tag == tag else None
    return Watched(outcome, world, said, shown, seen.history, seen.manifest(release) if release else None)
