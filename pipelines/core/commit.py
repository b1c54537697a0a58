"""Which Git commit the working tree stands on."""

from __future__ import annotations

import subprocess
from pathlib import Path


def head(root: Path = Path()) -> tuple[str, bool]:
    """Return the commit (hex, or `unknown` outside of Git) and whether tracked files differ from it."""
    try:
        commit = subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=root, capture_output=True, text=True, check=True
        ).stdout.strip()
        changed = subprocess.run(
            ["git", "status", "--porcelain", "--untracked-files=no"],
            cwd=root,
            capture_output=True,
            text=True,
            check=True,
        ).stdout
    except (OSError, subprocess.CalledProcessError):
        return "unknown", False
    return commit, bool(changed.strip())
