"""Release a version tag: staging, smoke tests, A/B test, canary stages, champion, or the way back; all told in Git."""

from __future__ import annotations

import argparse
from pathlib import Path

from pipelines.core.command import run


def main() -> int:
    """Bring a tag to its end from wherever it is; or only check it; or judge a recorded release again."""
    ends = "exit code: 0 released, or waiting for the next run; 3 taken back; 4 held until a person lets it go"
    parser = argparse.ArgumentParser(prog="python -m scripts.release", description=__doc__, epilog=ends)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--tag", help="version tag, such as v1.2.0")
    what.add_argument(
        "--replay", type=Path, metavar="HISTORY", help="history/<id>.json whose verdicts are judged again"
    )
    parser.add_argument(
        "--target", default="local", help="where it runs: local, kubernetes, or package.module:function"
    )
    parser.add_argument("--remote", default="origin", help="where the state is pushed to; none: this repository")
    parser.add_argument("--once", action="store_true", help="do what can be done now, and wait for nothing")
    parser.add_argument(
        "--dry-run", nargs="?", const="true", default="false", choices=("true", "false"),
        help="verify and say what would happen; change nothing",
    )  # fmt: skip
    parser.add_argument("--until", choices=("staging", "end"), default="end", help="staging: stop before production")
    parser.add_argument("--minutes", type=float, help="wait no longer; run again, or reconcile, to go on")
    arguments = parser.parse_args()

    from pipelines.core.files import only_one
    from pipelines.release import afterwards, commands, machine, replay_text
    from pipelines.release.replay import require_agreement

    if arguments.replay:
        tag, found = commands.replayed(arguments.replay, arguments.target)
        print("\n".join(replay_text.table(tag, found)))
        require_agreement(found)
        return 0
    world = commands.open_world(arguments.target, arguments.remote)
    if arguments.dry_run == "true":
        print("\n".join(commands.rehearsed(world, arguments.tag)))
        return 0
    bounds = commands.bounds(world, arguments.minutes, once=arguments.once, until=arguments.until)
    with only_one("release"):
        outcome = machine.release(world, arguments.tag, bounds=bounds)
    return afterwards.finish(world, outcome)


if __name__ == "__main__":
    run(main)
