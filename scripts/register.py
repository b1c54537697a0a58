"""Record the finished run in MLflow and register the candidate with its lineage, once per decision."""

import argparse

from pipelines.core.command import run


def main() -> None:
    """Record, register, and hand on the run's id and the version's number."""
    argparse.ArgumentParser(prog="python -m scripts.register", description=__doc__).parse_args()
    from pipelines.core.files import only_one
    from pipelines.core.github.runner import set_outputs
    from pipelines.core.params import load_params
    from pipelines.release.registration import register

    params = load_params()
    with only_one("register"):
        found = register(params)
    print(f"{'registered' if found.is_new else 'already registered'} as {params.track.model_name} {found.version}")
    set_outputs({"run-id": found.run_id, "model-version": found.version})


if __name__ == "__main__":
    run(main)
