"""Release what this folder holds, on this machine: two model processes, a gateway, real requests, and Git's account."""

from __future__ import annotations

import argparse
import dataclasses
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.core.command import run

if TYPE_CHECKING:
    from pipelines.release.endings import Outcome
    from pipelines.release.world import World


def main() -> int:
    """Go on with what is on its way; else run the main job, record its decision, tag, and release."""
    parser = argparse.ArgumentParser(prog="python -m scripts.ship", description=__doc__)
    parser.add_argument(
        "--fault", default="none", help="what fails in the candidate: none, latency, errors, quality or crash"
    )
    arguments = parser.parse_args()
    os.environ["GATEHOUSE_FAULT"] = arguments.fault

    from pipelines.core.files import only_one
    from pipelines.release import afterwards

    with only_one("release"):
        world, outcome = ship(Path())
    return afterwards.finish(world, outcome)


def ship(root: Path) -> tuple[World, Outcome]:
    """Bring the release to its end."""
    from pipelines.core.errors import ConfigError
    from pipelines.release import commands, machine
    from pipelines.release.local.fault import KINDS
    from pipelines.release.steps import restore
    from pipelines.release.world import look
    from pipelines.review import shipping

    world = commands.open_world("local", "none", root)
    seen = look(world)
    if seen.state.step != "idle" and not restore.is_late(seen):
        if seen.state.candidate is not None:
            kinds: list[dict[str, str]] = [{} if kind == "none" else {"fault": kind} for kind in KINDS]
            images = shipping.images_of(seen, kinds)
            world.say(f"{seen.candidate.tag} is on its way (fault: {images.get('fault', 'none')}): going on")
            world = dataclasses.replace(world, images=images)
        return world, machine.reconcile(world)
    shipping.check_folder(root)
    if world.images and seen.state.stable is None:
        raise ConfigError("FAULT: nothing is released yet that a fault could be seen beside; `make release` first")
    if shipping.decided(world) is None:
        if subprocess.run([sys.executable, "-m", "scripts.run"], cwd=root, check=False).returncode:
            raise ConfigError("the main job does not let this be released; its message is above")
        shipping.record_decision(root)
    record = shipping.decided(world)
    if record is None:
        raise ConfigError("the main job's decision about this commit is no pass; evaluation/report.md says why")
    tag = shipping.tag(seen, record)
    if seen.state.stable is None:
        world.say(f"{tag} is the first release: nothing to compare it with; the next `make release` runs every stage")
    return world, machine.release(world, tag)


if __name__ == "__main__":
    run(main)
