"""What goes wrong with upstreams and clients: answered clearly, booked once, nothing leaked. Real processes only."""

from __future__ import annotations

import contextlib
import json
import resource
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipelines.serving.replies import LOST_TOKENS
from tests.serving.gateway import KEY, Running, declared, upstream
from tests.serving.raw import BODY, answer, connect, get, head, post, until
from tests.serving.upstreams import Upstreams

LIMITS = {
    "max_body_bytes": 1_000_000,
    "read_timeout_s": 1.0,
    "header_timeout_s": 1.0,
    "write_timeout_s": 1.0,
    "max_header_bytes": 8192,
}
STREAM = BODY | {"stream": True}
RARE = {"failures": 1000}


@pytest.fixture(scope="module")
def gateway(upstreams: Upstreams, second: Upstreams, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    patience = {"first_byte_timeout_s": 1.0, "idle_timeout_s": 1.0, "timeout_s": 5.0, "breaker": RARE}
    ones = {
        "one": upstream(upstreams.url, retries={"attempts": 3, "backoff_s": 0.01}, **patience),
        "two": upstream(second.url, "large", **patience),
        "small": upstream(upstreams.url, "bounded", max_answer_bytes=2000, **patience),
        "shaky": upstream(upstreams.url, "shaky", breaker={"failures": 3, "open_s": 1.0}, retries={"attempts": 1}),
    }
    routes = {
        "desk": {"tiers": [{"upstream": "one"}]},
        "safe": {"tiers": [{"upstream": "one"}], "fallbacks": ["two"]},
        "bounded": {"tiers": [{"upstream": "small"}]},
        "shaky": {"tiers": [{"upstream": "shaky"}]},
    }
    running = Running(tmp_path_factory.mktemp("root"), declared(ones, routes, limits=LIMITS))
    yield running
    assert running.stop() == 0
    assert not [line for line in running.lines if not isinstance(line, dict)], (
        "something was printed that is no log line"
    )
    assert not [line for line in running.lines if line["event"] == "bug"]


def ask(gateway: Running, body: dict[str, Any] = BODY) -> tuple[int, Any, dict[str, Any]]:
    """Ask once; return status, body and the log line of exactly this request."""
    n_before = sum(line["event"] == "request" for line in gateway.lines if isinstance(line, dict))
    answered = post(gateway.port, body)
    return answered.status, answered.body, gateway.requests(n_before + 1)[n_before]


# --- upstreams


@pytest.mark.parametrize(
    ("reply", "status", "code"),
    [
        ({"raw": "<html>garbage</html>"}, 502, "upstream_garbage"),
        ({"raw": '{"choices": [{"mess'}, 502, "upstream_garbage"),
        ({"raw": '{"choices": []}'}, 502, "upstream_garbage"),
        ({"raw": '{"choices": [{"message": "text"}]}'}, 502, "upstream_garbage"),
        ({"raw": "\xff\xfe"}, 502, "upstream_garbage"),
        ({"status": 500, "text": "boom"}, 502, "upstream_error"),
        ({"status": 401, "text": "bad key sk-123"}, 502, "upstream_error"),
        ({"reset_after": 0}, 502, "upstream_broke_off"),
        ({"hangs": True}, 504, "upstream_timeout"),
    ],
)
def test_an_upstream_that_fails_is_a_clear_error(
    gateway: Running, upstreams: Upstreams, reply: dict[str, Any], status: int, code: str
) -> None:
    upstreams.script(reply)
    got, body, line = ask(gateway)
    error = json.loads(body)["error"]
    assert (got, error["code"], error["type"]) == (status, code, "api_error")
    assert "sk-123" not in error["message"]
    assert (line["status"], line["error"], line["attempts"]) == (status, code, 1)


def test_what_a_lost_answer_may_have_cost_is_booked(gateway: Running, upstreams: Upstreams) -> None:
    upstreams.script({"reset_after": 0})
    assert ask(gateway)[2]["usd"] > 0
    upstreams.script({"status": 500})
    assert ask(gateway)[2]["usd"] == 0


def test_an_answer_without_counts_is_never_free(gateway: Running, upstreams: Upstreams) -> None:
    upstreams.script({"usage": False}, {"usage": False, "pieces": ["a", "b", "c"]})
    assert ask(gateway)[2]["usd"] > 0
    line = ask(gateway, STREAM)[2]
    assert line["completion_tokens"] == 3
    assert line["usd"] > 0


WORDS = "word " * 500


def test_counts_of_nothing_beside_a_text_are_no_counts(gateway: Running, upstreams: Upstreams) -> None:
    for body in (BODY, STREAM):
        for counts in ((0, 0), (10, 0), (0, 5)):
            upstreams.script({"text": WORDS, "counts": counts})
            line = ask(gateway, body)[2]
            assert line["completion_tokens"] >= 500
            assert line["usd"] > 500 * 2e-6
    message = {"message": {"content": None, "reasoning_content": WORDS}, "finish_reason": "stop"}
    upstreams.script({"raw": json.dumps({"choices": [message], "usage": {"prompt_tokens": 10}})})
    assert ask(gateway)[2]["completion_tokens"] >= 500


def test_an_empty_answer_of_0_tokens_is_counted_as_the_upstream_says(gateway: Running, upstreams: Upstreams) -> None:
    for body in (BODY, STREAM):
        upstreams.script({"text": "", "counts": (10, 0)})
        line = ask(gateway, body)[2]
        assert (line["completion_tokens"], line["usd"]) == (0, pytest.approx(10e-6))


def test_a_stream_that_ends_early_costs_its_words_not_its_events(gateway: Running, upstreams: Upstreams) -> None:
    upstreams.script({"pieces": [WORDS] * 4, "piece_delay_s": 0.03, "reset_after": 2})
    assert ask(gateway, STREAM)[2]["completion_tokens"] >= 1000


def test_an_answer_that_is_lost_costs_what_it_might_have_said(gateway: Running, upstreams: Upstreams) -> None:
    for reply in ({"hangs": True}, {"reset_after": 0}, {"raw": "garbage"}):
        upstreams.script(reply)
        line = ask(gateway, BODY | {"max_tokens": 70, "n": 2})[2]
        assert (line["completion_tokens"], line["usd"] > 140 * 2e-6) == (140, True)
    upstreams.script({"reset_after": 0})
    assert ask(gateway, BODY | {"max_tokens": None})[2]["completion_tokens"] == LOST_TOKENS


@pytest.mark.parametrize("status", [429, 502, 503])
def test_what_was_not_done_is_asked_again(gateway: Running, upstreams: Upstreams, status: int) -> None:
    upstreams.script({"status": status, "times": 2})
    got, _, line = ask(gateway)
    assert (got, line["attempts"], line["usd"]) == (200, 3, pytest.approx(10e-6 + 2 * 5e-6))


def test_an_upstream_that_stays_busy_is_a_429_with_its_own_retry_after(gateway: Running, upstreams: Upstreams) -> None:
    upstreams.script({"status": 429, "headers": {"Retry-After": "7"}})
    answered = post(gateway.port, BODY)
    assert answered.status == 429
    assert answered.headers["retry-after"] == "7"
    assert answered.json()["error"]["type"] == "rate_limit_error"


def test_a_fallback_answers_for_one_that_failed_and_both_are_booked_in_one_row(
    gateway: Running, upstreams: Upstreams, second: Upstreams
) -> None:
    for reply in ({"status": 500}, {"raw": "garbage"}, {"reset_after": 0}):
        upstreams.script(reply)
        second.script({"text": "from the second"})
        status, body, line = ask(gateway, BODY | {"model": "safe"})
        assert (status, line["upstream"], line["attempts"]) == (200, "two", 2)
        assert b"from the second" in body


def test_a_stream_that_never_began_is_taken_over_by_the_fallback(
    gateway: Running, upstreams: Upstreams, second: Upstreams
) -> None:
    torn = 'data: {"choices": [{"index": 0, "delta": {"content": "a"}}]}\n\ndata: what is no JSON\n\n'
    for reply in (
        {"reset_after": 0}, {"ends_early": 0}, {"status": 503, "times": 3}, {"raw": "garbage"}, {"raw": torn},
    ):  # fmt: skip
        upstreams.script(reply)
        second.script({"text": "from the second"})
        status, body, line = ask(gateway, STREAM | {"model": "safe"})
        assert (status, line["upstream"]) == (200, "two")
        assert body.endswith(b"data: [DONE]\n\n")


@pytest.mark.parametrize("reply", [{"reset_after": 2}, {"ends_early": 2}])
def test_a_stream_that_breaks_off_says_so_and_costs_what_came(
    gateway: Running, upstreams: Upstreams, reply: dict[str, Any]
) -> None:
    upstreams.script({"pieces": ["a ", "b ", "c ", "d"], "piece_delay_s": 0.03, **reply})
    status, body, line = ask(gateway, STREAM | {"model": "safe"})
    assert status == 200  # it was sent before anybody could know
    assert b"data: [DONE]" not in body
    assert json.loads(body.split(b"data: ")[-1])["error"]["code"] == "upstream_broke_off"
    assert (line["status"], line["completion_tokens"], line["attempts"]) == (502, 2, 1)


def test_a_stream_without_done_is_whole_if_the_model_finished(gateway: Running, upstreams: Upstreams) -> None:
    upstreams.script({"has_done": False})
    status, body, line = ask(gateway, STREAM)
    assert (status, line["status"]) == (200, 200)
    assert body.endswith(b"data: [DONE]\n\n")


def test_a_stream_that_stalls_ends(gateway: Running, upstreams: Upstreams) -> None:
    upstreams.script({"pieces": ["a", "b", "c"], "piece_delay_s": 1.5})
    started = time.monotonic()
    _, body, line = ask(gateway, STREAM)
    assert b"upstream_timeout" in body
    assert line["status"] == 504
    assert time.monotonic() - started < 4


def test_an_answer_without_end_is_cut(gateway: Running, upstreams: Upstreams) -> None:
    upstreams.script({"text": "x" * 5000})
    assert ask(gateway, BODY | {"model": "bounded"})[:1] == (502,)


def test_an_upstream_killed_before_in_and_after_a_stream(gateway: Running, upstreams: Upstreams) -> None:
    upstreams.script({"pieces": ["a ", "b ", "c ", "d"], "dies": True, "piece_delay_s": 0.05})
    _, body, line = ask(gateway, STREAM)
    assert b"upstream_broke_off" in body
    assert (line["status"], line["completion_tokens"]) == (502, 2)
    upstreams.process.wait()
    status, body, line = ask(gateway, STREAM)
    assert (status, json.loads(body)["error"]["code"]) == (502, "upstream_unreachable")
    assert (line["attempts"], line["usd"]) == (3, 0)
    upstreams.start()
    assert ask(gateway, STREAM)[0] == 200
    upstreams.kill()
    upstreams.start()  # a kept connection has died meanwhile
    assert ask(gateway)[0] == 200


def test_a_breaker_opens_and_tries_again(gateway: Running, upstreams: Upstreams) -> None:
    body = BODY | {"model": "shaky"}
    upstreams.script({"status": 500, "times": 3})
    assert [ask(gateway, body)[0] for _ in range(3)] == [502] * 3
    n_asked = upstreams.seen()["n_asked"]
    answered = post(gateway.port, body)
    assert (answered.status, answered.json()["error"]["code"]) == (503, "upstream_unavailable")
    assert answered.headers["retry-after"] == "1"
    assert upstreams.seen()["n_asked"] == n_asked
    time.sleep(1.1)
    assert ask(gateway, body)[0] == 200


# --- clients


def test_a_client_that_leaves_cancels_the_upstream_and_is_booked_once(gateway: Running, upstreams: Upstreams) -> None:
    for body, n_tokens in ((BODY, LOST_TOKENS), (STREAM, 2)):
        before = upstreams.seen()
        upstreams.script({"delay_s": 3} if body is BODY else {"pieces": list("ab") + ["c"] * 50, "piece_delay_s": 0.2})
        n_lines = sum(line["event"] == "request" for line in gateway.lines)
        content = json.dumps(body).encode()
        with connect(gateway.port) as sock:
            sock.sendall(head(len(content)) + content)
            until(lambda n=before["n_asked"]: upstreams.seen()["n_asked"] > n)
            time.sleep(0.55 if body is STREAM else 0.05)
        until(lambda n=before["n_left"]: upstreams.seen()["n_left"] > n, 2.0)
        line = gateway.requests(n_lines + 1)[n_lines]
        assert (line["status"], line["error"]) == (499, "client_gone")
        assert line["usd"] > 0
        assert line["completion_tokens"] >= n_tokens
        assert upstreams.seen()["n_open"] == 0
    upstreams.script()


def test_a_body_of_100_mb_is_refused_and_never_held(gateway: Running) -> None:
    before = memory(gateway)
    answered = post(gateway.port, b"x" * 100_000_000)
    assert (answered.status, answered.json()["error"]["code"]) == (413, "request_too_large")
    assert memory(gateway) - before < 20_000_000


def test_a_large_body_without_a_length_is_refused_too(gateway: Running) -> None:
    with connect(gateway.port) as sock:
        line = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\n"
        sock.sendall(line.encode() + b"Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n")
        for _ in range(40):
            sock.sendall(b"10000\r\n" + b"x" * 65_536 + b"\r\n")
        sock.sendall(b"0\r\n\r\n")
        assert answer(sock).status == 413


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b'{"model": "desk", "messages": [{"role": "user", "content": "\xff\xfe"}]}', "invalid_utf8"),
        (b'{"model": "desk", "messages": [', "invalid_json"),
        (b'{"model": "desk", "messages": NaN}', "invalid_json"),
        (b'{"model": "desk", "messages": [{"role": "user", "content": "\\ud800"}]}', "invalid_json"),
        (b"[" * 100_000, "invalid_json"),
        (
            b'{"model": "desk", "messages": [{"role": "user", "content": ' + b"[" * 300 + b"]" * 300 + b"}]}",
            "invalid_json",
        ),
        (b"[]", "invalid_json"),
        (b"", "invalid_json"),
        (b'{"model": 7, "messages": [{}]}', "invalid_value"),
        (b'{"model": "desk", "messages": "hello"}', "invalid_value"),
        (b'{"model": "desk"}', "missing_required_parameter"),
        (b'{"model": "desk", "messages": [{}], "user": {}}', "invalid_value"),
    ],
)
def test_a_body_that_is_wrong_in_itself_costs_nothing(
    gateway: Running, upstreams: Upstreams, body: bytes, code: str
) -> None:
    n_asked = upstreams.seen()["n_asked"]
    answered = post(gateway.port, body)
    assert (answered.status, answered.json()["error"]["code"]) == (400, code)
    assert answered.json()["error"]["type"] == "invalid_request_error"
    assert upstreams.seen()["n_asked"] == n_asked


