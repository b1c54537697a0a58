"""What a step of a release is given, and what it gives back: an intention in Git, or the moment to look again."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from pipelines.core.errors import ConfigError, one_line
from pipelines.core.records import Record
from pipelines.release import clock as clocks
from pipelines.release.clock import Clock
from pipelines.release.history import Event, History, read_history
from pipelines.release.looks import Look
from pipelines.release.manifest import Manifest, read_manifest
from pipelines.release.plan import Plan
from pipelines.release.registry import Registry
from pipelines.release.signing import ALLOWED, Signing, verify
from pipelines.release.state import (
    Release,
    State,
    history_folder,
    history_path,
    manifest_path,
    read_state,
    release_path,
)  # fmt: skip
from pipelines.release.store import Store
from pipelines.release.targets import Declaring, Slot, Target

SUBJECT_CHARACTERS = 200
NOTHING: Mapping[str, Any] = {}


@dataclass(frozen=True)
class World:
    """Everything outside that a release reads or acts on.

    Attributes:
        root: The repository.
        store: Where the state lies.
        target: Where it runs.
        registry: The model registry.
        clock: Where times come from.
        plan_of: Makes the plan of a commit's `gates.yaml` (its bytes).
        record_of: Reads the record of an input digest.
        by: A person's name or a run's URL.
        environment: Whose state this is.
        staging: The environment where a candidate is tried first.
        key: Private SSH key that signs manifests, or None.
        is_signed_required: Whether an unsigned tag or manifest is refused.
        images: Image digests by name.
        say: Tells people one line.
        show: Shows people a look at the release, or None where nobody watches.
    """

    root: Path
    store: Store
    target: Target
    registry: Registry
    clock: Clock
    plan_of: Callable[[bytes], Plan]
    record_of: Callable[[str], Record | None]
    by: str
    environment: str = "production"
    staging: str = "staging"
    key: Path | None = None
    is_signed_required: bool = False
    images: Mapping[str, str] = field(default_factory=dict)
    say: Callable[[str], None] = lambda line: None
    show: Callable[[Look], None] | None = None

    def signing(self, tip: str) -> Signing:
        """Return what is declared about signatures; the branch says who may sign."""
        allowed = self.store.read(tip, ALLOWED) or b""
        return Signing(self.key, allowed.decode(errors="replace"), self.is_signed_required)


class Seen(NamedTuple):
    """What was read at one commit of the branch.

    Attributes:
        world: Where.
        tip: The commit, hex.
        state: The environment's state.
        history: Of the release that was moved last, or None.
        now: Never before the last event, however wrong the clock is.
    """

    world: World
    tip: str
    state: State
    history: History | None
    now: float

    @property
    def candidate(self) -> Release:
        """Return what is on its way."""
        assert self.state.candidate is not None, "only a step of a rollout asks"
        return self.state.candidate

    @property
    def told(self) -> History:
        """Return the history of what is on its way."""
        if self.history is None:
            path = history_path(self.world.environment, self.state.rollout_id)
            raise ConfigError(f"{path}: no such file, though release.yaml names it; restore it from Git's history")
        return self.history

    @property
    def rollout(self) -> str:
        """Return the key that this attempt's traffic is counted by."""
        return f"{self.state.rollout_id}.{self.state.attempt}"

    @property
    def elapsed_s(self) -> float:
        """Return the seconds since the step began, less any pause that still lasts."""
        until = clocks.read(self.state.pause.at) if self.state.pause else self.now
        return max(0.0, until - clocks.read(self.state.since))

    def manifest(self, release: Release) -> Manifest:
        """Return the manifest of a release, verified against its name and its signature."""
        path = manifest_path(self.world.environment, release.manifest)
        data, signature = self.world.store.read_each(self.tip, path, f"{path}.sig")
        manifest = read_manifest(data, release.manifest, path)
        verify(data or b"", signature, self.world.signing(self.tip), path)
        return manifest

    def plan(self) -> Plan:
        """Return the plan of what is on its way: that of its own `gates.yaml`, as when it began."""
        return plan_at(self.world, self.candidate.commit, self.state.gates_sha256)

    def event(self, action: str, said: str, **more: Any) -> Event:
        """Return an event of this moment."""
        about = {"weight": self.state.weight, "attempt": self.state.attempt, "step": self.state.step, **more}
        return Event(at=clocks.written(self.now), action=action, said=said, by=self.world.by, **about)


