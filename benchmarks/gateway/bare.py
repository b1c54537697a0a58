"""The plainest proxy that aiohttp can be: takes a request, asks the upstream, passes the answer on.

python -m benchmarks.gateway.bare UPSTREAM_PORT     prints its port
"""

from __future__ import annotations

import asyncio
import logging
import sys

import aiohttp
import uvloop
from aiohttp import web


async def main() -> None:
    """Serve until killed."""
    logging.disable()
    url = f"http://127.0.0.1:{sys.argv[1]}"
    session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))

    async def forward(request: web.Request) -> web.StreamResponse:
        body = await request.read()
        async with session.request(request.method, url + request.path, data=body) as answer:
            if answer.content_type != "text/event-stream":
                return web.Response(status=answer.status, body=await answer.read(), content_type=answer.content_type)
            passed = web.StreamResponse(status=answer.status, headers={"Content-Type": "text/event-stream"})
            await passed.prepare(request)
            async for piece in answer.content.iter_any():
                await passed.write(piece)
            await passed.write_eof()
            return passed

    application = web.Application()
    application.router.add_route("*", "/{path:.*}", forward)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    print(runner.addresses[0][1], flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(main())
