"""A guard model behind HTTP, a real process: its words, its silence, and its death."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from pipelines.serving.exchange import Decision
from tests.serving.rules import exchange, guard
from tests.serving.upstreams import Upstreams

BODY: dict[str, Any] = {
    "messages": [{"role": "system", "content": "be kind"}, {"role": "user", "content": "how do I pick a lock?"}]
}
ANSWER = {"choices": [{"message": {"role": "assistant", "content": "like so"}}]}


def rule(upstreams: Upstreams, **more: Any) -> dict[str, Any]:
    return {"rule": "remote", "base_url": upstreams.url, "model": "guard", "timeout_s": 0.3, **more}


def inspect(declared: dict[str, Any], *, is_answer: bool = False) -> tuple[str, list[Decision]]:
    noted = exchange()

    async def scenario() -> str:
        if is_answer:
            return (await guard(out=[declared]).inspect_out(noted, BODY, ANSWER)).action
        return (await guard(**{"in": [declared]}).inspect_in(noted, BODY)).action

    return asyncio.run(scenario()), noted.decisions


@pytest.mark.parametrize(
    ("said", "action"),
    [("safe", "pass"), ("unsafe\nS2", "block"), ("Safe.", "pass"), ("UNSAFE", "block"), ("safe, not unsafe", "block")],
)
def test_its_word_decides(upstreams: Upstreams, said: str, action: str) -> None:
    upstreams.script({"text": said})
    assert inspect(rule(upstreams))[0] == action


def test_it_reads_what_others_said_and_the_answer_and_not_the_applications_own_words(upstreams: Upstreams) -> None:
    upstreams.script({"text": "safe"}, {"text": "unsafe"})
    assert inspect(rule(upstreams))[0] == "pass"
    assert upstreams.seen()["seen"][-1]["body"]["messages"] == [{"role": "user", "content": "how do I pick a lock?"}]
    action, decisions = inspect(rule(upstreams, action="flag"), is_answer=True)
    assert (action, decisions) == ("pass", [Decision("out", "remote", "flag")])
    last = upstreams.seen()["seen"][-1]["body"]
    assert last["messages"][1] == {"role": "assistant", "content": "like so"}
    assert last["model"] == "guard"


@pytest.mark.parametrize(
    "reply",
    [
        {"hangs": True}, {"delay_s": 1}, {"status": 500}, {"status": 401}, {"raw": "garbage"}, {"raw": "{}"},
        {"text": "maybe"}, {"text": ""}, {"reset_after": 0}, {"raw": '{"choices": [{"message": {"content": 5}}]}'},
        {"calls": []},
    ],
)  # fmt: skip
@pytest.mark.parametrize("on_failure", ["block", "flag"])
def test_where_it_says_nothing_that_can_be_understood_what_is_declared_is_done(
    upstreams: Upstreams, reply: dict[str, Any], on_failure: str
) -> None:
    upstreams.script(reply if reply != {"calls": []} else {"calls": [{"id": "1"}]})
    action, decisions = inspect(rule(upstreams, on_failure=on_failure))
    assert action == ("block" if on_failure == "block" else "pass")
    assert decisions == [Decision("in", "remote_unavailable", on_failure)]  # type: ignore[arg-type]
    upstreams.script()


def test_a_guard_that_is_down_and_back_is_asked_again(upstreams: Upstreams) -> None:
    down = Upstreams()

    async def scenario() -> None:
        rules = guard(**{"in": [rule(down)]})
        down.script({"text": "safe"})
        assert (await rules.inspect_in(exchange(), BODY)).action == "pass"
        down.kill()
        assert (await rules.inspect_in(exchange(), BODY)).action == "block"
        down.start()
        down.script({"text": "safe"})
        assert (await rules.inspect_in(exchange(), BODY)).action == "pass"
        down.kill()

    asyncio.run(scenario())


def test_a_classic_model_guards_too(upstreams: Upstreams) -> None:
    url = upstreams.url.removesuffix("/v1") + "/invocations"
    declared = rule(upstreams, kind="invocations", base_url=url, blocked_words=["toxic"], allowed_words=["fine"])
    for said, action in (("toxic", "block"), ("fine", "pass"), ("else", "block")):
        upstreams.script({"raw": json.dumps({"predictions": [{"label": said, "score": 0.9}]})})
        assert inspect(declared)[0] == action
    assert upstreams.seen()["seen"][-1]["body"] == {"inputs": ["how do I pick a lock?"]}
