"""Fetch a declared model into `models/<name>/`: verified, as safetensors, with a card that says what it is."""

from __future__ import annotations

import contextlib
import functools
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipelines.core.errors import ConfigError, ServiceError
from pipelines.core.files import digest, read_json, write_json
from pipelines.core.folders import replacing_folder
from pipelines.core.params import DirectoryModel, EndpointModel, HubModel, ModelSource, PackageModel, RegisteredModel
from pipelines.llm.local_model import read_card
from pipelines.training.sources import METADATA, Files, from_directory, from_hub, from_package, from_registry
from pipelines.training.weights import SAFE, adapter_digest, format_of, model_digest, weights_digest


def fetch(name: str, source: ModelSource, *, root: Path = Path()) -> Path:
    """Make `models/<name>/` from its declared source; equal declarations give equal bytes.

    Weights are hashed before anything parses them. What is fetched once is kept in `.cache/models/<SHA-256>/`.

    Args:
        name: The model's name under `models` in `params.yaml`.
        source: Its declaration.
        root: The repository.

    Returns:
        The model's folder.

    Raises:
        ConfigError: A hash differs, a file is missing, or the weights are neither safetensors nor GGUF.
        ServiceError: The package index, hub or registry fails.
    """
    folder = root / "models" / name
    if _is_there(folder, source):
        return folder
    # A price decides no answer: changing it must not look like another model.
    declared = source.model_dump(mode="json", exclude={"price"})
    with replacing_folder(folder) as new:
        if isinstance(source, EndpointModel):
            card = _endpoint_card(source, declared)
        elif isinstance(source, RegisteredModel):
            card = _take_registered(source, new, root)
        else:
            _build(_files(source, root), new)
            card = _card(new, source.license)
        write_json(new / "model.json", {"schema_version": 1, **card, "source": declared})
    return folder


def _is_there(folder: Path, source: ModelSource) -> bool:
    """Tell whether the folder already holds what is declared; an alias can move, so here a registry is always asked.

    `make run` comes here only where the declaration has changed; `python -m scripts.fetch --model NAME` follows an
    alias at any time.
    """
    if isinstance(source, RegisteredModel | EndpointModel) or not (folder / "model.json").exists():
        return False
    card = read_card(folder)
    declared = source.model_dump(mode="json", exclude={"price"})
    return card.source == declared and card.digest == model_digest(folder)


def _files(source: PackageModel | HubModel | DirectoryModel, root: Path) -> Files:
    if isinstance(source, PackageModel):
        return from_package(source, root / ".cache" / "models")
    return from_hub(source) if isinstance(source, HubModel) else from_directory(source, root)


def _build(files: Files, folder: Path) -> None:
    formats = {path: format_of(path) for path in files.weights}
    if "gguf" in formats.values():
        if len(files.weights) > 1:
            raise ConfigError(f"{files.weights[0].name}: a GGUF model is one file, {len(formats)} are declared")
        _dequantise(files.weights[0], folder)
        return
    if not any(path.name == "config.json" for path in files.metadata):
        raise ConfigError(f"{files.weights[0].parent}: no config.json beside the weights; safetensors need one")
    _copy(files, folder)


def _copy(files: Files, folder: Path) -> None:
    for path in files.metadata:
        shutil.copyfile(path, folder / path.name)
    for path in files.weights:
        # The name does not matter to us, but transformers looks for this one.
        name = "model.safetensors" if len(files.weights) == 1 else path.name
        shutil.copyfile(path, folder / name)
    _forget_code(folder / "config.json")
    _forget_code(folder / "tokenizer_config.json")


def _forget_code(path: Path) -> None:
    """Drop references to Python code from a configuration: some loaders would run it."""
    value = read_json(path) if path.exists() else {}
    if isinstance(value, dict) and value.pop("auto_map", None) is not None:
        write_json(path, value)