class Change(NamedTuple):
    """What a step wants written: the new state, and the event that its commit tells.

    Attributes:
        state: The state afterwards.
        event: What happened; its sentence is the commit's.
        history: What the event is added to.
        files: Further files by path.
    """

    state: State
    event: Event
    history: History
    files: Mapping[str, bytes] = {}


class Wait(NamedTuple):
    """Nothing to write now: look again at `until` (seconds since 1970), and what is waited for."""

    until: float
    why: str


def look(world: World) -> Seen:
    """Read the state at the branch's tip.

    Raises:
        ServiceError: The remote cannot be reached.
        ConfigError: A file of the state is broken.
    """
    tip = world.store.tip()
    path = release_path(world.environment)
    state = read_state(world.store.read(tip, path), path)
    history = history_of(world, tip, state.rollout_id) if state.rollout_id else None
    last = clocks.read(history.events[-1].at) if history and history.events else 0.0
    return Seen(world, tip, state, history, max(world.clock.now(), last))


def history_of(world: World, tip: str, rollout_id: str) -> History | None:
    """Return a rollout's history, or None where it has none yet."""
    path = history_path(world.environment, rollout_id)
    data = world.store.read(tip, path)
    return None if data is None else read_history(data, path)


def declared(world: World, environment: str, manifest: Callable[[], Manifest]) -> Mapping[str, bytes]:
    """Return the files by which a target declares a stable version in Git; it need not have any.

    Args:
        world: Everything outside.
        environment: Whose stable version it is.
        manifest: Reads its manifest; only asked where the target declares anything.
    """
    return world.target.declared(environment, manifest()) if isinstance(world.target, Declaring) else {}


def histories(world: World, tip: str) -> list[History]:
    """Return every history of the environment."""
    found = world.store.read_all(tip, f"{history_folder(world.environment)}/")
    return [read_history(data, path) for path, data in sorted(found.items()) if path.endswith(".json")]


def write(seen: Seen, change: Change) -> None:
    """Commit a change on top of what was read.

    Raises:
        Overtaken: Somebody was faster.
        ServiceError: The remote cannot be reached or refuses.
    """
    world, history = seen.world, change.history.adding(change.event)
    files = {
        release_path(world.environment): change.state.as_file(),
        history_path(world.environment, history.rollout_id): history.as_file(),
        **change.files,
    }
    subject = one_line(change.event.said, SUBJECT_CHARACTERS)
    world.store.write(seen.tip, files, subject)
    world.say(subject)


def plan_at(world: World, commit: str, expected: str) -> Plan:
    """Return the plan of a commit's gates.

    Raises:
        ConfigError: The commit has no gates, or they are not those that the release began with.
    """
    gates = world.store.read(commit, "gates.yaml")
    if gates is None:
        raise ConfigError(f"gates.yaml: commit {commit[:12]} has none; a release needs its stages")
    plan = world.plan_of(gates)
    if not plan.stages:
        raise ConfigError("gates.yaml: canary declares no stage; a release needs one at least")
    if expected and plan.gates_sha256 != expected:
        found = plan.gates_sha256[:12]
        raise ConfigError(f"gates.yaml: the release goes by {expected[:12]}, found {found}; roll it back")
    return plan


def is_current(seen: Seen) -> bool:
    """Tell whether Git still says what was read: a look may be seconds old, and another run have gone on or back."""
    return look(seen.world).state == seen.state


def is_placed(seen: Seen, environment: str, slot: Slot, release: Release) -> bool:
    """Have a slot run a release where it does not (and Git still says so), and tell whether it is ready."""
    target = seen.world.target
    if target.deployed(environment, slot) != release.manifest:
        if not is_current(seen):
            return False
        target.deploy(environment, slot, seen.manifest(release))
    return target.is_ready(environment, slot)
