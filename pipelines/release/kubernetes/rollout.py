"""The Argo Rollout of vLLM, and what its parts mean to a release. Pure functions of resources; nothing is asked here.

A slot is told by the annotation of its pods, never by a name: Argo Rollouts makes ReplicaSets as it likes.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from pipelines.core.errors import ConfigError
from pipelines.core.gates import Gates
from pipelines.release.kubernetes.api import Resource

NAME = "vllm"
MANIFEST = "gatehouse.dev/manifest"
"""Of pods, and of the gateway's Deployment: SHA-256 of the manifest that they run."""
AGAIN = "gatehouse.dev/again"
"""Of pods: which try of the same manifest this is, where Argo Rollouts would take it for a way back."""
WANTED = "gatehouse.dev/stable"
"""Of the Rollout: the manifest that is being made stable, so that it is no candidate meanwhile."""
STAGES = "gatehouse.dev/stages"
"""Of the Rollout: the stages that its steps belong to, in their order."""
HASH = "rollouts-pod-template-hash"
ZERO_STEP = 1
"""Where nobody gets the candidate, whose pods are there already: `setWeight: 0`."""
READY_STEP = 2
"""The pause after it: pods are there, and Argo Rollouts waits."""
FIRST_SHARE_STEP = 4
"""Where the first users get it; the analysis begins here, since there is nothing to judge before."""


class Ladder(NamedTuple):
    """The steps of a Rollout, and the stages that they belong to.

    Attributes:
        steps: As Argo Rollouts reads them.
        stages: `ab_test` and `canary-1`, `canary-2` and so on, by commas.
    """

    steps: list[Resource]
    stages: str


def ladder(gates: Gates) -> Ladder:
    """Return the steps that `gates.yaml` asks for. Every share waits for Git's word, so Argo goes no step by itself.

    Raises:
        ConfigError: There are no stages for Kubernetes, or a weight is no whole number of percent.
    """
    rollout = gates.canary.kubernetes if gates.canary else None
    if rollout is None:
        raise ConfigError("gates.yaml: canary: declares nothing for kubernetes; a release needs its stages")
    test = gates.ab_test.kubernetes if gates.ab_test else None
    shares = {"ab_test": test.weight} if test else {}
    shares |= {f"canary-{number}": stage.weight for number, stage in enumerate(rollout.stages, start=1)}
    for name, weight in shares.items():
        if weight != int(weight):
            raise ConfigError(f"gates.yaml: {name}: weight {weight:g}: Argo Rollouts knows whole percents only")
    first, *_ = shares.values()
    steps: list[Resource] = [{"setCanaryScale": {"weight": int(first)}}, {"setWeight": 0}, {"pause": {}}]
    steps.append({"setCanaryScale": {"matchTrafficWeight": True}})
    for weight in shares.values():
        steps += [{"setWeight": int(weight)}, {"pause": {}}]
    return Ladder(steps, ",".join(shares))


def step_of(rollout: Resource, stage: str, share: float) -> int:
    """Return the index of the step that gives a stage its share.

    Raises:
        ConfigError: The Rollout's steps are not those of the release's gates.
    """
    stages = str(rollout["metadata"].get("annotations", {}).get(STAGES, "")).split(",")
    steps = rollout["spec"]["strategy"]["canary"].get("steps", [])
    places: list[int] = [place for place, step in enumerate(steps) if "setWeight" in step and place >= FIRST_SHARE_STEP]
    if stage in stages and len(places) == len(stages):
        place = places[stages.index(stage)]
        if steps[place]["setWeight"] == round(share * 100, 6):
            return place
    raise ConfigError(
        f"Rollout {rollout['metadata'].get('namespace', '')}/{NAME}: no step gives {stage} {share * 100:g} %; "
        "somebody changed its steps: run `python -m scripts.rollback`, or set them back"
    )


