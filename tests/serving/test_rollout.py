"""A rollout in the gateway: who gets the candidate, and what of each way a request can end is held against it."""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from pipelines.core.split import Split, write
from pipelines.release.counters import EVENTS
from pipelines.serving import follower
from pipelines.serving.app import Gateway
from pipelines.serving.cache import AnswerCaches
from pipelines.serving.config import Serving
from pipelines.serving.flights import SharedFlights
from pipelines.serving.follower import Follower
from pipelines.serving.guardrails import RouteGuards
from pipelines.serving.protocol import Line
from pipelines.serving.split_sources import SplitFile
from pipelines.serving.splitting import Splitting
from tests.serving import inside
from tests.serving.gateway import Declared, Running, declared, upstream
from tests.serving.raw import BODY, Answered, connect, get, head, post, until
from tests.serving.upstreams import Upstreams

FILE = "split.json"
QUICK = {"retries": {"attempts": 2, "backoff_s": 0.001}, "breaker": {"failures": 1000}, "first_byte_timeout_s": 0.3}
ROUTE = {
    "variants": {"stable": {"upstream": "old", "weight": 0}, "candidate": {"upstream": "new", "weight": 1}},
    "salt": "s",
}


def serving(old: Upstreams, new: Upstreams, route: Declared | None = None, **more: Any) -> Declared:
    upstreams = {
        "old": upstream(old.url, "large", **QUICK),
        "new": upstream(new.url, "small", **QUICK | more.pop("of_new", {})),
    }
    more = {"metrics": {"latency_bounds_s": [0.2, 60], "ttft_bounds_s": [0.2, 60]}} | more
    return declared(upstreams, {"desk": {**ROUTE, **(route or {})}}, rollout={"weights": {"file": FILE}}, **more)


def split(weight: float, stage: str = "canary-1", **more: Any) -> Split:
    return Split(rollout="v1.0.0-a.1", stage=stage, weight=weight, **more)


class Inside:
    """A gateway in this process whose candidate gets all, and what it counted."""

    def __init__(self, folder: Path, file: Declared, weight: float = 100.0) -> None:
        parsed = Serving.model_validate_json(json.dumps(file))
        self.splitting = Splitting()
        self.splitting.declare(parsed)
        self.splitting.apply(split(weight))
        parts: dict[str, Any] = {"splitting": self.splitting, "guards": RouteGuards(parsed, folder)}
        if parsed.caches.exact is not None:
            parts |= {"caches": AnswerCaches(parsed, None, None), "flights": SharedFlights()}
        self.gateway: Gateway = inside.make(folder, file, **parts)[0]
        self.runner = asyncio.Runner()

    def counted(self, side: str = "candidate") -> dict[str, Any]:
        (epoch,) = self.splitting.counters()["canary"]["epochs"]
        arm: dict[str, Any] = epoch[side]
        names = ("requests", *EVENTS, "departures", "streams")
        return {name: arm[name] for name in names if arm[name]}

    def ask(self, *bodies: dict[str, Any]) -> list[int]:
        """Ask all at once; return the statuses."""

        async def gather() -> list[Any]:
            return await asyncio.gather(*(inside.ask(self.gateway, BODY | body) for body in bodies or ({},)))

        return [status for status, _, _ in self.runner.run(gather())]


Make = Callable[..., Inside]


@pytest.fixture
def make(tmp_path: Path, upstreams: Upstreams, second: Upstreams) -> Iterator[Make]:
    """Make a gateway in this process from what differs in the file."""
    made: list[Inside] = []

    def of(route: Declared | None = None, *, weight: float = 100.0, **more: Any) -> Inside:
        made.append(Inside(tmp_path, serving(upstreams, second, route, **more), weight))
        return made[-1]

    upstreams.script()
    second.script()
    yield of
    for each in made:
        each.runner.close()


