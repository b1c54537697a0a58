"""Take what the judging job left as plain data, and say what there is to say, also where judging broke."""

from __future__ import annotations

import argparse
from pathlib import Path

from pipelines.core.command import run


def main() -> None:
    """Ask GitHub whose run this is, check the files that were left, and hand on what is to be said."""
    parser = argparse.ArgumentParser(prog="python -m scripts.accept", description=__doc__)
    parser.add_argument("--artifact", type=Path, default=Path("left"), help="folder that judging left (default: left)")
    parser.add_argument("--to", type=Path, default=Path("judging"), help="folder to lay out (default: judging)")
    parser.add_argument(
        "--result", required=True, choices=("success", "failure", "cancelled", "skipped"), help="how judging ended"
    )
    arguments = parser.parse_args()

    from pipelines.core.errors import one_line
    from pipelines.core.github.api import Api
    from pipelines.core.github.event import read_event
    from pipelines.core.github.runner import set_outputs
    from pipelines.review.accepted import accept

    is_whole = arguments.result == "success"
    found = accept(Api.from_environment(), read_event(), arguments.artifact, arguments.to, is_whole=is_whole)
    outputs = {"state": found.state, "number": str(found.number or ""), "head": found.head, "broken": found.broken}
    set_outputs({**outputs, "reason": one_line(found.reason, 400)})
    print(one_line(f"{found.state}: {found.reason or f'pull request {found.number} was judged'}"))


if __name__ == "__main__":
    run(main)