class Rolled(NamedTuple):
    """A Rollout beside its ReplicaSets.

    Attributes:
        rollout: The Rollout.
        sets: All ReplicaSets of vLLM.
    """

    rollout: Resource
    sets: Sequence[Resource]

    @property
    def status(self) -> Mapping[str, Any]:
        """Return what Argo Rollouts says."""
        found: Mapping[str, Any] = self.rollout.get("status") or {}
        return found

    @property
    def is_observed(self) -> bool:
        """Tell whether Argo Rollouts has seen the Rollout as it is now."""
        return str(self.status.get("observedGeneration", "")) == str(self.rollout["metadata"]["generation"])

    @property
    def is_settled(self) -> bool:
        """Tell whether what is declared is stable: nothing is on its way."""
        stable = self.status.get("stableRS", "")
        return self.is_observed and bool(stable) and self.status.get("currentPodHash") == stable

    @property
    def is_aborted(self) -> bool:
        """Tell whether Argo Rollouts, or a person, took the candidate back."""
        return bool(self.status.get("abort"))

    @property
    def step(self) -> int:
        """Return the index of the step that it is at."""
        return int(self.status.get("currentStepIndex") or 0)

    @property
    def stable_set(self) -> Resource | None:
        """Return the ReplicaSet of the stable side."""
        return self._set(str(self.status.get("stableRS", "")))

    @property
    def stable_manifest(self) -> str:
        """Return the manifest that the stable side runs, or nothing."""
        found = self.stable_set
        return manifest_of(found["spec"]["template"]) if found else ""

    @property
    def declared_manifest(self) -> str:
        """Return the manifest that new pods run, or nothing."""
        return manifest_of(self.rollout["spec"]["template"])

    @property
    def wanted(self) -> str:
        """Return the manifest that was to become stable last, or nothing."""
        return str((self.rollout["metadata"].get("annotations") or {}).get(WANTED, ""))

    def available(self, pod_hash: str) -> int:
        """Return how many pods of a ReplicaSet answer."""
        found = self._set(pod_hash)
        return int((found or {}).get("status", {}).get("availableReplicas") or 0)

    def _set(self, pod_hash: str) -> Resource | None:
        labelled = (one for one in self.sets if one["metadata"].get("labels", {}).get(HASH) == pod_hash)
        return next(labelled, None) if pod_hash else None


def manifest_of(template: Resource) -> str:
    """Return the manifest that pods of a template run, or nothing."""
    return str((template["metadata"].get("annotations") or {}).get(MANIFEST, ""))


def placing(rolled: Rolled, manifest: str, images: Mapping[str, str], steps: Ladder, *, is_stable: bool) -> Resource:
    """Return the merge patch that has new pods run a manifest; an empty one where they do.

    Args:
        rolled: The Rollout as it is.
        manifest: SHA-256 of the manifest.
        images: Image of each model, by the volume that holds it.
        steps: The release's own ladder.
        is_stable: Whether it is to become stable without any stage.
    """
    rollout = rolled.rollout
    old = rollout["spec"]["template"]
    template = with_images(old, images)
    if manifest_of(template) != manifest:
        again = "" if is_stable else _again(rolled, manifest)
        _annotate(template, {MANIFEST: manifest, AGAIN: again})
    notes = {STAGES: steps.stages, **({WANTED: manifest} if is_stable else {})}
    patch: Resource = {}
    if any(rollout["metadata"].get("annotations", {}).get(name) != value for name, value in notes.items()):
        patch["metadata"] = {"annotations": notes}
    if rollout["spec"]["strategy"]["canary"].get("steps") != steps.steps:
        patch["spec"] = {"strategy": {"canary": {"steps": steps.steps}}}
    if template != old:
        patch.setdefault("spec", {})["template"] = _difference(old, template)
    return patch


def reverting(rolled: Rolled) -> Resource | None:
    """Return the merge patch that has new pods run what stable runs, or None where they do."""
    stable, old = rolled.stable_set, rolled.rollout["spec"]["template"]
    if stable is None:
        return None
    ours = stable["spec"]["template"]
    images = {one["name"]: one["image"]["reference"] for one in ours["spec"].get("volumes", []) if "image" in one}
    template = with_images(old, images)
    notes = ours["metadata"].get("annotations") or {}
    _annotate(template, {name: notes.get(name, "") for name in (MANIFEST, AGAIN)})
    return {"spec": {"template": _difference(old, template)}} if template != old else None


def with_images(template: Resource, images: Mapping[str, str]) -> Resource:
    """Return a template whose volumes hold other images, by the volumes' names."""
    found = copy.deepcopy(template)
    for volume in found["spec"].get("volumes", []):
        if volume["name"] in images and "image" in volume:
            volume["image"]["reference"] = images[volume["name"]]
    return found


def _again(rolled: Rolled, manifest: str) -> str:
    """Return what sets a further try apart from the first one.

    Pods of an older ReplicaSet than stable's are a way back to Argo Rollouts, which it goes within `rollbackWindow`
    without any step or analysis: what was rolled back would get all users at once.
    """
    older = [one for one in rolled.sets if manifest_of(one["spec"]["template"]) == manifest]
    return str(len(older)) if older else ""


def _annotate(template: Resource, notes: Mapping[str, str]) -> None:
    """Write annotations of pods; empty ones are removed."""
    kept = {**(template["metadata"].get("annotations") or {}), **notes}
    template["metadata"]["annotations"] = {name: value for name, value in kept.items() if value}


def _difference(old: Resource, new: Resource) -> Resource:
    """Return the merge patch between two templates that differ in annotations and volumes alone."""
    before, after = old["metadata"].get("annotations") or {}, new["metadata"].get("annotations") or {}
    notes = {name: after.get(name) for name in {*before, *after} if before.get(name) != after.get(name)}
    patch: Resource = {"metadata": {"annotations": notes}} if notes else {}
    if old["spec"].get("volumes") != new["spec"].get("volumes"):
        patch["spec"] = {"volumes": new["spec"]["volumes"]}
    return patch
