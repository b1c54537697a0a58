"""Two versions side by side: what was decided about them, and what they are made of."""

from __future__ import annotations

import difflib
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from pipelines.core import git
from pipelines.core.errors import ConfigError
from pipelines.core.files import digest
from pipelines.core.inputs import input_digests_at
from pipelines.core.records import Record
from pipelines.core.source import parse
from pipelines.release.manifest import data_of, models_of
from pipelines.release.version import parse_tag

CONTEXT_LINES = 2


class Value(NamedTuple):
    """One metric of one version: its value with one-sided bounds, in the metric's own unit, and the rows behind it."""

    value: float | None
    lower: float | None
    upper: float | None
    n: int
    unit: str


class Facts(NamedTuple):
    """What is known of one version.

    Attributes:
        tag: Its tag.
        commit: What it stands on, hex.
        verdict: Of its decision; `unknown` where none is recorded.
        metrics: By suite and name.
        prompts: Text by path.
        parameters: Values of `params.yaml` by dotted key.
        data: SHA-256 by path.
        models: Digest by name.
    """

    tag: str
    commit: str
    verdict: str
    metrics: Mapping[str, Value]
    prompts: Mapping[str, str]
    parameters: Mapping[str, str]
    data: Mapping[str, str]
    models: Mapping[str, str]


class Pair(NamedTuple):
    """One thing in both versions; None where a version lacks it."""

    name: str
    before: Any
    after: Any

    @property
    def is_changed(self) -> bool:
        """Tell whether the versions differ in it."""
        return bool(self.before != self.after)


class Comparison(NamedTuple):
    """Everything, by name; `prompt_diffs` holds lines of unified diffs of the prompts that differ."""

    before: Facts
    after: Facts
    metrics: list[Pair]
    parameters: list[Pair]
    prompts: list[Pair]
    data: list[Pair]
    models: list[Pair]
    prompt_diffs: dict[str, list[str]]


def facts(root: Path, tag: str, record_of: Callable[[str], Record | None]) -> Facts:
    """Return what Git and the record of its decision say of a version.

    Raises:
        ConfigError: There is no such tag.
        ServiceError: The remote cannot be reached.
    """
    parse_tag(tag)
    commit = git.commit_of(root, f"refs/tags/{tag}")
    if commit is None:
        raise ConfigError(f"tag {tag}: no such tag here; fetch it with `git fetch --tags`")
    digests, entries = input_digests_at(commit, root), git.files_of(root, commit)
    record = record_of(digest(digests))
    prompts = [path for path in digests if path.startswith("prompts/")]
    texts = git.contents_of(root, [entries[path].oid for path in prompts])
    return Facts(
        tag=tag,
        commit=commit,
        verdict=record.verdict if record else "unknown",
        metrics=_metrics(record.decision) if record else {},
        prompts={path: data.decode(errors="replace") for path, data in zip(prompts, texts, strict=True)},
        parameters=_parameters(root, entries),
        data=data_of(digests),
        models={name: one.digest for name, one in models_of(record).items()} if record else {},
    )


def compare(before: Facts, after: Facts) -> Comparison:
    """Lay two versions side by side."""
    prompts = _pairs(
        {path: digest(text) for path, text in before.prompts.items()},
        {path: digest(text) for path, text in after.prompts.items()},
    )
    return Comparison(
        before,
        after,
        metrics=_pairs(before.metrics, after.metrics),
        parameters=[one for one in _pairs(before.parameters, after.parameters) if one.is_changed],
        prompts=prompts,
        data=_pairs(before.data, after.data),
        models=_pairs(before.models, after.models),
        prompt_diffs={one.name: _diff(one.name, before, after) for one in prompts if one.is_changed},
    )


def as_json(found: Comparison) -> dict[str, Any]:
    """Return a comparison as plain values."""

    def plain(pairs: list[Pair]) -> dict[str, Any]:
        sides = {one.name: (one.before, one.after, one.is_changed) for one in pairs}
        return {
            name: {"before": _plain(first), "after": _plain(second), "changed": changed}
            for name, (first, second, changed) in sides.items()
        }

    about = {
        side: {"tag": one.tag, "commit": one.commit, "verdict": one.verdict}
        for side, one in (("before", found.before), ("after", found.after))
    }
    parts = {name: plain(getattr(found, name)) for name in ("metrics", "parameters", "prompts", "data", "models")}
    return {"schema_version": 1, **about, **parts, "prompt_diffs": found.prompt_diffs}


def _plain(value: Any) -> Any:
    return value._asdict() if isinstance(value, Value) else value


def _pairs(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[Pair]:
    return [Pair(name, before.get(name), after.get(name)) for name in sorted(before.keys() | after.keys())]


def _metrics(decision: Mapping[str, Any]) -> dict[str, Value]:
    """Return the metrics that a decision held against a limit, each once."""
    found: dict[str, Value] = {}
    for gate in decision.get("gates", []):
        for check in gate.get("checks", []):
            values = [check.get(key) for key in ("value", "lower", "upper")]
            if values[0] is not None:
                name = f"{gate.get('suite')}.{check.get('metric')}"
                new = Value(values[0], values[1], values[2], int(check.get("n") or 0), str(check.get("unit") or ""))
                # Of a margin and a limit on the same metric, the limit's check has its own interval.
                if name not in found or found[name].lower is None:
                    found[name] = new
    return found


def _parameters(root: Path, entries: Mapping[str, git.Entry]) -> dict[str, str]:
    if "params.yaml" not in entries:
        return {}
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "params.yaml"
        copy.write_bytes(git.text_of(root, entries["params.yaml"].oid))
        return dict(_flat(parse(copy, "params.yaml").value, ""))


def _flat(value: Any, prefix: str) -> list[tuple[str, str]]:
    if isinstance(value, dict):
        return [pair for key, part in value.items() for pair in _flat(part, f"{prefix}.{key}" if prefix else str(key))]
    return [(prefix, str(value))]


def _diff(path: str, before: Facts, after: Facts) -> list[str]:
    old, new = (side.prompts.get(path, "").splitlines() for side in (before, after))
    return list(difflib.unified_diff(old, new, before.tag, after.tag, lineterm="", n=CONTEXT_LINES))