FALLBACK = {"fallbacks": ["old"]}
ERROR = {"requests": 1, "errors": 1}
REJECTED = {"requests": 1, "rejections": 1}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("replies", "route", "status", "counted"),
    [
        ([{}], {}, 200, {"requests": 1}),
        ([{"status": 500}], {}, 502, ERROR),
        ([{"status": 503}, {}], {}, 200, ERROR),  # a second try does not hide the first
        ([{"status": 429}, {}], {}, 200, ERROR),
        ([{"status": 429, "times": 2}], {}, 429, ERROR),
        ([{"status": 500}], FALLBACK, 200, ERROR),  # nor does another upstream
        ([{"hangs": True}], {}, 504, ERROR),
        ([{"hangs": True}], FALLBACK, 200, ERROR),
        ([{"raw": "<html>"}], FALLBACK, 200, ERROR),
        ([{"reset_after": 0}], FALLBACK, 200, ERROR),
        ([{"status": 404}], FALLBACK, 200, ERROR),  # there is no such model
        ([{"status": 401}], {}, 502, ERROR),
        ([{"status": 400}], {}, 400, REJECTED),  # the client's own mistake, or the candidate's
        ([{"status": 400}], FALLBACK, 400, REJECTED),
        ([{"status": 422}], {}, 422, REJECTED),
        ([{"finish_reason": "length"}], {}, 200, {"requests": 1, "truncations": 1}),
        ([{"finish_reason": "content_filter"}], {}, 200, {"requests": 1}),
    ],
)
def test_each_way_to_end(
    make: Make, second: Upstreams, stream: bool, replies: Any, route: Any, status: int, counted: dict[str, int]
) -> None:
    second.script(*replies)
    made = make(route)
    assert made.ask({"stream": stream}) == [status]
    found = made.counted()
    if stream:
        assert found.pop("streams", 0) == (status == 200)
    assert found == counted
    assert made.counted("stable") == {}


def test_a_stream_that_breaks_off_after_its_first_words_is_an_error(make: Make, second: Upstreams) -> None:
    second.script({"text": "one two three", "reset_after": 2, "piece_delay_s": 0.02})
    made = make()
    assert made.ask({"stream": True}) == [200]  # its head had left
    assert made.counted() == ERROR | {"streams": 1}


def test_an_upstream_that_cannot_be_reached_or_is_left_alone_is_an_error_each_time(make: Make) -> None:
    of_new = {"base_url": "http://127.0.0.1:1/v1", "breaker": {"failures": 1, "open_s": 60}, "retries": {"attempts": 1}}
    made = make(FALLBACK, of_new=of_new)
    assert [made.ask() for _ in range(3)] == [[200]] * 3
    assert made.counted() == {"requests": 3, "errors": 3}


@pytest.mark.parametrize("stream", [False, True])
def test_what_guardrails_find_in_answers(make: Make, second: Upstreams, stream: bool) -> None:
    rules = {
        "in": [{"rule": "patterns", "name": "no", "patterns": ["forbidden"], "action": "block"}],
        "out": [{"rule": "patterns", "name": "leak", "patterns": ["secret"], "action": "block"}],
    }
    second.script({"text": "a secret word"}, {"text": "fine"})
    made = make({"guardrails": "all"}, guardrails={"all": rules})
    for text in ("tell me", "tell me", "forbidden"):  # what is blocked on its way in asked nobody
        assert made.ask({"stream": stream, "messages": [{"role": "user", "content": text}]}) == [200]
    found = made.counted()
    found.pop("streams", None)
    assert found == {"requests": 2, "refusals": 1}


def test_answers_that_do_not_fit_their_schema(make: Make, second: Upstreams) -> None:
    rules = {"out": [{"rule": "json_schema", "retries": 1, "action": "flag"}]}
    second.script({"text": "{}"}, {"text": "no"}, {"text": "{}"}, {"text": "no", "times": 2})
    made = make({"guardrails": "all"}, guardrails={"all": rules})
    for _ in range(3):
        assert made.ask({"response_format": {"type": "json_object"}}) == [200]
    assert made.counted() == {"requests": 3, "schema_failures": 2}  # a second try does not hide the first


def test_answers_from_the_cache_and_of_others_flights_are_no_requests(make: Make, second: Upstreams) -> None:
    second.script({"delay_s": 0.1})  # they come while the first is under way
    made = make({"cache": {"exact": True}}, caches={"exact": {}})
    assert made.ask(*({"temperature": 0, "user": f"user-{number}"} for number in range(3))) == [200] * 3
    assert made.ask({"temperature": 0}) == [200]
    assert made.counted() == {"requests": 1}
    assert made.splitting.counters()["canary"]["epochs"][0]["candidate"]["users"] == 4


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_leaves_before_its_answer_is_a_departure_and_nothing_else(
    make: Make, second: Upstreams, stream: bool
) -> None:
    second.script({"delay_s": 0.25})
    made, line = make(), Line()

    async def leave() -> None:
        asked = asyncio.create_task(inside.ask(made.gateway, BODY | {"stream": stream}, line=line))
        await asyncio.sleep(0.1)
        assert line.on_gone is not None
        line.on_gone()
        await asked

    made.runner.run(leave())
    assert made.counted() == {"departures": 1}


