"""Take what a pull request's run handed over as hostile data, and lay out what is to be judged."""

from __future__ import annotations

import argparse
from pathlib import Path

from pipelines.core.command import run


def main() -> None:
    """Resolve the pull request, check the artifact, write the folder, and say in which state that is."""
    parser = argparse.ArgumentParser(prog="python -m scripts.receive", description=__doc__)
    parser.add_argument("--artifact", default="none", help="folder or zip file that the run left, or none")
    parser.add_argument("--to", type=Path, default=Path("judging"), help="folder to lay out (default: judging)")
    parser.add_argument(
        "--find", nargs="?", const="true", default="false", choices=("true", "false"),
        help="only say which run is to be judged (output run-id)",
    )  # fmt: skip
    parser.add_argument("--teams", type=Path, help="folder with teams.json (default: GitHub is asked)")
    arguments = parser.parse_args()

    from pipelines.core.errors import one_line
    from pipelines.core.github.api import Api
    from pipelines.core.github.event import read_event
    from pipelines.core.github.runner import set_outputs
    from pipelines.review import judging, pull_request
    from pipelines.review.teams import read_teams

    api, event = Api.from_environment(), read_event()
    if arguments.find == "true":
        found = judging.find(api, event, pull_request.default_branch(api))
        context, to = found.context, ""
        run_id = str(found.run.id) if found.run and context.state == "ready" else ""
    else:
        artifact = None if arguments.artifact in ("", "none") else Path(arguments.artifact)
        teams = read_teams(arguments.teams) if arguments.teams else None
        context = judging.receive(api, event, artifact, arguments.to, teams=teams)
        to, run_id = str(arguments.to), ""
    outputs = {"state": context.state, "number": str(context.number or ""), "head": context.head, "base": context.base}
    set_outputs({**outputs, "folder": to, "run-id": run_id, "reason": one_line(context.reason, 400)})
    print(one_line(f"{context.state}: {context.reason or f'pull request {context.number} can be judged'}"))
    for cap in context.caps:
        print(one_line(f"needs a person: {cap}"))


if __name__ == "__main__":
    run(main)
