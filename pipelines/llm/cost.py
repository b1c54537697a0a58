"""What tokens cost, what a request may cost at most, and a budget that cannot be overdrawn."""

from __future__ import annotations

from collections.abc import Sequence

from pipelines.core.params import Price
from pipelines.llm.prompts import Message
from pipelines.llm.spending import Ledger

TOKENS_PER_PRICE = 1_000_000
# Room for what a chat template adds: control tokens around each message, a default system prompt.
TEMPLATE_TOKENS_PER_MESSAGE = 16
TEMPLATE_TOKENS = 64
# English text has about four bytes per token, most other languages fewer; three errs on the dear side.
BYTES_PER_TOKEN = 3


def cost_usd(price: Price, prompt_tokens: int, completion_tokens: int) -> float:
    """Return what a request costs, in USD.

    Args:
        price: USD per million tokens.
        prompt_tokens: Tokens sent.
        completion_tokens: Tokens generated.

    Raises:
        ValueError: A count is negative.
    """
    if prompt_tokens < 0 or completion_tokens < 0:
        raise ValueError(f"token counts cannot be negative: {prompt_tokens}, {completion_tokens}")
    return (prompt_tokens * price.prompt_usd + completion_tokens * price.completion_usd) / TOKENS_PER_PRICE


def most_prompt_tokens(messages: Sequence[Message]) -> int:
    """Return more tokens than any byte-level tokeniser makes of these messages: one per byte, plus the template's."""
    n_bytes = sum(len(message.content.encode("utf-8", "replace")) for message in messages)
    return n_bytes + TEMPLATE_TOKENS_PER_MESSAGE * len(messages) + TEMPLATE_TOKENS


def estimate_tokens(text: str) -> int:
    """Guess how many tokens a text has, at least 1, for a server that does not say."""
    return max(1, -(-len(text.encode("utf-8", "replace")) // BYTES_PER_TOKEN))


class Budget:
    """A hard limit: money is reserved before it can be spent, so that concurrent requests never exceed it.

    Attributes:
        limit_usd: Never exceeded as long as no settled sum is above what was reserved for it.
        spent_usd: Settled so far.
        reserved_usd: Held for requests under way.
        n_reserved: How many requests those are.
        ledger: Where others who share the limit book; None: it is this budget's alone.
    """

    def __init__(self, limit_usd: float, ledger: Ledger | None = None) -> None:
        self.limit_usd = limit_usd
        self.ledger = ledger
        self.spent_usd = 0.0
        self.reserved_usd = 0.0
        self.n_reserved = 0

    def reserve(self, worst_usd: float) -> bool:
        """Hold `worst_usd`, if spent, held and this together stay within the limit; tell whether it was held."""
        if self.spent_usd + self.reserved_usd + worst_usd > self.limit_usd:
            return False
        if self.ledger is not None and not self.ledger.take(worst_usd, self.limit_usd):
            return False
        self.reserved_usd += worst_usd
        self.n_reserved += 1
        return True

    def settle(self, worst_usd: float, actual_usd: float) -> None:
        """Replace a held sum by what was charged."""
        assert self.n_reserved > 0, "settled without a reservation"
        self.n_reserved -= 1
        # Exactly zero when nothing is under way: rounding errors of many sums would otherwise add up.
        self.reserved_usd = max(0.0, self.reserved_usd - worst_usd) if self.n_reserved else 0.0
        self.spent_usd += actual_usd
        if self.ledger is not None:
            self.ledger.give_back(worst_usd - actual_usd)

    def total_usd(self) -> float:
        """Return what counts towards the limit: what all who share it have spent or hold."""
        return self.spent_usd + self.reserved_usd if self.ledger is None else self.ledger.today_usd()
