"""Each fault that `make release FAULT=...` injects into a real candidate, and the gate that takes it back."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Iterator
from typing import Any

import pytest

from pipelines.core.errors import GateFailed
from pipelines.release import commands, machine
from pipelines.release.local.fault import CRASH_AFTER, FAILING
from pipelines.release.local.target import LocalTarget
from pipelines.release.replay import replay, require_agreement
from pipelines.release.world import World, look
from pipelines.review import shipping
from tests.release.local.laptop import Laptop
from tests.release.scripted import File, ScriptedRegistry

pytestmark = pytest.mark.slow
GATES = {
    "errors": "error_rate",
    "crash": "error_rate",
    "latency": "latency_p95_ms",
    "quality": "schema_failure_rate",
}


@pytest.fixture(scope="module")
def world(released: Laptop, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """One target for all: its stable processes go on from release to release, as users would have it."""
    folder = tmp_path_factory.mktemp("faults") / "laptop"
    shutil.copytree(released.root, folder, symlinks=True)
    opened = commands.open_world("local", "none", folder)
    yield dataclasses.replace(opened, registry=ScriptedRegistry(File(folder.parent / "registry.json")))
    assert isinstance(opened.target, LocalTarget)
    opened.target.close()


def candidate_requests(counters: dict[str, Any]) -> int:
    return int(sum(epoch["candidate"]["requests"] for epoch in counters["canary"]["epochs"]))


@pytest.mark.parametrize("fault", GATES)
def test_a_fault_is_taken_back_by_the_gate_that_it_breaks_and_that_content_is_held(world: World, fault: str) -> None:
    target, asked = world.target, list[Any]()
    assert isinstance(target, LocalTarget)
    # A cluster's rollout controller would ask the gateway itself, while the run looks at the same counts.
    faulty = dataclasses.replace(world, images={"fault": fault}, show=lambda _: asked.append(target.verdict()))
    record = shipping.decided(faulty)
    assert record is not None
    tag = shipping.tag(look(faulty), record)
    outcome = machine.release(faulty, tag)
    seen = look(faulty)
    assert outcome.result == "rolled_back", outcome.said
    assert (seen.state.stable.tag if seen.state.stable else "", seen.state.candidate) == ("v0.1.0", None)
    told = next(event for event in seen.told.events if event.action == "rollback")
    assert told.said.startswith(f"Roll back {tag} at A/B test: {GATES[fault]}: ")
    assert 0 < candidate_requests(told.counters or {}) < 40
    said = [one for one in asked if one and one.get("weight")]  # the rest had no candidate with traffic
    assert said[-1]["verdict"] == "rollback", said
    assert GATES[fault] in said[-1]["reasons"][0]
    gates = faulty.store.read(seen.told.commit, "gates.yaml")
    require_agreement(replay(seen.told, faulty.plan_of(gates or b"").judge))
    with pytest.raises(GateFailed, match=rf"^this is what {tag} was when it was rolled back at "):
        shipping.tag(seen, record)


def test_three_of_ten_fail_and_none_of_the_first_two() -> None:
    assert (len(FAILING), min(FAILING), max(FAILING) < 10, CRASH_AFTER < 40) == (3, 2, True, True)
