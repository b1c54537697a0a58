"""Hold what is on its way to production (or every release), or let it go again."""

from __future__ import annotations

import argparse

from pipelines.core.command import run


def main() -> int:
    """Hold, or with --release let go: the pause, or what a rollback holds of a tag."""
    what_it_stops = "a hold stops the way forward and its clock; a candidate that does harm is taken back all the same"
    parser = argparse.ArgumentParser(prog="python -m scripts.hold", description=__doc__, epilog=what_it_stops)
    parser.add_argument("--why", required=True, help="the reason, one sentence; it becomes the commit's")
    parser.add_argument(
        "--release", nargs="?", const="pause", default="none", metavar="TAG",
        help="let go: the pause (default), or a TAG that was rolled back; none: hold",
    )  # fmt: skip
    parser.add_argument(
        "--target", default="local", help="where it runs: local, kubernetes, or package.module:function"
    )
    parser.add_argument("--remote", default="origin", help="where the state is pushed to; none: this repository")
    arguments = parser.parse_args()
    if not arguments.why.strip():
        parser.error("--why needs a reason; it becomes part of Git's history")

    from pipelines.release import afterwards, commands, machine

    world = commands.open_world(arguments.target, arguments.remote)
    if arguments.release == "none":
        outcome = machine.hold_back(world, arguments.why)
    else:
        outcome = machine.let_go(world, arguments.why, "" if arguments.release == "pause" else arguments.release)
    return afterwards.finish(world, outcome)


if __name__ == "__main__":
    run(main)
