"""Hold a prepared data set against its `validate` section of params.yaml (exit code 3 if an expectation fails)."""

import argparse

from pipelines.core.command import is_runner, point, run

SHOWN = 5  # offending rows per expectation on the terminal; the page has more


def main() -> None:
    """Write data/validation/<dataset>/ and print what offends; `passed.json` is what later stages wait for."""
    parser = argparse.ArgumentParser(prog="python -m scripts.validate", description=__doc__)
    parser.add_argument("--dataset", required=True, metavar="NAME", help="a data set of params.yaml")
    arguments = parser.parse_args()
    from pathlib import Path

    from pipelines.core.errors import ConfigError, GateFailed
    from pipelines.core.files import only_one, write_json, write_text
    from pipelines.core.params import load_params
    from pipelines.training.examples import declared_dataset
    from pipelines.training.prepare import read_splits
    from pipelines.training.validate import as_html, schema_of, validate

    params, name = load_params(), arguments.dataset
    dataset, declared = declared_dataset(params, name), params.validate_.get(name)
    if declared is None:
        raise ConfigError(f"params.yaml: validate: data set '{name}' has no section here; add one with its prompt")
    with only_one(f"validate-{name}"):
        schema = schema_of(declared)
        splits = read_splits(Path("data/prepared") / name)
        found = validate(name, splits, dataset, declared, near=params.prepare.near_duplicates, schema=schema)
        page = Path("data/validation") / name / "report.html"
        passed = page.with_name("passed.json")
        passed.unlink(missing_ok=True)
        write_json(page.with_name("results.json"), found.as_json())
        write_text(page, as_html(found))
        if not found.failed():
            write_json(passed, {"schema_version": 1, "passed": True})
    for result in found.failed():
        print(f"not met: {result.name} (observed: {result.observed})")
        for row in result.rows[:SHOWN]:
            if is_runner():
                point("error", f"{row.place}: {result.name}: {row.found} [{row.split}]")
            else:
                print(f"  {row.place}: {row.found} [{row.split}]")
        if result.n_offending > SHOWN:
            print(f"  and {result.n_offending - SHOWN:,} more rows")
    if found.failed():
        n_failed = len(found.failed())
        raise GateFailed(f"{dataset.path}: {n_failed} of {len(found.results)} expectations are not met; see {page}")
    print(f"{page}: all {len(found.results)} expectations are met")


if __name__ == "__main__":
    run(main)
