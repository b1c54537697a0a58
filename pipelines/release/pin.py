"""Pin what an environment on Kubernetes runs: images by digest, and `serving.yaml` with its prompts as they are now.

An overlay holds what people write: where, how much, and a merge patch for `serving.yaml`. Its folder `released/` is a
Kustomize component that is written here and by releases, so that a merge to main changes nothing that runs, and a
release or a rollback is one commit to one folder. What staging is pinned to is what the next release binds to its tag.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

from pipelines.core.declared import nearest
from pipelines.core.errors import ConfigError
from pipelines.core.files import digest, read_text, sha256, write_text
from pipelines.core.source import parse
from pipelines.release.kubernetes.released import NEVER, OVERLAYS, PATCH, RELEASED, Held, Pins, compose
from pipelines.release.reference import Reference, parse_reference


def pin(root: Path, environment: str, gateway: str | None, models: Mapping[str, str]) -> Pins:
    """Write `k8s/overlays/<environment>/released/`; what is not given stays as it is there.

    Args:
        root: The repository.
        environment: A folder of k8s/overlays.
        gateway: Image of the gateway, NAME@sha256:...
        models: Images of models by name, likewise; the folders in models/ that they were made of say what they hold.

    Returns:
        What the environment runs now.

    Raises:
        ConfigError: There is no such environment or model, an image has no digest, or `serving.yaml` with the
            environment's patch is wrong.
    """
    overlay = overlay_of(root, environment)
    before = pinned(overlay)
    for name in models:
        if name not in before.models:
            raise ConfigError(f"--model {name}: k8s/base/vllm.yaml has no such volume{nearest(name, [*before.models])}")
    given = {
        name: Held(parse_reference(text, f"--model {name}:"), model_digest(root, name)) for name, text in models.items()
    }
    image = parse_reference(gateway, "--gateway") if gateway else before.gateway
    # Only a change of images makes it another release than the one that is there.
    after = before._replace(gateway=image, models=before.models | given)
    shown = f"serving.yaml with {overlay.relative_to(root)}/{PATCH}"
    patch = parse(overlay / PATCH).value if (overlay / PATCH).exists() else {}
    release = compose(lambda path: read_text(root / path), patch, after, shown)
    shutil.rmtree(overlay / RELEASED / "prompts", ignore_errors=True)
    for path, data in release.files(environment).items():
        write_text(root / path, data.decode())
    return after


def overlay_of(root: Path, environment: str) -> Path:
    """Return an environment's folder.

    Raises:
        ConfigError: There is no such environment.
    """
    known = sorted(path.parent.name for path in (root / OVERLAYS).glob("*/kustomization.yaml"))
    if environment not in known:
        raise ConfigError(
            f"--environment {environment!r}: {OVERLAYS} has none of that name{nearest(environment, known)}"
        )
    return root / OVERLAYS / environment


def model_digest(root: Path, name: str) -> str:
    """Return the digest of a model folder here, as manifests say it; empty where there is none."""
    folder = root / "models" / name
    files = {path.name: sha256(path) for path in sorted(folder.glob("*")) if path.is_file()}
    return digest(files) if files else ""


def pinned(overlay: Path) -> Pins:
    """Return what is pinned; where nothing is, the names of the template and a digest that nobody has.

    Raises:
        ConfigError: The folder was edited by hand.
    """
    path = overlay / RELEASED / "kustomization.yaml"
    if not path.exists():
        names = {name: f"your-registry.example/gatehouse-model-{name}" for name in ("base", "candidate")}
        models = {name: Held(Reference(image, NEVER)) for name, image in names.items()}
        return Pins(Reference("your-registry.example/gatehouse-gateway", NEVER), models)
    try:
        (image,) = parse(path).value["images"]
        held = parse(path.with_name("models.yaml")).value.items()
        models = {name: Held(parse_reference(one["image"], str(path)), str(one["digest"])) for name, one in held}
        return Pins(parse_reference(f"{image['newName']}@{image['digest']}", str(path)), models)
    except (KeyError, TypeError, ValueError, AttributeError):
        raise ConfigError(f"{path.parent}: is not as `scripts.pin` wrote it; restore it from Git") from None
