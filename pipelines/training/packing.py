"""Turn rows into tokens, and a batch of rows into one sequence without padding or repeated prompt.

Rows of one prompt begin with the same instructions. A packed sequence holds that prefix once and then every row's
rest; each row sees the prefix and itself only, and positions restart after the prefix, so that every row gets the
very logits it would get alone. Padding and repetition are half of a usual batch.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from pipelines.core.errors import ConfigError
from pipelines.core.rows import Row
from pipelines.llm.local_model import chat_ids
from pipelines.llm.prompts import Prompt, render

if TYPE_CHECKING:
    import torch

# Memory grows with a sequence's length, so longer batches are cut into several sequences, one after the other.
MAX_PACKED_TOKENS = 640


class Example(NamedTuple):
    """A row in tokens.

    Attributes:
        prompt: Ids of the rendered prompt, up to where the answer opens.
        answer: Ids of the gold answer and the end token: the only ones that the loss sees.
    """

    prompt: list[int]
    answer: list[int]


class Packed(NamedTuple):
    """Several examples as one sequence of `n_tokens` tokens, `n_targets` of them to predict.

    Attributes:
        input_ids: Prefix, then every example's rest without its last token, shape (1, n_tokens).
        position_ids: The position that each token has in its own example, shape (1, n_tokens).
        sizes: Tokens of the prefix and of each example's rest; they sum to n_tokens.
        predicting: Positions whose next token belongs to an answer, shape (n_targets,).
        targets: Those next tokens, shape (n_targets,).
    """

    input_ids: torch.Tensor
    position_ids: torch.Tensor
    sizes: list[int]
    predicting: torch.Tensor
    targets: torch.Tensor


def to_examples(rows: Sequence[Row], prompt: Prompt, tokenizer: Any, *, max_tokens: int, path: Path) -> list[Example]:
    """Render and tokenise rows; what is longer than `max_tokens` is left out.

    Args:
        rows: Training rows.
        prompt: The prompt that evaluation and serving render too.
        tokenizer: The base model's.
        max_tokens: Longest example, prompt and answer together.
        path: Where the rows come from, for messages.

    Returns:
        The examples that fit, in the order of the rows.

    Raises:
        ConfigError: The tokenizer has no end token, or no row fits.
    """
    if tokenizer.eos_token_id is None:
        raise ConfigError("the base model's tokenizer has no end token, so no answer could ever end; use another base")
    examples = [
        Example(
            chat_ids(tokenizer, render(prompt, row.inputs)),
            [*tokenizer.encode(row.answer, add_special_tokens=False), tokenizer.eos_token_id],
        )
        for row in rows
    ]
    fitting = [example for example in examples if length(example) <= max_tokens]
    if not fitting:
        row, example = min(zip(rows, examples, strict=True), key=lambda pair: length(pair[1]))
        raise ConfigError(
            f"{path}: all {len(rows)} rows are longer than train.max_tokens ({max_tokens}); the shortest, row {row.id} "
            f"(line {row.line} of the raw file), has {length(example)} tokens: raise train.max_tokens"
        )
    return fitting


def length(example: Example) -> int:
    """Return an example's tokens, prompt and answer together."""
    return len(example.prompt) + len(example.answer)


def shared_prefix(examples: Sequence[Example]) -> list[int]:
    """Return the ids with which every prompt begins; each prompt keeps at least its last id for itself."""
    first, last = min(example.prompt for example in examples), max(example.prompt for example in examples)
    shortest = min(len(example.prompt) for example in examples)
    same = itertools.takewhile(lambda pair: pair[0] == pair[1], zip(first, last, strict=False))
    return [token for token, _ in same][: max(shortest - 1, 0)]


def pack(examples: Sequence[Example], prefix: Sequence[int], *, limit: int = MAX_PACKED_TOKENS) -> list[Packed]:
    """Pack examples into as few sequences as `limit` allows.

    Args:
        examples: Examples whose prompts begin with `prefix`, at least one.
        prefix: Ids of the shared beginning, possibly none.
        limit: Tokens of one sequence beyond the prefix; a single longer example still gets a sequence.
    """
    sizes = [length(example) - len(prefix) - 1 for example in examples]
    # Equal parts: the longest sequence sets the peak memory.
    share = sum(sizes) / max(1, math.ceil(sum(sizes) / limit))
    packs: list[list[Example]] = [[]]
    used = 0
    for example, size in zip(examples, sizes, strict=True):
        if packs[-1] and (used + size > limit or used >= share):
            packs.append([])
            used = 0
        packs[-1].append(example)
        used += size
    return [_pack_one(part, prefix) for part in packs]


def _pack_one(examples: Sequence[Example], prefix: Sequence[int]) -> Packed:
    import torch

    start = len(prefix)
    ids, positions, sizes = list(prefix), list(range(start)), [start]
    predicting: list[int] = []
    targets: list[int] = []
    for example in examples:
        # The last token predicts nothing, so it needs no computation.
        rest = [*example.prompt[start:], *example.answer[:-1]]
        first = len(ids) + len(example.prompt) - start - 1
        predicting.extend(range(first, first + len(example.answer)))
        targets.extend(example.answer)
        ids.extend(rest)
        positions.extend(range(start, start + len(rest)))
        sizes.append(len(rest))
    return Packed(
        torch.tensor([ids]), torch.tensor([positions]), sizes, torch.tensor(predicting), torch.tensor(targets)
    )
