"""Put a release's page together from what Git holds of it."""

from __future__ import annotations

from pipelines.core.errors import GateFailed
from pipelines.core.markdown import inline
from pipelines.release import tags
from pipelines.release.notes import notes
from pipelines.release.page import Page
from pipelines.release.standing import Standing
from pipelines.release.store import Store


def compose(store: Store, found: Standing, url: str = "") -> Page:
    """Return the page of a release.

    Args:
        store: Where the state lies.
        found: How it stands.
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
    body = "\n\n".join(
        [
            _story(found),
            notes(store.root, history.tag, tag_object, history.commit, before, url),
        ]
    )
    files = {f"gatehouse-{history.tag}-history.json": history.as_file()} if found.outcome != "on_its_way" else {}
    if found.manifest_bytes:
        files[f"gatehouse-{history.tag}-manifest.json"] = found.manifest_bytes
    if found.signature:
        files[f"gatehouse-{history.tag}-manifest.json.sig"] = found.signature
    serves = state.stable.tag if state.stable and state.step == "idle" else ""
    return Page(history.tag, found.outcome, body, files, serves)


def _story(found: Standing) -> str:
    return "\n".join(f"- {event.at} {inline(event.said, 300)}" for event in found.history.events)
