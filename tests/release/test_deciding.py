"""What follows from a verdict: each limit just below, at and just above."""

from __future__ import annotations

import pytest

from pipelines.core.errors import ConfigError
from pipelines.release.deciding import Situation, decide

CALM = Situation(60.0, 0.0, 30.0, 600.0, 300.0, "rollback")


@pytest.mark.parametrize(
    ("verdict", "changes", "action"),
    [
        ("advance", {}, "advance"),
        ("advance", {"elapsed_s": 29.9}, "wait"),
        ("advance", {"elapsed_s": 30.0}, "advance"),
        ("advance", {"is_paused": True}, "wait"),
        ("advance", {"elapsed_s": 601.0}, "advance"),
        ("advance", {"has_traffic": False}, "wait"),
        ("rollback", {"elapsed_s": 0.0}, "rollback"),
        ("rollback", {"is_paused": True}, "rollback"),
        ("invalid", {"elapsed_s": 599.9}, "wait"),
        ("invalid", {"elapsed_s": 600.0}, "rollback"),
        ("hold", {"elapsed_s": 599.9}, "wait"),
        ("hold", {"elapsed_s": 600.0}, "rollback"),
        ("hold", {"elapsed_s": 600.0, "on_insufficient": "hold"}, "hold"),
        ("hold", {"elapsed_s": 6000.0, "is_paused": True}, "wait"),
        ("unknown", {"blind_s": 299.9}, "wait"),
        ("unknown", {"blind_s": 300.0}, "rollback"),
        ("unknown", {"blind_s": 300.0, "is_paused": True}, "rollback"),
        ("unknown", {"elapsed_s": 6000.0}, "wait"),
    ],
)
def test_a_verdict_and_the_time_decide(verdict: str, changes: dict[str, object], action: str) -> None:
    assert decide(verdict, CALM._replace(**changes)).action == action  # type: ignore[arg-type]


def test_no_evidence_is_told_as_inconclusive_and_never_as_failed() -> None:
    for verdict, changes in (
        ("hold", {"elapsed_s": 600.0}),
        ("invalid", {"elapsed_s": 600.0}),
        ("unknown", {"blind_s": 300.0}),
    ):
        assert decide(verdict, CALM._replace(**changes)).why.startswith("inconclusive, ")


def test_a_verdict_that_nobody_knows_is_an_error_and_no_advance() -> None:
    with pytest.raises(ConfigError, match="verdict 'Advance' is none of advance, rollback, hold, unknown, invalid"):
        decide("Advance", CALM)
