"""A merged adapter is the same model in another form: it answers alike and keeps its digest."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from pipelines.llm.local_model import load
from pipelines.llm.merge import merge


def test_a_merged_adapter_answers_as_the_adapter_does(tmp_path: Path, tiny_model: Path) -> None:
    from peft import LoraConfig, get_peft_model

    base = load(tiny_model, precision="float32", device="cpu")
    torch.manual_seed(1)
    config = LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", init_lora_weights=False)
    adapter = tmp_path / "candidate"
    get_peft_model(base.model, config).save_pretrained(adapter)
    family = json.loads((tiny_model / "model.json").read_text())["family"]
    card = {"schema_version": 1, "kind": "adapter", "digest": "a" * 64, "family": family, "base": str(tiny_model)}
    card |= {"base_digest": base.digest, "license": "Apache-2.0", "source": {}}
    (adapter / "model.json").write_text(json.dumps(card))

    merge(adapter, tmp_path / "merged")

    ids = torch.tensor([[1, 20, 30, 40]])
    with torch.inference_mode():
        expected = load(adapter, precision="float32", device="cpu").model(ids).logits
        merged = load(tmp_path / "merged", precision="float32", device="cpu")
        assert torch.allclose(merged.model(ids).logits, expected, atol=1e-5)
        assert not torch.allclose(load(tiny_model, precision="float32", device="cpu").model(ids).logits, expected)
    assert merged.digest == "a" * 64
    assert sorted(path.suffix for path in (tmp_path / "merged").glob("*.safetensors")) == [".safetensors"]
    assert not [path.name for path in tmp_path.iterdir() if path.name.startswith(".")]
