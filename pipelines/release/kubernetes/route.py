"""The HTTPRoute that holds the weights: Argo Rollouts writes them, the gateway reads them. Pure functions of it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from pipelines.core.files import canonical_json
from pipelines.release.kubernetes.api import Resource

STABLE, CANDIDATE = "vllm-stable", "vllm-candidate"
TERMS = "gatehouse.dev/rollout"
"""Annotation: what the gateway must know beside the weights, as JSON."""
DIGITS = 9


def share(route: Resource | None) -> float:
    """Return the candidate's share of traffic, 0 to 1; where there is no route, nobody gets the candidate."""
    weights = {STABLE: 0, CANDIDATE: 0}
    for rule in (route or {}).get("spec", {}).get("rules", []):
        for backend in rule.get("backendRefs", []):
            if backend["name"] in weights:
                weights[backend["name"]] = backend.get("weight", 1)  # Gateway API: 1 where none is written
    total = sum(weights.values())
    return round(weights[CANDIDATE] / total, DIGITS) if total else 0.0


def terms(route: Resource | None) -> dict[str, Any]:
    """Return the terms that are written there; nothing where there are none that can be read."""
    text = (route or {}).get("metadata", {}).get("annotations", {}).get(TERMS, "")
    try:
        value = json.loads(text)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def with_terms(route: Resource, wanted: Mapping[str, Any]) -> Resource | None:
    """Return the merge patch that writes terms (removes them where there are none), or None where they are there."""
    text = canonical_json(dict(wanted)) if wanted else None
    if route["metadata"].get("annotations", {}).get(TERMS) == text:
        return None
    return {"metadata": {"annotations": {TERMS: text}}}


def without_candidate(route: Resource) -> Resource | None:
    """Return the merge patch that sends everybody to stable, or None where everybody is."""
    if share(route) == 0.0:
        return None
    rules = [
        {**rule, "backendRefs": [_weighed(backend) for backend in rule.get("backendRefs", [])]}
        for rule in route["spec"]["rules"]
    ]
    return {"spec": {"rules": rules}}


def _weighed(backend: Resource) -> Resource:
    weights = {STABLE: 100, CANDIDATE: 0}
    return {**backend, "weight": weights.get(backend["name"], backend.get("weight", 1))}
