"""Read every declared file of a repository at once, and keep what is wrong with each."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

from pipelines.core.declared import Declared, check
from pipelines.core.dvc_yaml import DvcFile
from pipelines.core.errors import ConfigError, one_line
from pipelines.core.files import each_line
from pipelines.core.gates import Gates
from pipelines.core.params import Params
from pipelines.core.source import Key, Problem, Source, parse
from pipelines.llm.prompts import Prompt

Model = TypeVar("Model", bound=Declared)
Rows = list[tuple[int, dict[str, Any]]]
MOST_PER_FILE = 5  # broken lines of one data file that are shown


class File(NamedTuple, Generic[Model]):
    """A declared file that could be understood, with the lines of its keys."""

    model: Model
    source: Source

    def error(self, key: tuple[Key, ...], message: str) -> Finding:
        """Return a finding that fails the check."""
        return Finding(self.source.problem(key, message), is_error=True)

    def warning(self, key: tuple[Key, ...], message: str) -> Finding:
        """Return a finding that is only shown."""
        return Finding(self.source.problem(key, message), is_error=False)


class Finding(NamedTuple):
    """A problem, and whether it fails the check."""

    problem: Problem
    is_error: bool


class Project(NamedTuple):
    """The declared files of one repository.

    Attributes:
        root: Its folder.
        params: `params.yaml`, None if it cannot be understood.
        gates: `gates.yaml`, likewise.
        dvc: `dvc.yaml`, likewise.
        prompts: Path inside the repository: prompt, for every prompt that can be understood.
        broken_prompts: Paths of the others.
        rows: Data set: line number and object of each line that is one.
        problems: What is wrong with single files, one line each.
    """

    root: Path
    params: File[Params] | None
    gates: File[Gates] | None
    dvc: File[DvcFile] | None
    prompts: dict[str, File[Prompt]]
    broken_prompts: set[str]
    rows: dict[str, Rows]
    problems: list[str]


def read_project(root: Path) -> Project:
    """Read `params.yaml`, `gates.yaml`, `dvc.yaml`, `prompts/` and the data files that `params.yaml` names."""
    problems: list[str] = []
    params = _read(root, "params.yaml", Params, problems)
    gates = _read(root, "gates.yaml", Gates, problems)
    dvc = _read(root, "dvc.yaml", DvcFile, problems)
    names = sorted(path.relative_to(root).as_posix() for path in (root / "prompts").glob("**/*.prompt.yml"))
    read = {name: _read(root, name, Prompt, problems) for name in names}
    prompts = {name: file for name, file in read.items() if file is not None}
    rows = {} if params is None else dict(_read_rows(root, params, problems))
    return Project(root, params, gates, dvc, prompts, set(read) - set(prompts), rows, problems)


def _read(root: Path, name: str, model: type[Model], problems: list[str]) -> File[Model] | None:
    try:
        source = parse(_inside(root, name), shown=name)
    except ConfigError as error:
        problems.append(one_line(str(error)))
        return None
    value, found = check(source, model)
    problems.extend(map(str, found))
    return None if value is None else File(value, source)


def _read_rows(root: Path, params: File[Params], problems: list[str]) -> Iterator[tuple[str, Rows]]:
    for name, dataset in params.model.datasets.items():
        key = ("datasets", name, "path")
        rows: Rows = []
        wrong: list[str] = []
        try:
            for number, value in each_line(_inside(root, dataset.path), shown=dataset.path):
                if isinstance(value, ConfigError):
                    wrong.append(one_line(str(value)))
                else:
                    rows.append((number, value))
        except ConfigError as error:
            problems.append(str(params.source.problem(key, str(error))))
        problems.extend(wrong[:MOST_PER_FILE])
        if len(wrong) > MOST_PER_FILE:
            problems.append(f"{one_line(dataset.path)}: {len(wrong) - MOST_PER_FILE} more lines are broken")
        yield name, rows


def exists(root: Path, name: str) -> bool:
    """Tell whether a declared path is a file or folder inside the repository."""
    try:
        return _inside(root, name).exists()
    except (ConfigError, OSError, ValueError):
        return False


def _inside(root: Path, name: str) -> Path:
    """Return the path, refusing links that lead out of the repository (a pull request could bring one)."""
    try:
        if not (root / name).resolve().is_relative_to(root.resolve()):
            raise ConfigError(f"{name}: is a link that leads out of the repository; copy the file instead")
    except (OSError, RuntimeError, ValueError) as error:
        raise ConfigError(f"{name}: cannot be read ({error}); correct the path") from None
    return root / name
