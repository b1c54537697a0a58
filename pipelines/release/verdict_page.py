"""`/v1/verdict` of the gateway: what Git's own run would decide of the rollout that is under way, for who asks by HTTP.

Argo Rollouts takes a candidate back by it while no run of ours is there. Where nothing can be measured, or nothing says
what to judge by, the answer is a 503: who asks counts these in a row, over all replicas, and none of them can alone.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

from pipelines.core.errors import ConfigError, one_line
from pipelines.core.rollout import Target
from pipelines.core.split import Split
from pipelines.release import prometheus
from pipelines.release.canary import AB_TEST
from pipelines.release.deciding import Situation, decide
from pipelines.release.judge import plan_of
from pipelines.release.plan import Plan, Stage
from pipelines.release.targets import CountersUnavailable
from pipelines.serving.config import Serving

DAY_S = 86_400.0


class UnderWay(Protocol):
    """What the gateway knows of the rollout."""

    @property
    def serving(self) -> Serving:
        """Return the declared file."""

    @property
    def split(self) -> Split | None:
        """Return the split in force."""

    @property
    def counters(self) -> Mapping[str, Any]:
        """Return what this one process counted."""


class VerdictPage:
    """Answers with a verdict; asks Prometheus where one is named, because a replica alone counted only a part.

    Args:
        gates: The `gates.yaml` to judge by; of its rollouts the cluster's, where an HTTPRoute holds the weights.
        address: Of Prometheus; without it, what the asked process counted is all that there is.
        token: For Prometheus, where it asks for one.
    """

    def __init__(self, gates: Path, address: str = "", token: str = "") -> None:
        self._gates, self._address, self._token = gates, address, token
        self._plan = lru_cache(maxsize=2)(lambda target, data: plan_of(target)(data))

    def __call__(self, query: Mapping[str, str], under_way: UnderWay) -> tuple[int, dict[str, Any]]:
        """Return status and body: `verdict` is one of five words, `reasons` say why.

        Args:
            query: `stage`, where only this one is to advance.
            under_way: What the gateway knows.
        """
        split = under_way.split
        if split is None:
            about = {"message": "no release is under way: verdicts come with one", "code": "no_release"}
            return 404, {"error": {**about, "type": "not_found_error", "param": None}}
        if not split.weight:  # no pod of the candidate is there (yet, or at the moment): nobody can be harmed
            return 200, {"weight": 0.0, "verdict": "hold", "reasons": ["the candidate gets no traffic"]}
        now: dict[str, Any] = {"rollout": split.rollout, "stage": split.stage, "weight": split.weight}
        try:
            plan = self._plan(_target(under_way.serving), self._gates.read_bytes())
            stage, index = _stage(plan, split.stage)
            found = self._judged(plan, stage, index, split, under_way.counters)
        except (ConfigError, OSError, CountersUnavailable) as error:
            return 503, {**now, "verdict": "unknown", "reasons": [one_line(str(error))]}
        asked = query.get("stage", split.stage)
        if found["verdict"] == "advance" and asked != split.stage:
            why = f"stage {split.stage} is in force, not {one_line(asked, 60)}"
            found = {**found, "verdict": "hold", "reasons": [why, *found["reasons"]]}
        return 200, {**now, "gates_sha256": plan.gates_sha256, **found}

    def _judged(self, plan: Plan, stage: Stage, index: int, split: Split, own: Mapping[str, Any]) -> dict[str, Any]:
        """Return the verdict and everything that led to it, the time among it."""
        counters = self._asked(plan, split) if self._address else own
        judged = plan.judge.judge(counters, {**stage.as_json(), "index": index, "before": {}})
        name, told = judged.name, judged.as_json()
        elapsed_s = max(0.0, time.time() - split.since) if split.since else 0.0
        situation = Situation(
            elapsed_s, 0.0, plan.look_every_s, stage.max_duration_s, plan.max_unknown_s,
            stage.on_insufficient or plan.on_insufficient, is_paused=not split.since,
        )  # fmt: skip
        decided = decide(name, situation)
        word = "hold" if name == "advance" else name  # too early, or a person holds it
        if decided.action in ("advance", "rollback"):
            word = decided.action
        reasons = [decided.why, *told["reasons"]] if decided.why else told["reasons"]
        return {**told, "verdict": word, "reasons": reasons, "elapsed_s": round(elapsed_s, 3)}

    def _asked(self, plan: Plan, split: Split) -> dict[str, Any]:
        """Ask Prometheus for everything since the rollout can have begun; a split only says when its stage did."""
        stages = [*plan.stages, *([plan.ab_test] if plan.ab_test else [])]
        longest_s = sum(stage.max_duration_s for stage in stages) + DAY_S
        since = time.time() - longest_s
        return prometheus.counters(self._address, split.rollout, since, split.unit, token=self._token)


def _target(serving: Serving) -> Target:
    is_cluster = serving.rollout is not None and serving.rollout.weights.http_route is not None
    return "kubernetes" if is_cluster else "local"


def _stage(plan: Plan, key: str) -> tuple[Stage, int]:
    """Return the stage of this name, and its place among the canary stages."""
    if key == AB_TEST and plan.ab_test is not None:
        return plan.ab_test, 0
    for index, stage in enumerate(plan.stages):
        if stage.key(index) == key:
            return stage, index
    raise ConfigError(f"gates.yaml: declares no stage '{one_line(key, 60)}'; the rollout goes by another file")
