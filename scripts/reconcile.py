"""Finish what a dead release run could not, and let target and registry follow what Git says."""

from __future__ import annotations

import argparse

from pipelines.core.command import run


def main() -> int:
    """Go on from the state in Git; with nothing on its way, have the target run what is stable."""
    parser = argparse.ArgumentParser(prog="python -m scripts.reconcile", description=__doc__)
    parser.add_argument(
        "--target", default="local", help="where it runs: local, kubernetes, or package.module:function"
    )
    parser.add_argument("--remote", default="origin", help="where the state is pushed to; none: this repository")
    parser.add_argument("--once", action="store_const", const=0.0, dest="minutes", help="wait for nothing: --minutes 0")
    parser.add_argument("--minutes", type=float, help="wait no longer; what a person holds is then no failure")
    parser.add_argument(
        "--from", dest="since", choices=("start", "traffic"), default="start",
        help="traffic: leave a release that no user meets yet to its own run, which may need an approval",
    )  # fmt: skip
    arguments = parser.parse_args()

    from pipelines.core.files import only_one
    from pipelines.release import afterwards, commands, machine

    world = commands.open_world(arguments.target, arguments.remote)
    bounds = commands.bounds(world, arguments.minutes, since=arguments.since)
    with only_one("release"):
        outcome = machine.reconcile(world, bounds=bounds)
    code = afterwards.finish(world, outcome)
    return 0 if outcome.result == "paused" and arguments.minutes is not None else code


if __name__ == "__main__":
    run(main)
