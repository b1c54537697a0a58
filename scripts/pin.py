"""Pin what an environment runs: images by digest, serving.yaml and its prompts, into k8s/overlays/<name>/released/."""

import argparse
from pathlib import Path

from pipelines.core.command import run


def main() -> None:
    """Write the folder and print what it pins; whatever is not given stays as it is."""
    parser = argparse.ArgumentParser(prog="python -m scripts.pin", description=__doc__)
    parser.add_argument("--environment", required=True, help="a folder of k8s/overlays")
    parser.add_argument("--gateway", metavar="NAME@sha256:...", help="image of the gateway")
    parser.add_argument(
        "--model", metavar="MODEL=NAME@sha256:...", action="append", default=[], help="image of a model; repeatable"
    )
    parser.add_argument("--root", type=Path, default=Path(), help="the repository (default: this folder)")
    arguments = parser.parse_args()
    from pipelines.core.files import only_one
    from pipelines.release.pin import pin

    models = dict(text.partition("=")[::2] for text in arguments.model)
    with only_one("pin", root=arguments.root):
        pins = pin(arguments.root, arguments.environment, arguments.gateway, models)
    print(f"gateway {pins.gateway}")
    for name, held in sorted(pins.models.items()):
        print(
            f"{name} {held.image}{'' if held.digest else ' (what it holds is not known: no models/' + name + ' here)'}"
        )


if __name__ == "__main__":
    run(main)
