"""Say what the changes since a commit make necessary: evaluation, training, and over how many runners."""

import argparse
import json
import os
from pathlib import Path

from pipelines.core.command import run
from pipelines.core.errors import ConfigError

MOST_SHARDS = 64


def main() -> None:
    """Print the plan, and hand it to the workflow as outputs."""
    parser = argparse.ArgumentParser(prog="python -m scripts.plan", description=__doc__)
    parser.add_argument("--base", required=True, help="the commit that the changes are to be merged into")
    base = parser.parse_args().base
    if base.startswith("-"):
        raise ConfigError(f"--base {base[:60]!r} is no commit; name one, such as origin/main")
    from pipelines.core.github.runner import set_outputs
    from pipelines.review.plan import base_of, changed_files, changed_params, plan, read_stages

    shards = shards_of(os.environ.get("GATEHOUSE_SHARDS", ""))
    base = base_of(base)
    found = plan(changed_files(base), read_stages(Path()), changed_params(base))
    if not found.evaluate:
        shards = ["1/1"]  # an empty matrix is an error, even of a job that is skipped
    set_outputs(
        {
            "evaluate": str(found.evaluate).lower(),
            "train": str(found.train).lower(),
            "shards": json.dumps(shards),
            "reason": found.reason,
        }
    )


def shards_of(declared: str) -> list[str]:
    """Return the shards `1/N` to `N/N` of a declared number; nothing declared is one shard.

    Raises:
        ConfigError: It is not a number from 1 to 64.
    """
    text = declared.strip() or "1"
    if not (text.isascii() and text.isdigit() and 1 <= int(text[:4]) <= MOST_SHARDS):
        raise ConfigError(f"GATEHOUSE_SHARDS: a number from 1 to {MOST_SHARDS} is needed, found {declared[:40]!r}")
    return [f"{index}/{int(text)}" for index in range(1, int(text) + 1)]


if __name__ == "__main__":
    run(main)
