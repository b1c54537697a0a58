"""The manifest of a release: every digest that makes it what it is, bound to the tag; its name is its own SHA-256."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from pipelines.core import git
from pipelines.core.declared import Declared
from pipelines.core.errors import ConfigError, one_line
from pipelines.core.files import canonical_json, digest
from pipelines.core.inputs import CODE, DECLARED, FOLDERS, input_digests_at
from pipelines.core.records import Record
from pipelines.release.tags import Tagged

MODELS = "models/"


class Model(Declared):
    """One model folder: the digest over its files, and each file's SHA-256."""

    digest: str
    files: dict[str, str]


class Decided(Declared):
    """The decision that lets the release go ahead."""

    verdict: str
    commit: str
    created: str
    run_url: str
    pull_request: int | None
    approval: dict[str, str] | None


class Manifest(Declared):
    """The whole manifest.

    Attributes:
        version: SemVer, without the v.
        tag: The tag's name.
        tag_object: The annotated tag itself, hex.
        commit: What it stands on, hex.
        tree: That commit's tree, hex.
        input_digest: What the decision is about.
        model_digest: Over all models.
        content_digest: Over what answers users: models, prompts, serving file and images. A rollback holds this.
        models: Model folders by name.
        prompts: SHA-256 of each prompt by path.
        data: SHA-256 of each data file (or of the small file that stands for it) by path.
        gates_sha256: Of `gates.yaml`; likewise `params_sha256` and `serving_sha256`, empty where there is none.
        locks: SHA-256 of each dependency lock by path.
        dvc_lock_sha256: Of the decision's `dvc.lock`.
        images: Image digests by name.
        decision: Verdict and approval.
        created: When the tag was made, ISO 8601; never the time of a run, so that a second run makes the same bytes.
    """

    schema_version: Literal[1] = 1
    version: str
    tag: str
    tag_object: str
    commit: str
    tree: str
    input_digest: str
    model_digest: str
    content_digest: str
    models: dict[str, Model]
    prompts: dict[str, str]
    data: dict[str, str]
    gates_sha256: str
    params_sha256: str
    serving_sha256: str
    locks: dict[str, str]
    dvc_lock_sha256: str
    images: dict[str, str]
    decision: Decided
    created: str

    def as_file(self) -> bytes:
        """Return the manifest's bytes: canonical JSON and a line's end."""
        return f"{canonical_json(self.model_dump(mode='json'))}\n".encode()

    @property
    def name(self) -> str:
        """Return the SHA-256 of its bytes, as `sha256sum` says it."""
        return hashlib.sha256(self.as_file()).hexdigest()


def build(root: Path, tagged: Tagged, images: Mapping[str, str]) -> Manifest:
    """Bind a verified tag to everything it is made of.

    Args:
        root: The repository.
        tagged: The verified tag.
        images: Image digests by name.
    """
    found = input_digests_at(tagged.commit, root)
    record = tagged.record
    models = models_of(record)
    prompts = {path: sha for path, sha in found.items() if path.startswith("prompts/")}
    serving = found.get("serving.yaml", "")
    model_digest = digest({name: one.digest for name, one in models.items()})
    return Manifest(
        version=str(tagged.version),
        tag=tagged.version.tag,
        tag_object=tagged.tag_object,
        commit=tagged.commit,
        tree=git.git(root, "rev-parse", f"{tagged.commit}^{{tree}}").decode().strip(),
        input_digest=tagged.input_digest,
        model_digest=model_digest,
        content_digest=content_digest(found, record, images),
        models=models,
        prompts=prompts,
        data=data_of(found),
        gates_sha256=found.get("gates.yaml", ""),
        params_sha256=found.get("params.yaml", ""),
        serving_sha256=serving,
        locks={path: sha for path, sha in found.items() if path.startswith("locks/")},
        dvc_lock_sha256=hashlib.sha256(record.lock.encode()).hexdigest(),
        images=dict(images),
        decision=_decided(record),
        created=tagged.created,
    )


def content_digest(digests: Mapping[str, str], record: Record, images: Mapping[str, str]) -> str:
    """Return the digest of what answers users.

    Args:
        digests: SHA-256 of each input of the commit by path.
        record: The decision, which names the models.
        images: Image digests by name.
    """
    model_digest = digest({name: one.digest for name, one in models_of(record).items()})
    prompts = {path: sha for path, sha in digests.items() if path.startswith("prompts/")}
    serving = digests.get("serving.yaml", "")
    return digest({"model": model_digest, "prompts": prompts, "serving": serving, "images": dict(images)})


def data_of(digests: Mapping[str, str]) -> dict[str, str]:
    """Return which of a tree's inputs are data: what `params.yaml` names beside prompts."""
    folders = tuple(f"{name}/" for name in (*FOLDERS, *CODE))
    return {path: sha for path, sha in digests.items() if path not in DECLARED and not path.startswith(folders)}


def models_of(record: Record) -> dict[str, Model]:
    """Return the model folders that a decision was made on."""
    files: dict[str, dict[str, str]] = {}
    for path, output in sorted(record.manifest.items()):
        if path.startswith(MODELS):
            folder, _, name = path.removeprefix(MODELS).partition("/")
            files.setdefault(folder, {})[name or folder] = output.sha256
    return {folder: Model(digest=digest(found), files=found) for folder, found in files.items()}


def read_manifest(data: bytes | None, name: str, shown: str) -> Manifest:
    """Return the manifest of this name, held against the name.

    Raises:
        ConfigError: It is missing, altered or broken.
    """
    if data is None:
        raise ConfigError(f"{shown}: no such file on the branch; restore it from Git's history")
    if hashlib.sha256(data).hexdigest() != name:
        raise ConfigError(f"{shown}: its SHA-256 is not its name, so it was altered; restore it from Git's history")
    try:
        return Manifest.model_validate_json(data)
    except ValidationError as error:
        first: Any = error.errors(include_url=False)[0]
        key = ".".join(str(part) for part in first["loc"]) or "the file"
        raise ConfigError(f"{shown}: {one_line(key, 100)}: {first['msg'].lower()}") from None


def _decided(record: Record) -> Decided:
    return Decided(
        verdict=record.verdict,
        commit=record.commit,
        created=record.created,
        run_url=record.run_url,
        pull_request=record.pull_request or record.replaces,
        approval=record.approval.model_dump() if record.approval else None,
    )
