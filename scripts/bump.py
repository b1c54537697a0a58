"""Write the annotated tag of the next version, after the checks that its release will make."""

from __future__ import annotations

import argparse

from pipelines.core.command import run


def main() -> None:
    """Tag the commit that is checked out; with --push, the release begins."""
    parser = argparse.ArgumentParser(prog="python -m scripts.bump", description=__doc__)
    parser.add_argument("part", choices=("major", "minor", "patch"), help="what is raised")
    parser.add_argument("--message", default="", help="the tag's message (default: Release vX.Y.Z)")
    parser.add_argument("--sign", action="store_true", help="sign the tag as Git is configured")
    parser.add_argument("--push", action="store_true", help="push the tag, which starts the release")
    parser.add_argument("--remote", default="origin", help="whose main and tags count; none: this repository")
    parser.add_argument("--target", default="", help="whose releases are counted from (default: production's)")
    arguments = parser.parse_args()
    from functools import partial
    from pathlib import Path

    from pipelines.core import records
    from pipelines.release import targets
    from pipelines.release.bump import bump
    from pipelines.release.store import Store

    store = Store(Path(), remote=None if arguments.remote == "none" else arguments.remote)
    read = partial(records.read, root=store.root, remote=store.remote)
    environment = targets.build(arguments.target, store.root).environment if arguments.target else "production"
    made = bump(
        store, arguments.part, read, message=arguments.message, is_signed=arguments.sign, does_push=arguments.push,
        environment=environment,
    )  # fmt: skip
    print(f"{made.tag}: {'made' if made.is_new else 'made before'} on {made.commit[:12]}")
    if made.is_pushed:
        print("pushed: its release begins")
    elif store.remote is None:
        print(f"next: python -m scripts.release --tag {made.tag} --remote none")
    else:
        print(f"next: git push {store.remote} {made.tag} begins its release")


if __name__ == "__main__":
    run(main)
