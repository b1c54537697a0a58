from __future__ import annotations

import itertools
import json
import random
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from pipelines.core.errors import ConfigError
from pipelines.core.params import Params
from pipelines.core.rows import Row, read_rows, write_rows
from pipelines.llm.local_model import load, read_card
from pipelines.training import checkpoints
from pipelines.training.train import nested_share, train
from tests.scratch import Scratch, triage_rows

SETTINGS = {
    "precision": "float32",
    "epochs": 2.0,
    "batch_size": 8,
    "learning_rate": 0.02,
    "checkpoint_steps": 1,
    "lora": {"rank": 4},
}


@pytest.fixture
def scratch(tmp_path: Path, tiny_model: Path) -> Scratch:
    """A project with 48 training rows: 12 steps."""
    project = Scratch(tmp_path, tiny_model)
    project.params["train"] |= SETTINGS
    project.save()
    write_rows(tmp_path / "data/prepared/triage/train.jsonl", triage_rows(48))
    write_rows(tmp_path / "data/prepared/triage/validation.jsonl", triage_rows(8))
    return project


def params(scratch: Scratch, **changes: Any) -> Params:
    values = {**scratch.params, "train": {**scratch.params["train"], **changes}}
    return Params.model_validate(values)


def weights(scratch: Scratch) -> bytes:
    return (scratch.folder / "models/candidate/adapter_model.safetensors").read_bytes()


# --- what comes out -------------------------------------------------------------------------------------------


def test_training_lowers_the_loss_and_leaves_a_candidate_that_loads(scratch: Scratch) -> None:
    outcome = train(params(scratch), root=scratch.folder)
    losses = [point["loss"] for point in outcome.record["loss"]]
    assert (len(losses), outcome.record["steps"], outcome.resumed_at) == (12, 12, 0)
    assert losses[-1] < 0.92 * losses[0]
    assert 0 < outcome.record["validation_loss"] < 0.92 * losses[0]
    candidate = scratch.folder / "models/candidate"
    card, base = read_card(candidate), read_card(scratch.folder / "models/base")
    assert (card.kind, card.base, card.base_digest, card.family) == ("adapter", "models/base", base.digest, base.family)
    merged = load(candidate, precision="float32", device="cpu")
    original = load(scratch.folder / "models/base", precision="float32", device="cpu")
    name = "model.layers.0.self_attn.q_proj.weight"
    assert not torch.equal(merged.model.state_dict()[name], original.model.state_dict()[name])


def test_the_record_says_where_and_how_the_model_was_made(scratch: Scratch) -> None:
    train(params(scratch), root=scratch.folder)
    record = scratch.json("models/candidate/training.json")
    assert [point["step"] for point in record["loss"]] == list(range(1, 13))
    assert all(set(point) == {"step", "loss", "learning_rate", "seconds"} for point in record["loss"])
    seconds = [point["seconds"] for point in record["loss"]]
    assert seconds == sorted(seconds)
    assert {"python", "torch", "transformers", "peft", "cuda", "gpu", "cpu", "cores", "precision", "commit"} <= set(
        record["environment"]
    )
    assert (record["rows"], record["seed"], record["environment"]["precision"]) == (48, 7, "float32")


def test_the_learning_rate_rises_and_then_falls_to_almost_nothing(scratch: Scratch) -> None:
    rates = [p["learning_rate"] for p in train(params(scratch, warmup_share=0.25), root=scratch.folder).record["loss"]]
    assert rates[:4] == pytest.approx([0, 0.02 / 3, 0.04 / 3, 0.02])
    assert rates[3:] == sorted(rates[3:], reverse=True)
    assert rates[-1] < 0.002


def test_the_same_inputs_give_the_same_bytes_and_another_seed_gives_others(scratch: Scratch) -> None:
    train(params(scratch), root=scratch.folder)
    first, card = weights(scratch), (scratch.folder / "models/candidate/model.json").read_bytes()
    rows = read_rows(scratch.folder / "data/prepared/triage/train.jsonl")
    write_rows(scratch.folder / "data/prepared/triage/train.jsonl", rows[::-1])
    train(params(scratch), root=scratch.folder)
    assert (weights(scratch), (scratch.folder / "models/candidate/model.json").read_bytes()) == (first, card)
    other = Params.model_validate({**scratch.params, "seed": 8})
    train(other, root=scratch.folder)
    assert weights(scratch) != first


