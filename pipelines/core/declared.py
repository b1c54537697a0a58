"""Load a declared YAML file into a frozen model, and say of every problem in which line and key it is."""

from __future__ import annotations

import difflib
import json
import re
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, ValidationError

from pipelines.core.errors import ConfigError, one_line
from pipelines.core.source import Key, Problem, Source, parse


class Declared(BaseModel):
    """Base of every declared file's parts: unknown keys are errors, values never change after loading."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, populate_by_name=True)


class Misplaced(ValueError):
    """Raised by a model's validator that knows which key below the model is wrong."""

    def __init__(self, message: str, *key: Key) -> None:
        super().__init__(message)
        self.key = key


Model = TypeVar("Model", bound=Declared)

# What people read instead of pydantic's words, by its error type.
WORDS = {
    "string_type": "text is needed",
    "int_type": "a whole number is needed",
    "int_from_float": "a whole number is needed",
    "float_type": "a number is needed",
    "bool_type": "true or false is needed",
    "dict_type": "keys with values are needed",
    "model_type": "keys with values are needed",
    "model_attributes_type": "keys with values are needed",
    "tuple_type": "a list is needed",
    "list_type": "a list is needed",
}


def load(path: Path, model: type[Model]) -> Model:
    """Load a declared file.

    Raises:
        ConfigError: The file is missing, not YAML, or does not fit; the message is the first problem and
            says how many more there are.
    """
    value, problems = check(parse(path), model)
    if value is None or problems:
        more = f" (and {len(problems) - 1} more; run `python -m scripts.check`)" if len(problems) > 1 else ""
        raise ConfigError(f"{problems[0]}{more}")
    return value


def check(source: Source, model: type[Model]) -> tuple[Model | None, list[Problem]]:
    """Hold a parsed file against its model.

    Returns:
        The model and every problem found, by line. Where all problems are misspelt keys, the model is what was most
        likely meant, so that other files can be held against it; where the file cannot be understood, it is None.
    """
    broken = [key for key, _ in source.problems]
    value, errors = _validate(source.value, model)
    found = [(*_locate(source.value, error), error) for error in errors]
    unknown = [part for part in found if part[2]["type"] == "extra_forbidden"]
    if unknown:  # what seems to be missing may be there under a misspelt name, and may hold problems of its own
        respelt = _respelt(source.value, model, [key for key, _, _ in unknown])
        value, errors = _validate(respelt, model)
        found = unknown + [(*_locate(respelt, error), error) for error in errors]
    complaints: dict[tuple[tuple[Key, ...], bool], list[str]] = {}
    for key, is_branch, error in found:
        # Of a union (text or keys), the branch that got further into the file is the one that was meant.
        is_shallow = is_branch and any(len(other) > len(key) and other[: len(key)] == key for other, _, _ in found)
        if not is_shallow and not any(key[: len(bad)] == bad for bad in broken):
            place = (*key, *_below_model(error))
            complaints.setdefault((place, is_branch), []).append(_words(model, key, error))
    problems = [problem for _, problem in source.problems]
    for (key, is_branch), said in complaints.items():
        words = dict.fromkeys(said)
        problems.extend(source.problem(key, text) for text in (["; or ".join(words)] if is_branch else words))
    return value, sorted(problems, key=lambda problem: problem.line or 0)


def nearest(name: str, known: list[str]) -> str:
    """Return ` (did you mean 'x'?)` for the nearest known name, or the known names, or nothing."""
    if found := difflib.get_close_matches(name, known, n=1, cutoff=0.6):
        return f" (did you mean '{found[0]}'?)"
    return f" (known: {', '.join(sorted(known))})" if known and len(known) <= 24 else ""


def _validate(value: Any, model: type[Model]) -> tuple[Model | None, list[Any]]:
    # By way of JSON, because only there strict types (no `true` for 1, no "7" for 7) go with tuples.
    try:
        text = json.dumps(value, allow_nan=False)
        return model.model_validate_json(text, strict=True, by_alias=True, by_name=False), []
    except ValidationError as error:
        return None, list(error.errors(include_url=False))


