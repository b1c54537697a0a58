"""Which variant a user gets: always the same one, as long as weights allow it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from hashlib import blake2b


def share(salt: str, user: str, name: str) -> float:
    """Return the user's uniform draw for one variant, above 0 and at most 1."""
    # Lengths in front, so that ("a", "bc") and ("ab", "c") are two users.
    head = f"{len(salt)}:{len(user)}:".encode()
    text = b"\0".join((head, salt.encode(), user.encode("utf-8", "surrogatepass"), name.encode()))
    return (int.from_bytes(blake2b(text, digest_size=8).digest(), "big") + 1) / 2**64


def assign(salt: str, user: str, weights: Mapping[str, float]) -> str:
    """Return the variant of a user: weighted rendezvous hashing (Schindelhauer and Schomaker 2005).

    Each variant draws -ln(u) / weight and the smallest draw wins, which it does with probability weight / sum. Where
    the weight of one variant grows relative to the others, users move to it and nobody moves anywhere else; of two
    variants, the growing one keeps all its users.

    Args:
        salt: Of the split; two splits with different salts are independent.
        user: Any text.
        weights: By variant; at least one above 0.
    """
    if len(weights) == 1:
        return next(iter(weights))
    draws = {name: -math.log(share(salt, user, name)) / weight for name, weight in weights.items() if weight > 0}
    return min(draws, key=draws.__getitem__)
