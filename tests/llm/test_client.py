"""The client against a real server that fails in every way a server can."""

from __future__ import annotations

import email.utils
import logging
import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
import traceback
from pathlib import Path
from typing import Any

import pytest

from pipelines.core.errors import ConfigError
from pipelines.core.params import EndpointModel, Price
from pipelines.llm.answers import Answer, AnswerCache, Request
from pipelines.llm.client import Client
from pipelines.llm.cost import cost_usd, most_prompt_tokens
from pipelines.llm.endpoint import retry_after_s
from pipelines.llm.prompts import Message
from tests.llm.endpoint import Body, Reply, StandIn

FREE = Price(prompt_usd=0, completion_usd=0)
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


def declared(server: StandIn | str, **changes: Any) -> EndpointModel:
    url = server if isinstance(server, str) else server.url
    values: dict[str, Any] = {"price": FREE, "timeout_s": 5.0, "max_attempts": 3, "concurrency": 4} | changes
    return EndpointModel(source="endpoint", base_url=url, model="m", **values)


def question(text: str = "Where is my parcel?", **changes: Any) -> Request:
    return Request("id", (Message("system", "Be brief."), Message("user", text)), 16)._replace(**changes)


def ask(server: StandIn | str, request: Request | None = None, **changes: Any) -> Answer:
    with Client(declared(server, **changes), cache=None, first_backoff_s=0.01) as client:
        return client.answer([request or question()])[0]


# --- answers --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [True, False])
def test_an_answer_comes_back_with_its_tokens(stream: bool) -> None:
    with StandIn.of(Reply("It left Leeds today.", usage=(21, 5))) as server:
        answer = ask(server, stream=stream)
        body = server.received[0].body
    assert answer == Answer("It left Leeds today.", "scored", "", "stop", 21, 5)
    assert body["messages"][1] == {"role": "user", "content": "Where is my parcel?"}
    assert (body["model"], body["max_tokens"], body["temperature"], body["top_p"]) == ("m", 16, 0.0, 1.0)
    assert body.get("stream_options") == ({"include_usage": True} if stream else None)


def test_an_answer_in_json_ends_where_the_local_engine_would_end_it() -> None:
    with StandIn.of(Reply('{"intent": "fault"} That is all.')) as server:
        assert ask(server, question(wants_json=True)).text == '{"intent": "fault"}'
        assert ask(server, question()).text == '{"intent": "fault"} That is all.'


def test_answers_keep_the_order_of_their_requests() -> None:
    def respond(body: Body, number: int) -> Reply:
        text = body["messages"][1]["content"]
        return Reply(text.upper(), delay_s=0.002 * (7 - int(text[1:]) % 7))

    with StandIn(respond) as server, Client(declared(server, concurrency=8), cache=None) as client:
        answers = client.answer([question(f"q{number}") for number in range(40)])
    assert [answer.text for answer in answers] == [f"Q{number}" for number in range(40)]


def test_equal_requests_are_asked_and_paid_once() -> None:
    seen: list[tuple[int, int]] = []
    requests = [question("a"), question("b", id="one"), question("a", id="two"), question("b"), question("a")]
    with (
        StandIn(lambda body, number: Reply(body["messages"][1]["content"].upper(), usage=(90, 16))) as server,
        Client(declared(server, price=DEAR, max_spend_usd=1.0), cache=None) as client,
    ):
        answers = client.answer(requests, on_progress=lambda done, cached: seen.append((done, cached)))
        assert len(server.received) == 2
        assert client.budget.spent_usd == pytest.approx(2 * cost_usd(DEAR, 90, 16))
    assert [answer.text for answer in answers] == ["A", "B", "A", "B", "A"]
    assert [answer.is_cached for answer in answers] == [False, False, True, True, True]
    assert seen[-1] == (5, 0)


def test_no_more_requests_are_under_way_than_declared() -> None:
    with StandIn.of(Reply(delay_s=0.03)) as server, Client(declared(server, concurrency=3), cache=None) as client:
        client.answer([question(f"q{number}") for number in range(12)])
        assert server.most_open == 3


def test_a_character_split_over_two_deltas_is_put_together() -> None:
    with StandIn.of(Reply(pieces=["a \ud83d", "\ude00 b"])) as server:
        assert ask(server).text == "a 😀 b"


