from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from pipelines.core.errors import ConfigError
from pipelines.core.rows import Row
from pipelines.llm.local_model import load
from pipelines.llm.prompts import Prompt
from pipelines.training.attention import Segments
from pipelines.training.packing import Example, length, pack, shared_prefix, to_examples
from pipelines.training.trainer import collate, mean_loss, summed_loss, use_packed_attention

PROMPT = Prompt.model_validate(
    {
        "name": "triage",
        "messages": [
            {"role": "system", "content": "Label the customer's message. Answer with JSON only."},
            {"role": "user", "content": "{{message}}"},
        ],
        "x-gatehouse": {"version": 1, "inputs": {"message": "string"}},
    }
)
MESSAGES = [
    "My doorbell stopped ringing.",
    "Cancel my plan",
    "Where is my parcel? I ordered a speaker two weeks ago, and nobody answers the telephone at your support desk!",
    "My doorbell stopped ringing after the update.",
    "?",
]
ANSWERS = ['{"intent": "fault"}', '{"intent": "cancel", "product": "plan"}', "{}", '{"urgency": "high"}', "no"]


def rows() -> list[Row]:
    return [
        Row(f"{number:016x}", {"message": message}, answer, line=number + 1)
        for number, (message, answer) in enumerate(zip(MESSAGES, ANSWERS, strict=True))
    ]


@pytest.fixture
def model(tiny_model: Path) -> Any:
    return load(tiny_model, precision="float32", device="cpu")


@pytest.fixture
def examples(model: Any) -> list[Example]:
    return to_examples(rows(), PROMPT, model.tokenizer, max_tokens=512, path=Path("train.jsonl"))


def padded_loss(model: Any, examples: list[Example]) -> torch.Tensor:
    """The textbook way: rows padded to the longest, prompt labels set to -100, mean over the answer tokens."""
    width = max(length(example) for example in examples)
    ids, labels, seen = (torch.full((len(examples), width), fill) for fill in (0, -100, 0))
    for index, example in enumerate(examples):
        whole = torch.tensor(example.prompt + example.answer)
        ids[index, : len(whole)] = whole
        seen[index, : len(whole)] = 1
        labels[index, len(example.prompt) : len(whole)] = torch.tensor(example.answer)
    return model(input_ids=ids, attention_mask=seen, labels=labels).loss


def packed_loss(model: Any, examples: list[Example], *, limit: int) -> torch.Tensor:
    packs = pack(examples, shared_prefix(examples), limit=limit)
    total = sum(summed_loss(model, packed._asdict()) for packed in packs)
    return total / sum(len(packed.targets) for packed in packs)


def gradients(model: Any, loss: torch.Tensor) -> dict[str, torch.Tensor]:
    model.zero_grad()
    loss.backward()
    return {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None}


@pytest.mark.parametrize("limit", [10_000, 60, 1], ids=["one sequence", "several", "one per row"])
@pytest.mark.parametrize("is_segmented", [True, False], ids=["segments", "block mask"])
def test_packed_loss_and_gradients_equal_those_of_a_padded_batch(
    model: Any, examples: list[Example], limit: int, is_segmented: bool
) -> None:
    expected = padded_loss(model.model, examples)
    expected_gradients = gradients(model.model, expected)
    if is_segmented:
        use_packed_attention(model.model)
        assert model.model.config._attn_implementation == "gatehouse_packed"
    found = packed_loss(model.model, examples, limit=limit)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(gradients(model.model, found), expected_gradients, atol=1e-4, rtol=1e-4)
    assert max(gradient.abs().max() for gradient in expected_gradients.values()) > 1e-2


@pytest.mark.parametrize("is_segmented", [True, False], ids=["segments", "block mask"])
def test_rows_that_share_no_beginning_are_packed_too(model: Any, examples: list[Example], is_segmented: bool) -> None:
    apart = [Example(example.prompt[index:], example.answer) for index, example in enumerate(examples)]
    assert shared_prefix(apart) == []
    expected = padded_loss(model.model, apart)
    if is_segmented:
        use_packed_attention(model.model)
    torch.testing.assert_close(packed_loss(model.model, apart, limit=10_000), expected, atol=1e-4, rtol=1e-4)


