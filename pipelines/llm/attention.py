"""Attention over a prompt prefix that a whole batch shares: its keys and values are held once and read once.

Splitting attention into a shared part and a part per row is Hydragen's idea (Juravsky et al. 2024,
arXiv 2402.05099): the shared part becomes one matrix product for all rows instead of one vector product per row.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

NAME = "gatehouse_shared_prefix"


class Prefix(NamedTuple):
    """The first tokens of some prompts, with every layer's keys and values.

    Attributes:
        ids: Token ids.
        layers: Keys and values per layer, each of shape (1, heads, len(ids), size).
    """

    ids: tuple[int, ...]
    layers: tuple[tuple[Tensor, Tensor], ...]

    def crop(self, length: int) -> Prefix | None:
        """Return the first `length` tokens; None for none."""
        if length == 0:
            return None
        layers = tuple((keys[:, :, :length], values[:, :, :length]) for keys, values in self.layers)
        return Prefix(self.ids[:length], layers)


class Mask(NamedTuple):
    """Which tokens each new token sees; None is all.

    Attributes:
        shared: Of the prefix, shape (rows, 1, new, prefix).
        own: Of the row's own slots, shape (rows, 1, new, slots).
        is_causal: Each sees all up to itself, and there is nothing else: fused kernels know that by themselves.
    """

    shared: Tensor | None
    own: Tensor | None
    is_causal: bool = False


class KeyValues:
    """Keys and values of one batch, in the form that transformers' models ask of a cache.

    Row b's own tokens fill the slots after its padding, so that all rows end at the same slot and
    the newest token of each stands last.
    """

    is_compileable = False

    def __init__(self, prefix: Prefix | None, padding: Tensor, capacity: int) -> None:
        """Prepare an empty store.

        Args:
            prefix: What all rows start with, or None.
            padding: Empty slots before each row's own tokens, shape (rows,).
            capacity: Most slots a row can need.
        """
        self.prefix = prefix
        self.capacity = capacity
        self.length = 0
        self._padding = padding
        self._rows = slice(None)
        self._layers: dict[int, tuple[Tensor, Tensor]] = {}
        self._new = 0
        self._masks: dict[int | None, Mask] = {}

    def begin(self, new: int, rows: slice | None = None) -> Tensor:
        """Announce a forward pass of `new` tokens per row.

        Args:
            new: Tokens per row.
            rows: Only these rows; their first tokens, for all must be at the same slot afterwards.

        Returns:
            Their position ids, shape (rows, new); padding stands at the position of the first token.
        """
        self._rows = slice(None) if rows is None else rows
        self.length = new if rows is not None else self.length + new
        self._new = new
        self._masks = {}
        slots = torch.arange(self.length - new, self.length, device=self._padding.device)
        return (slots[None, :] - self._padding[self._rows, None]).clamp(min=0) + self.prefix_length

    @property
    def prefix_length(self) -> int:
        """Number of shared tokens."""
        return 0 if self.prefix is None else len(self.prefix.ids)

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Return the number of slots in use; transformers' name."""
        return self.prefix_length + self.length

    def update(self, keys: Tensor, values: Tensor, layer_idx: int, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Store a layer's new keys and values, shape (rows, heads, new, size), and return all of the rows' own."""
        if layer_idx not in self._layers:
            rows, heads = len(self._padding), keys.shape[1]
            # Heads come first in memory, so that one head's queries of all rows meet the prefix without a copy.
            self._layers[layer_idx] = (
                keys.new_empty(heads, rows, self.capacity, keys.shape[3]).transpose(0, 1),
                values.new_empty(heads, rows, self.capacity, values.shape[3]).transpose(0, 1),
            )
        all_keys, all_values = (stored[self._rows] for stored in self._layers[layer_idx])
        all_keys[:, :, self.length - self._new : self.length] = keys
        all_values[:, :, self.length - self._new : self.length] = values
        return all_keys[:, :, : self.length], all_values[:, :, : self.length]

    def keep(self, rows: Tensor) -> None:
        """Drop all rows but these."""
        self._padding = self._padding[rows]
        self._layers = {
            layer: (_select(keys, rows), _select(values, rows)) for layer, (keys, values) in self._layers.items()
        }

    def mask(self, window: int | None) -> Mask:
        """Return what each new token sees.

        Args:
            window: A token sees so many tokens, itself included; None is all before it.
        """
        if window is not None and window >= self.get_seq_length():
            window = None
        if window not in self._masks:
            self._masks[window] = self._build_mask(window)
        return self._masks[window]

    def _build_mask(self, window: int | None) -> Mask:
        padding = self._padding[self._rows]
        is_padded = bool(padding.any())
        if not is_padded and window is None and self._new == 1:
            return Mask(None, None)
        device = padding.device
        own = torch.arange(self.length, device=device)
        queries = own[-self._new :]
        seen = (own >= padding[:, None])[:, None, :] & (own <= queries[:, None])
        # Padding sees itself, for a softmax over nothing is NaN.
        seen |= own == queries[:, None]
        if window is None or self.prefix is None:
            shared = None
        else:
            positions = self.prefix_length + queries[None, :] - padding[:, None]
            shared = (positions[:, :, None] - torch.arange(self.prefix_length, device=device) < window)[:, None]
        if window is not None:
            seen &= queries[:, None] - own < window
        is_causal = not is_padded and window is None and self.get_seq_length() == self._new
        return Mask(shared, seen[:, None], is_causal)

    def as_prefix(self, ids: tuple[int, ...]) -> Prefix:
        """Return row 0's first tokens as a prefix for others; the row has no padding."""
        own = len(ids) - self.prefix_length
        layers = []
        for layer, (keys, values) in sorted(self._layers.items()):
            parts = [(keys[:1, :, :own], values[:1, :, :own])]
            if self.prefix is not None:
                parts.insert(0, self.prefix.layers[layer])
            layers.append((torch.cat([part[0] for part in parts], 2), torch.cat([part[1] for part in parts], 2)))
        return Prefix(ids, tuple(layers))


def attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    shared: KeyValues,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attend over the shared prefix and the rows' own tokens; transformers calls it in every layer.

    Args:
        module: The attention layer.
        query: Shape (rows, heads, new, size).
        key: The rows' own keys, shape (rows, key heads, slots, size).
        value: The same for values.
        attention_mask: Unused; `shared` knows what is seen.
        shared: The batch's store.
        scaling: Factor of the scores.
        sliding_window: A token sees so many tokens.
        softcap: Largest absolute score.
        kwargs: What other attentions need.

    Returns:
        Shape (rows, new, heads, size), and None where others return weights.
    """
    if kwargs.get("s_aux") is not None:
        raise NotImplementedError("attention sinks")
    layer: Any = module.layer_idx
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    prefix = None if shared.prefix is None else shared.prefix.layers[layer]
    mask = shared.mask(sliding_window)
    if query.shape[2] > 1 and softcap is None:
        out = _attend_fused(query, key, value, prefix, mask, scale)
    else:
        out = _attend_split(query, key, value, prefix, mask, scale, softcap)
    return out.transpose(1, 2).contiguous(), None


def _attend_fused(
    query: Tensor, key: Tensor, value: Tensor, prefix: tuple[Tensor, Tensor] | None, mask: Mask, scale: float
) -> Tensor:
    """Attend with torch's fused kernel, the prefix copied to every row: best for many new tokens."""
    rows, heads, new = query.shape[:3]
    seen = None if mask.is_causal else mask.own
    if prefix is not None:
        key = torch.cat([prefix[0].expand(rows, -1, -1, -1), key], dim=2)
        value = torch.cat([prefix[1].expand(rows, -1, -1, -1), value], dim=2)
        shared = mask.shared
        if seen is not None:
            shared = seen.new_ones(rows, 1, new, prefix[0].shape[2]) if shared is None else shared
            seen = torch.cat([shared, seen], dim=-1)
    group = heads // key.shape[1]
    if group > 1:
        key, value = key.repeat_interleave(group, 1), value.repeat_interleave(group, 1)
    return nn.functional.scaled_dot_product_attention(
        query, key, value, attn_mask=seen, is_causal=mask.is_causal, scale=scale
    )


def _attend_split(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    prefix: tuple[Tensor, Tensor] | None,
    mask: Mask,
    scale: float,
    softcap: float | None,
) -> Tensor:
    """Attend in two matrix products, one over the prefix for all rows together, one per row over its own."""
    rows, heads, new, size = query.shape
    key, value = key.transpose(0, 1), value.transpose(0, 1)  # (key heads, rows, slots, size)
    key_heads = key.shape[0]
    group = heads // key_heads
    # (key heads, rows, group * new, size): queries that share a key head stand together.
    packed = (query * scale).reshape(rows, key_heads, group * new, size).transpose(0, 1).contiguous()
    scores = _finish(packed @ key.transpose(2, 3), mask.own, group, softcap)
    length = 0
    if prefix is not None:
        length = prefix[0].shape[2]
        together = packed.view(key_heads, rows * group * new, size)
        first = together @ prefix[0][0].transpose(1, 2)
        first = _finish(first.view(key_heads, rows, group * new, length), mask.shared, group, softcap)
        scores = torch.cat([first, scores], dim=-1)
    weights = torch.softmax(scores, dim=-1, dtype=torch.float32).to(query.dtype)
    out = weights[..., length:] @ value
    if prefix is not None:
        together = weights.view(key_heads, rows * group * new, -1)[..., :length]
        out = out + (together @ prefix[1][0]).view(out.shape)
    return out.transpose(0, 1).reshape(rows, heads, new, -1)


def _finish(scores: Tensor, seen: Tensor | None, group: int, softcap: float | None) -> Tensor:
    """Cap scores, and set those of what is not seen to minus infinity.

    Args:
        scores: Shape (key heads, rows, group * new, tokens).
        seen: Shape (rows, 1, new, tokens), or None for all.
        group: Query heads per key head.
        softcap: Largest absolute score, or None.
    """
    if softcap is not None:
        scores = softcap * torch.tanh(scores / softcap)
    if seen is None:
        return scores
    return scores.masked_fill_(~seen.transpose(0, 1).repeat(1, 1, group, 1), float("-inf"))


def _select(stored: Tensor, rows: Tensor) -> Tensor:
    return stored.transpose(0, 1).index_select(1, rows).transpose(0, 1)


def install(model: Any) -> None:
    """Make a transformers model attend through `attend`; it then needs `shared=` in every call.

    Raises:
        NotImplementedError: Its architecture does more than attend to all, or to the last few, tokens.
    """
    from transformers import AttentionInterface

    config = model.config.get_text_config()
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    if not getattr(model, "_supports_attention_backend", False) or kinds - {"full_attention", "sliding_attention"}:
        raise NotImplementedError(f"architecture {type(model).__name__}")
    AttentionInterface.register(NAME, attend)
    model.set_attn_implementation(NAME)