def _locate(value: Any, error: Any) -> tuple[tuple[Key, ...], bool]:
    """Return the key of the file that an error is about, and whether it is about one branch of a union."""
    loc = error["loc"][:-1] if error["type"] == "missing" else error["loc"]
    key: list[Key] = []
    is_branch = False
    for part in loc:
        inside = part in value if isinstance(value, dict) else isinstance(value, list) and isinstance(part, int)
        if inside:
            key.append(part)
            value = value[part]
        is_branch = not inside
    return tuple(key), is_branch


def _below_model(error: Any) -> tuple[Key, ...]:
    """Return the rest of the key where an error is reported at the model that holds it."""
    context = error.get("ctx", {})
    if error["type"] == "union_tag_invalid":
        return (str(context["discriminator"]).strip("'"),)
    return context["error"].key if isinstance(context.get("error"), Misplaced) else ()


def _words(model: type[BaseModel], key: tuple[Key, ...], error: Any) -> str:
    """Say what is wrong in a reader's words."""
    kind, found, context = error["type"], error.get("input"), error.get("ctx", {})
    if kind == "extra_forbidden":
        return f"unknown key{nearest(str(key[-1]), _known_at(model, key[:-1]))}"
    if kind in ("missing", "union_tag_not_found"):
        return f"key {context.get('discriminator') or repr(error['loc'][-1])} is missing"
    if kind == "too_short":
        return f"at least {context['min_length']} needed, found {context['actual_length']}"
    if kind == "value_error" and (isinstance(found, dict | list) or len(str(found)) > 80):
        return str(error["msg"]).removeprefix("Value error, ")
    message = WORDS.get(kind, error["msg"].removeprefix("Value error, "))
    shown = repr(found) if isinstance(found, str) else json.dumps(found)
    if kind == "union_tag_invalid":
        message, found = f"must be one of {context['expected_tags']}", context["tag"]
        shown = repr(found)
    elif isinstance(found, dict | list):
        shown = "keys" if isinstance(found, dict) else "a list"
    elif kind == "string_type" and found is not None:
        shown += "; put it in quotes"
    names = re.findall(r"'([^']+)'", str(context.get("expected") or context.get("expected_tags") or ""))
    hint = nearest(str(found), names) if isinstance(found, str) and "known" not in nearest(str(found), names) else ""
    return f"{message[:1].lower()}{message[1:]}, found {one_line(shown, 100)}{hint}"


def _respelt(value: Any, model: type[BaseModel], unknown: list[tuple[Key, ...]]) -> Any:
    """Return a copy in which each unknown key has the nearest free known name, or is left out."""
    copy = json.loads(json.dumps(value))
    for key in unknown:
        holder = copy
        for part in key[:-1]:
            holder = holder[part]
        taken = holder.pop(key[-1])
        free = [name for name in _known_at(model, key[:-1]) if name not in holder]
        for name in difflib.get_close_matches(str(key[-1]), free, n=1, cutoff=0.6):
            holder[name] = taken
    return copy


def _known_at(model: type[BaseModel], key: tuple[Key, ...]) -> list[str]:
    """Return the names that the model knows at a key."""
    kinds: list[Any] = [model]
    for part in key:
        kinds = [inner for kind in _branches(kinds) for inner in _below(kind, part)]
    models = [kind for kind in _branches(kinds) if isinstance(kind, type) and issubclass(kind, BaseModel)]
    return sorted({field.alias or name for kind in models for name, field in kind.model_fields.items()})


def _branches(kinds: list[Any]) -> list[Any]:
    """Take unions and annotations apart."""
    found: list[Any] = []
    for kind in kinds:
        if get_origin(kind) is Annotated:
            found.extend(_branches([get_args(kind)[0]]))
        elif get_origin(kind) in (Union, UnionType):
            found.extend(_branches(list(get_args(kind))))
        else:
            found.append(kind)
    return found


def _below(kind: Any, part: Key) -> list[Any]:
    """Return the types that may stand under a key of a value of type `kind`."""
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is dict:
        return [arguments[1]]
    if origin in (tuple, list):
        return [argument for argument in arguments if argument is not Ellipsis]
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return [field.annotation for name, field in kind.model_fields.items() if part == (field.alias or name)]
    return []
