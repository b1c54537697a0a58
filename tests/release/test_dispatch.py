"""Main's release workflow is started for a tag, and again only where nobody and nothing is at it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from pipelines.core.errors import ConfigError
from pipelines.core.github.api import Api
from pipelines.release import machine
from pipelines.release.dispatch import Dispatched, dispatch, go_on
from pipelines.release.machine import IN_PRODUCTION, STEPS, UNSTOPPED
from pipelines.release.standing import standing
from pipelines.release.state import BEFORE_TRAFFIC
from tests.release.site import Site
from tests.standin.github import GitHub

STARTED = [{"workflow": "release.yml", "ref": "main", "inputs": {"tag": "v1.1.0", "dry-run": "false"}}]


@pytest.fixture
def github() -> Iterator[GitHub]:
    with GitHub() as server:
        server.workflows["release.yml"] = ["tag", "dry-run"]
        yield server


def api(github: GitHub) -> Api:
    return Api("o/r", github.token, base_url=github.url)


def went_on(site: Site, github: GitHub) -> Dispatched:
    return go_on(api(github), standing(site.world().store))


def run(github: GitHub, number: int, *, tag: str = "v1.1.0", at: str = "2020-01-01T00:00:00Z", **about: Any) -> None:
    known = {"id": number, "event": "workflow_dispatch", "status": "completed", "conclusion": "failure"}
    github.runs.insert(0, {**known, "display_title": f"release {tag}", "created_at": at, **about})


def test_it_starts_main_s_own_workflow_for_a_tag(github: GitHub) -> None:
    assert dispatch(api(github), "v1.1.0").is_new
    assert github.dispatched == STARTED


def test_what_is_no_version_starts_nothing(github: GitHub) -> None:
    with pytest.raises(ConfigError, match="is no version"):
        dispatch(api(github), "v1.1.0; id")
    del github.workflows["release.yml"]
    with pytest.raises(ConfigError, match=r"^main has no \.github/workflows/release\.yml, or the token lacks"):
        dispatch(api(github), "v1.1.0")
    assert github.dispatched == []


def test_a_release_whose_run_died_before_its_first_traffic_is_taken_up_by_another(site: Site, github: GitHub) -> None:
    machine.release(site.world(), "v1.1.0", once=True)
    run(github, 7)
    run(github, 8, tag="v1.0.9", status="in_progress")
    assert went_on(site, github).is_new
    assert github.dispatched == STARTED


def test_nothing_is_started_while_a_run_is_at_it_or_waits_for_its_approval(site: Site, github: GitHub) -> None:
    machine.release(site.world(), "v1.1.0", once=True)
    run(github, 7, status="waiting")
    assert went_on(site, github) == (False, "v1.1.0: waits at step staging, run 7 is at it")


def test_a_reviewer_s_no_stays_one(site: Site, github: GitHub) -> None:
    machine.release(site.world(), "v1.1.0", bounds=machine.Bounds(is_staging_only=True))
    run(github, 7)
    github.approval(7, "olivia", "rejected", "production")
    assert went_on(site, github).said.startswith("v1.1.0: olivia has rejected it at step deploy; start release.yml by")
    assert github.dispatched == []


def test_neither_a_later_run_nor_a_rehearsal_takes_a_no_back(site: Site, github: GitHub) -> None:
    machine.release(site.world(), "v1.1.0", bounds=machine.Bounds(is_staging_only=True))
    run(github, 7)
    github.approval(7, "olivia", "rejected", "production")
    run(github, 8, at="2099-01-01T00:00:00Z")
    run(github, 9, at="2099-01-02T00:00:00Z", display_title="rehearse v1.1.0")
    assert "olivia has rejected it" in went_on(site, github).said


def test_rehearsals_are_no_further_runs_of_a_release(site: Site, github: GitHub) -> None:
    machine.release(site.world(), "v1.1.0", once=True)
    run(github, 7)
    for number in (8, 9, 10):
        run(github, number, at="2099-01-01T00:00:00Z", display_title="rehearse v1.1.0")
    assert went_on(site, github).is_new


def test_runs_that_fail_again_and_again_are_left_to_a_person(site: Site, github: GitHub) -> None:
    machine.release(site.world(), "v1.1.0", once=True)
    for number in (7, 8):
        run(github, number, at="2099-01-01T00:00:00Z")
    assert "2 further runs ended at step staging; read them" in went_on(site, github).said
    github.runs.pop()
    assert went_on(site, github).is_new


def test_what_a_person_holds_and_what_has_traffic_is_not_started_again(site: Site, github: GitHub) -> None:
    assert went_on(site, github) == (False, "nothing waits for a release run")
    machine.release(site.world(), "v1.1.0", once=True)
    machine.hold_back(site.world(), "lunch")
    assert went_on(site, github) == (False, "v1.1.0: held by rita; nothing is started")
    assert github.dispatched == []


def test_every_step_is_carried_on_by_a_release_run_or_by_a_reconciling_one() -> None:
    assert set(BEFORE_TRAFFIC) | set(UNSTOPPED) == set(STEPS)
    assert not set(BEFORE_TRAFFIC) & set(UNSTOPPED)
    assert set(IN_PRODUCTION) & set(BEFORE_TRAFFIC) == {"deploy"}, "which waits for production's approval"
