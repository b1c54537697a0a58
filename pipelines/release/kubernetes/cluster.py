"""Build the target `kubernetes` from a repository and its environment variables. Nothing is asked while it is built."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from pipelines.core import git
from pipelines.core.errors import ConfigError
from pipelines.core.params import load_params
from pipelines.core.source import parse, parse_text
from pipelines.release import prometheus
from pipelines.release.clock import SystemClock
from pipelines.release.judge import plan_of
from pipelines.release.kubernetes import access, smoke
from pipelines.release.kubernetes.api import Api
from pipelines.release.kubernetes.configuration import Version
from pipelines.release.kubernetes.released import NEVER, OVERLAYS, PATCH, Held, Pins, Release, compose
from pipelines.release.kubernetes.target import KubernetesTarget
from pipelines.release.manifest import Manifest
from pipelines.release.mlflow_registry import MlflowRegistry
from pipelines.release.pin import overlay_of, pinned
from pipelines.release.reference import parse_reference
from pipelines.release.store import Store
from pipelines.release.targets import Built, Slot, Smoked

ENVIRONMENT, STAGING = "production", "staging"
PROMETHEUS = "GATEHOUSE_PROMETHEUS"
URL = "GATEHOUSE_URL"
KEY = "GATEHOUSE_SMOKE_KEY"
MODEL, HOLDS = "model-", "-holds"


def build(root: Path) -> Built:
    """Return the target `kubernetes`.

    Raises:
        ConfigError: An overlay or `params.yaml` is wrong.
    """
    versions = Versions(root)
    namespaces = {name: namespace_of(root, name) for name in (ENVIRONMENT, STAGING)}
    api = Api(access.find)

    def asked(environment: str, slot: Slot, version: Version) -> Smoked:
        return smoke.test(url_of(environment, namespaces[environment]), os.environ.get(KEY, ""), slot, version)

    target = KubernetesTarget(api, namespaces, ENVIRONMENT, versions.release, counted, asked)
    track = load_params(root / "params.yaml").track
    registry = MlflowRegistry(root, track.model_name, track.experiment)
    images = Images(lambda: images_of(pinned(overlay_of(root, STAGING))))
    return Built(target, SystemClock(), registry, plan_of("kubernetes"), images, ENVIRONMENT, STAGING)


class Images(Mapping[str, str]):
    """Images that are read when they are first needed: a release needs them to begin, a way back never does.

    Args:
        read: Reads them.
    """

    def __init__(self, read: Callable[[], dict[str, str]]) -> None:
        self._found = lru_cache(maxsize=1)(read)

    def __getitem__(self, name: str) -> str:
        return self._found()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._found())

    def __len__(self) -> int:
        return len(self._found())


class Versions:
    """What manifests stand for, each made once from its commit and the environment's patch as the branch has it now.

    Args:
        root: The repository.
    """

    def __init__(self, root: Path) -> None:
        self._root, self._store = root, Store(root)
        self._made: dict[tuple[str, str, bytes | None], Release] = {}

    def release(self, environment: str, manifest: Manifest) -> Release:
        """Return what a manifest declares and runs in an environment.

        Raises:
            ConfigError: Its images are missing or hold other models, or its files are wrong together with the
                environment's patch.
        """
        path, tip = f"{OVERLAYS}/{environment}/{PATCH}", self._store.known()
        # Not as it is checked out: a job may have waited for days, and a key that was taken away since stays away.
        patch = self._store.read(tip, path) if tip else None
        key = environment, manifest.name, patch
        if key not in self._made:
            shown = f"serving.yaml of {manifest.tag} with {path}"
            entries = git.files_of(self._root, manifest.commit)

            def read(path: str) -> str:
                if path not in entries:
                    raise ConfigError(f"{path}: commit {manifest.commit[:12]} ({manifest.tag}) has no such file")
                return git.text_of(self._root, entries[path].oid).decode()

            values = parse_text(patch.decode(errors="replace"), path).value if patch else {}
            self._made[key] = compose(read, values, pins_of(manifest), shown)
        return self._made[key]


def images_of(pins: Pins) -> dict[str, str]:
    """Return what a manifest binds to its tag: every image by digest, and the digest of the model that it holds.

    Raises:
        ConfigError: Nothing is pinned, or nobody knows what an image holds.
    """
    found = {"gateway": str(pins.gateway)}
    where = f"k8s/overlays/{STAGING}/released"
    for name, held in sorted(pins.models.items()):
        if NEVER in (held.image.digest, pins.gateway.digest):
            raise ConfigError(
                f"{where}: no images are pinned; build them with actions/image, then `python -m scripts.pin "
                f"--environment {STAGING} --gateway NAME@sha256:... --model {name}=NAME@sha256:...`"
            )
        if not held.digest:
            raise ConfigError(
                f"{where}/models.yaml: {name}: nobody knows which model its image holds; run `scripts.pin --model "
                f"{name}=...` where models/{name} is, as it was when the image was built"
            )
        found |= {f"{MODEL}{name}": str(held.image), f"{MODEL}{name}{HOLDS}": held.digest}
    return found


def pins_of(manifest: Manifest) -> Pins:
    """Return a manifest's images.

    Raises:
        ConfigError: One is missing, or holds another model than the one that was decided about.
    """
    images = manifest.images
    shown = f"manifest of {manifest.tag}: images"
    models = {}
    for key in sorted(images):
        if key.startswith(MODEL) and not key.endswith(HOLDS):
            name = key.removeprefix(MODEL)
            holds, decided = images.get(f"{key}{HOLDS}", ""), manifest.models.get(name)
            if decided is None or holds != decided.digest:
                tagged = decided.digest[:12] if decided else "none"
                raise ConfigError(
                    f"{shown}.{key}: holds model {holds[:12]}, the tag's is {tagged}; build the tag's models with "
                    f"actions/image, pin them in {STAGING}, and release a new tag"
                )
            models[name] = Held(parse_reference(images[key], f"{shown}.{key}:"), holds)
    if "gateway" not in images or not models:
        raise ConfigError(f"{shown}: names no gateway or no model; it was not made for Kubernetes")
    return Pins(parse_reference(images["gateway"], f"{shown}.gateway:"), models, manifest.name)


def namespace_of(root: Path, environment: str) -> str:
    """Return the namespace that an overlay puts everything in.

    Raises:
        ConfigError: There is no such overlay, or it names none.
    """
    path = overlay_of(root, environment) / "kustomization.yaml"
    found = parse(path, str(path.relative_to(root))).value.get("namespace")
    if not isinstance(found, str) or not found:
        raise ConfigError(f"{path.relative_to(root)}: namespace: is missing; every environment needs one of its own")
    return found


def url_of(environment: str, namespace: str) -> str:
    """Return the gateway's address: GATEHOUSE_URL_STAGING and so on, or the Service, for a runner in the cluster."""
    return os.environ.get(f"{URL}_{environment.upper()}", "").rstrip("/") or f"http://gateway.{namespace}.svc"


def counted(rollout: str, since: float, unit: Literal["user", "request"]) -> Mapping[str, Any]:
    """Return the counters of a rollout from Prometheus.

    Raises:
        ConfigError: GATEHOUSE_PROMETHEUS is not set.
        CountersUnavailable: It cannot be reached or has nothing.
    """
    url = os.environ.get(PROMETHEUS)
    if not url:
        raise ConfigError(f"{PROMETHEUS} is not set: counters are read from the Prometheus that scrapes the gateway")
    return prometheus.counters(url, rollout, since, unit, token=os.environ.get(f"{PROMETHEUS}_TOKEN", ""))
