"""The model registry as a release needs it: one version per rollout, and aliases that follow Git."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol

from pipelines.core.errors import ServiceError

if TYPE_CHECKING:
    from pipelines.release.manifest import Manifest
    from pipelines.release.state import State

CHALLENGER, CHAMPION = "challenger", "champion"
CHAMPIONS = (CHAMPION, "champion-1", "champion-2")
"""The champion and the two before it, which stay restorable."""


class Registry(Protocol):
    """A model registry."""

    def version_of(self, rollout_id: str) -> str:
        """Return the version that a rollout has, or nothing."""

    def add(self, rollout_id: str, manifest: Manifest) -> str:
        """Make the version of a rollout, with what leads back to its decision, and return its number."""

    def aliases(self) -> Mapping[str, str]:
        """Return the version of every alias."""

    def set_alias(self, alias: str, version: str) -> None:
        """Let an alias name a version."""

    def delete_alias(self, alias: str) -> None:
        """Take an alias away."""


def registered(registry: Registry, rollout_id: str, manifest: Manifest) -> str:
    """Return a rollout's version, which is made where it is absent.

    Raises:
        ServiceError: The registry cannot be reached, or forgot what it was told.
    """
    if found := registry.version_of(rollout_id):
        return found
    made = registry.add(rollout_id, manifest)
    if registry.version_of(rollout_id) != made:
        raise ServiceError(f"the model registry does not show version {made} that it has just made; run again")
    return made


def champions(state: State) -> dict[str, str]:
    """Return which version each alias is to name, as Git says it; an alias that is not named is to be absent."""
    releases = [one for one in (state.stable, *state.earlier) if one is not None and one.registry_version]
    return {alias: one.registry_version for alias, one in zip(CHAMPIONS, releases, strict=False)}


def point(registry: Registry, wanted: Mapping[str, str]) -> None:
    """Make the aliases of releases what `wanted` says; aliases of other names are somebody else's.

    Raises:
        ServiceError: The registry cannot be reached.
    """
    now = registry.aliases()
    for alias in (*CHAMPIONS, CHALLENGER):
        if alias in wanted and now.get(alias) != wanted[alias]:
            registry.set_alias(alias, wanted[alias])
        elif alias not in wanted and alias in now:
            registry.delete_alias(alias)
