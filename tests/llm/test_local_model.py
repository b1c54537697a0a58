"""Loading a model folder: what is whole loads, an adapter is merged, and all else is refused in one line."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from pipelines.core.errors import ConfigError
from pipelines.llm.local_model import chat_ids, load, read_card, resolve_device, resolve_precision
from pipelines.llm.prompts import Message

QUESTION = [Message("system", "Answer with JSON only."), Message("user", "Where is my parcel?")]


def logits(model: torch.nn.Module) -> torch.Tensor:
    with torch.inference_mode():
        return model(torch.tensor([[1, 20, 30, 40, 50, 60]])).logits


@pytest.fixture
def repository(tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with `models/base`, in which the test runs."""
    shutil.copytree(tiny_model, tmp_path / "models" / "base")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def adapter(repository: Path) -> Path:
    """`models/candidate`, a LoRA adapter with random weights."""
    from peft import LoraConfig, get_peft_model

    base = load(repository / "models" / "base", precision="float32", device="cpu")
    torch.manual_seed(1)
    config = LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", init_lora_weights=False)
    folder = repository / "models" / "candidate"
    get_peft_model(base.model, config).save_pretrained(folder)
    card = {
        "schema_version": 1,
        "kind": "adapter",
        "digest": "a" * 64,
        "family": read_card(Path("models/base")).family,
        "base": "models/base",
        "base_digest": base.digest,
        "license": "Apache-2.0",
        "source": {},
    }
    (folder / "model.json").write_text(json.dumps(card))
    return folder


def edit_card(folder: Path, **changes: object) -> None:
    path = folder / "model.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_a_model_folder_loads_with_its_digest(tiny_model: Path):
    loaded = load(tiny_model, precision="auto", device="cpu")
    assert loaded.digest == read_card(tiny_model).digest
    assert (loaded.precision, loaded.device, loaded.model.training) == ("float32", "cpu", False)


def test_a_declared_precision_is_the_type_of_every_weight(tiny_model: Path):
    loaded = load(tiny_model, precision="bfloat16", device="cpu")
    assert {weight.dtype for weight in loaded.model.parameters()} == {torch.bfloat16}
    assert loaded.precision == "bfloat16"


def test_an_adapter_is_merged_into_its_base(adapter: Path):
    from peft import PeftModel

    base = load(adapter.parent / "base", precision="float32", device="cpu")
    merged = load(adapter, precision="float32", device="cpu")
    plain = logits(base.model)
    separate = logits(PeftModel.from_pretrained(base.model, str(adapter)).eval())
    torch.testing.assert_close(logits(merged.model), separate, rtol=1e-4, atol=1e-4)
    assert (logits(merged.model) - plain).abs().max() > 0.01
    assert merged.digest == "a" * 64
    assert not any("lora" in name for name, _ in merged.model.named_parameters())


def test_an_adapter_finds_its_base_beside_it_from_any_folder(adapter: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir("/")
    assert load(adapter, precision="auto", device="cpu").digest == "a" * 64


def test_an_adapter_of_another_base_is_refused(adapter: Path):
    edit_card(adapter, base_digest="b" * 64)
    with pytest.raises(ConfigError, match="another base than 'models/base'"):
        load(adapter, precision="auto", device="cpu")


def test_an_adapter_without_its_base_is_refused(adapter: Path):
    shutil.rmtree(adapter.parent / "base")
    with pytest.raises(ConfigError, match="its base 'models/base' is not there"):
        load(adapter, precision="auto", device="cpu")


def test_an_adapter_as_a_pickle_is_refused(adapter: Path):
    weights = adapter / "adapter_model.safetensors"
    torch.save({}, adapter / "adapter_model.bin")
    weights.unlink()
    with pytest.raises(ConfigError, match=r"adapter_model\.safetensors: no such file"):
        load(adapter, precision="auto", device="cpu")


def test_a_truncated_adapter_is_refused(adapter: Path):
    weights = adapter / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(ConfigError, match="not an adapter of its base"):
        load(adapter, precision="auto", device="cpu")


def test_weights_as_a_pickle_are_refused(repository: Path):
    folder = repository / "models" / "base"
    torch.save({}, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(ConfigError, match=r"\*\.safetensors is missing"):
        load(folder, precision="auto", device="cpu")


def test_truncated_weights_are_refused(repository: Path):
    weights = repository / "models" / "base" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(ConfigError, match="transformers cannot load it"):
        load(weights.parent, precision="auto", device="cpu")


def test_a_tokenizer_without_a_chat_template_is_refused(repository: Path):
    folder = repository / "models" / "base"
    (folder / "chat_template.jinja").unlink()
    with pytest.raises(ConfigError, match="no chat template"):
        load(folder, precision="auto", device="cpu")


def test_an_endpoint_is_no_local_model(repository: Path):
    folder = repository / "models" / "base"
    edit_card(folder, kind="endpoint")
    with pytest.raises(ConfigError, match="is an endpoint"):
        load(folder, precision="auto", device="cpu")


@pytest.mark.parametrize(
    "text",
    [
        "[]",
        '{"schema_version": 2, "kind": "transformers"}',
        '{"schema_version": 1, "kind": "pickle"}',
        '{"schema_version": 1, "kind": "transformers"}',
    ],
)
def test_what_is_no_model_card_is_refused(tmp_path: Path, text: str):
    (tmp_path / "model.json").write_text(text)
    with pytest.raises(ConfigError, match="not a model card"):
        read_card(tmp_path)


def test_a_folder_without_a_model_card_says_what_to_do(tmp_path: Path):
    with pytest.raises(
        ConfigError, match=r"fetch or train the model first .*scripts\.fetch --model grader` fetches it"
    ):
        read_card(tmp_path / "grader")
    with pytest.raises(ConfigError, match=r"fetch or train the model first \(`make run` does both\)"):
        read_card(tmp_path / "candidate")


def test_an_adapter_card_names_its_base(adapter: Path):
    edit_card(adapter, base=None)
    with pytest.raises(ConfigError, match="needs `base`"):
        read_card(adapter)


def test_automatic_precision_follows_the_device():
    assert resolve_precision("auto", "cpu") is torch.float32
    assert resolve_precision("auto", "cuda") is torch.bfloat16
    assert resolve_precision("float16", "cpu") is torch.float16


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_cuda_is_refused_where_there_is_none():
    assert resolve_device("auto") == "cpu"
    with pytest.raises(ConfigError, match=r"engine\.device is cuda"):
        resolve_device("cuda")


def test_the_opening_of_an_answer_continues_the_conversation(tiny_model: Path):
    tokenizer = load(tiny_model, precision="auto", device="cpu").tokenizer
    closed = chat_ids(tokenizer, QUESTION, add_generation_prompt=False)
    opened = chat_ids(tokenizer, QUESTION)
    assert opened[: len(closed)] == closed
    assert tokenizer.decode(opened[len(closed) :]) == "<|im_start|>assistant\n"
