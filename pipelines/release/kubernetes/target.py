"""The target `kubernetes`: Argo Rollouts in front of vLLM, its weights in an HTTPRoute that the gateway deals by.

Git's state machine is the only one that goes forward: every step of the Rollout waits for it. Argo Rollouts takes the
candidate back by itself where the gateway's verdict says so and nobody else is there.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, Literal

from pipelines.core.errors import ServiceError
from pipelines.release.kubernetes import rollout as rollouts
from pipelines.release.kubernetes import route as routes
from pipelines.release.kubernetes.api import Api, Resource
from pipelines.release.kubernetes.configuration import Version
from pipelines.release.kubernetes.gateway import Gateway
from pipelines.release.kubernetes.released import Release
from pipelines.release.kubernetes.rollout import READY_STEP, ZERO_STEP, Rolled
from pipelines.release.kubernetes.slots import PARTLY, running
from pipelines.release.manifest import Manifest
from pipelines.release.targets import NO_TERMS, InForce, Slot, Smoked

PATIENCE_S = 20.0
"""How long Argo Rollouts is waited for before the route is written without it."""
LOOK_S = 5.0
"""How long it is waited for to give more traffic: its pods may take minutes, and the next look comes anyway."""
NAP_S = 0.5


class KubernetesTarget:
    """What a release acts on in a cluster.

    Args:
        api: The cluster.
        namespaces: Namespace of each environment.
        environment: The one whose traffic is split.
        release_of: Makes what is declared and deployed of a manifest, for an environment.
        counted: Reads the counters of a rollout (key, since when in seconds since 1970, unit of the A/B test).
        asked: Smoke-tests a slot of an environment by the test data of the version that its gateway serves.
        nap: Waits for some seconds.
    """

    name = "kubernetes"

    def __init__(
        self,
        api: Api,
        namespaces: Mapping[str, str],
        environment: str,
        release_of: Callable[[str, Manifest], Release],
        counted: Callable[[str, float, Literal["user", "request"]], Mapping[str, Any]],
        asked: Callable[[str, Slot, Version], Smoked],
        nap: Callable[[float], None] = time.sleep,
    ) -> None:
        self._api, self._namespaces, self._environment = api, namespaces, environment
        self._release_of, self._counted, self._asked, self._nap = release_of, counted, asked, nap

    def deployed(self, environment: str, slot: Slot) -> str:
        """Return the SHA-256 of the manifest that a slot runs (or is about to run); empty where it runs nothing."""
        rolled = self._rolled(environment)
        if rolled is None:
            return ""
        return running(rolled, slot, self._gateway(environment).manifests())

    def deploy(self, environment: str, slot: Slot, manifest: Manifest) -> None:
        """Have a slot run what a manifest names; returns before it is ready.

        A candidate is put beside stable only once there is a stable: the first pods of a Rollout are stable at once,
        and in a cluster that is built anew these must be Git's.
        """
        release = self._release_of(environment, manifest)
        rolled = self._rolled(environment)
        if rolled is None:
            raise ServiceError(
                f"Rollout {self._namespaces[environment]}/{rollouts.NAME}: is not there; does Argo CD apply "
                f"k8s/overlays/{environment} to this cluster?"
            )
        if slot == "stable":
            self._deploy_stable(environment, rolled, manifest.name, release)
        elif rolled.stable_set is not None:
            self._gateway(environment).know(manifest.name, release)
            self._place(environment, manifest.name, release, is_stable=False)

    def is_ready(self, environment: str, slot: Slot) -> bool:
        """Tell whether a slot answers. Before a candidate's first traffic every gateway has to know what it should."""
        rolled = self._rolled(environment)
        if rolled is None:
            return False
        found, wanted = self.deployed(environment, slot), rolled.wanted
        pods = "stableRS" if slot == "stable" else "currentPodHash"
        is_up = rolled.available(str(rolled.status.get(pods, ""))) > 0
        if slot == "stable":
            is_up = is_up and found == (wanted or found)  # what is still on its way up is not what was there before
        else:
            is_there = found not in ("", PARTLY) and rolled.is_observed and not rolled.is_aborted
            is_up = is_up and is_there and rolled.step >= ZERO_STEP
        if not is_up or routes.share(self._api.get(self._route(environment))) > 0:
            return is_up  # a gateway that restarts while both sides serve takes nobody's answer away
        is_scaled = slot == "stable" or rolled.step >= READY_STEP
        return is_scaled and self._gateway(environment).is_ready()

    def remove(self, environment: str, slot: Slot) -> None:
        """Have a candidate's pods go; whatever Argo Rollouts has aborted is over with that."""
        if slot == "stable":
            raise ServiceError(f"{environment}: stable is never removed; it is what everybody gets")

        def change(found: Resource) -> Resource | None:
            return rollouts.reverting(Rolled(found, self._sets(environment)))

        self._api.edit(self._rollout(environment), change)
        self._gateway(environment).forget()
        self._api.edit(self._route(environment), lambda route: routes.with_terms(route, {}))

    def smoke(self, environment: str, slot: Slot) -> Smoked:
        """Ask a slot a few fixed questions, whatever its share of traffic."""
        return self._asked(environment, slot, self._gateway(environment).version())

    def weight(self) -> float:
        """Return the candidate's share of traffic, 0 to 1, as the route has it."""
        return routes.share(self._api.get(self._route(self._environment)))

    def split(self) -> InForce:
        """Return what the route says; terms without a share are those of a stage that gets its pods first."""
        found = self._api.get(self._route(self._environment))
        terms, share = routes.terms(found), routes.share(found)
        if not share:
            return InForce(0.0)
        return InForce(
            share, str(terms.get("rollout", "")), str(terms.get("stage", "")), float(terms.get("since") or 0)
        )

    def set_weight(self, share: float, terms: Mapping[str, Any] = NO_TERMS) -> None:
        """Give the candidate this share of traffic.

        More traffic needs pods, which may take long: this returns, and `split` tells when Argo Rollouts has got there.
        Less is at once.

        Raises:
            ServiceError: The cluster does not answer, or has taken the candidate back by itself.
        """
        if share == 0.0:
            self._take_back()
        else:
            self._give(share, terms)

    def counters(self, rollout: str, since: float) -> Mapping[str, Any]:
        """Return what both sides counted, summed over the gateway's replicas, also those that are gone."""
        terms = routes.terms(self._api.get(self._route(self._environment)))
        return self._counted(rollout, since, "request" if terms.get("unit") == "request" else "user")

    def declared(self, environment: str, manifest: Manifest) -> Mapping[str, bytes]:
        """Return the files that declare a manifest as an environment's stable one."""
        return self._release_of(environment, manifest).files(environment)

    def _deploy_stable(self, environment: str, rolled: Rolled, manifest: str, release: Release) -> None:
        """Place, promote without stages, and have the gateway know nothing else."""
        if rolled.stable_set is not None and rolled.stable_manifest == manifest and rolled.is_settled:
            self._gateway(environment).settle(manifest, release)
            return
        is_serving = rolled.declared_manifest == manifest and self.weight() == 1.0
        if (
            is_serving and environment == self._environment
        ):  # everybody has it: only then is its configuration everybody's
            self._gateway(environment).settle(manifest, release)
        self._place(environment, manifest, release, is_stable=True)
        rolled = self._rolled(environment) or rolled
        if rolled.is_observed and not rolled.is_settled and not rolled.status.get("promoteFull"):
            self._api.patch(f"{self._rollout(environment)}/status", {"status": {"promoteFull": True}})

    def _place(self, environment: str, manifest: str, release: Release, *, is_stable: bool) -> None:
        sets = self._sets(environment)

        def change(found: Resource) -> Resource | None:
            patch = rollouts.placing(Rolled(found, sets), manifest, release.images, release.steps, is_stable=is_stable)
            return patch or None

        self._api.edit(self._rollout(environment), change)

    def _give(self, share: float, terms: Mapping[str, Any]) -> None:
        rolled = self._known()
        if rolled.is_aborted:
            raise ServiceError(
                "Argo Rollouts has taken the candidate back; `python -m scripts.reconcile` writes down why"
            )
        step = rollouts.step_of(rolled.rollout, str(terms.get("stage", "")), share)
        self._api.edit(self._route(self._environment), lambda route: routes.with_terms(route, terms))
        # At its pause the step is done; between the two Argo Rollouts waits for pods.
        if rolled.step not in (step, step + 1):
            self._go_to(step)
        self._wait(lambda: self.weight() == share, LOOK_S)

    def _take_back(self) -> None:
        """Send everybody to stable: by the route itself, since Argo Rollouts may be away or wait for pods of stable."""
        rolled = self._known()
        if rolled.is_settled and self._wait(lambda: self.weight() == 0.0):
            return  # promoted: both Services lead to the same pods, and Argo Rollouts cleans up
        if not rolled.is_settled and not rolled.is_aborted and rolled.step > READY_STEP:
            self._go_to(ZERO_STEP)
        path = self._route(self._environment)
        self._api.edit(path, routes.without_candidate)

        def has_settled() -> bool:
            weights = (self._known().status.get("canary") or {}).get("weights") or {}
            return not self._api.edit(path, routes.without_candidate) and not _weight(weights)

        self._wait(has_settled)

    def _go_to(self, step: int) -> None:
        """Have Argo Rollouts go to a step. `controllerPause` goes too: with it left, the next pause would be passed."""
        status = {"currentStepIndex": step, "pauseConditions": None, "controllerPause": False}
        self._api.patch(f"{self._rollout(self._environment)}/status", {"status": status})

    def _wait(self, is_so: Callable[[], bool], patience_s: float = PATIENCE_S) -> bool:
        for _ in range(int(patience_s / NAP_S)):
            if is_so():
                return True
            self._nap(NAP_S)
        return is_so()

    def _known(self) -> Rolled:
        found = self._rolled(self._environment)
        if found is None:
            raise ServiceError(f"Rollout {self._namespaces[self._environment]}/{rollouts.NAME}: is not there")
        return found

    def _rolled(self, environment: str) -> Rolled | None:
        found = self._api.get(self._rollout(environment))
        return None if found is None else Rolled(found, self._sets(environment))

    def _sets(self, environment: str) -> list[Resource]:
        path = f"/apis/apps/v1/namespaces/{self._namespaces[environment]}/replicasets"
        found = self._api.get(path, {"labelSelector": f"app.kubernetes.io/name={rollouts.NAME}"})
        return list((found or {}).get("items") or [])

    def _rollout(self, environment: str) -> str:
        return f"/apis/argoproj.io/v1alpha1/namespaces/{self._namespaces[environment]}/rollouts/{rollouts.NAME}"

    def _route(self, environment: str) -> str:
        namespace = self._namespaces[environment]
        return f"/apis/gateway.networking.k8s.io/v1/namespaces/{namespace}/httproutes/{rollouts.NAME}"

    def _gateway(self, environment: str) -> Gateway:
        return Gateway(self._api, self._namespaces[environment])


def _weight(weights: Mapping[str, Any]) -> int:
    return int((weights.get("canary") or {}).get("weight") or 0)
