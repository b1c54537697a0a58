"""Run the gateway: listen on two ports, reload on SIGHUP, drain on SIGTERM."""

from __future__ import annotations

import asyncio
import gc
import resource
import signal
import socket
import time
from email.utils import formatdate
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import uvicorn
from uvicorn.server import ServerState

from pipelines.core.errors import ConfigError, GatehouseError, one_line
from pipelines.serving.accounts import take_effect
from pipelines.serving.addresses import address
from pipelines.serving.app import Gateway
from pipelines.serving.assemble import assemble, leave, take_apart
from pipelines.serving.config import Limits, Serving
from pipelines.serving.config_upstreams import ProcessUpstream
from pipelines.serving.follower import Follower
from pipelines.serving.logs import Log
from pipelines.serving.pages import PrivatePages
from pipelines.serving.processes import Processes
from pipelines.serving.protocol import GatewayProtocol, Slowness
from pipelines.serving.references import load_checked
from pipelines.serving.splitting import Verdict
from pipelines.serving.state import State

BACKLOG = 4096


class Place(NamedTuple):
    """Where to run; what the command line says goes before what the file says.

    Attributes:
        root: Folder of the repository.
        path: The declared file.
        host: Of the public port, or None.
        port: Likewise.
        private_host: Of the private port, or None.
        private_port: Likewise.
    """

    root: Path
    path: Path
    host: str | None = None
    port: int | None = None
    private_host: str | None = None
    private_port: int | None = None


