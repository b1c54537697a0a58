"""A release from its tag to its end: what Git tells, what the target and the registry have, and how it is refused."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pipelines.core.errors import GateFailed, ServiceError
from pipelines.release import clock, machine
from pipelines.release.manifest import Manifest
from pipelines.release.plan import Plan
from pipelines.release.world import Seen
from tests.release.scripted import ScriptedClock, ScriptedTarget, plan_of
from tests.release.site import Site, git


def test_a_good_release_is_a_story_in_git_and_ends_as_champion(site: Site) -> None:
    before = len(site.subjects())
    assert site.release("v1.1.0") == ("released", "v1.1.0: released; it serves all traffic")
    state, world = site.state(), site.file.read()
    assert (state.step, state.stable and state.stable.tag, state.candidate) == ("idle", "v1.1.0", None)
    assert [one.tag for one in state.earlier] == ["v1.0.0"]
    manifest = state.stable.manifest if state.stable else ""
    assert world["deployed"] == {"staging/stable": manifest, "production/stable": manifest}
    assert world["aliases"] == {"champion": "2", "champion-1": "1"}
    assert world["weights"] == [0.5, 0.1, 1.0, 0.0]
    assert world["stages"] == ["ab_test", "canary-1", "canary-2", ""]
    assert site.subjects()[before:] == [
        "Begin release of v1.1.0: the decision about its tree is pass",
        f"Bind v1.1.0 to its manifest {manifest[:12]}",
        "Register v1.1.0 as model version 2 and send it to staging",
        "Deploy v1.1.0 to staging",
        "Pass the smoke tests of v1.1.0 in staging: 3 of 3 answered",
        "Start the A/B test of v1.1.0 with 50 % of traffic: it is ready beside v1.0.0",
        "Send 10 % of traffic to v1.1.0 (canary 1 of 2): error_rate 0.000 after 200 requests",
        "Send 100 % of traffic to v1.1.0 (canary 2 of 2): error_rate 0.000 after 200 requests",
        "Make v1.1.0 the champion instead of v1.0.0: error_rate 0.000 after 200 requests",
        "Finish the release of v1.1.0: it serves all traffic",
    ]
    assert site.state("staging").stable == state.stable


def test_the_splitter_is_told_by_what_to_count(site: Site) -> None:
    while site.file.read()["stages"] != ["ab_test"]:
        site.release("v1.1.0", once=True)
        site.file.change(lambda world: world.update(now=world["now"] + 5))
    state = site.state()
    assert site.file.read()["terms"] == {
        "rollout": f"{state.rollout_id}.1", "stage": "ab_test", "since": clock.read(state.since),
        "max_requests_per_user": 20, "unit": "user", "window_s": 60.0,
    }  # fmt: skip
    machine.hold_back(site.world(), "lunch")
    machine.reconcile(site.world())
    assert (site.file.read()["terms"]["since"], site.file.read()["weights"]) == (0.0, [0.5, 0.5])


def test_two_stages_of_one_share_are_told_to_the_splitter_one_after_the_other(site: Site) -> None:
    def even(gates: bytes) -> Plan:
        plan = plan_of(gates)
        return replace(plan, stages=(replace(plan.stages[0], weight=0.5), plan.stages[1]))

    assert machine.release(site.world(plan_of=even), "v1.1.0").result == "released"
    world = site.file.read()
    assert list(zip(world["weights"], world["stages"], strict=True)) == [
        (0.5, "ab_test"), (0.5, "canary-1"), (1.0, "canary-2"), (0.0, ""),
    ]  # fmt: skip


class Declared(ScriptedTarget):
    """Declares what is stable in a file of its own."""

    def declared(self, environment: str, manifest: Manifest) -> dict[str, bytes]:
        return {f"k8s/overlays/{environment}/released.txt": f"{manifest.tag}\n".encode()}


def test_a_target_that_declares_stable_versions_has_them_in_the_commits_that_make_them_stable(site: Site) -> None:
    def touching(environment: str) -> list[str]:
        path = f"k8s/overlays/{environment}/released.txt"
        return git(site.origin, "log", "--reverse", "--format=%s", "main", "--", path).splitlines()

    world = site.world(target=Declared(site.file))
    assert machine.release(world, "v1.1.0").result == "released"
    assert git(site.origin, "show", "main:k8s/overlays/production/released.txt") == "v1.1.0"
    assert machine.roll_back(world, "customers complain").result == "rolled_back"
    assert git(site.origin, "show", "main:k8s/overlays/production/released.txt") == "v1.0.0"
    assert [line.split(":")[0] for line in touching("production")] == [
        "Make v1.1.0 the champion instead of v1.0.0",
        "Roll back v1.1.0 to v1.0.0",
    ]
    assert touching("staging") == ["Register v1.1.0 as model version 2 and send it to staging"]


def test_a_release_goes_on_with_the_images_it_began_with_or_not_at_all(site: Site) -> None:
    def stopped(seen: Seen) -> None:
        raise ServiceError("the machine is switched off")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(machine, "STEPS", {**machine.STEPS, "manifest": stopped})
        with pytest.raises(ServiceError):
            machine.release(site.world(images={"fault": "errors"}), "v1.1.0")
    with pytest.raises(GateFailed, match=r"^v1\.1\.0: its release began with other images than these \(none\)"):
        machine.release(site.world(), "v1.1.0")
    assert machine.release(site.world(images={"fault": "errors"}), "v1.1.0").result == "released"


def test_a_bad_candidate_loses_its_traffic_before_the_commit_that_says_why(site: Site) -> None:
    site.script(errors=0.3)
    outcome = site.release("v1.1.0")
    assert (outcome.result, outcome.exit_code) == ("rolled_back", 3)
    assert site.subjects()[-2:] == [
        "Roll back v1.1.0 at A/B test: error_rate 0.300 of 200 requests is above 0.05",
        "Finish the rollback of v1.1.0: v1.0.0 serves all traffic",
    ]
    state, world = site.state(), site.file.read()
    assert (state.stable and state.stable.tag, state.held[0].tag, state.weight) == ("v1.0.0", "v1.1.0", 0.0)
    assert (world["weights"], world["aliases"]) == ([0.5, 0.0], {"champion": "1"})
    assert "production/candidate" not in world["deployed"]
    evidence = next(event for event in site.history().events if event.action == "rollback")
    assert evidence.counters == {"n": 200, "errors": 60, "epoch": "1"}
    assert evidence.verdict["e_values"] == {"errors": 30.0}


def test_what_was_rolled_back_is_held_under_any_tag_until_a_person_lets_it_go(site: Site) -> None:
    site.script(errors=0.3)
    site.release("v1.1.0")
    site.script(errors=0.0)
    with pytest.raises(GateFailed, match=r"^v1\.1\.0: is what v1\.1\.0 was when it was rolled back"):
        site.release("v1.1.0")
    site.tag("v1.1.1", "v1.1.0^{commit}")
    with pytest.raises(GateFailed, match=r"^v1\.1\.1: is what v1\.1\.0 was"):
        site.release("v1.1.1")
    assert machine.let_go(site.world(), "the upstream was down", "v1.1.0").said == "let go"
    assert site.release("v1.1.0").result == "released"
    assert (site.state().attempt, len(site.histories())) == (2, 2)
    assert [event.attempt for event in site.history().events if event.action == "begin"] == [1, 2]


def test_the_same_tag_again_is_already_released(site: Site) -> None:
    site.release("v1.1.0")
    tree = site.tree()
    assert site.release("v1.1.0") == ("released", "v1.1.0: already released; it serves all traffic")
    assert site.tree() == tree


def test_a_second_tag_is_refused_while_the_first_is_on_its_way(site: Site) -> None:
    assert site.release("v1.1.0", once=True).result == "waiting"
    site.next("v1.2.0")
    with pytest.raises(GateFailed, match=r"^v1\.2\.0: v1\.1\.0 is on its way \(step staging\)"):
        site.release("v1.2.0")
    assert machine.reconcile(site.world()).said == "v1.1.0: released; it serves all traffic"
    assert site.release("v1.2.0").result == "released"


def test_of_two_tags_at_once_one_begins_and_the_other_is_refused(site: Site) -> None:
    site.next("v1.2.0")
    slow, fast = site.world(), site.world()
    write, raced = slow.store.write, []

    def second(*arguments: object) -> str:
        if not raced:  # another runner is faster between reading and writing
            raced.append(machine.release(fast, "v1.2.0", once=True))
        return write(*arguments)  # type: ignore[arg-type]

    slow.store.write = second  # type: ignore[method-assign]
    with pytest.raises(GateFailed, match=r"^v1\.1\.0: v1\.2\.0 is on its way"):
        machine.release(slow, "v1.1.0")
    assert [one.result for one in raced] == ["waiting"]


def test_a_person_takes_the_last_release_back_once(site: Site) -> None:
    site.release("v1.1.0")
    assert machine.roll_back(site.world(), "customers complain").result == "rolled_back"
    state = site.state()
    assert (state.stable and state.stable.tag, state.held[0].why) == ("v1.0.0", "customers complain")
    assert site.file.read()["aliases"] == {"champion": "1"}
    with pytest.raises(GateFailed, match=r"^v1\.1\.0 was rolled back already, and v1\.0\.0 serves all traffic"):
        machine.roll_back(site.world(), "again")
    site.next("v1.2.0")
    assert site.release("v1.2.0").result == "released"


def test_after_a_rollback_only_a_named_version_is_taken_back_as_well(site: Site) -> None:
    site.release("v1.1.0")
    site.next("v1.2.0")
    site.script(errors=0.3)
    assert site.release("v1.2.0").result == "rolled_back"
    with pytest.raises(
        GateFailed, match=r"^v1\.2\.0 was rolled back already, .*, or name v1\.1\.0 to take it back as well"
    ):
        machine.roll_back(site.world(), "users complain")
    with pytest.raises(GateFailed, match=r"^v1\.2\.0 was rolled back already: v1\.1\.0 serves$"):
        machine.roll_back(site.world(), "users complain", "v1.2.0")
    assert machine.roll_back(site.world(), "users complain", "v1.1.0").result == "rolled_back"
    state = site.state()
    assert (state.stable and state.stable.tag, {held.tag for held in state.held}) == ("v1.0.0", {"v1.1.0", "v1.2.0"})
    assert site.subjects()[-2:] == [
        "Roll back v1.1.0 to v1.0.0: users complain",
        "Finish the rollback of v1.1.0: v1.0.0 serves all traffic",
    ]
    with pytest.raises(GateFailed, match=r"release a new version$"):
        machine.roll_back(site.world(), "again")
    with pytest.raises(GateFailed, match=r"^v1\.0\.0 has nothing before it that is not held$"):
        machine.roll_back(site.world(), "again", "v1.0.0")


@pytest.mark.parametrize("between", ["hold", "lift"])
def test_what_is_told_after_a_rollback_does_not_make_it_forgotten(site: Site, between: str) -> None:
    site.release("v1.1.0")
    site.next("v1.2.0")
    site.script(errors=0.3)
    site.release("v1.2.0")
    if between == "hold":
        machine.hold_back(site.world(), "wait for the vendor")
    else:
        machine.let_go(site.world(), "the upstream was down", "v1.2.0")
    with pytest.raises(GateFailed, match=r"^v1\.2\.0 was rolled back already"):
        machine.roll_back(site.world(), "users complain")


def test_nobody_is_sent_back_to_content_that_is_held(site: Site) -> None:
    site.release("v1.1.0")
    site.tag("v1.2.0", "v1.0.0^{commit}")  # what v1.0.0 was, once more
    site.script(errors=0.3)
    assert site.release("v1.2.0").result == "rolled_back"
    with pytest.raises(GateFailed, match=r"^v1\.1\.0 has nothing before it that is not held$"):
        machine.roll_back(site.world(), "users complain", "v1.1.0")


def test_a_rollback_of_another_version_than_the_one_on_its_way_is_refused(site: Site) -> None:
    site.bring_to()
    with pytest.raises(GateFailed, match=r"^v1\.0\.0 cannot be taken back: v1\.1\.0 is on its way$"):
        machine.roll_back(site.world(), "users complain", "v1.0.0")
    assert machine.roll_back(site.world(), "users complain", "v1.1.0").result == "rolled_back"
    assert site.subjects()[-2] == "Roll back v1.1.0 at 50 %: users complain"


def test_the_first_release_has_nothing_to_go_back_to(built_with_remote: Site, site: Site) -> None:
    with pytest.raises(GateFailed, match=r"^v1\.0\.0 is the first release"):
        machine.roll_back(site.world(), "why not")


def test_a_held_rollout_neither_advances_nor_runs_out_of_time_but_still_goes_back(site: Site) -> None:
    site.bring_to()
    machine.hold_back(site.world(), "the shop is closed")
    site.file.change(lambda world: world.update(now=world["now"] + 5000))
    outcome = machine.reconcile(site.world())
    assert (outcome.result, outcome.exit_code, site.state().step) == ("paused", 4, "ab_test")
    machine.let_go(site.world(), "open again")
    assert machine.reconcile(site.world()).result == "released"


def test_a_freeze_refuses_every_release_until_it_is_lifted(site: Site) -> None:
    machine.hold_back(site.world(), "holidays")
    with pytest.raises(GateFailed, match=r"^v1\.1\.0: rita holds every release since .*: holidays$"):
        site.release("v1.1.0")
    machine.let_go(site.world(), "back at work")
    assert site.release("v1.1.0").result == "released"


def test_harm_ends_a_held_rollout_too(site: Site) -> None:
    site.bring_to()
    machine.hold_back(site.world(), "let us see")
    site.script(errors=0.4)
    site.file.change(lambda world: world.update(now=world["now"] + 60))
    assert machine.reconcile(site.world()).result == "rolled_back"


def test_the_last_three_champions_stay_restorable(site: Site) -> None:
    site.release("v1.1.0")
    for name in ("v1.2.0", "v1.3.0"):
        site.next(name)
        site.release(name)
    assert [one.tag for one in site.state().earlier] == ["v1.2.0", "v1.1.0"]
    assert site.file.read()["aliases"] == {"champion": "4", "champion-1": "3", "champion-2": "2"}


def test_a_rollback_beside_a_running_release_is_carried_out_by_that_one(site: Site) -> None:
    class Watched(ScriptedClock):
        """Somebody types `make rollback` in a second terminal while the first canary stage runs."""

        def wait_until(self, moment: float) -> None:
            super().wait_until(moment)
            if site.state().weight == 0.1:
                world = site.world(target=Elsewhere(site.file))
                said.append(machine.roll_back_beside(world, "users complain", "process 7"))

    class Elsewhere(ScriptedTarget):
        """Another process' view of a target whose processes are not its own."""

        def weight(self) -> float:
            return 0.0

    said: list[machine.Outcome] = []
    outcome = machine.release(site.world(clock=Watched(site.file)), "v1.1.0")
    assert said == [("waiting", "process 7 sees it at its next look and goes back")]
    assert (outcome.result, site.file.read()["weights"]) == ("rolled_back", [0.5, 0.1, 0.0])
    assert site.subjects()[-2:] == [
        "Roll back v1.1.0 at 10 %: users complain",
        "Finish the rollback of v1.1.0: v1.0.0 serves all traffic",
    ]


def test_a_rollback_beside_a_command_that_has_begun_nothing_is_refused(site: Site) -> None:
    before = site.subjects()
    with pytest.raises(GateFailed, match=r"^process 7 has begun no release yet that could be taken back; wait, or end"):
        machine.roll_back_beside(site.world(), "users complain", "process 7")
    assert site.subjects() == before
