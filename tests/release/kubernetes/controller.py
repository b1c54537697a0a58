"""What Argo Rollouts 1.9 does with a canary of a plugin's traffic router, as its source says; a call is a reconcile.

Followed: rollout/canary.go (syncRolloutStatusCanary, completedCurrentCanaryStep), rollout/sync.go (resetRolloutStatus,
shouldFullPromote, isRollbackWithinWindow), rollout/pause.go, rollout/trafficrouting.go, rollout/analysis.go,
metricproviders/webmetric, utils/replicaset/canary.go.
"""

from __future__ import annotations

import copy
import hashlib
import json
import math
from collections.abc import Callable
from typing import Any

from tests.release.kubernetes.expressions import evaluate

Resource = dict[str, Any]
HASH = "rollouts-pod-template-hash"
Measured = Callable[[], "tuple[int, Any] | None"]


def hashed(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:10]


def reconcile(rollout: Resource, sets: list[Resource], route: Resource, template: Resource, world: Any) -> None:
    """Bring status, ReplicaSets and weights one step on.

    Args:
        rollout: The Rollout; its status is changed.
        sets: Its ReplicaSets; new ones are appended.
        route: The HTTPRoute; its weights are changed.
        template: The AnalysisTemplate.
        world: Has `can_start(template) -> bool`, `replicas`, and `measure() -> (status, body) | None`.
    """
    status = rollout.setdefault("status", {})
    steps = rollout["spec"]["strategy"]["canary"].get("steps", [])
    new = _new_set(rollout, sets)
    pod_hash, step_hash = new["metadata"]["labels"][HASH], hashed(steps)
    changed = status.get("currentPodHash") != pod_hash or status.get("currentStepHash") != step_hash
    status |= {
        "currentPodHash": pod_hash,
        "currentStepHash": step_hash,
        "observedGeneration": str(rollout["metadata"]["generation"]),
    }
    stable = next((one for one in sets if one["metadata"]["labels"][HASH] == status.get("stableRS")), None)
    if changed:
        status |= {"pauseConditions": None, "controllerPause": False, "abort": False, "promoteFull": False}
        status["currentStepIndex"] = 0
        if stable is not None and (stable is new or (_is_in_window(rollout, sets, new, stable) and _available(new))):
            status["currentStepIndex"] = len(steps)
        return
    if stable is None:  # "Initial deploy": whatever is there first is stable, ready or not
        status |= {"stableRS": pod_hash, "currentStepIndex": len(steps)}
        _scale(new, world.replicas, world)
        return
    _route(status, steps, new, stable, route, world)
    _analyse(rollout, status, steps, new, stable, template, world)
    _scale_both(status, steps, new, stable, sets, world)
    _sync(rollout, status, steps, sets, new, stable, world)


def _new_set(rollout: Resource, sets: list[Resource]) -> Resource:
    template = rollout["spec"]["template"]
    pod_hash = hashed(template)
    for one in sets:
        if one["metadata"]["labels"][HASH] == pod_hash:
            return one
    labels = {"app.kubernetes.io/name": "vllm", HASH: pod_hash}
    made = {
        "metadata": {
            "name": f"vllm-{pod_hash}",
            "labels": labels,
            "creation": max((one["metadata"]["creation"] for one in sets), default=0) + 1,
        },
        "spec": {"replicas": 0, "template": copy.deepcopy(template)},
        "status": {"availableReplicas": 0},
    }
    sets.append(made)
    return made


def _is_in_window(rollout: Resource, sets: list[Resource], new: Resource, stable: Resource) -> bool:
    window = rollout["spec"].get("rollbackWindow", {}).get("revisions", 0)
    mine, theirs = new["metadata"]["creation"], stable["metadata"]["creation"]
    between = sum(mine < one["metadata"]["creation"] < theirs for one in sets)
    return mine < theirs and between < window


def _available(one: Resource) -> int:
    return int(one["status"]["availableReplicas"])


def _scale(one: Resource, replicas: int, world: Any) -> None:
    one["spec"]["replicas"] = replicas
    one["status"]["availableReplicas"] = replicas if world.can_start(one["spec"]["template"]) else 0


def _last(steps: list[Resource], index: int, key: str) -> Any:
    return next((steps[at][key] for at in range(min(index, len(steps) - 1), -1, -1) if key in steps[at]), None)


def _wanted(status: Resource, steps: list[Resource], replicas: int) -> int:
    """Return how many pods the candidate should have."""
    index = status["currentStepIndex"]
    if status.get("promoteFull") or status["currentPodHash"] == status["stableRS"] or index >= len(steps):
        return replicas
    if status.get("abort"):
        return 0
    scale = _last(steps, index, "setCanaryScale")
    weight = _last(steps, index, "setWeight") or 0
    if scale and not scale.get("matchTrafficWeight"):
        if "replicas" in scale:
            return int(scale["replicas"])
        weight = scale["weight"]
    return math.ceil(replicas * weight / 100)


