"""`k8s/overlays/<environment>/released/`: the Kustomize component that declares what an environment runs.

Git declares stable and nothing else, so a cluster that is built anew in the middle of a release starts on stable.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from pipelines.core.declared import check
from pipelines.core.errors import ConfigError
from pipelines.core.gates import Gates
from pipelines.core.source import parse
from pipelines.release.kubernetes.configuration import HEAD, Version, as_yaml, beside
from pipelines.release.kubernetes.rollout import MANIFEST, STAGES, Ladder, ladder
from pipelines.release.reference import Reference
from pipelines.serving.references import find

OVERLAYS = Path("k8s/overlays")
RELEASED = "released"
PATCH = "serving-patch.yaml"
GATEWAY = "gatehouse/gateway"
"""The name that k8s/base gives to the gateway's image."""
NEVER = "sha256:" + "0" * 64
"""Where nothing was ever released: no registry has it, so nothing starts."""


class Held(NamedTuple):
    """A model's image.

    Attributes:
        image: By digest.
        digest: Of the model that it holds, as manifests say it; empty where nobody has said.
    """

    image: Reference
    digest: str = ""


class Pins(NamedTuple):
    """What an environment runs.

    Attributes:
        gateway: Image of the gateway.
        models: Images that hold one model each, by the model's name.
        manifest: SHA-256 of the release's manifest; empty where it was pinned by hand.
    """

    gateway: Reference
    models: dict[str, Held]
    manifest: str = ""


class Release(NamedTuple):
    """One version, ready to be declared or deployed.

    Attributes:
        version: What the gateway needs.
        steps: What Argo Rollouts goes by.
        pins: Images.
    """

    version: Version
    steps: Ladder
    pins: Pins

    @property
    def images(self) -> dict[str, str]:
        """Return the image of each model, by the volume that holds it."""
        return {name: str(held.image) for name, held in self.pins.models.items()}

    def files(self, environment: str) -> dict[str, bytes]:
        """Return the whole component, by path in the repository."""
        found = beside(self.version, self.version)
        texts = {"serving.yaml": HEAD + as_yaml(found.serving), "gates.yaml": found.gates, **found.prompts}
        values = {
            "kustomization.yaml": self._component(sorted(found.prompts)),
            "vllm.yaml": self._vllm(),
            "gateway.yaml": {
                "apiVersion": "apps/v1",
                "kind": "Deployment",
                "metadata": {"name": "gateway", "annotations": {MANIFEST: self.pins.manifest}},
            },
            "models.yaml": {
                name: {"image": str(held.image), "digest": held.digest}
                for name, held in sorted(self.pins.models.items())
            },
        }
        texts |= {name: HEAD + as_yaml(value) for name, value in values.items()}
        folder = OVERLAYS / environment / RELEASED
        return {str(folder / name): text.encode() for name, text in sorted(texts.items())}

    def _component(self, prompts: list[str]) -> dict[str, Any]:
        return {
            "apiVersion": "kustomize.config.k8s.io/v1alpha1",
            "kind": "Component",
            # A gateway may still mount the maps of the version before, until the release has told it otherwise.
            # Maps that are kept are none that Argo CD should call a difference.
            "generatorOptions": {
                "annotations": {
                    "argocd.argoproj.io/compare-options": "IgnoreExtraneous",
                    "argocd.argoproj.io/sync-options": "Prune=false",
                }
            },
            "configMapGenerator": [
                {"name": "serving", "files": ["serving.yaml", "gates.yaml"]},
                {"name": "prompts", "files": prompts},
            ],
            "images": [{"name": GATEWAY, "newName": self.pins.gateway.name, "digest": self.pins.gateway.digest}],
            "patches": [{"path": "vllm.yaml", "target": {"kind": "Rollout", "name": "vllm"}}, {"path": "gateway.yaml"}],
        }

    def _vllm(self) -> list[dict[str, Any]]:
        """Return a JSON patch: a merge would replace all volumes, since kustomize does not know a Rollout's lists."""
        volumes = "/spec/template/spec/volumes"
        patch: list[dict[str, Any]] = []
        for place, (name, image) in enumerate(sorted(self.images.items())):
            patch.append({"op": "test", "path": f"{volumes}/{place}/name", "value": name})
            patch.append({"op": "replace", "path": f"{volumes}/{place}/image/reference", "value": image})
        notes = {"/spec/template/metadata": {MANIFEST: self.pins.manifest}, "/metadata": {STAGES: self.steps.stages}}
        for place_of, values in notes.items():
            for name, value in values.items():
                path = f"{place_of}/annotations/{name.replace('/', '~1')}"
                patch.append({"op": "replace", "path": path, "value": value})
        patch.append({"op": "replace", "path": "/spec/strategy/canary/steps", "value": self.steps.steps})
        return patch


