"""The gateway as one ASGI callable."""

from __future__ import annotations

from pipelines.serving.delivery import Send
from pipelines.serving.logs import Log
from pipelines.serving.pages import Pages
from pipelines.serving.passage import PREDICT, Passage, Receive, Scope
from pipelines.serving.state import State

ENDPOINTS = {"/v1/chat/completions": "chat", "/v1/completions": "completions", "/v1/embeddings": "embeddings"}


class Gateway:
    """Answers OpenAI's HTTP for every declared route.

    Args:
        state: The first state.
        log: Where lines go.

    Attributes:
        state: The present one; set anew by a reload.
        is_draining: Told to stop: `/readyz` says so, and connections end with their answers.
    """

    def __init__(self, state: State, log: Log) -> None:
        self.state = state
        self.log = log
        self.is_draining = False
        self._pages = Pages(self)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return
        path: str = scope["path"]
        endpoint = ENDPOINTS.get(path) or ("predict" if path.startswith(PREDICT) else None)
        if endpoint is None or scope["method"] != "POST":
            await self._pages.answer(scope, receive, send)
            return
        await Passage(self, scope, receive, send, endpoint).run()
