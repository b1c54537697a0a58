"""The REST API: what is sent, how long we wait, and what the user reads when it fails."""

from __future__ import annotations

import json
import math
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from pipelines.core.errors import ConfigError, ServiceError
from pipelines.core.github.api import ATTEMPTS, PATIENCE_S, Api, segment
from pipelines.core.github.replies import NotFound, Refused, Unreachable
from tests.standin.github import Call, GitHub

HEAD = "a" * 40
COMMENTS = "/repos/{repository}/issues/3/comments"


@pytest.fixture
def github() -> Iterator[GitHub]:
    with GitHub() as server:
        server.pull(3, head=HEAD)
        yield server


@pytest.fixture
def waits() -> list[float]:
    return []


@pytest.fixture
def api(github: GitHub, waits: list[float]) -> Api:
    return Api("o/r", github.token, base_url=github.url, sleep=waits.append)


class Elsewhere:
    """A plain server that answers everything in one way and remembers the headers it got."""

    def __init__(self, status: int, headers: dict[str, str], body: bytes = b"{}", *, after_s: float = 0) -> None:
        self.seen: list[tuple[str, dict[str, str]]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.rfile.read(int(self.headers.get("Content-Length") or 0))
                outer.seen.append((self.command, {name.lower(): value for name, value in self.headers.items()}))
                time.sleep(after_s)
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            do_POST = do_PATCH = do_PUT = do_DELETE = do_GET

            def log_message(self, *arguments: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.handle_error = lambda *arguments: None  # type: ignore[method-assign]
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"

    def __enter__(self) -> Elsewhere:
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.server.shutdown()
        self.server.server_close()


def test_get_fills_in_the_repository(api: Api) -> None:
    assert api.get("/repos/{repository}/pulls/3")["head"]["sha"] == HEAD


@pytest.mark.parametrize(("count", "requests"), [(0, 1), (1, 1), (100, 1), (101, 2), (205, 3)])
def test_every_page_is_read_a_hundred_at_a_time(github: GitHub, api: Api, count: int, requests: int) -> None:
    for number in range(count):
        github.comment(3, str(number), "dev")
    assert [one["body"] for one in api.pages(COMMENTS)] == [str(number) for number in range(count)]
    assert len(github.calls) == requests


def test_a_list_in_an_object_is_read_over_its_pages(github: GitHub, api: Api) -> None:
    github.runs = [{"id": number, "head_sha": HEAD} for number in range(150)]
    found = list(api.pages("/repos/{repository}/actions/runs", head_sha=HEAD))
    assert [run["id"] for run in found] == list(range(150))


def test_post_patch_put_and_delete_do_what_they_say(github: GitHub, api: Api) -> None:
    made = api.post(COMMENTS, {"body": "é \U0001f600"})
    api.patch(f"/repos/{{repository}}/issues/comments/{made['id']}", {"body": "new"})
    assert github.comments[0]["body"] == "new"
    assert api.delete(f"/repos/{{repository}}/issues/comments/{made['id']}") is None
    assert github.comments == []
    assert api.put("/repos/{repository}/environments/verdict", {"wait_timer": 0})["name"] == "verdict"
    assert github.calls[0].body == {"body": "é \U0001f600"}


def test_an_outage_is_waited_out_with_growing_waits(github: GitHub, api: Api, waits: list[float]) -> None:
    github.fail_next(503, 3)
    github.fail_next(0, 2)
    assert api.get("/repos/{repository}/pulls/3")["number"] == 3
    assert waits == [1, 2, 4, 8, 16]


def test_an_outage_that_lasts_ends_after_bounded_patience(github: GitHub, api: Api, waits: list[float]) -> None:
    github.fail_next(500, math.inf)
    with pytest.raises(Unreachable, match="not able to answer GET /repos/o/r/pulls/3"):
        api.get("/repos/{repository}/pulls/3")
    assert len(github.calls) == ATTEMPTS
    assert sum(waits) <= PATIENCE_S


def test_nobody_there_is_one_line() -> None:
    with Elsewhere(200, {}) as gone:
        url = gone.url
    with pytest.raises(Unreachable, match=r"did not answer GET /x .*refused.*run again later") as caught:
        Api("o/r", "t", base_url=url, sleep=lambda seconds: None).get("/x")
    assert "\n" not in str(caught.value)


def test_a_server_that_never_answers_is_given_up() -> None:
    with Elsewhere(200, {}, after_s=1.5) as slow:
        api = Api("o/r", "t", base_url=slow.url, timeout_s=0.05, sleep=lambda seconds: None)
        with pytest.raises(Unreachable, match="timed out"):
            api.get("/x")
        assert len(slow.seen) == ATTEMPTS
        with pytest.raises(Unreachable, match="timed out"):
            api.post("/x", {})
        assert len(slow.seen) == ATTEMPTS + 1  # it may have been carried out


@pytest.mark.parametrize("method", ["patch", "put", "delete"])
def test_what_does_no_harm_twice_is_sent_again(github: GitHub, api: Api, method: str) -> None:
    comment = github.comment(3, "x", "dev")
    github.fail_next(502, 2)
    if method == "put":
        api.put("/repos/{repository}/environments/x", {})
    elif method == "patch":
        api.patch(f"/repos/{{repository}}/issues/comments/{comment['id']}", {"body": "y"})
    else:
        api.delete(f"/repos/{{repository}}/issues/comments/{comment['id']}")
    assert len(github.calls) == 3


@pytest.mark.parametrize("status", [502, 0])
def test_a_post_that_may_have_arrived_is_not_sent_again(github: GitHub, api: Api, status: int) -> None:
    github.fail_next(status, 1, is_done=True)
    with pytest.raises(Unreachable):
        api.post(COMMENTS, {"body": "x"})
    assert len(github.comments) == 1


@pytest.mark.parametrize("status", [403, 429])
@pytest.mark.parametrize("method", ["get", "post"])
def test_retry_after_is_obeyed_for_every_method(
    github: GitHub, api: Api, waits: list[float], status: int, method: str
) -> None:
    github.fail_next(status, 2, headers={"Retry-After": "17"})
    if method == "get":
        api.get("/repos/{repository}/pulls/3")
    else:
        api.post(COMMENTS, {"body": "x"})
    assert waits == [17, 17]
    assert len(github.calls) == 3


def test_the_reset_of_a_used_up_limit_is_waited_for(github: GitHub, api: Api, waits: list[float]) -> None:
    headers = {"x-ratelimit-remaining": "0", "x-ratelimit-reset": str(int(time.time()) + 90)}
    github.fail_next(403, 1, headers=headers, message="API rate limit exceeded")
    api.get("/repos/{repository}/pulls/3")
    (wait,) = waits
    assert 85 < wait <= 92


def test_a_limit_that_names_no_time_is_a_minute(github: GitHub, api: Api, waits: list[float]) -> None:
    github.fail_next(403, 1, message="You have exceeded a secondary rate limit")
    api.get("/repos/{repository}/pulls/3")
    assert waits == [60]


def test_a_limit_beyond_our_patience_says_until_when(github: GitHub, api: Api, waits: list[float]) -> None:
    headers = {"x-ratelimit-remaining": "0", "x-ratelimit-reset": str(int(time.time()) + 3000)}
    github.fail_next(403, 1, headers=headers, message="API rate limit exceeded")
    with pytest.raises(Unreachable, match=r"used up until \d\d:\d\d UTC"):
        api.get("/repos/{repository}/pulls/3")
    assert waits == []


@pytest.mark.parametrize("value", ["-5", "soon", "Wed, 21 Oct 2026 07:28:00 GMT", "9" * 30, "²"])
def test_a_retry_after_that_is_no_number_is_a_minute(github: GitHub, api: Api, waits: list[float], value: str) -> None:
    if value == "²":  # headers are latin-1
        value = "\xb2"
    github.fail_next(429, 1, headers={"Retry-After": value})
    api.get("/repos/{repository}/pulls/3")
    assert waits == [60]


@pytest.mark.parametrize(
    ("status", "kind", "message"),
    [
        (401, Refused, r"refuses GET .* \(401: no luck\); the token is wrong or has expired"),
        (403, Refused, r"\(403: no luck\); give the job or the App the permission it lacks"),
        (404, NotFound, "knows nothing at GET /repos/o/r/pulls/3"),
        (409, Refused, r"\(409: no luck\)"),
        (410, Refused, r"\(410: no luck\)"),
        (422, Refused, r"\(422: no luck\); correct what is sent"),
        (451, Refused, r"\(451: no luck\)"),
    ],
)
def test_a_refusal_is_final_and_one_line(
    github: GitHub, api: Api, status: int, kind: type[ServiceError], message: str
) -> None:
    github.fail_next(status)
    with pytest.raises(kind, match=message) as caught:
        api.get("/repos/{repository}/pulls/3")
    assert len(github.calls) == 1
    assert caught.value.exit_code == 5
    assert getattr(caught.value, "status", 404) == status


def test_what_github_lists_as_errors_is_in_the_message(api: Api) -> None:
    with pytest.raises(Refused, match="Validation Failed: body is too long"):
        api.post(COMMENTS, {"body": "x" * 65_537})


@pytest.mark.parametrize(
    "body",
    [b"<html>proxy", b"[]", b'"x"', b'{"message": 5, "errors": [1, null, {"code": "odd"}]}', b"\xff", b"[" * 100_000,
     b'{"message": "a\\n::error::b\\u001b[2J"}'],
)  # fmt: skip
def test_an_odd_error_body_is_still_one_line(body: bytes) -> None:
    with Elsewhere(422, {}, body) as odd, pytest.raises(Refused) as caught:
        Api("o/r", "t", base_url=odd.url).get("/x")
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("body", [b"<html>log in here</html>", b"\xff", b"[" * 100_000])
def test_an_answer_that_is_not_json_is_one_line(body: bytes) -> None:
    with Elsewhere(200, {}, body) as odd, pytest.raises(Unreachable, match="not JSON"):
        Api("o/r", "t", base_url=odd.url).get("/x")


def test_an_answer_that_is_cut_off_is_asked_for_again() -> None:
    with Elsewhere(200, {"Content-Length": "99"}, b'{"a":') as odd, pytest.raises(Unreachable, match="IncompleteRead"):
        Api("o/r", "t", base_url=odd.url, sleep=lambda seconds: None).get("/x")
    assert len(odd.seen) == ATTEMPTS


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_to_another_host_goes_without_the_token(status: int) -> None:
    with Elsewhere(200, {}, b'{"from": "store"}') as store, Elsewhere(status, {"Location": f"{store.url}/x"}) as home:
        assert Api("o/r", "secret", base_url=home.url).get("/x") == {"from": "store"}
    assert home.seen[0][1]["authorization"] == "Bearer secret"
    assert "authorization" not in store.seen[0][1]


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_nothing_is_written_to_another_host(status: int) -> None:
    with Elsewhere(200, {}) as store, Elsewhere(status, {"Location": f"{store.url}/x"}) as home:
        with pytest.raises(Unreachable, match=f"elsewhere \\({status}\\)"):
            Api("o/r", "secret", base_url=home.url).post("/x", {"body": "private"})
        assert store.seen == []


@pytest.mark.parametrize("target", ["file:///etc/passwd", "ftp://127.0.0.1/x", "https://127.0.0.1:1/x"])
def test_a_redirect_to_another_scheme_is_not_followed(target: str) -> None:
    with Elsewhere(302, {"Location": target}) as home, pytest.raises(Unreachable, match="elsewhere"):
        Api("o/r", "secret", base_url=home.url).get("/x")


def test_redirects_without_end_end() -> None:
    with Elsewhere(302, {"Location": "/x"}) as home, pytest.raises(Unreachable, match="elsewhere"):
        Api("o/r", "secret", base_url=home.url).get("/x")
    assert len(home.seen) == 3


def test_a_renamed_repository_is_followed_with_the_token_and_the_body(github: GitHub) -> None:
    renamed = "/repos/o/r/issues/3/comments"
    github.answers["POST /repos/o/old/issues/3/comments"] = [307, {}, {"Location": f"{github.url}{renamed}"}]
    Api("o/old", github.token, base_url=github.url).post(COMMENTS, {"body": "x"})
    assert [one["body"] for one in github.comments] == ["x"]


def test_a_next_page_on_another_host_is_not_asked() -> None:
    with Elsewhere(200, {}, b"[]") as other:
        link = {"Link": f'<{other.url}/x?page=2>; rel="next"'}
        with Elsewhere(200, link, b"[1]") as home, pytest.raises(Unreachable, match="another host"):
            list(Api("o/r", "secret", base_url=home.url).pages("/x"))
        assert other.seen == []


@pytest.mark.parametrize("body", [b'{"a": 1}', b"null", b'"x"', b"3"])
def test_a_page_that_is_no_list_is_said(body: bytes) -> None:
    with Elsewhere(200, {}, body) as home, pytest.raises(Unreachable, match="is no list"):
        list(Api("o/r", "t", base_url=home.url).pages("/x"))


@pytest.mark.parametrize(
    "path",
    [
        "repos",
        "/a b",
        "/a?x=1",
        "/a#b",
        "/../user",
        "/repos/{repository}/../../user",
        "/a\n",
        "/a\r\nX: y",
        "//é",
        "/..",
    ],
)
def test_a_path_that_leads_elsewhere_is_refused(api: Api, path: str) -> None:
    with pytest.raises(ConfigError, match="no path of GitHub's API"):
        api.get(path)


@pytest.mark.parametrize("name", ["../../user", "..", ".", "a/b", "a b", "é", "a?b#c", "a\r\nb", "\ud800"])
def test_a_quoted_name_stays_one_part_of_a_path(github: GitHub, api: Api, name: str) -> None:
    with pytest.raises(NotFound):
        api.get(f"/repos/{{repository}}/labels/{segment(name)}")
    path = github.calls[0].path
    assert path.count("/") == 5
    assert path.startswith("/repos/o/r/labels/")


@pytest.mark.parametrize(("repository"), ["", "r", "o/r/x", "o r/x", "../x/y", "o/r?x", "o/\n"])
def test_a_repository_is_owner_and_name(repository: str) -> None:
    with pytest.raises(ConfigError, match="not of the form owner/name"):
        Api(repository, "t")


@pytest.mark.parametrize("token", ["", "  ", "a b", "a\nb", "é", "a\0"])
def test_a_token_that_can_be_none_is_refused_unseen(token: str) -> None:
    with pytest.raises(ConfigError, match=r"GH_TOKEN: is empty or holds characters that no token has") as caught:
        Api("o/r", token)
    assert len(token.strip()) < 3 or token not in str(caught.value)


def test_a_line_end_after_the_token_does_no_harm(github: GitHub) -> None:
    assert Api("o/r", f"{github.token}\n", base_url=github.url).get("/repos/{repository}/pulls/3")["number"] == 3


@pytest.mark.parametrize("url", ["http://example.test", "ftp://x", "x", "https://", "http://127.0.0.1.evil.test"])
def test_the_token_goes_to_https_alone(url: str) -> None:
    with pytest.raises(ConfigError, match="no https:// URL"):
        Api("o/r", "t", base_url=url)


def test_the_token_is_in_no_message(github: GitHub, caplog: pytest.LogCaptureFixture) -> None:
    api = Api("o/r", "very-secret", base_url=github.url, sleep=lambda seconds: None)
    github.fail_next(503, 1)
    with pytest.raises(Refused) as caught:
        api.get("/user")
    assert "503" in caplog.text
    assert "very-secret" not in caplog.text + str(caught.value) + repr(api)


def test_the_environment_says_where_and_who(github: GitHub, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in github.environment.items():
        monkeypatch.setenv(name, value)
    assert Api.from_environment().get("/repos/{repository}/pulls/3")["number"] == 3
    monkeypatch.setenv("GITHUB_TOKEN", github.token)
    monkeypatch.setenv("GH_TOKEN", "")
    assert Api.from_environment().get("/repos/{repository}/pulls/3")["number"] == 3
    monkeypatch.delenv("GITHUB_TOKEN")
    with pytest.raises(ConfigError, match="GH_TOKEN: is not set"):
        Api.from_environment()


@pytest.mark.parametrize("prefix", ["", "/api/v3"])
def test_whose_token_it_is(github: GitHub, prefix: str) -> None:
    assert Api("o/r", github.token, base_url=f"{github.url}{prefix}").login() == "github-actions[bot]"


@pytest.mark.parametrize("body", [b'{"errors": [{"message": "no"}]}', b'{"data": null}', b"[]", b"null"])
def test_a_token_of_nobody_is_said(body: bytes) -> None:
    with Elsewhere(200, {}, body) as odd, pytest.raises(Unreachable, match="does not say whose token"):
        Api("o/r", "t", base_url=odd.url).login()


def test_many_threads_may_share_one_api(github: GitHub, api: Api) -> None:
    threads = [threading.Thread(target=api.post, args=(COMMENTS, {"body": str(number)})) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(int(one["body"]) for one in github.comments) == list(range(20))


def test_calls_are_recorded_as_they_were_sent(github: GitHub, api: Api) -> None:
    api.get("/repos/{repository}/pulls", state="all", head="o:a b")
    assert github.calls == [
        Call("GET", "/repos/o/r/pulls", {"state": "all", "head": "o:a b"}, None, "github-actions[bot]", 200)
    ]
    assert json.dumps(github.dump())
