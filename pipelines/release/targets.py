"""Where a release runs: one interface for processes on this machine and for a cluster."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol, runtime_checkable

from pipelines.core.declared import nearest
from pipelines.core.errors import ConfigError, ServiceError, one_line

if TYPE_CHECKING:
    from pathlib import Path

    from pipelines.release.clock import Clock
    from pipelines.release.manifest import Manifest
    from pipelines.release.plan import Plan
    from pipelines.release.registry import Registry

Slot = Literal["stable", "candidate"]

# Name of a target: the module and the function that builds it.
KNOWN: dict[str, str] = {
    "local": "pipelines.release.local.target:build",
    "kubernetes": "pipelines.release.kubernetes.cluster:build",
}
NO_TERMS: Mapping[str, Any] = {}


class CountersUnavailable(ServiceError):
    """Counters cannot be read now; the verdict is `unknown`, and no release ends by it alone."""


class Smoked(NamedTuple):
    """What a few fixed requests said: whether all were answered well, and one sentence."""

    passed: bool
    said: str


class InForce(NamedTuple):
    """What the splitter goes by now.

    Attributes:
        share: The candidate's share of traffic, 0 to 1.
        rollout: The rollout it is counted for; empty where the candidate gets nothing.
        stage: `ab_test`, or `canary-1` and so on.
        since: When the stage began, seconds since 1970; 0 while its clock stands.
    """

    share: float
    rollout: str = ""
    stage: str = ""
    since: float = 0.0


class Target(Protocol):
    """What a release acts on. Every method may be called again after a crash and then changes nothing more."""

    name: str

    def deployed(self, environment: str, slot: Slot) -> str:
        """Return the SHA-256 of the manifest that a slot runs (or is about to run); empty where it runs nothing."""

    def deploy(self, environment: str, slot: Slot, manifest: Manifest) -> None:
        """Have a slot run what a manifest names; returns before it is ready."""

    def is_ready(self, environment: str, slot: Slot) -> bool:
        """Tell whether a slot answers."""

    def remove(self, environment: str, slot: Slot) -> None:
        """Stop a slot, which gets no traffic any more."""

    def smoke(self, environment: str, slot: Slot) -> Smoked:
        """Ask a slot a few fixed questions, whatever its share of traffic."""

    def weight(self) -> float:
        """Return the candidate's share of traffic, 0 to 1, as the splitter has it."""

    def split(self) -> InForce:
        """Return what the splitter goes by now, as it was last told."""

    def set_weight(self, share: float, terms: Mapping[str, Any] = NO_TERMS) -> None:
        """Give the candidate this share of traffic; returns when the splitter has it.

        Args:
            share: 0 to 1.
            terms: What the splitter counts by: `rollout`, `stage`, `since` (as in `InForce`), `max_requests_per_user`,
                `unit` (user or request) and `window_s`; none are needed for a share of 0. Each change of share or
                stage begins a new epoch of counts.
        """

    def counters(self, rollout: str, since: float) -> Mapping[str, Any]:
        """Return what both sides counted since a rollout's first request, whatever was restarted meanwhile.

        Args:
            rollout: Key of the rollout: its id, a dot, and the attempt.
            since: When its traffic began, seconds since 1970.

        Returns:
            `canary` (as `Counters.to_json` writes it) and `ab_test` (`admitted` users and `outcomes` per metric).

        Raises:
            CountersUnavailable: The source cannot be reached or has nothing.
        """


@runtime_checkable
class Declaring(Protocol):
    """A target whose stable version is declared in Git by files of its own, beside release.yaml."""

    def declared(self, environment: str, manifest: Manifest) -> Mapping[str, bytes]:
        """Return the files (path in the repository: bytes) that declare a manifest as an environment's stable one."""


@runtime_checkable
class Comparing(Protocol):
    """A target whose smoke tests ask what differs from the version that serves."""

    def compare_with(self, manifest: Manifest) -> None:
        """Keep what serves users now; told before anything is tried in staging."""


def withdraw(target: Target, environment: str) -> None:
    """Take the candidate's traffic away, and then the candidate."""
    if target.weight() != 0.0:
        target.set_weight(0.0)
    if target.deployed(environment, "candidate"):
        target.remove(environment, "candidate")


class Built(NamedTuple):
    """A target and what belongs to it.

    Attributes:
        target: The target.
        clock: Its clock.
        registry: The model registry.
        plan: Makes the plan of a commit's `gates.yaml` (its bytes).
        images: Image digests by name, which the manifest binds to the tag.
        environment: Whose state it keeps in Git.
        staging: The environment where a candidate is tried first.
    """

    target: Target
    clock: Clock
    registry: Registry
    plan: Callable[[bytes], Plan]
    images: Mapping[str, str] = {}
    environment: str = "production"
    staging: str = "staging"


def build(name: str, root: Path) -> Built:
    """Build a target by its name; one of your own is named `package.module:function`.

    Args:
        name: What `--target` said.
        root: The repository.

    Raises:
        ConfigError: There is no such target.
    """
    place = KNOWN.get(name, name)
    module, colon, function = place.partition(":")
    if not colon:
        known = nearest(name, sorted(KNOWN)) or " (one of your own is named package.module:function)"
        raise ConfigError(f"--target {one_line(name, 60)!r}: no such target{known}")
    try:
        builder = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"--target {one_line(name, 80)!r}: {one_line(str(error), 200)}") from None
    built: Built = builder(root)
    return built