def _dequantise(path: Path, folder: Path) -> None:
    """Turn a GGUF file into float16 safetensors with tokenizer and chat template."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig, logging

    logging.disable_progress_bar()  # type: ignore[no-untyped-call]

    try:
        with _parsed_once():
            tokenizer = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name, local_files_only=True)
            model = AutoModelForCausalLM.from_pretrained(
                path.parent,
                gguf_file=path.name,
                quantization_config=GgufConfig(gguf_file=path.name, dequantize=True),
                dtype=torch.float16,
                local_files_only=True,
            )
    except (ValueError, KeyError, IndexError, NotImplementedError, RuntimeError, OSError) as error:
        cause = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        raise ConfigError(f"{path}: transformers cannot read this GGUF file ({cause}); use another one") from None
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    (folder / "model.safetensors").chmod(
        (folder / "config.json").stat().st_mode
    )  # safetensors writes for the owner only


@contextlib.contextmanager
def _parsed_once() -> Iterator[None]:
    """Keep what transformers would parse anew: the file for each of its three parts, a table of names per module."""
    import gguf

    library: Any = gguf
    before = library.GGUFReader, library.get_tensor_name_map
    library.GGUFReader, library.get_tensor_name_map = (functools.cache(each) for each in before)
    try:
        yield
    finally:
        library.GGUFReader, library.get_tensor_name_map = before


def _take_registered(source: RegisteredModel, folder: Path, root: Path) -> dict[str, Any]:
    """Copy a registered model or adapter and return its card; its own card must match its bytes."""
    with tempfile.TemporaryDirectory(dir=folder.parent) as temporary:
        found = from_registry(source, Path(temporary))
        weights = tuple(sorted(found.glob("*.safetensors")))
        if not weights:
            raise ConfigError(f"models:/{source.name}@{source.alias} holds no *.safetensors; weights are {SAFE}")
        for path in weights:
            format_of(path)
        is_adapter = (found / "adapter_config.json").exists()
        names = (*METADATA, "adapter_config.json", "training.json")
        files = Files(weights, tuple(found / name for name in names if (found / name).exists()))
        old = read_card(found) if (found / "model.json").exists() else None
        for path in (*files.metadata, *files.weights):
            shutil.copyfile(path, folder / path.name)
        for name in ("config.json", "tokenizer_config.json"):
            _forget_code(folder / name)
    if not is_adapter:
        card = _card(folder, old.license if old else "unknown")
    elif old and old.base and old.base_digest:
        _check_base(root / old.base, old.base_digest, source)
        made = {"digest": adapter_digest(folder, old.base_digest), "family": old.family, "license": old.license}
        card = {"kind": "adapter", **made, "base": old.base, "base_digest": old.base_digest}
    else:
        raise ConfigError(f"models:/{source.name}@{source.alias} is an adapter without model.json: its base is unknown")
    if old and old.digest != card["digest"]:
        raise ServiceError(
            f"models:/{source.name}@{source.alias}: digest is {card['digest'][:12]}, its card says {old.digest[:12]}; "
            "the registry's files were altered: register the model again"
        )
    return card


def _check_base(base: Path, base_digest: str, source: RegisteredModel) -> None:
    found = read_card(base).digest if (base / "model.json").exists() else "nothing"
    if found != base_digest:
        raise ConfigError(
            f"models:/{source.name}@{source.alias} needs the base {base_digest[:12]} in {base}, found {found[:12]}; "
            f"fetch it first: `python -m scripts.fetch --model {base.name}`"
        )


def _card(folder: Path, license_: str) -> dict[str, Any]:
    made = {"digest": model_digest(folder), "family": weights_digest(folder), "license": license_}
    return {"kind": "transformers", **made}


def _endpoint_card(source: EndpointModel, declared: dict[str, Any]) -> dict[str, Any]:
    # How fast we may ask decides no answer, so only address and model count.
    identity = digest({"base_url": source.base_url, "model": source.model})
    made = {"digest": identity, "family": identity, "license": "unknown"}
    return {"kind": "endpoint", **made, **{key: value for key, value in declared.items() if key != "source"}}
