"""One look as lines of a terminal: everything that decides is there, and no line is wider than the terminal."""

from __future__ import annotations

import pytest

from pipelines.release import screen
from pipelines.release.cells import bare, cells
from pipelines.release.looks import Look, Rung, told
from tests.hostile import CORPUS
from tests.release.looking import look, told_of


def text(found: Look, width: int = 100) -> list[str]:
    return [bare(line) for line in screen.lines(found, width)]


def row(lines: list[str], name: str) -> list[str]:
    return next(line for line in lines if line.startswith(name)).split()


def test_a_look_shows_ladder_share_requests_gates_and_verdict() -> None:
    lines = text(look())
    assert lines[0] == "v1.1.0 instead of v1.0.0 · 3:41 since it began"
    assert lines[1].startswith("✓ staging  ✓ smoke  ✓ deploy  ✓ A/B test  ▶ 5 %  · 10 %  · 25 %")
    assert lines[3] == "█░░░░░░░░░░░░░░░░░░░  5 % of traffic · requests: candidate 110, stable 164"
    assert row(lines, "gate ") == ["gate", "counted", "rate", "interval", "limit", "e", "harm", "e", "proof"]
    assert row(lines, "error_rate")[:5] == ["error_rate", "0", "of", "110", "0"]
    assert row(lines, "schema_failure_rate")[-1] == "proven"
    assert "e-values: a mean harm of 20 rolls back, a proof of 20 is enough" in lines
    assert lines[-2].startswith("advance  4 requests at 5 %")
    assert lines[-1] == "5 %: 0:41 of at most 3:00"


def test_what_a_verdict_rests_on_is_what_was_judged() -> None:
    lines = text(look(told=told_of(errors=30)))
    assert row(lines, "error_rate")[-1] == "failed"
    assert any(line.startswith("rollback  error_rate: 30 of 110 requests, 27 % (") for line in lines)


def test_a_stage_that_waits_says_for_how_many_requests_and_how_long() -> None:
    waits = told_of()._replace(verdict="hold", reasons=("4 of 6 requests in this stage",), more=2.0, n_stage=4.0)
    assert text(look(told=waits))[-1] == "5 %: 0:41 of at most 3:00 · about 2 more requests, 0:20"
    nearly_over = look(told=waits._replace(more=1000.0))
    assert text(nearly_over)[-1].endswith("about 1,000 more requests, 2:19"), "never longer than the stage may last"


def test_a_pause_and_blindness_are_seen_beside_the_verdict() -> None:
    blind = told_of()._replace(verdict="unknown", reasons=("the metrics source does not answer",), gates=())
    lines = text(look(told=blind, held="rita: the shop is closed", blind_s=95.0))
    assert lines[-3:] == [
        "held  by rita: the shop is closed",
        "unknown  the metrics source does not answer",
        "5 %: 0:41 of at most 3:00 · nothing measured for 1:35",
    ]


def test_before_any_traffic_a_look_says_what_is_waited_for() -> None:
    lines = text(look(0, told=None, weight=0.0, waiting="v1.1.0 to be ready in staging"))
    assert lines[-2:] == ["waiting  v1.1.0 to be ready in staging", "staging: 0:41 of at most 3:00"]
    assert not any(line.startswith("gate") for line in lines)


def test_the_first_release_says_so_and_a_finished_one_too() -> None:
    rungs = tuple(Rung(name, "done") for name in ("staging", "smoke", "deploy", "champion"))
    lines = text(look(told=None, instead="", rungs=rungs, weight=1.0, end="v1.1.0 serves all traffic"))
    assert lines[0].startswith("v1.1.0, the first release")
    assert lines[-1] == "released  v1.1.0 serves all traffic"


def test_an_ab_test_shows_means_gain_interval_and_both_p_values() -> None:
    comparison = {
        "metric": "schema_failure_rate", "n_candidate": 106, "n_stable": 104, "mean_candidate": 0.066,
        "mean_stable": 0.058, "gain": -0.008, "lower": -0.12, "upper": 0.104, "margin": 0.15, "p_harm": 1.0,
        "p_safe": 0.0201, "adjusted_p_harm": 1.0, "welch_t": -0.25, "welch_p": 0.8, "cohens_d": -0.03,
    }  # fmt: skip
    found = told({"name": "advance", "reasons": [], "comparisons": [comparison], "alpha": 0.05}, None)
    lines = text(look(3, told=found))
    assert " ".join(row(lines, "schema_failure_rate")) == (
        "schema_failure_rate 6.6 % 5.8 % \N{MINUS SIGN}0.8 % \N{MINUS SIGN}12 to +10 % 15 % 1 0.02 within"
    )


@pytest.mark.parametrize("width", [20, 33, 45, 60, 80, 99, 120, 400])
def test_no_line_is_wider_than_the_terminal_and_the_gates_names_stay(width: int) -> None:
    lines = screen.lines(look(), width)
    assert max(map(cells, lines)) <= width
    assert any(bare(line).startswith("error_rate") for line in lines)


@pytest.mark.parametrize("hostile", CORPUS, ids=range(len(CORPUS)))
def test_no_text_can_do_anything_to_the_terminal(hostile: str) -> None:
    check = {"gate": hostile, "kind": hostile, "status": hostile, "events": hostile, "n": 3, "log_e_fail": 1e300}
    comparison = {"metric": hostile, "gain": hostile}
    verdict = {"name": hostile, "reasons": [hostile], "checks": [check], "comparisons": [comparison], "alpha": 0.05}
    found = look(told=told(verdict, {"canary": {"epochs": [{"candidate": hostile}]}}))
    found = found._replace(tag=hostile, instead=hostile, stage=hostile, held=hostile, rungs=(Rung(hostile, "now"),))
    for width in (30, 100):
        for line in screen.lines(found, width):
            assert bare(line).isprintable()
            assert cells(line) <= width


def test_letters_of_two_cells_do_not_make_a_line_too_wide() -> None:
    found = look(told=told_of()._replace(verdict="hold", reasons=("顧客の声" * 60,)))
    assert max(map(cells, screen.lines(found, 41))) <= 41


@pytest.mark.parametrize("value", [{}, {"checks": 3}, {"checks": [3, {}]}, {"reasons": "x"}, {"alpha": float("nan")}])
def test_a_verdict_of_another_judge_is_shown_as_far_as_it_tells(value: dict[str, object]) -> None:
    assert text(look(told=told({"name": "hold", **value}, {"n": 3})))[-1].startswith("5 %: 0:41")
