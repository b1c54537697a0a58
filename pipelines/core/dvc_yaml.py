"""The model of `dvc.yaml`, as far as this repository uses it: stages with one command each."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Discriminator, Field, Tag

from pipelines.core.declared import Declared

Texts = tuple[str, ...]


class Output(Declared):
    """How DVC keeps an output. `persist` is not among the keys: it switches the run cache of its stage off."""

    cache: bool = True
    push: bool = True
    remote: str | None = None
    desc: str | None = None


Outputs = tuple[str | dict[str, Output], ...]


class Stage(Declared):
    """One expensive job: what it runs, reads and writes."""

    cmd: str
    desc: str | None = None
    matrix: dict[str, str | Texts] | None = None
    deps: Texts = ()
    params: tuple[str | dict[str, Texts | None], ...] = ()
    outs: Outputs = ()
    metrics: Outputs = ()
    plots: tuple[str | dict[str, Any], ...] = ()
    frozen: bool = False
    always_changed: bool = False
    meta: Any = None


class Loop(Declared):
    """One stage per item."""

    foreach: Any
    do: Stage


def _kind(value: Any) -> str:
    is_loop = isinstance(value, Loop) or (isinstance(value, dict) and bool({"foreach", "do"} & value.keys()))
    return "a loop" if is_loop else "a stage"


AnyStage = Annotated[Annotated[Stage, Tag("a stage")] | Annotated[Loop, Tag("a loop")], Discriminator(_kind)]


class DvcFile(Declared):
    """`dvc.yaml`."""

    stages: dict[str, AnyStage] = Field(min_length=1)
    vars: tuple[Any, ...] = ()
    params: Texts = ()
    metrics: Texts = ()
    plots: tuple[Any, ...] = ()
    artifacts: dict[str, Any] = {}


def schema() -> dict[str, Any]:
    """Return the JSON Schema that editors use."""
    return DvcFile.model_json_schema(by_alias=True)
