"""Compare two released versions side by side: metrics with intervals, prompts, parameters, data and models."""

from __future__ import annotations

import argparse
import json

from pipelines.core.command import run


def main() -> None:
    """Print a table; as Markdown or JSON where that is asked for."""
    parser = argparse.ArgumentParser(prog="python -m scripts.compare", description=__doc__)
    parser.add_argument("before", help="tag, such as v1.1.0")
    parser.add_argument("after", help="tag, such as v1.2.0")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--markdown", action="store_true", help="for a release page")
    form.add_argument("--json", action="store_true", help="for programs")
    parser.add_argument("--remote", default="origin", help="where the records of decisions lie; none: this repository")
    arguments = parser.parse_args()
    from functools import partial
    from pathlib import Path

    from pipelines.core import git, records
    from pipelines.release import compare, comparison_text

    root = Path()
    remote = arguments.remote if arguments.remote != "none" and git.has_remote(root, arguments.remote) else None
    read = partial(records.read, root=root, remote=remote)
    sides = [compare.facts(root, tag, read) for tag in (arguments.before, arguments.after)]
    found = compare.compare(*sides)
    if arguments.json:
        print(json.dumps(compare.as_json(found), indent=2, ensure_ascii=False))
    else:
        print(comparison_text.markdown(found) if arguments.markdown else comparison_text.table(found))


if __name__ == "__main__":
    run(main)
