"""Put a gateway's parts together from `serving.yaml`: ledger, budgets, metrics, guardrails, caches."""

from __future__ import annotations

import os
from pathlib import Path

from pipelines.serving.absent import NoCaches, no_parts
from pipelines.serving.accounts import open_accounts
from pipelines.serving.cache import AnswerCaches
from pipelines.serving.config import Serving
from pipelines.serving.embedder import Embedder
from pipelines.serving.flights import SharedFlights
from pipelines.serving.guardrails import RouteGuards
from pipelines.serving.logs import Log
from pipelines.serving.parts import Caches, Parts
from pipelines.serving.redis_store import RedisStore
from pipelines.serving.semantic import Semantic
from pipelines.serving.splitting import Splitting


async def assemble(serving: Serving, root: Path, before: Parts | None = None, *, log: Log) -> Parts:
    """Return the parts of a gateway.

    Args:
        serving: The declared file.
        root: Folder of the repository.
        before: The parts in use, on a reload: ledger and metrics go on, budgets and rules are read anew.
        log: Is told what goes wrong beside the requests.

    Raises:
        GatehouseError: Something declared cannot be had.
    """
    parts = before or no_parts()
    ledger, budgets, metrics = open_accounts(serving, root, before, log)
    guards = RouteGuards(serving, root)
    caches = _caches(serving, before)
    flights = parts.flights if isinstance(parts.flights, SharedFlights) else SharedFlights()
    return Parts(ledger, budgets, metrics, guards, caches, flights, parts.splitting or Splitting())


def _caches(serving: Serving, before: Parts | None) -> Caches:
    """Return the caches that are declared; those in use go on, with the limits that are declared now."""
    declared = serving.caches
    if declared.exact is None:
        return NoCaches()
    if before is not None and isinstance(before.caches, AnswerCaches) and before.caches.fits(serving):
        before.caches.renew(serving)
        return before.caches
    url = os.environ.get(declared.redis_url_variable or "", "")
    semantic = None
    if declared.semantic is not None:
        semantic = Semantic(declared.semantic, Embedder(declared.semantic.timeout_s))
    caches = AnswerCaches(serving, RedisStore(url) if url else None, semantic)
    caches.start()
    return caches


async def leave(parts: Parts, kept: Parts) -> None:
    """Close what the parts that are kept do not share."""
    if parts.caches is not kept.caches:
        await parts.caches.close()
    if isinstance(parts.guards, RouteGuards) and parts.guards is not kept.guards:
        parts.guards.close()


async def take_apart(parts: Parts) -> None:
    """Write out and close everything."""
    await parts.caches.close()
    await parts.ledger.close()
