"""The weights of one HTTPRoute: a cluster's release writes them there, and the gateway deals by them."""

from __future__ import annotations

import asyncio
import json
import random
from typing import Any

from pipelines.core.errors import ConfigError, ServiceError, one_line
from pipelines.core.split import Split, of_terms
from pipelines.serving.config_rollout import HttpRoute
from pipelines.serving.kubernetes_api import WATCH_S, Gone, KubernetesApi
from pipelines.serving.split_sources import Taker

TERMS = "gatehouse.dev/rollout"
"""The annotation that holds what a weight alone does not say, as JSON."""
GROUP = "/apis/gateway.networking.k8s.io/v1"
SHORTEST_PAUSE_S = 0.5
LONGEST_PAUSE_S = 15.0


class RouteWatch:
    """Watches one HTTPRoute.

    It is listed and then watched from the list's version. The version of the object itself would not do: where it was
    not changed for long, the server has forgotten what came after and answers 410 for ever.

    Args:
        declared: Which.
        taker: Is told what it says.
    """

    def __init__(self, declared: HttpRoute, taker: Taker) -> None:
        self._declared = declared
        self._taker = taker
        self._path = f"{GROUP}/namespaces/{declared.namespace}/httproutes?fieldSelector=metadata.name%3D{declared.name}"
        self._pause_s = SHORTEST_PAUSE_S

    async def follow(self) -> None:
        """Follow the route through whatever happens to the API server; never returns."""
        while True:
            try:
                await self._converse()
            except Gone:
                self._pause_s = SHORTEST_PAUSE_S
            except ServiceError as error:
                self._taker.lose(str(error))
            await asyncio.sleep(random.uniform(0.5, 1.0) * self._pause_s)  # noqa: S311 - replicas should not come at once
            self._pause_s = min(2 * self._pause_s, LONGEST_PAUSE_S)

    async def _converse(self) -> None:
        api = KubernetesApi()
        loop = asyncio.get_running_loop()
        try:
            version = self._take_list(await api.read(self._path))
            while True:
                began_s = loop.time()
                version = await self._watch(api, version)
                self._taker.confirm()
                self._pause_s = SHORTEST_PAUSE_S
                if loop.time() - began_s < 1.0:  # a server that ends watches at once is not asked without end
                    await asyncio.sleep(1.0)
        finally:
            api.close()

    def _take_list(self, found: Any) -> str:
        try:
            version = str(found["metadata"]["resourceVersion"])
            routes = [item for item in found["items"] or () if item["metadata"]["name"] == self._declared.name]
        except (KeyError, TypeError):
            raise ServiceError("the API server's list of routes is none") from None
        if routes:
            self._take(routes[0])
        else:
            self._taker.take(None)
        return version

    async def _watch(self, api: KubernetesApi, version: str) -> str:
        """Take what happens after a version; return the last one."""
        terms = f"&watch=true&allowWatchBookmarks=true&timeoutSeconds={WATCH_S}&resourceVersion={version}"
        async for event in api.watch(self._path + terms):
            kind, value = event.get("type"), event["object"]
            metadata = value.get("metadata")
            if not isinstance(metadata, dict):
                raise ServiceError("the API server sends events that are none")
            version = str(metadata.get("resourceVersion", version))
            if kind == "BOOKMARK":
                self._taker.confirm()
            elif kind == "DELETED":
                self._taker.take(None)
            else:
                self._take(value)
        return version

    def _take(self, route: Any) -> None:
        try:
            self._taker.take(split_of(self._declared, route))
        except ConfigError as error:
            self._taker.refuse(error)


def split_of(declared: HttpRoute, route: Any) -> Split:
    """Return the split that an HTTPRoute says.

    The candidate's share is its part of both weights; a weight that is not written is 1. A share of nothing needs no
    terms, so that taking a candidate back works whatever else is broken.

    Raises:
        ConfigError: It says none.
    """
    shown = f"HTTPRoute {declared.namespace}/{declared.name}"
    stable, candidate = _weights(declared, route, shown)
    if stable + candidate == 0:
        raise ConfigError(f"{shown}: both weights are 0; nobody could be served")
    share = candidate / (stable + candidate)
    if share == 0:
        return Split(weight=0)
    metadata = route.get("metadata")
    annotations = metadata.get("annotations") if isinstance(metadata, dict) else None
    text = annotations.get(TERMS) if isinstance(annotations, dict) else None
    if text is None:
        raise ConfigError(f"{shown}: annotation {TERMS} is missing; a weight alone belongs to no rollout")
    try:
        terms = json.loads(text)
    except (ValueError, TypeError, RecursionError):
        terms = None
    if not isinstance(terms, dict):
        raise ConfigError(f"{shown}: annotation {TERMS} is no JSON object, found {one_line(str(text), 80)!r}")
    try:
        return of_terms(share, terms)
    except ConfigError as error:
        raise ConfigError(f"{shown}: annotation {TERMS}: {error}") from None


def _weights(declared: HttpRoute, route: Any, shown: str) -> tuple[int, int]:
    names = declared.stable, declared.candidate
    found = set()
    try:
        for rule in route["spec"].get("rules") or ():
            refs = {ref["name"]: ref.get("weight", 1) for ref in rule.get("backendRefs") or () if ref["name"] in names}
            if refs:
                found.add((refs.get(declared.stable, 0), refs.get(declared.candidate, 0)))
    except (KeyError, TypeError, AttributeError):
        raise ConfigError(f"{shown}: does not have the form of one") from None
    if len(found) != 1:
        what = "its rules have different weights" if found else f"no backendRef names {names[0]} or {names[1]}"
        raise ConfigError(f"{shown}: {what}")
    stable, candidate = found.pop()
    if not all(type(weight) is int and weight >= 0 for weight in (stable, candidate)):
        raise ConfigError(f"{shown}: weights must be whole numbers from 0 on")
    return stable, candidate
