"""What the stand-in of GitHub says to a request."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass
class Answer:
    """A status and a JSON body, or a list that is answered by page."""

    status: int
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)
    items: list[Any] | None = None
    wrapped_as: str | None = None


NOT_FOUND = {"message": "Not Found", "documentation_url": "https://docs.github.example/rest"}


def invalid(*errors: str) -> Answer:
    """Return GitHub's answer to a body that it does not take."""
    return Answer(
        422, {"message": "Validation Failed", "errors": [{"code": "custom", "message": one} for one in errors]}
    )
