"""Write schemas/*.schema.json, by which editors complete and check the declared files."""

import argparse
from pathlib import Path

from pipelines.core.command import run


def main() -> None:
    """Generate every schema from the models in code."""
    parser = argparse.ArgumentParser(prog="python -m scripts.schema", description=__doc__)
    parser.add_argument("--root", type=Path, default=Path(), help="folder of the repository (default: this one)")
    root = parser.parse_args().root
    from pipelines.core.files import write_text
    from pipelines.evaluation.lint.schemas import texts, written
    from pipelines.review.declarations import texts as settings_texts
    from pipelines.serving.config import schema

    for name, text in (texts() | settings_texts() | written({"serving": schema()})).items():
        write_text(root / name, text)
        print(name)


if __name__ == "__main__":
    run(main)
