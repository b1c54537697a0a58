"""A target, a registry, a clock and a judge that follow a script; all they know lies in a file and outlives a kill."""

from __future__ import annotations

import hashlib
import json
import os
import signal
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from pipelines.core.errors import ServiceError
from pipelines.release.manifest import Manifest
from pipelines.release.plan import Plan, Stage
from pipelines.release.targets import NO_TERMS, Built, CountersUnavailable, InForce, Slot, Smoked

START = 1_790_000_000
FILE = "GATEHOUSE_SCRIPTED"
FRESH: dict[str, Any] = {
    "now": START, "deployed": {}, "ready_at": {}, "weight": 0.0, "terms": {}, "epoch": "1", "smoked": 0,
    "versions": {}, "aliases": {}, "weights": [], "stages": [],
    # What the world does: seconds until ready, requests a second, share of errors by second, when counters are gone.
    "script": {"ready_s": 4, "per_second": 20, "errors": 0.0, "blind": [], "smoke": True, "registry": True},
}  # fmt: skip


class File:
    """The world's file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        if not path.exists():
            self.save(json.loads(json.dumps(FRESH)))

    def read(self) -> dict[str, Any]:
        value: dict[str, Any] = json.loads(self.path.read_text())
        return value

    def save(self, value: dict[str, Any]) -> None:
        beside = self.path.with_suffix(".new")
        beside.write_text(json.dumps(value))
        beside.replace(self.path)

    def change(self, act: Callable[[dict[str, Any]], Any]) -> None:
        value = self.read()
        act(value)
        self.save(value)


class ScriptedClock:
    """Moves only when somebody waits."""

    def __init__(self, file: File) -> None:
        self.file = file

    def now(self) -> float:
        return float(self.file.read()["now"])

    def wait_until(self, moment: float) -> None:
        self.file.change(lambda world: world.update(now=max(world["now"], moment)))


class ScriptedTarget:
    """Both sides as entries of a file."""

    name = "scripted"

    def __init__(self, file: File) -> None:
        self.file = file

    def deployed(self, environment: str, slot: Slot) -> str:
        return str(self.file.read()["deployed"].get(f"{environment}/{slot}", ""))

    def deploy(self, environment: str, slot: Slot, manifest: Manifest) -> None:
        def act(world: dict[str, Any]) -> None:
            world["deployed"][f"{environment}/{slot}"] = manifest.name
            world["ready_at"][f"{environment}/{slot}"] = world["now"] + world["script"]["ready_s"]

        self.file.change(act)

    def is_ready(self, environment: str, slot: Slot) -> bool:
        world = self.file.read()
        return bool(world["now"] >= world["ready_at"].get(f"{environment}/{slot}", 1e12))

    def remove(self, environment: str, slot: Slot) -> None:
        self.file.change(lambda world: world["deployed"].pop(f"{environment}/{slot}"))

    def smoke(self, environment: str, slot: Slot) -> Smoked:
        passed = bool(self.file.read()["script"]["smoke"])
        return Smoked(passed, "3 of 3 answered" if passed else "1 of 3 answered")

    def weight(self) -> float:
        return float(self.file.read()["weight"])

    def split(self) -> InForce:
        terms = self.file.read()["terms"]
        return InForce(self.weight(), terms.get("rollout", ""), terms.get("stage", ""), terms.get("since", 0.0))

    def set_weight(self, share: float, terms: Mapping[str, Any] = NO_TERMS) -> None:
        def act(world: dict[str, Any]) -> None:
            world["weight"], world["terms"] = share, dict(terms)
            world["weights"].append(share)
            world["stages"].append(terms.get("stage", ""))

        self.file.change(act)

    def counters(self, rollout: str, since: float) -> Mapping[str, Any]:
        world = self.file.read()
        script, passed = world["script"], world["now"] - since
        if any(start <= passed < end for start, end in script["blind"]):
            raise CountersUnavailable("the metrics source does not answer")
        n = int(passed * script["per_second"])
        return {"n": n, "errors": int(n * script["errors"]), "epoch": world["epoch"]}


class ScriptedRegistry:
    """A registry in the same file."""

    def __init__(self, file: File) -> None:
        self.file = file

    def _read(self) -> dict[str, Any]:
        world = self.file.read()
        if not world["script"]["registry"]:
            raise ServiceError("the model registry does not answer; start it and run again")
        return world

    def version_of(self, rollout_id: str) -> str:
        return str(self._read()["versions"].get(rollout_id, ""))

    def add(self, rollout_id: str, manifest: Manifest) -> str:
        number = str(len(self._read()["versions"]) + 1)
        assert rollout_id not in self._read()["versions"], "a second version of one rollout"
        self.file.change(lambda world: world["versions"].update({rollout_id: number}))
        return number

    def aliases(self) -> Mapping[str, str]:
        found: Mapping[str, str] = self._read()["aliases"]
        return found

    def set_alias(self, alias: str, version: str) -> None:
        self.file.change(lambda world: world["aliases"].update({alias: version}))

    def delete_alias(self, alias: str) -> None:
        self.file.change(lambda world: world["aliases"].pop(alias))


class ScriptedVerdict(NamedTuple):
    name: str
    rate: float
    reason: str

    def as_json(self) -> dict[str, Any]:
        return {"name": self.name, "rate": self.rate, "reasons": [self.reason], "e_values": {"errors": self.rate * 100}}


class ScriptedJudge:
    """At most 5 % errors, judged from `min_requests` of the stage on."""

    def judge(self, counters: Mapping[str, Any], stage: Mapping[str, Any]) -> ScriptedVerdict:
        n, errors = counters.get("n", 0), counters.get("errors", 0)
        if n < 0:
            return ScriptedVerdict("invalid", 0.0, "a counter is negative")
        rate = errors / n if n else 0.0
        new = n - stage["before"].get("n", 0)
        if rate > 0.05 and n >= 20:
            return ScriptedVerdict("rollback", rate, f"error_rate {rate:.3f} of {n} requests is above 0.05")
        if new < stage["rules"]["min_requests"]:
            return ScriptedVerdict("hold", rate, f"{new} of {stage['rules']['min_requests']} requests")
        return ScriptedVerdict("advance", rate, f"error_rate {rate:.3f} after {new} requests")


def plan_of(gates: bytes) -> Plan:
    """An A/B test and two canary stages; nothing of it stands in the file."""
    rules = {"min_requests": 150}
    return Plan(
        gates_sha256=hashlib.sha256(gates).hexdigest(),
        stages=(Stage("10 %", 0.1, 120.0, rules), Stage("100 %", 1.0, 120.0, rules)),
        judge=ScriptedJudge(),
        ab_test=Stage("A/B test", 0.5, 120.0, rules, "ab_test"),
        look_every_s=10.0,
        max_unknown_s=60.0,
        ready_within_s=60.0,
        poll_every_s=5.0,
    )


def build(root: Path) -> Built:
    """The target as `--target tests.release.scripted:build` names it; its file is in GATEHOUSE_SCRIPTED."""
    file = File(Path(os.environ[FILE]))
    if at := os.environ.get("GATEHOUSE_SCRIPTED_KILL"):  # a real SIGKILL in the middle of the nth change
        left, save = [int(at)], file.save

        def killing(value: dict[str, Any]) -> None:
            save(value)
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)

        file.save = killing  # type: ignore[method-assign]
    return Built(ScriptedTarget(file), ScriptedClock(file), ScriptedRegistry(file), plan_of)
