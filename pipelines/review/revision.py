"""Lay one revision's declared files out as plain data, and read from them what two revisions are compared by."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

from pipelines.core import git
from pipelines.core.errors import ConfigError, one_line
from pipelines.core.gates import Gates, load_gates
from pipelines.core.inputs import CODE, POINTER, inputs
from pipelines.core.params import Dataset, Params, load_params
from pipelines.core.rows import Row
from pipelines.core.source import parse
from pipelines.llm.prompts import load_prompt
from pipelines.review.changes import Revision
from pipelines.review.evaluated import Suite
from pipelines.training.examples import read_examples
from pipelines.training.prepare import Prepared, split

MOST_BYTES = 1 << 28  # one file
MOST_TOTAL = 1 << 30


def lay_out(root: Path, tree: str, to: Path) -> None:
    """Write a tree's declared files, prompts and data into a folder, as plain files; code stays where it is.

    Args:
        root: The repository.
        tree: A commit or tree, hex.
        to: The folder.

    Raises:
        ConfigError: A file is a link or too large, or its path leads out of the folder.
    """
    entries = git.files_of(root, tree)
    if "params.yaml" not in entries:
        raise ConfigError("params.yaml: no such file; a pull request cannot do without it")
    _write(root, entries, ["params.yaml"], to)
    params = parse(to / "params.yaml", "params.yaml").value
    chosen = [path for path in inputs(entries, params) if not path.startswith(tuple(f"{name}/" for name in CODE))]
    _write(root, entries, [path for path in chosen if path != "params.yaml"], to)


def _write(root: Path, entries: dict[str, git.Entry], paths: Iterable[str], to: Path) -> None:
    paths = list(paths)
    for path in paths:
        if entries[path].mode not in ("100644", "100755"):
            raise ConfigError(f"{one_line(path, 200)}: is a link; a plain file is needed")
        if entries[path].size > MOST_BYTES:
            raise ConfigError(f"{one_line(path, 200)}: has {entries[path].size:,} bytes, {MOST_BYTES:,} are read")
    if sum(entries[path].size for path in paths) > MOST_TOTAL:
        raise ConfigError(f"declared files and data have more than {MOST_TOTAL:,} bytes")
    for path, data in zip(paths, git.contents_of(root, (entries[path].oid for path in paths)), strict=True):
        target = to / path
        if not target.resolve().is_relative_to(to.resolve()):
            raise ConfigError(f"{one_line(path, 200)}: leads out of the folder that the files are laid out in")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)


def read_revision(folder: Path) -> Revision:
    """Read what two revisions are compared by.

    Args:
        folder: Where `lay_out` has put it.

    Raises:
        ConfigError: A declared or a data file is broken; the message names it from the repository's top.
    """
    try:
        params = load_params(folder / "params.yaml")
        reader = _Rows(folder, params)
        suites, kept = {}, {}
        for name, suite in params.suites.items():
            dataset = params.datasets.get(suite.dataset)
            if dataset is None:
                raise ConfigError(f"params.yaml: suites.{name}.dataset: no data set '{suite.dataset}'")
            if (pointer := _kept(folder, dataset)) is not None:
                kept[name] = pointer
                continue
            rows = sorted(reader.split(suite.dataset, suite.split), key=lambda row: row.id)[: suite.max_rows]
            prompt = folder / suite.prompt
            suites[name] = Suite(tuple(rows), load_prompt(prompt).schema_of_answer(), prompt.read_text("utf-8"))
        trained = tuple(row for part in ("train", "validation") for row in reader.split(params.train.dataset, part))
        return Revision(_gates(folder), params, suites, trained, kept)
    except ConfigError as error:
        raise ConfigError(str(error).replace(f"{folder}/", "")) from None


class _Rows:
    """Rows of data sets, each split once."""

    def __init__(self, folder: Path, params: Params) -> None:
        self._folder, self._params = folder, params
        self._known: dict[str, Prepared] = {}

    def split(self, name: str, part: str) -> list[Row]:
        dataset = self._params.datasets.get(name)
        if dataset is None or _kept(self._folder, dataset) is not None:
            return []
        if name not in self._known:
            examples = read_examples(self._folder / dataset.path, dataset)
            near, seed = self._params.prepare.near_duplicates, self._params.seed
            self._known[name] = split(examples, dataset, near=near, seed=seed)
        return self._known[name].splits.get(part, [])


def _gates(folder: Path) -> Gates | None:
    try:
        return load_gates(folder / "gates.yaml")
    except ConfigError:
        return None


def _kept(folder: Path, dataset: Dataset) -> str | None:
    """Return a hash of what stands for data that Git does not hold itself, or None where the data is here."""
    path = folder / dataset.path
    if path.is_file():
        with path.open("rb") as stream:
            start = stream.read(1024)
        return hashlib.sha256(start).hexdigest() if POINTER.fullmatch(start) else None
    places = [path, *path.parents]
    for place in places[: places.index(folder)]:
        lock = place.with_name(f"{place.name}.dvc")
        if lock.is_file():
            return hashlib.sha256(lock.read_bytes()).hexdigest()
    raise ConfigError(f"{dataset.path}: no such file, nor a .dvc file that stands for it")
