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

    from pipelines.core.files import only_one, read_text
    from pipelines.core.github.runner import add_summary, is_runner, set_outputs
    from pipelines.evaluation import report

    with only_one("report", root=root):
        view = report.write(root)
    print(f"verdict {view.verdict}")
    pages = {"markdown": root / "evaluation/report.md", "html": root / "evaluation/report.html"}
    for page in pages.values():
        print(page)
    if is_runner():
        set_outputs({name: str(page) for name, page in pages.items()})
        add_summary(read_text(pages["markdown"]))


if __name__ == "__main__":
    run(main)
