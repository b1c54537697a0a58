"""How much of a text's end could still become a match when more of it comes: what a stream must hold back."""

from __future__ import annotations

from collections.abc import Iterable

from pipelines.serving.expressions import Anchor, Characters, Choice, Node, Repeat, Sequence, beyond

MOST_STEPS = 20_000
ANY = Characters(lambda character: True)


class _Place:
    """A set of states, met while a text is read from its end; knows where each character leads."""

    __slots__ = ("begins", "is_dead", "leads", "states")

    def __init__(self, states: frozenset[int], begins: bool) -> None:
        self.states = states
        self.begins = begins
        self.is_dead = not states
        self.leads: dict[str, _Place] = {}


class Tails:
    """Finds the longest end of a text that is a proper beginning of a match of any pattern.

    The patterns become one automaton that is run backwards from the text's end, so that a feed costs a look-up or two
    where nothing is under way (Thompson 1968; determinised as far as texts need it). Repeats are taken to have no end:
    then it may find more than there is, never less.

    Args:
        nodes: The patterns.
        most: No match is longer, so no more is ever held back.
    """

    def __init__(self, nodes: Iterable[Node], most: int) -> None:
        self._most = most
        self._n_states = 1  # 0 is where every pattern begins
        self._moves: list[tuple[int, Characters, int]] = []
        self._free: dict[int, set[int]] = {}  # by target: where one may come from without a character
        for node in nodes:
            end = self._build(node, 0)
            for _ in range(beyond(node)):  # what follows a match can decide about it
                end = self._build(ANY, end)
        self._places: dict[frozenset[int], _Place] = {}
        self._n_steps = 0
        self._end = self._place({source for source, _, _ in self._moves})

    def begin(self, text: str, low: int) -> int:
        """Return from where on a text must be held back; its length if no match is under way.

        Args:
            text: All that is known so far.
            low: Nothing before this place counts any more.
        """
        place, found, at = self._end, len(text), len(text)
        low = max(low, at - self._most)
        while at > low:
            at -= 1
            place = place.leads.get(text[at]) or self._step(place, text[at])
            if place.begins:
                found = at
            if place.is_dead:
                break
        return found

    def _step(self, place: _Place, character: str) -> _Place:
        if self._n_steps >= MOST_STEPS:  # a text of ever new characters must not fill the memory
            self._places.clear()
            self._n_steps = 0
            self._end = self._place({source for source, _, _ in self._moves})
        self._n_steps += 1
        states = place.states
        found = self._place(
            {source for source, test, target in self._moves if target in states and test.has(character)}
        )
        place.leads[character] = found
        return found

    def _place(self, states: set[int]) -> _Place:
        todo = list(states)
        while todo:
            for source in self._free.get(todo.pop(), ()):
                if source not in states:
                    states.add(source)
                    todo.append(source)
        key = frozenset(states)
        if key not in self._places:
            self._places[key] = _Place(key, 0 in key)
        return self._places[key]

    def _new(self) -> int:
        self._n_states += 1
        return self._n_states - 1

    def _skip(self, source: int, target: int) -> None:
        self._free.setdefault(target, set()).add(source)

    def _build(self, node: Node, source: int) -> int:
        """Add a pattern that begins in a state; return the state in which it ends."""
        match node:
            case Characters():
                target = self._new()
                self._moves.append((source, node, target))
                return target
            case Anchor():
                return source
            case Sequence(parts):
                for part in parts:
                    source = self._build(part, source)
                return source
            case Choice(branches):
                end = self._new()
                for branch in branches:
                    begin = self._new()
                    self._skip(source, begin)
                    self._skip(self._build(branch, begin), end)
                return end
            case Repeat(part, least, most, _):
                begin, end = self._new(), self._new()
                self._skip(source, begin)
                done = self._build(part, begin)
                self._skip(done, end)
                if most > 1:
                    self._skip(done, begin)
                if least == 0:
                    self._skip(source, end)
                return end
