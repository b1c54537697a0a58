"""Start main's release workflow for a tag; or again, where the run of a release without traffic has died."""

from __future__ import annotations

import argparse

from pipelines.core.command import run


def main() -> None:
    """Start a run, and say which one is at it already."""
    parser = argparse.ArgumentParser(prog="python -m scripts.dispatch", description=__doc__)
    parser.add_argument("--tag", default="", help="version tag, such as v1.2.0 (default: what Git says is on its way)")
    parser.add_argument("--environment", default="production", help="whose state is read (default: production)")
    parser.add_argument("--remote", default="origin", help="where the state lies; none: this repository")
    arguments = parser.parse_args()

    from pathlib import Path

    from pipelines.core.errors import one_line
    from pipelines.core.github.api import Api
    from pipelines.core.github.runner import set_outputs
    from pipelines.release.dispatch import dispatch, go_on
    from pipelines.release.standing import standing
    from pipelines.release.store import Store

    api = Api.from_environment()
    if arguments.tag:
        done = dispatch(api, arguments.tag)
    else:
        store = Store(Path(), remote=None if arguments.remote == "none" else arguments.remote)
        done = go_on(api, standing(store, environment=arguments.environment))
    print(one_line(done.said))
    set_outputs({"started": "true" if done.is_new else "false"})


if __name__ == "__main__":
    run(main)
