"""How right a JSON answer is: strictly parsed, held against its schema, compared value by value."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from pipelines.core.errors import ConfigError
from pipelines.evaluation.text import normalise

Schema = dict[str, Any]
MAX_DEPTH = 100  # of nesting; deeper answers are refused so that nothing that walks them can run out of stack


class NotJson(ValueError):
    """The text is not exactly one JSON value."""


def parse_json(text: str) -> Any:
    """Parse text that is one JSON value and nothing else but surrounding white space (RFC 8259).

    Raises:
        NotJson: Anything before or after the value, a key that stands twice, NaN or an infinity, broken nesting.
    """
    try:
        # RFC 8259 knows four white-space characters; str.strip would also take a non-breaking space.
        value = json.loads(
            text.strip(" \t\r\n"), object_pairs_hook=_unique, parse_constant=_refuse, parse_float=_finite
        )
    except (ValueError, RecursionError) as error:
        raise NotJson(str(error)) from None
    if text.count("{") + text.count("[") > MAX_DEPTH and _depth(value) > MAX_DEPTH:
        raise NotJson(f"nested deeper than {MAX_DEPTH} levels")
    return value


def _depth(value: Any) -> int:
    level, depth = [value], 0
    while inner := [part for part in level if isinstance(part, dict | list)]:
        level = [part for outer in inner for part in (outer.values() if isinstance(outer, dict) else outer)]
        depth += 1
    return depth


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        raise ValueError("a key stands twice")
    return value


def _refuse(name: str) -> None:
    raise ValueError(f"{name} is not a JSON number")


def _finite(digits: str) -> float:
    value = float(digits)
    if value in (float("inf"), float("-inf")):
        raise ValueError(f"{digits} is out of range")
    return value


def is_json(text: str) -> bool:
    """Tell whether a gold answer is a JSON object or array (a bare number or word counts as text)."""
    try:
        return isinstance(parse_json(text), dict | list)
    except NotJson:
        return False


def schema_compliance(outputs: Sequence[str], schema: Schema) -> list[float]:
    """Return 1 for each answer that is, as a whole, one JSON value which fits the schema, else 0.

    Args:
        outputs: Answers, shape (n,).
        schema: JSON Schema, draft 2020-12.

    Returns:
        0 or 1, shape (n,).

    Raises:
        ConfigError: The schema refers to something outside itself; nothing is ever fetched.
    """
    fits = validator(schema)

    def complies(text: str) -> float:
        try:
            return float(fits(parse_json(text)))
        except NotJson:
            return 0.0

    known = {output: complies(output) for output in dict.fromkeys(outputs)}
    return [known[output] for output in outputs]


def validator(schema: Schema) -> Callable[[Any], bool]:
    """Return a function that tells whether a value fits a schema.

    Raises:
        ConfigError: (from the function) The schema refers to something outside itself.
    """
    import jsonschema
    import referencing
    import referencing.exceptions

    # Without a registry of our own, jsonschema would fetch remote references.
    check = jsonschema.Draft202012Validator(schema, registry=referencing.Registry())

    def fits(value: Any) -> bool:
        try:
            return check.is_valid(value)
        except referencing.exceptions.Unresolvable as error:
            raise ConfigError(
                f"jsonSchema: cannot resolve '{error.ref}'; write the definition into the schema"
            ) from None
        except RecursionError:
            return False

    return fits


def exact_match(outputs: Sequence[str], golds: Sequence[str], schema: Schema | None = None) -> list[float]:
    """Return 1 for each answer that equals the gold answer, else 0.

    Where both are JSON, values are compared: the order of keys is free, the order of a list counts unless the
    schema says `uniqueItems` of it (a set, such as several intents), 1 equals 1.0 and true does not equal 1.
    Otherwise texts are compared in NFKC, lower case, with single spaces.

    Args:
        outputs: Answers, shape (n,).
        golds: Gold answers, shape (n,).
        schema: JSON Schema of the answer, read only for `uniqueItems`.

    Returns:
        0 or 1, shape (n,).
    """
    return [float(label(output, schema) == label(gold, schema)) for output, gold in zip(outputs, golds, strict=True)]


def label(text: str, schema: Schema | None = None) -> str:
    """Return a form that two answers share exactly if they count as the same answer (see `exact_match`)."""
    try:
        value = parse_json(text)
    except NotJson:
        return normalise(text)
    return _canonical(value, schema or {})


def _canonical(value: Any, schema: Any) -> str:
    """Return canonical JSON text of a value; sets are sorted, numbers are written one way."""
    schema = schema if isinstance(schema, dict) else {}
    if isinstance(value, dict):
        inside = schema.get("properties", {})
        parts = (f"{json.dumps(key)}:{_canonical(value[key], inside.get(key))}" for key in sorted(value))
        return "{" + ",".join(parts) + "}"
    if isinstance(value, list):
        items = [_canonical(item, schema.get("items")) for item in value]
        return "[" + ",".join(sorted(items) if schema.get("uniqueItems") is True else items) + "]"
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return json.dumps(value)


class PairCounts(NamedTuple):
    """(key, value) pairs of one answer against its gold, or of many summed."""

    right: int
    wrong: int
    missed: int

    @property
    def f1(self) -> float:
        """2 right / (2 right + wrong + missed); 1 where neither side has a pair."""
        total = 2 * self.right + self.wrong + self.missed
        return 2 * self.right / total if total else 1.0


def count_pairs(output: str, gold: str) -> PairCounts:
    """Compare the (key, value) pairs of a JSON answer with those of the gold answer.

    A list counts one pair per element, an inner object one per leaf under its dotted key; an answer that is not
    JSON has no pair. Summed over rows the counts give the micro-averaged F1 (Manning et al. 2008, section 13.6).

    Args:
        output: The answer.
        gold: The gold answer, JSON.

    Returns:
        How many pairs are right, wrong (only in the answer) and missed (only in the gold).
    """
    try:
        found = _pairs(parse_json(output))
    except NotJson:
        found = Counter()
    wanted = _pairs(parse_json(gold))
    right = (found & wanted).total()
    return PairCounts(right, found.total() - right, wanted.total() - right)


def _pairs(value: Any) -> Counter[tuple[str, str]]:
    pairs: Counter[tuple[str, str]] = Counter()
    pending: list[tuple[str, Any]] = [("", value)]
    while pending:
        key, part = pending.pop()
        if isinstance(part, dict):
            pending.extend((f"{key}.{name}" if key else name, inner) for name, inner in part.items())
        elif isinstance(part, list):
            pending.extend((f"{key}[]", item) for item in part)
        else:
            pairs[key, _canonical(part, None)] += 1
    return pairs


def field_f1(outputs: Sequence[str], golds: Sequence[str]) -> list[float]:
    """Return F1 over (key, value) pairs per row (see `count_pairs`); 0 where the answer is not JSON.

    Args:
        outputs: Answers, shape (n,).
        golds: Gold answers, JSON, shape (n,).

    Returns:
        Scores from 0 to 1, shape (n,).
    """
    counts: dict[tuple[str, str], float] = {}
    for pair in zip(outputs, golds, strict=True):
        if pair not in counts:
            counts[pair] = _field_f1(*pair)
    return [counts[pair] for pair in zip(outputs, golds, strict=True)]


def _field_f1(output: str, gold: str) -> float:
    try:
        parse_json(output)
    except NotJson:
        return 0.0  # also where the gold has no pair: text that does not parse is no empty answer
    return count_pairs(output, gold).f1
