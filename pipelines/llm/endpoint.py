"""One exchange with an OpenAI-compatible endpoint: send a request, time the answer, explain what went wrong."""

from __future__ import annotations

import asyncio
import email.utils
import os
import re
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from pipelines.core.errors import ConfigError
from pipelines.core.params import EndpointModel
from pipelines.llm.answers import Request
from pipelines.llm.completion import BrokenCompletion, Completion, CompletionReader, TooLarge

if TYPE_CHECKING:
    from openai import APIStatusError, AsyncOpenAI

MAX_RETRY_AFTER_S = 300.0
RETRIED_STATUSES = frozenset({408, 429, *range(500, 600)})
SHOWN_CHARACTERS = 200


class Timed(NamedTuple):
    """An answer and how long it took.

    Attributes:
        completion: The answer.
        latency_ms: From sending to the last byte.
        ttft_ms: To the first piece that holds text; None if not streamed or without text.
    """

    completion: Completion
    latency_ms: float
    ttft_ms: float | None


class Failure(Exception):
    """One attempt that brought no answer; the message says why.

    Attributes:
        is_retried: Asking again may help.
        is_charged: The server may have charged for it, which for a hard limit is the same as having done so.
        retry_after_s: How long the server asks to wait, or None.
    """

    def __init__(
        self, reason: str, *, is_retried: bool = True, is_charged: bool = True, retry_after_s: float | None = None
    ) -> None:
        super().__init__(reason)
        self.is_retried = is_retried
        self.is_charged = is_charged
        self.retry_after_s = retry_after_s


class Endpoint:
    """A connection pool to one declared endpoint; belongs to one event loop.

    Args:
        declared: The endpoint.
        key: Its API key, or empty. It appears in no message.
    """

    def __init__(self, declared: EndpointModel, key: str) -> None:
        self.declared = declared
        self._key = key
        self._sdk: AsyncOpenAI | None = None
        self._limit_name = "max_tokens"

    def __str__(self) -> str:
        return f"{self.declared.base_url} (model {self.declared.model})"

    async def send(self, request: Request) -> Timed:
        """Ask once.

        Raises:
            Failure: No answer came, or none that is whole.
            ConfigError: No request can succeed: the key (401) or the URL or model (404) is refused.
        """
        import httpx2  # the transport of the SDK, whose errors pass through while a body is read
        import openai

        sdk = self._connect()
        limit_name = self._limit_name
        options = _options(self.declared, request, limit_name)
        if not self._key:
            options["extra_headers"] = {"Authorization": openai.Omit()}
        reader = CompletionReader(request.max_tokens)
        first: float | None = None
        start = time.perf_counter()
        try:
            # The SDK's own timeout starts anew with every byte: a server that drips would never run into it.
            async with (
                asyncio.timeout(self.declared.timeout_s),
                sdk.chat.completions.with_streaming_response.create(**options) as response,
            ):
                async for piece in response.iter_bytes():
                    if reader.feed(piece) and first is None:
                        first = time.perf_counter()
            latency_ms = (time.perf_counter() - start) * 1000
            ttft_ms = (first - start) * 1000 if first is not None and self.declared.stream else None
            return Timed(reader.finish(), latency_ms, ttft_ms)
        except openai.APIStatusError as error:
            raise self._explain(error, limit_name) from None  # its cause may repeat the key
        except (openai.APITimeoutError, TimeoutError):
            raise Failure(f"no whole answer within {self.declared.timeout_s:g} s") from None
        except openai.APIConnectionError as error:
            cause = error.__cause__
            never_sent = isinstance(cause, httpx2.ConnectError | httpx2.UnsupportedProtocol)
            raise Failure(f"connection failed ({type(cause).__name__})", is_charged=not never_sent) from None
        except httpx2.HTTPError as error:
            raise Failure(f"connection lost before the answer was whole ({type(error).__name__})") from None
        except TooLarge as error:
            raise Failure(str(error), is_retried=False) from None
        except BrokenCompletion as error:
            raise Failure(self._safe(f"not a chat completion: {error}")) from None

    async def close(self) -> None:
        """End all connections."""
        if self._sdk is not None:
            await self._sdk.close()

    def _connect(self) -> AsyncOpenAI:
        if self._sdk is None:
            from openai import AsyncOpenAI, Omit

            # What the environment holds for OpenAI itself is no business of another endpoint.
            headers: dict[str, Any] = {"OpenAI-Organization": Omit(), "OpenAI-Project": Omit()}
            self._sdk = AsyncOpenAI(
                base_url=self.declared.base_url,
                api_key=self._key or "none",
                timeout=self.declared.timeout_s,
                max_retries=0,
                default_headers=headers,
            )
        return self._sdk

    def _explain(self, error: APIStatusError, limit_name: str) -> Failure | ConfigError:
        status = error.status_code
        body = error.body if isinstance(error.body, dict) else {}
        said = self._safe(str(body.get("message") or error.response.text))
        if status == 401:
            variable = self.declared.api_key_variable
            cure = f"check the key in {variable}" if variable else "declare its api_key_variable in params.yaml"
            return ConfigError(f"{self} answered 401 ({said}); {cure}")
        if status == 404:
            return ConfigError(f"{self} answered 404 ({said}); check base_url and model in params.yaml")
        if status == 400 and "max_completion_tokens" in said and limit_name == "max_tokens":
            self._limit_name = "max_completion_tokens"  # OpenAI's newer models know the limit by this name only
            return Failure(f"answered 400 ({said})", is_charged=False)
        wait_s = retry_after_s(error.response.headers, now=time.time())
        is_patient = wait_s is None or wait_s <= MAX_RETRY_AFTER_S
        has_credit = error.code != "insufficient_quota"
        more = "" if is_patient else f" and asks to wait {wait_s:.0f} s; try again later"
        return Failure(
            f"answered {status} ({said}){more}",
            is_retried=status in RETRIED_STATUSES and is_patient and has_credit,
            is_charged=False,
            retry_after_s=wait_s,
        )

    def _safe(self, text: str) -> str:
        """Return one short line without the key, which some servers repeat."""
        text = text.replace(self._key, "***") if self._key else text
        text = " ".join("".join(part if part.isprintable() else " " for part in text).split())
        return text if len(text) <= SHOWN_CHARACTERS else text[: SHOWN_CHARACTERS - 1] + "…"


