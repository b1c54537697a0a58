"""A manifest's models as files: taken by their SHA-256 from where they are, never from a path alone."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Collection
from pathlib import Path

from pipelines.core import records
from pipelines.core.errors import ConfigError, ServiceError
from pipelines.core.files import digest, read_json, sha256
from pipelines.core.folders import replacing_folder
from pipelines.core.objects import Store, kept_by_dvc
from pipelines.release.manifest import MODELS, Manifest

MOST_KEPT = 4
"""Models laid out; those unused for the longest time go first."""


def lay_out(root: Path, manifest: Manifest, name: str, folder: Path) -> Path:
    """Return the folder where a model of a manifest lies, with the base that it changes beside it.

    Args:
        root: The repository: its `models/`, its DVC cache and remote are looked through.
        manifest: Names each file by its SHA-256.
        name: Of the model.
        folder: Where laid out models are kept.

    Raises:
        ConfigError: The manifest has no such model.
        ServiceError: A file is nowhere, or altered everywhere.
    """
    if name not in manifest.models:
        known = ", ".join(sorted(manifest.models)) or "none at all"
        raise ConfigError(
            f"manifest {manifest.name[:12]}: names no model {name!r} (known: {known}); decide about it again with "
            "`make release`"
        )
    place = folder / digest({each: model.digest for each, model in sorted(manifest.models.items())} | {"": name})[:16]
    if not _is_intact(place, manifest, name):
        with replacing_folder(place) as new:
            _take(root, manifest, name, new / MODELS / name)
            card = read_json(new / MODELS / name / "model.json")
            if isinstance(card, dict) and card.get("kind") == "adapter":
                base = str(card.get("base", "")).removeprefix(MODELS)
                if base not in manifest.models:
                    raise ConfigError(f"manifest {manifest.name[:12]}: model {name!r} changes a base that it lacks")
                _take(root, manifest, base, new / MODELS / base)
    os.utime(place)
    return place


def forget(folder: Path, used: Collection[Path] = ()) -> None:
    """Remove what was not used for the longest time, and never what is used now.

    Args:
        folder: Where models are laid out.
        used: Folders of processes that run.
    """
    found = sorted((each for each in folder.glob("[0-9a-f]*") if each.is_dir()), key=lambda each: -each.stat().st_mtime)
    for each in found[MOST_KEPT:]:
        if each in used:
            continue
        shutil.rmtree(each, ignore_errors=True)


def _is_intact(place: Path, manifest: Manifest, name: str) -> bool:
    """Tell whether a folder holds what the manifest names; its files may be the work tree's under a second name."""
    laid = [one for one in manifest.models if (place / MODELS / one).is_dir()]
    return name in laid and all(
        (path := place / MODELS / one / file).is_file() and sha256(path) == expected
        for one in laid
        for file, expected in manifest.models[one].files.items()
    )


def _take(root: Path, manifest: Manifest, name: str, target: Path) -> None:
    missing = {}
    for file, expected in manifest.models[name].files.items():
        place = target / file
        place.parent.mkdir(parents=True, exist_ok=True)
        source = root / MODELS / name / file
        if source.is_file() and _is_copied(source, place, expected):
            continue
        missing[file] = expected
    if missing:
        with kept_by_dvc(root) as store:
            for file, expected in missing.items():
                _fetch(store, _md5(root, manifest, f"{MODELS}{name}/{file}"), target / file, expected, name)


def _is_copied(source: Path, place: Path, expected: str) -> bool:
    """Take a file over, as a second name where the disk can, and tell whether it is the expected one."""
    with contextlib.suppress(FileNotFoundError):
        place.unlink()
    try:
        os.link(source, place)
    except OSError:
        shutil.copyfile(source, place)
    if sha256(place) == expected:
        return True
    place.unlink()
    return False


def _fetch(store: Store, md5: str, place: Path, expected: str, name: str) -> None:
    try:
        store.copy(md5, place)
    except ServiceError as error:
        raise ServiceError(f"models/{name}/{place.name}: {error}") from None
    if sha256(place) != expected:
        raise ServiceError(f"models/{name}/{place.name}: what DVC keeps is not what the manifest names; restore it")


def _md5(root: Path, manifest: Manifest, path: str) -> str:
    record = records.read(manifest.input_digest, root, None) or records.read(manifest.input_digest, root)
    found = record.manifest.get(path) if record else None
    if found is None or not found.md5:
        raise ServiceError(
            f"{path}: is not the released one, and no record says where that is; `dvc checkout` brings it back"
        )
    return found.md5
