"""One upstream and its breaker, inside this process."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from pathlib import Path
from typing import Any

from tests.serving.gateway import declared, upstream
from tests.serving.inside import make
from tests.serving.rules import exchange

BODY: dict[str, Any] = {"messages": [{"role": "user", "content": "hello"}]}


def test_a_trial_whose_client_leaves_while_it_connects_lets_the_next_one_try(tmp_path: Path) -> None:
    async def scenario() -> None:
        with contextlib.ExitStack() as stack:
            # Its queue of connections is full: whoever connects now waits.
            door = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
            for _ in range(4):
                waiting = stack.enter_context(socket.socket())
                waiting.setblocking(False)
                waiting.connect_ex(door.getsockname())
            settings = {"connect_timeout_s": 30.0, "breaker": {"failures": 1, "open_s": 0.5}}
            one = upstream(f"http://127.0.0.1:{door.getsockname()[1]}/v1", **settings)
            gateway, _ = make(tmp_path, declared({"one": one}, {"desk": {"tiers": [{"upstream": "one"}]}}))
            known = gateway.state.upstreams["one"]
            known.breaker.fail()
            await asyncio.sleep(0.6)
            trial = asyncio.create_task(known.ask(exchange(), "chat", BODY))
            await asyncio.sleep(0.05)
            assert (known.breaker.state, trial.done()) == ("half_open", False)
            trial.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await trial
            assert known.breaker.allows()

    asyncio.run(scenario())
