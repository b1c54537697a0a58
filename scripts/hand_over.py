"""Copy what a verdict needs into a folder of its own, with a manifest that names every file by its SHA-256."""

import argparse
from pathlib import Path

from pipelines.core.command import run


def main() -> None:
    """Fill the folder and say how much is in it."""
    parser = argparse.ArgumentParser(prog="python -m scripts.hand_over", description=__doc__)
    parser.add_argument(
        "--to", type=Path, required=True, metavar="DIR", help="folder to fill; it is replaced as a whole"
    )
    to = parser.parse_args().to
    from pipelines.core.files import only_one
    from pipelines.core.github.runner import set_outputs
    from pipelines.review.handover import hand_over

    with only_one("hand_over"):
        count = hand_over(to)
    print(to / "manifest.json")
    set_outputs({"files": str(count)})


if __name__ == "__main__":
    run(main)
