"""Take back what is on its way, or else the last release, because a person says so."""

from __future__ import annotations

from pipelines.core.errors import GateFailed, one_line
from pipelines.release.steps import restore, rollback
from pipelines.release.world import Change, Seen


def begin(seen: Seen, why: str, tag: str = "") -> Change | None:
    """Return the first commit of the way back; None where it is under way.

    Args:
        seen: What was read.
        why: The reason, for people.
        tag: What is meant, where it must be nothing else.

    Raises:
        GateFailed: There is nothing to take back, it was taken back already, or it is not `tag`.
    """
    state = seen.state
    if tag:
        _refuse_other(seen, tag)
    if state.step in ("rollback", "restore"):
        return None
    if state.step in ("idle", "finalise"):  # what is being made champion is released already
        return restore.begin(seen._replace(state=state.changed(candidate=None)), why, is_named=bool(tag))
    return rollback.begin(seen, why, f"{state.weight * 100:g} %" if state.weight else "")


def _refuse_other(seen: Seen, tag: str) -> None:
    state = seen.state
    meant = state.stable if state.step == "idle" else state.candidate or state.leaving
    if meant is not None and meant.tag == tag:
        return
    is_done = state.step == "idle" and any(one.tag == tag for one in state.held)
    said = "was rolled back already" if is_done else "cannot be taken back"
    where = {"idle": "serves", "rollback": "is being taken back", "restore": "is being taken back"}
    rest = f"{meant.tag} {where.get(state.step, 'is on its way')}" if meant else "nothing is released"
    raise GateFailed(f"{one_line(tag, 60)} {said}: {rest}")
