"""A whole release by the shipped `gates.yaml`, its real judge included; only the two sides follow a script."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest

from pipelines.release import machine, world
from pipelines.release.clock import read
from pipelines.release.judge import plan_of
from pipelines.release.replay import replay, require_agreement
from tests.release.counting import CountingTarget
from tests.release.scripted import START
from tests.release.site import Site

GATES = (Path(__file__).parents[2] / "gates.yaml").read_text()


@pytest.fixture
def shipped(lone: Site) -> Site:
    lone.commit({"gates.yaml": GATES, "prompts/triage.prompt.yml": "name: v1.2.0\nmessages: []\n"}, "Take the gates")
    lone.tag("v1.2.0")
    lone.script(per_second=1.5)
    return lone


def opened(site: Site) -> world.World:
    return site.world(target=CountingTarget(site.file), plan_of=plan_of("local"))


def told(site: Site) -> list[Any]:
    require_agreement(replay(site.history(), plan_of("local")(GATES.encode()).judge))
    return [event for event in site.history().events if event.verdict]


def test_a_good_candidate_climbs_every_stage_within_six_minutes_and_judged_again_it_agrees(shipped: Site) -> None:
    shipped.script(blind=[[20, 40]])
    assert machine.release(opened(shipped), "v1.2.0").result == "released"
    gone, back, *events = told(shipped)
    assert (gone.action, back.action) == ("unknown", "known")
    assert [event.stage["name"] for event in events] == ["A/B test", "5 %", "10 %", "25 %", "50 %", "100 %"]
    assert {event.action for event in events} == {"advance"}
    assert read(events[-1].at) - START < 360
    n = [event.verdict["n_requests"] for event in events]
    assert all(seen >= least for seen, least in zip(n, (100, 2, 4, 10, 20, 20), strict=True))
    assert [event.verdict["n_total"] for event in events] == list(itertools.accumulate(n))


def test_three_in_ten_that_fail_are_taken_back_during_the_ab_test_before_forty_requests(shipped: Site) -> None:
    shipped.script(errors=0.3)
    assert machine.release(opened(shipped), "v1.2.0").result == "rolled_back"
    last = told(shipped)[-1]
    assert (last.action, last.stage["name"], last.verdict["name"]) == ("rollback", "A/B test", "rollback")
    assert last.verdict["n_total"] < 40
    assert last.said.startswith("Roll back v1.2.0 at A/B test: error_rate: ")
