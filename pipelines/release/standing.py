"""How a release stands, read from Git alone: neither target nor registry is asked, so it can be told anywhere."""

from __future__ import annotations

from typing import Literal, NamedTuple

from pipelines.core.errors import ConfigError
from pipelines.release.history import ENDS, History, read_history
from pipelines.release.manifest import Manifest, read_manifest
from pipelines.release.state import Release, State, history_folder, manifest_path, read_state, release_path
from pipelines.release.store import Store
from pipelines.release.version import parse_tag

ENVIRONMENT = "production"
Outcome = Literal["on_its_way", "released", "rolled_back"]
GOING_BACK = ("rollback", "restore")


class Standing(NamedTuple):
    """One release, at one commit of the branch.

    Attributes:
        tip: The commit, hex.
        state: The environment's state.
        history: Of the release.
        outcome: What became of it so far; while it is being taken back, `rolled_back`.
        before: What it is compared with: the version that was stable before it, or None for a first release.
        manifest: Its manifest, or None where it is not bound yet.
        manifest_bytes: As the branch has it.
        signature: Of the manifest, or None.
    """

    tip: str
    state: State
    history: History
    outcome: Outcome
    before: Release | None
    manifest: Manifest | None = None
    manifest_bytes: bytes = b""
    signature: bytes | None = None


def state_of(store: Store, environment: str = ENVIRONMENT) -> tuple[str, State]:
    """Return the branch's newest commit and an environment's state there.

    Raises:
        ConfigError: The file is broken.
        ServiceError: The remote cannot be reached.
    """
    tip, path = store.tip(), release_path(environment)
    return tip, read_state(store.read(tip, path), path)


def standing(store: Store, tag: str = "", environment: str = ENVIRONMENT) -> Standing:
    """Return how a release stands.

    Args:
        store: Where the state lies.
        tag: Of the release; empty for the one that was moved last.
        environment: Whose state is read.

    Raises:
        ConfigError: Nothing of that tag was ever begun, or a file of the state is broken.
        ServiceError: The remote cannot be reached.
    """
    if tag:
        parse_tag(tag)
    tip, state = state_of(store, environment)
    files = store.read_all(tip, f"{history_folder(environment)}/")
    told = [read_history(data, path) for path, data in sorted(files.items()) if path.endswith(".json")]
    mine = [one for one in told if (one.tag == tag if tag else one.rollout_id == state.rollout_id)]
    if not mine:
        raise ConfigError(f"{tag or environment}: no release of it was begun; see `git log -- k8s/overlays`")
    history = max(mine, key=lambda one: one.events[-1].at if one.events else "")
    found = Standing(tip, state, history, _outcome(state, history), _before(state, history.tag))
    name = next((event.observed["manifest"] for event in reversed(history.events) if "manifest" in event.observed), "")
    if not name:
        return found
    path = manifest_path(environment, str(name))
    data, signature = store.read_each(tip, path, f"{path}.sig")
    manifest = read_manifest(data, str(name), path)
    return found._replace(manifest=manifest, manifest_bytes=data or b"", signature=signature)


def _outcome(state: State, history: History) -> Outcome:
    if state.step != "idle" and state.rollout_id == history.rollout_id:
        return "rolled_back" if state.step in GOING_BACK else "on_its_way"
    last = next((event.action for event in reversed(history.events) if event.action in ENDS), "released")
    return "released" if last == "released" else "rolled_back"


def _before(state: State, tag: str) -> Release | None:
    """Return the newest version that served users beside this one and is not newer."""
    known = [one for one in (state.stable, *state.earlier) if one is not None and parse_tag(one.tag) < parse_tag(tag)]
    return max(known, key=lambda one: parse_tag(one.tag), default=None)
