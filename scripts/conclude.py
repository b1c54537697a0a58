"""Record the decision in Git, then set the required status of the commit that it is about."""

from __future__ import annotations

import argparse
import os
import re
from pathlib import Path

from pipelines.core.command import run


def main() -> None:
    """Write the record first and the status last; away from GitHub there is only the record."""
    parser = argparse.ArgumentParser(prog="python -m scripts.conclude", description=__doc__)
    parser.add_argument("--root", type=Path, default=Path(), help="folder that was judged (default: this one)")
    parser.add_argument(
        "--failed", metavar="SHA", help="the verdict about this commit broke: only set its status to error"
    )
    arguments = parser.parse_args()
    if arguments.failed is not None and not re.fullmatch("[0-9a-f]{40}", arguments.failed):
        parser.error(f"--failed {arguments.failed[:60]!r} is not 40 hexadecimal digits")

    from pipelines.core.errors import one_line
    from pipelines.core.github.api import Api
    from pipelines.core.github.runner import is_runner, set_outputs
    from pipelines.review.conclusion import broke, conclude

    api = Api.from_environment() if arguments.failed or is_runner() or os.environ.get("GITHUB_REPOSITORY") else None
    server, repository, run_id = (
        os.environ.get(f"GITHUB_{name}", "") for name in ("SERVER_URL", "REPOSITORY", "RUN_ID")
    )
    url = f"{server}/{repository}/actions/runs/{run_id}" if server and repository and run_id else ""
    if api and arguments.failed:
        concluded = broke(api, arguments.failed, run_url=url)
    else:
        concluded = conclude(api, arguments.root, run_url=url)
    set_outputs({"verdict": concluded.verdict})
    print(one_line(concluded.said))
    print("recorded on branch gatehouse" if concluded.recorded else "no record was needed")


if __name__ == "__main__":
    run(main)
