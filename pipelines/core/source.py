"""Parse a declared YAML file into plain values that still know their lines, and refuse what YAML could hide."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from pipelines.core.errors import ConfigError, one_line
from pipelines.core.files import read_text

MOST_BYTES = 1 << 20  # a declared file is a few pages; a prompt with many examples may be long
MOST_LEVELS = 32
MOST_DIGITS = 18

Key = str | int

# YAML 1.2's core schema, which is also what DVC reads: no dates, no `no` for false, and 2e-3 is a number.
NULLS = {"", "~", "null", "Null", "NULL"}
BOOLEANS = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
INTEGER = re.compile(r"[-+]?[0-9]+|0x[0-9a-fA-F]+|0o[0-7]+")
NUMBER = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
NOT_FINITE = re.compile(r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)")
CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f\ud800-\udfff\ufeff\ufffe\uffff]")
# The C parser is ten times faster; it is missing only where PyYAML was built without libyaml.
Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class Problem(NamedTuple):
    """One thing wrong in a declared file; printed as `file:line: key: message`, on one line whatever it holds."""

    path: str
    line: int | None
    key: str
    message: str

    def __str__(self) -> str:
        line = "" if self.line is None else f":{self.line}"
        key = f" {self.key}:" if self.key else ""
        return one_line(f"{self.path}{line}:{key} {self.message}")


class Source(NamedTuple):
    """A parsed YAML file: its value, the line of each key, and what is wrong with it as YAML."""

    path: str
    value: Any
    lines: dict[tuple[Key, ...], int]
    problems: list[tuple[tuple[Key, ...], Problem]]

    def line(self, key: tuple[Key, ...]) -> int | None:
        """Return the line (from 1) of a key, or of the nearest key above it that is there."""
        while key and key not in self.lines:
            key = key[:-1]
        return self.lines.get(key)

    def problem(self, key: tuple[Key, ...], message: str) -> Problem:
        """Say what is wrong at a key, with its line."""
        return Problem(self.path, self.line(key), dotted(key), message)


def dotted(key: tuple[Key, ...]) -> str:
    """Write a key as people read it: `evaluation.gates[1].metrics`."""
    text = ""
    for part in key:
        text += f"[{part}]" if isinstance(part, int) else f".{one_line(part, 60)}" if text else one_line(part, 60)
    return text


def parse(path: Path, shown: str | None = None) -> Source:
    """Parse a YAML file; duplicate keys, aliases, tags and infinite numbers end up in `problems`.

    Args:
        path: The file.
        shown: Name of the file in messages; by default its path.

    Raises:
        ConfigError: The file is missing, empty, too large, not UTF-8 or not YAML; the message names the line.
    """
    name = shown or str(path)
    return parse_text(read_text(path, most_bytes=MOST_BYTES, shown=name), name)


def parse_text(text: str, name: str) -> Source:
    """Parse the text of a YAML file, as `parse` does.

    Args:
        text: The file's.
        name: Of the file, in messages.

    Raises:
        ConfigError: It is empty or not YAML; the message names the line.
    """
    if found := CONTROL.search(text):
        line = text.count("\n", 0, found.start()) + 1
        raise ConfigError(f"{name}:{line}: control character U+{ord(found.group()):04X} is not allowed; delete it")
    try:
        return _Builder(name, text).source()
    except yaml.MarkedYAMLError as error:
        raise ConfigError(_syntax(name, text, error)) from None
    except (yaml.YAMLError, RecursionError, ValueError, OverflowError) as error:
        raise ConfigError(f"{name}: not valid YAML ({type(error).__name__}: {error})") from None


def _syntax(name: str, text: str, error: yaml.MarkedYAMLError) -> str:
    mark = error.problem_mark or error.context_mark
    what = error.problem or error.context or "cannot be read"
    if mark is None:
        return f"{name}: not valid YAML ({what})"
    lines = re.split("\r\n|[\n\r\x85\u2028\u2029]", text)
    line = lines[mark.line] if mark.line < len(lines) else ""
    if "\t" in line[: mark.column + 1]:
        what = "a tab; YAML is indented with spaces"
    return f"{name}:{mark.line + 1}: not valid YAML ({what})"


class _Builder:
    """Turns YAML's events into values; works on events, so that nothing is resolved, expanded or constructed."""

    def __init__(self, name: str, text: str) -> None:
        self.name = name
        self.events: Iterator[Any] = iter(yaml.parse(text, Loader=Loader))
        self.lines: dict[tuple[Key, ...], int] = {}
        self.problems: list[tuple[tuple[Key, ...], Problem]] = []

    def source(self) -> Source:
        next(self.events)  # the stream begins
        if isinstance(next(self.events), yaml.StreamEndEvent):
            raise ConfigError(f"{self.name}: is empty; docs/ and schemas/ say what belongs in it")
        value = self.value(next(self.events), ())
        next(self.events)  # the document ends
        following = next(self.events)
        if not isinstance(following, yaml.StreamEndEvent):
            line = following.start_mark.line + 1
            raise ConfigError(f"{self.name}:{line}: a second document begins (---); one file holds one")
        if value is None and not self.problems:
            raise ConfigError(f"{self.name}: is empty; docs/ and schemas/ say what belongs in it")
        return Source(self.name, value, self.lines, self.problems)

    def report(self, key: tuple[Key, ...], event: Any, message: str) -> None:
        self.problems.append((key, Problem(self.name, event.start_mark.line + 1, dotted(key), message)))

    def value(self, event: Any, key: tuple[Key, ...]) -> Any:
        self.lines.setdefault(key, event.start_mark.line + 1)
        if isinstance(event, yaml.AliasEvent) or event.anchor is not None:
            self.report(key, event, "anchors and aliases (&name, *name) are not allowed; write the value out")
            if isinstance(event, yaml.AliasEvent):
                return None
        if event.tag is not None:
            self.report(key, event, f"tags are not allowed; remove '{event.tag[:60]}'")
        if isinstance(event, yaml.ScalarEvent):
            return self.scalar(event, key)
        if len(key) >= MOST_LEVELS:
            line = event.start_mark.line + 1
            raise ConfigError(
                f"{self.name}:{line}: is nested more than {MOST_LEVELS} levels deep; is a bracket missing?"
            )
        return self.sequence(key) if isinstance(event, yaml.SequenceStartEvent) else self.mapping(key)

    def sequence(self, key: tuple[Key, ...]) -> list[Any]:
        items: list[Any] = []
        while not isinstance(event := next(self.events), yaml.SequenceEndEvent):
            items.append(self.value(event, (*key, len(items))))
        return items

    def mapping(self, key: tuple[Key, ...]) -> dict[str, Any]:
        values: dict[str, Any] = {}
        while not isinstance(event := next(self.events), yaml.MappingEndEvent):
            line = event.start_mark.line + 1
            if not isinstance(event, yaml.ScalarEvent):
                raise ConfigError(f"{self.name}:{line}: a key must be a plain word")
            name = str(event.value)
            inside = (*key, name)
            if event.anchor is not None or event.tag is not None:
                self.report(inside, event, "a key must be a plain word, without anchor or tag")
            if CONTROL.search(name):
                self.report(inside, event, "control characters are not allowed in a key")
            if name in values:
                self.report(inside, event, f"stands here twice, first in line {self.lines[inside]}; keep one")
                self.value(next(self.events), (*inside, "(again)"))
                continue
            self.lines[inside] = line
            values[name] = self.value(next(self.events), inside)
        return values

    def scalar(self, event: Any, key: tuple[Key, ...]) -> Any:
        text = str(event.value)
        if CONTROL.search(text):
            self.report(key, event, "control characters are not allowed in a value")
        if event.style:  # in quotes, or a block of text (plain: None from one parser, "" from the other)
            return text
        if text in NULLS:
            return None
        if text in BOOLEANS:
            return BOOLEANS[text]
        if INTEGER.fullmatch(text):
            if len(text) > MOST_DIGITS:
                self.report(key, event, f"a number of {len(text)} digits is too long; put text in quotes")
                return 0
            return int(text, 16 if text[:2] == "0x" else 8 if text[:2] == "0o" else 10)
        if NOT_FINITE.fullmatch(text) or (NUMBER.fullmatch(text) and float(text) in (float("inf"), float("-inf"))):
            self.report(key, event, f"'{text[:20]}' is not a finite number; put text in quotes")
            return 0.0
        return float(text) if NUMBER.fullmatch(text) else text
