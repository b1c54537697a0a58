"""What tokens cost, and that a budget holds."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.core.params import Price
from pipelines.llm.cost import Budget, cost_usd, estimate_tokens, most_prompt_tokens
from pipelines.llm.prompts import Message


def test_prices_are_per_million_tokens() -> None:
    # 1,500 x 2 USD / 1e6 + 200 x 10 USD / 1e6 = 0.003 + 0.002
    assert cost_usd(Price(prompt_usd=2, completion_usd=10), 1500, 200) == pytest.approx(0.005)


def test_a_negative_count_is_refused() -> None:
    with pytest.raises(ValueError, match="negative"):
        cost_usd(Price(prompt_usd=1, completion_usd=1), -1, 0)


@given(st.lists(st.text(max_size=60), min_size=1, max_size=4))
def test_no_byte_level_tokeniser_finds_more_tokens_than_the_worst_case(texts: list[str]) -> None:
    worst = most_prompt_tokens([Message("user", text) for text in texts])
    assert worst >= sum(len(text.encode("utf-8", "replace")) for text in texts) + 80


def test_a_real_tokeniser_stays_below_the_worst_case(tiny_model) -> None:  # type: ignore[no-untyped-def]
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    for text in ("", "plain words", "žluťoučký kůň 🐎 中文", "<|im_start|>" * 20, "\x00\x01"):
        messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": text}]
        n_tokens = len(tokenizer.apply_chat_template(messages, add_generation_prompt=True)["input_ids"])
        assert n_tokens <= most_prompt_tokens([Message(m["role"], m["content"]) for m in messages])


def test_an_estimate_is_never_zero() -> None:
    assert estimate_tokens("") == 1
    assert estimate_tokens("abcd") == 2


def test_a_reservation_that_just_fits_is_held() -> None:
    budget = Budget(1.0)
    assert budget.reserve(0.5)
    assert budget.reserve(0.5)
    assert not budget.reserve(1e-9)


def test_a_limit_of_zero_allows_only_what_is_free() -> None:
    budget = Budget(0.0)
    assert budget.reserve(0.0)
    assert not budget.reserve(1e-12)


def test_what_was_not_charged_can_be_reserved_again() -> None:
    budget = Budget(1.0)
    assert budget.reserve(1.0)
    budget.settle(1.0, 0.25)
    assert budget.spent_usd == 0.25
    assert budget.reserve(0.75)
    assert not budget.reserve(0.01)


@given(
    st.floats(0, 2),
    st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1), st.booleans()), max_size=40),
)
def test_spent_and_held_never_exceed_the_limit(limit_usd: float, steps: list[tuple[float, float, bool]]) -> None:
    budget, held = Budget(limit_usd), []
    for worst_usd, share, settles in steps:
        if budget.reserve(worst_usd):
            held.append((worst_usd, worst_usd * share))
        if settles and held:
            budget.settle(*held.pop(0))
        assert budget.spent_usd + budget.reserved_usd <= limit_usd + 1e-9
