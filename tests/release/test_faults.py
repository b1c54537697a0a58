"""What can fail around a release: Git, the registry, the counters, the candidate, the clock, the cluster."""

from __future__ import annotations

import pytest

from pipelines.core.errors import GateFailed, ServiceError
from pipelines.release import clock, machine
from pipelines.release.manifest import Manifest
from pipelines.release.targets import InForce, Slot
from tests.release.scripted import START, ScriptedTarget
from tests.release.site import Site, git


def test_a_persons_commit_in_between_is_kept_and_the_release_goes_on(site: Site) -> None:
    world = site.world()
    write, pushed = world.store.write, []

    def raced(*arguments: object) -> str:
        if len(pushed) < 3:
            pushed.append(site.commit({"README.md": f"{len(pushed)}\n"}, f"Explain {len(pushed)}"))
        return write(*arguments)  # type: ignore[arg-type]

    world.store.write = raced  # type: ignore[method-assign]
    assert machine.release(world, "v1.1.0").result == "released"
    assert [line for line in site.subjects() if line.startswith("Explain")] == ["Explain 0", "Explain 1", "Explain 2"]
    assert git(site.origin, "show", "main:README.md") == "2"
    assert site.file.read()["versions"].keys() == {name.split("/")[-1].split(".")[0] for name in site.histories()}


def test_a_remote_that_is_down_costs_nothing_but_the_run(site: Site) -> None:
    site.release("v1.1.0", once=True)
    site.origin.rename(site.folder / "away")
    with pytest.raises(ServiceError):
        machine.reconcile(site.world())
    (site.folder / "away").rename(site.origin)
    assert machine.reconcile(site.world()).result == "released"


def test_a_rollback_takes_the_traffic_away_though_git_is_down(site: Site) -> None:
    while not site.file.read()["weight"]:
        site.release("v1.1.0", once=True)
        site.file.change(lambda world: world.update(now=world["now"] + 5))
    site.file.change(lambda world: world.update(now=world["now"] + 60))
    site.script(errors=0.5)
    world = site.world()
    (site.origin / "hooks").mkdir(exist_ok=True)
    hook = site.origin / "hooks/pre-receive"
    hook.write_text("#!/bin/sh\nexit 1\n")
    hook.chmod(0o755)
    with pytest.raises(ServiceError):
        machine.reconcile(world)
    assert site.file.read()["weight"] == 0.0
    hook.unlink()
    assert machine.reconcile(world).result == "rolled_back"


def test_a_push_whose_answer_is_lost_is_found_to_have_arrived(site: Site) -> None:
    hook = site.origin / "hooks/post-receive"  # the branch has moved when it dies
    hook.parent.mkdir(exist_ok=True)
    hook.write_text("#!/bin/sh\nkill -9 $PPID\n")
    hook.chmod(0o755)
    outcome = site.release("v1.1.0", once=True)
    assert outcome.result == "waiting"
    assert sum(line.startswith("Begin release of v1.1.0") for line in site.subjects()) == 1


def test_a_registry_that_is_down_is_one_line_and_the_same_command_goes_on(site: Site) -> None:
    site.script(registry=False)
    with pytest.raises(ServiceError, match="the model registry does not answer"):
        site.release("v1.1.0")
    assert site.state().step == "register"
    site.script(registry=True)
    assert site.release("v1.1.0").result == "released"
    assert len(site.file.read()["versions"]) == 2


def test_counters_that_are_gone_for_a_while_hold_the_stage_and_are_told(site: Site) -> None:
    site.script(blind=[[5, 12]], per_second=6)
    assert site.release("v1.1.0").result == "released"
    said = [event.action for event in site.history().events if event.action in ("unknown", "known")]
    assert said == ["unknown", "known"]


def test_counters_that_nobody_can_have_before_the_splitter_is_told_are_not_missed(site: Site) -> None:
    site.script(blind=[[0, 8]])  # the first look comes before the first share
    assert site.release("v1.1.0").result == "released"
    assert "unknown" not in [event.action for event in site.history().events]