def test_the_prompt_is_masked_out_of_the_loss(scratch: Scratch) -> None:
    """With the answers' tokens alone in the loss, its first value is the base model's own on them."""
    path = scratch.folder / "data/prepared/triage/train.jsonl"
    [row] = triage_rows(1)
    write_rows(path, [row])
    first = train(params(scratch, epochs=1), root=scratch.folder).record["loss"][0]["loss"]
    base = load(scratch.folder / "models/base", precision="float32", device="cpu")
    from pipelines.llm.local_model import chat_ids
    from pipelines.llm.prompts import load_prompt, render

    prompt = chat_ids(base.tokenizer, render(load_prompt(scratch.folder / "prompts/triage.prompt.yml"), row.inputs))
    answer = [*base.tokenizer.encode(row.answer), base.tokenizer.eos_token_id]
    with torch.no_grad():
        logits = base.model(torch.tensor([prompt + answer])).logits[0, len(prompt) - 1 : -1]
    expected = torch.nn.functional.cross_entropy(logits, torch.tensor(answer)).item()
    assert first == pytest.approx(expected, rel=1e-3)


def test_accumulated_batches_learn_as_one_large_batch_does(scratch: Scratch) -> None:
    train(params(scratch, batch_size=8), root=scratch.folder)
    large = load_file(scratch.folder / "models/candidate/adapter_model.safetensors")
    train(params(scratch, batch_size=4, gradient_accumulation=2), root=scratch.folder)
    small = load_file(scratch.folder / "models/candidate/adapter_model.safetensors")
    for name, weight in large.items():
        torch.testing.assert_close(small[name], weight, atol=2e-2, rtol=1e-2)


def test_only_the_last_layers_are_adapted_if_so_declared(scratch: Scratch) -> None:
    train(params(scratch, lora={"rank": 4, "last_layers": 1}), root=scratch.folder)
    adapted = load_file(scratch.folder / "models/candidate/adapter_model.safetensors")
    assert {name.split(".layers.")[1].split(".")[0] for name in adapted} == {"1"}
    assert len(adapted) == 2 * 7  # A and B of every linear layer
    assert any(weight.abs().sum() > 0 for name, weight in adapted.items() if "lora_B" in name)


def test_more_last_layers_than_the_model_has_are_refused(scratch: Scratch) -> None:
    with pytest.raises(ConfigError, match=r"^params.yaml: train.lora.last_layers: 3, the base model has 2"):
        train(params(scratch, lora={"last_layers": 3}), root=scratch.folder)


def test_bfloat16_learns_too_and_keeps_the_adapter_in_float32(scratch: Scratch) -> None:
    record = train(params(scratch, precision="bfloat16"), root=scratch.folder).record
    assert record["loss"][-1]["loss"] < 0.92 * record["loss"][0]["loss"]
    assert record["environment"]["precision"] == "bfloat16"
    made = load_file(scratch.folder / "models/candidate/adapter_model.safetensors")
    assert {tensor.dtype for tensor in made.values()} == {torch.float32}


def test_validation_rows_are_optional(scratch: Scratch) -> None:
    path = scratch.folder / "data/prepared/triage/validation.jsonl"
    path.write_text("")
    assert train(params(scratch, epochs=1), root=scratch.folder).record["validation_loss"] is None
    path.unlink()
    assert train(params(scratch, epochs=1), root=scratch.folder).record["validation_loss"] is None


def test_a_larger_share_of_the_rows_holds_every_smaller_one() -> None:
    rows = triage_rows(40)
    shares = [nested_share(rows, share) for share in (0.01, 0.25, 0.5, 1.0)]
    assert [len(share) for share in shares] == [1, 10, 20, 40]
    for smaller, larger in itertools.pairwise(shares):
        assert {row.id for row in smaller} < {row.id for row in larger}
    assert nested_share(rows[::-1], 0.25) == nested_share(rows, 0.25)


