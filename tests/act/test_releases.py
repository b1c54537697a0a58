"""Tags, rollbacks and dead runners in GitHub's workflows: what act executes, and what Git and the page say of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelines.release import machine
from tests.act.desk import Desk, inputs_of, lay_out
from tests.release.site import git
from tests.standin.github import GitHub

pytestmark = pytest.mark.slow


@pytest.fixture(scope="session")
def desk_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("desk") / "base"
    lay_out(folder)
    return folder


@pytest.fixture
def desk(tmp_path: Path, desk_base: Path, github: GitHub) -> Desk:
    found = Desk(tmp_path / "desk", desk_base, github)
    github.workflows["release.yml"] = inputs_of("release.yml")
    return found


def test_a_pushed_tag_is_released_by_main_s_workflow_and_its_page_tells_how(desk: Desk) -> None:
    desk.site.next("v1.1.0")
    run = desk.pushed("v1.1.0")
    assert run.conclusion == "success", run.log
    assert run.ran == {"verify", "hand-over"}
    assert "dry run: nothing was changed" in run.log
    assert (desk.site.state().step, desk.github.releases) == ("idle", [])
    released = desk.handed_over()
    assert released.conclusion == "success", released.log
    assert released.ran == {"verify", "staging", "production"}
    state = desk.site.state()
    assert (state.step, state.stable and state.stable.tag) == ("idle", "v1.1.0")
    assert desk.site.file.read()["weights"][-4:] == [0.5, 0.1, 1.0, 0.0]
    assert desk.site.subjects()[-1] == "Finish the release of v1.1.0: it serves all traffic"
    page = desk.page("v1.1.0")
    assert (page["draft"], page["author"]["login"]) == (False, "gatehouse-release[bot]")
    names = {f"gatehouse-v1.1.0-{name}.json" for name in ("history", "manifest")}
    assert {one["name"] for one in page["assets"]} == names
    assert "v1.1.0 is released" in "".join(released.summaries)
    again = desk.dispatched("release.yml", tag="v1.1.0", dry_run="false")
    assert (again.conclusion, "already released" in again.log) == ("success", True)


def test_a_candidate_that_fails_is_taken_back_and_the_run_is_red(desk: Desk) -> None:
    desk.site.next("v1.1.0")
    desk.site.script(errors=0.3)
    run = desk.dispatched("release.yml", tag="v1.1.0", dry_run="false")
    assert (run.conclusion, run.jobs["staging"], run.jobs["production"]) == ("failure", "success", "failure")
    state = desk.site.state()
    assert (state.step, state.stable and state.stable.tag, state.held[0].tag) == ("idle", "v1.0.0", "v1.1.0")
    assert desk.site.file.read()["weights"][-2:] == [0.5, 0.0]
    page = desk.page("v1.1.0")
    assert (page["name"], page["draft"], page["prerelease"]) == ("v1.1.0 (rolled back)", False, True)
    assert "0.300 of 200 requests is above 0.05" in page["body"]
    idle = desk.reconciled()
    assert (idle.conclusion, idle.ran) == ("success", {"look"}), idle.log
    desk.github.releases.clear()  # as if nobody had come to write it
    assert desk.reconciled("workflow_dispatch").ran == {"look", "finish"}
    assert desk.page("v1.1.0")["prerelease"]
    refused = desk.dispatched("release.yml", tag="v1.1.0", dry_run="false")
    assert refused.ran == {"verify"}
    (said,) = refused.errors
    assert "v1.1.0: is what v1.1.0 was when it was rolled back" in said


def test_a_runner_that_dies_in_mid_canary_is_replaced_by_reconciling_ones(desk: Desk) -> None:
    desk.site.next("v1.1.0")
    environment = desk.project.machine.environment
    assert desk.site.release("v1.1.0", bounds=machine.Bounds(is_staging_only=True)).result == "staged"
    environment["GATEHOUSE_SCRIPTED_KILL"] = "4"
    run = desk.dispatched("release.yml", tag="v1.1.0", dry_run="false")
    assert run.conclusion == "failure"
    assert desk.site.state().step == "ab_test", "killed with traffic on the candidate"
    del environment["GATEHOUSE_SCRIPTED_KILL"]
    for event in ("workflow_dispatch", "schedule", "workflow_run", "schedule"):
        desk.pass_time(40)
        again = desk.reconciled(event)
        assert again.conclusion == "success", again.log
        assert again.ran == {"look", "finish"}
        if desk.site.state().step == "idle":
            break
    state = desk.site.state()
    assert (state.step, state.stable and state.stable.tag) == ("idle", "v1.1.0")
    assert not desk.page("v1.1.0")["draft"]
    told = [event.said for event in desk.site.history().events]
    assert len(told) == len(set(told)), "nothing happened twice"


def test_a_runner_that_dies_before_the_first_traffic_is_replaced_by_a_release_run_that_asks_again(desk: Desk) -> None:
    desk.site.next("v1.1.0")
    desk.project.machine.environment["GATEHOUSE_SCRIPTED_KILL"] = "3"
    assert desk.dispatched("release.yml", tag="v1.1.0", dry_run="false").conclusion == "failure"
    del desk.project.machine.environment["GATEHOUSE_SCRIPTED_KILL"]
    assert desk.site.state().step == "staging"
    again = desk.reconciled("workflow_run")
    assert (again.conclusion, again.ran) == ("success", {"look", "again"}), again.log
    assert desk.handed_over().conclusion == "success"
    assert desk.site.state().step == "idle"


def test_a_person_holds_a_rollout_lets_it_go_and_takes_it_back_in_their_own_words(desk: Desk) -> None:
    hostile = "$(touch pwned) `id` ${{ github.token }} ::error::x"
    desk.site.next("v1.1.0")
    machine.release(desk.site.world(), "v1.1.0", bounds=machine.Bounds(deadline=desk.site.file.read()["now"] + 12))
    assert desk.site.state().step == "ab_test"
    held = desk.dispatched("hold.yml", why=hostile, release="none")
    assert held.conclusion == "success", held.log
    assert desk.site.subjects()[-1] == f"Hold v1.1.0 at 50 % of traffic: {hostile}"
    watched = desk.reconciled()
    assert (watched.conclusion, watched.ran) == ("success", {"look", "finish"}), "a hold is no failure"
    assert desk.dispatched("hold.yml", why="go", release="pause").conclusion == "success"
    back = desk.dispatched("rollback.yml", why=hostile)
    assert back.conclusion == "success", back.log
    assert desk.site.subjects()[-2] == f"Roll back v1.1.0 at 50 %: {hostile}"
    assert (desk.site.state().step, desk.site.file.read()["weight"]) == ("idle", 0.0)
    assert desk.page("v1.1.0")["prerelease"]
    again = desk.dispatched("rollback.yml", why="again")
    assert again.conclusion == "failure"
    assert "a rollback is not rolled back" in again.errors[0]
    tag = hostile.removesuffix(" ::error::x")  # act, unlike GitHub, looks for an order within an order's text
    named = desk.dispatched("rollback.yml", why="again", tag=tag)
    assert (named.conclusion, "cannot be taken back: v1.0.0 serves" in named.errors[0]) == ("failure", True)


REFUSED = {
    "lightweight": "tag v1.1.0: is lightweight; make it anew with `git tag -a v1.1.0` and push it",
    "off main": "is not on main; merge it first",
    "older": "tag v0.9.0: is not newer than v1.0.0, which was released; next is v1.0.1",
    "undecided": "nobody has decided about its tree",
    "failed": "the decision about its tree is fail; release another commit",
    "moved": "tag v1.0.0: was moved, it named",
    "unsigned": "tag v1.1.0: is not signed by a signer in .github/allowed_signers",
    "no version": "tag 'v1.1.0-rc.1' is no version; name it like v1.2.0",
}


@pytest.mark.parametrize("kind", REFUSED)
def test_a_tag_that_may_not_be_released_is_refused_in_one_line(desk: Desk, kind: str) -> None:
    tag = {"older": "v0.9.0", "moved": "v1.0.0", "no version": "v1.1.0-rc.1"}.get(kind, "v1.1.0")
    site, root = desk.site, desk.site.root
    if kind in ("undecided", "off main"):
        if kind == "off main":
            git(root, "checkout", "--quiet", "-b", "aside")
        (root / "prompts/triage.prompt.yml").write_text("name: other\n")
        git(root, "commit", "--quiet", "--all", "--message", "Word it anew")
        git(root, "push", "--quiet", "origin", "HEAD")
    else:
        commit = site.commit({"prompts/triage.prompt.yml": "name: other\n"}, "Word it anew")
        if kind == "failed":
            site.decide(commit, verdict="fail")
    if kind == "unsigned":
        site.commit({".github/allowed_signers": "rita@example.com ssh-ed25519 AAAA\n"}, "Say who signs")
        desk.project.machine.variables["GATEHOUSE_REQUIRE_SIGNED"] = "true"
    if kind == "moved":
        git(root, "push", "--quiet", "--delete", "origin", tag)
        git(root, "tag", "--delete", tag)
    site.tag(tag, flags=() if kind == "lightweight" else ("--annotate",))
    run = desk.dispatched("release.yml", tag=tag, dry_run="true")
    assert (run.conclusion, run.ran) == ("failure", {"verify"})
    (said,) = run.errors
    assert REFUSED[kind] in said
    assert "Traceback" not in run.log
    assert (site.state().step, desk.github.dispatched) == ("idle", [])
