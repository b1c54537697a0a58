"""A scripted target that counts as a splitter does, for the judge that `gates.yaml` declares."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipelines.release.counters import Arm, Counters, Epoch
from pipelines.release.sequences import Moments
from pipelines.release.tallies import Pair, Tally
from pipelines.release.targets import NO_TERMS, CountersUnavailable
from tests.release.scripted import ScriptedTarget


class CountingTarget(ScriptedTarget):
    """Both sides answer `per_second` requests together, one user each; of the candidate's the share `errors` fails."""

    def set_weight(self, share: float, terms: Mapping[str, Any] = NO_TERMS) -> None:
        super().set_weight(share, terms)
        self.file.change(
            lambda world: world.setdefault("log", []).append(
                [world["now"], share, terms.get("rollout", ""), terms.get("stage", ""), terms.get("window_s", 0)]
            )
        )

    def counters(self, rollout: str, since: float) -> Mapping[str, Any]:
        world = self.file.read()
        script, now, log = world["script"], world["now"], world.get("log", [])
        if any(start <= now - since < end for start, end in script["blind"]):
            raise CountersUnavailable("the metrics source does not answer")
        tally = Tally()
        for index, (start, share, key, stage, window) in enumerate(log):
            end = log[index + 1][0] if index + 1 < len(log) else now
            if share and key == rollout:
                arms = self._arms((end - start) * script["per_second"], share, script["errors"])
                epochs = (*tally.canary.epochs, Epoch(round(share * 100, 9), *arms, stage))
                tally = tally._replace(canary=Counters(epochs))
                if stage == "ab_test":
                    closed = self._arms(max(0.0, end - start - window) * script["per_second"], share, script["errors"])
                    tally = tally._replace(
                        admitted=(arms[0].requests, arms[1].requests), outcomes=self._outcomes(*closed)
                    )
        return tally.as_json()

    def _arms(self, requests: float, share: float, rate: float) -> tuple[Arm, Arm]:
        mine = int(requests * share + 1e-9)
        other = int(requests + 1e-9) - mine
        return (
            Arm(requests=mine, errors=int(mine * rate + 1e-9), users=mine, latency=((30.0, mine),)),
            Arm(requests=other, users=other, latency=((30.0, other),)),
        )

    def _outcomes(self, candidate: Arm, stable: Arm) -> dict[str, Pair]:
        arms = (candidate, stable)
        return {
            "schema_failure_rate": Pair(*(Moments(arm.requests, 0, 0) for arm in arms)),
            "error_rate": Pair(*(Moments(arm.requests, arm.errors, arm.errors) for arm in arms)),
            # every other answer takes 800 ms, the others 1,000 ms
            "latency_ms": Pair(*(Moments(arm.requests, 900 * arm.requests, 820_000 * arm.requests) for arm in arms)),
        }