def compose(read: Callable[[str], str], patch: Mapping[str, Any], pins: Pins, shown: str) -> Release:
    """Make a version of the files of a commit or a work tree.

    Args:
        read: Returns the text of a file by its path in the repository; raises ConfigError where there is none.
        patch: The environment's `serving-patch.yaml`, which is its own and not the version's.
        pins: Images.
        shown: How serving.yaml is called in messages.

    Raises:
        ConfigError: `serving.yaml` with the environment's patch, or `gates.yaml`, is wrong.
    """
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        (root / "gates.yaml").write_text(read("gates.yaml"), encoding="utf-8")
        (root / "serving.yaml").write_text(read("serving.yaml"), encoding="utf-8")
        declared: dict[str, Any] = merge(parse(root / "serving.yaml", "serving.yaml").value, patch)
        for upstream in (declared.get("upstreams") or {}).values():
            if (
                isinstance(upstream, dict)
                and upstream.get("kind") != "process"
                and upstream.get("model") in pins.models
            ):
                upstream["digest"] = pins.models[upstream["model"]].image.digest
        prompts = _prompts(declared, read, root)
        version = Version(declared, prompts, read("gates.yaml"))
        _require_served({name: part for name, part in declared.items() if name != "rollout"}, root, shown)
        _require_served(beside(version, version).serving, root, shown)
        gates, problems = check(parse(root / "gates.yaml", "gates.yaml"), Gates)
        if gates is None or problems:
            raise ConfigError(str(problems[0]))
        return Release(version, ladder(gates), pins)


def merge(value: Any, patch: Any) -> Any:
    """Return a value with a JSON merge patch applied (RFC 7386, section 2)."""
    if not isinstance(patch, dict):
        return patch
    found = dict(value) if isinstance(value, dict) else {}
    for key, part in patch.items():
        if part is None:
            found.pop(key, None)
        else:
            found[key] = merge(found.get(key), part)
    return found


def _prompts(declared: Mapping[str, Any], read: Callable[[str], str], root: Path) -> dict[str, str]:
    """Return the prompt files that are named, written below `root` as well; a ConfigMap holds no folders."""
    named: set[str] = set()
    for route in _values(declared.get("routes")):
        named |= {
            one["prompt"] for one in (route, *_values(route.get("variants"))) if isinstance(one.get("prompt"), str)
        }
    for path in sorted(named):
        if Path(path).parent != Path("prompts"):
            raise ConfigError(f"{path}: is served from Kubernetes only if it lies in prompts/ itself; move it there")
    (root / "prompts").mkdir()
    found = {path: read(path) for path in sorted(named)}
    for path, text in found.items():
        (root / path).write_text(text, encoding="utf-8")
    return found


def _values(value: Any) -> list[dict[str, Any]]:
    """Return the mappings that a mapping holds; the gateway's own check says what is wrong with the rest."""
    return [one for one in value.values() if isinstance(one, dict)] if isinstance(value, dict) else []


def _require_served(declared: dict[str, Any], root: Path, shown: str) -> None:
    path = root / "served.yaml"
    path.write_text(as_yaml(declared), encoding="utf-8")
    found = find(path, root, shown=shown)
    if found.serving is None or found.problems:
        problem = found.problems[0]._replace(line=None)  # the line would be one of a file that nobody sees
        raise ConfigError(str(problem))
    processes = [name for name, upstream in found.serving.upstreams.items() if upstream.kind == "process"]
    if processes:
        raise ConfigError(
            f"{shown}: upstreams.{processes[0]}: is a process of one machine; give it kind openai and a base_url there"
        )
    if not found.serving.keys:
        raise ConfigError(f"{shown}: keys: none is declared; `python -m scripts.serve --new-key PROJECT` makes one")
