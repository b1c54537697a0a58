"""The gateway's Deployment during a release: what it mounts, and whether its pods have it. Its image is stable's."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

import yaml

from pipelines.core.errors import ServiceError
from pipelines.release.kubernetes.api import STRATEGIC, Api, Resource
from pipelines.release.kubernetes.configuration import Configuration, Version, alone, beside, map_name
from pipelines.release.kubernetes.released import Release
from pipelines.release.kubernetes.rollout import MANIFEST

CANDIDATE = "gatehouse.dev/candidate"
"""Of the Deployment: the manifest of the candidate that the gateway knows beside stable."""
BEFORE = "gatehouse.dev/before"
"""Of the Deployment: names of what it mounted before, to go back to."""
OURS = {"app.kubernetes.io/managed-by": "gatehouse-release"}


class Known(NamedTuple):
    """The manifests of stable and of the candidate that a gateway knows; empty where it knows none."""

    stable: str
    candidate: str


class Gateway:
    """The gateway of one namespace.

    Args:
        api: The cluster.
        namespace: Its namespace.
    """

    def __init__(self, api: Api, namespace: str) -> None:
        self._api, self._namespace = api, namespace
        self._path = f"/apis/apps/v1/namespaces/{namespace}/deployments/gateway"
        self._maps = f"/api/v1/namespaces/{namespace}/configmaps"

    def manifests(self) -> Known:
        """Return the manifests that the gateway knows."""
        notes = ((self._api.get(self._path) or {}).get("metadata") or {}).get("annotations") or {}
        return Known(str(notes.get(MANIFEST) or ""), str(notes.get(CANDIDATE) or ""))

    def know(self, manifest: str, candidate: Release) -> None:
        """Have the gateway know a candidate beside what it mounts now.

        Raises:
            ServiceError: The cluster does not answer, or the gateway mounts nothing that is there.
        """
        deployment = self._deployment()
        notes = deployment["metadata"].get("annotations") or {}
        before = json.loads(notes[BEFORE]) if notes.get(BEFORE) else _mounted(deployment)
        found = beside(self._version(before), candidate.version)
        # Where nothing was ever released no gateway runs that could be kept.
        image = "" if notes.get(MANIFEST) else str(candidate.pins.gateway)
        self._mount(found, {CANDIDATE: manifest, BEFORE: json.dumps(before, sort_keys=True)}, image)

    def forget(self) -> None:
        """Have the gateway mount what it did before it knew a candidate."""
        deployment = self._deployment()
        notes = deployment["metadata"].get("annotations") or {}
        if not notes.get(BEFORE):
            return
        before = json.loads(notes[BEFORE])
        self._patch(before, {CANDIDATE: None, BEFORE: None})
        self._discard(before)  # or when the next release settles

    def settle(self, manifest: str, release: Release) -> None:
        """Have the gateway run a release's own image and mount what serves it alone."""
        found = beside(release.version, release.version)
        now = self._mount(found, {MANIFEST: manifest, CANDIDATE: None, BEFORE: None}, str(release.pins.gateway))
        self._discard(now)

    def version(self) -> Version:
        """Return the stable version that the gateway serves.

        Raises:
            ServiceError: The cluster does not answer, or the gateway mounts nothing that is there.
        """
        deployment = self._deployment()
        before = (deployment["metadata"].get("annotations") or {}).get(BEFORE)
        return self._version(json.loads(before) if before else _mounted(deployment))

    def is_ready(self) -> bool:
        """Tell whether every pod of the gateway mounts what it should, and one answers at least."""
        deployment = self._api.get(self._path)
        status = (deployment or {}).get("status") or {}
        if deployment is None or status.get("observedGeneration", 0) < deployment["metadata"]["generation"]:
            return False
        is_new = status.get("updatedReplicas", 0) == status.get("replicas", 0)
        return bool(is_new and status.get("availableReplicas", 0) >= 1)

    def _deployment(self) -> Resource:
        found = self._api.get(self._path)
        if found is None:
            raise ServiceError(f"{self._path}: is not there; does Argo CD apply k8s/overlays to this cluster?")
        return found

    def _version(self, mounted: dict[str, str]) -> Version:
        """Return the version that ConfigMaps of these names hold."""
        data: dict[str, dict[str, str]] = {}
        for volume, name in mounted.items():
            found = self._api.get(f"{self._maps}/{name}")
            if found is None:
                raise ServiceError(f"ConfigMap {self._namespace}/{name}: is not there, though the gateway mounts it")
            data[volume] = found.get("data") or {}
        prompts = {f"prompts/{name}": text for name, text in data["prompts"].items()}
        served = data["serving"]
        return alone(Configuration(yaml.safe_load(served["serving.yaml"]), prompts, served.get("gates.yaml", "")))

    def _mount(self, wanted: Configuration, notes: dict[str, str | None], image: str = "") -> dict[str, str]:
        """Make the ConfigMaps of a configuration and mount them; their names are those that Git would give them."""
        names = {}
        for volume, data in wanted.maps().items():
            names[volume] = map_name(volume, data)
            if self._api.get(f"{self._maps}/{names[volume]}") is None:
                metadata = {"name": names[volume], "namespace": self._namespace, "labels": OURS}
                made = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}
                self._api.create(self._maps, made)
        self._patch(names, notes, image)
        return names

    def _patch(self, names: dict[str, str], notes: dict[str, str | None], image: str = "") -> None:
        deployment = self._deployment()
        have = deployment["metadata"].get("annotations") or {}
        (container,) = deployment["spec"]["template"]["spec"]["containers"]
        is_noted = all(have.get(name) == value for name, value in notes.items())
        if is_noted and _mounted(deployment) == names and image in ("", container["image"]):
            return
        volumes = [{"name": volume, "configMap": {"name": name}} for volume, name in sorted(names.items())]
        pod: dict[str, Any] = {"volumes": volumes}
        if image:
            pod["containers"] = [{"name": container["name"], "image": image}]
        self._api.patch(
            self._path, {"metadata": {"annotations": notes}, "spec": {"template": {"spec": pod}}}, STRATEGIC
        )

    def _discard(self, mounted: dict[str, str]) -> None:
        """Remove maps that a release made and nobody mounts any more, also those that a dead run left behind.

        Until the new pods serve, an old one may have to start again somewhere else, and needs its own.
        """
        if not self.is_ready():
            return
        selector = ",".join(f"{name}={value}" for name, value in OURS.items())
        found = self._api.get(self._maps, {"labelSelector": selector}) or {}
        for name in [one["metadata"]["name"] for one in found.get("items") or []]:
            if name not in mounted.values():
                self._api.delete(f"{self._maps}/{name}")


def _mounted(deployment: Resource) -> dict[str, str]:
    """Return the names of the ConfigMaps that a Deployment mounts, by volume."""
    volumes = deployment["spec"]["template"]["spec"].get("volumes") or []
    return {one["name"]: one["configMap"]["name"] for one in volumes if "configMap" in one}
