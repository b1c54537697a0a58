"""What changed between the baseline's declared files and the working tree's: keys, prompts, data, model."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pipelines.core import source
from pipelines.core.errors import ConfigError
from pipelines.core.params import load_params
from pipelines.evaluation.reporting.data_changes import DataChange, compare_data, describe_shift
from pipelines.evaluation.reporting.difference import Piece, differences

State = Literal["added", "removed", "edited"]


class KeyChange(NamedTuple):
    """One key of a declared file; None stands for a side on which the key is not there."""

    file: str
    key: str
    before: str | None
    after: str | None

    def __str__(self) -> str:
        before = "(not set)" if self.before is None else self.before
        after = "(not set)" if self.after is None else self.after
        return f"{self.key} {before} -> {after}"


class TextChange(NamedTuple):
    """One message of a prompt, word by word."""

    label: str
    pieces: tuple[Piece, ...]


class PromptChange(NamedTuple):
    """One prompt file."""

    path: str
    state: State
    texts: tuple[TextChange, ...] = ()
    keys: tuple[KeyChange, ...] = ()


class ModelChange(NamedTuple):
    """The model that answered one suite."""

    suite: str
    before: str
    after: str


class Changes(NamedTuple):
    """Everything declared that differs.

    Attributes:
        is_known: False where there is no baseline tree to compare with; nothing else is said then.
        unreadable: One line per file that could not be compared.
    """

    is_known: bool
    parameters: tuple[KeyChange, ...] = ()
    gates: tuple[KeyChange, ...] = ()
    prompts: tuple[PromptChange, ...] = ()
    data: tuple[DataChange, ...] = ()
    models: tuple[ModelChange, ...] = ()
    unreadable: tuple[str, ...] = ()

    @property
    def is_nothing(self) -> bool:
        """Tell whether both sides are known to be the same."""
        return self.is_known and not any(self[1:])


def compare(before: Path, after: Path) -> Changes:
    """Compare the declared files of two trees.

    Args:
        before: Folder with the baseline's `params.yaml`, `gates.yaml`, `prompts/` and raw data files.
        after: The working tree.

    Returns:
        All changes but those of the model, whose digests stand in the runs and not in the trees.
    """
    if not before.is_dir():
        return Changes(is_known=False)
    unreadable: list[str] = []
    trees = [_tree(folder, unreadable) for folder in (before, after)]
    params = [tree.get("params.yaml") or {} for tree in trees]
    prompts = sorted({path for tree in trees for path in tree if path.startswith("prompts/")})
    data: list[DataChange] = []
    for path, inputs in _data_files(params).items():
        try:
            found = compare_data(path, before / path, after / path, inputs)
            if found and found.n_before and found.n_after:
                found = found._replace(shift=_shift(path, before, after))
        except ConfigError as error:
            unreadable.append(str(error))
            continue
        data += [found] if found else []
    return Changes(
        is_known=True,
        parameters=compare_keys("params.yaml", *params),
        gates=compare_keys("gates.yaml", *(tree.get("gates.yaml") or {} for tree in trees)),
        prompts=tuple(
            change for path in prompts if (change := compare_prompts(path, *(tree.get(path) for tree in trees)))
        ),
        data=tuple(data),
        unreadable=tuple(unreadable),
    )


def compare_models(before: dict[str, dict[str, Any]], after: dict[str, dict[str, Any]]) -> tuple[ModelChange, ...]:
    """Compare the models of two sets of runs.

    Args:
        before: Suite: its baseline `run.json`.
        after: Suite: its `run.json`.
    """
    found = []
    for suite in sorted(set(before) & set(after)):
        old, new = (_model(runs[suite]) for runs in (before, after))
        if old != new:
            found.append(ModelChange(suite, old, new))
    return tuple(found)


def _shift(path: str, before: Path, after: Path) -> tuple[str, ...]:
    try:
        declared = load_params(after / "params.yaml").datasets.values()
        dataset = next((dataset for dataset in declared if dataset.path == path), None)
        return describe_shift(dataset, before / path, after / path) if dataset else ()
    except ConfigError as error:
        return (f"whether the data shifted is unknown: {error}",)


def compare_keys(file: str, before: Any, after: Any) -> tuple[KeyChange, ...]:
    """Compare two parsed YAML values key by key, in the order of the newer file.

    List items that carry a `name` are matched by it, so that a gate that moved is not a gate that changed.

    Args:
        file: Name to report.
        before: The older value.
        after: The newer value.
    """
    old, new = dict(_leaves(before)), dict(_leaves(after))
    keys = dict.fromkeys([*new, *old])
    return tuple(KeyChange(file, key, old.get(key), new.get(key)) for key in keys if old.get(key) != new.get(key))


def compare_prompts(path: str, before: Any, after: Any) -> PromptChange | None:
    """Compare two parsed `.prompt.yml` files: messages word by word, everything else key by key.

    Args:
        path: The file's path.
        before: The older value, or None where there was no such file.
        after: The newer value, or None.

    Returns:
        None where nothing differs.
    """
    if before == after:
        return None
    state: State = "added" if before is None else "removed" if after is None else "edited"
    old, new = _messages(before), _messages(after)
    texts = [
        TextChange(label, differences(old.get(label, ""), new.get(label, "")))
        for label in dict.fromkeys([*new, *old])
        if old.get(label) != new.get(label)
    ]
    keys = compare_keys(path, _without_messages(before), _without_messages(after)) if state == "edited" else ()
    return PromptChange(path, state, tuple(texts), keys)


def _tree(folder: Path, unreadable: list[str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for path in [folder / "params.yaml", folder / "gates.yaml", *sorted(folder.glob("prompts/**/*.yml"))]:
        if not path.is_file():
            continue
        try:
            found[path.relative_to(folder).as_posix()] = source.parse(path).value
        except ConfigError as error:
            unreadable.append(str(error))
    return found


def _data_files(params: list[Any]) -> dict[str, tuple[str, ...]]:
    """Map each declared data file to the columns that hold its inputs; only paths inside the tree are read."""
    found: dict[str, tuple[str, ...]] = {}
    for value in params:
        datasets = value.get("datasets") if isinstance(value, dict) else None
        for dataset in datasets.values() if isinstance(datasets, dict) else ():
            path, inputs = (dataset.get("path"), dataset.get("inputs")) if isinstance(dataset, dict) else (None, None)
            if isinstance(path, str) and ".." not in Path(path).parts and not Path(path).is_absolute():
                columns = inputs.values() if isinstance(inputs, dict) else ()
                found[path] = tuple(str(column) for column in columns)
    return found


def _leaves(value: Any, key: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(value, dict) and value:
        for name, part in value.items():
            yield from _leaves(part, f"{key}.{name}" if key else str(name))
    elif isinstance(value, list) and value and all(isinstance(item, dict) for item in value):
        for index, item in enumerate(value):
            label = item.get("name") or "/".join(str(item[name]) for name in ("suite", "metric") if name in item)
            yield from _leaves(item, f"{key}[{label or index}]")
    else:
        yield key, value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _messages(prompt: Any) -> dict[str, str]:
    messages = prompt.get("messages") if isinstance(prompt, dict) else None
    found: dict[str, str] = {}
    for message in messages if isinstance(messages, list) else ():
        if isinstance(message, dict):
            role = str(message.get("role"))
            count = sum(label.split(" ")[0] == role for label in found)
            found[f"{role} {count + 1}" if count else role] = str(message.get("content"))
    return found


def _without_messages(prompt: Any) -> Any:
    return {key: value for key, value in prompt.items() if key != "messages"} if isinstance(prompt, dict) else prompt


def _model(run: dict[str, Any]) -> str:
    model = run.get("model")
    if not isinstance(model, dict):
        return "unknown"
    return f"{model.get('name', '?')} {str(model.get('digest', ''))[:12]}".strip()