def test_half_a_character_becomes_a_replacement_that_can_be_written_to_a_file() -> None:
    with StandIn.of(Reply(pieces=["a \ud83d"])) as server:
        assert ask(server).text.encode() == "a \ufffd".encode()


def test_a_server_that_ignores_stream_is_understood() -> None:
    raw = b'{"choices": [{"message": {"content": "whole"}, "finish_reason": "stop"}]}'
    with StandIn.of(Reply(raw=raw, content_type="text/plain")) as server:
        assert ask(server).text == "whole"


def test_a_refusal_is_the_models_answer() -> None:
    raw = b'{"choices": [{"message": {"content": null, "refusal": "I cannot help."}, "finish_reason": "stop"}]}'
    with StandIn.of(Reply(raw=raw)) as server:
        answer = ask(server, stream=False)
    assert (answer.text, answer.state) == ("I cannot help.", "scored")


@pytest.mark.parametrize("stream", [True, False])
def test_a_proper_answer_without_text_is_the_models_error(stream: bool) -> None:
    with StandIn.of(Reply(" ", finish_reason="content_filter")) as server:
        answer = ask(server, stream=stream)
        assert len(server.received) == 1
    assert answer.state == "model_error"
    assert "without text (finish_reason content_filter)" in answer.error


@pytest.mark.parametrize("usage", [None, (0, 0)])
def test_tokens_that_the_server_does_not_count_are_guessed_and_flagged(usage: tuple[int, int] | None) -> None:
    price = Price(prompt_usd=10, completion_usd=10)
    with StandIn.of(Reply("some words here", usage=usage)) as server:
        client = Client(declared(server, price=price), cache=None)
        answer = client.answer([question()])[0]
        client.close()
    assert answer.is_estimated
    assert cost_usd(price, answer.prompt_tokens, answer.completion_tokens) > 0
    assert any("did not count the tokens of 1 answers" in note for note in client.notes)
    # What was really charged is unknown, so the budget lets go of nothing.
    assert client.budget.spent_usd == cost_usd(price, most_prompt_tokens(question().messages), 16)


def test_a_model_that_knows_only_the_newer_name_of_the_limit_is_asked_again_with_it() -> None:
    def respond(body: Body, number: int) -> Reply:
        text = "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead."
        return Reply(text, status=400) if "max_tokens" in body else Reply("fine", delay_s=0.01)

    with StandIn(respond) as server, Client(declared(server), cache=None, first_backoff_s=0.01) as client:
        assert {answer.text for answer in client.answer([question(f"q{n}") for n in range(12)])} == {"fine"}


# --- faults ---------------------------------------------------------------------------------------------------

PASSING = [
    Reply("slow down", status=429),
    Reply("slow down", status=429, headers={"Retry-After": "0"}),
    Reply("oops", status=500),
    Reply(status=503, raw=b"<html>down</html>", content_type="text/html"),
    Reply("a b c d", reset_after=250),
    Reply("a b c d", ends_early=2),
    Reply(raw=b'data: {"choices": [{"delta": {"cont'),
    Reply(raw=b"\x00\xff\xfe garbage"),
    Reply(raw=b"<!DOCTYPE html><p>Log in to the network</p>", content_type="text/html"),
    Reply(raw=b""),
    Reply(raw=b"[]"),
    Reply(raw=b'data: {"choices": []}\n\ndata: [DONE]\n\n'),
    Reply(raw=b'data: {"choices": [{"delta": {"content": 7}}]}\n\ndata: [DONE]\n\n'),
    Reply(raw=b'data: {"choices": "none"}\n\ndata: [DONE]\n\n'),
    Reply(raw=b'data: {"error": {"message": "engine died"}}\n\n'),
    Reply(raw=b"data: " + b"[" * 200_000 + b"\n\n"),
]
PASSING_WHOLE = [
    Reply(raw=b'{"choices": [{"message": {"cont'),
    Reply(raw=b'{"choices": []}'),
    Reply(raw=b'{"choices": [null]}'),
    Reply(raw=b'{"choices": [{"message": "text"}]}'),
    Reply(raw=b'{"error": "overloaded"}'),
    Reply("a b c d", reset_after=20),
]


@pytest.mark.parametrize("fault", PASSING, ids=range(len(PASSING)))
def test_a_passing_fault_of_a_stream_is_survived(fault: Reply) -> None:
    with StandIn.of(fault, Reply("fine")) as server:
        assert ask(server).text == "fine"
        assert len(server.received) == 2


