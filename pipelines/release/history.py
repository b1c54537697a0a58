"""`history/<rollout_id>.json`: what happened to one release, in order; events are added and never changed."""

from __future__ import annotations

import json
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from pipelines.core.errors import ConfigError

ENDS = ("released", "rolled_back", "restored")


class _Kept(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Event(_Kept):
    """One thing that happened.

    Attributes:
        at: When, as `clock.written` writes it.
        attempt: Of which attempt, from 1.
        step: The step that did it.
        action: begin, done, start, advance, rollback, late, hold, resume, lift, unknown, known, or how it ended:
            released, rolled_back, restored.
        said: One sentence; the commit says the same.
        by: A person's name or a run's URL.
        weight: Share of traffic that the candidate is to get from here on.
        observed: What was seen.
        stage: The stage that was judged, as `Stage.as_json`.
        counters: What was counted, or None where it could not be read.
        verdict: The judge's words, or None where nothing was judged.
        situation: What else decided, as `Situation`.
    """

    at: str
    attempt: int
    step: str
    action: str
    said: str
    by: str
    weight: float = 0.0
    observed: dict[str, Any] = {}
    stage: dict[str, Any] | None = None
    counters: dict[str, Any] | None = None
    verdict: dict[str, Any] | None = None
    situation: dict[str, Any] | None = None


class History(_Kept):
    """The whole file: what is released, and its events."""

    schema_version: Literal[1] = 1
    rollout_id: str
    tag: str
    tag_object: str
    version: str
    commit: str
    model_digest: str
    gates_sha256: str
    target: str
    events: tuple[Event, ...] = ()

    def adding(self, event: Event) -> History:
        """Return the history with one more event."""
        return self.model_copy(update={"events": (*self.events, event)})

    def of_attempt(self, attempt: int) -> list[Event]:
        """Return one attempt's events."""
        return [event for event in self.events if event.attempt == attempt]

    def traffic_since(self, attempt: int) -> str:
        """Return when the candidate first got traffic in an attempt; empty where it never did."""
        return next((event.at for event in self.of_attempt(attempt) if event.weight > 0), "")

    def counters_before(self, attempt: int) -> dict[str, Any]:
        """Return the counters at the beginning of the stage that runs; empty in the first one."""
        return before(self.of_attempt(attempt))

    @property
    def last_action(self) -> str:
        """Return the last event's action, or nothing."""
        return self.events[-1].action if self.events else ""

    def as_file(self) -> bytes:
        """Return the file's bytes."""
        text = json.dumps(self.model_dump(mode="json"), indent=1, ensure_ascii=False, allow_nan=False)
        return f"{text}\n".encode()


def before(events: list[Event]) -> dict[str, Any]:
    """Return the counters of the last event that let a stage pass, or nothing."""
    return next((event.counters or {} for event in reversed(events) if event.action == "advance"), {})


def read_history(data: bytes, shown: str) -> History:
    """Return the history that a file holds.

    Raises:
        ConfigError: The file is broken; the message names the key.
    """
    try:
        return History.model_validate_json(data)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(str(part) for part in first["loc"]) or "the file"
        raise ConfigError(f"{shown}: {key}: {first['msg'].lower()}; restore the file from Git's history") from None
