"""What the judge knows of a pull request, as one file that the gate, the report and the conclusion read."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from pipelines.core.errors import ConfigError
from pipelines.core.files import read_json, write_json
from pipelines.core.records import Approval, Output
from pipelines.evaluation.deciding.caps import Cap

FILE = "context.json"
State = Literal["pending", "ready", "nothing", "failed", "stale", "closed"]


class Context(BaseModel):
    """`context.json`; written by main's code alone, though some of its texts are anybody's.

    Attributes:
        state: What is to be done: `pending` (it is being evaluated), `ready` (decide), `nothing` (nothing measured
            changed), `failed` (say why), `stale` or `closed` (do nothing).
        reason: One sentence for that.
        number: Of the pull request; 0 where there is none.
        head: The judged commit, hex.
        base: Commit of main that it was evaluated on, which is also its baseline.
        tip: Commit of main whose gates decide.
        merge: The tree that was evaluated, hex: `base` with `head` merged into it.
        author: Login.
        is_fork: Whether it comes from another repository.
        is_draft: Whether its author calls it unfinished.
        title: Any text.
        is_evaluated: Whether there are rows; a change that needs none can still need a person.
        caps: Why it may not pass without a person, one sentence each.
        changes: The same by kind.
        approval: Who lifted that, or None.
        lacking: Which approval is missing.
        input_digest: Of `merge`.
        lock: Text of `dvc.lock` that the run wrote.
        manifest: Every file of every output.
        run_url: The run that evaluated.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    schema_version: Literal[1] = 1
    state: State
    reason: str = ""
    number: int = 0
    head: str = ""
    base: str = ""
    tip: str = ""
    merge: str = ""
    author: str = ""
    is_fork: bool = False
    is_draft: bool = False
    title: str = ""
    is_evaluated: bool = True
    caps: list[str] = []
    changes: dict[str, list[str]] = {}
    approval: Approval | None = None
    lacking: str = ""
    input_digest: str = ""
    lock: str = ""
    manifest: dict[str, Output] = {}
    run_url: str = ""

    @property
    def cap(self) -> Cap:
        """What the gate needs of it.

        Raises:
            ConfigError: There is nothing to decide in this state.
        """
        if self.state != "ready":
            raise ConfigError(f"{FILE}: state is '{self.state}', nothing is to be decided: {self.reason}")
        approval = self.approval.model_dump() if self.approval else None
        return Cap(tuple(self.caps), approval, self.lacking, self.input_digest, self.head, self.is_evaluated)

    def write(self, folder: Path) -> None:
        """Write `context.json` into a folder."""
        write_json(folder / FILE, self.model_dump(mode="json"))


def read_context(path: Path) -> Context:
    """Read `context.json`.

    Raises:
        ConfigError: It is missing, or not what `scripts.receive` wrote.
    """
    try:
        return Context.model_validate(read_json(path))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(str(part) for part in first["loc"]) or "the file"
        raise ConfigError(f"{path}: {key}: {first['msg'].lower()}; run `python -m scripts.receive` again") from None
