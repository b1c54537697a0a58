"""YAML that hides something is refused in one line with its place, and every key keeps its line."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from pipelines.core.errors import ConfigError
from pipelines.core.source import MOST_BYTES, Problem, dotted, parse


def write(folder: Path, text: str | bytes) -> Path:
    path = folder / "x.yaml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def refusal(path: Path) -> str:
    """Return the one line with which a file is refused, whether at once or as a list."""
    try:
        source = parse(path, shown="x.yaml")
    except ConfigError as error:
        return str(error)
    assert source.problems, f"nothing is wrong with {source.value!r:.80}"
    return str(source.problems[0][1])


ODDITIES = {
    "tab": ("a:\n\tb: 1\n", "x.yaml:2: not valid YAML (a tab; YAML is indented with spaces)"),
    "duplicate key": ("a: 1\nb: 2\na: 3\n", "x.yaml:3: a: stands here twice, first in line 1; keep one"),
    "alias": (
        "a: &x 1\nb: *x\n",
        "x.yaml:1: a: anchors and aliases (&name, *name) are not allowed; write the value out",
    ),
    "alias of nothing": ("b: *x\n", "x.yaml:1: b: anchors and aliases"),
    "many laughs": ("a: &a [x, x]\nb: &b [*a, *a]\nc: &c [*b, *b]\n", "x.yaml:1: a: anchors and aliases"),
    "merge key": ("a: &a {b: 1}\nc:\n  <<: *a\n", "x.yaml:1: a: anchors and aliases"),
    "python tag": (
        "a: !!python/object/apply:os.system [ls]\n",
        "x.yaml:1: a: tags are not allowed; remove 'tag:yaml.org",
    ),
    "tag of a key": ("!!str a: 1\n", "x.yaml:1: a: a key must be a plain word, without anchor or tag"),
    "two documents": ("a: 1\n---\nb: 2\n", "x.yaml:2: a second document begins (---); one file holds one"),
    "NUL": ("a: 1\nb: \0\n", "x.yaml:2: control character U+0000 is not allowed; delete it"),
    "escape code": ("a: \x1b[31mred\n", "x.yaml:1: control character U+001B is not allowed"),
    "hidden control character": ('a: "\\0"\n', "x.yaml:1: a: control characters are not allowed in a value"),
    "control character in a key": ('"\\e[2J": 1\n', "control characters are not allowed in a key"),
    "BOM inside": ("a: 1\nb: \ufeff2\n", "x.yaml:2: control character U+FEFF"),
    "not UTF-8": (b"a: 1\nb: \xff\n", "x.yaml:2: byte 0xff is not UTF-8; save the file as UTF-8"),
    "UTF-16": ("a: 1\n".encode("utf-16"), "x.yaml:1: byte 0xff is not UTF-8"),
    "UTF-16 without mark": ("a: 1\n".encode("utf-16-le"), "x.yaml:1: control character U+0000"),
    "deep nesting": ("a: " + "[" * 10_000, "x.yaml:1: is nested more than 32 levels deep; is a bracket missing?"),
    "deep keys": ("".join(" " * n + "a:\n" for n in range(500)), "x.yaml:33: is nested more than 32 levels deep"),
    "huge number": ("a: " + "9" * 5000, "x.yaml:1: a: a number of 5000 digits is too long; put text in quotes"),
    "NaN": ("a: .nan\n", "x.yaml:1: a: '.nan' is not a finite number; put text in quotes"),
    "infinity": ("a: -.inf\n", "x.yaml:1: a: '-.inf' is not a finite number"),
    "overflow": ("a: 1e999\n", "x.yaml:1: a: '1e999' is not a finite number"),
    "list as a key": ("? [a, b]\n: 1\n", "x.yaml:1: a key must be a plain word"),
    "empty": ("", "x.yaml: is empty"),
    "only comments": ("# nothing\n", "x.yaml: is empty"),
    "null": ("~\n", "x.yaml: is empty"),
    "open bracket": ("a: [1, 2\n", "x.yaml:2: not valid YAML ("),
    "open quote": ('a: "b\n', "x.yaml:2: not valid YAML ("),
    "colon in text": ("a: b: c\n", "x.yaml:1: not valid YAML (mapping values are not allowed"),
    "bad directive": ("%YAML 9.9\n---\na: 1\n", "not valid YAML ("),
    "bad escape": ('a: "\\uD800"\n', "x.yaml:1:"),
}


@pytest.mark.parametrize("name", ODDITIES)
def test_an_oddity_ends_in_one_line_that_says_where(tmp_path: Path, name: str) -> None:
    text, line = ODDITIES[name]
    started = time.process_time()
    said = refusal(write(tmp_path, text))
    assert line in said
    assert said.isprintable()
    assert time.process_time() - started < 10


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a: 2e-3", 0.002),
        ("a: 1_000", "1_000"),
        ("a: no", "no"),
        ("a: on", "on"),
        ("a: True", True),
        ("a: 010", 10),
        ("a: 0x1F", 31),
        ("a: 0o17", 15),
        ("a: 12:30", "12:30"),
        ("a: 2020-01-01", "2020-01-01"),
        ("a: 0.1.2", "0.1.2"),
        ("a: '7'", "7"),
        ("a: ~", None),
        ("a:", None),
        ("a: -.5", -0.5),
        ("a: .nano", ".nano"),
        ("a: '.nan'", ".nan"),
        ("a: '*x'", "*x"),
        ("a: |\n  one\n  two\n", "one\ntwo\n"),
    ],
)
def test_a_value_means_what_yaml_1_2_says(tmp_path: Path, text: str, value: object) -> None:
    found = parse(write(tmp_path, text)).value["a"]
    assert (found, type(found)) == (value, type(value))


def test_keys_are_text_whatever_they_look_like(tmp_path: Path) -> None:
    assert parse(write(tmp_path, "1: a\ntrue: b\nnull: c\n2020-01-01: d\n")).value == {
        "1": "a", "true": "b", "null": "c", "2020-01-01": "d",
    }  # fmt: skip


def test_a_byte_order_mark_and_windows_line_ends_do_no_harm(tmp_path: Path) -> None:
    source = parse(write(tmp_path, b"\xef\xbb\xbfa: 1\r\nb: 2\r\n"))
    assert source.value == {"a": 1, "b": 2}
    assert source.line(("b",)) == 2


def test_every_key_knows_its_line_and_a_missing_one_that_of_its_holder(tmp_path: Path) -> None:
    source = parse(write(tmp_path, "# head\na:\n  - b: 1\n    c: 2\n  - d\n"))
    assert source.line(("a", 0, "c")) == 4
    assert source.line(("a", 1)) == 5
    assert source.line(("a", 0, "none", "deeper")) == 3
    assert str(source.problem(("a", 0, "c"), "is odd")) == f"{tmp_path}/x.yaml:4: a[0].c: is odd"


def test_several_oddities_are_told_at_once(tmp_path: Path) -> None:
    source = parse(write(tmp_path, "a: .nan\nb: &x 1\na: 2\n"), shown="x.yaml")
    assert [problem.line for _, problem in source.problems] == [1, 2, 3]


def test_a_file_too_large_is_not_read(tmp_path: Path) -> None:
    path = write(tmp_path, "")
    os.truncate(path, 1 << 40)
    assert refusal(path) == f"x.yaml: has {1 << 40:,} bytes, at most {MOST_BYTES:,} are read; split or shorten it"


def test_a_long_line_of_brackets_takes_no_time(tmp_path: Path) -> None:
    started = time.process_time()
    refusal(write(tmp_path, "a: " + "{" * 900_000))
    assert time.process_time() - started < 10


def test_a_problem_is_one_printable_line_whatever_it_is_about() -> None:
    problem = Problem("a\nb.yaml", 3, dotted(("k\x1b", 1, "\u202ex")), "m\ud800" + "y" * 5000)
    assert str(problem).startswith("a\\nb.yaml:3: k\\x1b[1].\\u202ex: m\\ud800yyy")
    assert str(problem).isprintable()
    assert len(str(problem)) < 700
