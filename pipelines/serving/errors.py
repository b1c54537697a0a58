"""What a client is told when it gets no answer: OpenAI's format, so that its clients raise the right exception."""

from __future__ import annotations

from typing import Literal

import orjson

Kind = Literal[
    "invalid_request_error",
    "authentication_error",
    "permission_error",
    "not_found_error",
    "rate_limit_error",
    "api_error",
]


class Refused(Exception):
    """A request that ends with an error.

    Attributes:
        status: HTTP status.
        message: For people; no secret and no content, but for what the client itself named (a model, a key).
        kind: OpenAI's `type`.
        code: OpenAI's `code`: for programs.
        param: Which key of the request it is about.
        retry_after_s: When asking again may help; None where it says nothing.
        is_final: Asking again is useless: tells OpenAI's client not to.
        closes: The connection ends with this answer (its rest was not read).
    """

    def __init__(
        self,
        status: int,
        message: str,
        kind: Kind,
        code: str,
        *,
        param: str | None = None,
        retry_after_s: int | None = None,
        is_final: bool = False,
        closes: bool = False,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.kind = kind
        self.code = code
        self.param = param
        self.retry_after_s = retry_after_s
        self.is_final = is_final
        self.closes = closes

    def content(self) -> bytes:
        """Return the body."""
        return orjson.dumps(
            {"error": {"message": self.message, "type": self.kind, "param": self.param, "code": self.code}}
        )

    def headers(self) -> list[tuple[bytes, bytes]]:
        """Return the headers that go with it, beside type and length."""
        found = []
        if self.retry_after_s is not None:
            found.append((b"retry-after", b"%d" % self.retry_after_s))
        if self.is_final:
            found.append((b"x-should-retry", b"false"))
        if self.closes:
            found.append((b"connection", b"close"))
        if self.status == 401:
            found.append((b"www-authenticate", b"Bearer"))
        return found


def invalid(message: str, *, param: str | None = None, code: str = "invalid_value", status: int = 400) -> Refused:
    """Return the refusal of a request that is wrong in itself."""
    return Refused(status, message, "invalid_request_error", code, param=param)


def unauthorized() -> Refused:
    """Return the refusal of a missing or unknown key; which of the two is not said."""
    return Refused(401, "no valid API key: send `Authorization: Bearer KEY`", "authentication_error", "invalid_api_key")


def unknown_model(name: str, known: list[str]) -> Refused:
    """Return the refusal of a model that no route is named after, or that the project may not use."""
    message = f"the model {name[:80]!r} does not exist here; there is {', '.join(known)}"
    return Refused(404, message, "not_found_error", "model_not_found", param="model")


def busy(what: str, retry_after_s: int) -> Refused:
    """Return the refusal of a request for which there is no room now."""
    return Refused(
        429, f"{what} is busy; try again later", "rate_limit_error", "overloaded", retry_after_s=retry_after_s
    )


def over_budget(message: str, retry_after_s: int, *, is_unknown: bool) -> Refused:
    """Return the refusal of a project that may not spend: 429 until its budget begins anew, 503 while it is unknown."""
    if is_unknown:
        return unavailable(message, "budget_unknown", retry_after_s=retry_after_s)
    kind: Kind = "rate_limit_error"
    return Refused(429, message, kind, "budget_exceeded", retry_after_s=retry_after_s, is_final=True)


def unavailable(message: str, code: str, *, retry_after_s: int = 5) -> Refused:
    """Return the refusal of a request that cannot be served now, whoever asks."""
    return Refused(503, message, "api_error", code, retry_after_s=retry_after_s)


def upstream_failed(message: str, code: str, *, status: int = 502) -> Refused:
    """Return what a client is told when every upstream that could have answered failed."""
    return Refused(status, message, "api_error", code)
