"""What a slot of an environment runs, told by the Rollout and the gateway together."""

from __future__ import annotations

from pipelines.release.kubernetes.gateway import Known
from pipelines.release.kubernetes.rollout import Rolled
from pipelines.release.targets import Slot

PARTLY = "incomplete"
"""What a slot runs of which only a part is there: no manifest, and yet something to complete or to remove."""


def running(rolled: Rolled, slot: Slot, known: Known) -> str:
    """Return the manifest that a slot runs or is about to run, PARTLY, or nothing.

    The same release on changed infrastructure is not deployed as stable before Argo Rollouts has promoted it; and what
    is being made stable is no candidate.

    Args:
        rolled: The Rollout.
        slot: Which side is asked for.
        known: What the gateway knows.
    """
    stable, declared = rolled.stable_manifest, rolled.declared_manifest
    if rolled.stable_set is None:
        return declared if slot == "stable" else ""
    if slot == "candidate":
        placed = "" if declared in (stable, rolled.wanted) else declared
        is_partly = placed != known.candidate and known.candidate not in (stable, rolled.wanted)
        return PARTLY if is_partly else placed
    is_promoting = declared == stable and rolled.is_observed and not rolled.is_settled
    return "" if is_promoting or known.stable != stable else stable
