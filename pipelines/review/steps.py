"""One difference between the files and the repository, and the calls that close it."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

Kind = Literal["ruleset", "label", "environment", "variable"]


class Call(NamedTuple):
    """One request that changes something."""

    method: Literal["POST", "PUT", "PATCH", "DELETE"]
    path: str
    body: dict[str, Any] | None


class Step(NamedTuple):
    """One setting that is not what its file says.

    Attributes:
        kind: What it is.
        name: Its name, safe to print.
        where: The file that declares it.
        what: The difference, in words.
        calls: What would close it; none for what only a person can decide.
        is_unknown: It could not be seen, so nothing is known to differ.
        otherwise: What to send where the repository's plan does not have what `calls` ask for; empty for nothing.
        otherwise_note: What is not protected then, and what stands in for it.
    """

    kind: Kind
    name: str
    where: str
    what: str
    calls: tuple[Call, ...]
    is_unknown: bool = False
    otherwise: tuple[Call, ...] | None = None
    otherwise_note: str = ""

    def __str__(self) -> str:
        return f"{self.kind} {self.name} ({self.where}): {self.what}"
