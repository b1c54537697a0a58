"""Let `actions/setup` find the environment that runs the tests, as if an earlier job had installed it."""

from __future__ import annotations

import sys
from pathlib import Path

from pipelines.core.installation import choose, mark, place

ROOT = Path(__file__).parent.parent


def adopt(tool_cache: Path, source: Path = ROOT) -> Path:
    """Link this environment into a runner's tool cache.

    Args:
        tool_cache: What `RUNNER_TOOL_CACHE` will say; under act that is `<HOME>/.cache/act/tool_cache`.
        source: The repository whose locks jobs will ask for.

    Returns:
        The environment as jobs will see it. They need `python3` to be the Python of this environment.
    """
    lock = choose("auto")
    folder = place(source, lock, tool_cache)
    if not folder.is_symlink():
        folder.parent.mkdir(parents=True, exist_ok=True)
        folder.symlink_to(sys.prefix, target_is_directory=True)
    mark(folder, lock)
    return folder
