"""A guard model behind HTTP: it reads the conversation and says one of its words."""

from __future__ import annotations

import asyncio
import os
import re
from typing import Any, Literal
from urllib.parse import urlsplit

import orjson

from pipelines.serving.config_policies import RemoteRule
from pipelines.serving.connections import Broken, Timeouts
from pipelines.serving.exchange import Exchange
from pipelines.serving.parts import PASS, Body, Inspection
from pipelines.serving.pool import Pool
from pipelines.serving.text_rules import decide
from pipelines.serving.texts import Unreadable, change_answer, change_request

MOST_BYTES = 1_048_576
MOST_TOKENS = 20
RULE = "remote"
UNAVAILABLE = "remote_unavailable"


class Failure(Exception):
    """The guard gave no answer that can be understood."""


class RemoteGuard:
    """Asks the guard model; where it does not answer in time, does what is declared for that."""

    def __init__(self, declared: RemoteRule) -> None:
        self._declared = declared
        timeouts = Timeouts(declared.timeout_s, declared.timeout_s, declared.timeout_s, declared.timeout_s)
        self._is_openai = declared.kind == "openai"
        url = f"{declared.base_url.rstrip('/')}/chat/completions" if self._is_openai else declared.base_url
        self._pool = Pool(url, timeouts, MOST_BYTES)
        parts = urlsplit(url)
        key = os.environ.get(declared.api_key_variable or "", "")
        secret = f"Authorization: Bearer {key}\r\n" if key else ""
        self._head = (
            f"POST {parts.path or '/'} HTTP/1.1\r\nHost: {parts.netloc}\r\n{secret}"
            "Content-Type: application/json\r\nAccept-Encoding: identity\r\n"
        ).encode("latin-1")
        self._blocked = _words(declared.blocked_words)
        self._allowed = _words(declared.allowed_words)

    async def inspect_in(self, exchange: Exchange, body: Body) -> Inspection:
        """Inspect a request."""
        return await self._inspect(exchange, "in", body, None)

    async def inspect_out(self, exchange: Exchange, body: Body, answer: Body) -> Inspection:
        """Inspect a whole answer to the request `body`."""
        return await self._inspect(exchange, "out", body, answer)

    def close(self) -> None:
        """Close idle connections; those at work close when they are done."""
        self._pool.close()

    async def _inspect(
        self, exchange: Exchange, direction: Literal["in", "out"], body: Body, answer: Body | None
    ) -> Inspection:
        try:
            async with asyncio.timeout(self._declared.timeout_s):
                is_blocked = await self._ask(conversation(body, answer))
        except (Failure, Broken, TimeoutError, Unreadable):
            decide(exchange, direction, UNAVAILABLE, self._declared.on_failure)
            return Inspection(self._declared.on_failure, rule=UNAVAILABLE)
        if not is_blocked:
            return PASS
        decide(exchange, direction, RULE, self._declared.action)
        return Inspection(self._declared.action, rule=RULE)

    async def _ask(self, messages: list[dict[str, str]]) -> bool:
        if self._is_openai:
            asked: Body = {
                "model": self._declared.model,
                "messages": messages,
                "temperature": 0,
                "max_tokens": MOST_TOKENS,
            }
        else:
            asked = {"inputs": ["\n".join(message["content"] for message in messages)]}
        content = orjson.dumps(asked)
        data = b"%bContent-Length: %d\r\n\r\n%b" % (self._head, len(content), content)
        connection = await self._pool.take()
        try:
            try:
                await connection.send(data, streams=False)
            except Broken as broken:
                if broken.cause != "stale":
                    raise
                connection = await self._pool.take(fresh=True)
                await connection.send(data, streams=False)
            if connection.status != 200:
                raise Failure
            return self._read(connection.content())
        finally:
            self._pool.give(connection)

    def _read(self, content: bytes) -> bool:
        """Tell whether an answer blocks."""
        try:
            value: Any = orjson.loads(content)
            if self._is_openai:
                said = value["choices"][0]["message"]["content"]
            else:
                said = orjson.dumps(value["predictions"]).decode()
        except (orjson.JSONDecodeError, KeyError, IndexError, TypeError):
            raise Failure from None
        if not isinstance(said, str):
            raise Failure
        if self._blocked.search(said):
            return True
        if not self._allowed.search(said):
            raise Failure
        return False


def conversation(body: Body, answer: Body | None) -> list[dict[str, str]]:
    """Return what the guard reads: what others than the application said, then the answer.

    Raises:
        Unreadable: It cannot be read.
    """
    asked: list[str] = []
    said: list[str] = []

    def hear(role: str, text: str) -> str:
        if role not in ("system", "developer"):
            asked.append(text)
        return text

    def hear_answer(text: str) -> str:
        said.append(text)
        return text

    change_request(body, hear)
    messages = [{"role": "user", "content": "\n".join(asked)}]
    if answer is not None:
        change_answer(answer, hear_answer)
        messages.append({"role": "assistant", "content": "\n".join(said)})
    return messages


def _words(words: tuple[str, ...]) -> re.Pattern[str]:
    return re.compile("|".join(rf"(?<!\w){re.escape(word)}(?!\w)" for word in words), re.IGNORECASE)
