"""The gateway's own `serving.yaml` on this machine: the stable version's, with both versions as variants."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pipelines.core.files import replacing
from pipelines.release.local.declared import Answering, DeclaredAt, taking_part
from pipelines.release.targets import Slot
from pipelines.serving.config_upstreams import ProcessUpstream

SPLIT = "split.json"
PROJECT = "release"
AT_ONCE = 16
"""Requests that a batching model process gets at once, whatever one without batching was declared to get."""
NEVER = 1_000_000
TESTER = {"stable": "smoke-test-stable", "candidate": "smoke-test-candidate"}
"""Users that always get one side."""
Declared = dict[str, Any]


class Placed(NamedTuple):
    """One slot: what it runs, and where each of its models answers (base URL without /v1)."""

    declared: DeclaredAt
    urls: Mapping[str, str]


def write(folder: Path, stable: Placed, candidate: Placed | None, routes: Sequence[str] = ()) -> Declared:
    """Write the gateway's files below its folder, the serving file last, and return what that says.

    Args:
        folder: The gateway's.
        stable: What serves.
        candidate: What is tried beside it, or None.
        routes: Which routes it serves; by default those that a release concerns.
    """
    prompts: dict[str, bytes] = {}
    routes = routes or taking_part(stable.declared, candidate.declared if candidate else None)
    value = generated(stable, candidate, routes, lambda path, content: prompts.setdefault(path, content))
    for path, content in prompts.items():
        with replacing(folder / path) as stream:
            stream.write(content)
    with replacing(folder / "serving.yaml", "w") as stream:
        stream.write(json.dumps(value, indent=1, ensure_ascii=False) + "\n")  # JSON is YAML
    return value


def generated(
    stable: Placed, candidate: Placed | None, taken: Sequence[str], keep: Callable[[str, bytes], Any]
) -> Declared:
    """Return the serving file.

    No route has a cache: replayed rows repeat, and each is to be asked. No route has a fallback, and no upstream is
    left alone after failures: what the candidate does wrong is to be counted, and the release acts on it.

    Args:
        stable: What serves.
        candidate: What is tried beside it, or None.
        taken: Which routes it serves.
        keep: Is given the path and the bytes of each prompt file.
    """
    sides: list[tuple[Slot, Placed]] = [("stable", stable)]
    if candidate is not None:
        sides.append(("candidate", candidate))
    serving = stable.declared.serving
    upstreams: Declared = {}
    prices: Declared = {}
    routes: Declared = {}
    for name in taken:
        declared = stable.declared.answering[name]
        variants: Declared = {}
        for slot, placed in sides:
            one = placed.declared.answering[name]
            upstream = f"{slot}-{name}"
            upstreams[upstream] = _upstream(one, placed)
            prices[one.upstream.model] = placed.declared.serving.prices[one.upstream.model].model_dump(mode="json")
            # Without a split in force everything goes to stable, whatever stands here.
            variants[slot] = {"upstream": upstream, "weight": 100 if slot == "stable" else 0, "users": [TESTER[slot]]}
            if one.prompt is not None:
                path = f"prompts/{placed.declared.manifest.name[:16]}/{one.prompt}"
                keep(path, placed.declared.file(one.prompt))
                variants[slot]["prompt"] = path
        routes[name] = {"salt": declared.route.salt or name, "variants": variants}
        if declared.route.guardrails is not None:
            routes[name]["guardrails"] = declared.route.guardrails
    rules = {route["guardrails"] for route in routes.values() if "guardrails" in route}
    guardrails = {name: _plain(one) for name, one in serving.guardrails.items() if name in rules}
    value: Declared = {
        "schema_version": 1,
        "limits": _plain(serving.limits),
        "upstreams": upstreams,
        "prices": prices,
        "routes": routes,
        "projects": {PROJECT: {}},
        "metrics": _plain(serving.metrics),
    }
    if guardrails:
        value["guardrails"] = guardrails
    if candidate is not None:
        value["rollout"] = {"weights": {"file": SPLIT}}
    return value


def _upstream(one: Answering, placed: Placed) -> Declared:
    declared = _plain(one.upstream)
    declared["breaker"] = {"failures": NEVER}
    if not isinstance(one.upstream, ProcessUpstream):
        return declared
    for key in ("port", "arguments", "threads", "start_timeout_s"):
        declared.pop(key, None)
    model = placed.declared.manifest.models.get(one.model)
    return {
        **declared,
        "kind": "openai",
        "base_url": f"{placed.urls[one.model]}/v1",
        "digest": model.digest if model else "",
        "max_active": max(one.upstream.max_active, AT_ONCE),
    }


def _plain(declared: Any) -> Declared:
    value: Declared = declared.model_dump(mode="json", by_alias=True, exclude_unset=True)
    return value
