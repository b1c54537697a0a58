"""A declared file that does not fit its model: each problem in a reader's words, at its key."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from pydantic import Field, ValidationError, model_validator

from pipelines.core.declared import Declared, Misplaced, check, load, nearest
from pipelines.core.errors import ConfigError
from pipelines.core.source import parse


class Cat(Declared):
    kind: Literal["cat"]
    lives: Annotated[int, Field(ge=1)] = 9


class Dog(Declared):
    kind: Literal["dog"]
    tricks: tuple[str, ...] = ()


class Owner(Declared):
    name: str
    years: float | None = None
    is_happy: bool = True
    pets: tuple[Annotated[Cat | Dog, Field(discriminator="kind")], ...] = ()
    homes: dict[str, Cat] = {}
    answer: str | dict[str, str] = ""
    short: int = Field(default=0, alias="shortName")

    @model_validator(mode="after")
    def _no_nero(self) -> Owner:
        if "nero" in self.homes:
            raise Misplaced("burns", "homes", "nero")
        return self


def problems(folder: Path, text: str) -> list[str]:
    path = folder / "x.yaml"
    path.write_text(text)
    _, found = check(parse(path, shown="x.yaml"), Owner)
    return [str(problem) for problem in found]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("nam: a", "x.yaml:1: nam: unknown key (did you mean 'name'?)"),
        (
            "name: a\nzzz: 1",
            "x.yaml:2: zzz: unknown key (known: answer, homes, is_happy, name, pets, shortName, years)",
        ),
        ("years: 1", "x.yaml:1: key 'name' is missing"),
        ("name: 3", "x.yaml:1: name: text is needed, found 3; put it in quotes"),
        ("name: null", "x.yaml:1: name: text is needed, found null"),
        ("name: [a]", "x.yaml:1: name: text is needed, found a list"),
        ("name: a\nyears: '3'", "x.yaml:2: years: a number is needed, found '3'"),
        ("name: a\nyears: true", "x.yaml:2: years: a number is needed, found true"),
        ("name: a\nis_happy: no", "x.yaml:2: is_happy: true or false is needed, found 'no'"),
        ("name: a\nis_happy: 1", "x.yaml:2: is_happy: true or false is needed, found 1"),
        ("name: a\nshort: 1", "x.yaml:2: short: unknown key (did you mean 'shortName'?)"),
        ("name: a\npets: {kind: cat}", "x.yaml:2: pets: a list is needed, found keys"),
        (
            "name: a\npets:\n- kind: cat\n  lives: 0",
            "x.yaml:4: pets[0].lives: input should be greater than or equal to 1",
        ),
        ("name: a\npets:\n- kind: cat\n  live: 1", "x.yaml:4: pets[0].live: unknown key (did you mean 'lives'?)"),
        ("name: a\npets:\n- kind: cow", "x.yaml:3: pets[0].kind: must be one of 'cat', 'dog', found 'cow'"),
        ("name: a\npets:\n- lives: 1", "x.yaml:3: pets[0]: key 'kind' is missing"),
        (
            "name: a\nhomes: {live: {kind: cat, live: 2}}",
            "x.yaml:2: homes.live.live: unknown key (did you mean 'lives'?)",
        ),
        ("name: a\nhomes:\n  nero: {kind: cat}", "x.yaml:3: homes.nero: burns"),
        ("name: a\nanswer: 5", "x.yaml:2: answer: text is needed, found 5; put it in quotes; or keys with values are"),
        ("name: a\nanswer:\n  b: 5", "x.yaml:3: answer.b: text is needed, found 5; put it in quotes"),
        ("- a", "x.yaml:1: keys with values are needed, found a list"),
        ("7", "x.yaml:1: keys with values are needed, found 7"),
        ("name: a\nyears: .nan", "x.yaml:2: years: '.nan' is not a finite number; put text in quotes"),
    ],
)
def test_what_does_not_fit_is_said_in_one_line(tmp_path: Path, text: str, line: str) -> None:
    (said,) = problems(tmp_path, text)
    assert line in said


def test_every_problem_is_told_and_each_once(tmp_path: Path) -> None:
    said = problems(tmp_path, "nane: a\nyears: 1\nyears: 2\nis_happy: 7\npets: [{kind: dog, trick: [1]}]\n")
    assert said == [
        "x.yaml:1: nane: unknown key (did you mean 'name'?)",
        "x.yaml:3: years: stands here twice, first in line 2; keep one",
        "x.yaml:4: is_happy: true or false is needed, found 7",
        "x.yaml:5: pets[0].trick: unknown key (did you mean 'tricks'?)",
        "x.yaml:5: pets[0].tricks[0]: text is needed, found 1; put it in quotes",
    ]


def test_a_file_with_nothing_but_misspelt_keys_is_understood_all_the_same(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text("nmae: a\nyeers: 2\n")
    value, found = check(parse(path), Owner)
    assert value == Owner(name="a", years=2)
    assert len(found) == 2


def test_a_misspelt_key_is_still_refused_where_the_file_is_used(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text("nmae: a\nyeers: 2\n")
    with pytest.raises(
        ConfigError, match=r"unknown key \(did you mean 'name'\?\) \(and 1 more; run `python -m scripts"
    ):
        load(path, Owner)


def test_what_is_loaded_never_changes(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text("name: a\nyears: 2\n")
    value = load(path, Owner)
    assert value.years == 2.0
    with pytest.raises(ValidationError):
        value.name = "b"  # type: ignore[misc]


def test_long_and_hostile_values_are_shown_short_and_harmless(tmp_path: Path) -> None:
    value: Any = "\\u202e\\n" + "z" * 9000
    (said,) = problems(tmp_path, f'name: a\nyears: "{value}"')
    assert said.isprintable()
    assert len(said) < 200


def test_the_nearest_name_is_offered_or_a_short_list_or_nothing() -> None:
    assert nearest("flor", ["floor", "ceiling"]) == " (did you mean 'floor'?)"
    assert nearest("zzz", ["floor", "ceiling"]) == " (known: ceiling, floor)"
    assert nearest("zzz", [f"name{n}" for n in range(30)]) == ""
    assert nearest("zzz", []) == ""
