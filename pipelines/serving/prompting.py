"""Chat requests made of a route's prompt."""

from __future__ import annotations

import orjson

from pipelines.core.errors import ConfigError
from pipelines.llm.prompts import Prompt, render
from pipelines.serving.errors import invalid
from pipelines.serving.parts import Body


def with_prompt(prompt: Prompt, body: Body) -> Body:
    """Return a chat request with the prompt's system messages and parameters, where the client sent none."""
    messages = body.get("messages")
    found = dict(body)
    if isinstance(messages, list) and not any(
        isinstance(message, dict) and message.get("role") in ("system", "developer") for message in messages
    ):
        found["messages"] = [*_system(prompt), *messages]
    return _with_parameters(prompt, found)


def from_inputs(prompt: Prompt, body: Body) -> Body:
    """Return the chat request for `{"inputs": {...}}`: the prompt, rendered as training and evaluation render it.

    Raises:
        Refused: An input is missing or no text, number or boolean.
    """
    inputs = body.get("inputs")
    if not isinstance(inputs, dict):
        raise invalid("a JSON object `inputs` is needed", param="inputs")
    for name in prompt.variables():
        if not isinstance(inputs.get(name), str | int | float):
            raise invalid(f"input {name!r} is missing or no text", param=f"inputs.{name}")
    try:
        messages = render(prompt, {name: str(inputs[name]) for name in prompt.variables()})
    except ConfigError as error:
        raise invalid(str(error), param="inputs") from None
    found: Body = {"messages": [message._asdict() for message in messages]}
    if isinstance(body.get("user"), str):
        found["user"] = body["user"]
    return _with_parameters(prompt, found)


def _system(prompt: Prompt) -> list[Body]:
    return [
        {"role": message.role, "content": message.content}
        for message in prompt.messages
        if message.role == "system" and "{{" not in message.content
    ]


def _with_parameters(prompt: Prompt, body: Body) -> Body:
    parameters = prompt.model_parameters
    if "max_tokens" not in body and "max_completion_tokens" not in body:
        body["max_tokens"] = parameters.max_tokens
    body.setdefault("temperature", parameters.temperature)
    if parameters.top_p != 1.0:
        body.setdefault("top_p", parameters.top_p)
    if prompt.json_schema is not None and "response_format" not in body:
        body["response_format"] = {"type": "json_schema", "json_schema": orjson.loads(prompt.json_schema)}
    return body