def _options(declared: EndpointModel, request: Request, limit_name: str) -> dict[str, Any]:
    options: dict[str, Any] = {
        "model": declared.model,
        "messages": [{"role": message.role, "content": message.content} for message in request.messages],
        "temperature": request.temperature,
        "top_p": request.top_p,
        limit_name: request.max_tokens,
    }
    if declared.stream:
        options |= {"stream": True, "stream_options": {"include_usage": True}}
    return options


def retry_after_s(headers: Mapping[str, str], *, now: float) -> float | None:
    """Return how long a server asks to wait: Retry-After in seconds or as an HTTP date, or retry-after-ms.

    Args:
        headers: Response headers, names in lower case or case-insensitive.
        now: Seconds since the epoch.

    Returns:
        Seconds, 0 or more; None if it does not say, or says nonsense.
    """
    number = re.compile(r"[0-9]{1,12}(\.[0-9]{1,12})?")
    if number.fullmatch(text := headers.get("retry-after-ms", "").strip()):
        return float(text) / 1000
    if number.fullmatch(text := headers.get("retry-after", "").strip()):
        return float(text)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(text).timestamp() - now)
    except (ValueError, OverflowError, IndexError, TypeError):
        return None


def read_key(declared: EndpointModel) -> str:
    """Return the endpoint's key from the environment, or an empty text if it declares none.

    Raises:
        ConfigError: The variable is not set, or holds what cannot be a key.
    """
    name = declared.api_key_variable
    if name is None:
        return ""
    key = os.environ.get(name, "").strip()
    if not key:
        raise ConfigError(f"environment variable {name} is not set; it must hold the key of {declared.base_url}")
    if not re.fullmatch(r"[!-~]+", key):
        raise ConfigError(f"environment variable {name} holds something that cannot be a key (spaces, non-ASCII)")
    return key
