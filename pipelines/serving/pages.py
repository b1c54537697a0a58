"""Everything that is no question to a model: /v1/models, /v1/feedback, /healthz, /readyz, and the private port."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

import orjson

from pipelines.core.errors import GatehouseError, one_line
from pipelines.serving.errors import Refused, invalid, unauthorized, unavailable
from pipelines.serving.parts import Body
from pipelines.serving.splitting import UnderWay, Verdict

if TYPE_CHECKING:
    from pipelines.serving.app import Gateway

THUMBS = {"up": 5, "down": 1}


class Pages:
    """Answers small requests of the public port."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    async def answer(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer one request; errors in OpenAI's format."""
        try:
            status, value, headers = await self._page(scope, receive)
        except Refused as refused:
            status, value, headers = refused.status, orjson.loads(refused.content()), refused.headers()
        except asyncio.CancelledError:
            return
        await respond(send, status, orjson.dumps(value), headers)

    async def _page(self, scope: Any, receive: Any) -> tuple[int, Body, list[tuple[bytes, bytes]]]:
        state, path, method = self._gateway.state, scope["path"], scope["method"]
        if path == "/healthz" and method in ("GET", "HEAD"):
            return 200, {"status": "ok"}, []
        if path == "/readyz" and method in ("GET", "HEAD"):
            return self._readiness()
        if path == "/v1/models" and method == "GET":
            allowed = state.serving.projects[self._project(scope)].routes
            names = [name for name in state.routes if allowed is None or name in allowed]
            models = [{"id": name, "object": "model", "created": 0, "owned_by": "gatehouse"} for name in names]
            return 200, {"object": "list", "data": models}, []
        if path.startswith("/v1/models/") and method == "GET":
            allowed = state.serving.projects[self._project(scope)].routes
            name = path.removeprefix("/v1/models/")
            if name not in state.routes or (allowed is not None and name not in allowed):
                raise Refused(404, f"the model {name[:80]!r} does not exist", "not_found_error", "model_not_found")
            return 200, {"id": name, "object": "model", "created": 0, "owned_by": "gatehouse"}, []
        if path == "/v1/feedback" and method == "POST":
            return await self._feedback(scope, receive)
        is_known = path in ("/healthz", "/readyz", "/v1/models", "/v1/feedback") or path.startswith("/v1/predict/")
        if is_known or path in ("/v1/chat/completions", "/v1/completions", "/v1/embeddings"):
            raise invalid(f"{method} is not possible here", code="method_not_allowed", status=405)
        raise Refused(404, "there is nothing at this address", "not_found_error", "not_found")

    def _project(self, scope: Any) -> str:
        authorization = next((value for name, value in scope["headers"] if name == b"authorization"), b"")
        known = self._gateway.state.keys.find(authorization)
        if known is None:
            raise unauthorized()
        return known.project

    def _readiness(self) -> tuple[int, Body, list[tuple[bytes, bytes]]]:
        state = self._gateway.state
        if self._gateway.is_draining:
            raise unavailable("the gateway is stopping", "draining", retry_after_s=1)
        if not state.parts.ledger.is_accepting:
            raise unavailable("the ledger cannot be written", "ledger_unavailable")
        ill = sorted(name for name, upstream in state.upstreams.items() if upstream.is_ill)
        served = [name for name, route in state.routes.items() if any(not is_ill for is_ill in _illness(route, ill))]
        if not served:
            raise unavailable("no route has an upstream that answers", "no_upstream")
        return 200, {"status": "ok", "upstreams_open": ill}, []

    async def _feedback(self, scope: Any, receive: Any) -> tuple[int, Body, list[tuple[bytes, bytes]]]:
        project, state = self._project(scope), self._gateway.state
        length = next((int(value) for name, value in scope["headers"] if name == b"content-length"), None)
        content = await state.bodies.read(receive, length)
        state.bodies.release(len(content))
        try:
            body = orjson.loads(content)
        except orjson.JSONDecodeError:
            raise invalid("the body is not JSON", code="invalid_json") from None
        request_id, rating = (body.get("request_id"), _rating(body)) if isinstance(body, dict) else (None, None)
        if not isinstance(request_id, str) or len(request_id) > 64:
            raise invalid("`request_id` is needed: the header x-request-id of the answer", param="request_id")
        if rating is None:
            raise invalid("`rating` must be 1 to 5, or `thumbs` up or down", param="rating")
        rated = await state.parts.ledger.rate(request_id, project, rating)
        if rated is None:
            raise Refused(404, "this project made no such request", "not_found_error", "request_not_found")
        if rated.is_new:
            state.parts.metrics.rated(rated, rating)
            if state.parts.splitting is not None:
                state.parts.splitting.rated(request_id, rating)
        return 200, {"request_id": request_id, "rating": rating}, []


