"""The rules that look at texts: lengths, patterns, personal data, secrets, instructions to the model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

from pipelines.serving import credentials, glance, injections, pii
from pipelines.serving.config_policies import (
    InjectionRule,
    LengthRule,
    PatternRule,
    PiiRule,
    RuleIn,
    RuleOut,
    SecretsRule,
)
from pipelines.serving.detectors import Detector, Detectors, Scan, compiled
from pipelines.serving.exchange import Decision, Exchange
from pipelines.serving.parts import PASS, Blocked, Body, Inspection
from pipelines.serving.texts import APPLICATION, Unreadable, change_answer, change_request

Direction = Literal["in", "out"]
ANY_LENGTH = 1 << 62
TextRule = LengthRule | PatternRule | PiiRule | InjectionRule | SecretsRule


def decide(
    exchange: Exchange, direction: Direction, rule: str, action: Literal["flag", "redact", "retry", "block"]
) -> None:
    """Note a decision, once per request and direction."""
    if Decision(direction, rule, action) not in exchange.decisions:
        exchange.decide(direction, rule, action)


class TextRules:
    """Rules that are applied together, in one reading of each text.

    Args:
        rules: As declared.
        own: Texts of the route's prompts, which nobody outside has written.
    """

    def __init__(self, rules: Sequence[TextRule], own: frozenset[str] = frozenset()) -> None:
        self._own = own
        self._lengths = [rule for rule in rules if isinstance(rule, LengthRule)]
        self._shortest = min((rule.max_characters for rule in self._lengths), default=ANY_LENGTH)
        found = [detector for rule in rules for detector in detectors_of(rule)]
        self._for_others = Detectors(found)
        self._for_all = Detectors([detector for detector in found if detector.rule != "injection"])

    def inspect_in(self, exchange: Exchange, body: Body) -> Inspection:
        """Inspect a request."""
        if self._is_harmless(glance.of_request(body)):
            return PASS
        reading = Reading(self, exchange, "in")
        return self._inspect(exchange, "in", body, lambda: change_request(body, reading.of_role))

    def inspect_out(self, exchange: Exchange, answer: Body) -> Inspection:
        """Inspect an answer."""
        texts = glance.of_answer(answer)
        if (
            texts is not None
            and max(map(len, texts), default=0) <= self._shortest
            and not self._for_all.has_any(*texts)
        ):
            return PASS
        reading = Reading(self, exchange, "out")
        return self._inspect(exchange, "out", answer, lambda: change_answer(answer, reading.of_answer))

    def _is_harmless(self, found: glance.Texts | None) -> bool:
        """Tell whether it is sure at once that no rule has anything to say about a request's texts."""
        if found is None:
            return False
        application, others = found
        if self._own:
            application = [text for text in application if text not in self._own]
            others = [text for text in others if text not in self._own]
        if sum(map(len, application)) + sum(map(len, others)) > self._shortest:
            return False
        return not self._for_all.has_any(*application) and not self._for_others.has_any(*others)

    def _inspect(self, exchange: Exchange, way: Direction, value: Body, change: Callable[[], Body]) -> Inspection:
        try:
            changed = change()
        except Unreadable:
            decide(exchange, way, "unreadable", "block")
            return Inspection("block", rule="unreadable")
        except Blocked as blocked:
            return Inspection("block", rule=str(blocked))
        return PASS if changed is value else Inspection("redact", changed)

    def open_stream(self, exchange: Exchange) -> TextStream:
        """Return what inspects one text of a streamed answer."""
        return TextStream(self, exchange)

    def is_own(self, text: str) -> bool:
        """Tell whether a text is of the route's own prompt."""
        return text in self._own

    def detectors(self, role: str) -> Detectors:
        """Return what is looked for in a text of this role: the application's own are full of instructions."""
        return self._for_all if role in APPLICATION else self._for_others

    def count(self, exchange: Exchange, direction: Direction, n_characters: int) -> None:
        """Hold a length against the rules.

        Raises:
            Blocked: It is too long.
        """
        for rule in self._lengths:
            if n_characters > rule.max_characters:
                decide(exchange, direction, "length", rule.action)
                if rule.action == "block":
                    raise Blocked("length")


class Reading:
    """One reading of a request or an answer."""

    def __init__(self, rules: TextRules, exchange: Exchange, direction: Direction) -> None:
        self._rules = rules
        self._exchange = exchange
        self._direction = direction
        self._n_characters = 0

    def of_role(self, role: str, text: str) -> str:
        """Return a request's text as it may go on.

        Raises:
            Blocked: It may not.
        """
        if self._rules.is_own(text):
            return text
        self._n_characters += len(text)
        self._rules.count(self._exchange, self._direction, self._n_characters)
        return self._read(self._rules.detectors(role), text)

    def of_answer(self, text: str) -> str:
        """Return an answer's text as it may leave.

        Raises:
            Blocked: It may not.
        """
        self._rules.count(self._exchange, self._direction, len(text))
        return self._read(self._rules.detectors("assistant"), text)

    def _read(self, detectors: Detectors, text: str) -> str:
        if not detectors.has_any(text):
            return text
        scan = Scan(detectors, decider(self._exchange, self._direction))
        changed = scan.feed(text) + scan.close()
        return text if changed == text else changed


class TextStream:
    """One text of a streamed answer."""

    def __init__(self, rules: TextRules, exchange: Exchange) -> None:
        self._rules = rules
        self._exchange = exchange
        self._n_characters = 0
        self._scan = Scan(rules.detectors("assistant"), decider(exchange, "out"))

    def feed(self, text: str) -> str:
        """Take the next piece; return what may leave.

        Raises:
            Blocked: Nothing more may.
        """
        self._n_characters += len(text)
        self._rules.count(self._exchange, "out", self._n_characters)
        return self._scan.feed(text)

    def close(self) -> str:
        """Return what was held back and may leave.

        Raises:
            Blocked: It may not.
        """
        return self._scan.close()


def decider(exchange: Exchange, direction: Direction) -> Callable[[Detector], None]:
    """Return what notes a scan's matches and ends it where one blocks."""

    def note(detector: Detector) -> None:
        assert detector.action in ("flag", "redact", "block")
        decide(exchange, direction, detector.rule, detector.action)
        if detector.action == "block":
            raise Blocked(detector.rule)

    return note


def detectors_of(rule: RuleIn | RuleOut) -> list[Detector]:
    """Return what a rule looks for; nothing for one that does not look at patterns."""
    if isinstance(rule, PatternRule):
        label = f"[{rule.name.upper()}]"
        return [Detector(rule.name, rule.action, label, compiled(pattern)) for pattern in rule.patterns]
    if isinstance(rule, PiiRule):
        return pii.detectors(rule.kinds, rule.action)
    if isinstance(rule, SecretsRule):
        return credentials.detectors(rule.action)
    if isinstance(rule, InjectionRule):
        return injections.detectors(rule.action)
    return []
