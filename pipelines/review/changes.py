"""What a pull request changes that a person must see before it may pass: pure, from two revisions to sentences."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import PurePosixPath
from typing import Any, NamedTuple

from pipelines.core.gates import Gates
from pipelines.core.params import Params
from pipelines.core.rows import Row
from pipelines.review.evaluated import Suite, contaminated, rows_changed
from pipelines.review.loosened import loosened
from pipelines.review.loosened_rollout import loosened_rollout
from pipelines.review.weakened import weakened

SHOWN = 5
# What can change without any of it being executed where rows are computed. Whatever is not listed counts as code:
# a new `numpy.py` at the top would be imported as surely as a changed script.
DATA_FOLDERS = ("prompts", "data", "schemas", "docs")
NEVER_RUN = ("tests", "benchmarks")
OUTPUTS = ("data/prepared/", "data/validation/", "data/parts/")  # what a stage computes has no place in Git
DATA_FILES = ("params.yaml", "gates.yaml", "serving.yaml", "LICENSE")
# In a folder of data these are code all the same: Python, what Git or DVC obey, and who may approve.
ACTIVE = (".py", ".pyc", ".pyd", ".so", ".pth", ".sh", ".egg", ".zip", ".dvc")
ACTIVE_NAMES = ("dvc.yaml", "dvc.lock", "codeowners")
JUDGES = "prompts/judges/"


class Revision(NamedTuple):
    """What is known of one side.

    Attributes:
        gates: Rules, or None where there is no readable `gates.yaml`.
        params: Parameters.
        suites: Rows, schema and prompt of each suite.
        trained: Training and validation rows of the model's data set.
        kept: Suites whose data lies outside of Git, with a hash of what stands for it there.
    """

    gates: Gates | None
    params: Params
    suites: Mapping[str, Suite]
    trained: tuple[Row, ...] = ()
    kept: Mapping[str, str] = {}


class Changes(NamedTuple):
    """What a pull request changes, one sentence each; every one caps the verdict at `manual_review`.

    Attributes:
        code: Files that compute or guard.
        gates: Rules loosened.
        suites: Suites, checks, judges and models weakened or replaced.
        rows: Rows removed, relabelled, diluted or given away.
        origin: A fork, a base that has moved on, or one of several.
    """

    code: tuple[str, ...] = ()
    gates: tuple[str, ...] = ()
    suites: tuple[str, ...] = ()
    rows: tuple[str, ...] = ()
    origin: tuple[str, ...] = ()

    @property
    def caps(self) -> tuple[str, ...]:
        """Every sentence, what hides most first."""
        return (*self.origin, *self.code, *self.gates, *self.suites, *self.rows)

    def as_json(self) -> dict[str, Any]:
        """Return what `context.json` holds of them."""
        return {name: list(sentences) for name, sentences in self._asdict().items()}


def changes(before: Revision, after: Revision, paths: Mapping[str, str], *, origin: Iterable[str] = ()) -> Changes:
    """Compare what main says with what a pull request would make of it.

    Args:
        before: Main.
        after: Main with the pull request merged into it.
        paths: Every changed path and the mode that it has afterwards, empty where it is gone.
        origin: Sentences on where the pull request comes from.
    """
    rules: tuple[str, ...] = ()
    if before.gates is not None:
        rules = (
            (*loosened(before.gates.evaluation, after.gates.evaluation), *loosened_rollout(before.gates, after.gates))
            if after.gates is not None
            else ("gates.yaml: removed or not readable, so that nothing would be held to anything",)
        )
    judges = sorted(path for path in paths if path.startswith(JUDGES) and not path.endswith(".md"))
    near = before.params.prepare.near_duplicates
    return Changes(
        code=code_changed(paths),
        gates=rules,
        suites=(*weakened(before.params, after.params), *(f"{path}: what a judge goes by changed" for path in judges)),
        rows=(
            *rows_changed(before.suites, after.suites),
            *_out_of_sight(before, after),
            *contaminated(before.trained, after.trained, after.suites, near),
        ),
        origin=tuple(origin),
    )


def _out_of_sight(before: Revision, after: Revision) -> list[str]:
    return [
        f"suite '{name}': its data, which lies outside of Git, changed, so that nobody can compare the rows here"
        for name in sorted({*before.suites, *before.kept} & {*after.suites, *after.kept})
        if before.kept.get(name) != after.kept.get(name)
    ]


def code_changed(paths: Mapping[str, str]) -> tuple[str, ...]:
    """Say which changed files are executed where rows are computed, or guard what is.

    Args:
        paths: Every changed path and its mode afterwards, empty where it is gone.
    """
    found = sorted(path for path, mode in paths.items() if not is_data(path, mode))
    if not found:
        return ()
    more = f" and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
    return (f"changes code, workflows or locks, which can forge every row: {', '.join(found[:SHOWN])}{more}",)


def is_data(path: str, mode: str = "100644") -> bool:
    """Tell whether a changed file can only change what is measured, and not how.

    Args:
        path: From the repository's top.
        mode: Git's: only plain files are data; empty for a file that is gone.
    """
    parts = PurePosixPath(path).parts
    if mode not in ("100644", "") or not parts or any(part.startswith(".") for part in parts):
        return False
    name = parts[-1].casefold()
    if name in ACTIVE_NAMES or path.startswith(OUTPUTS):
        return False
    if len(parts) == 1:
        return path in DATA_FILES or name.endswith(".md")
    return parts[0] in NEVER_RUN or (parts[0] in DATA_FOLDERS and not name.endswith(ACTIVE))
