"""Remembered answers are bound to all that decides them: models, prompt, rules, and when the next tier is asked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.serving.gateway import declared, upstream
from tests.serving.inside import make

URL = "http://127.0.0.1:9/v1"


def identity(folder: Path, *, escalate: dict[str, Any] | None = None, **small: Any) -> str:
    folder.mkdir(exist_ok=True)
    upstreams = {"small": upstream(URL, **small), "large": upstream(URL, "large")}
    tiers = [{"upstream": "small", "escalate": escalate or {"tools": True}}, {"upstream": "large"}]
    gateway, _ = make(folder, json.loads(json.dumps(declared(upstreams, {"desk": {"tiers": tiers}}))))
    return gateway.state.routes["desk"].side("", "", "req_1").identity


def test_what_is_declared_alike_shares_its_answers(tmp_path: Path) -> None:
    assert identity(tmp_path, drops=["seed", "top_k"]) == identity(tmp_path, drops=["top_k", "seed"])
    assert identity(tmp_path) == identity(tmp_path, max_active=3)


@pytest.mark.parametrize(
    "changed",
    [
        {"escalate": {"on": ["cut_off"]}},
        {"escalate": {"tools": True, "prompt_characters": 100}},
        {"drops": ["response_format"]},
        {"digest": "1" * 64},
    ],
    ids=["another reason to escalate", "a further reason", "a key that is dropped", "another model"],
)
def test_whatever_decides_an_answer_decides_who_may_be_given_it(changed: dict[str, Any], tmp_path: Path) -> None:
    assert identity(tmp_path) != identity(tmp_path, **changed)