def test_counters_that_stay_away_take_the_candidate_back_as_inconclusive(site: Site) -> None:
    site.script(blind=[[15, 1e9]])
    assert site.release("v1.1.0").result == "rolled_back"
    assert "inconclusive, nothing could be measured for 60 s" in site.subjects()[-2]


def test_no_traffic_is_inconclusive_at_the_end_of_the_stage(site: Site) -> None:
    site.script(per_second=0)
    assert site.release("v1.1.0").result == "rolled_back"
    assert "inconclusive, not enough evidence within 120 s" in site.subjects()[-2]


def test_a_candidate_that_never_gets_ready_is_taken_back(site: Site) -> None:
    site.script(ready_s=10_000)
    assert site.release("v1.1.0").result == "rolled_back"
    assert site.subjects()[-2] == "Roll back v1.1.0: it was not ready in staging within 60 s"


def test_failed_smoke_tests_take_it_back_before_any_user_met_it(site: Site) -> None:
    site.script(smoke=False)
    assert site.release("v1.1.0").result == "rolled_back"
    assert "smoke tests failed in staging: 1 of 3 answered" in site.subjects()[-2]
    assert site.file.read()["weights"] == []


def test_a_clock_that_goes_back_never_makes_history_go_back(site: Site) -> None:
    site.release("v1.1.0", once=True)
    site.file.change(lambda world: world.update(now=START - 5000))
    site.script(ready_s=-10_000)
    world = site.world()
    while machine.reconcile(world, once=True).result == "waiting":
        site.file.change(lambda world: world.update(now=world["now"] + 700))
    times = [event.at for event in site.history().events]
    assert times == sorted(times)


def test_a_rebuilt_cluster_starts_on_stable_and_comes_back_to_its_stage(site: Site) -> None:
    site.bring_to(0.1, every_s=10)
    site.file.change(lambda world: world.update(deployed={}, ready_at={}, weight=1.0, weights=[]))
    for _ in range(3):  # it says that it is blind, then deploys
        machine.reconcile(site.world(), once=True)
    world, state = site.file.read(), site.state()
    assert world["deployed"]["production/stable"] == (state.stable.manifest if state.stable else "")
    assert world["weights"][0] == 0.0
    assert machine.reconcile(site.world()).result == "released"
    assert 0.1 in site.file.read()["weights"]


def test_a_machine_that_was_off_for_longer_than_a_stage_lasts_takes_the_stage_up_again(site: Site) -> None:
    site.bring_to(0.1, every_s=10)
    site.file.change(lambda world: world.update(deployed={}, ready_at={}, weight=0.0, now=world["now"] + 5000))
    site.script(per_second=0.05)  # nobody asked anything meanwhile
    while "known" not in [event.action for event in site.history().events]:
        assert machine.reconcile(site.world(), once=True).result == "waiting"
        site.file.change(lambda world: world.update(now=world["now"] + 5))
    assert clock.read(site.state().since) > START + 5000
    site.script(per_second=20)
    assert machine.reconcile(site.world()).result == "released"


def test_a_rebuilt_cluster_with_nothing_on_its_way_gets_stable(site: Site) -> None:
    site.file.change(lambda world: world.update(deployed={}, ready_at={}, weight=0.4))
    assert machine.reconcile(site.world(), once=True).result == "nothing"
    world, state = site.file.read(), site.state()
    assert world["deployed"] == {"production/stable": state.stable.manifest if state.stable else ""}
    assert world["weight"] == 0.0


