"""Build an image, look for known holes in it, push it by digest and sign it; what fails the scan is never signed.

The tools are those that everybody can run by hand: docker with buildx, grype, cosign. An image is pushed without a tag,
so that nobody gets it who does not name its digest, and only a signature says that it may run.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

from pipelines.core.errors import ConfigError, GateFailed, ServiceError, one_line
from pipelines.release.reference import DIGEST, Reference, check_name

TARGETS = ("gateway", "pipelines", "model")
SEVERITIES = ("low", "medium", "high", "critical")
TOOLS = {
    "docker": "install Docker with buildx",
    "grype": "install Anchore's grype, or pass scan false",
    "cosign": "install Sigstore's cosign, or pass push false",
}
BUILD_S = 3600
OTHER_S = 900
SCAN_REFUSES = 2
"""Exit code of grype for what it found; 1 is that it could not look."""


class Order(NamedTuple):
    """What is to be built.

    Attributes:
        root: The repository, whose Dockerfile it is.
        target: Stage of the Dockerfile.
        name: Registry and repository.
        model: For the target `model`: folder of models/ whose files the image holds.
        push: Push it and sign it; else it is only built and scanned.
        scan: Lowest severity of a hole with a known fix that stops it; "" scans nothing.
    """

    root: Path
    target: str
    name: str
    model: str = ""
    push: bool = False
    scan: str = "high"


def build(order: Order) -> str:
    """Build, scan, push and sign as ordered.

    Returns:
        `name@sha256:...` of what was pushed, or of what was built.

    Raises:
        ConfigError: The order is wrong, a tool is missing, or nothing would vouch for the signature.
        GateFailed: The scan found a hole that has a fix.
        ServiceError: Building, pushing or signing failed.
    """
    check_name(order.name, "--name")
    arguments = _build_arguments(order)
    for tool in ("docker", *(["grype"] if order.scan else []), *(["cosign"] if order.push else [])):
        if shutil.which(tool) is None:
            raise ConfigError(f"{tool}: not found; {TOOLS[tool]}")
    if order.push and not os.environ.get("ACTIONS_ID_TOKEN_REQUEST_URL"):
        raise ConfigError("a signature needs the job's identity: give the job `permissions: {id-token: write}`")
    with tempfile.TemporaryDirectory() as folder:
        image = Reference(order.name, _built(order, arguments, Path(folder)))
        if order.scan:
            place = f"registry:{image}" if order.push else f"oci-archive:{folder}/image.tar"
            _scan(order, place)
    if order.push:
        _run(["cosign", "sign", "--yes", "--recursive", str(image)], OTHER_S)
    return str(image)


def _build_arguments(order: Order) -> list[str]:
    if order.target != "model":
        if order.model:
            raise ConfigError(f"--model is of the target model; {order.target} holds none")
        return []
    folder = order.root / "models" / order.model
    if not order.model or "/" in order.model or not (folder / "model.json").is_file():
        shown = one_line(order.model, 80)
        raise ConfigError(f"--model {shown!r}: models/{shown} holds no model; `make run` makes base and candidate")
    return ["--build-arg", f"MODEL={order.model}"]


def _built(order: Order, arguments: list[str], folder: Path) -> str:
    """Build the image and return its digest."""
    output = f"type=oci,dest={folder}/image.tar"
    if order.push:
        output = f"type=image,name={order.name},push-by-digest=true,name-canonical=true,push=true"
    metadata = folder / "metadata.json"
    command = [
        "docker",
        "buildx",
        "build",
        f"--target={order.target}",
        *arguments,
        "--provenance=mode=max",
        "--sbom=true",
    ]
    command += [f"--output={output},rewrite-timestamp=true", f"--metadata-file={metadata}", "--progress=plain", "."]
    _run(command, BUILD_S, root=order.root, epoch=_commit_time(order.root))
    try:
        found: Any = json.loads(metadata.read_text(encoding="utf-8"))["containerimage.digest"]
    except (OSError, ValueError, KeyError, TypeError):
        found = None
    if not isinstance(found, str) or not DIGEST.fullmatch(found):
        raise ServiceError("docker buildx: named no digest of what it built; buildx 0.12 or newer is needed")
    return found


def _scan(order: Order, place: str) -> None:
    command = ["grype", place, f"--fail-on={order.scan}", "--only-fixed", "--output=table"]
    if _run(command, OTHER_S, refuses=SCAN_REFUSES):
        raise GateFailed(
            f"{order.name}: holes of severity {order.scan} or worse have a fix; the table above names them; "
            "update the base image's digest or run `make lock`"
        )


def _commit_time(root: Path) -> str:
    """Return the commit's time, so that files in layers bear the same one wherever they are built."""
    done = subprocess.run(["git", "log", "-1", "--format=%ct"], cwd=root, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "0"


def _run(command: list[str], timeout_s: int, *, root: Path | None = None, epoch: str = "", refuses: int = 0) -> bool:
    """Run a tool, which talks to whoever watches; return whether it ended with the exit code `refuses`."""
    environment = os.environ | ({"SOURCE_DATE_EPOCH": epoch} if epoch else {})
    shown = " ".join(command[:3])
    try:
        code = subprocess.run(command, cwd=root, env=environment, check=False, timeout=timeout_s).returncode
    except subprocess.TimeoutExpired:
        raise ServiceError(f"{shown}: took more than {timeout_s} s; run it again") from None
    if code and code != refuses:
        raise ServiceError(f"{shown}: ended with {code}; the lines above say why")
    return bool(code)
