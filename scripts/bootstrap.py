"""Make a repository on GitHub what `.github/` says: rulesets, labels, environments, variables. Says what differs."""

import argparse
import os
from pathlib import Path

from pipelines.core.command import run


def main() -> int:
    """Print every difference; with --apply, close it; with --check, return 3 if there is one."""
    needed = "GH_TOKEN needs Administration, Issues and Variables: write, or read where nothing is applied."
    parser = argparse.ArgumentParser(prog="python -m scripts.bootstrap", description=f"{__doc__} {needed}")
    parser.add_argument("--repository", help="owner/name (default: GITHUB_REPOSITORY)")
    parser.add_argument("--app-id", help="the release bot's App, or none (default: GATEHOUSE_APP_ID, variables.yml)")
    parser.add_argument("--root", type=Path, default=Path(), help="folder that holds .github/ (default: this one)")
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument("--dry-run", action="store_true", help="change nothing, say what would be (the default)")
    mode.add_argument("--apply", action="store_true", help="change the repository")
    mode.add_argument("--check", action="store_true", help="change nothing; 3 if anything differs, 4 if it is not seen")
    arguments = parser.parse_args()
    if arguments.repository:
        os.environ["GITHUB_REPOSITORY"] = arguments.repository
    elif not os.environ.get("GITHUB_REPOSITORY"):
        parser.error("which repository? Say --repository owner/name")

    from pipelines.core.github.api import Api
    from pipelines.review import bootstrap
    from pipelines.review.settings import load_settings

    settings = load_settings(arguments.root)
    app_id = arguments.app_id or os.environ.get("GATEHOUSE_APP_ID")
    api = Api.from_environment()
    plan = bootstrap.look(api, settings, app_id, is_final=arguments.apply)
    print("\n".join(bootstrap.summary(plan, api.repository)))
    notes = list(plan.notes)
    if arguments.apply:
        notes += bootstrap.apply(api, plan.steps, done=lambda step: print(f"done: {step.kind} {step.name}"))
    elif plan.steps and not arguments.check:
        print("dry run: nothing was changed; --apply makes the repository what the files say")
    for note in notes:
        print(f"not protected: {note}")
    return plan.exit_code if arguments.check else 0


if __name__ == "__main__":
    run(main)
