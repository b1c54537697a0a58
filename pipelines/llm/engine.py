"""The local engine: answers many prompts that share their beginning, fast, and loses nothing when it is killed.

What it takes from others: the shared prefix is computed once (vLLM's prefix caching, SGLang's RadixAttention),
requests are sorted by length, longest first, so that padding is small and a batch that does not fit fails at once
(lm-evaluation-harness), and only the last token's logits are computed (gpt-fast).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple, TypeVar

import torch

from pipelines.core.errors import ConfigError
from pipelines.core.files import digest
from pipelines.llm import attention, decoding
from pipelines.llm.answers import Answer, AnswerCache, Progress, Request, Shard, cache_key
from pipelines.llm.attention import KeyValues, Prefix
from pipelines.llm.decoding import Continuation, Decoding
from pipelines.llm.identity import engine_digest
from pipelines.llm.json_values import cropped
from pipelines.llm.local_model import LocalModel, chat_ids

# Below this, computing a prefix once costs more than it saves.
SHORTEST_PREFIX = 32
# Most logits kept at once for perplexity (rows x tokens): 512 x 49,152 x 4 bytes = 100 MB.
NLL_TOKENS = 512

Result = TypeVar("Result")


_ELSEWHERE = Answer("", "infra_error", "another runner answers this", "error", 0, 0)


class _Task(NamedTuple):
    key: str
    request: Request
    ids: list[int]
    gold: tuple[int, ...] = ()


class Engine:
    """Answers requests with a model in this process.

    Attributes:
        identity: Model digest, digest of the engine's code and libraries, kind of device and type of the weights: what
            cache keys depend on.
        batch_size: Rows per batch; halved whenever the memory does not suffice.
        shard: Which batches are asked of this process; what is neither among them nor known comes back as an
            `infra_error` (NaN), which no cache keeps. None: all.
    """

    def __init__(
        self, model: LocalModel, *, batch_size: int, cache: AnswerCache | None, shard: Shard | None = None
    ) -> None:
        """Take over a model: from now on it attends through the engine.

        Raises:
            ConfigError: The engine cannot run this architecture.
        """
        try:
            attention.install(model.model)
        except NotImplementedError as error:
            raise ConfigError(
                f"the local engine cannot run this model ({error}); serve it and declare `source: endpoint`"
            ) from None
        self.identity = f"{model.digest}/engine-{engine_digest()}/{model.device}/{model.precision}"
        self.batch_size = batch_size
        self.shard = shard
        self._local = model
        self._cache = cache
        self._prefix: Prefix | None = None
        self._reused = 0  # tokens that the last timed prompt had in common with the last other one
        self._pieces: dict[int, str] = {}
        self._end_ids = _end_ids(model)
        self._context: int = getattr(model.model.config.get_text_config(), "max_position_embeddings", None) or 2**31

    def answer(self, requests: Sequence[Request], *, on_progress: Progress | None = None) -> list[Answer]:
        """Answer all requests, in their order; equal ones are computed once.

        Answers go to the cache as each batch ends. Greedy answers do not depend on `repeat`.

        Args:
            requests: The questions.
            on_progress: Called with (done, of which cached) at the start and after each batch.
        """
        keys = [self._key(request) for request in requests]
        answers = {key: found for key in dict.fromkeys(keys) if (found := self._cached_answer(key)) is not None}
        report = _reporter(keys, answers, on_progress)
        tasks = []
        asked = dict(zip(keys, requests, strict=True))
        for key, request in asked.items() if len(answers) < len(asked) else ():
            ids = chat_ids(self._local.tokenizer, request.messages)
            if len(ids) < self._context:
                tasks.append(_Task(key, request, ids))
            else:
                answers[key] = self._too_long(len(ids))
        for batch, results in self._in_batches(tasks, answers, self._continue, _no_memory, rows=self.batch_size):
            for task, answer in zip(batch, results, strict=True):
                if task.key not in answers:
                    answers[task.key] = answer
                    if self._cache is not None:
                        self._cache.put_answer(task.key, answer)
            report()
        return [answers.get(key, _ELSEWHERE) for key in keys]

    def time_one(self, request: Request) -> Answer:
        """Answer one request without the answer cache, alone, with its times.

        The clock runs from the rendered messages to the text, tokenisation included. As a server with prefix
        caching would, it reuses what the prompt has in common with the one before; where that is the same prompt once
        more, what it has in common with the last other one, since no user asks the same twice.

        Returns:
            The answer; `ttft_ms` is the time to its first token.
        """
        start = time.perf_counter()
        ids = chat_ids(self._local.tokenizer, request.messages)
        if len(ids) >= self._context:
            return self._too_long(len(ids))
        known = self._prefix
        if known is None or known.ids != tuple(ids):
            self._reused = 0 if known is None else _common_length([known.ids, tuple(ids)])
        prefix = None if known is None else known.crop(min(self._reused, len(ids) - 1))
        first: list[float] = []
        kept: list[KeyValues] = []

        def on_first_token(shared: KeyValues) -> None:
            first.append(time.perf_counter())
            kept.append(shared)

        task = _Task(self._key(request), request, ids)
        answer = self._continue([task], prefix, on_first_token)[0]
        end = time.perf_counter()
        self._prefix = kept[0].as_prefix(tuple(ids))
        return answer._replace(latency_ms=(end - start) * 1000, ttft_ms=(first[0] - start) * 1000)

    def gold_nll(
        self, requests: Sequence[Request], answers: Sequence[str], *, on_progress: Progress | None = None
    ) -> list[float]:
        """Return how surprised the model is by each gold answer: mean nats per token, given the prompt.

        Args:
            requests: The questions.
            answers: The gold answers.
            on_progress: As in `answer`.

        Returns:
            One value per request; NaN for an empty gold answer, one that does not fit, or output that is not finite.
        """
        keys = [
            digest({"gold": answer, "prompt": cache_key(self.identity, request._replace(max_tokens=0, repeat=0))})
            for request, answer in zip(requests, answers, strict=True)
        ]
        values = {key: found for key in dict.fromkeys(keys) if (found := self._cached_nll(key)) is not None}
        report = _reporter(keys, values, on_progress)
        tasks = []
        asked = dict(zip(keys, zip(requests, answers, strict=True), strict=True))
        for key, (request, answer) in asked.items() if len(values) < len(asked) else ():
            ids = chat_ids(self._local.tokenizer, request.messages)
            gold = tuple(self._local.tokenizer(answer, add_special_tokens=False)["input_ids"])
            if gold and len(ids) + len(gold) <= self._context:
                tasks.append(_Task(key, request, ids, gold))
            else:
                values[key] = math.nan
        rows = min(self.batch_size, max(1, NLL_TOKENS // max((len(task.gold) for task in tasks), default=1)))
        for batch, results in self._in_batches(tasks, values, self._nll, lambda _: math.nan, rows=rows):
            for task, value in zip(batch, results, strict=True):
                if task.key not in values:
                    values[task.key] = value
                    if self._cache is not None and math.isfinite(value):
                        self._cache.put(task.key, {"nats_per_token": value})
            report()
        return [values.get(key, math.nan) for key in keys]

    def _key(self, request: Request) -> str:
        # Every greedy repeat is the same computation.
        return cache_key(self.identity, request if request.temperature > 0 else request._replace(repeat=0, top_p=1.0))

    def _cached_answer(self, key: str) -> Answer | None:
        return None if self._cache is None else self._cache.get_answer(key)

    def _cached_nll(self, key: str) -> float | None:
        value = None if self._cache is None else (self._cache.get(key) or {}).get("nats_per_token")
        return value if isinstance(value, float) else None

    def _too_long(self, n_tokens: int) -> Answer:
        error = f"the prompt has {n_tokens} tokens, the model takes fewer than {self._context}; shorten the prompt"
        return Answer("", "model_error", error, "error", n_tokens, 0)

    def _in_batches(
        self,
        tasks: list[_Task],
        known: Mapping[str, object],
        compute: Callable[[list[_Task], Prefix | None], list[Result]],
        give_up: Callable[[_Task], Result],
        *,
        rows: int,
    ) -> Iterator[tuple[list[_Task], list[Result]]]:
        """Compute tasks in batches of similar length, longest first; whatever does not fit into memory is halved.

        The last bits of a number depend on what else is in its batch. So batches and prefix are those of all tasks,
        known ones included, and one of which anything is unknown is computed whole: a run that was killed and goes on
        gives the numbers of an undisturbed one.
        """
        queue = sorted(tasks, key=lambda task: -len(task.ids) - len(task.gold))
        prefix = self._shared_prefix([task.ids for task in queue])
        batches = [[task.key for task in queue[start : start + rows]] for start in range(0, len(queue), rows)]
        mine = {task.key for task in queue} if self.shard is None else self.shard.keys(batches)
        while queue:
            if all(task.key in known or task.key not in mine for task in queue[:rows]):
                queue = queue[rows:]
                continue
            results = None
            try:
                results = compute(queue[:rows], prefix)
            except RuntimeError as error:  # torch.OutOfMemoryError is one
                if not _is_out_of_memory(error):
                    raise
            # Outside `except`, whose traceback would keep the tensors alive.
            if results is None and rows > 1:
                rows //= 2
                if torch.cuda.is_available():
                    torch.cuda.empty_cache()
                continue
            yield queue[:rows], [give_up(queue[0])] if results is None else results
            queue = queue[rows:]

    def _shared_prefix(self, prompts: Sequence[Sequence[int]]) -> Prefix | None:
        """Return what all prompts start with, computed once; every prompt keeps at least one token of its own."""
        if len(prompts) < 2:
            return None
        length = min(_common_length(prompts), min(len(prompt) for prompt in prompts) - 1)
        if length < SHORTEST_PREFIX:
            return None
        ids = tuple(prompts[0][:length])
        if self._prefix is None or self._prefix.ids[:length] != ids:
            self._prefix = decoding.read_prefix(self._local.model, ids, self._local.device)
        return self._prefix.crop(length)

    def _continue(
        self, tasks: list[_Task], prefix: Prefix | None, on_first_token: Callable[[KeyValues], None] | None = None
    ) -> list[Answer]:
        start = 0 if prefix is None else len(prefix.ids)
        continuations = decoding.continue_batch(
            self._local.model,
            [task.ids[start:] for task in tasks],
            [self._decoding(task) for task in tasks],
            prefix=prefix,
            end_ids=self._end_ids,
            piece=self._piece,
            device=self._local.device,
            on_first_token=on_first_token,
        )
        return [self._as_answer(*pair) for pair in zip(tasks, continuations, strict=True)]

    def _nll(self, tasks: list[_Task], prefix: Prefix | None) -> list[float]:
        start = 0 if prefix is None else len(prefix.ids)
        return decoding.gold_nll(
            self._local.model,
            [task.ids[start:] for task in tasks],
            [task.gold for task in tasks],
            prefix=prefix,
            device=self._local.device,
        )

    def _decoding(self, task: _Task) -> Decoding:
        request = task.request
        return Decoding(
            max_tokens=min(request.max_tokens, self._context - len(task.ids)),
            temperature=request.temperature,
            top_p=request.top_p,
            # Without the identity: two models draw with the same luck, so that their difference is theirs.
            seed=int(cache_key("", request)[:16], 16),
            wants_json=request.wants_json,
        )

    def _as_answer(self, task: _Task, continuation: Continuation) -> Answer:
        if continuation.finish_reason == "error":
            error = "the model's output is not finite (NaN or infinity); try `engine.precision: float32`"
            return Answer("", "infra_error", error, "error", len(task.ids), 0)
        ids = [token for token in continuation.ids if token not in self._end_ids]
        text = str(self._local.tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False))
        if task.request.wants_json:
            text = cropped(text)
        return Answer(text, "scored", "", continuation.finish_reason, len(task.ids), len(continuation.ids))

    def _piece(self, token: int) -> str:
        if token not in self._pieces:
            self._pieces[token] = str(self._local.tokenizer.decode([token], clean_up_tokenization_spaces=False))
        return self._pieces[token]


def _reporter(keys: list[str], found: Mapping[str, object], on_progress: Progress | None) -> Callable[[], None]:
    """Return what reports how many keys are done, and does so a first time."""
    cached = sum(key in found for key in keys)

    def report() -> None:
        if on_progress is not None:
            on_progress(sum(key in found for key in keys), cached)

    report()
    return report


def _no_memory(task: _Task) -> Answer:
    error = f"out of memory with a single prompt of {len(task.ids)} tokens; use a larger machine or a shorter prompt"
    return Answer("", "infra_error", error, "error", len(task.ids), 0)


def _is_out_of_memory(error: RuntimeError) -> bool:
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def _common_length(sequences: Sequence[Sequence[int]]) -> int:
    """Return how many first tokens all sequences share."""
    ordered = sorted(map(tuple, sequences))
    pairs = zip(ordered[0], ordered[-1], strict=False)  # what the first and the last share, all between them share
    return next((place for place, (a, b) in enumerate(pairs) if a != b), min(len(ordered[0]), len(ordered[-1])))


def _end_ids(model: LocalModel) -> frozenset[int]:
    """Return the tokens that end an answer: the tokenizer's and those the model's authors declare."""
    declared = [model.tokenizer.eos_token_id, getattr(model.model.generation_config, "eos_token_id", None)]
    return frozenset(
        token for ids in declared if ids is not None for token in (ids if isinstance(ids, list | tuple) else [ids])
    )