def _scale_both(
    status: Resource, steps: list[Resource], new: Resource, stable: Resource, sets: list[Resource], world: Any
) -> None:
    _scale(stable, world.replicas, world)
    if new is not stable:
        _scale(new, _wanted(status, steps, world.replicas), world)
    for one in sets:
        if one is not new and one is not stable:
            _scale(one, 0, world)


def _route(
    status: Resource, steps: list[Resource], new: Resource, stable: Resource, route: Resource, world: Any
) -> None:
    index = status["currentStepIndex"]
    weight = 0
    if new is stable or status.get("abort") or not _available(new):
        weight = 0
    elif status.get("promoteFull"):
        weight = ((status.get("canary") or {}).get("weights") or {}).get("canary", {}).get("weight", 0)
    elif _available(new) < _wanted(status, steps, world.replicas):
        weight = _last(steps, index - 1, "setWeight") or 0 if index else 0
    elif index < len(steps):
        weight = _last(steps, index, "setWeight") or 0
    else:
        weight = 100
    if _available(stable) < math.ceil(world.replicas * (100 - weight) / 100):
        return  # stable has too few pods: weights are left as they are
    for rule in route["spec"]["rules"]:
        for backend in rule["backendRefs"]:
            backend["weight"] = weight if backend["name"] == "vllm-candidate" else 100 - weight
    status.setdefault("canary", {})["weights"] = {"canary": {"weight": weight}, "stable": {"weight": 100 - weight}}


def _analyse(
    rollout: Resource,
    status: Resource,
    steps: list[Resource],
    new: Resource,
    stable: Resource,
    template: Resource,
    world: Any,
) -> None:
    analysis = rollout["spec"]["strategy"]["canary"]["analysis"]
    is_over = new is stable or status.get("abort") or status.get("promoteFull")
    if is_over or status["currentStepIndex"] < analysis["startingStep"]:
        world.errors = 0
        return
    (metric,) = template["spec"]["metrics"]
    phase = measured(metric, world.measure())
    world.errors = world.errors + 1 if phase == "Error" else 0
    if phase == "Failed" or world.errors > metric.get("consecutiveErrorLimit", 4):
        status["abort"] = True


def measured(metric: Resource, answer: tuple[int, Any] | None) -> str:
    """Return the phase of one measurement of the web provider."""
    if answer is None or not 200 <= answer[0] < 300:
        return "Error"
    result = answer[1]
    if not isinstance(result, str):
        path = metric["provider"]["web"].get("jsonPath", "{$}")
        for part in [part for part in path.strip("{}$").split(".") if part]:
            if not isinstance(result, dict) or part not in result:
                return "Error"
            result = result[part]
    succeeded, failed = (evaluate(metric[f"{name}Condition"], result) for name in ("success", "failure"))
    return "Failed" if failed else "Successful" if succeeded else "Inconclusive"


def _sync(
    rollout: Resource,
    status: Resource,
    steps: list[Resource],
    sets: list[Resource],
    new: Resource,
    stable: Resource,
    world: Any,
) -> None:
    is_back = stable is new or _is_in_window(rollout, sets, new, stable)
    if status.get("promoteFull") or (is_back and stable is not new):
        status |= {"pauseConditions": None, "abort": False, "currentStepIndex": len(steps)}
    is_full = status.get("promoteFull") or is_back or status["currentStepIndex"] == len(steps)
    if not status.get("abort") and _available(new) >= world.replicas and is_full:
        status |= {"stableRS": status["currentPodHash"], "promoteFull": False, "pauseConditions": None}
        status |= {"controllerPause": False, "currentStepIndex": len(steps)}
        return
    if status.get("abort"):
        status |= {"currentStepIndex": 0 if new is not stable else len(steps), "pauseConditions": None}
        return
    _step(status, steps, new, world)


def _step(status: Resource, steps: list[Resource], new: Resource, world: Any) -> None:
    index = status["currentStepIndex"]
    if index >= len(steps):
        return
    step = steps[index]
    if "pause" in step:
        if status.get("pauseConditions"):
            return
        if status.get("controllerPause"):  # "Rollout has been unpaused"
            status |= {"currentStepIndex": index + 1, "controllerPause": False}
        else:
            status |= {"pauseConditions": [{"reason": "CanaryPauseStep"}], "controllerPause": True}
        return
    status["controllerPause"] = False
    if _available(new) >= _wanted(status, steps, world.replicas):
        status["currentStepIndex"] = index + 1