def test_a_share_of_the_rows_is_what_is_trained_on(scratch: Scratch) -> None:
    record = train(params(scratch, rows_share=0.25, epochs=1), root=scratch.folder).record
    assert (record["rows"], record["steps"]) == (12, 2)


# --- interrupted and started again ----------------------------------------------------------------------------


def run_and_kill(scratch: Scratch, seconds: float) -> bool:
    """Train in a process and kill it after so many seconds; tell whether it was still running."""
    process = scratch.start("train")
    try:
        process.communicate(timeout=seconds)
    except Exception:
        process.send_signal(signal.SIGKILL)
        process.communicate()
        return True
    return False


def wait_for_checkpoint(scratch: Scratch, step: int, *, is_sealed: bool) -> None:
    name = f"checkpoint-{step}/complete.json" if is_sealed else f"checkpoint-{step}"
    until = time.monotonic() + 120
    while not list(scratch.folder.glob(f"checkpoints/*/{name}")):
        assert time.monotonic() < until, "no checkpoint was written"
        time.sleep(0.002)


@pytest.mark.slow
def test_killed_at_random_moments_it_ends_with_the_weights_of_an_undisturbed_run(scratch: Scratch) -> None:
    scratch.params["train"]["lora"]["dropout"] = 0.1  # so that the random state counts as well
    scratch.save()
    started = time.monotonic()
    assert scratch.run("train").returncode == 0
    undisturbed, seconds = weights(scratch), time.monotonic() - started
    shutil.rmtree(scratch.folder / "models/candidate")
    draw = random.Random(0)
    kills = sum(run_and_kill(scratch, draw.uniform(0.4, 1.0) * seconds) for _ in range(4))
    if not (scratch.folder / "models/candidate").exists():
        outcome = scratch.run("train")
        assert outcome.returncode == 0, outcome.stderr
    assert kills
    assert weights(scratch) == undisturbed


@pytest.mark.slow
@pytest.mark.parametrize(
    ("step", "is_sealed", "resumed_at"), [(3, True, 3), (5, False, 4), (12, True, 12)], ids=["whole", "half", "last"]
)
def test_killed_around_a_checkpoint_it_goes_on_from_the_last_whole_one(
    scratch: Scratch, step: int, is_sealed: bool, resumed_at: int
) -> None:
    train(params(scratch), root=scratch.folder)
    undisturbed = weights(scratch)
    shutil.rmtree(scratch.folder / "models/candidate")
    process = scratch.start("train")
    wait_for_checkpoint(scratch, step, is_sealed=is_sealed)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    if (scratch.folder / "models/candidate").exists():
        pytest.skip("it ended before the kill")
    outcome = train(params(scratch), root=scratch.folder)
    assert outcome.resumed_at in (resumed_at, resumed_at + 1)
    assert len(outcome.record["loss"]) == 12
    assert weights(scratch) == undisturbed


@pytest.mark.slow
def test_ctrl_c_is_one_line_and_leaves_nothing_half_written(scratch: Scratch) -> None:
    process = scratch.start("train")
    wait_for_checkpoint(scratch, 2, is_sealed=True)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate()
    assert process.returncode == 130
    assert "Traceback" not in err
    assert not (scratch.folder / "models/candidate").exists()
    assert not list((scratch.folder / "models").glob(".*"))


def test_a_checkpoint_counts_only_if_every_byte_is_there(tmp_path: Path) -> None:
    for step in (1, 2, 10):
        folder = tmp_path / f"checkpoint-{step}"
        folder.mkdir()
        (folder / "weights").write_bytes(bytes([step]) * 100)
        checkpoints.seal(folder)
    assert checkpoints.latest(tmp_path) == tmp_path / "checkpoint-10"
    (tmp_path / "checkpoint-10/weights").write_bytes(b"cut off")
    assert checkpoints.latest(tmp_path) == tmp_path / "checkpoint-2"
    assert not (tmp_path / "checkpoint-10").exists()
    (tmp_path / "checkpoint-2/complete.json").unlink()
    assert checkpoints.latest(tmp_path) == tmp_path / "checkpoint-1"
    (tmp_path / "checkpoint-1/complete.json").write_text("[]")
    assert checkpoints.latest(tmp_path) is None


