"""Judge a rollout again from what its history recorded: every verdict, and every decision that followed, must agree."""

from __future__ import annotations

from typing import Any, NamedTuple

from pipelines.core.errors import GateFailed
from pipelines.core.files import canonical_json
from pipelines.release.deciding import Situation, decide
from pipelines.release.history import Event, History, before
from pipelines.release.plan import Judge

FOLLOWS = {"advance": ("advance",), "rollback": ("rollback",), "hold": ("hold",), "wait": ("unknown", "known")}


class Replayed(NamedTuple):
    """One recorded verdict, judged again.

    Attributes:
        event: What was recorded.
        verdict: What the judge says now.
        difference: What does not agree, or nothing.
    """

    event: Event
    verdict: dict[str, Any]
    difference: str


def replay(history: History, judge: Judge) -> list[Replayed]:
    """Return every verdict of a history, judged again in order.

    Args:
        history: The history.
        judge: The judge of the plan that it went by.
    """
    found, passed = [], list[Event]()
    for event in history.events:
        if passed and passed[-1].attempt != event.attempt:
            passed = []
        if event.verdict is not None and event.stage is not None:
            found.append(_again(event, passed, judge))
        passed.append(event)
    return found


def require_agreement(found: list[Replayed]) -> None:
    """Refuse a history that does not say what its counters say.

    Raises:
        GateFailed: A verdict or a decision differs; the message names the first.
    """
    for one in found:
        if one.difference:
            raise GateFailed(f"{one.event.at} {one.event.step}: {one.difference}")


def _again(event: Event, passed: list[Event], judge: Judge) -> Replayed:
    assert event.verdict is not None, "only asked of a verdict"
    assert event.stage is not None, "only asked of a verdict"
    if event.counters is None:
        verdict = event.verdict  # nothing was measured: nothing can be judged but that
        said = "" if verdict.get("name") == "unknown" else f"recorded {verdict.get('name')} without counters"
    else:
        judged = judge.judge(event.counters, {**event.stage, "before": before(passed)})
        verdict = {**judged.as_json(), "name": judged.name}
        said = _difference(event.verdict, verdict)
    if said or event.situation is None:
        return Replayed(event, verdict, said)
    action = decide(str(verdict["name"]), Situation(**event.situation)).action
    if event.action not in FOLLOWS[action]:
        said = f"recorded {event.action}, from the same verdict and times follows {action}"
    return Replayed(event, verdict, said)


def _difference(recorded: dict[str, Any], found: dict[str, Any]) -> str:
    """Say how two verdicts differ, or nothing."""
    if canonical_json(recorded) == canonical_json(found):
        return ""
    if recorded.get("name") != found["name"]:
        return f"recorded {recorded.get('name')}, judged again it is {found['name']}"
    keys = sorted(recorded.keys() | found.keys())
    key = next(key for key in keys if recorded.get(key) != found.get(key))
    return f"{found['name']}, judged again it has another value of '{key}'"
