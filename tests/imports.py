"""Which of this repository's modules a script imports, directly or through others, at any depth of its code."""

from __future__ import annotations

import ast
from pathlib import Path


def imported_files(script: Path, root: Path) -> set[str]:
    """Return the paths (relative to `root`) of every first-party module that `script` can load, itself included.

    Packages' `__init__.py` are left out: they hold a docstring and nothing else (a test holds that).
    """
    seen: set[Path] = set()
    waiting = [script]
    while waiting:
        path = waiting.pop()
        if path in seen:
            continue
        seen.add(path)
        for name in _imports(path):
            waiting.extend(_files_of(name, root))
    return {str(path.relative_to(root)) for path in seen if path.name != "__init__.py"}


def _imports(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return {name for name in names if name.split(".")[0] in ("pipelines", "scripts")}


def _files_of(name: str, root: Path) -> list[Path]:
    place = root.joinpath(*name.split("."))
    return [path for path in (place.with_suffix(".py"), place / "__init__.py") if path.is_file()]