class Server:
    """One gateway process.

    Args:
        place: Where it runs.
        log: Where lines go.
        verdict: Judges the rollout that is under way, for `/v1/verdict`.
    """

    def __init__(self, place: Place, log: Log, verdict: Verdict | None = None) -> None:
        self._place = place
        self._log = log
        self._verdict = verdict
        self._follower = Follower(place.root, log)
        self._stopped = asyncio.Event()
        self._listeners: list[asyncio.Server] = []
        self._state = ServerState()
        self._reloading: asyncio.Task[None] | None = None

    async def run(self) -> None:
        """Serve until SIGTERM or SIGINT; then finish what is under way.

        Raises:
            GatehouseError: It cannot start.
        """
        serving = load_checked(self._place.path, self._place.root)
        self._log.take_over()
        # Every client and every upstream connection is an open file; 1,024 is a usual limit, not the highest allowed.
        most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stopped.set)
        self._refuse_open_door(serving)
        public, private = self._bind(serving)
        processes = Processes(_own(serving), self._place.root, self._log)
        digests = await processes.prepare()
        parts = await assemble(serving, self._place.root, log=self._log)
        await parts.ledger.start()
        self._digests = digests
        state = State(serving, parts, root=self._place.root, digests=digests)
        take_effect(serving, parts)
        await self._follower.follow(serving, parts.splitting)
        self._gateway = Gateway(state, self._log)
        loop.add_signal_handler(signal.SIGHUP, self._reload)
        try:
            processes.start(self._note_readiness)
            await self._listen(self._gateway, public, serving.limits)
            pages = PrivatePages(self._gateway, self._place.root, self._verdict)
            await self._listen(pages, private, serving.limits)
            names = ("address", "port"), ("private_address", "private_port")
            where = dict(zip(names[0], public.getsockname()[:2], strict=True))
            where |= dict(zip(names[1], private.getsockname()[:2], strict=True))
            self._log.event("listening", **where)
            self._log.flush()
            gc.collect()
            gc.freeze()  # what stays for ever need not be looked through again and again
            await self._tick()
            await self._drain()
        finally:
            self._gateway.state.close_unused(None)
            await self._follower.stop()
            await processes.stop()
            await take_apart(self._gateway.state.parts)
            self._log.event("stopped")
            self._log.finish()

    def _note_readiness(self, name: str, is_ready: bool) -> None:
        if (upstream := self._gateway.state.upstreams.get(name)) is not None:
            upstream.is_starting = not is_ready

    def _refuse_open_door(self, serving: Serving) -> None:
        host = self._place.host or serving.listen.host
        if not serving.keys and host not in ("127.0.0.1", "::1", "localhost"):
            raise ConfigError(
                f"{self._place.path}: keys: none is declared, and {host} is open to other machines; "
                "`python -m scripts.serve --new-key PROJECT` makes one"
            )

    def _bind(self, serving: Serving) -> tuple[socket.socket, socket.socket]:
        place, listen = self._place, serving.listen
        port = listen.port if place.port is None else place.port
        private_port = listen.private_port if place.private_port is None else place.private_port
        return (
            _bound(place.host or listen.host, port),
            _bound(place.private_host or listen.private_host, private_port),
        )

    async def _listen(self, app: Any, bound: socket.socket, limits: Limits) -> None:
        config = uvicorn.Config(
            app,
            http=GatewayProtocol,
            ws="none",
            lifespan="off",
            interface="asgi3",
            proxy_headers=False,
            access_log=False,
            log_config=None,
            timeout_keep_alive=int(limits.keep_alive_s),
        )
        config.load()
        GatewayProtocol.slowness = Slowness(
            limits.header_timeout_s, limits.read_timeout_s, limits.write_timeout_s, limits.max_header_bytes
        )
        make = partial(GatewayProtocol, config=config, server_state=self._state, app_state={})
        loop = asyncio.get_running_loop()
        self._listeners.append(await loop.create_server(lambda: make(_loop=loop), sock=bound, backlog=BACKLOG))

    async def _tick(self) -> None:
        while not self._stopped.is_set():
            self._state.default_headers = [(b"date", formatdate(time.time(), usegmt=True).encode())]
            try:
                async with asyncio.timeout(1.0):
                    await self._stopped.wait()
            except TimeoutError:
                continue

    async def _drain(self) -> None:
        """Take nothing new, finish what is under way, as far as it fits into the declared time."""
        self._gateway.is_draining = True
        self._log.event("draining", connections=len(self._state.connections), requests=len(self._state.tasks))
        for listener in self._listeners:
            listener.close()
        for connection in list(self._state.connections):
            connection.shutdown()
        loop = asyncio.get_running_loop()
        ends = loop.time() + self._gateway.state.serving.limits.drain_s
        while self._state.tasks and loop.time() < ends:
            await asyncio.sleep(0.02)
        for task in list(self._state.tasks):
            task.cancel()
        if self._state.tasks:
            await asyncio.wait(list(self._state.tasks), timeout=2.0)
        for connection in list(self._state.connections):
            connection.transport.close()

    def _reload(self) -> None:
        if self._reloading is None or self._reloading.done():
            self._reloading = asyncio.get_running_loop().create_task(self._take_over())

    async def _take_over(self) -> None:
        """Read `serving.yaml` again; whatever is wrong with it, the present state stays."""
        before = self._gateway.state
        try:
            serving = load_checked(self._place.path, self._place.root)
            if _own(serving) != _own(before.serving):
                raise ConfigError(f"{self._place.path}: upstreams: processes change with a restart only")
            parts = await assemble(serving, self._place.root, before.parts, log=self._log)
            try:
                state = State(serving, parts, root=self._place.root, digests=self._digests, before=before)
            except GatehouseError:
                await leave(parts, before.parts)
                raise
        except (GatehouseError, OSError) as error:
            self._log.event("reload_refused", problem=one_line(str(error)))
            return
        self._gateway.state = state
        take_effect(serving, parts)
        await self._follower.follow(serving, parts.splitting)
        before.close_unused(state)
        await leave(before.parts, parts)
        self._log.event("reloaded", routes=sorted(state.routes))


def _own(serving: Serving) -> dict[str, ProcessUpstream]:
    """Return the upstreams that this machine has to start itself."""
    return {
        name: declared
        for name, declared in serving.upstreams.items()
        if isinstance(declared, ProcessUpstream) and address(name, declared)[1]
    }


def _bound(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((host, port))
    except OSError as error:
        bound.close()
        raise ConfigError(
            f"cannot listen on {host} port {port} ({error.strerror}); stop what does, or choose another"
        ) from None
    bound.setblocking(False)
    return bound
