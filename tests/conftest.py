"""What many tests share: a real two-layer language model, built in the test session."""

from __future__ import annotations

import contextlib
import json
import os
import signal
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

for name in [name for name in os.environ if name.startswith("GITHUB_")]:
    del os.environ[name]  # a test on a runner writes no output, summary or annotation of the job that it runs in

import hypothesis
import pytest

# By hand properties are tried on other examples each time; where a red cross blocks everybody, on the same ones.
hypothesis.settings.register_profile("ci", derandomize=True)
if os.environ.get("CI"):
    hypothesis.settings.load_profile("ci")

# A shell that starts the tests in the background lets them ignore Ctrl-C, which every process below would inherit.
with contextlib.suppress(ValueError):
    signal.signal(signal.SIGINT, signal.default_int_handler)

CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
CORPUS = [
    "My doorbell stopped ringing after the update.",
    "Where is my parcel? I ordered a speaker two weeks ago!",
    "Label the customer's message. Answer with JSON only.",
    'Please cancel my plan. {"intent": "cancel", "product": "plan", "urgency": "normal"}',
    '{"intent": "fault", "product": "doorbell", "urgency": "high"}',
    '{"intent": "delivery", "product": "speaker", "urgency": "low"}',
    "setup fault delivery refund billing cancel account feedback thermostat hub none",
]


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder as `scripts.fetch` leaves it: a random two-layer Llama with its own tokenizer."""
    folder = tmp_path_factory.mktemp("models") / "base"
    build_tiny_model(folder)
    return folder


def build_tiny_model(folder: Path, *, seed: int = 0) -> None:
    """Write a random two-layer Llama (hidden size 64), its tokenizer and `model.json` into `folder`."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    from pipelines.core.files import digest, sha256, write_json

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        CORPUS, trainers.BpeTrainer(vocab_size=600, special_tokens=special, initial_alphabet=alphabet)
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<|im_start|>", eos_token="<|im_end|>", pad_token="<|endoftext|>"
    )
    fast.chat_template = CHAT_TEMPLATE
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(fast),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        bos_token_id=fast.bos_token_id,
        eos_token_id=fast.eos_token_id,
        pad_token_id=fast.pad_token_id,
    )
    folder.mkdir(parents=True, exist_ok=True)
    LlamaForCausalLM(config).save_pretrained(folder)
    fast.save_pretrained(folder)
    weights = sha256(folder / "model.safetensors")
    write_json(
        folder / "model.json",
        {
            "schema_version": 1,
            "kind": "transformers",
            "digest": digest({"weights": weights, "tokenizer": sha256(folder / "tokenizer.json")}),
            "family": weights,
            "license": "Apache-2.0",
            "source": {"source": "directory"},
        },
    )
    assert json.loads((folder / "config.json").read_text())["model_type"] == "llama"
