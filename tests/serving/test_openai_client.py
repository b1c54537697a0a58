"""OpenAI's own client works against the gateway unchanged."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import openai
import pydantic
import pytest

from tests.serving.gateway import KEY, OTHER_KEY, Running, declared, upstream
from tests.serving.upstreams import Upstreams

HELLO = [{"role": "user", "content": "hello there"}]
TOOL = {
    "type": "function",
    "function": {"name": "order", "parameters": {"type": "object", "properties": {"id": {"type": "string"}}}},
}
CALL = {"id": "call_1", "type": "function", "function": {"name": "order", "arguments": '{"id": "A1"}'}}


@pytest.fixture(scope="module")
def gateway(upstreams: Upstreams, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    routes = {"desk": {"tiers": [{"upstream": "one"}]}, "other": {"tiers": [{"upstream": "one"}]}}
    serving = declared({"one": upstream(upstreams.url)}, routes)
    serving["projects"]["second"] = {"routes": ["other"]}
    running = Running(tmp_path_factory.mktemp("root"), serving)
    yield running
    assert running.stop() == 0


def test_a_chat_is_answered(client: openai.OpenAI, upstreams: Upstreams) -> None:
    upstreams.script({"text": "Good day."})
    answer = client.chat.completions.create(model="desk", messages=HELLO, temperature=0)
    assert answer.choices[0].message.content == "Good day."
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (10, 5)
    assert answer._request_id is not None
    assert answer._request_id.startswith("req_")
    sent = upstreams.seen()["seen"][-1]["body"]
    assert sent == {"model": "small", "messages": HELLO, "temperature": 0}


def test_a_stream_brings_every_piece_as_it_comes_and_no_usage_that_nobody_asked_for(
    client: openai.OpenAI, upstreams: Upstreams
) -> None:
    upstreams.script({"pieces": ["Good", " ", "day", "."], "piece_delay_s": 0.02})
    events = list(client.chat.completions.create(model="desk", messages=HELLO, stream=True))
    assert [event.choices[0].delta.content for event in events[1:-1]] == ["Good", " ", "day", "."]
    assert events[-1].choices[0].finish_reason == "stop"
    assert all(event.usage is None for event in events)


def test_a_stream_brings_the_usage_that_was_asked_for(client: openai.OpenAI, upstreams: Upstreams) -> None:
    upstreams.script({"counts": (3, 4)})
    options = {"include_usage": True}
    events = list(client.chat.completions.create(model="desk", messages=HELLO, stream=True, stream_options=options))
    assert events[-1].usage is not None
    assert (events[-1].usage.prompt_tokens, events[-1].usage.completion_tokens) == (3, 4)


def test_tools_are_offered_and_called(client: openai.OpenAI, upstreams: Upstreams) -> None:
    upstreams.script({"calls": [CALL]}, {"calls": [CALL], "pieces": []})
    answer = client.chat.completions.create(model="desk", messages=HELLO, tools=[TOOL])
    assert answer.choices[0].message.tool_calls is not None
    assert answer.choices[0].message.tool_calls[0].function.arguments == '{"id": "A1"}'
    assert upstreams.seen()["seen"][-1]["body"]["tools"] == [TOOL]
    with client.chat.completions.stream(model="desk", messages=HELLO, tools=[TOOL]) as stream:
        final = stream.get_final_completion()
    assert final.choices[0].message.tool_calls is not None
    assert final.choices[0].message.tool_calls[0].function.name == "order"


class Label(pydantic.BaseModel):
    intent: str
    urgent: bool


def test_an_answer_by_json_schema_is_parsed(client: openai.OpenAI, upstreams: Upstreams) -> None:
    upstreams.script({"text": '{"intent": "fault", "urgent": true}'})
    answer = client.chat.completions.parse(model="desk", messages=HELLO, response_format=Label)
    assert answer.choices[0].message.parsed == Label(intent="fault", urgent=True)
    assert upstreams.seen()["seen"][-1]["body"]["response_format"]["type"] == "json_schema"


def test_completions_embeddings_and_models(client: openai.OpenAI, upstreams: Upstreams) -> None:
    upstreams.script({"text": "once upon"}, {"text": "a time"})
    assert client.completions.create(model="desk", prompt="tell").choices[0].text == "once upon"
    streamed = client.completions.create(model="desk", prompt="tell", stream=True)
    assert "".join(event.choices[0].text for event in streamed if event.choices) == "a time"
    assert client.embeddings.create(model="desk", input="x", encoding_format="float").data[0].embedding == [0.5, 0.25]
    assert [model.id for model in client.models.list()] == ["desk", "other"]
    assert client.models.retrieve("desk").id == "desk"


def test_errors_are_the_exceptions_that_openai_s_client_knows(gateway: Running, client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as unknown:
        client.chat.completions.create(model="gpt-9", messages=HELLO)
    assert unknown.value.code == "model_not_found"
    assert unknown.value.param == "model"
    with pytest.raises(openai.AuthenticationError):
        openai.OpenAI(base_url=f"{gateway.url}/v1", api_key="gh-nobody", max_retries=0).models.list()
    with pytest.raises(openai.BadRequestError) as empty:
        client.chat.completions.create(model="desk", messages=[])
    assert empty.value.param == "messages"
    with pytest.raises(openai.APIStatusError) as wrong:
        client.get("/chat/completions", cast_to=object)
    assert wrong.value.status_code == 405


def test_a_project_sees_only_the_routes_it_is_allowed(gateway: Running) -> None:
    other = openai.OpenAI(base_url=f"{gateway.url}/v1", api_key=OTHER_KEY, max_retries=0)
    assert [model.id for model in other.models.list()] == ["other"]
    with pytest.raises(openai.NotFoundError) as hidden:
        other.chat.completions.create(model="desk", messages=HELLO)
    assert "there is other" in str(hidden.value)


def test_what_an_upstream_refuses_reaches_the_client_as_it_was_said(
    client: openai.OpenAI, upstreams: Upstreams
) -> None:
    upstreams.script({"status": 400, "text": "max_tokens is too large"})
    with pytest.raises(openai.BadRequestError, match="max_tokens is too large") as refused:
        client.chat.completions.create(model="desk", messages=HELLO)
    assert refused.value.code == "scripted"
    assert upstreams.seen()["n_asked"] > 0


def test_a_stream_that_breaks_off_is_an_error_and_not_a_short_answer(
    client: openai.OpenAI, upstreams: Upstreams
) -> None:
    upstreams.script({"pieces": ["Good", " day"], "reset_after": 1})
    stream = client.chat.completions.create(model="desk", messages=HELLO, stream=True)
    with pytest.raises(openai.APIError, match="closed the connection"):
        list(stream)


def test_many_requests_at_once_share_one_client(gateway: Running, upstreams: Upstreams) -> None:
    import asyncio

    async def ask_all() -> list[str | None]:
        async with openai.AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key=KEY, max_retries=0) as client:
            answers = await asyncio.gather(
                *(
                    client.chat.completions.create(model="desk", messages=[{"role": "user", "content": str(number)}])
                    for number in range(50)
                )
            )
        return [answer.choices[0].message.content for answer in answers]

    upstreams.script({"text": None, "times": 50})
    assert asyncio.run(ask_all()) == [str(number) for number in range(50)]


def test_the_folder_holds_no_key(gateway: Running) -> None:
    contents = [path.read_bytes() for path in Path(gateway.folder).rglob("*") if path.is_file()]
    assert any(b"req_" in content for content in contents)  # the ledger
    assert not any(KEY.encode() in content for content in contents)
