"""Everything that `check` says about a repository, in one list."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from pipelines.evaluation.lint.data import check_data
from pipelines.evaluation.lint.gated import check_gates
from pipelines.evaluation.lint.limits import check_limits
from pipelines.evaluation.lint.pipeline import check_stages
from pipelines.evaluation.lint.project import Finding, Project, read_project
from pipelines.evaluation.lint.prompt_files import check_prompts
from pipelines.evaluation.lint.references import check_params


class Findings(NamedTuple):
    """What is wrong (`problems`), what is doubtful (`warnings`), one line each, and what was read."""

    problems: list[str]
    warnings: list[str]
    project: Project


def find(root: Path) -> Findings:
    """Check every declared file of a repository, each by itself and against the others.

    Args:
        root: Folder that holds `params.yaml`.
    """
    project = read_project(root)
    found = list(_cross(project))
    errors = [str(finding.problem) for finding in found if finding.is_error]
    warnings = [str(finding.problem) for finding in found if not finding.is_error]
    return Findings(list(dict.fromkeys([*project.problems, *errors])), list(dict.fromkeys(warnings)), project)


def _cross(project: Project) -> Iterator[Finding]:
    params, gates = project.params, project.gates
    if project.dvc is not None:
        yield from check_stages(project, project.dvc, params)
    if params is None:
        return
    yield from check_params(project, params)
    yield from check_data(project, params)
    yield from check_prompts(project, params)
    if gates is not None:
        yield from check_gates(params, gates)
        yield from check_limits(project, params, gates)
