"""Fetch a declared model into models/<name>/, hashes first: `python -m scripts.fetch --model base`."""

import argparse

from pipelines.core.command import run


def main() -> None:
    """Fetch one model and print its folder and digest."""
    parser = argparse.ArgumentParser(prog="python -m scripts.fetch", description=__doc__)
    parser.add_argument("--model", required=True, help="a name under `models` in params.yaml")
    arguments = parser.parse_args()
    from pipelines.core.declared import nearest
    from pipelines.core.errors import ConfigError
    from pipelines.core.files import only_one
    from pipelines.core.params import load_params
    from pipelines.llm.local_model import read_card
    from pipelines.training.base_model import fetch

    models = load_params().models
    if arguments.model not in models:
        hint = nearest(arguments.model, list(models))
        raise ConfigError(f"params.yaml: models: has no '{arguments.model}'{hint}")
    with only_one("fetch"):
        folder = fetch(arguments.model, models[arguments.model])
    print(f"{folder} {read_card(folder).digest}")


if __name__ == "__main__":
    run(main)
