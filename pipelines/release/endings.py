"""How a run of a release ends: one word, one line for people, an exit code."""

from __future__ import annotations

from typing import Literal, NamedTuple

from pipelines.release.history import ENDS
from pipelines.release.world import Seen

Result = Literal["released", "rolled_back", "paused", "staged", "waiting", "nothing"]
EXIT_CODES: dict[Result, int] = {"released": 0, "rolled_back": 3, "paused": 4, "staged": 0, "waiting": 0, "nothing": 0}


class Outcome(NamedTuple):
    """How a run ended, and one line for people."""

    result: Result
    said: str

    @property
    def exit_code(self) -> int:
        """Return 0, 3 where a release was taken back, or 4 where a person has to decide."""
        return EXIT_CODES[self.result]


def ended(seen: Seen) -> Outcome:
    """Say how the last rollout ended."""
    if seen.history is None:
        return Outcome("nothing", "nothing is on its way")
    last = next((one for one in reversed(seen.history.events) if one.action in ENDS), None)
    if last is None or last.action == "released":
        return Outcome("released", f"{seen.history.tag}: released; it serves all traffic")
    cause = next(one for one in reversed(seen.history.events) if one.action == "rollback")
    return Outcome("rolled_back", f"{cause.said}; {last.said[0].lower()}{last.said[1:]}")


def paused(seen: Seen) -> Outcome:
    """Say who holds what is on its way."""
    pause = seen.state.pause
    assert pause is not None, "only asked while somebody holds it"
    tag = seen.candidate.tag
    return Outcome("paused", f"{tag}: held by {pause.by} since {pause.at} ({pause.why}); let it go, or roll it back")
