"""Write `evaluation/report.md` and `evaluation/report.html` from the files of a finished run."""

from __future__ import annotations

import argparse
from pathlib import Path

from pipelines.core.command import run


def main() -> None:
    """Parse arguments and write both reports."""
    parser = argparse.ArgumentParser(prog="python -m scripts.report", description=__doc__)
    parser.add_argument("--root", type=Path, default=Path(), help="the repository (default: this folder)")
    root = parser.parse_args().root

    from pipelines.core.files import only_one
    from pipelines.evaluation import report

    with only_one("report", root=root):
        view = report.write(root)
    print(f"verdict {view.verdict}")
    for name in ("report.md", "report.html"):
        print(root / "evaluation" / name)


if __name__ == "__main__":
    run(main)
