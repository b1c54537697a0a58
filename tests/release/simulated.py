"""A target whose traffic is counted as a gateway counts it: the same requests at the same moments, run after run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from pipelines.release.targets import NO_TERMS, CountersUnavailable
from tests.release.scripted import File, ScriptedTarget


class Behaviour(NamedTuple):
    """What happens to a side's requests: one of so many fails, breaks its schema, is slow; 0 for none."""

    error: int = 0
    bad_json: int = 19
    slow: int = 97


HEALTHY = Behaviour(97)


class SimulatedTarget(ScriptedTarget):
    """Counts requests by what `set_weight` was told and when."""

    def __init__(self, file: File, candidate: Behaviour, per_second: float = 2) -> None:
        super().__init__(file)
        self.behaviours, self.per_second = {"candidate": candidate, "stable": HEALTHY}, per_second

    def set_weight(self, share: float, terms: Mapping[str, Any] = NO_TERMS) -> None:
        super().set_weight(share, terms)
        epoch = [self.file.read()["now"], share, terms.get("stage", "")]
        self.file.change(lambda world: world.setdefault("epochs", []).append(epoch))

    def counters(self, rollout: str, since: float) -> Mapping[str, Any]:
        world = self.file.read()
        passed, told = world["now"] - since, world.get("epochs", [])
        if any(start <= passed < end for start, end in world["script"]["blind"]):
            raise CountersUnavailable("the metrics source does not answer")
        ends = [*(began for began, _, _ in told[1:]), world["now"]][: len(told)]
        epochs, outcomes, admitted, seen = [], {}, {}, {"candidate": 0, "stable": 0}
        for (began, share, stage), end in zip(told, ends, strict=True):
            if share == 0:
                continue
            n = int((end - began) * self.per_second)
            split = {"candidate": round(n * share), "stable": n - round(n * share)}
            arms = {side: self._arm(side, seen[side], seen[side] + size) for side, size in split.items()}
            seen = {side: seen[side] + size for side, size in split.items()}
            epochs.append({"stage": stage, "weight": round(share * 100, 9), **arms})
            if stage == "ab_test":
                admitted = split
                outcomes = {
                    "schema_failure_rate": {side: _moments(arm, "schema_failures") for side, arm in arms.items()},
                    "error_rate": {side: _moments(arm, "errors") for side, arm in arms.items()},
                    "latency_ms": {side: _latency(arm) for side, arm in arms.items()},
                }
        return {"canary": {"epochs": epochs}, "ab_test": {"admitted": admitted, "outcomes": outcomes}}

    def _arm(self, side: str, first: int, last: int) -> dict[str, Any]:
        """Return the counts of a side's requests from `first` to `last`, by their place in the order."""
        does = self.behaviours[side]

        def count(every: int) -> int:
            return last // every - first // every if every else 0

        n = last - first
        return {
            "requests": n, "users": n, "errors": count(does.error), "schema_failures": count(does.bad_json),
            "latency": [[1.0, n // 2], [10.0, n - count(does.slow)]],
        }  # fmt: skip


def _moments(arm: Mapping[str, Any], event: str) -> list[float]:
    return [arm["requests"], arm[event], arm[event]]


def _latency(arm: Mapping[str, Any]) -> list[float]:
    """Half of the requests take 800 ms and the others 1,200."""
    n, fast = arm["requests"], arm["requests"] // 2
    return [n, 800.0 * fast + 1200.0 * (n - fast), 640_000.0 * fast + 1_440_000.0 * (n - fast)]
