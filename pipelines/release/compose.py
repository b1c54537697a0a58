"""Put a release's page together from what Git holds of it."""

from __future__ import annotations

from collections.abc import Callable

from pipelines.core.errors import GateFailed, GatehouseError
from pipelines.core.records import Record
from pipelines.release import tags
from pipelines.release.compare import Comparison, compare, facts
from pipelines.release.notes import notes
from pipelines.release.page import Page
from pipelines.release.standing import Standing
from pipelines.release.store import Store
from pipelines.release.story import story

RecordOf = Callable[[str], Record | None]


def compose(store: Store, found: Standing, record_of: RecordOf, url: str = "") -> Page:
    """Return the page of a release.

    Args:
        store: Where the state lies.
        found: How it stands.
        record_of: Reads the record of an input digest.
        url: Of the repository's page; empty where there is none.

    Raises:
        ConfigError: The tag is gone: GitHub would make a new one for a page without.
        GateFailed: It names something else by now.
        ServiceError: The remote cannot be reached.
    """
    history, state = found.history, found.state
    tag_object = tags.object_of(store.root, history.tag, store.remote)
    if tag_object != history.tag_object:
        raise GateFailed(f"tag {history.tag}: was moved since its release; its page is left as it is")
    before = found.before.commit if found.before else ""
    told = story(history, manifest=found.manifest, comparison=_compared(store, found, record_of))
    body = "\n\n".join([told.strip(), notes(store.root, history.tag, tag_object, history.commit, before, url)])
    files = {f"gatehouse-{history.tag}-history.json": history.as_file()} if found.outcome != "on_its_way" else {}
    if found.manifest_bytes:
        files[f"gatehouse-{history.tag}-manifest.json"] = found.manifest_bytes
    if found.signature:
        files[f"gatehouse-{history.tag}-manifest.json.sig"] = found.signature
    serves = state.stable.tag if state.stable and state.step == "idle" else ""
    return Page(history.tag, found.outcome, body, files, serves)


def _compared(store: Store, found: Standing, record_of: RecordOf) -> Comparison | None:
    """Return what changed since the version before; a page is written without it where it cannot be read any more."""
    if found.before is None:
        return None
    try:
        sides = [facts(store.root, tag, record_of) for tag in (found.before.tag, found.history.tag)]
    except GatehouseError:
        return None
    return compare(*sides)
