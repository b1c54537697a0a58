"""A/A: judge the candidate against itself, and publish how often the gates speak up although nothing changed."""

import argparse
import tempfile
from pathlib import Path

from pipelines.core.command import run
from pipelines.core.errors import ConfigError, one_line


def main() -> None:
    """Compare halves of the rows, repeats, and models of other seeds; write evaluation/noise.json and noise.md."""
    parser = argparse.ArgumentParser(prog="python -m scripts.noise", description=__doc__)
    parser.add_argument("--seeds", default="", metavar="A,B", help="train the recipe with these seeds and compare them")
    parser.add_argument("--rounds", type=int, default=1000, help="how often the rows are split (default: 1000)")
    arguments = parser.parse_args()
    if not 1 <= arguments.rounds <= 100_000:
        raise ConfigError(f"--rounds: a number from 1 to 100000 is needed, found {arguments.rounds}")
    seeds = parse_seeds(arguments.seeds)
    from pipelines.core.files import only_one
    from pipelines.core.github.runner import add_summary
    from pipelines.evaluation.self_comparison import publish

    with only_one("noise"), tempfile.TemporaryDirectory() as folder:
        text = publish(seeds, arguments.rounds, Path(folder))
    add_summary(text)
    print(text)
    print("evaluation/noise.json\nevaluation/noise.md")


def parse_seeds(text: str) -> list[int]:
    """Read `A,B` or more; nothing is no seed.

    Raises:
        ConfigError: These are not at least two different seeds.
    """
    parts = [part.strip() for part in text.split(",")] if text.strip() else []
    is_good = all(part.isascii() and part.isdigit() and len(part) < 10 for part in parts)
    if not is_good or len(parts) == 1 or len({int(part) for part in parts}) < len(parts):
        raise ConfigError(
            f"--seeds: at least two different numbers such as 7,8 are needed, found {one_line(text, 60)!r}"
        )
    return [int(part) for part in parts]


if __name__ == "__main__":
    run(main)
