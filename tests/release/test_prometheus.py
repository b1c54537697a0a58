"""A rollout's counters out of Prometheus: the real server where it is installed, and whatever else may answer."""

from __future__ import annotations

import http.server
import json
import shutil
import socket
import subprocess
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pipelines.core.errors import ConfigError
from pipelines.core.split import Split
from pipelines.release.prometheus import counters, query
from pipelines.release.tallies import merged, read
from pipelines.release.targets import CountersUnavailable
from pipelines.serving.exposition import Exposition
from pipelines.serving.rollout_metrics import render
from pipelines.serving.splitting import Splitting
from tests.serving.ledgers import exchange

KEY = "0123456789abcdef.1"
PROGRAM = shutil.which("prometheus")


class Pages(http.server.ThreadingHTTPServer):
    """Answers each path with what its function says: a status and a body."""

    def __init__(self, pages: dict[str, Callable[[], tuple[int, bytes]]]) -> None:
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                status, body = pages.get(self.path, lambda: (404, b""))()
                self.send_response(status)
                self.send_header("Content-Type", "text/plain; version=0.0.4")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["Content-Length"]))
                self.do_GET()

            def log_message(self, *arguments: Any) -> None:
                pass

        super().__init__(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


# --- the real server ------------------------------------------------------------------------------------------


def replica(users: int, *, stages: tuple[tuple[str, float], ...]) -> Splitting:
    """A gateway's split and tally after some traffic; each has users of its own and all meet the same ones too."""
    made = Splitting()
    made.bounds = (0.1, 1.0, 10.0), (0.5, 5.0)
    for stage, weight in stages:
        made.apply(Split(rollout=KEY, stage=stage, weight=weight, unit="user", window_s=1e-6))
        for index in range(users):
            found = exchange(
                user=f"user-{index}", variant="candidate" if index % 2 else "stable", upstream="small",
                latency_ms=50.0 * index, status=500 if index % 7 == 0 else 200, id=f"{stage}-{index}",
                ttft_ms=100.0 if index % 3 else None,
            )  # fmt: skip
            made.admit(found, "small", is_pinned=False)
            found.admitted.tally.finish(found)  # type: ignore[union-attr]
            made.rated(found.id, 1 + index % 5)
            made.rated(found.id, 5)
    return made


def exposed(splitting: Splitting) -> bytes:
    out = Exposition()
    render(splitting, out)
    return out.text()


def asked(url: str, expression: str) -> list[Any]:
    with urllib.request.urlopen(f"{url}/api/v1/query?query={expression}", timeout=5) as response:
        found: list[Any] = json.loads(response.read())["data"]["result"]
    return found


def until(holds: Callable[[], bool]) -> None:
    """Wait for another process; the test's own time limit ends it."""
    while True:
        try:
            if holds():
                return
        except OSError:
            pass
        time.sleep(0.1)


class Scene:
    """Two replicas, one of which is scraped under two names, and the server that does."""

    def __init__(self, folder: Path, program: str) -> None:
        self.replicas = [
            replica(40, stages=(("ab_test", 50.0), ("canary-1", 5.0))),
            replica(25, stages=(("ab_test", 50.0),)),
        ]
        self.pages = {f"/{index}": self._page(index) for index in (0, 1)}
        self.exporter = Pages(self.pages)
        job = "  - {{job_name: {}, metrics_path: /{}, static_configs: [{{targets: ['{}']}}]}}\n"
        host = self.exporter.url.removeprefix("http://")
        jobs = "".join(job.format(*one, host) for one in (("first", 0), ("second", 1), ("again", 0)))
        config = folder / "prometheus.yml"
        config.write_text(f"global: {{scrape_interval: 1s}}\nscrape_configs:\n{jobs}")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            address = f"127.0.0.1:{free.getsockname()[1]}"
        self.url = f"http://{address}"
        self.server = subprocess.Popen(
            [program, f"--config.file={config}", f"--storage.tsdb.path={folder}/data", "--log.level=error",
             f"--web.listen-address={address}"],
        )  # fmt: skip

    def _page(self, index: int) -> Callable[[], tuple[int, bytes]]:
        return lambda: (200, exposed(self.replicas[index]))

    def counted(self) -> dict[str, Any]:
        return counters(self.url, KEY, time.time())

    def close(self) -> None:
        self.server.terminate()
        self.server.wait()
        self.exporter.shutdown()


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    if PROGRAM is None:
        pytest.skip("no `prometheus` on PATH: install the package of that name to test against the real server")
    found = Scene(tmp_path_factory.mktemp("prometheus"), PROGRAM)
    try:
        until(lambda: len(asked(found.url, "up==1")) == 3)
        yield found
    finally:
        found.close()


def test_the_sum_over_replicas_is_what_their_own_pages_add_up_to(scene: Scene) -> None:
    expected = merged([one.counters() for one in scene.replicas])
    found = scene.counted()
    assert read(found) == read(json.loads(json.dumps(expected)))
    first, second = read(found).canary.epochs
    assert (first.stage, first.candidate.requests, second.stage, second.weight) == ("ab_test", 32, "canary-1", 5)
    assert (first.candidate.ratings[-1], first.candidate.errors > 0) == ((1.0, 32), True)
    assert not read(found).canary.problems()


def test_what_a_replica_counted_that_is_gone_still_counts(scene: Scene) -> None:
    before = scene.counted()
    scene.pages["/1"] = lambda: (503, b"")
    try:
        until(lambda: len(asked(scene.url, "up==0")) == 1)
        assert scene.counted() == before
    finally:
        scene.pages["/1"] = scene._page(1)


def test_a_rollout_that_nobody_counted_is_unavailable_and_not_zero(scene: Scene) -> None:
    with pytest.raises(CountersUnavailable, match=r"has nothing of rollout 0123456789abcdef\.2 \(yet\)$"):
        counters(scene.url, "0123456789abcdef.2", time.time())


# --- whatever else answers: https://prometheus.io/docs/prometheus/latest/querying/api/ --------------------------


def answer(*result: Any, **more: Any) -> bytes:
    return json.dumps({"status": "success", "data": {"resultType": "vector", "result": list(result)}, **more}).encode()


def sample(value: str = "3", **labels: str) -> dict[str, Any]:
    known = {"family": "requests_total", "stage": "canary-1", "weight": "5", "variant": "stable"}
    return {"metric": known | labels, "value": [1_790_000_000.123, value]}


def given(status: int, body: bytes) -> dict[str, Any]:
    server = Pages({"/api/v1/query": lambda: (status, body)})
    try:
        return counters(f"{server.url}/", KEY, 0.0, token="secret")
    finally:
        server.shutdown()


def test_one_vector_holds_all_families() -> None:
    found = read(given(200, answer(sample(), sample("1", family="events_total", event="errors"))))
    assert (found.canary.at(5, "canary-1").stable.requests, found.canary.at(5, "canary-1").stable.errors) == (3, 1)


ERROR = b'{"status": "error", "errorType": "timeout", "error": "query timed out in expression evaluation"}'


@pytest.mark.parametrize(
    ("status", "body", "said"),
    [
        (503, ERROR, "answers 503 (query timed out in expression evaluation)"),
        (502, b"<html>bad gateway</html>", "answers 502"),
        (200, ERROR, "answers something else than its API says"),
        (200, b"<html></html>", "answers something else"),
        (200, b"[]", "answers something else"),
        (200, answer(), "has nothing of rollout"),
        (
            200,
            answer(sample(), warnings=["one store did not answer\n::error::x"]),
            "warns: one store did not answer\\n",
        ),
        (200, answer(sample("NaN")), "a count that is no number"),
        (200, answer(sample("+Inf")), "a count that is no number"),
        (200, answer(sample("many")), "something else than a vector of samples"),
        (200, answer({"metric": {}}), "something else than a vector of samples"),
        (200, answer(sample(variant="third")), "other series of the rollout"),
        (200, answer(sample(weight="most")), "other series of the rollout"),
        (200, answer(sample(family="events_total", event="colours")), "other series of the rollout"),
        (200, answer({"metric": {"family": "requests_total"}, "value": [0, "1"]}), "other series of the rollout"),
    ],
)
def test_an_answer_that_says_less_than_all_is_unavailable_in_one_line(status: int, body: bytes, said: str) -> None:
    with pytest.raises(CountersUnavailable) as caught:
        given(status, body)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_server_that_is_down_is_unavailable() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        with pytest.raises(CountersUnavailable, match="does not answer"):
            counters(f"http://127.0.0.1:{free.getsockname()[1]}", KEY, 0.0)


def test_a_password_in_the_address_is_refused_and_not_told() -> None:
    with pytest.raises(ConfigError, match="user and password do not belong") as caught:
        counters("http://ann:secret@host", KEY, 0.0)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "rollout"), [("ftp://host", KEY), ("", KEY), ("http://[", KEY), ("http://host", 'x"} or up{a="')]
)
def test_what_can_be_no_address_and_no_rollout_is_refused_before_anything_is_asked(url: str, rollout: str) -> None:
    with pytest.raises(ConfigError):
        counters(url, rollout, 0.0)


def test_all_families_are_asked_for_at_one_moment() -> None:
    asked_for = query(KEY, 700)
    assert asked_for.count(" or ") == 9
    assert asked_for.count(f'{{rollout="{KEY}"}}[700s]') == 10
