"""Answer requests through any OpenAI-compatible endpoint: concurrent, patient, cached, never above the spend limit."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator, Sequence
from secrets import SystemRandom
from types import TracebackType
from typing import Any, TypeVar

from pipelines.core.errors import ConfigError
from pipelines.core.params import EndpointModel
from pipelines.llm.answers import Answer, AnswerCache, Progress, Request, cache_key
from pipelines.llm.cost import Budget, cost_usd, estimate_tokens, most_prompt_tokens
from pipelines.llm.endpoint import Endpoint, Failure, Timed, read_key
from pipelines.llm.json_values import cropped
from pipelines.llm.spending import Ledger

Result = TypeVar("Result")
FIRST_BACKOFF_S = 0.5
MAX_BACKOFF_S = 30.0


class Client:
    """Answers requests through an OpenAI-compatible endpoint (an `Answerer`).

    The spend limit holds for one day (UTC) and all that book in the same ledger, else for the life of one client:
    before an attempt is sent, the most that it can cost is reserved. An attempt whose answer was lost on the way counts
    as charged in full.

    Args:
        declared: The endpoint.
        cache: Where answers are kept as they arrive; None keeps none.
        ledger: Where all commands book what they spend at this endpoint; None: this client's limit is its own.
        first_backoff_s: Upper end of the first random wait between attempts; it doubles with every attempt.

    Raises:
        ConfigError: The key's environment variable is not set, or holds what cannot be a key.
    """

    def __init__(
        self,
        declared: EndpointModel,
        *,
        cache: AnswerCache | None,
        ledger: Ledger | None = None,
        first_backoff_s: float = FIRST_BACKOFF_S,
    ) -> None:
        self.declared = declared
        self.budget = Budget(declared.max_spend_usd, ledger)
        self._cache = cache
        self._first_backoff_s = first_backoff_s
        self._key = read_key(declared)
        self._runner: asyncio.Runner | None = None
        self._endpoint = Endpoint(declared, self._key)
        self._settled = asyncio.Condition()
        self._resume_at = 0.0  # the server asked everybody to wait until then
        self._overrun = 1.0  # how far the server once went beyond what a request may cost
        self._n_lost = 0
        self._n_estimated = 0
        self._n_failed_in_a_row = 0
        self._is_spent = ""  # why nothing more is asked, here for good
        self._is_down = ""  # and here until the next call

    @property
    def identity(self) -> str:
        """Everything about the endpoint that can change an answer; part of every cache key."""
        return f"endpoint/2 {self.declared.base_url.rstrip('/')} {self.declared.model}"

    @property
    def notes(self) -> list[str]:
        """What the command must tell its user: spend limit reached, endpoint down, guessed tokens, lost answers."""
        notes = [note for note in (self._is_spent, self._is_down) if note]
        if self._n_estimated:
            notes.append(f"{self._endpoint} did not count the tokens of {self._n_estimated} answers: cost is a guess")
        if self._n_lost:
            notes.append(f"{self._n_lost} answers of {self._endpoint} were lost on the way; each counts as charged")
        if self._overrun > 1:
            notes.append(f"{self._endpoint} charged {self._overrun:.1f} times the most that a request may cost")
        return notes

    def answer(self, requests: Sequence[Request], *, on_progress: Progress | None = None) -> list[Answer]:
        """Answer all requests, in their order, from the cache where it can; equal ones are asked and paid once.

        Returns:
            One answer per request; a repeated one counts as cached. `infra_error`: the endpoint failed, limited, or
            the budget is spent; `model_error`: the endpoint answered properly, without any text.

        Raises:
            ConfigError: The endpoint refuses the key (401) or does not know the URL or model (404).
        """
        return self._run(lambda: self._answer_all(requests, on_progress))

    def time_one(self, request: Request) -> Answer:
        """Answer one request without the cache, with `latency_ms`, and `ttft_ms` where the answer is streamed.

        Only the attempt that brought the answer is timed. The connection is kept between calls.
        """
        return self._run(lambda: self._ask(request, is_timed=True))

    def close(self) -> None:
        """End connections; the client can be used again."""
        if self._runner is not None:
            self._runner.run(self._endpoint.close())
            self._leave_loop()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def _run(self, work: Callable[[], Coroutine[Any, Any, Result]]) -> Result:
        # One loop for all calls, so that a timed request does not pay for a new connection.
        self._runner = self._runner or asyncio.Runner()
        self._is_down, self._n_failed_in_a_row = "", 0
        try:
            with _sigterm_as_sigint():
                return self._runner.run(work())
        except KeyboardInterrupt:
            self._leave_loop()
            raise

    def _leave_loop(self) -> None:
        runner, self._runner = self._runner, None
        self._endpoint, self._settled = Endpoint(self.declared, self._key), asyncio.Condition()
        if runner is not None:
            runner.close()

    async def _answer_all(self, requests: Sequence[Request], on_progress: Progress | None) -> list[Answer]:
        keys = [cache_key(self.identity, request) for request in requests]
        asked, times = dict(zip(keys, requests, strict=True)), Counter(keys)
        cached = {key: self._cache.get_answer(key) if self._cache else None for key in asked}
        answers = {key: answer for key, answer in cached.items() if answer is not None}
        n_done = n_cached = sum(times[key] for key in answers)
        if on_progress and n_cached:
            on_progress(n_cached, n_cached)

        async def work(queue: Iterator[str]) -> None:
            nonlocal n_done
            for key in queue:
                answers[key] = await self._ask(asked[key], is_timed=False)
                if self._cache:
                    self._cache.put_answer(key, answers[key])
                n_done += times[key]
                if on_progress:
                    on_progress(n_done, n_cached)

        queue = iter([key for key in asked if key not in answers])
        workers = [asyncio.create_task(work(queue)) for _ in range(self.declared.concurrency)]
        try:
            await asyncio.gather(*workers)
        finally:
            for worker in workers:
                worker.cancel()
            await asyncio.gather(*workers, return_exceptions=True)
        first = {key: place for place, key in reversed(list(enumerate(keys)))}
        return [
            answers[key]
            if first[key] == place or answers[key].state != "scored"
            else answers[key]._replace(is_cached=True)
            for place, key in enumerate(keys)
        ]

    async def _ask(self, request: Request, *, is_timed: bool) -> Answer:
        reason = ""
        for attempt in range(self.declared.max_attempts):
            await self._wait(attempt)
            worst_usd = self._overrun * self._worst_usd(request)
            if self._is_down or not await self._reserve(worst_usd):
                return _missing(self._is_down or self._is_spent)
            charged_usd = worst_usd
            try:
                answer = self._answer(request, await self._endpoint.send(request), is_timed=is_timed)
                if not answer.is_estimated:
                    charged_usd = cost_usd(self.declared.price, answer.prompt_tokens, answer.completion_tokens)
                self._n_failed_in_a_row = 0
                return answer
            except Failure as failure:
                reason = str(failure)
                if failure.is_charged:
                    self._n_lost += 1
                else:
                    charged_usd = 0.0
                if not failure.is_retried:
                    return _missing(f"{self._endpoint}: {reason}")
                self._resume_at = max(self._resume_at, time.monotonic() + (failure.retry_after_s or 0))
            except ConfigError:
                charged_usd = 0.0
                raise
            finally:
                await self._settle(worst_usd, charged_usd)
        self._count_failure(reason)
        return _missing(f"{self._endpoint}: {reason}, {self.declared.max_attempts} attempts")

    async def _wait(self, attempt: int) -> None:
        """Wait before an attempt: exponential backoff with full jitter, and as long as the server asked for."""
        if attempt:
            longest_s = min(MAX_BACKOFF_S, self._first_backoff_s * 2 ** (attempt - 1))
            await asyncio.sleep(SystemRandom().uniform(0, longest_s))
        while (wait_s := self._resume_at - time.monotonic()) > 0:
            # The server named one instant to all; without jitter all would come back in it.
            await asyncio.sleep(wait_s + SystemRandom().uniform(0, self._first_backoff_s))

    async def _reserve(self, worst_usd: float) -> bool:
        async with self._settled:
            while not self._is_spent and not self.budget.reserve(worst_usd):
                if self.budget.n_reserved:
                    await self._settled.wait()  # a request under way may cost less than it holds
                else:
                    self._is_spent = (
                        f"spend limit of {self.budget.limit_usd:g} USD reached at {self._endpoint} "
                        f"({self.budget.total_usd():.6f} spent{' today (UTC)' if self.budget.ledger else ''}, "
                        f"the next request may cost {worst_usd:.6f}); "
                        "raise max_spend_usd in params.yaml and run again: what was answered is kept"
                    )
            return not self._is_spent

    async def _settle(self, worst_usd: float, charged_usd: float) -> None:
        self.budget.settle(worst_usd, charged_usd)
        if charged_usd > worst_usd > 0:
            # It charges more than it was allowed to; from now on every request holds more.
            self._overrun *= charged_usd / worst_usd
        async with self._settled:
            self._settled.notify_all()

    def _worst_usd(self, request: Request) -> float:
        return cost_usd(self.declared.price, most_prompt_tokens(request.messages), request.max_tokens)

    def _count_failure(self, reason: str) -> None:
        # Without this, an endpoint that is gone would cost every row all its attempts and waits.
        self._n_failed_in_a_row += 1
        if self._n_failed_in_a_row >= 2 * self.declared.concurrency and not self._is_down:
            n_failed = self._n_failed_in_a_row
            self._is_down = f"{self._endpoint} failed {n_failed} requests in a row, the rest was not asked: {reason}"

    def _answer(self, request: Request, timed: Timed, *, is_timed: bool) -> Answer:
        completion = timed.completion
        has_text = bool(completion.text.strip())
        text = cropped(completion.text) if request.wants_json else completion.text
        # A count of 0 for a text that is there is no count.
        n_prompt, n_completion = completion.prompt_tokens or None, completion.completion_tokens
        if has_text and n_completion == 0:
            n_completion = None
        is_estimated = n_prompt is None or n_completion is None
        self._n_estimated += is_estimated
        return Answer(
            text=text if has_text else "",
            state="scored" if has_text else "model_error",
            error="" if has_text else f"the model answered without text (finish_reason {completion.finish_reason})",
            finish_reason=completion.finish_reason,
            prompt_tokens=n_prompt or estimate_tokens("".join(message.content for message in request.messages)),
            completion_tokens=estimate_tokens(completion.text) if n_completion is None else n_completion,
            latency_ms=timed.latency_ms if is_timed else None,
            ttft_ms=timed.ttft_ms if is_timed else None,
            is_estimated=is_estimated,
        )


@contextlib.contextmanager
def _sigterm_as_sigint() -> Iterator[None]:
    """Let SIGTERM, where the command handles it, cancel the work as Ctrl-C does instead of breaking the loop."""
    handler = signal.getsignal(signal.SIGTERM)
    if not callable(handler) or threading.current_thread() is not threading.main_thread():
        yield
        return
    signal.signal(signal.SIGTERM, lambda number, frame: signal.raise_signal(signal.SIGINT))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, handler)


def _missing(reason: str) -> Answer:
    return Answer("", "infra_error", reason, "error", 0, 0)
