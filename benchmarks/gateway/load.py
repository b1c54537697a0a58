"""Put load on one address and print what came of it as JSON; a process of its own, so that it is nobody's bottleneck.

    python -m benchmarks.gateway.load --port P --connections 1 --requests 2000      closed loop: the next when one ends
    python -m benchmarks.gateway.load --port P --connections 64 --rate 2000 --seconds 600      open loop

In an open loop requests are due at fixed times and are timed from then on, also while no connection is free: a server
that stalls cannot hide it by slowing its clients down (coordinated omission).
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import re
import resource
import time
from array import array
from collections import Counter, deque

import uvloop

CONTENT = re.compile(rb'"content": ?"[^"]')
N_USERS = 5000
STEP_S = 0.0005
CONNECT_AT_ONCE = 256


class Load:
    """What all connections share: what is sent, what is left to do, what was measured."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.arguments = arguments
        self.n_sent = self.n_done = 0
        self.n_wanted = arguments.requests or 10**12
        self.latencies, self.first_tokens = array("d"), array("d")
        self.statuses: Counter[str] = Counter()
        self.refusal = ""
        self.idle: deque[Client] = deque()
        self.due: deque[float] = deque()
        self.ended = asyncio.Event()
        stream = b',"stream":true' if arguments.stream else b""
        self._before = b'{"model":"%b","temperature":0%b,"user":"user-' % (arguments.model.encode(), stream)
        self._between = (
            b'","messages":[{"role":"user","content":"Where is my parcel? I ordered it two weeks ago, number '
        )
        self._after = b'."}]}'
        length = len(self._before) + 6 + len(self._between) + 12 + len(self._after)
        self._head = (
            f"POST {arguments.path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {arguments.key}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n"
        ).encode()

    def request(self) -> bytes:
        """Return the next request; no two are equal, unless all are to be."""
        number = 0 if self.arguments.identical else self.arguments.first + self.n_sent
        self.n_sent += 1
        parts = (self._head, self._before, b"%06d" % (number % N_USERS), self._between, b"%012d" % number, self._after)
        return b"".join(parts)

    def may_send(self) -> bool:
        """Tell whether a closed loop goes on."""
        return self.n_sent < self.n_wanted and time.perf_counter() < self.ends

    def done(self, client: Client, status: str) -> None:
        """Take an answer, and give its connection something to do."""
        self.n_done += 1
        self.statuses[status] += 1
        if status == "200" and client.began >= self.counts_from and self.n_done > self.arguments.skip:
            self.latencies.append(time.perf_counter() - client.began)
            if client.first_token:
                self.first_tokens.append(client.first_token - client.began)
        if client.is_lost:
            pass
        elif self.arguments.rate:
            if self.due:
                client.send(self.due.popleft())
            else:
                self.idle.append(client)
        elif self.may_send():
            client.send(time.perf_counter())
        if self.n_done >= self.n_wanted or (self.n_done == self.n_sent and time.perf_counter() >= self.ends):
            self.ended.set()


class Client(asyncio.Protocol):
    """One connection."""

    def __init__(self, load: Load) -> None:
        self._load = load
        self._data = b""
        self.is_lost = self._is_busy = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self._transport: asyncio.Transport = transport  # type: ignore[assignment]

    def send(self, due: float) -> None:
        """Send the next request, timed from when it was due."""
        self.began, self.first_token, self._is_busy = due, 0.0, True
        self._transport.write(self._load.request())

    def data_received(self, data: bytes) -> None:
        """Take a piece of the answer."""
        self._data = found = self._data + data if self._data else data
        if self._load.arguments.stream and not self.first_token and CONTENT.search(found):
            self.first_token = time.perf_counter()
        end = found.find(b"\r\n\r\n")
        if end < 0:
            return
        head = found[:end].lower()
        at = head.find(b"content-length:")
        if at >= 0:
            if len(found) < end + 4 + int(head[at + 15 :].split(b"\r\n", 1)[0]):
                return
        elif not found.endswith(b"\r\n0\r\n\r\n"):
            return
        self._data, self._is_busy = b"", False
        status = found[9:12].decode("latin-1")
        if status != "200":
            self._load.refusal = found[end + 4 :][:300].decode("utf-8", "replace")
        self._load.done(self, status)

    def connection_lost(self, error: Exception | None) -> None:
        """Count what was lost with the connection."""
        self.is_lost = True
        if self._is_busy:
            self._is_busy = False
            self._load.done(self, "lost")


async def open_loop(load: Load) -> None:
    """Send at fixed times, whether or not answers come."""
    begin, rate, n_due = time.perf_counter(), load.arguments.rate, 0
    while (now := time.perf_counter()) < load.ends and n_due < load.n_wanted:
        while begin + n_due / rate <= now:
            if load.idle:
                load.idle.popleft().send(begin + n_due / rate)
            else:
                load.due.append(begin + n_due / rate)
            n_due += 1
        await asyncio.sleep(STEP_S)


async def run(arguments: argparse.Namespace) -> dict[str, object]:
    """Connect, put the load on, return what was measured."""
    loop, load = asyncio.get_running_loop(), Load(arguments)
    clients: list[Client] = []
    while len(clients) < arguments.connections:
        n_more = min(CONNECT_AT_ONCE, arguments.connections - len(clients))
        opened = [loop.create_connection(lambda: Client(load), "127.0.0.1", arguments.port) for _ in range(n_more)]
        clients += [client for _, client in await asyncio.gather(*opened)]
    gc.disable()
    begin = time.perf_counter()
    load.counts_from, load.ends = begin + arguments.warm_up, begin + arguments.warm_up + arguments.seconds
    if arguments.rate:
        load.idle.extend(clients)
        await open_loop(load)
        load.n_wanted = load.n_sent + len(load.due)
    else:
        for client in clients[: load.n_wanted]:
            client.send(time.perf_counter())
    if load.n_done < load.n_wanted:
        async with asyncio.timeout(arguments.seconds + 120):
            await load.ended.wait()
    return measured(load, time.perf_counter() - load.counts_from)


def measured(load: Load, seconds: float) -> dict[str, object]:
    """Return counts, rate and quantiles; milliseconds."""
    found: dict[str, object] = {
        "statuses": dict(load.statuses),
        "refusal": load.refusal,
        "requests_per_s": len(load.latencies) / seconds,
    }
    for name, values in (("latency", load.latencies), ("ttft", load.first_tokens)):
        ordered = sorted(values)
        for quantile in (50, 99):
            place = min(len(ordered) - 1, len(ordered) * quantile // 100)
            found[f"{name}_p{quantile}_ms"] = ordered[place] * 1000 if ordered else None
    return found


def main() -> None:
    """Parse arguments and print the result."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gateway.load", description=__doc__.splitlines()[0])
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--path", default="/v1/chat/completions")
    parser.add_argument("--key", default="sk-gatehouse-benchmark")
    parser.add_argument("--model", default="bench")
    parser.add_argument("--connections", type=int, default=1)
    parser.add_argument("--requests", type=int, default=0, help="0: until the time is over")
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--warm-up", type=float, default=0.0, help="seconds before anything counts")
    parser.add_argument("--skip", type=int, default=0, help="first answers that do not count")
    parser.add_argument("--rate", type=float, default=0.0, help="requests per second; 0 is a closed loop")
    parser.add_argument("--first", type=int, default=1, help="number of the first question")
    parser.add_argument("--stream", action="store_true")
    parser.add_argument("--identical", action="store_true", help="ask one question only")
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    print(json.dumps(uvloop.run(run(parser.parse_args()))))


if __name__ == "__main__":
    main()
