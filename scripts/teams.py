"""Write down who is in each team that CODEOWNERS names, so that the job that judges needs no token that may ask."""

from __future__ import annotations

import argparse
from pathlib import Path

from pipelines.core.command import run


def main() -> None:
    """Ask GitHub for the members of every team, write `teams.json`, and say which team the token cannot see."""
    parser = argparse.ArgumentParser(prog="python -m scripts.teams", description=__doc__)
    parser.add_argument("--to", type=Path, default=Path("teams"), help="folder for teams.json (default: teams)")
    arguments = parser.parse_args()

    from pipelines.core.errors import one_line
    from pipelines.core.github.api import Api
    from pipelines.core.github.runner import set_outputs
    from pipelines.review.teams import ask_teams, write_teams

    found = ask_teams(Api.from_environment())
    write_teams(found, arguments.to)
    for team, members in found.teams.items():
        said = "this token cannot see it" if members is None else f"{len(members)} members"
        print(one_line(f"{team}: {said}"))
    set_outputs({"teams": str(sum(members is not None for members in found.teams.values()))})


if __name__ == "__main__":
    run(main)
