"""The target `local`: both versions as processes of this machine, with real requests and a gateway that splits them."""

from __future__ import annotations

import atexit
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipelines.core.declared import load
from pipelines.core.errors import ConfigError, ServiceError, one_line
from pipelines.core.params import Params
from pipelines.core.split import DIGITS, of_terms
from pipelines.release import judge, tallies
from pipelines.release.clock import SystemClock
from pipelines.release.local import smoke
from pipelines.release.local.declared import DeclaredAt, taking_part
from pipelines.release.local.fault import KINDS
from pipelines.release.local.gateway import LocalGateway
from pipelines.release.local.kept import KeptCounts
from pipelines.release.local.model_server import ModelServer
from pipelines.release.local.servers import ModelServers
from pipelines.release.local.serving_file import Placed
from pipelines.release.local.traffic import Traffic
from pipelines.release.manifest import Manifest
from pipelines.release.mlflow_registry import MlflowRegistry
from pipelines.release.targets import NO_TERMS, Built, CountersUnavailable, InForce, Slot, Smoked

ENVIRONMENT, STAGING = "local", "local-staging"
FOLDER = Path(".gatehouse/release")
FAULT = "GATEHOUSE_FAULT"


class LocalTarget:
    """Processes that live as long as this one; what is deployed is what runs, so a new run begins with nothing.

    Args:
        root: The repository.
        program: What serves a model; by default the `transformers` of this environment.
    """

    name = "local"

    def __init__(self, root: Path, *, program: str = "") -> None:
        self._root, self._folder = root, root / FOLDER
        self._wanted: dict[tuple[str, Slot], DeclaredAt] = {}
        self._serving: DeclaredAt | None = None
        self._servers = ModelServers(root, self._folder, program)
        self._gateways: dict[str, LocalGateway] = {}
        self._applied: dict[str, tuple[Placed, Placed | None]] = {}
        self._kept = KeptCounts(self._folder / "counts")
        self._traffic: tuple[str, Traffic] | None = None
        atexit.register(self.close)

    def deployed(self, environment: str, slot: Slot) -> str:
        """Return the manifest that a slot runs or is about to run."""
        wanted = self._wanted.get((environment, slot))
        return wanted.manifest.name if wanted else ""

    def deploy(self, environment: str, slot: Slot, manifest: Manifest) -> None:
        """Have a slot run a manifest; its processes are started by this and by `is_ready`."""
        self._wanted[environment, slot] = DeclaredAt(self._root, manifest)
        for server in self._needed(environment, slot).values():
            server.advance()

    def compare_with(self, manifest: Manifest) -> None:
        """Keep what serves users, so that staging answers and is asked on every route that differs from it."""
        if self._serving is None or self._serving.manifest.name != manifest.name:
            self._serving = DeclaredAt(self._root, manifest)

    def is_ready(self, environment: str, slot: Slot) -> bool:
        """Take a slot's processes a step further, and tell whether they and the gateway before them answer."""
        if (environment, slot) not in self._wanted:
            return False
        servers = self._needed(environment, slot)
        for server in servers.values():
            server.advance()
        if not all(server.is_ready for server in servers.values()):
            return False
        self._apply(environment)
        gateway = self._gateways.get(environment)
        # Before the first release there is no stable version that a gateway could serve.
        return gateway.is_alive if gateway else (environment, "stable") not in self._wanted

    def remove(self, environment: str, slot: Slot) -> None:
        """Stop a slot's processes, unless another slot has them too."""
        self._look()
        self._wanted.pop((environment, slot), None)
        if environment in self._applied:
            self._apply(environment)
        self._end_unneeded()

    def smoke(self, environment: str, slot: Slot) -> Smoked:
        """Ask a slot a few rows of the evaluation."""
        gateway, declared = self._gateways[environment], self._wanted[environment, slot]
        return smoke.test(gateway.url, gateway.key, slot, declared, self._routes(environment, declared, None))

    @property
    def doing(self) -> str:
        """Return what is waited for, for people; empty where nothing is."""
        return self._servers.doing()

    def weight(self) -> float:
        """Return the candidate's share of traffic, as the gateway has it."""
        return self.split().share

    def split(self) -> InForce:
        """Return what the gateway splits by; one that died does so again when `is_ready` has started it anew."""
        gateway = self._gateways.get(ENVIRONMENT)
        if gateway is None or gateway.split.weight == 0:
            return InForce(0.0)
        split = gateway.split
        return InForce(round(split.weight / 100, DIGITS + 2), split.rollout, split.stage, split.since)

    def set_weight(self, share: float, terms: Mapping[str, Any] = NO_TERMS) -> None:
        """Split users so, and let traffic flow as long as the candidate has a share of it.

        Raises:
            ServiceError: The gateway does not take it.
        """
        gateway = self._gateways.get(ENVIRONMENT)
        self._look()
        if share == 0:
            if self._traffic is not None:
                self._traffic[1].flow(on=False)
            if gateway is not None and gateway.split.weight:
                gateway.set_split(gateway.split.model_copy(update={"weight": 0.0}))
            return
        if gateway is None or not gateway.is_alive:
            raise ServiceError("the gateway does not run, so no traffic can be split; run the same command again")
        split = of_terms(share, terms)
        self._kept.keep_unit(split.rollout, split.unit)
        gateway.set_split(split)
        self._flowing(gateway).flow(on=True)

    def counters(self, rollout: str, since: float) -> Mapping[str, Any]:
        """Return what every gateway process of a rollout counted, those that are gone included.

        Raises:
            CountersUnavailable: No gateway runs, and none was ever asked.
        """
        self._look()
        found = self._kept.of(rollout)
        gateway = self._gateways.get(ENVIRONMENT)
        if not found and (gateway is None or not gateway.is_alive):
            raise CountersUnavailable("no gateway runs that could be asked")
        return tallies.merged(found, unit=self._kept.unit(rollout))

    def verdict(self) -> Any:
        """Return what the gateway itself says of the candidate by its own counts, or None where none has traffic."""
        gateway = self._gateways.get(ENVIRONMENT)
        return gateway.verdict() if gateway else None

    def close(self) -> None:
        """End every process; what was counted is kept."""
        if self._traffic is not None:
            self._traffic[1].stop()
        self._look()
        for gateway in self._gateways.values():
            gateway.stop()
        self._servers.keep(())
        self._gateways, self._applied, self._wanted, self._traffic = {}, {}, {}, None

    def _look(self) -> None:
        gateway = self._gateways.get(ENVIRONMENT)
        said = gateway.rollout() if gateway else None
        if said is not None and said.status == 200 and isinstance(said.value, dict):
            self._kept.keep(said.value)

    def _flowing(self, gateway: LocalGateway) -> Traffic:
        if self._traffic is None or self._traffic[0] != gateway.url:
            if self._traffic is not None:
                self._traffic[1].stop()
            stable, candidate = self._applied[ENVIRONMENT]
            routes = taking_part(stable.declared, candidate.declared if candidate else None)
            questions = [one for route in routes for one in stable.declared.questions(route)]
            self._traffic = gateway.url, Traffic(gateway.url, gateway.key, questions)
        return self._traffic[1]

    def _apply(self, environment: str) -> None:
        """Let the gateway serve what is ready; what it serves already stays, whether it answers or not."""
        stable = self._placed(environment, "stable")
        if stable is None:
            return
        candidate = self._placed(environment, "candidate")
        gateway = self._gateways.get(environment)
        if gateway is None:
            gateway = self._gateways[environment] = LocalGateway(self._folder / environment, self._root)
        if not gateway.is_alive or self._applied.get(environment) != (stable, candidate):
            routes = self._routes(environment, stable.declared, candidate.declared if candidate else None)
            gateway.apply(stable, candidate, routes)
            self._applied[environment] = (stable, candidate)
            self._end_unneeded()
            if environment == ENVIRONMENT and self._traffic is not None and self._traffic[1].is_flowing:
                self._flowing(gateway).flow(on=True)  # a new process has another port

    def _placed(self, environment: str, slot: Slot) -> Placed | None:
        served = self._applied.get(environment, (None, None))[0 if slot == "stable" else 1]
        wanted = self._wanted.get((environment, slot))
        if wanted is None:
            return served if slot == "stable" else None
        servers = self._needed(environment, slot)
        if not all(server.is_ready for server in servers.values()) and (
            served is None or served.declared is not wanted or slot == "stable"
        ):
            return served if slot == "stable" else None
        urls = {model: server.url(with_fault=environment == ENVIRONMENT) for model, server in servers.items()}
        return Placed(wanted, urls)

    def _needed(self, environment: str, slot: Slot) -> dict[str, ModelServer]:
        """Return the servers of a slot by model, made where they are missing."""
        declared = self._wanted[environment, slot]
        stable = self._wanted.get((environment, "stable"), declared)
        routes = self._routes(environment, stable, self._wanted.get((environment, "candidate")))
        models = {declared.answering[route].model for route in routes if route in declared.answering} - {""}
        return {model: self._servers.of(declared, model) for model in sorted(models)}

    def _routes(self, environment: str, stable: DeclaredAt, candidate: DeclaredAt | None) -> list[str]:
        routes = taking_part(stable, candidate)
        if environment == STAGING and self._serving is not None:
            routes += [route for route in taking_part(self._serving, stable) if route not in routes]
        return routes

    def _end_unneeded(self) -> None:
        needed = [(self._wanted[key], model) for key in self._wanted for model in self._needed(*key)]
        for placed in (placed for sides in self._applied.values() for placed in sides if placed is not None):
            needed += [(placed.declared, model) for model in placed.urls]
        self._servers.keep(needed)


def build(root: Path) -> Built:
    """Build the target of this machine; GATEHOUSE_FAULT names what is to fail in the candidate.

    Raises:
        ConfigError: There is no such fault.
    """
    fault = os.environ.get(FAULT, "") or "none"
    if fault not in KINDS:
        raise ConfigError(f"FAULT={one_line(fault, 40)}: no such fault; there are {', '.join(KINDS)}")
    track = load(root / "params.yaml", Params).track
    return Built(
        LocalTarget(root),
        SystemClock(),
        MlflowRegistry(root, track.model_name, track.experiment),
        judge.plan_of("local"),
        images={} if fault == "none" else {"fault": fault},
        environment=ENVIRONMENT,
        staging=STAGING,
    )
