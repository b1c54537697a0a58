"""Take back what is on its way to production, or else the last release, and write down why."""

from __future__ import annotations

import argparse

from pipelines.core.command import run


def main() -> int:
    """Roll back; the same command goes on where a dead one stopped."""
    parser = argparse.ArgumentParser(prog="python -m scripts.rollback", description=__doc__)
    parser.add_argument("--why", required=True, help="the reason, one sentence; it becomes the commit's")
    parser.add_argument(
        "--tag",
        default="",
        help="a version: nothing else is taken back; needed for what serves after something else was taken back",
    )
    parser.add_argument(
        "--target", default="local", help="where it runs: local, kubernetes, or package.module:function"
    )
    parser.add_argument("--remote", default="origin", help="where the state is pushed to; none: this repository")
    parser.add_argument("--minutes", type=float, help="wait no longer; run again, or reconcile, to go on")
    arguments = parser.parse_args()
    if not arguments.why.strip():
        parser.error("--why needs a reason; it becomes part of Git's history")

    from pipelines.core.files import Occupied, only_one
    from pipelines.release import afterwards, commands, machine

    world = commands.open_world(arguments.target, arguments.remote)
    # What has no traffic is no rollback's: another release may need an approval that this run does not have.
    bounds = commands.bounds(world, arguments.minutes, since="traffic")
    try:
        with only_one("release"):
            outcome = machine.roll_back(world, arguments.why, arguments.tag.strip(), bounds=bounds)
    except Occupied as error:
        outcome = machine.roll_back_beside(world, arguments.why, error.holder, arguments.tag.strip())
    code = afterwards.finish(world, outcome)
    return 0 if outcome.result == "rolled_back" else code


if __name__ == "__main__":
    run(main)
