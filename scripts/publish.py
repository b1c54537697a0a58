"""Write a release's page on GitHub: what it brings, its manifest, and the story of its rollout with the numbers."""

from __future__ import annotations

import argparse
import os

from pipelines.core.command import run


def main() -> None:
    """Make the page what Git says; a page that is there is brought up to date."""
    parser = argparse.ArgumentParser(prog="python -m scripts.publish", description=__doc__)
    parser.add_argument("--tag", default="", help="version tag, such as v1.2.0 (default: the release moved last)")
    parser.add_argument("--environment", default="production", help="whose state is read (default: production)")
    parser.add_argument("--remote", default="origin", help="where the state lies; none: this repository")
    arguments = parser.parse_args()

    from functools import partial
    from pathlib import Path

    from pipelines.core import records
    from pipelines.core.errors import one_line
    from pipelines.core.github.api import Api
    from pipelines.core.github.runner import annotate, set_outputs
    from pipelines.release.compose import compose
    from pipelines.release.page import publish
    from pipelines.release.standing import standing
    from pipelines.release.store import Store

    api = Api.from_environment()
    store = Store(Path(), remote=None if arguments.remote == "none" else arguments.remote)
    found = standing(store, arguments.tag, arguments.environment)
    read = partial(records.read, root=store.root, remote=store.remote)
    server = os.environ.get("GITHUB_SERVER_URL", "")
    page = compose(store, found, read, url=f"{server}/{api.repository}" if server else "")
    done = publish(api, page)
    for note in done.notes:
        annotate("warning", note)
    print(one_line(f"{page.tag}: {'draft' if done.is_draft else 'page'} {done.url}"))
    set_outputs({"tag": page.tag, "outcome": page.outcome, "url": done.url})


if __name__ == "__main__":
    run(main)
