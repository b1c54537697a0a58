"""Set a job up: look at the workspace, install the locked dependencies once per machine, say where they are."""

import argparse
import os
from pathlib import Path

from pipelines.core.command import run


def main() -> None:
    """Print the folder of the environment and hand it to the job's later steps."""
    parser = argparse.ArgumentParser(prog="python -m scripts.setup", description=__doc__)
    parser.add_argument("--lock", default="auto", help="auto, cpu, cuda or judging (default: auto)")
    parser.add_argument("--tool-cache", type=Path, help="where environments are kept (default: the runner's)")
    parser.add_argument("--root", type=Path, default=Path(), help="the checkout to look at (default: this folder)")
    parser.add_argument(
        "--data", default="true", choices=("true", "false"), help="whether data that Git LFS keeps is needed"
    )
    arguments = parser.parse_args()
    from pipelines.core.github.runner import set_outputs
    from pipelines.core.installation import install
    from pipelines.core.workspace import clear, inspect

    inspect(arguments.root, with_data=arguments.data == "true")
    if removed := clear(arguments.root):
        print(f"removed what an earlier run left: {', '.join(removed)}")
    tool_cache = arguments.tool_cache or Path(os.environ.get("RUNNER_TOOL_CACHE") or Path.home() / ".cache")
    made = install(Path(__file__).resolve().parent.parent, arguments.lock, tool_cache.resolve())
    for variable, line in (("GITHUB_ENV", f"GATEHOUSE_PYTHON={made.python}"), ("GITHUB_PATH", str(made.programs))):
        if path := os.environ.get(variable):
            with Path(path).open("a", encoding="utf-8") as stream:
                stream.write(f"{line}\n")
    set_outputs({"python": str(made.python), "lock": made.lock, "reused": str(made.is_reused).lower()})


if __name__ == "__main__":
    run(main)
