"""Pin what an environment on Kubernetes runs: images by digest, and `serving.yaml` with its prompts as they are now.

An overlay holds what people write: where, how much, and a merge patch for `serving.yaml`. Its folder `released/` is a
Kustomize component that is written here and nowhere else, so that a merge to main changes nothing that runs, and a
release or a rollback is one commit to one folder.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from pipelines.core.declared import nearest
from pipelines.core.errors import ConfigError
from pipelines.core.files import write_text
from pipelines.core.source import parse
from pipelines.release.reference import Reference, parse_reference
from pipelines.serving.config import Serving
from pipelines.serving.references import find

OVERLAYS = Path("k8s/overlays")
RELEASED = "released"
GATEWAY = "gatehouse/gateway"
"""The name that k8s/base gives to the gateway's image."""
HEAD = "# Written by `python -m scripts.pin`: what this environment runs.\n"
NEVER = "sha256:" + "0" * 64
"""Where nothing was ever released: no registry has it, so nothing starts."""


class Pins(NamedTuple):
    """What an environment runs.

    Attributes:
        gateway: Image of the gateway.
        models: Images that hold one model each, by the model's name.
    """

    gateway: Reference
    models: dict[str, Reference]


def pin(root: Path, environment: str, gateway: str | None, models: Mapping[str, str]) -> Pins:
    """Write `k8s/overlays/<environment>/released/`; what is not given stays as it is there.

    Args:
        root: The repository.
        environment: A folder of k8s/overlays.
        gateway: Image of the gateway, NAME@sha256:...
        models: Images of models by name, likewise.

    Returns:
        What the environment runs now.

    Raises:
        ConfigError: There is no such environment or model, an image has no digest, or `serving.yaml` with the
            environment's patch is wrong.
    """
    overlay = _overlay(root, environment)
    before = _read(overlay)
    for name in models:
        if name not in before.models:
            raise ConfigError(f"--model {name}: k8s/base/vllm.yaml has no such volume{nearest(name, [*before.models])}")
    after = Pins(
        parse_reference(gateway, "--gateway") if gateway else before.gateway,
        before.models | {name: parse_reference(text, f"--model {name}:") for name, text in models.items()},
    )
    declared = _declared(root, overlay, after)
    serving = _checked(root, overlay, declared)
    _write(root, overlay, after, declared, serving)
    return after


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


def _overlay(root: Path, environment: str) -> Path:
    known = sorted(path.parent.name for path in (root / OVERLAYS).glob("*/kustomization.yaml"))
    if environment not in known:
        raise ConfigError(
            f"--environment {environment!r}: {OVERLAYS} has none of that name{nearest(environment, known)}"
        )
    return root / OVERLAYS / environment


def _read(overlay: Path) -> Pins:
    """Return what is pinned; where nothing is, the names of the template and a digest that nobody has."""
    path = overlay / RELEASED / "kustomization.yaml"
    if not path.exists():
        names = {name: f"your-registry.example/gatehouse-model-{name}" for name in ("base", "candidate")}
        models = {name: Reference(image, NEVER) for name, image in names.items()}
        return Pins(Reference("your-registry.example/gatehouse-gateway", NEVER), models)
    try:
        (image,) = parse(path).value["images"]
        volumes = parse(path.with_name("vllm.yaml")).value["spec"]["template"]["spec"]["volumes"]
        models = {one["name"]: parse_reference(one["image"]["reference"], str(path)) for one in volumes}
        return Pins(parse_reference(f"{image['newName']}@{image['digest']}", str(path)), models)
    except (KeyError, TypeError, ValueError):
        raise ConfigError(f"{path.parent}: is not as `scripts.pin` wrote it; restore it from Git") from None


def _declared(root: Path, overlay: Path, pins: Pins) -> dict[str, Any]:
    """Return `serving.yaml` as it is served there: patched, and every model bound to the bytes of its image."""
    patch = overlay / "serving-patch.yaml"
    value: dict[str, Any] = merge(parse(root / "serving.yaml").value, parse(patch).value if patch.exists() else {})
    for upstream in value.get("upstreams", {}).values():
        if isinstance(upstream, dict) and upstream.get("kind") != "process" and upstream.get("model") in pins.models:
            upstream["digest"] = pins.models[upstream["model"]].digest
    return value


def _checked(root: Path, overlay: Path, declared: dict[str, Any]) -> Serving:
    shown = f"serving.yaml with {overlay.relative_to(root)}/serving-patch.yaml"
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "serving.yaml"
        path.write_text(_yaml(declared), encoding="utf-8")
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
    return found.serving


def _write(root: Path, overlay: Path, pins: Pins, declared: dict[str, Any], serving: Serving) -> None:
    folder = overlay / RELEASED
    prompts = _prompts(serving)
    write_text(folder / "serving.yaml", HEAD + _yaml(declared))
    shutil.rmtree(folder / "prompts", ignore_errors=True)
    for prompt in prompts:
        write_text(folder / prompt, (root / prompt).read_text(encoding="utf-8"))
    volumes = [{"name": name, "image": {"reference": str(image)}} for name, image in sorted(pins.models.items())]
    patch = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "vllm"},
        "spec": {"template": {"spec": {"volumes": volumes}}},
    }
    write_text(folder / "vllm.yaml", HEAD + _yaml(patch))
    component = {
        "apiVersion": "kustomize.config.k8s.io/v1alpha1",
        "kind": "Component",
        "configMapGenerator": [
            {"name": "serving", "files": ["serving.yaml"]},
            {"name": "prompts", "files": prompts},
        ],
        "images": [{"name": GATEWAY, "newName": pins.gateway.name, "digest": pins.gateway.digest}],
        "patches": [{"path": "vllm.yaml"}],
    }
    write_text(folder / "kustomization.yaml", HEAD + _yaml(component))


def _prompts(serving: Serving) -> list[str]:
    """Return the prompt files that are used; a ConfigMap holds no folders, so all lie in `prompts/` itself."""
    found = set()
    for route in serving.routes.values():
        found |= {route.prompt, *(variant.prompt for variant in route.variants.values())}
    named = sorted(prompt for prompt in found if prompt is not None)
    for prompt in named:
        if Path(prompt).parent != Path("prompts"):
            raise ConfigError(f"{prompt}: is served from Kubernetes only if it lies in prompts/ itself; move it there")
    return named


def _yaml(value: Any) -> str:
    return yaml.safe_dump(value, sort_keys=False, allow_unicode=True, width=120)
