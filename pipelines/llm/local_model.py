"""Load a model folder for training and for the engine, and turn rendered messages into tokens."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from pipelines.core.errors import ConfigError
from pipelines.core.files import read_json
from pipelines.llm.prompts import Message

if TYPE_CHECKING:
    import torch

KINDS = ("transformers", "adapter", "endpoint")


class ModelCard(NamedTuple):
    """A model folder's `model.json`.

    Attributes:
        kind: `transformers`, `adapter` (of `base`) or `endpoint`.
        digest: SHA-256 (hex) of what decides its answers: weights, and the base's digest.
        family: SHA-256 (hex) of the base model's weights; models of one family can be compared.
        license: SPDX identifier.
        source: Where it comes from, as declared.
        base: Folder of the model that an adapter changes, else None.
        base_digest: Its digest, else None.
    """

    kind: str
    digest: str
    family: str
    license: str
    source: dict[str, Any]
    base: str | None = None
    base_digest: str | None = None


class LocalModel(NamedTuple):
    """A model in memory, ready to answer.

    Attributes:
        model: A causal language model of transformers, in evaluation mode.
        tokenizer: Its tokenizer, with a chat template.
        digest: Of its `model.json`.
        precision: Name of the weights' type: float32, bfloat16 or float16.
        device: `cpu` or `cuda`.
    """

    model: Any
    tokenizer: Any
    digest: str
    precision: str
    device: str


def read_card(folder: Path) -> ModelCard:
    """Read a model folder's `model.json`.

    Raises:
        ConfigError: There is none, or it is not one.
    """
    path = folder / "model.json"
    if not path.exists():
        fetching = f", `python -m scripts.fetch --model {folder.name}` fetches it" if folder.name != "candidate" else ""
        raise ConfigError(f"{path}: no such file; fetch or train the model first (`make run` does both{fetching})")
    value = read_json(path)
    if not isinstance(value, dict) or value.get("schema_version") != 1 or value.get("kind") not in KINDS:
        raise ConfigError(
            f"{path}: not a model card (schema_version 1, kind {' | '.join(KINDS)}); fetch the model again"
        )
    try:
        card = ModelCard(**{name: value[name] for name in ModelCard._fields if name in value})
    except TypeError as error:
        raise ConfigError(f"{path}: not a model card ({error}); fetch the model again") from None
    if card.kind == "adapter" and not (card.base and card.base_digest):
        raise ConfigError(f"{path}: an adapter needs `base` and `base_digest`; train it again")
    return card


def resolve_device(device: str) -> str:
    """Return `cpu` or `cuda` for `auto`, `cpu` or `cuda`.

    Raises:
        ConfigError: CUDA is asked for and not there.
    """
    import torch

    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("params.yaml: engine.device is cuda, but torch sees no CUDA device; use auto or cpu")
    return device


def resolve_precision(precision: str, device: str) -> torch.dtype:
    """Return the type of the weights; `auto` is float32 on a CPU and bfloat16 on a GPU."""
    import torch

    if precision == "auto":
        precision = "bfloat16" if device.startswith("cuda") else "float32"
    return {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}[precision]


def load(folder: Path, *, precision: str, device: str) -> LocalModel:
    """Load a model folder; an adapter is merged into its base, so that it costs nothing per token.

    Args:
        folder: Model folder with `model.json`, weights as safetensors.
        precision: auto, float32, bfloat16 or float16.
        device: auto, cpu or cuda.

    Raises:
        ConfigError: The folder is not a complete local model, or its base is another one than it was trained on.
    """
    import torch

    card = read_card(folder)
    if card.kind == "endpoint":
        raise ConfigError(f"{folder / 'model.json'}: is an endpoint, a local model is needed here")
    place = resolve_device(device)
    dtype = resolve_precision(precision, place)
    base = _base_folder(folder, card)
    # Merging adds small numbers to large ones: in float32, whatever the precision afterwards.
    model, tokenizer = _load_base(base, torch.float32 if card.kind == "adapter" else dtype)
    if card.kind == "adapter":
        model = _merge(model, folder)
    return LocalModel(model.to(place, dtype).eval(), tokenizer, card.digest, str(dtype).removeprefix("torch."), place)


def chat_ids(tokenizer: Any, messages: Sequence[Message], *, add_generation_prompt: bool = True) -> list[int]:
    """Turn rendered messages into token ids: the tokenisation that training, evaluation and timing share.

    Args:
        tokenizer: A tokenizer with a chat template.
        messages: Rendered messages.
        add_generation_prompt: End with the tokens that open an answer.
    """
    ids: list[int] = tokenizer.apply_chat_template(
        [message._asdict() for message in messages],
        add_generation_prompt=add_generation_prompt,
        tokenize=True,
        return_dict=False,
    )
    return ids


def _base_folder(folder: Path, card: ModelCard) -> Path:
    if card.kind != "adapter":
        return folder
    assert card.base is not None  # `read_card` refuses an adapter without one
    # `models/base` counts from the repository, which is where jobs run, and also holds when a folder was moved with it.
    places = [Path(card.base), folder.parent.parent / card.base, folder.parent / Path(card.base).name]
    found = [place for place in places if (place / "model.json").exists()]
    if not found:
        raise ConfigError(f"{folder / 'model.json'}: its base '{card.base}' is not there; fetch it first")
    for place in found:
        if read_card(place).digest == card.base_digest:
            return place
    raise ConfigError(
        f"{folder / 'model.json'}: was trained on another base than '{found[0]}' "
        f"(digest {str(card.base_digest)[:12]}, found {read_card(found[0]).digest[:12]}); train it again"
    )


def _load_base(folder: Path, dtype: torch.dtype) -> tuple[Any, Any]:
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM, AutoTokenizer

    if not (folder / "config.json").exists() or not list(folder.glob("*.safetensors")):
        raise ConfigError(f"{folder}: config.json or *.safetensors is missing; fetch the model again")
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        model = AutoModelForCausalLM.from_pretrained(
            folder, dtype=dtype, local_files_only=True, trust_remote_code=False, use_safetensors=True
        )
    except (SafetensorError, ValueError, OSError) as error:
        cause = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        raise ConfigError(f"{folder}: transformers cannot load it ({cause}); fetch the model again") from None
    if not tokenizer.chat_template:
        raise ConfigError(f"{folder}: its tokenizer has no chat template; use an instruction-tuned model")
    return model, tokenizer


def _merge(model: Any, folder: Path) -> Any:
    from peft import PeftModel
    from safetensors import SafetensorError

    # peft asks transformers by a name that it renames in its next major version.
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")
    # peft falls back on a pickle where the safetensors file is missing.
    if not (folder / "adapter_model.safetensors").exists():
        raise ConfigError(f"{folder / 'adapter_model.safetensors'}: no such file; train the model again")
    try:
        return PeftModel.from_pretrained(model, str(folder), is_trainable=False).merge_and_unload()
    except (SafetensorError, ValueError, OSError, RuntimeError) as error:
        cause = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        raise ConfigError(f"{folder}: not an adapter of its base ({cause}); train it again") from None
