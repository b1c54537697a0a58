"""Guardrails where nobody answers with a text: what is embedded, and what classic models are asked and say."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from tests.serving.gateway import declared, upstream
from tests.serving.inside import ask, make
from tests.serving.rules import guards
from tests.serving.upstreams import Upstreams

RULES = {
    "in": [{"rule": "pii"}, {"rule": "patterns", "name": "internal", "patterns": ["falcon"]}],
    "out": [{"rule": "pii"}, {"rule": "patterns", "name": "internal", "patterns": ["falcon"]}],
}
EMBEDDINGS, PREDICT = "/v1/embeddings", "/v1/predict/desk"


def run(upstreams: Upstreams, folder: Path, path: str, body: Any, reply: Any) -> tuple[int, Any, Any]:
    """Ask once; return the status, the answer and the ledger's row."""
    kind = {"kind": "mlflow", "url": f"{upstreams.url.removesuffix('/v1')}/invocations", "model": "churn"}
    one = kind if path == PREDICT else upstream(upstreams.url)
    route = {"tiers": [{"upstream": "one"}], "guardrails": "rules"}
    file = declared({"one": one}, {"desk": route}, guardrails={"rules": RULES})

    async def scenario() -> tuple[int, Any, Any]:
        gateway, ledger = make(folder, file, guards=guards(file))
        upstreams.script(reply)
        status, _, content = await ask(gateway, body, path)
        return status, json.loads(content), ledger.rows[0]

    return asyncio.run(scenario())


@pytest.mark.parametrize("text", ["I am jane@doe.org", ["hello", "I am jane@doe.org"]])
def test_what_is_embedded_is_masked_and_vectors_are_left_alone(upstreams: Upstreams, tmp_path: Path, text: Any) -> None:
    status, answer, row = run(upstreams, tmp_path, EMBEDDINGS, {"model": "desk", "input": text}, {})
    assert (status, answer["data"][0]["embedding"], row.guardrail) == (200, [0.5, 0.25], "redact")
    assert upstreams.seen()["seen"][-1]["body"]["input"] in ("I am [EMAIL]", ["hello", "I am [EMAIL]"])


@pytest.mark.parametrize("text", ["project Falcon", [1, 2, 3], [[1, 2]]], ids=["word", "tokens", "lists of tokens"])
def test_what_must_not_or_cannot_be_read_is_not_embedded(upstreams: Upstreams, tmp_path: Path, text: Any) -> None:
    n_before = upstreams.seen()["n_asked"]
    status, answer, row = run(upstreams, tmp_path, EMBEDDINGS, {"model": "desk", "input": text}, {})
    assert (status, answer["error"]["code"], row.guardrail, row.usd) == (400, "content_filter", "block", 0)
    assert upstreams.seen()["n_asked"] == n_before
    upstreams.script()


def test_what_a_classic_model_is_asked_and_says_is_masked(upstreams: Upstreams, tmp_path: Path) -> None:
    body = {"dataframe_split": {"columns": ["age", "note"], "data": [[1, "mail jane@doe.org"], [2.5, "none"]]}}
    reply = {"raw": json.dumps({"predictions": [{"label": "jane@doe.org", "score": 0.5}, 1]})}
    status, answer, row = run(upstreams, tmp_path, PREDICT, body, reply)
    assert (status, row.guardrail) == (200, "redact")
    assert upstreams.seen()["seen"][-1]["body"]["dataframe_split"]["data"] == [[1, "mail [EMAIL]"], [2.5, "none"]]
    assert answer == {"predictions": [{"label": "[EMAIL]", "score": 0.5}, 1]}


@pytest.mark.parametrize(("inputs", "said"), [(["falcon"], "x"), (["x"], "falcon")], ids=["asked", "said"])
def test_a_blocked_prediction_is_an_error_for_nobody_reads_a_refusal(
    upstreams: Upstreams, tmp_path: Path, inputs: Any, said: str
) -> None:
    reply = {"raw": json.dumps({"predictions": [said]})}
    status, answer, row = run(upstreams, tmp_path, PREDICT, {"inputs": inputs}, reply)
    assert (status, answer["error"]["code"], row.guardrail) == (400, "content_filter", "block")
    upstreams.script()