@pytest.mark.parametrize("fault", PASSING_WHOLE, ids=range(len(PASSING_WHOLE)))
def test_a_passing_fault_of_a_whole_answer_is_survived(fault: Reply) -> None:
    with StandIn.of(fault, Reply("fine")) as server:
        assert ask(server, stream=False).text == "fine"
        assert len(server.received) == 2


@pytest.mark.parametrize("fault", [*PASSING, *PASSING_WHOLE[:1]], ids=range(len(PASSING) + 1))
def test_a_lasting_fault_is_missing_and_never_the_models(fault: Reply) -> None:
    with StandIn.of(fault) as server:
        answer = ask(server)
        assert len(server.received) == 3
    assert (answer.state, answer.text) == ("infra_error", "")
    assert "3 attempts" in answer.error
    assert "\n" not in answer.error
    assert len(answer.error) < 400


@pytest.mark.parametrize("status", [400, 403, 413, 422])
def test_a_request_that_is_refused_is_not_repeated(status: int) -> None:
    with StandIn.of(Reply("context length exceeded", status=status)) as server:
        answer = ask(server)
        assert len(server.received) == 1
    assert answer.state == "infra_error"
    assert f"answered {status} (context length exceeded)" in answer.error


@pytest.mark.parametrize(("status", "cure"), [(401, "check the key in SOME_KEY"), (404, "check base_url and model")])
def test_a_wrong_key_or_address_ends_the_run_with_one_clear_line(
    status: int, cure: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOME_KEY", "sk-secret")
    with StandIn.of(Reply("no\nway", status=status)) as server:
        with pytest.raises(ConfigError, match=cure) as caught:
            Client(declared(server, api_key_variable="SOME_KEY"), cache=None).answer([question()] * 50)
        assert len(server.received) <= 4
    assert "\n" not in str(caught.value)


def test_an_account_without_credit_is_not_asked_again() -> None:
    with StandIn.of(Reply("You exceeded your quota", status=429, code="insufficient_quota")) as server:
        assert "exceeded your quota" in ask(server).error
        assert len(server.received) == 1


def test_a_server_that_drips_for_ever_runs_into_the_timeout() -> None:
    with StandIn.of(Reply("a " * 500, piece_delay_s=0.02)) as server:
        start = time.monotonic()
        answer = ask(server, timeout_s=0.3, max_attempts=2)
    assert answer.state == "infra_error"
    assert "no whole answer within 0.3 s" in answer.error
    assert time.monotonic() - start < 8  # to its end it would be ten seconds, twice


def test_a_silent_server_runs_into_the_timeout_and_a_quick_one_does_not() -> None:
    with StandIn.of(Reply(delay_s=1.0), Reply("fine")) as server:
        assert ask(server, timeout_s=0.2).text == "fine"


@pytest.mark.parametrize("stream", [True, False])
def test_a_huge_answer_is_cut_off_and_not_asked_for_again(stream: bool) -> None:
    with StandIn.of(Reply(raw=b'{"choices": "' + b"x" * 3_000_000)) as server:
        answer = ask(server, stream=stream)
        assert len(server.received) == 1
    assert (answer.state, "far larger" in answer.error) == ("infra_error", True)


def test_a_kept_connection_that_the_server_dropped_is_replaced() -> None:
    with StandIn.of(Reply("fine", drops=True)) as server, Client(declared(server), cache=None) as client:
        for _ in range(5):
            assert client.answer([question()])[0].text == "fine"
            time.sleep(0.02)


def test_nothing_listening_is_missing_and_costs_nothing() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
    client = Client(declared(url, price=Price(prompt_usd=1, completion_usd=1)), cache=None, first_backoff_s=0.01)
    answer = client.answer([question()])[0]
    assert answer.state == "infra_error"
    assert "connection failed (ConnectError)" in answer.error
    assert client.budget.spent_usd == 0


def test_an_endpoint_that_is_gone_is_not_asked_for_every_row() -> None:
    with StandIn.of(Reply("down", status=503)) as server:
        client = Client(declared(server, concurrency=2, max_attempts=2), cache=None, first_backoff_s=0.001)
        answers = client.answer([question(f"q{number}") for number in range(200)])
        assert len(server.received) <= 2 * (2 * 2 + 2)
    assert {answer.state for answer in answers} == {"infra_error"}
    assert "in a row, the rest was not asked" in client.notes[0]


# --- waiting --------------------------------------------------------------------------------------------------


def test_retry_after_in_seconds_is_honoured() -> None:
    with StandIn.of(Reply("later", status=429, headers={"Retry-After": "1"}), Reply("fine")) as server:
        assert ask(server).text == "fine"
        first, second = server.received
    assert second.at - first.at >= 1.0


def test_retry_after_as_a_date_is_honoured() -> None:
    def respond(body: Body, number: int) -> Reply:
        date = email.utils.formatdate(time.time() + 2, usegmt=True)
        return Reply("fine") if number else Reply("later", status=503, headers={"Retry-After": date})

    with StandIn(respond) as server:
        assert ask(server).text == "fine"
        first, second = server.received
    assert second.at - first.at >= 0.9  # a date has whole seconds


def test_a_rate_limit_holds_back_every_worker() -> None:
    def respond(body: Body, number: int) -> Reply:
        return Reply(delay_s=0.01) if number else Reply("later", status=429, headers={"Retry-After": "0.5"})

    with (
        StandIn(respond) as server,
        Client(declared(server, concurrency=2), cache=None, first_backoff_s=0.01) as client,
    ):
        assert {a.state for a in client.answer([question(f"q{n}") for n in range(8)])} == {"scored"}
        pause = [r.at - server.received[0].at for r in server.received]
    assert sum(at < 0.45 for at in pause) <= 3  # the first, and what its neighbour had under way


def test_a_wait_beyond_reason_ends_the_request_instead() -> None:
    with StandIn.of(Reply("tomorrow", status=429, headers={"Retry-After": "86400"})) as server:
        answer = ask(server)
        assert len(server.received) == 1
    assert "asks to wait 86400 s" in answer.error


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "2"}, 2.0),
        ({"retry-after": "0.5"}, 0.5),
        ({"retry-after-ms": "250", "retry-after": "9"}, 0.25),
        ({"retry-after": "Thu, 01 Jan 1970 00:01:40 GMT"}, 90.0),
        ({"retry-after": "Thu, 01 Jan 1970 00:00:05 GMT"}, 0.0),
        ({"retry-after": "-1"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "Thu, 99 Foo 99999 99:99:99 GMT"}, None),
    ],
)
def test_retry_after_is_read_or_ignored(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after_s(headers, now=10.0) == seconds


# --- money ----------------------------------------------------------------------------------------------------

DEAR = Price(prompt_usd=1000, completion_usd=2000)


@pytest.mark.parametrize("concurrency", [1, 8])
def test_the_spend_limit_is_never_exceeded_and_the_rest_is_missing(concurrency: int) -> None:
    usage = (90, 16)  # 0.09 + 0.032 USD; the worst case is 0.125 + 0.032
    with StandIn.of(Reply("word", usage=usage, delay_s=0.01)) as server:
        client = Client(declared(server, price=DEAR, max_spend_usd=1.0, concurrency=concurrency), cache=None)
        answers = client.answer([question(f"question {number:03}") for number in range(60)])
        charged = sum(cost_usd(DEAR, *counts) for counts in server.billed)
    assert charged <= 1.0
    assert charged == pytest.approx(client.budget.spent_usd)
    n_scored = sum(answer.state == "scored" for answer in answers)
    assert n_scored == len(server.billed) == 7  # the eighth could end at 0.854 + 0.157 > 1
    missing = [answer for answer in answers if answer.state == "infra_error"]
    assert len(missing) == 53
    assert all("spend limit of 1 USD reached" in answer.error for answer in missing)
    assert "spend limit of 1 USD reached" in client.notes[0]


def test_answers_lost_on_the_way_count_as_charged() -> None:
    with StandIn.of(Reply("a b c", reset_after=200, usage=(90, 16))) as server:
        client = Client(
            declared(server, price=DEAR, max_spend_usd=0.5, max_attempts=9), cache=None, first_backoff_s=0.01
        )
        answer = client.answer([question()])[0]
        assert len(server.received) == 3
        assert sum(cost_usd(DEAR, *counts) for counts in server.billed) <= 0.5
    assert "spend limit" in answer.error
    assert any("3 answers" in note for note in client.notes)


def test_a_rate_limit_is_not_charged() -> None:
    with StandIn.of(*[Reply("later", status=429)] * 5, Reply("fine")) as server:
        client = Client(
            declared(server, price=DEAR, max_spend_usd=0.2, max_attempts=9), cache=None, first_backoff_s=0.01
        )
        assert client.answer([question()])[0].text == "fine"


def test_a_server_that_charges_too_much_makes_later_requests_hold_more() -> None:
    with StandIn.of(Reply("word", usage=(400, 400))) as server:  # 1.2 USD where at most 0.16 was allowed
        client = Client(declared(server, price=DEAR, max_spend_usd=3.0, concurrency=1), cache=None)
        answers = client.answer([question(f"q{number}") for number in range(9)])
    assert [answer.state for answer in answers].count("scored") == 2
    assert client.budget.spent_usd <= 3.0
    assert any("times the most" in note for note in client.notes)


def test_the_limit_holds_over_several_calls() -> None:
    with StandIn.of(Reply("word", usage=(90, 16))) as server:
        client = Client(declared(server, price=DEAR, max_spend_usd=0.39), cache=None)
        states = [client.time_one(question()).state for _ in range(5)]
    assert states == ["scored", "scored", "infra_error", "infra_error", "infra_error"]


# --- time -----------------------------------------------------------------------------------------------------


def test_time_to_first_token_counts_from_the_first_delta_with_text() -> None:
    reply = Reply(pieces=["", None, "", "first", " second", " third"], piece_delay_s=0.05)
    with StandIn.of(reply) as server, Client(declared(server), cache=None) as client:
        client.time_one(question())
        answer = client.time_one(question())
        assert server.n_connections == 1
    assert answer.ttft_ms is not None
    assert answer.latency_ms is not None
    assert 240 <= answer.ttft_ms <= answer.latency_ms - 90  # five delays before it, three or more after


def test_a_failed_attempt_is_not_part_of_the_latency() -> None:
    with StandIn.of(Reply("later", status=500, delay_s=0.5), Reply("fine")) as server:
        client = Client(declared(server), cache=None, first_backoff_s=0.01)
        answer = client.time_one(question())
    assert answer.latency_ms is not None
    assert answer.latency_ms < 450


def test_answers_under_load_carry_no_times() -> None:
    with StandIn() as server:
        answer = ask(server)
    assert (answer.latency_ms, answer.ttft_ms) == (None, None)


# --- keys -----------------------------------------------------------------------------------------------------


def test_a_missing_key_is_one_clear_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SOME_KEY", raising=False)
    with pytest.raises(ConfigError, match="environment variable SOME_KEY is not set"):
        Client(declared("http://127.0.0.1:9/v1", api_key_variable="SOME_KEY"), cache=None)


def test_a_key_that_no_header_can_carry_is_refused_without_showing_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_KEY", "sk-secret\nX-Evil: 1")
    with pytest.raises(ConfigError, match="SOME_KEY") as caught:
        Client(declared("http://127.0.0.1:9/v1", api_key_variable="SOME_KEY"), cache=None)
    assert "sk-secret" not in str(caught.value)


@pytest.mark.parametrize("status", [200, 400, 401, 429, 500])
def test_the_key_reaches_the_server_and_no_log_or_error(
    status: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    key = "sk-1234567890-secret"
    monkeypatch.setenv("SOME_KEY", key)
    caplog.set_level(logging.DEBUG)
    with StandIn.of(Reply(f"about key {key}: no", status=status)) as server:
        try:
            said = ask(server, api_key_variable="SOME_KEY").error
        except ConfigError as error:
            said = "".join(traceback.format_exception(error))
        assert server.received[0].headers["authorization"] == f"Bearer {key}"
    assert key not in said
    assert caplog.records
    assert not any(key in record.getMessage() for record in caplog.records)


def test_an_endpoint_without_a_key_gets_nothing_that_the_environment_holds_for_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_ADMIN_KEY", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID"):
        monkeypatch.setenv(name, "for-somebody-else")
    with StandIn() as server:
        assert ask(server).state == "scored"
        headers = server.received[0].headers
    assert "authorization" not in headers
    assert "for-somebody-else" not in str(headers)


# --- cache, progress, interruption ----------------------------------------------------------------------------


def test_what_is_cached_is_not_asked_again_and_says_so(tmp_path: Path) -> None:
    requests = [question(f"q{number}") for number in range(5)]
    seen: list[tuple[int, int]] = []
    with StandIn() as server:
        first = Client(declared(server), cache=AnswerCache(tmp_path)).answer(requests[:3])
        second = Client(declared(server), cache=AnswerCache(tmp_path)).answer(
            requests, on_progress=lambda done, cached: seen.append((done, cached))
        )
        assert len(server.received) == 5
    assert [answer.is_cached for answer in second] == [True, True, True, False, False]
    assert [answer._replace(is_cached=True) for answer in first] == second[:3]
    assert seen == [(3, 3), (4, 3), (5, 3)]


def test_cached_answers_cost_nothing_even_above_the_limit(tmp_path: Path) -> None:
    with StandIn() as server:
        Client(declared(server), cache=AnswerCache(tmp_path)).answer([question()])
        poor = Client(declared(server, price=DEAR, max_spend_usd=0.0), cache=AnswerCache(tmp_path))
        assert [answer.state for answer in poor.answer([question(), question("other")])] == ["scored", "infra_error"]


def test_repeats_other_models_and_failures_are_asked_afresh(tmp_path: Path) -> None:
    with StandIn.of(Reply("down", status=503), Reply("fine")) as server:
        cache = AnswerCache(tmp_path)
        assert Client(declared(server, max_attempts=1), cache=cache).answer([question()])[0].state == "infra_error"
        assert not Client(declared(server), cache=cache).answer([question()])[0].is_cached
        assert not Client(declared(server), cache=cache).answer([question(repeat=1)])[0].is_cached
        other = declared(server).model_copy(update={"model": "other"})
        assert not Client(other, cache=cache).answer([question()])[0].is_cached


SCRIPT = textwrap.dedent(
    """
    import sys
    from pathlib import Path
    from pipelines.core.command import run
    from pipelines.core.params import EndpointModel, Price
    from pipelines.llm.answers import AnswerCache, Request
    from pipelines.llm.client import Client
    from pipelines.llm.prompts import Message

    def main():
        endpoint = EndpointModel(source="endpoint", base_url=sys.argv[1], model="m", concurrency=4,
                                 price=Price(prompt_usd=0, completion_usd=0))
        client = Client(endpoint, cache=AnswerCache(Path(sys.argv[2])))
        requests = [Request("id", (Message("user", f"q{n}"),), 16) for n in range(60)]
        answers = client.answer(requests, on_progress=lambda done, cached: print(done, cached, flush=True))
        print("RESULT", [answer.text for answer in answers])

    run(main)
    """
)


def start(server: StandIn, folder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT, server.url, str(folder)],
        cwd=ROOT,
        env=os.environ | {"NO_PROXY": "127.0.0.1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for_progress(process: subprocess.Popen[str], n_done: int) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        if int(line.split()[0]) >= n_done:
            return
    raise AssertionError(process.communicate())


def echo(body: Body, number: int) -> Reply:
    return Reply(body["messages"][0]["content"].upper(), delay_s=0.05)


@pytest.mark.slow
def test_a_killed_run_goes_on_where_it_was(tmp_path: Path) -> None:
    with StandIn(echo) as server:
        for n_done in (7, 19, 33):
            process = start(server, tmp_path)
            wait_for_progress(process, n_done)
            process.send_signal(signal.SIGKILL)
            process.communicate()
        last = start(server, tmp_path)
        out, _ = last.communicate(timeout=60)
        assert len(server.received) <= 60 + 3 * 4  # at most what was under way is asked twice
    assert out.splitlines()[-1] == f"RESULT {[f'Q{number}' for number in range(60)]}"
    assert int(out.splitlines()[0].split()[1]) >= 33


@pytest.mark.parametrize("kind", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_ends_a_run_cleanly_and_keeps_what_was_answered(kind: signal.Signals, tmp_path: Path) -> None:
    with StandIn(echo) as server:
        process = start(server, tmp_path)
        wait_for_progress(process, 8)
        process.send_signal(kind)
        _, errors = process.communicate(timeout=20)
    assert process.returncode == 130
    assert errors.splitlines()[0].startswith("error: interrupted")
    assert "Traceback" not in errors
    assert len([path for path in tmp_path.rglob("*.json") if not path.name.startswith(".")]) >= 8
    assert not list(tmp_path.rglob("*.tmp"))