def test_users_keep_their_side_while_the_candidate_grows(make: Make) -> None:
    made = make(weight=5.0)
    route = made.gateway.state.routes["desk"]
    users = [f"user-{number}" for number in range(2000)]
    sides = [[route.side("desk", user, "").name for user in users]]
    for weight in (10.0, 25.0, 50.0, 100.0):
        made.splitting.apply(split(weight))
        sides.append([route.side("desk", user, "").name for user in users])
        share = sides[-1].count("candidate") / len(users)
        assert abs(share - weight / 100) <= 4.5 * (weight / 100 * (1 - weight / 100) / len(users)) ** 0.5
    for before, after in itertools.pairwise(sides):
        assert all(then == "candidate" for now, then in zip(before, after, strict=True) if now == "candidate")
    made.splitting.apply(None)
    assert {route.side("desk", user, "").name for user in users} == {"stable"}  # whatever weights the file declares


def test_users_of_two_projects_are_dealt_each_by_themselves(make: Make) -> None:
    made = make()
    made.splitting.apply(split(50.0))
    route = made.gateway.state.routes["desk"]
    assert {route.side(f"project-{number}", "default", "").name for number in range(50)} == {"stable", "candidate"}


def test_weights_that_are_too_old_are_given_up_until_their_source_answers_again() -> None:
    now = [0.0]
    splitting = Splitting(lambda: now[0])
    assert not splitting.expire(0.0)
    splitting.answered()
    splitting.apply(split(50.0))
    now[0] = 60.0
    assert not splitting.expire(60.0)
    now[0] = 60.1
    assert [splitting.expire(60.0), splitting.expire(60.0)] == [True, False]
    assert splitting.weights == {"stable": 1.0}
    splitting.answered()
    assert splitting.weights == {"stable": 50.0, "candidate": 50.0}
    now[0] = 200.0
    splitting.expire(60.0)
    splitting.apply(None)  # it was taken back meanwhile
    splitting.answered()
    assert splitting.weights == {"stable": 1.0}


class Told:
    """A log that keeps the names of what happened."""

    def __init__(self) -> None:
        self.events: list[str] = []

    def event(self, name: str, **known: Any) -> None:
        """Keep a name."""
        self.events.append(name)


def following(**more: Any) -> Serving:
    both = {name: upstream("http://h/v1") for name in ("old", "new")}
    rollout = {"weights": {"file": FILE}, **more}
    return Serving.model_validate_json(json.dumps(declared(both, {"desk": ROUTE}, rollout=rollout)))


def test_a_source_that_fails_by_a_bug_is_followed_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []

    async def failing(self: SplitFile) -> None:
        calls.append(len(calls))
        if len(calls) < 3:
            raise RuntimeError("a bug")
        await asyncio.Event().wait()

    monkeypatch.setattr(SplitFile, "follow", failing)
    monkeypatch.setattr(follower, "AGAIN_S", 0.0)
    monkeypatch.setattr(follower, "FIRST_ANSWER_S", 0.05)
    told = Told()

    async def follow() -> None:
        followed = Follower(tmp_path, told)  # type: ignore[arg-type]
        await followed.follow(following(), Splitting())
        await followed.stop()

    asyncio.run(follow())
    assert (len(calls), told.events) == (3, ["bug", "bug"])


