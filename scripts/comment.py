"""Keep one comment on a pull request up to date, unless its head is no longer the commit that was judged."""

from __future__ import annotations

import argparse
import os
import re
from pathlib import Path

from pipelines.core.command import run


def main() -> None:
    """Parse arguments, look at the pull request's head, publish, and say where."""
    parser = argparse.ArgumentParser(prog="python -m scripts.comment", description=__doc__)
    parser.add_argument("--root", type=Path, default=Path(), help="folder with evaluation/report.md and decision.json")
    parser.add_argument("--number", required=True, help="the pull request")
    parser.add_argument("--head", required=True, help="the commit that was judged, 40 hexadecimal digits")
    parser.add_argument("--state", choices=("pending", "failed"), help="there is no report: say this instead")
    parser.add_argument("--message", default="", help="a sentence that goes with --state")
    parser.add_argument("--bot", default="", help="login that comments (default: GitHub is asked whose token it is)")
    arguments = parser.parse_args()
    if not re.fullmatch("[1-9][0-9]{0,9}", arguments.number):
        parser.error(f"--number {arguments.number[:40]!r} is no pull request's number")
    if not re.fullmatch("[0-9a-f]{40}", arguments.head):
        parser.error(f"--head {arguments.head[:60]!r} is not 40 hexadecimal digits")

    from pipelines.core.github.api import Api
    from pipelines.core.github.runner import set_outputs
    from pipelines.review import comment

    api, number, head = Api.from_environment(), int(arguments.number), arguments.head
    body = comment.written(arguments.root, arguments.state, arguments.message, head=head, run_url=_run_url())
    url = comment.publish(api, number, body, head=head, bot=arguments.bot or None)
    set_outputs({"posted": str(url is not None).lower(), "url": url or ""})
    print(f"posted {url}" if url else f"not posted: pull request {number} has moved on from {head}")


def _run_url() -> str | None:
    server, repository, run_id = (os.environ.get(f"GITHUB_{name}") for name in ("SERVER_URL", "REPOSITORY", "RUN_ID"))
    return f"{server}/{repository}/actions/runs/{run_id}" if server and repository and run_id else None


if __name__ == "__main__":
    run(main)