class PrivatePages:
    """The private port: what Prometheus and the release ask for, and nothing of users.

    Args:
        gateway: Whose.
        root: Folder of the repository.
        verdict: Judges the rollout that is under way; it may take its time, for it is asked beside the event loop.
    """

    def __init__(self, gateway: Gateway, root: Path, verdict: Verdict | None = None) -> None:
        self._gateway = gateway
        self._public = Pages(gateway)
        self._root = root
        self._verdict = verdict

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return
        path, is_get = scope["path"], scope["method"] == "GET"
        if path == "/metrics" and is_get:
            kind = b"text/plain; version=0.0.4; charset=utf-8"
            await respond(send, 200, self._gateway.state.parts.metrics.render(), [], kind)
        elif path in ("/healthz", "/readyz"):
            await self._public.answer(scope, receive, send)
        else:
            try:
                if path not in ("/v1/rollout", "/v1/verdict") or not is_get:
                    raise Refused(404, "there is nothing at this address", "not_found_error", "not_found")
                page = await self._judge(scope) if path == "/v1/verdict" else (200, self._rollout())
                await respond(send, page[0], orjson.dumps(page[1]), [])
            except Refused as refused:
                await respond(send, refused.status, refused.content(), refused.headers())
            except asyncio.CancelledError:
                return

    def _rollout(self) -> Body:
        splitting = self._gateway.state.parts.splitting
        page = splitting.page() if splitting is not None else None
        if page is None:
            raise Refused(404, "no rollout is under way, and none was", "not_found_error", "no_rollout")
        return page

    async def _judge(self, scope: Any) -> tuple[int, Body]:
        state = self._gateway.state
        if self._verdict is None or state.parts.splitting is None:
            raise Refused(404, "no release is under way: verdicts come with one", "not_found_error", "no_release")
        splitting = state.parts.splitting
        under_way = UnderWay(self._root, state.serving, splitting.split, splitting.counters())
        query = dict(parse_qsl(scope["query_string"].decode("latin-1")))
        try:
            return await asyncio.to_thread(self._verdict, query, under_way)
        except GatehouseError as error:
            raise unavailable(one_line(str(error)), "no_verdict") from None


async def respond(
    send: Any, status: int, content: bytes, headers: list[tuple[bytes, bytes]], kind: bytes = b"application/json"
) -> None:
    """Send a whole response."""
    head = [(b"content-type", kind), (b"content-length", b"%d" % len(content)), *headers]
    await send({"type": "http.response.start", "status": status, "headers": head})
    await send({"type": "http.response.body", "body": content})


def _illness(route: Any, ill: list[str]) -> list[bool]:
    declared = route.declared
    names = [variant.upstream for variant in declared.variants.values()]
    names += [tier.upstream for tier in declared.tiers] + list(declared.fallbacks)
    return [name in ill for name in names]


def _rating(body: Body) -> int | None:
    rating, thumbs = body.get("rating"), body.get("thumbs")
    if thumbs is not None:
        return THUMBS.get(thumbs) if isinstance(thumbs, str) and rating is None else None
    return rating if type(rating) is int and 1 <= rating <= 5 else None
