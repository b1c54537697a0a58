"""Build an image of the Dockerfile, scan it, push it by digest and sign it; print NAME@sha256:..."""

import argparse
from pathlib import Path

from pipelines.core.command import run


def main() -> None:
    """Parse arguments, build, and hand the image's reference to the steps that follow."""
    parser = argparse.ArgumentParser(prog="python -m scripts.image", description=__doc__)
    parser.add_argument("--target", default="gateway", choices=["gateway", "pipelines", "model"], help="what to build")
    parser.add_argument("--name", required=True, help="registry and repository, without tag")
    parser.add_argument("--model", default="", help="for the target model: folder of models/")
    parser.add_argument("--push", default="false", choices=["true", "false"], help="push by digest and sign")
    parser.add_argument(
        "--scan", default="high", choices=["low", "medium", "high", "critical", "false"], help="severity that stops it"
    )
    parser.add_argument("--root", type=Path, default=Path(), help="the repository (default: this folder)")
    arguments = parser.parse_args()
    from pipelines.core.github.runner import set_outputs
    from pipelines.release.image import Order, build

    scan = "" if arguments.scan == "false" else arguments.scan
    order = Order(arguments.root, arguments.target, arguments.name, arguments.model, arguments.push == "true", scan)
    reference = build(order)
    set_outputs({"reference": reference, "digest": reference.partition("@")[2]})


if __name__ == "__main__":
    run(main)
