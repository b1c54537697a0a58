"""The document that says how traffic is split: a release writes it, the gateway reads it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, model_validator

from pipelines.core.declared import Declared, Misplaced, load
from pipelines.core.errors import ConfigError, one_line
from pipelines.core.files import write_json
from pipelines.core.params import Count
from pipelines.core.rollout import Seconds

MOST_BYTES = 8192
DIGITS = 9
"""Of a weight in percent: a share that was written comes back as the same number."""


class Split(Declared):
    """Who gets the candidate, and how what they do is counted.

    Attributes:
        rollout: Key of the rollout: counters belong to it, and a new one begins them anew.
        stage: `ab_test`, `canary-1` and so on.
        since: When the stage began, seconds since 1970; 0 while its clock stands.
    """

    schema_version: Literal[1] = 1
    rollout: Annotated[str, Field(pattern=r"^[A-Za-z0-9._+-]{0,200}$")] = ""
    stage: Annotated[str, Field(pattern=r"^[a-z0-9_-]{0,40}$")] = ""
    weight: Annotated[float, Field(ge=0, le=100, description="The candidate's percent of the users.")]
    max_requests_per_user: Count = Field(default=20, description="In one stage; more are not counted.")
    unit: Literal["user", "request"] = Field(default="user", description="What the A/B test compares.")
    window_s: Seconds = Field(default=60.0, description="After a unit's first request: then its outcome is closed.")
    since: Annotated[float, Field(ge=0)] = 0.0

    @model_validator(mode="after")
    def _belongs_to_a_stage(self) -> Split:
        for name in ("rollout", "stage"):
            if self.weight > 0 and not getattr(self, name):
                raise Misplaced("is needed where the weight is above 0", name)
        return self


def of_terms(share: float, terms: Mapping[str, Any]) -> Split:
    """Return the split for a share (0 to 1) under a plan's terms.

    Raises:
        ConfigError: The terms are no such; the message is one line.
    """
    try:
        return Split.model_validate({**terms, "weight": round(share * 100, DIGITS)}, strict=True)
    except ValidationError as error:
        found = error.errors(include_url=False)[0]
        key = ".".join(map(str, found["loc"])) or str(getattr(found.get("ctx", {}).get("error"), "key", ("",))[0])
        said = found["msg"].removeprefix("Value error, ")
        raise ConfigError(f"terms of the rollout: {one_line(key, 60)}: {one_line(said, 200)}") from None


def read(path: Path) -> Split | None:
    """Read a split document; None if there is no such file, and so no split.

    Raises:
        ConfigError: It cannot be read or says something else.
    """
    try:
        if path.stat().st_size > MOST_BYTES:
            raise ConfigError(f"{path}: is too large for a split document; write it with pipelines.core.split")
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror})") from None
    return load(path, Split)


def write(path: Path, split: Split) -> None:
    """Write a split document, whole or not at all."""
    write_json(path, split.model_dump())