def test_a_source_that_falls_silent_has_all_traffic_go_back_after_the_declared_age(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def falling_silent(self: SplitFile) -> None:
        self._taker.take(split(50.0))
        await asyncio.Event().wait()

    monkeypatch.setattr(SplitFile, "follow", falling_silent)
    told, splitting = Told(), Splitting()

    async def follow() -> None:
        followed = Follower(tmp_path, told)  # type: ignore[arg-type]
        await followed.follow(following(max_age_s=0.05), splitting)
        assert splitting.split == split(50.0)
        while "rollout_weights_expired" not in told.events:
            await asyncio.sleep(0.01)
        await followed.stop()

    asyncio.run(follow())
    assert (splitting.split, told.events) == (None, ["rollout_split", "rollout_weights_expired"])


def test_pinned_users_reach_the_candidate_before_it_has_any_traffic(make: Make) -> None:
    sides = {"stable": {"upstream": "old", "weight": 1}, "candidate": {"upstream": "new", "weight": 1, "users": ["it"]}}
    made = make({"variants": sides}, weight=0.0)
    ready = made.gateway.state.routes["desk"]
    assert [ready.side("desk", user, "").name for user in ("it", "ann")] == ["candidate", "stable"]


# --- a real process that follows a file


@pytest.fixture(scope="module")
def gateway(upstreams: Upstreams, second: Upstreams, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    upstreams.script()
    second.script()
    running = Running(tmp_path_factory.mktemp("root"), serving(upstreams, second))
    yield running
    assert running.stop() == 0
    assert not [line for line in running.lines if line["event"] == "bug"]


def private(gateway: Running, path: str) -> Answered:
    return get(int(gateway.private_url.rpartition(":")[2]), path)


def page(gateway: Running) -> Any:
    return private(gateway, "/v1/rollout").json()


def put(gateway: Running, now: Split | None) -> None:
    """Write a split and wait until it is in force."""
    n_before = len(gateway.lines)
    if now is None:
        (gateway.folder / FILE).unlink()
    else:
        write(gateway.folder / FILE, now)
    found = gateway.wait_for("rollout_split", after=n_before)
    assert found["weight"] == (now.weight if now is not None else 0)


def variant(gateway: Running, user: str) -> str:
    answered = post(gateway.port, BODY | {"user": user})
    assert answered.status == 200
    return answered.headers["x-gatehouse-variant"]


def test_a_rollout_from_before_its_first_share_to_after_its_last(gateway: Running) -> None:
    none = private(gateway, "/v1/rollout")
    assert (none.status, none.json()["error"]["code"]) == (404, "no_rollout")
    assert private(gateway, "/v1/verdict").status == 404
    assert get(gateway.port, "/v1/rollout").status == 404  # it is nobody's business outside
    assert {variant(gateway, str(number)) for number in range(10)} == {"stable"}
    put(gateway, split(50.0, "ab_test", window_s=0.01, since=1.5))
    sides = {str(number): variant(gateway, str(number)) for number in range(20)}
    assert set(sides.values()) == {"stable", "candidate"}
    found = page(gateway)
    assert (found["rollout"], found["stage"], found["weight"], found["since"]) == ("v1.0.0-a.1", "ab_test", 50.0, 1.5)
    (epoch,) = found["counters"]["canary"]["epochs"]
    for side in ("stable", "candidate"):
        n = list(sides.values()).count(side)
        assert (epoch[side]["requests"], epoch[side]["users"], epoch[side]["latency"][-1]) == (n, n, [60.0, n])
        assert found["counters"]["ab_test"]["admitted"][side] == n
    until(lambda: page(gateway)["counters"]["ab_test"]["outcomes"]["error_rate"]["stable"][0] > 0)
    put(gateway, split(100.0, "canary-1"))
    assert {variant(gateway, user) for user in sides} == {"candidate"}
    assert [epoch["stage"] for epoch in page(gateway)["counters"]["canary"]["epochs"]] == ["ab_test", "canary-1"]
    put(gateway, None)
    assert {variant(gateway, user) for user in sides} == {"stable"}
    after = page(gateway)
    assert (after["rollout"], after["weight"], after["process"]) == ("v1.0.0-a.1", 0.0, found["process"])
    assert after["counters"]["canary"]["epochs"][0] == epoch


def test_a_process_that_is_started_again_deals_as_before_from_its_first_request(
    upstreams: Upstreams, second: Upstreams, gateway: Running, tmp_path: Path
) -> None:
    write(tmp_path / FILE, split(100.0, "canary-1"))
    again = Running(tmp_path, serving(upstreams, second))
    order = [line["event"] for line in again.lines]
    assert order.index("rollout_split") < order.index("listening")
    assert variant(again, "ann") == "candidate"
    assert page(again)["process"] != page(gateway)["process"]
    assert again.stop() == 0


def test_what_is_no_split_is_refused_in_one_line_and_the_one_before_stays(gateway: Running) -> None:
    put(gateway, split(100.0, "canary-2"))
    n_before = len(gateway.lines)
    (gateway.folder / FILE).write_text('{"weight": 250}')
    refused = gateway.wait_for("rollout_split_refused", after=n_before)
    assert FILE in refused["problem"]
    assert "\n" not in refused["problem"]
    assert variant(gateway, "ann") == "candidate"
    time.sleep(0.5)
    lines = [line for line in gateway.lines[n_before:] if line["event"].startswith("rollout")]
    assert len(lines) == 1  # not each time it is looked at
    put(gateway, split(50.0, "canary-2"))


def test_changing_weights_drops_no_request(gateway: Running, upstreams: Upstreams, second: Upstreams) -> None:
    put(gateway, split(40.0, "canary-3"))
    before = page(gateway)["counters"]["canary"]["epochs"]
    for process in (upstreams, second):
        process.script({"delay_s": 0.25, "times": 20})
    content = json.dumps(BODY).encode()
    socks = [connect(gateway.port) for _ in range(20)]
    for sock in socks:
        sock.sendall(head(len(content), more="Connection: close\r\n") + content)
    put(gateway, None)
    put(gateway, split(60.0, "canary-3"))
    for sock in socks:
        with sock:
            assert sock.recv(1 << 16).startswith(b"HTTP/1.1 200")
    after = page(gateway)["counters"]["canary"]["epochs"]
    n = [sum(epoch[side]["requests"] for epoch in each for side in ("stable", "candidate")) for each in (before, after)]
    assert n[1] - n[0] == 20


def samples(gateway: Running) -> dict[tuple[str, str], float]:
    families = text_string_to_metric_families(private(gateway, "/metrics").body.decode())
    return {(s.name, json.dumps(s.labels, sort_keys=True)): s.value for family in families for s in family.samples}


def test_prometheus_is_told_the_same_as_the_page(gateway: Running) -> None:
    put(gateway, split(30.0, "canary-4"))
    answered = [post(gateway.port, BODY | {"user": str(number), "stream": True}) for number in range(6)]
    for rating in (5, 1):
        rated = {"request_id": answered[0].headers["x-request-id"], "rating": rating}
        assert post(gateway.port, rated, path="/v1/feedback").status == 200
    shown, metrics = page(gateway), samples(gateway)
    n_compared = n_ratings = 0
    for epoch in shown["counters"]["canary"]["epochs"]:
        for side in ("stable", "candidate"):
            arm, labels = epoch[side], {
                "rollout": shown["rollout"], "stage": epoch["stage"], "weight": f"{epoch['weight']:g}",
                "variant": side, "process": shown["process"],
            }  # fmt: skip

            def value(name: str, labels: dict[str, str] = labels, **more: str) -> float:
                return metrics[f"gatehouse_rollout_{name}", json.dumps({**labels, **more}, sort_keys=True)]

            assert value("requests_total") == arm["requests"]
            assert value("users_total") == arm["users"]
            for event in ("errors", "refusals", "truncations", "schema_failures"):
                assert value("events_total", event=event) == arm[event]
            for bound, count in arm["latency"]:
                assert value("duration_seconds_bucket", le=f"{bound:g}") == count
            for bound, count in arm["ttft"]:
                assert value("time_to_first_token_seconds_bucket", le=f"{bound:g}") == count
            assert value("time_to_first_token_seconds_count") == arm["streams"]
            for level, count in arm["ratings"]:
                given, withdrawn = (value(name, rating=f"{level:g}") for name in NET)
                assert given - withdrawn == count
                n_ratings += count
            n_compared += 1
    assert n_compared >= 4
    ratings = [
        sum(count for _, count in epoch[side]["ratings"])
        for epoch in shown["counters"]["canary"]["epochs"]
        for side in ("stable", "candidate")
    ]
    assert sum(ratings) == 1
    test = shown["counters"]["ab_test"]
    for side, count in test["admitted"].items():
        labels = {
            "rollout": shown["rollout"],
            "stage": "ab_test",
            "weight": "50",
            "variant": side,
            "process": shown["process"],
        }
        assert metrics["gatehouse_rollout_admitted_total", json.dumps(labels, sort_keys=True)] == count
        for metric, both in test["outcomes"].items():
            for part, sums in zip(("n", "total", "squares"), both[side], strict=True):
                key = json.dumps({**labels, "metric": metric, "sum": part}, sort_keys=True)
                assert metrics["gatehouse_rollout_outcomes_total", key] == pytest.approx(sums)
    assert metrics["gatehouse_rollout_weight", "{}"] == 30
    assert metrics["gatehouse_rollout_weights_age_seconds", "{}"] < 5


NET = ("ratings_total", "ratings_withdrawn_total")


def test_a_reload_keeps_the_tally_and_the_split(gateway: Running, upstreams: Upstreams, second: Upstreams) -> None:
    put(gateway, split(100.0, "canary-5"))
    variant(gateway, "ann")
    before = page(gateway)
    assert gateway.reload(serving(upstreams, second, {"fallbacks": ["old"]}))["event"] == "reloaded"
    assert page(gateway) == before
    assert variant(gateway, "ann") == "candidate"
    plain = {name: value for name, value in serving(upstreams, second).items() if name != "rollout"}
    assert gateway.reload(plain)["event"] == "reloaded"
    assert variant(gateway, "ann") == "candidate"  # by the weights that the file declares
    assert not [name for name, _ in samples(gateway) if name.startswith("gatehouse_rollout")]
    assert gateway.reload(serving(upstreams, second))["event"] == "reloaded"
    assert page(gateway)["weight"] == 100.0
    assert [epoch["candidate"]["requests"] for epoch in page(gateway)["counters"]["canary"]["epochs"]][-1] == 2
