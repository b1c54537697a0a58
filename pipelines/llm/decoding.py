"""Let a model continue a batch of prompts: one loop, each row stopped as soon as its answer is complete."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from pipelines.llm.attention import KeyValues, Prefix
from pipelines.llm.json_values import JsonScanner

# Copying a batch's keys and values costs about one step of the rows dropped: worth it from this share on.
COMPACTION_SHARE = 0.1
# Prompt tokens per forward pass: what larger passes compute between two matrix products falls out of a CPU's cache.
PREFILL_TOKENS = 2048


class Decoding(NamedTuple):
    """How one row is continued.

    Attributes:
        max_tokens: Longest answer, in tokens.
        temperature: 0 is greedy.
        top_p: Nucleus.
        seed: Of the row's own draws, so that they do not depend on its neighbours.
        wants_json: Stop when the JSON value closes.
    """

    max_tokens: int
    temperature: float
    top_p: float
    seed: int
    wants_json: bool


class Continuation(NamedTuple):
    """What a row was continued with.

    Attributes:
        ids: New tokens, the end token included.
        finish_reason: `stop`, `length`, or `error` if the model's output was not finite.
    """

    ids: tuple[int, ...]
    finish_reason: str


class _Row:
    """What a row has been continued with so far."""

    def __init__(self, decoding: Decoding) -> None:
        self.decoding = decoding
        self.ids: list[int] = []
        self.random = random.Random(decoding.seed)  # noqa: S311 - no secret depends on it
        self.scanner = JsonScanner() if decoding.wants_json else None
        self.finish_reason = ""


def forward(model: Any, ids: Tensor, shared: KeyValues, *, keep: int = 1, rows: slice | None = None) -> Tensor:
    """Run the model over new tokens.

    Args:
        model: A model with `attention.install`.
        ids: New tokens, shape (rows, new).
        shared: The batch's keys and values.
        keep: Logits of so many last tokens.
        rows: The tokens are the first ones of these rows only.

    Returns:
        Logits in float32, shape (rows, keep, vocabulary).
    """
    positions = shared.begin(ids.shape[1], rows)
    output = model(
        input_ids=ids,
        position_ids=positions,
        past_key_values=shared,
        use_cache=True,
        logits_to_keep=keep,
        shared=shared,
    )
    logits: Tensor = output.logits
    return logits.float()


@torch.inference_mode()
def read_prefix(model: Any, ids: tuple[int, ...], device: str) -> Prefix:
    """Compute the keys and values of tokens that many prompts start with."""
    shared = KeyValues(None, torch.zeros(1, dtype=torch.long, device=device), len(ids))
    forward(model, torch.tensor([ids], device=device), shared)
    return shared.as_prefix(ids)


def left_padded(rows: Sequence[Sequence[int]], device: str) -> tuple[Tensor, Tensor]:
    """Return tokens of shape (rows, longest), padded on the left with 0, and the padding of each row."""
    longest = max(len(row) for row in rows)
    padding = torch.tensor([longest - len(row) for row in rows])
    ids = pad_sequence([torch.tensor(row) for row in rows], batch_first=True, padding_side="left")
    return ids.to(device), padding.to(device)


@torch.inference_mode()
def continue_batch(
    model: Any,
    rows: Sequence[Sequence[int]],
    decodings: Sequence[Decoding],
    *,
    prefix: Prefix | None,
    end_ids: frozenset[int],
    piece: Callable[[int], str],
    device: str,
    on_first_token: Callable[[KeyValues], None] | None = None,
) -> list[Continuation]:
    """Continue prompts until each answer is complete.

    Args:
        model: A model with `attention.install`.
        rows: Each prompt's tokens after the prefix, at least one.
        decodings: How to continue each.
        prefix: What all prompts start with.
        end_ids: Tokens that end an answer.
        piece: A token's text, for JSON.
        device: Where the model is.
        on_first_token: Called when the first tokens are chosen.

    Returns:
        One continuation per row, in their order.
    """
    ids, padding = left_padded(rows, device)
    shared = KeyValues(prefix, padding, ids.shape[1] + max(decoding.max_tokens for decoding in decodings) - 1)
    answers = [_Row(decoding) for decoding in decodings]
    stored = answers  # the rows that `shared` holds, some of them finished
    step = max(1, PREFILL_TOKENS // ids.shape[1])
    parts = [slice(start, start + step) for start in range(0, len(rows), step)]
    logits = torch.cat([forward(model, ids[part], shared, rows=part)[:, -1] for part in parts])
    while True:
        for row, token in zip(stored, _choose(logits, stored), strict=True):
            _advance(row, token, end_ids, piece)
        if on_first_token is not None:
            on_first_token(shared)
            on_first_token = None
        alive = [place for place, row in enumerate(stored) if not row.finish_reason]
        if not alive:
            return [Continuation(tuple(row.ids), row.finish_reason) for row in answers]
        if len(stored) - len(alive) >= COMPACTION_SHARE * len(stored):
            shared.keep(torch.tensor(alive, device=device))
            stored = [stored[place] for place in alive]
        last = torch.tensor([[max(row.ids[-1], 0)] for row in stored], device=device)
        logits = forward(model, last, shared)[:, -1]


def _advance(row: _Row, token: int, end_ids: frozenset[int], piece: Callable[[int], str]) -> None:
    if row.finish_reason:
        return
    row.ids.append(token)
    if token < 0:
        row.finish_reason = "error"
    elif token in end_ids or (row.scanner is not None and row.scanner.feed(piece(token)) is not None):
        row.finish_reason = "stop"
    elif len(row.ids) == row.decoding.max_tokens:
        row.finish_reason = "length"


def _choose(logits: Tensor, rows: Sequence[_Row]) -> list[int]:
    """Choose each row's next token from logits of shape (rows, vocabulary); -1 where they are not finite."""
    best = logits.max(dim=-1)  # NaN wins a maximum, so the value shows whether any logit is one
    tokens: list[int] = torch.where(best.values.isfinite(), best.indices, -1).tolist()
    for place, row in enumerate(rows):
        if row.decoding.temperature > 0 and tokens[place] >= 0 and not row.finish_reason:
            tokens[place] = draw(logits[place], row.decoding.temperature, row.decoding.top_p, row.random.random())
    return tokens


