"""Which suites, checks of data and models a pull request weakens or replaces in `params.yaml`."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from pipelines.core.params import Dataset, LengthRange, Params, Suite, Validation

REPLACED = ("dataset", "split", "model", "judges", "classifiers")


def weakened(before: Params, after: Params) -> tuple[str, ...]:
    """Say what of the evaluation that `before` declares `after` leaves out, shortens or replaces.

    What only training reads may change freely: the gates judge what comes of it. A model's source may not, because what
    answers or what is downloaded then comes from somewhere else, and neither may a price, which gates on cost rest on.

    Returns:
        One sentence for each; none where every suite measures at least what it did.
    """
    found = [*_suites(before.suites, after.suites), *_validations(before.validate_, after.validate_)]
    found += [
        *_columns(before.datasets, after.datasets),
        *_models(before, after),
        *_latency(before, after),
    ]
    return tuple(f"params.yaml: {sentence}" for sentence in found)


def _suites(before: Mapping[str, Suite], after: Mapping[str, Suite]) -> Iterator[str]:
    for name, old in before.items():
        place, new = f"suites.{name}", after.get(name)
        if new is None:
            yield f"{place}: removed or renamed, so that nothing measures what it did"
            continue
        for key in REPLACED:
            was, now = getattr(old, key), getattr(new, key)
            if was != now:
                shown = f" from '{was}' to '{now}'" if isinstance(was, str) else ""
                yield f"{place}.{key}: changed{shown}"
        gone = [metric for metric in old.metrics if metric not in new.metrics]
        if gone:
            yield f"{place}.metrics: no longer measures {', '.join(gone)}"
        if new.repeats < old.repeats:
            yield f"{place}.repeats: lowered from {old.repeats} to {new.repeats}"
        if (new.max_rows or math.inf) < (old.max_rows or math.inf):
            yield f"{place}.max_rows: lowered from {old.max_rows or 'all'} to {new.max_rows}"


def _columns(before: Mapping[str, Dataset], after: Mapping[str, Dataset]) -> Iterator[str]:
    """What joins rows into clusters or marks attacks decides how sure a result is, and what counts as one."""
    for name, old in before.items():
        new = after.get(name)
        for key in ("slice", "twin", "group", "attack"):
            if new is not None and getattr(old, key) is not None and getattr(new, key) != getattr(old, key):
                yield f"datasets.{name}.{key}: changed from '{getattr(old, key)}' to '{getattr(new, key) or 'none'}'"


def _validations(before: Mapping[str, Validation], after: Mapping[str, Validation]) -> Iterator[str]:
    for name, old in before.items():
        place, new = f"validate.{name}", after.get(name)
        if new is None:
            yield f"{place}: removed, so that nothing checks these rows"
            continue
        for key in Validation.model_fields:
            if key != "prompt" and not _is_as_strict(key, getattr(old, key), getattr(new, key)):
                yield f"{place}.{key}: allows more than before"


def _is_as_strict(key: str, old: Any, new: Any) -> bool:
    if isinstance(old, LengthRange):
        return bool(new.min >= old.min and new.max <= old.max)
    if key.startswith("min_"):
        return bool(new >= old)
    if key.startswith("max_"):
        return bool(new <= old)
    if isinstance(old, dict):  # labels: allowed values by key
        return all(name in new and set(new[name]) <= set(values) for name, values in old.items())
    return not old or (bool(new) and set(new) <= set(old))  # slices: empty allows any


def _models(before: Params, after: Params) -> Iterator[str]:
    for name in sorted({*before.models, *after.models}):
        old, new = before.models.get(name), after.models.get(name)
        if old == new:
            continue
        if new is None:
            yield f"models.{name}: removed"
        elif new.source == "endpoint":
            yield f"models.{name}: {'becomes' if old else 'is'} an endpoint, whose answers nobody can check here"
        elif old is None:
            yield f"models.{name}: added, from a {new.source} that main does not know"
        elif old.model_copy(update={"price": new.price}) == new:
            yield f"models.{name}.price: changed, which gates on cost rest on"
        else:
            yield f"models.{name}: comes from somewhere else ({new.source})"
    if before.candidate != after.candidate:
        yield "candidate.price: changed, which gates on cost rest on"


def _latency(before: Params, after: Params) -> Iterator[str]:
    old, new = before.latency, after.latency
    if new.suite != old.suite:
        yield f"latency.suite: changed from '{old.suite}' to '{new.suite}'"
    if new.requests < old.requests:
        yield f"latency.requests: lowered from {old.requests} to {new.requests}"
    if new.warmup > old.warmup:
        yield f"latency.warmup: raised from {old.warmup} to {new.warmup}, so that slow first requests are left out"
