"""From an admitted request to its answer: guardrails, caches, one flight per question, tiers and fallbacks."""

from __future__ import annotations

import orjson

from pipelines.llm.json_values import cropped
from pipelines.serving.errors import Refused, invalid, upstream_failed
from pipelines.serving.exchange import GONE, Exchange
from pipelines.serving.failures import Failed
from pipelines.serving.parts import Answer, Body, Guard, Question
from pipelines.serving.replies import is_cut_off, is_truncated
from pipelines.serving.routing import ReadyRoute, Side, Step, escalates, needs_whole, plan
from pipelines.serving.streams import replay

TEXTS = ("chat", "completions")
"""What is answered with a text."""


class Ask:
    """One request on its way.

    Attributes:
        endpoint: What upstreams are asked for; `chat` for a prediction by prompt.
        body: The request as it is sent on.
        wants_stream: As a stream of events.
        wants_usage: The client asked for the token counts of a stream.
        is_gone: The client left, but others wait for the same answer.
    """

    __slots__ = (
        "body",
        "endpoint",
        "exchange",
        "guard",
        "is_gone",
        "question",
        "route",
        "side",
        "steps",
        "wants_stream",
        "wants_usage",
    )

    def __init__(self, exchange: Exchange, route: ReadyRoute, side: Side, endpoint: str, body: Body) -> None:
        self.exchange = exchange
        self.route = route
        self.side = side
        self.endpoint = endpoint
        self.body = body
        self.guard: Guard | None = route.guard
        self.steps: tuple[Step, ...] = plan(side, body)
        self.wants_stream = endpoint in TEXTS and bool(body.get("stream"))
        options = body.get("stream_options")
        self.wants_usage = isinstance(options, dict) and bool(options.get("include_usage"))
        self.question: Question | None = None
        self.is_gone = False

    def status(self) -> int:
        """Return what is booked for a request whose answer is there."""
        return GONE if self.is_gone else 200

    @property
    def is_passed_through(self) -> bool:
        """Tell whether a stream can be passed on as it comes."""
        return not needs_whole(self.steps) and not (self.guard is not None and self.guard.needs_whole_answer)


async def inspect_in(ask: Ask) -> bool:
    """Apply the guardrails on the way in; return whether the request may go on."""
    if ask.guard is None:
        return True
    inspection = await ask.guard.inspect_in(ask.exchange, ask.body)
    if inspection.action == "redact":
        assert inspection.value is not None
        ask.body = inspection.value
    return inspection.action != "block"


async def answer_whole(ask: Ask) -> Answer:
    """Ask until there is an answer that may be given, or the refusal text.

    Raises:
        Refused: Nobody answered.
    """
    answer = await _ask_steps(ask)
    if ask.guard is None or not ask.guard.has_out or ask.endpoint == "embeddings":  # numbers say nothing
        return answer
    inspection = await ask.guard.inspect_out(ask.exchange, ask.body, answer.value)
    if inspection.action == "retry":
        answer = await _ask_steps(ask)
        inspection = await ask.guard.inspect_out(ask.exchange, ask.body, answer.value)
    if inspection.action == "redact":
        assert inspection.value is not None
        return answer._replace(value=inspection.value, content=orjson.dumps(inspection.value))
    return refusal(ask) if inspection.action in ("block", "retry") else answer


async def _ask_steps(ask: Ask) -> Answer:
    failure: Refused | None = None
    for place, step in enumerate(ask.steps):
        try:
            answer = await step.upstream.ask(ask.exchange, ask.endpoint, ask.body)
        except Failed as failed:
            if failed.is_clients_fault:
                raise failed.refused from None
            failure = failure or failed.refused
            continue
        is_last = place == len(ask.steps) - 1
        if step.escalate is None or is_last or not escalates(step, answer.value):
            if ask.exchange.admitted is not None:
                ask.exchange.admitted.is_truncated = is_truncated(answer.value)
            return answer
    raise failure or upstream_failed("no upstream answered", "upstream_error")


def may_be_cached(ask: Ask, answer: Answer) -> bool:
    """Tell whether an answer may be remembered: whole, untouched by guardrails, and of no fallback."""
    own = ask.side.steps[: len(ask.side.steps) - len(ask.route.declared.fallbacks)]
    is_own = any(step.upstream.name == answer.upstream for step in own)
    return is_own and ask.exchange.guardrail in ("pass", "flag") and not is_cut_off(answer.value)


def refusal(ask: Ask) -> Answer:
    """Return the answer that the route gives instead of a blocked one.

    Raises:
        Refused: Nobody would read a text: for embeddings and the predictions of classic models.
    """
    assert ask.guard is not None
    if ask.endpoint not in TEXTS:
        raise invalid("the route's guardrails do not let this pass", code="content_filter")
    exchange, text = ask.exchange, ask.guard.refusal
    is_chat = ask.endpoint == "chat"
    part: Body = {"message": {"role": "assistant", "content": text}} if is_chat else {"text": text}
    value: Body = {
        "id": exchange.id,
        "object": "chat.completion" if is_chat else "text_completion",
        "created": int(exchange.time_s),
        "model": exchange.model or ask.route.name,
        "choices": [{"index": 0, **part, "finish_reason": "content_filter"}],
        "usage": {
            "prompt_tokens": exchange.prompt_tokens,
            "completion_tokens": exchange.completion_tokens,
            "total_tokens": exchange.prompt_tokens + exchange.completion_tokens,
        },
    }
    return Answer(value, orjson.dumps(value), exchange.model, exchange.upstream, 0, 0)


def rendered(ask: Ask, answer: Answer) -> bytes:
    """Return an answer as its client asked for it: a stream of events, a prediction, or as it is."""
    exchange = ask.exchange
    if ask.wants_stream:
        exchange.ttft_ms = exchange.elapsed_ms()
        return replay(answer.value, ask.endpoint, with_usage=ask.wants_usage)
    if exchange.endpoint == "predict" and ask.endpoint == "chat":
        return prediction(ask, answer)
    return answer.content


def prediction(ask: Ask, answer: Answer) -> bytes:
    """Return the body of /v1/predict: the answer of a prompt, parsed where the prompt wants JSON."""
    exchange = ask.exchange
    text = answer.value["choices"][0]["message"].get("content") or ""
    output: object = text
    if ask.side.prompt is not None and ask.side.prompt.wants_json():
        output = _parsed(text) if isinstance(text, str) else text
    value = {
        "id": exchange.id,
        "route": exchange.route,
        "variant": exchange.variant,
        "model": exchange.model,
        "output": output,
        "finish_reason": answer.value["choices"][0].get("finish_reason"),
        "usage": {"prompt_tokens": answer.prompt_tokens, "completion_tokens": answer.completion_tokens},
    }
    return orjson.dumps(value)


def _parsed(text: str) -> object:
    """Return the JSON value of an answer, cut off where evaluation cuts it off, or its text where that is none."""
    try:
        output: object = orjson.loads(text)
    except orjson.JSONDecodeError:
        output = None
    if isinstance(output, dict | list):  # nothing to cut off, as nearly always
        return output
    text = cropped(text)
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return text
