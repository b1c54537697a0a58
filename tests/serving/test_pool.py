"""Connections to an upstream: an upstream that does not answer is told from a gateway that was too busy to look."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import Callable, Iterator

import pytest
import uvloop

from pipelines.serving.connections import Broken, Timeouts
from pipelines.serving.pool import Pool

CONNECT_S = 0.4


def pool(door: socket.socket) -> Pool:
    return Pool(f"http://127.0.0.1:{door.getsockname()[1]}/v1", Timeouts(CONNECT_S, 5.0, 5.0, 5.0), 1000)


@pytest.fixture
def full_door() -> Iterator[socket.socket]:
    """A queue of connections that is full: whoever connects now waits."""
    with contextlib.ExitStack() as stack:
        door = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(4):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(door.getsockname())
        yield door


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run])
def test_a_loop_too_busy_to_look_is_not_the_upstreams_fault(run: Callable[..., None]) -> None:
    async def scenario(door: socket.socket) -> None:
        asyncio.get_running_loop().call_soon(time.sleep, 2 * CONNECT_S)  # as thousands of requests at once would
        connection = await pool(door).take()
        assert connection.is_open
        connection.abort()

    with socket.create_server(("127.0.0.1", 0)) as door:
        run(scenario(door))


def test_an_upstream_that_accepts_nobody_is_told_so(full_door: socket.socket) -> None:
    async def scenario() -> None:
        with pytest.raises(Broken, match="did not accept a connection in time"):
            await pool(full_door).take()

    asyncio.run(scenario())


def test_an_attempt_whose_client_left_leaves_no_connection_open() -> None:
    async def scenario(door: socket.socket) -> None:
        taking = asyncio.create_task(pool(door).take())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        taking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await taking
        door.settimeout(0.5)
        with contextlib.suppress(TimeoutError):  # it had come, or had not
            accepted, _ = door.accept()
            accepted.settimeout(5)
            with contextlib.suppress(ConnectionResetError):
                assert await asyncio.to_thread(accepted.recv, 1) == b""
            accepted.close()

    with socket.create_server(("127.0.0.1", 0)) as door:
        asyncio.run(scenario(door))
