"""`dvc.yaml` against the repository: every script, parameter and input of a stage must be there."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipelines.core.declared import nearest
from pipelines.core.dvc_yaml import DvcFile, Loop, Stage
from pipelines.core.params import Params
from pipelines.core.source import Key
from pipelines.evaluation.lint.project import File, Finding, Project, exists

SCRIPT = re.compile(r"-m\s+scripts\.([\w.]+)")
TEMPLATE = re.compile(r"\$\{\s*([^}\s]*)\s*\}")  # what DVC fills in from params.yaml, or per item of a loop
OURS = Path(__file__).parents[3] / "scripts"  # a repository that uses the actions has no scripts of its own
Names = dict[str, Any]


def check_stages(project: Project, dvc: File[DvcFile], params: File[Params] | None) -> Iterator[Finding]:
    """Find stages that run a script, read a parameter or need a file that is not there."""
    folders = {project.root / "scripts", OURS}
    scripts = sorted({path.stem for folder in folders for path in folder.glob("*.py")} - {"__init__"})
    for name, entry in dvc.model.stages.items():
        key, stage = _body(name, entry)
        called = SCRIPT.findall(stage.cmd)
        for script in called:
            if script not in scripts:
                yield dvc.error((*key, "cmd"), f"no scripts/{script}.py{nearest(script, scripts)}")
        if name not in called:
            text = f"a stage has the name of its script, this one runs {', '.join(called) or 'none'}"
            yield dvc.error((*key, "cmd"), text)
    if params is None or not isinstance(params.source.value, dict):
        return
    outs: set[str] = set()
    for name, entry in dvc.model.stages.items():
        for names in _rounds(entry, params.source.value):
            outs |= {filled for out in _outputs(_body(name, entry)[1]) if (filled := _fill(out, names)[0])}
    for name, entry in dvc.model.stages.items():
        key, stage = _body(name, entry)
        rounds = _rounds(entry, params.source.value)
        if isinstance(entry, Loop) and not rounds:
            yield dvc.error(("stages", name, "foreach"), f"{entry.foreach!r:.60} is no list or section of params.yaml")
        for names in rounds:
            yield from _check_round(project, dvc, params, key, stage, names, outs)


def _body(name: str, entry: Stage | Loop) -> tuple[tuple[Key, ...], Stage]:
    return (("stages", name, "do"), entry.do) if isinstance(entry, Loop) else (("stages", name), entry)


def _rounds(entry: Stage | Loop, declared: Names) -> list[Names]:
    """Return what templates can name: once for a stage, once per item for a loop."""
    if isinstance(entry, Stage):
        return [declared | {name: "*" for name in ("item", "key") if entry.matrix}]
    template = TEMPLATE.fullmatch(entry.foreach) if isinstance(entry.foreach, str) else None
    items = entry.foreach if template is None else _look_up(template[1], declared)
    if isinstance(items, dict):
        return [declared | {"key": key, "item": item} for key, item in items.items()]
    return [declared | {"item": item} for item in items] if isinstance(items, list) else []


def _check_round(
    project: Project,
    dvc: File[DvcFile],
    params: File[Params],
    key: tuple[Key, ...],
    stage: Stage,
    names: Names,
    outs: set[str],
) -> Iterator[Finding]:
    texts: list[tuple[tuple[Key, ...], str]] = [((*key, "cmd"), stage.cmd)]
    texts += [((*key, "outs"), out) for out in _outputs(stage)]
    for place, text in texts:
        if missing := _fill(text, names)[1]:
            yield dvc.error(place, f"'{missing}' leads nowhere in params.yaml")
    for index, dep in enumerate(stage.deps):
        filled, missing = _fill(dep, names)
        if missing:
            yield dvc.error((*key, "deps", index), f"'{missing}' leads nowhere in params.yaml")
        elif not _is_made(filled, outs) and not exists(project.root, filled):
            yield dvc.error((*key, "deps", index), f"'{filled}' is neither there nor an output of a stage")
    for index, entry in enumerate(stage.params):
        for name in [entry] if isinstance(entry, str) else list(entry.get("params.yaml") or ()):
            filled, missing = _fill(name, names)
            known = list(map(str, params.source.value))
            if missing or _look_up(filled, params.source.value) is _NOTHING:
                text = (
                    f"params.yaml has no '{missing or filled}'{nearest(filled, known)}; DVC would not notice its change"
                )
                yield dvc.error((*key, "params", index), text)


class _Nothing:
    """Told apart from a value that is declared as null."""


_NOTHING = _Nothing()


def _look_up(path: str, names: Any) -> Any:
    """Follow a dotted path; what a matrix fills in ('*') has every key."""
    for part in path.split("."):
        if names == "*":
            return "*"
        if isinstance(names, list) and part.isdecimal() and int(part) < len(names):
            names = names[int(part)]
        elif isinstance(names, dict) and part in names:
            names = names[part]
        else:
            return _NOTHING
    return names


def _fill(text: str, names: Names) -> tuple[str, str]:
    """Return a text with its templates filled in, and the first template that leads nowhere."""
    missing = [found[0] for found in TEMPLATE.finditer(text) if _look_up(found[1], names) is _NOTHING]
    return TEMPLATE.sub(lambda found: str(_look_up(found[1], names)), text), missing[0] if missing else ""


def _outputs(stage: Stage) -> list[str]:
    entries = [*stage.outs, *stage.metrics, *stage.plots]
    return [name for entry in entries for name in ([entry] if isinstance(entry, str) else entry)]


def _is_made(dep: str, outs: set[str]) -> bool:
    """Tell whether a path is an output, lies in one, or holds one."""
    path = dep.rstrip("/")
    return any(path == out or path.startswith(f"{out}/") or out.startswith(f"{path}/") for out in outs) or "*" in path
