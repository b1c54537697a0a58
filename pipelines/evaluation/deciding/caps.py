"""What a pull request may become at most, and what a person's approval lifts: a question, never a no."""

from __future__ import annotations

from typing import NamedTuple

from pipelines.evaluation.gate import Decision


class Cap(NamedTuple):
    """What else than rows a verdict on a pull request rests on.

    Attributes:
        sentences: Why it may not pass without a person; none where the rows alone decide.
        approval: Who lifted that, when and why (`user`, `at`, `why`, `review_url`), or None.
        lacking: Which approval is missing, or empty.
        input_digest: Of the tree that was evaluated, hex.
        commit: The judged commit, hex.
        is_evaluated: Whether there are rows; a change that needs none can still need a person.
    """

    sentences: tuple[str, ...]
    approval: dict[str, str] | None
    lacking: str
    input_digest: str
    commit: str
    is_evaluated: bool = True


def unmeasured(verdict: str, reason: str) -> Decision:
    """Return a decision that no row takes part in."""
    assert verdict in ("pass", "error")
    return Decision("pass" if verdict == "pass" else "error", (reason,), (), (), (), ())


def capped(decision: Decision, cap: Cap) -> Decision:
    """Hold a decision down, then lift it where an owner has approved.

    Returns:
        `pass` becomes `manual_review` where there is a cap. `manual_review`, whatever it comes from, becomes `pass`
        where there is an approval, which then stands in the decision. `fail` and `error` stay what they are.
    """
    found = decision._replace(caps=cap.sentences)
    if found.verdict == "pass" and cap.sentences:
        found = found._replace(verdict="manual_review", reasons=cap.sentences)
    elif found.verdict == "manual_review":
        found = found._replace(reasons=(*found.reasons, *cap.sentences))
    if found.verdict != "manual_review":
        return found
    if cap.approval is None:
        return found._replace(reasons=(*found.reasons, *([cap.lacking] if cap.lacking else [])))
    approval = cap.approval
    why = f": {approval['why']}" if approval.get("why") else ""
    said = f"approved by {approval['user']} at {approval['at']}{why}"
    return found._replace(verdict="pass", reasons=(said, *found.reasons), approval=approval)
