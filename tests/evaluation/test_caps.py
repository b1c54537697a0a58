import itertools
from typing import Any

import pytest

from pipelines.evaluation.deciding.caps import Cap, capped, unmeasured
from pipelines.evaluation.gate import Decision

APPROVAL = {"user": "ada", "at": "2026-11-20T10:00:00Z", "why": "fine", "review_url": ""}


def decision(verdict: Any) -> Decision:
    return unmeasured("pass", "as the rows say")._replace(verdict=verdict)


def cap(*sentences: str, approval: dict[str, str] | None = None, lacking: str = "") -> Cap:
    return Cap(sentences, approval, lacking, "d" * 64, "c" * 40)


@pytest.mark.parametrize(
    ("verdict", "is_capped", "is_approved"),
    itertools.product(["pass", "manual_review", "fail", "error"], [False, True], [False, True]),
)
def test_a_cap_only_holds_down_and_an_approval_only_lifts_a_question(
    verdict: str, is_capped: bool, is_approved: bool
) -> None:
    found = capped(decision(verdict), cap(*["code"] * is_capped, approval=APPROVAL if is_approved else None))
    is_question = verdict == "manual_review" or (verdict == "pass" and is_capped)
    expected = verdict if not is_question else "pass" if is_approved else "manual_review"
    assert found.verdict == expected
    # An approval that nobody needed is no part of the decision.
    assert found.approval == (APPROVAL if is_question and is_approved else None)
    assert found.caps == (("code",) if is_capped else ())


def test_the_reasons_keep_what_was_lifted_and_say_what_is_lacking() -> None:
    lifted = capped(decision("manual_review"), cap("code", approval=APPROVAL))
    assert lifted.reasons == ("approved by ada at 2026-11-20T10:00:00Z: fine", "as the rows say", "code")
    held = capped(decision("pass"), cap("code", lacking="ada has to approve"))
    assert held.reasons == ("code", "ada has to approve")
    assert capped(decision("fail"), cap("code")).reasons == ("as the rows say",)


def test_without_a_cap_a_decision_is_what_it_was() -> None:
    assert capped(decision("pass"), cap(approval=APPROVAL)) == decision("pass")