@pytest.mark.parametrize("key", ["", "gh-nobody", KEY[:-1], KEY + "x", "x" * 5000])
def test_an_unknown_key_is_told_nothing(gateway: Running, key: str) -> None:
    answered = post(gateway.port, BODY, key=key)
    assert answered.status == 401
    assert answered.json()["error"]["code"] == "invalid_api_key"
    assert not key or key not in answered.body.decode()


def test_a_client_that_sends_a_byte_a_second_is_sent_away(gateway: Running) -> None:
    for start, status in ((b"POST /v1/chat/completions HTTP/1.1\r\nHo", 408), (head(100) + b'{"mod', 408)):
        with connect(gateway.port) as sock:
            sock.sendall(start)
            started = time.monotonic()
            assert answer(sock).status == status
            assert 0.5 < time.monotonic() - started < 3


def test_a_stranger_who_goes_on_sending_after_the_refusal_is_sent_away(gateway: Running) -> None:
    with connect(gateway.port, 5.0) as sock:
        sock.sendall(head(1000, key="gh-nobody") + b"{")
        started = time.monotonic()
        assert answer(sock).status == 401
        assert time.monotonic() - started < 3


def test_a_connection_that_says_nothing_is_closed(gateway: Running) -> None:
    with connect(gateway.port, 5.0) as sock:
        assert answer(sock).status == 408


