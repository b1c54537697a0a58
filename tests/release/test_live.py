"""What is to be seen on a terminal while a release runs, and in a log, where nothing can be drawn twice."""

from __future__ import annotations

import io
import os
import shutil

import pytest

from pipelines.release.live import Live
from tests.release.looking import look, told_of
from tests.release.terminal import Terminal


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    found = Terminal()
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setattr(shutil, "get_terminal_size", lambda fallback=(): os.terminal_size((found.columns, 40)))
    return found


def test_a_table_is_drawn_anew_in_place_below_the_lines_that_were_said(terminal: Terminal) -> None:
    live = Live(terminal)
    live.say("Send 5 % of traffic to v1.1.0")
    for seconds in (5.0, 10.0, 15.0):
        live.show(look(elapsed_s=seconds))
        live.say(f"said after {seconds:g} s")
    seen = terminal.seen()
    assert seen[:4] == ["Send 5 % of traffic to v1.1.0", "said after 5 s", "said after 10 s", "said after 15 s"]
    assert [row for row in seen if row.startswith("v1.1.0 instead")] == [seen[4]]
    assert seen[-2:] == ["5 %: 0:15 of at most 3:00", ""]


def test_a_smaller_table_leaves_nothing_of_a_larger_one(terminal: Terminal) -> None:
    live = Live(terminal)
    live.show(look())
    live.show(look(tag="v1.2.0", told=None, waiting="v1.2.0 to be ready"))
    assert not any(row.startswith(("gate", "error_rate")) for row in terminal.seen())


def test_a_terminal_that_becomes_narrower_keeps_one_table(terminal: Terminal) -> None:
    live = Live(terminal)
    live.say("above")
    live.show(look())
    terminal.resize(50)
    live.show(look(elapsed_s=60.0))
    seen = terminal.seen()
    assert seen[0] == "above"
    assert sum("v1.1.0 instead" in row for row in seen) == 1
    assert max(map(len, seen)) < 50


def test_what_was_judged_last_stays_in_sight_while_the_next_stage_begins(terminal: Terminal) -> None:
    live = Live(terminal)
    live.show(look(4))
    live.show(look(5, told=None))
    seen = terminal.seen()
    assert any(row.startswith("error_rate") for row in seen)
    assert not any(row.startswith("advance") for row in seen), "the new stage has no verdict yet"


def test_colours_follow_the_terminal_and_no_color(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    Live(terminal).show(look())
    assert terminal.colours
    plain = Terminal()
    monkeypatch.setenv("NO_COLOR", "1")
    Live(plain).show(look())
    assert not plain.colours
    assert plain.seen() == terminal.seen()


def test_a_terminal_of_another_encoding_gets_signs_that_it_can_write(terminal: Terminal) -> None:
    ascii_only = Terminal(encoding="ascii")
    Live(ascii_only).show(look())
    assert ascii_only.seen()[1].startswith("+ staging  + smoke  + deploy  + A/B test  > 5 %")


def test_a_log_gets_a_line_per_change_and_one_per_minute() -> None:
    log = io.StringIO()
    live = Live(log)
    waits = told_of()._replace(verdict="hold", reasons=("2 of 3 requests",))
    for second in range(0, 150, 5):
        live.show(look(told=waits, total_s=200.0 + second, elapsed_s=float(second)))
    live.show(look(total_s=350.0))
    live.say("Send 10 % of traffic to v1.1.0")
    lines = log.getvalue().splitlines()
    assert [line.split(",")[0] for line in lines] == [
        "[3:20] 5 %", "[4:20] 5 %", "[5:20] 5 %", "[5:50] 5 %", "Send 10 % of traffic to v1.1.0",
    ]  # fmt: skip
    assert lines[0] == (
        "[3:20] 5 %, 0:00 of 3:00, 110 against 164 requests, error_rate 0 of 110 proven, "
        "schema_failure_rate 7 of 110 proven, latency_p95_ms 1 of 110 open; hold: 2 of 3 requests"
    )
    assert "advance" in lines[3]


def test_a_log_says_what_is_waited_for_once_and_nothing_where_a_stage_begins() -> None:
    log = io.StringIO()
    live = Live(log)
    for second in (0.0, 5.0, 10.0):
        live.show(look(0, told=None, total_s=second, waiting="v1.1.0 to be ready in staging"))
    live.show(look(1, told=None, total_s=11.0))
    assert log.getvalue() == "[0:00] staging: waiting for v1.1.0 to be ready in staging\n"


def test_a_line_break_in_a_reason_makes_no_line_of_its_own() -> None:
    log = io.StringIO()
    live = Live(log)
    live.show(look(told=told_of()._replace(reasons=("a\n::set-output name=x::y",))))
    live.say("b\n::error::c")
    assert len(log.getvalue().splitlines()) == 2
