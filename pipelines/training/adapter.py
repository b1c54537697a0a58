"""LoRA adapters: put one on a base model, and save it as the candidate."""

from __future__ import annotations

import importlib
import json
import shutil
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training

from pipelines.core.errors import ConfigError, one_line
from pipelines.core.files import write_json
from pipelines.core.params import Lora
from pipelines.llm.local_model import LocalModel, read_card


def attach(model: Any, lora: Lora, *, seed: int) -> Any:
    """Put a fresh adapter on a model; only the adapter learns, in float32.

    Args:
        model: A causal language model.
        lora: The declared adapter.
        seed: Of its first weights.

    Raises:
        ConfigError: The declared layers are not in the model.
    """
    torch.manual_seed(seed)
    targets: str | list[str] = lora.targets if isinstance(lora.targets, str) else list(lora.targets)
    layers = None
    if lora.last_layers is not None:
        n_layers = model.config.num_hidden_layers
        if lora.last_layers > n_layers:
            raise ConfigError(f"params.yaml: train.lora.last_layers: {lora.last_layers}, the base model has {n_layers}")
        layers = list(range(n_layers - lora.last_layers, n_layers))
        targets = _linear(model) if isinstance(targets, str) else targets  # peft picks layers for names only
    config = LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=targets,
        layers_to_transform=layers,
        task_type="CAUSAL_LM",
    )
    try:
        return get_peft_model(model, config)
    except ValueError as error:
        raise ConfigError(
            f"params.yaml: train.lora.targets: do not fit the base model ({one_line(str(error), 200)})"
        ) from None


def _linear(model: Any) -> list[str]:
    """Return the names of the linear layers, the output's aside."""
    head = model.get_output_embeddings()
    linear = (
        name for name, module in model.named_modules() if isinstance(module, torch.nn.Linear) and module is not head
    )
    return sorted({name.rpartition(".")[2] for name in linear})


def load_quantized(folder: Path) -> LocalModel:
    """Load a base model in 4 bits (NF4) for QLoRA (Dettmers et al. 2023).

    Raises:
        ConfigError: There is no GPU, or bitsandbytes is not installed.
    """
    if not torch.cuda.is_available():
        raise ConfigError("params.yaml: train.quantization: nf4 needs an NVIDIA GPU, none is here; set it to none")
    try:
        importlib.import_module("bitsandbytes")
    except ImportError:
        raise ConfigError(
            "params.yaml: train.quantization: nf4 needs bitsandbytes; set up with `make LOCK=cuda` or set it to none"
        ) from None
    from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig

    quantization = BitsAndBytesConfig(  # type: ignore[no-untyped-call]
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )
    model = AutoModelForCausalLM.from_pretrained(
        folder,
        quantization_config=quantization,
        dtype=torch.bfloat16,
        device_map={"": torch.cuda.current_device()},
        local_files_only=True,
        use_safetensors=True,
    )
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    ready = prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)  # type: ignore[no-untyped-call]
    return LocalModel(ready, tokenizer, read_card(folder).digest, "bfloat16", "cuda")


def save(model: Any, folder: Path, *, base: str) -> None:
    """Save an adapter so that equal weights give equal bytes.

    Args:
        model: A model that `attach` returned.
        folder: An empty folder.
        base: The base model's folder, as the adapter's configuration names it.
    """
    model.save_pretrained(folder, save_embedding_layers=False)
    for path in folder.iterdir():
        if path.name not in ("adapter_model.safetensors", "adapter_config.json"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    path = folder / "adapter_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    # peft writes a set, in the order of this process.
    config["target_modules"] = sorted(config["target_modules"])
    config["base_model_name_or_path"] = base
    write_json(path, dict(sorted(config.items())))
    (folder / "adapter_model.safetensors").chmod(path.stat().st_mode)  # safetensors writes for the owner only