def test_headers_without_end_are_refused(gateway: Running) -> None:
    with connect(gateway.port) as sock:
        sock.sendall(b"GET /healthz HTTP/1.1\r\nX-Long: " + b"x" * 20_000)
        assert answer(sock).status == 431


def test_what_is_no_http_is_refused_in_the_same_format(gateway: Running) -> None:
    with connect(gateway.port) as sock:
        sock.sendall(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n")
        answered = answer(sock)
    assert (answered.status, answered.json()["error"]["code"]) == (400, "invalid_http")


def test_a_client_that_does_not_read_does_not_hold_the_upstream(gateway: Running, upstreams: Upstreams) -> None:
    n_lines = sum(line["event"] == "request" for line in gateway.lines)
    upstreams.script({"pieces": ["x" * 60_000] * 400})
    content = json.dumps(STREAM).encode()
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.connect(("127.0.0.1", gateway.port))
        sock.sendall(head(len(content)) + content)
        line = gateway.requests(n_lines + 1)[n_lines]
        assert (line["status"], line["error"]) == (499, "client_gone")
        until(lambda: upstreams.seen()["n_open"] == 0)


def test_2000_slow_clients_do_not_keep_a_quick_one_waiting(upstreams: Upstreams, tmp_path: Path) -> None:
    upstreams.script()
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    patient = Running(tmp_path, declared({"one": upstream(upstreams.url)}, {"desk": {"tiers": [{"upstream": "one"}]}}))
    slow = []
    try:
        for _ in range(2000):
            sock = connect(patient.port)
            sock.sendall(head(1000) + b"{")
            slow.append(sock)
        started = time.monotonic()
        assert post(patient.port, BODY).status == 200
        assert time.monotonic() - started < 20.0  # without being kept waiting by them: they take minutes
    finally:
        patient.process.kill()
        for sock in slow:
            sock.close()


def test_no_log_line_holds_content_or_a_key(gateway: Running, upstreams: Upstreams) -> None:
    upstreams.script({"text": "the secret answer"})
    body = BODY | {"user": "someone@example.org", "messages": [{"role": "user", "content": "my secret question"}]}
    ask(gateway, body)
    text = json.dumps(gateway.lines)
    for secret in ("secret question", "secret answer", KEY, "someone@example.org"):
        assert secret not in text


def test_health_and_readiness_need_no_key(gateway: Running) -> None:
    assert get(gateway.port, "/healthz").json() == {"status": "ok"}
    assert get(gateway.port, "/readyz").status == 200
    assert get(gateway.port, "/metrics").status == 404  # on the private port only
    with connect(gateway.port) as sock:
        sock.sendall(b"HEAD /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert answer(sock)[::2] == (200, b"")


def test_the_private_port_holds_what_is_not_for_users(gateway: Running) -> None:
    port = int(gateway.private_url.rpartition(":")[2])
    assert get(port, "/metrics").headers["content-type"].startswith("text/plain; version=0.0.4")
    assert get(port, "/readyz").status == 200
    assert get(port, "/v1/verdict").status == 404  # no release is declared
    assert post(port, BODY).status == 404


def test_one_connection_serves_many_requests_and_two_at_once_in_their_order(
    gateway: Running, upstreams: Upstreams
) -> None:
    upstreams.script({"text": None, "times": 9})
    with connect(gateway.port) as sock:
        for number in range(4):
            content = json.dumps(BODY | {"messages": [{"role": "user", "content": f"<{number}>"}]}).encode()
            sock.sendall(head(len(content), more="Connection: close\r\n" if number == 3 else "") + content)
        data = answer(sock).body
    assert [data.index(f"<{number}>".encode()) for number in range(4)] == sorted(
        data.index(f"<{number}>".encode()) for number in range(4)
    )
    upstreams.script()


@pytest.mark.parametrize("key", ["", KEY])
@pytest.mark.parametrize("blob", [b"a:b\r\n" * 13_000, b"a:" + b"b" * 65_000])
def test_trailers_without_end_are_refused_and_never_held(gateway: Running, key: str, blob: bytes) -> None:
    start = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\n"
    before = memory(gateway)
    socks = [connect(gateway.port) for _ in range(8)]
    for sock in socks:
        with contextlib.suppress(OSError):
            sock.sendall(start.encode() + b"Transfer-Encoding: chunked\r\n\r\n0\r\n")
            for _ in range(20):
                sock.sendall(blob)
    time.sleep(0.3)
    assert memory(gateway) - before < 24 * 2**20
    for sock in socks:
        status = 0
        with sock, contextlib.suppress(OSError):  # it is reset while it still writes
            status = answer(sock).status
        assert status in (0, 431 if key else 401)


def test_a_chunked_body_with_trailers_is_answered(gateway: Running, upstreams: Upstreams) -> None:
    upstreams.script()
    content = json.dumps(BODY).encode()
    pieces = b"".join(b"1\r\n%c\r\n" % byte for byte in content)
    with connect(gateway.port) as sock:
        start = head(0, more="Transfer-Encoding: chunked\r\nConnection: close\r\n").replace(
            b"Content-Length: 0\r\n", b""
        )
        sock.sendall(start + pieces + b"0\r\nAuthorization: Bearer gh-nobody\r\nX-Sum: 1\r\n\r\n")
        assert answer(sock).status == 200


@pytest.mark.parametrize("is_chunked", [False, True])
def test_a_client_that_offers_another_protocol_is_answered_in_this_one(
    gateway: Running, upstreams: Upstreams, is_chunked: bool
) -> None:
    upstreams.script({"text": "in the old way", "times": 2})
    content = json.dumps(BODY).encode()
    offer = "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA\r\n"
    start = head(len(content), more=offer)
    if is_chunked:
        start = start.replace(b"Content-Length: %d" % len(content), b"Transfer-Encoding: chunked")
        content = b"%x\r\n%b\r\n0\r\n\r\n" % (len(content), content)
    with connect(gateway.port) as sock:
        sock.sendall(start)
        time.sleep(0.1)
        sock.sendall(content + start.replace(b"Upgrade, ", b"close, Upgrade, ") + content)
        answered = answer(sock)
    assert answered.status == 200
    assert answered.body.count(b"in the old way") == 2


def test_a_tunnel_is_refused(gateway: Running) -> None:
    with connect(gateway.port) as sock:
        sock.sendall(b"CONNECT example.org:443 HTTP/1.1\r\nHost: example.org:443\r\n\r\n")
        assert answer(sock).status == 400


def memory(gateway: Running) -> int:
    import psutil

    return int(psutil.Process(gateway.process.pid).memory_info().rss)
