"""Which users a rollout has seen, by hash, in bounded memory."""

from __future__ import annotations

MOST_USERS = 200_000
"""About 35 MB in a rollout of seven stages."""
MOST_EPOCHS = 60
_OPENED = 1
_FIRST_EPOCH = 1
_FIRST_COUNT = _FIRST_EPOCH + MOST_EPOCHS
_COUNT_BITS = 30  # as many as a declared count has
_COUNT = (1 << _COUNT_BITS) - 1


class Users:
    """The users of one rollout.

    Where there are more than fit, only those go on being counted whose hash ends in one more zero bit: each is still
    counted in full or not at all, and the sample knows nothing of sides (adaptive sampling, Flajolet 1990).

    Args:
        most: So many are remembered.
    """

    def __init__(self, most: int = MOST_USERS) -> None:
        self._most = most
        self._mask = 0  # of the hashes that are counted, these bits are 0
        self._known: dict[int, int] = {}  # whether the A/B test opened, a bit per epoch, requests per place

    def __len__(self) -> int:
        return len(self._known)

    def enter(self, user: int, epoch: int) -> bool | None:
        """Note a user at the door; return whether it is the first time in this epoch, or None if they do not count."""
        if user & self._mask:
            return None
        state = self._known.get(user, 0)
        bit = 1 << (_FIRST_EPOCH + epoch)
        if state & bit:
            return False
        self._known[user] = state | bit
        if not state and len(self._known) > self._most:
            self._thin()
            return None if user & self._mask else True
        return True

    def count(self, user: int, place: int, most: int) -> bool:
        """Count a request, unless the user had `most` of them at this place, a number from 0 on."""
        state, shift = self._known.get(user), _FIRST_COUNT + place * _COUNT_BITS
        if state is None or state >> shift & _COUNT >= most:
            return False
        self._known[user] = state + (1 << shift)
        return True

    def open(self, user: int) -> bool:
        """Note that the A/B test began for a user; return whether it had not before."""
        state = self._known.get(user, _OPENED)
        if state & _OPENED:
            return False
        self._known[user] = state | _OPENED
        return True

    def _thin(self) -> None:
        while len(self._known) > self._most:
            self._mask = self._mask << 1 | 1
            self._known = {user: state for user, state in self._known.items() if not user & self._mask}
