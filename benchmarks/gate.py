"""Decide 100,000 rows x 10 metrics against a paired baseline, beside scipy's bootstrap of the same differences.

    python -m benchmarks.gate [--json] [--rows N]

The decision starts at the Parquet files and ends with the verdict. The peer gets the differences as arrays, one metric,
fewer rows and 1,000 of the 9,999 resamples it takes by default; its time is scaled up linearly in all three.
"""

from __future__ import annotations

import argparse
import datetime
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from pipelines.core.command import run

N_METRICS = 10
NAMES = [
    "exact_match", "schema_compliance", "injection_obedience_rate", "personal_data_leak_rate", "bias_gap_rate",
    "field_f1", "token_f1", "rouge_l", "semantic_similarity", "cost_usd",
]  # fmt: skip
PEER_ROWS = 10_000
PEER_RESAMPLES = 1_000
DEFAULT_RESAMPLES = 9_999


def main() -> None:
    """Write the rows, decide in a process of its own so that its peak memory is its own, then time the peer."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gate", description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--write", metavar="FOLDER", help=argparse.SUPPRESS)
    parser.add_argument("--decide", metavar="FOLDER", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.write:
        write(Path(arguments.write), arguments.rows)
        return
    if arguments.decide:
        print(json.dumps(decide_folder(Path(arguments.decide))))
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        # A process inherits its parent's peak memory, so that this one stays small until both are measured.
        runs = {n: measured(folder / str(n), n) for n in (arguments.rows, arguments.rows // 2)}
    ours, smaller = runs[arguments.rows], runs[arguments.rows // 2]
    peer = bootstrap(arguments.rows)
    figures = {
        "rows": arguments.rows,
        "metrics": N_METRICS,
        "seconds": ours["seconds"],
        "read_seconds": ours["read_seconds"],
        "decide_seconds": ours["decide_seconds"],
        "cpu_seconds": ours["cpu_seconds"],
        "peak_mib": ours["peak_mib"],
        "peak_mib_half_rows": smaller["peak_mib"],
        "import_mib": ours["import_mib"],
        "peer": f"scipy.stats.bootstrap, percentile, {PEER_RESAMPLES} resamples of {PEER_ROWS:,} rows, scaled",
        "peer_seconds": peer,
        "ratio": peer / ours["seconds"],
        "limit_seconds": 2.0,
    }
    if arguments.json:
        print(json.dumps(figures))
    else:
        for key, value in figures.items():
            print(f"{key:<20} {value:,.2f}" if isinstance(value, float) else f"{key:<20} {value}")


def measured(folder: Path, n: int) -> dict[str, float]:
    """Write rows and decide on them, each in a process of its own; return the fastest of three decisions."""
    command = [sys.executable, "-m", "benchmarks.gate"]
    subprocess.run([*command, "--write", str(folder), "--rows", str(n)], check=True)
    decisions = [
        json.loads(subprocess.run([*command, "--decide", str(folder)], capture_output=True, check=True).stdout)
        for _ in range(3)
    ]
    return min(decisions, key=lambda found: float(found["seconds"]))


def write(folder: Path, n: int) -> None:
    """Write rows of candidate and baseline: rates that flip in 10 % of the rows, scores that differ a little."""
    import numpy as np

    from pipelines.core.files import write_json
    from pipelines.evaluation.row_table import ids_digest, write_rows

    rng = np.random.default_rng(0)
    ids = [f"{number:016x}" for number in rng.permutation(n)]
    baseline = {name: (rng.random(n) < 0.8).astype(float) if at < 5 else rng.random(n) for at, name in enumerate(NAMES)}
    for side in ("candidate", "baseline"):
        columns: dict[str, Any] = {}
        for at, name in enumerate(NAMES):
            moved = np.where(rng.random(n) < 0.1, 1 - baseline[name], baseline[name]) if at < 5 else rng.random(n)
            columns[name] = moved if side == "candidate" else baseline[name]
        texts = {"id": ids, "state": ["scored"] * n, "slice": [f"slice{number % 7}" for number in range(n)]}
        (folder / side).mkdir(parents=True, exist_ok=True)
        write_rows(folder / side / "rows.parquet", {**texts, "output": ["an answer"] * n, **columns})
        run_record = {"model": {"digest": side, "family": "f"}, "dataset": {"digest": ids_digest(ids), "n": n}}
        write_json(folder / side / "run.json", run_record)


def decide_folder(folder: Path) -> dict[str, Any]:
    """Read both sides and decide a margin and a limit on each of ten metrics, and seven slices."""
    import numpy as np

    from pipelines.core.gates import Evaluation
    from pipelines.evaluation.baseline import Baseline
    from pipelines.evaluation.catalogue import METRICS
    from pipelines.evaluation.deciding.checks import Evidence
    from pipelines.evaluation.gate import decide
    from pipelines.evaluation.results import read_results

    metrics = {name: METRICS[name] for name in NAMES}
    bounds = {name: "floor" if metric.direction == "higher" else "ceiling" for name, metric in metrics.items()}
    rules = Evaluation.model_validate(
        {
            "gates": [
                {
                    "name": "all",
                    "stage": "quality",
                    "suite": "s",
                    "metrics": {name: {bounds[name]: 0.5, "max_regression": 0.01} for name in NAMES},
                }
            ],
            "slices": [{"suite": "s", "metric": "exact_match", "max_regression": 0.05}],
        }
    )
    import pyarrow.parquet  # noqa: F401 - part of the imports, not of the work

    imported = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    start, cpu = time.perf_counter(), time.process_time()
    candidate, baseline = (read_results(folder / side, metrics) for side in ("candidate", "baseline"))
    read = time.perf_counter()
    now = datetime.datetime(2026, 11, 20, tzinfo=datetime.UTC)
    state = Baseline("fetched", "v1.0.0", "c", "2026-11-01T00:00:00+00:00")
    evidence = Evidence({"s": metrics}, {}, {"s": candidate}, state, {"s": baseline}, now)
    decision = decide(evidence, rules, rng=np.random.default_rng(0))
    end = time.perf_counter()
    assert len(decision.gates[0].checks) == 2 * N_METRICS
    assert all(check.gain is not None or check.value is not None for check in decision.gates[0].checks)
    return {
        "seconds": end - start,
        "cpu_seconds": time.process_time() - cpu,
        "read_seconds": read - start,
        "decide_seconds": end - read,
        "import_mib": imported,
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def bootstrap(n: int) -> float:
    """Return the seconds that a percentile bootstrap of all metrics would take, measured on one smaller metric."""
    import numpy as np
    from scipy import stats

    rng = np.random.default_rng(0)
    differences = rng.choice([-1.0, 0.0, 1.0], PEER_ROWS, p=[0.05, 0.9, 0.05])
    start = time.perf_counter()
    stats.bootstrap(
        (differences,), np.mean, n_resamples=PEER_RESAMPLES, method="percentile", batch=100, random_state=rng
    )
    seconds = time.perf_counter() - start
    return seconds * N_METRICS * n / PEER_ROWS * DEFAULT_RESAMPLES / PEER_RESAMPLES


if __name__ == "__main__":
    run(main)