def test_another_row_of_the_pack_changes_nothing_for_a_row(model: Any, examples: list[Example]) -> None:
    use_packed_attention(model.model)
    prefix = shared_prefix(examples)
    alone = summed_loss(model.model, pack(examples[:1], prefix)[0]._asdict())
    other = summed_loss(model.model, pack(examples[1:2], prefix)[0]._asdict())
    both = summed_loss(model.model, pack(examples[:2], prefix)[0]._asdict())
    torch.testing.assert_close(both, alone + other, atol=1e-4, rtol=1e-5)


def test_the_block_mask_lets_a_row_see_the_prefix_and_its_own_past_only() -> None:
    mask = Segments([2, 2, 1]).dense_mask(torch.device("cpu"))[0, 0].int().tolist()
    assert mask == [[1, 0, 0, 0, 0], [1, 1, 0, 0, 0], [1, 1, 1, 0, 0], [1, 1, 1, 1, 0], [1, 1, 0, 0, 1]]


def test_only_answer_and_end_token_are_predicted(model: Any, examples: list[Example]) -> None:
    tokenizer = model.tokenizer
    for example, answer in zip(examples, ANSWERS, strict=True):
        assert tokenizer.decode(example.answer) == answer + tokenizer.eos_token
    [packed] = pack(examples, shared_prefix(examples), limit=10_000)
    assert packed.targets.tolist() == [token for example in examples for token in example.answer]


def test_the_prefix_leaves_each_prompt_its_last_token() -> None:
    same = [Example([5, 6, 7], [1]), Example([5, 6, 7], [2])]
    assert shared_prefix(same) == [5, 6]
    assert shared_prefix([Example([5], [1])]) == []


def test_a_batch_is_cut_into_parts_of_nearly_equal_length(examples: list[Example]) -> None:
    many = examples[:2] * 8
    prefix = shared_prefix(many)
    sizes = [packed.input_ids.shape[1] - len(prefix) for packed in pack(many, prefix, limit=150)]
    assert len(sizes) > 1
    assert max(sizes) <= 150
    assert max(sizes) - min(sizes) <= max(length(example) for example in many)


def test_no_row_is_lost_or_doubled_whatever_the_limit(examples: list[Example]) -> None:
    expected = sorted(token for example in examples for token in example.answer)
    for limit in (1, 7, 40, 80, 1000):
        packs = pack(examples, shared_prefix(examples), limit=limit)
        assert sorted(token for packed in packs for token in packed.targets.tolist()) == expected


def test_the_trainer_counts_exactly_the_targets(examples: list[Example]) -> None:
    batch = collate(examples, shared_prefix(examples))
    assert len(batch["shift_labels"]) == sum(len(example.answer) for example in examples)


def test_the_mean_loss_of_rows_does_not_depend_on_the_batch_size(model: Any, examples: list[Example]) -> None:
    prefix = shared_prefix(examples)
    one, all_ = (mean_loss(model.model, examples, prefix, batch_size=size) for size in (1, 5))
    assert one == pytest.approx(all_, rel=1e-5)
    assert one == pytest.approx(padded_loss(model.model, examples).item(), rel=1e-4)


def test_rows_longer_than_allowed_are_left_out(model: Any, examples: list[Example]) -> None:
    longest = max(length(example) for example in examples)
    at = to_examples(rows(), PROMPT, model.tokenizer, max_tokens=longest, path=Path("train.jsonl"))
    below = to_examples(rows(), PROMPT, model.tokenizer, max_tokens=longest - 1, path=Path("train.jsonl"))
    assert (len(at), len(below)) == (5, 4)


def test_if_every_row_is_too_long_the_shortest_is_named(model: Any, examples: list[Example]) -> None:
    shortest = min(range(5), key=lambda index: length(examples[index]))
    with pytest.raises(ConfigError, match=rf"^train.jsonl: all 5 rows .*row {shortest:016x} \(line {shortest + 1} "):
        to_examples(rows(), PROMPT, model.tokenizer, max_tokens=10, path=Path("train.jsonl"))


def test_a_tokenizer_without_an_end_token_is_refused(model: Any) -> None:
    model.tokenizer.eos_token = None
    with pytest.raises(ConfigError, match="no end token"):
        to_examples(rows(), PROMPT, model.tokenizer, max_tokens=512, path=Path("train.jsonl"))
