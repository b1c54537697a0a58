"""Put a gateway's parts together from `serving.yaml`: ledger, budgets, metrics, guardrails, caches."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from pipelines.serving.absent import no_parts
from pipelines.serving.accounts import open_accounts
from pipelines.serving.config import Serving
from pipelines.serving.logs import Log
from pipelines.serving.parts import Parts


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
    ledger, budgets, metrics = open_accounts(serving, root, before, log)
    parts = before or no_parts()
    return replace(parts, ledger=ledger, budgets=budgets, metrics=metrics)


async def take_apart(parts: Parts) -> None:
    """Write out and close everything."""
    await parts.caches.close()
    await parts.ledger.close()
