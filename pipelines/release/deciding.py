"""What follows from a verdict and the time that has passed. Nothing here reads a file or a clock."""

from __future__ import annotations

from typing import Literal, NamedTuple

from pipelines.core.errors import ConfigError, one_line
from pipelines.release.plan import VERDICTS

Action = Literal["advance", "rollback", "hold", "wait"]


class Situation(NamedTuple):
    """What else than the verdict has a say; history keeps it, so that every decision can be made again.

    Attributes:
        elapsed_s: Since the stage began, less any pause, seconds.
        blind_s: Since nothing can be measured, seconds; 0 where something can.
        look_every_s: A stage is never shorter.
        max_duration_s: Longest time of the stage.
        max_unknown_s: Longest time without measurement.
        on_insufficient: `rollback` or `hold`, when the time is over.
        is_paused: Whether a person holds the rollout.
        has_traffic: Whether a candidate that may advance has the stage's share; else all counts came of earlier stages.
    """

    elapsed_s: float
    blind_s: float
    look_every_s: float
    max_duration_s: float
    max_unknown_s: float
    on_insufficient: str
    is_paused: bool = False
    has_traffic: bool = True


class Decided(NamedTuple):
    """What is done, and what the time has to do with it; empty where the judge's own reason says it all."""

    action: Action
    why: str = ""


def decide(verdict: str, situation: Situation) -> Decided:
    """Return what follows from a verdict.

    A pause holds everything but the way back: `rollback` and blindness still end the rollout. `invalid` never advances.

    Raises:
        ConfigError: The verdict is none of the five.
    """
    if verdict not in VERDICTS:
        raise ConfigError(f"verdict {one_line(verdict, 60)!r} is none of {', '.join(VERDICTS)}; correct the judge")
    if verdict == "rollback":
        return Decided("rollback")  # the judge says why
    if verdict == "unknown":
        if situation.blind_s >= situation.max_unknown_s:
            return Decided("rollback", f"inconclusive, nothing could be measured for {situation.blind_s:.0f} s")
        return Decided("wait")
    if situation.is_paused or situation.elapsed_s < situation.look_every_s:
        return Decided("wait")
    if verdict == "advance":
        return Decided("advance" if situation.has_traffic else "wait")
    if situation.elapsed_s < situation.max_duration_s:
        return Decided("wait")
    what = "the counters could not be trusted" if verdict == "invalid" else "not enough evidence"
    why = f"inconclusive, {what} within {situation.max_duration_s:.0f} s"
    return Decided("hold" if situation.on_insufficient == "hold" else "rollback", why)
