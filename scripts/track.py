"""Record the finished run in MLflow (`MLFLOW_TRACKING_URI`, or mlflow.db and mlruns/ in this folder)."""

import argparse

from pipelines.core.command import run


def main() -> None:
    """Collect the run's inputs and results and send them."""
    argparse.ArgumentParser(prog="python -m scripts.track", description=__doc__).parse_args()
    from pathlib import Path

    from pipelines.core.commit import head
    from pipelines.core.params import load_params
    from pipelines.evaluation.track import collect, log

    params = load_params()
    commit, is_dirty = head()
    record = collect(Path(), params.model_dump(mode="json", by_alias=True), commit, is_dirty=is_dirty)
    print(f"tracked as MLflow run {log(record, params.track.experiment)}")


if __name__ == "__main__":
    run(main)
