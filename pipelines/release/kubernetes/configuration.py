"""What the gateway of a cluster is given: serving.yaml, gates and prompts, of one version or of two at once.

A release changes prompts as well as models, so while it is under way the gateway knows both: each side its own upstream
and its own prompt. Everything else (keys, guardrails, caches) is stable's until the candidate is.
"""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any, NamedTuple

import yaml

from pipelines.release.kubernetes.route import CANDIDATE, STABLE

HEAD = "# Written by a release or `python -m scripts.pin`: what this environment runs.\n"
NEXT = "next"
"""Marks the candidate's upstreams and prompts in a serving.yaml that knows both sides."""
TESTERS = {"stable": "gatehouse-smoke-stable", "candidate": "gatehouse-smoke-candidate"}
"""Users that are always on one side, whatever the weights: smoke tests ask as them."""


class Version(NamedTuple):
    """One version as the gateway needs it.

    Attributes:
        serving: `serving.yaml` with the environment's patch, every model bound to its image; no candidate in it.
        prompts: Text of each prompt file, by its path.
        gates: Text of its `gates.yaml`.
    """

    serving: dict[str, Any]
    prompts: Mapping[str, str]
    gates: str


class Configuration(NamedTuple):
    """What the gateway mounts.

    Attributes:
        serving: `serving.yaml` as plain values.
        prompts: Text of each prompt file that it names, by its path.
        gates: Text of the `gates.yaml` that the verdict goes by.
    """

    serving: dict[str, Any]
    prompts: dict[str, str]
    gates: str

    def maps(self) -> dict[str, dict[str, str]]:
        """Return the data of the ConfigMaps, by the names that the gateway's volumes have."""
        served = {"gates.yaml": self.gates, "serving.yaml": HEAD + as_yaml(self.serving)}
        return {
            "prompts": {PurePosixPath(path).name: text for path, text in sorted(self.prompts.items())},
            "serving": served,
        }


def beside(stable: Version, candidate: Version) -> Configuration:
    """Return what a gateway is given that serves both; for one version alone give it twice.

    A route takes part where it has the variant `stable` on vLLM. One of a single tier (a model that no training
    touches) takes part only where the two differ: equal answers would hide what the others show.
    """
    serving = copy.deepcopy(stable.serving)
    prompts = dict(stable.prompts)
    twins = {}
    for name, upstream in stable.serving["upstreams"].items():
        if _is_ours(upstream):
            theirs = candidate.serving["upstreams"].get(name, {})
            like = theirs if _is_ours(theirs) else upstream
            twins[name] = f"{name}-{NEXT}"
            serving["upstreams"][twins[name]] = {**like, "base_url": _moved(like["base_url"])}
    for name, route in serving["routes"].items():
        theirs = candidate.serving["routes"].get(name, {})
        side = _side(route)
        if side is None or side["upstream"] not in twins:
            continue
        prompt = _prompt(stable, candidate, route, side, theirs, prompts)
        if "tiers" in route and prompt is None and not _differs(stable, candidate, side["upstream"]):
            continue
        other = {"upstream": twins[side["upstream"]], "weight": 0, "users": [TESTERS["candidate"]]}
        users = [*side.get("users", []), TESTERS["stable"]]
        route["variants"] = {
            "stable": {"weight": 100, **side, "users": users},
            "candidate": other | ({"prompt": prompt} if prompt else {}),
        }
        route.pop("tiers", None)
        route.setdefault("salt", f"{name}-rollout")
    return Configuration(serving, prompts, candidate.gates)


def map_name(name: str, data: Mapping[str, str]) -> str:
    """Return the name of a ConfigMap as kustomize makes it of the same data: what a release makes is what Git declares.

    SHA-256 of its JSON as Go writes it, its letters chosen to spell no words.
    """
    text = json.dumps(
        {"kind": "ConfigMap", "name": "", "data": dict(data)}, sort_keys=True, separators=(",", ":"), ensure_ascii=False
    )
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    digest = hashlib.sha256(text.encode()).hexdigest()[:10]
    return f"{name}-{digest.translate(str.maketrans('013ae', 'ghkmt'))}"


def as_yaml(value: Any) -> str:
    """Return plain values as YAML, keys in their order."""
    return yaml.safe_dump(value, sort_keys=False, allow_unicode=True, width=120)


def alone(configuration: Configuration) -> Version:
    """Return the stable version of what a gateway mounts, as it was before a candidate was put beside it."""
    serving = copy.deepcopy(configuration.serving)
    serving["upstreams"] = {
        name: upstream for name, upstream in serving["upstreams"].items() if not name.endswith(f"-{NEXT}")
    }
    for route in serving["routes"].values():
        variants = route.get("variants", {})
        if variants.get("candidate", {}).get("users") == [TESTERS["candidate"]]:
            del variants["candidate"]
            variants["stable"]["users"].remove(TESTERS["stable"])
            if not variants["stable"]["users"]:
                del variants["stable"]["users"]
    prompts = {path: text for path, text in configuration.prompts.items() if not _is_next(path)}
    return Version(serving, prompts, configuration.gates)


def _is_ours(upstream: Mapping[str, Any]) -> bool:
    return f"//{STABLE}:" in str(upstream.get("base_url", ""))


def _moved(url: str) -> str:
    return url.replace(f"//{STABLE}:", f"//{CANDIDATE}:")


def _side(route: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the one side that a route has, or None where it is split or a ladder of its own."""
    variants, tiers = route.get("variants") or {}, route.get("tiers") or []
    if list(variants) == ["stable"]:
        return dict(variants["stable"])
    return {"upstream": tiers[0]["upstream"]} if len(tiers) == 1 else None


def _prompt(
    stable: Version,
    candidate: Version,
    route: Mapping[str, Any],
    side: Mapping[str, Any],
    theirs: Mapping[str, Any],
    prompts: dict[str, str],
) -> str | None:
    """Return the candidate's own prompt file, added to `prompts`; None where it is stable's."""
    mine = side.get("prompt") or route.get("prompt")
    other = (_side(theirs) or {}).get("prompt") or theirs.get("prompt")
    if other is None or candidate.prompts.get(other) == stable.prompts.get(mine or ""):
        return None
    path = f"prompts/{NEXT}.{PurePosixPath(other).name}"
    prompts[path] = candidate.prompts[other]
    return path


def _differs(stable: Version, candidate: Version, upstream: str) -> bool:
    found: list[Any] = [one.serving["upstreams"].get(upstream, {}).get("digest") for one in (stable, candidate)]
    return bool(found[0] != found[1])


def _is_next(path: str) -> bool:
    return PurePosixPath(path).name.startswith(f"{NEXT}.")