def test_a_run_that_died_while_it_loaded_the_models_anew_costs_the_candidate_nothing(site: Site) -> None:
    site.bring_to(0.1, every_s=10)
    site.script(blind=[[0, 1e9]])
    machine.reconcile(site.world(), once=True)
    assert site.state().blind_since
    # It died here, and took everything that ran with it; somebody goes on the next day.
    site.file.change(lambda world: world.update(deployed={}, ready_at={}, weight=0.0, now=world["now"] + 28_800))
    site.script(blind=[])
    assert machine.reconcile(site.world()).result == "released"


def test_a_candidate_that_runs_is_blind_whether_a_run_looks_or_not(site: Site) -> None:
    site.bring_to(0.1, every_s=10)
    site.script(blind=[[0, 1e9]])
    machine.reconcile(site.world(), once=True)
    site.file.change(lambda world: world.update(now=world["now"] + 600))
    assert machine.reconcile(site.world()).result == "rolled_back"


def test_a_look_that_is_older_than_a_rollback_gives_no_traffic_back(site: Site) -> None:
    class Slow(ScriptedTarget):
        """Somebody rolls back right before this run gives the candidate the share that its machine has lost."""

        def split(self) -> InForce:
            found = super().split()
            if not self.file.read()["script"].get("raced"):
                site.script(raced=True)
                assert machine.roll_back(site.world(), "users complain").result == "rolled_back"
            return found

    site.bring_to(0.1, every_s=10)
    site.script(per_second=1)
    site.file.change(lambda world: world.update(weight=0.0, terms={}, weights=[]))
    assert machine.reconcile(site.world(target=Slow(site.file))).result == "rolled_back"
    assert site.file.read()["weights"] == []


def test_an_earlier_version_that_never_gets_ready_lets_a_newer_one_begin(site: Site) -> None:
    site.release("v1.1.0")
    site.script(ready_s=10_000)
    site.next("v1.2.0")
    bounds = machine.Bounds(deadline=site.file.read()["now"] + 50)
    outcome = machine.roll_back(site.world(), "users complain", bounds=bounds)
    assert outcome == ("waiting", "waiting: v1.0.0 to be ready again")
    with pytest.raises(GateFailed, match=r"^v1\.2\.0: v1\.0\.0 is on its way \(step restore\)"):
        site.release("v1.2.0")
    bounds = machine.Bounds(deadline=site.file.read()["now"] + 50)
    assert machine.reconcile(site.world(), bounds=bounds).said.endswith("v1.0.0 to be ready again, or a newer release")
    rest = "v1.1.0 still serves; a newer release may begin instead"
    assert site.subjects()[-1] == f"Keep trying to bring v1.0.0 back: not ready within 60 s; {rest}"
    site.script(ready_s=4)
    assert site.release("v1.2.0").result == "released"
    assert site.subjects()[-2].startswith("Make v1.2.0 the champion instead of v1.1.0")
    # Nobody goes back to what a person took back.
    assert [one.tag for one in site.state().earlier] == ["v1.0.0"]


def test_an_earlier_version_that_gets_ready_late_is_restored_all_the_same(site: Site) -> None:
    site.release("v1.1.0")
    site.script(ready_s=300)
    assert machine.roll_back(site.world(), "users complain").result == "rolled_back"
    assert [event.action for event in site.history().events][-3:] == ["rollback", "late", "restored"]
    assert (site.state().stable.tag, site.state().leaving) == ("v1.0.0", None)  # type: ignore[union-attr]


def test_an_earlier_version_whose_files_are_gone_is_tried_until_they_are_back(site: Site) -> None:
    class Gone(ScriptedTarget):
        def deploy(self, environment: str, slot: Slot, manifest: Manifest) -> None:
            if self.file.read()["now"] < until:
                raise ServiceError("models/candidate: object 1 is in no cache")
            super().deploy(environment, slot, manifest)

    site.release("v1.1.0")
    until = site.file.read()["now"] + 100
    assert machine.roll_back(site.world(target=Gone(site.file)), "users complain").result == "rolled_back"
    assert "not ready within 60 s (models/candidate: object 1 is in no cache)" in site.subjects()[-2]
