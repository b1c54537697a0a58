"""Rules and caches of a real gateway: as declared, over a reload, and without a model in its process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import openai

from tests.serving.gateway import KEY, ROOT, Running, declared, upstream
from tests.serving.upstreams import Upstreams

ASKED: dict[str, Any] = {"model": "desk", "messages": [{"role": "user", "content": "I am a@b.com"}], "temperature": 0}


def serving(upstreams: Upstreams, rule: dict[str, Any], **exact: Any) -> dict[str, Any]:
    route = {"tiers": [{"upstream": "one"}], "cache": {}, "guardrails": "rules"}
    return declared(
        {"one": upstream(upstreams.url)},
        {"desk": route},
        guardrails={"rules": {"in": [rule]}},
        caches={"exact": exact},
    )


def test_a_reload_keeps_what_is_remembered_and_takes_new_rules(upstreams: Upstreams, tmp_path: Path) -> None:
    flag = {"rule": "pii", "action": "flag"}
    running = Running(tmp_path, serving(upstreams, flag))
    client = openai.OpenAI(base_url=f"{running.url}/v1", api_key=KEY, max_retries=0)
    try:
        for _ in range(2):
            client.chat.completions.create(**ASKED)
        assert running.reload(serving(upstreams, flag, max_entries=50))["event"] == "reloaded"
        client.chat.completions.create(**ASKED)
        assert running.reload(serving(upstreams, {"rule": "pii", "action": "block"}))["event"] == "reloaded"
        answer = client.chat.completions.create(**ASKED)
        assert answer.choices[0].message.content == "I cannot help with that."
        bad = serving(upstreams, {"rule": "patterns", "name": "p", "patterns": ["(a+)+$"]})
        refused = running.reload(bad)
        assert refused["event"] == "reload_refused"
        assert "more than 256 characters" in refused["problem"]
        client.chat.completions.create(**ASKED)
        rows = running.requests(5)
        assert [row["cache"] for row in rows] == ["miss", "exact", "exact", "off", "off"]
        assert [row["guardrail"] for row in rows] == ["flag"] * 3 + ["block"] * 2
        assert [row["rules"] for row in rows] == [["pii"]] * 5
        assert "a@b.com" not in str(running.lines)
    finally:
        assert running.stop() == 0


def test_the_levels_of_the_cache_can_be_changed_by_a_reload(upstreams: Upstreams, tmp_path: Path) -> None:
    flag = {"rule": "pii", "action": "flag"}
    without = serving(upstreams, flag)
    without["caches"] = {}
    without["routes"]["desk"].pop("cache")
    running = Running(tmp_path, without)
    client = openai.OpenAI(base_url=f"{running.url}/v1", api_key=KEY, max_retries=0)
    try:
        client.chat.completions.create(**ASKED)
        semantic = serving(upstreams, flag)
        semantic["caches"]["semantic"] = {"must_differ": [{"one": "a", "other": "b"}]}
        semantic["routes"]["desk"]["cache"] = {"semantic": True}
        for file in (semantic, serving(upstreams, flag), without):
            assert running.reload(file)["event"] == "reloaded"
            for _ in range(2):
                client.chat.completions.create(**ASKED)
        levels = [row["cache"] for row in running.requests(7)]
        assert levels == ["off", "miss", "exact", "miss", "exact", "off", "off"]
    finally:
        assert running.stop() == 0


def test_the_gateways_process_loads_nothing_heavy_before_it_is_declared() -> None:
    heavy = {"torch", "transformers", "scipy", "tokenizers", "safetensors", "redis"}
    code = f"import pipelines.serving.server, sys; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "[]\n"), done.stderr
