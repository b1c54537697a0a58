"""Merge an adapter into its base model, so that any server of safetensors can load it."""

import argparse
from pathlib import Path

from pipelines.core.command import run


def main() -> None:
    """Write the merged model's folder."""
    parser = argparse.ArgumentParser(prog="python -m scripts.merge", description=__doc__)
    parser.add_argument("--model", type=Path, default=Path("models/candidate"), help="folder of the adapter")
    parser.add_argument("--to", type=Path, required=True, help="folder to write")
    arguments = parser.parse_args()
    from pipelines.llm.merge import merge

    merge(arguments.model, arguments.to)
    print(f"{arguments.to}: the merged model")


if __name__ == "__main__":
    run(main)
