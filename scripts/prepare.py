"""Split a data set into data/prepared/<dataset>/: by content, near-duplicates together, no leaks."""

import argparse

from pipelines.core.command import run


def main() -> None:
    """Read, split, and replace the folder of prepared rows as a whole."""
    parser = argparse.ArgumentParser(prog="python -m scripts.prepare", description=__doc__)
    parser.add_argument("--dataset", required=True, metavar="NAME", help="a data set of params.yaml")
    arguments = parser.parse_args()
    from pathlib import Path

    from pipelines.core.files import only_one, write_json
    from pipelines.core.folders import replacing_folder
    from pipelines.core.params import load_params
    from pipelines.core.rows import write_rows
    from pipelines.training.examples import declared_dataset, read_examples
    from pipelines.training.prepare import SPLITS, split, summarise

    params = load_params()
    dataset = declared_dataset(params, arguments.dataset)
    near = params.prepare.near_duplicates
    with only_one(f"prepare-{arguments.dataset}"):
        prepared = split(read_examples(Path(dataset.path), dataset), dataset, near=near, seed=params.seed)
        summary = summarise(arguments.dataset, dataset, prepared, near)
        folder = Path("data/prepared") / arguments.dataset
        with replacing_folder(folder) as new:
            for name in SPLITS:  # a split without rows is an empty file: stages depend on it by name
                write_rows(new / f"{name}.jsonl", prepared.splits.get(name, []))
            write_json(new / "summary.json", summary)
    counts = ", ".join(f"{name} {len(rows):,}" for name, rows in prepared.splits.items())
    dropped = f", {summary['n_dropped']:,} repeated rows dropped" if summary["n_dropped"] else ""
    print(f"{folder}: {counts}{dropped}; near-duplicates {summary['near_duplicates']['rate']:.1%}")


if __name__ == "__main__":
    run(main)
