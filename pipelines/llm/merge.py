"""Lay an adapter and its base out as one model folder, which any server of safetensors can load."""

from __future__ import annotations

from pathlib import Path

from pipelines.core.files import write_json
from pipelines.core.folders import replacing_folder
from pipelines.llm.local_model import load, read_card


def merge(source: Path, target: Path) -> None:
    """Write the merged model of an adapter folder; `target` is replaced whole or left as it was.

    Its `model.json` has the adapter's digest, because it is the same model in another form.

    Args:
        source: Model folder of kind `adapter`.
        target: Folder to write.

    Raises:
        ConfigError: `source` is no complete adapter, or its base is another one than it was trained on.
    """
    card = read_card(source)
    local = load(source, precision="auto", device="cpu")
    with replacing_folder(target) as folder:
        local.model.save_pretrained(folder, safe_serialization=True)
        local.tokenizer.save_pretrained(folder)
        value = card._replace(kind="transformers", base=None, base_digest=None)._asdict()
        write_json(folder / "model.json", {"schema_version": 1, **value})
