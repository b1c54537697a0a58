"""Every problem in the files of the repository's settings at once, and the JSON Schemas by which editors check them."""

from __future__ import annotations

from pathlib import Path

from pipelines.core.declared import Declared, check
from pipelines.core.errors import ConfigError
from pipelines.core.source import parse
from pipelines.evaluation.lint.schemas import stale, written
from pipelines.review.rulesets import Ruleset
from pipelines.review.settings import FILES, MODELS, load_settings, ruleset_files


def problems(root: Path) -> list[str]:
    """Return one line `file:line: key: what is wrong` per problem; a repository without `.github/rulesets` has none."""
    if not (root / ".github/rulesets").is_dir():
        return []
    models: list[tuple[Path, type[Declared]]] = [(path, Ruleset) for path in ruleset_files(root)]
    models += [(root / FILES[name], model) for name, model in MODELS.items()]
    found = [line for path, model in models for line in _problems(path, model, str(path.relative_to(root)))]
    if not found:
        try:
            load_settings(root)  # what shows in all files together only, such as two rulesets of one name
        except ConfigError as error:
            found.append(str(error))
    return found + stale(root, texts())


def texts() -> dict[str, str]:
    """Return path and text of every schema."""
    models: dict[str, type[Declared]] = {**MODELS, "ruleset": Ruleset}
    return written({name: model.model_json_schema(by_alias=True) for name, model in models.items()})


def _problems(path: Path, model: type[Declared], shown: str) -> list[str]:
    try:
        return list(map(str, check(parse(path, shown), model)[1]))
    except ConfigError as error:
        return [str(error)]