def test_only_the_last_checkpoints_are_kept(tmp_path: Path) -> None:
    for step in (5, 10, 15, 100):
        (tmp_path / f"checkpoint-{step}").mkdir()
    checkpoints.keep(tmp_path, 3)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint-10", "checkpoint-100", "checkpoint-15"]


def test_a_finished_run_leaves_no_checkpoints(scratch: Scratch) -> None:
    train(params(scratch, epochs=1), root=scratch.folder)
    assert list((scratch.folder / "checkpoints").iterdir()) == []


# --- bad input ------------------------------------------------------------------------------------------------


def test_without_prepared_rows_it_says_what_to_run(scratch: Scratch) -> None:
    (scratch.folder / "data/prepared/triage/train.jsonl").unlink()
    with pytest.raises(ConfigError, match=r"train.jsonl: no such file; run `python -m scripts.prepare`"):
        train(params(scratch), root=scratch.folder)


def test_without_a_training_row_it_names_the_key(scratch: Scratch) -> None:
    (scratch.folder / "data/prepared/triage/train.jsonl").write_text("")
    with pytest.raises(ConfigError, match=r"has no rows; give datasets.triage.splits.train a share above 0"):
        train(params(scratch), root=scratch.folder)


def test_rows_that_are_all_too_long_are_named(scratch: Scratch) -> None:
    with pytest.raises(ConfigError, match=r"all 48 rows are longer than train.max_tokens \(20\); the shortest, row "):
        train(params(scratch, max_tokens=20), root=scratch.folder)


def test_some_rows_that_are_too_long_are_counted(scratch: Scratch) -> None:
    path = scratch.folder / "data/prepared/triage/train.jsonl"
    write_rows(path, [*read_rows(path), Row("f" * 16, {"message": "ringing " * 600}, "{}")])
    outcome = train(params(scratch, max_tokens=400, epochs=1), root=scratch.folder)
    assert (outcome.n_left_out, outcome.record["rows"]) == (1, 48)


def test_without_a_base_it_says_so(scratch: Scratch) -> None:
    shutil.rmtree(scratch.folder / "models/base")
    with pytest.raises(ConfigError, match=r"models/base/model.json: no such file; fetch"):
        train(params(scratch), root=scratch.folder)


def test_layers_that_the_base_does_not_have_are_named(scratch: Scratch) -> None:
    with pytest.raises(ConfigError, match=r"^params.yaml: train.lora.targets: .*query_key_value"):
        train(params(scratch, lora={"targets": ["query_key_value"]}), root=scratch.folder)


def test_a_loss_that_is_not_finite_stops_the_run_and_leaves_the_old_candidate(scratch: Scratch) -> None:
    train(params(scratch, epochs=1), root=scratch.folder)
    before = weights(scratch)
    model = load_file(scratch.folder / "models/base/model.safetensors")
    from safetensors.torch import save_file

    model["model.norm.weight"].fill_(float("nan"))
    save_file(model, scratch.folder / "models/base/model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ConfigError, match=r"the loss is nan at step 1; lower train.learning_rate"):
        train(params(scratch), root=scratch.folder)
    assert weights(scratch) == before


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_qlora_without_a_gpu_is_one_clear_line(scratch: Scratch) -> None:
    with pytest.raises(ConfigError, match=r"train.quantization: nf4 needs an NVIDIA GPU"):
        train(params(scratch, quantization="nf4"), root=scratch.folder)


def test_an_endpoint_cannot_be_trained(scratch: Scratch) -> None:
    card = {"schema_version": 1, "kind": "endpoint", "digest": "0", "family": "0", "license": "", "source": {}}
    (scratch.folder / "models/base/model.json").write_text(json.dumps(card))
    with pytest.raises(ConfigError, match=r"train.base: 'base' is an endpoint"):
        train(params(scratch), root=scratch.folder)