def draw(logits: Tensor, temperature: float, top_p: float, uniform: float) -> int:
    """Draw a token from the nucleus by inverting the distribution function.

    Args:
        logits: Shape (vocabulary,).
        temperature: Above 0.
        top_p: The most probable tokens that together reach this probability are kept (Holtzman et al. 2020,
            arXiv 1904.09751).
        uniform: From [0, 1).
    """
    probabilities, tokens = torch.softmax(logits.double() / temperature, dim=-1).sort(descending=True, stable=True)
    cumulated = probabilities.cumsum(0)
    kept = min(int((cumulated < top_p).sum()) + 1, len(tokens))
    place = int(torch.searchsorted(cumulated[:kept], uniform * float(cumulated[kept - 1]), right=True))
    return int(tokens[min(place, kept - 1)])


@torch.inference_mode()
def gold_nll(
    model: Any, prompts: Sequence[Sequence[int]], golds: Sequence[Sequence[int]], *, prefix: Prefix | None, device: str
) -> list[float]:
    """Return the mean negative log-likelihood, in nats per token, of each gold answer given its prompt.

    Args:
        model: A model with `attention.install`.
        prompts: Each prompt's tokens after the prefix, at least one.
        golds: Each gold answer's tokens, at least one.
        prefix: What all prompts start with.
        device: Where the model is.
    """
    # The last gold token predicts nothing that is asked for.
    ids, padding = left_padded([[*prompt, *gold[:-1]] for prompt, gold in zip(prompts, golds, strict=True)], device)
    longest = max(len(gold) for gold in golds)
    logits = forward(model, ids, KeyValues(prefix, padding, ids.shape[1]), keep=longest)
    means = []
    for row, gold in zip(logits, golds, strict=True):
        target = torch.tensor(gold, device=device)
        means.append(float(torch.nn.functional.cross_entropy(row[-len(gold) :], target)))
    return means
