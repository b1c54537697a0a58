"""A release on a cluster: what Argo Rollouts, the route and the gateway are at each step, and what may go wrong."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipelines.release import machine
from pipelines.release.kubernetes.access import Access
from pipelines.release.kubernetes.api import Api
from pipelines.release.targets import Smoked
from pipelines.release.world import look
from tests.k8s.kustomize import build
from tests.release.kubernetes.cluster import TOKEN, Cluster
from tests.release.kubernetes.place import ROOT, Place
from tests.release.site import git


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Place:
    made = Place(tmp_path_factory.mktemp("kubernetes"))
    made.site.tag("v1.0.0")
    made.sync()
    assert made.release("v1.0.0").result == "released"
    made.next("v1.1.0")
    made.close()
    return made


def copied(built: Place, folder: Path) -> Iterator[Place]:
    made = built.copy(folder / "site")
    yield made
    made.close()


@pytest.fixture
def place(built: Place, tmp_path: Path) -> Iterator[Place]:
    """v1.0.0 serves, v1.1.0 is tagged."""
    yield from copied(built, tmp_path)


@pytest.fixture(scope="module")
def built_to_test(built: Place, tmp_path_factory: pytest.TempPathFactory) -> Place:
    made = built.copy(tmp_path_factory.mktemp("test") / "site")
    until(made, "ab_test")
    made.close()
    return made


@pytest.fixture
def testing(built_to_test: Place, tmp_path: Path) -> Iterator[Place]:
    """v1.1.0 is at its A/B test."""
    yield from copied(built_to_test, tmp_path)


@pytest.fixture(scope="module")
def built_to_canary(built_to_test: Place, tmp_path_factory: pytest.TempPathFactory) -> Place:
    made = built_to_test.copy(tmp_path_factory.mktemp("canary") / "site")
    until(made, "canary")
    made.close()
    return made


@pytest.fixture
def canary(built_to_canary: Place, tmp_path: Path) -> Iterator[Place]:
    """v1.1.0 is at its first canary stage."""
    yield from copied(built_to_canary, tmp_path)


def until(place: Place, step: str) -> None:
    """Carry a release on look by look until a step has its traffic."""
    for _ in range(200):
        place.release("v1.1.0", once=True)
        place.site.file.change(lambda world: world.update(now=world["now"] + 1))
        if place.site.state().step == step and place.weights()[1]:
            return
    raise AssertionError(f"{step} was never reached: {place.site.state()}")


def test_a_first_release_needs_no_stage_and_leaves_nothing_but_what_git_declares(place: Place) -> None:
    manifest = place.site.state().stable.manifest
    rollout = place.get("Rollout")
    assert rollout["spec"]["template"]["metadata"]["annotations"] == {"gatehouse.dev/manifest": manifest}
    assert rollout["status"]["stableRS"] == rollout["status"]["currentPodHash"]
    assert place.weights() == [100, 0]
    declared = Cluster()
    place_of = place.cluster
    place.cluster = declared
    place.sync()  # a cluster that is built anew
    assert place.served()[0] == yaml_of(place_of, place)
    assert place.get("Rollout")["spec"] == rollout["spec"]


def yaml_of(cluster: Cluster, place: Place) -> object:
    place.cluster, kept = cluster, place.cluster
    try:
        return place.served()[0]
    finally:
        place.cluster = kept


def test_a_good_release_goes_up_the_ladder_and_ends_as_stable(place: Place) -> None:
    assert place.release("v1.1.0") == ("released", "v1.1.0: released; it serves all traffic")
    state = place.site.state()
    assert [line.split(":")[0] for line in place.said if not line.startswith("waiting")][-5:] == [
        "Start the A/B test of v1.1.0 with 50 % of traffic",
        "Send 10 % of traffic to v1.1.0 (canary 1 of 2)",
        "Send 100 % of traffic to v1.1.0 (canary 2 of 2)",
        "Make v1.1.0 the champion instead of v1.0.0",
        "Finish the release of v1.1.0",
    ]
    target = place.target()
    assert target.deployed("production", "stable") == target.deployed("staging", "stable") == state.stable.manifest
    assert (target.deployed("production", "candidate"), place.weights(), target.split().share) == ("", [100, 0], 0.0)
    serving, prompts = place.served()
    assert set(prompts) == {"triage.prompt.yml", "reply.prompt.yml"}
    assert "For v1.1.0" in prompts["triage.prompt.yml"]
    assert place.images["model-candidate"].endswith(serving["upstreams"]["candidate"]["digest"])
    container = place.get("Deployment", "gateway")["spec"]["template"]["spec"]["containers"][0]
    assert container["image"] == place.images["gateway"]


def test_while_two_versions_serve_each_has_its_own_prompt_and_identity(testing: Place) -> None:
    serving, prompts = testing.served()
    sides = serving["routes"]["triage"]["variants"]
    stable, candidate = (serving["upstreams"][sides[name]["upstream"]] for name in ("stable", "candidate"))
    assert (stable["base_url"], candidate["base_url"]) == (
        "http://vllm-stable:8000/v1",
        "http://vllm-candidate:8000/v1",
    )
    assert stable["digest"] != candidate["digest"]
    assert "For v1.1.0" in prompts[Path(sides["candidate"]["prompt"]).name]
    assert "For v1.1.0" not in prompts["triage.prompt.yml"]
    assert "variants" in serving["routes"]["reply"], "its model differs too"
    assert testing.weights() == [50, 50]
    terms = testing.target().split()
    assert (terms.share, terms.stage) == (0.5, "ab_test")


def test_a_bad_candidate_is_taken_back_and_its_pods_go(place: Place) -> None:
    before = place.served()
    place.site.script(errors=0.3)
    assert place.release("v1.1.0").result == "rolled_back"
    target = place.target()
    assert (place.weights(), target.deployed("production", "candidate")) == ([100, 0], "")
    assert target.deployed("production", "stable") == place.site.state().stable.manifest
    assert place.served() == before
    assert "gatehouse.dev/rollout" not in place.get("HTTPRoute")["metadata"].get("annotations", {})
    rollout = place.get("Rollout")
    assert rollout["status"]["currentPodHash"] == rollout["status"]["stableRS"]


def test_users_are_safe_although_argo_rollouts_is_away(testing: Place) -> None:
    testing.site.script(errors=0.3)
    testing.cluster.has_controller = False
    testing.site.file.change(lambda world: world.update(now=world["now"] + 30))
    assert machine.reconcile(testing.world()).result == "rolled_back"
    assert testing.weights() == [100, 0]
    testing.cluster.has_controller = True
    testing.cluster.go_on()
    assert testing.weights() == [100, 0]
    assert testing.get("Rollout")["status"]["currentPodHash"] == testing.get("Rollout")["status"]["stableRS"]


def test_argo_rollouts_takes_the_candidate_back_where_nobody_else_is_and_reconcile_writes_it(testing: Place) -> None:
    testing.cluster.answer = lambda: (200, {"verdict": "rollback", "reasons": ["error_rate"]})
    testing.cluster.go_on()
    assert testing.get("Rollout")["status"]["abort"] is True
    assert testing.weights() == [100, 0]
    testing.site.script(errors=0.3)
    assert machine.reconcile(testing.world()).result == "rolled_back"
    assert testing.site.state().held[0].tag == "v1.1.0"
    assert testing.get("Rollout")["status"]["abort"] is False


def test_argo_rollouts_goes_no_step_by_itself_however_well_all_looks(testing: Place) -> None:
    testing.cluster.answer = lambda: (200, {"verdict": "advance"})
    testing.cluster.go_on(100)
    assert testing.weights() == [50, 50]


def test_a_cluster_that_is_built_anew_in_mid_canary_starts_on_stable(canary: Place) -> None:
    stable = canary.site.state().stable.manifest
    canary.cluster.held.clear()
    canary.cluster.sets.clear()
    canary.sync()
    target = canary.target()
    assert target.deployed("production", "stable") == stable
    assert (target.deployed("production", "candidate"), canary.weights()) == ("", [100, 0])
    assert canary.get("Rollout")["status"]["stableRS"] == canary.get("Rollout")["status"]["currentPodHash"]
    assert machine.reconcile(canary.world()).result == "released"
    assert canary.target().deployed("production", "stable") == canary.site.state().stable.manifest


def test_a_candidate_is_never_the_first_that_a_new_cluster_runs(canary: Place) -> None:
    canary.cluster.held.clear()
    canary.cluster.sets.clear()
    canary.cluster.has_controller = False  # it comes later than the release
    canary.sync()
    machine.reconcile(canary.world(), once=True)
    stable = canary.site.state().stable.manifest
    assert canary.get("Rollout")["spec"]["template"]["metadata"]["annotations"]["gatehouse.dev/manifest"] == stable


def test_a_candidate_that_never_gets_ready_is_rolled_back(place: Place) -> None:
    place.cluster.broken.add(("gatehouse-production", place.images["model-candidate"]))
    assert place.release("v1.1.0").result == "rolled_back"
    assert "not ready in production" in place.site.state().held[0].why
    assert place.target().deployed("production", "candidate") == ""


def test_no_user_meets_a_candidate_before_every_gateway_knows_it(place: Place) -> None:
    place.cluster.stuck.add("gatehouse-production")
    for _ in range(6):
        assert place.release("v1.1.0", once=True).result == "waiting"
        place.site.file.change(lambda world: world.update(now=world["now"] + 1))
    assert (place.site.state().step, place.weights()) == ("deploy", [100, 0])


def test_without_counters_nothing_advances_and_in_the_end_it_goes_back(testing: Place) -> None:
    testing.is_counting = False
    assert machine.reconcile(testing.world()).result == "rolled_back"
    assert "nothing could be measured" in testing.site.state().held[0].why


def test_a_person_takes_the_last_release_back(place: Place) -> None:
    before = place.served()
    assert place.release("v1.1.0").result == "released"
    assert machine.roll_back(place.world(), "customers complain").result == "rolled_back"
    target = place.target()
    assert target.deployed("production", "stable") == place.site.state().stable.manifest
    assert place.served() == before
    assert (place.weights(), target.deployed("production", "candidate")) == ([100, 0], "")


def test_what_was_rolled_back_gets_no_short_way_at_its_second_try(place: Place) -> None:
    place.site.script(errors=0.3)
    place.release("v1.1.0")
    place.site.script(errors=0.0)
    stable = place.cluster.sets["gatehouse-production"]
    for one in stable:  # stable's pods were made anew since, so that the first try is older to Argo Rollouts
        if one["metadata"]["labels"]["rollouts-pod-template-hash"] == place.get("Rollout")["status"]["stableRS"]:
            one["metadata"]["creation"] = 99
    machine.let_go(place.world(), "the upstream was down", "v1.1.0")
    until(place, "ab_test")
    assert place.weights() == [50, 50]
    assert place.get("Rollout")["spec"]["template"]["metadata"]["annotations"]["gatehouse.dev/again"] == "1"
    assert place.release("v1.1.0").result == "released"


def test_changed_infrastructure_of_the_same_release_is_promoted_by_reconcile(place: Place) -> None:
    rollout = place.get("Rollout")
    rollout["spec"]["template"]["spec"]["containers"][0]["args"].append("--max-num-seqs=64")
    rollout["metadata"]["generation"] += 1
    place.cluster.go_on()
    target = place.target()
    assert (target.deployed("production", "stable"), target.deployed("production", "candidate")) == ("", "")
    machine.reconcile(place.world())
    machine.reconcile(place.world())
    assert target.deployed("production", "stable") == place.site.state().stable.manifest


PATCHED = "k8s/overlays/production/serving-patch.yaml"


def with_key(name: str) -> str:
    found = yaml.safe_load((ROOT / PATCHED).read_text())
    return yaml.safe_dump({**found, "keys": [{"name": name, "project": "support-desk", "sha256": "1" * 64}]})


def test_a_key_that_was_taken_away_is_away_at_the_next_reconcile_without_a_release(place: Place) -> None:
    place.site.commit({PATCHED: with_key("new")}, "Take the old key away")
    place.sync()
    assert [key["name"] for key in place.served()[0]["keys"]] == ["support-desk"], "Argo CD leaves it to the release"
    assert machine.reconcile(place.world()).result == "nothing"
    assert [key["name"] for key in place.served()[0]["keys"]] == ["new"]
    path = "k8s/overlays/production/released/serving.yaml"
    assert yaml.safe_load(git(place.site.root, "show", f"main:{path}"))["keys"][0]["name"] == "new"
    said = "Declare v1.0.0 in production with what has changed around it"
    assert place.site.subjects()[-1] == said
    machine.reconcile(place.world())
    assert place.site.subjects().count(said) == 1


def test_a_job_that_has_waited_declares_what_the_branch_says_by_then_not_its_checkout(place: Place) -> None:
    (place.site.root / PATCHED).write_text(with_key("old"))
    place.site.script(errors=0.0)
    assert place.release("v1.1.0").result == "released"
    assert [key["name"] for key in place.served()[0]["keys"]] == ["support-desk"]


def test_a_release_that_fails_in_staging_ends_there_with_an_account_that_only_reads_production(place: Place) -> None:
    (role,) = [one for one in build(ROOT / "k8s/overlays/production")
               if one["kind"] == "Role" and one["metadata"]["name"] == "release-reads"]  # fmt: skip
    readable = {
        f"/{kind}/{name}".rstrip("/")
        for rule in role["rules"]
        for kind in rule["resources"]
        for name in rule.get("resourceNames", [""])
    }

    def refuses(method: str, path: str) -> bool:
        return "/gatehouse-production/" in path and not (method == "GET" and path.endswith(tuple(readable)))

    place.cluster.refuses = refuses
    target = place.target(asked=lambda environment, slot, version: Smoked(False, "0 of 2 answered"))
    outcome = machine.release(
        replace(place.world(), target=target), "v1.1.0", bounds=machine.Bounds(is_staging_only=True)
    )
    assert outcome.result == "rolled_back"
    assert place.site.state().held[0].why == "smoke tests failed in staging: 0 of 2 answered"


def test_what_an_old_pod_of_the_gateway_mounts_stays_until_the_new_ones_serve(testing: Place) -> None:
    mounted = testing.get("Deployment", "gateway")["spec"]["template"]["spec"]["volumes"]
    names = [one["configMap"]["name"] for one in mounted if "configMap" in one]
    testing.cluster.stuck.add("gatehouse-production")
    assert machine.roll_back(testing.world(), "customers complain").result == "rolled_back"
    for name in names:
        testing.get("ConfigMap", name)
    testing.cluster.stuck.clear()
    seen = look(testing.world())
    assert seen.state.stable is not None
    testing.target().deploy("production", "stable", seen.manifest(seen.state.stable))  # as the next release does
    left = [path for path in testing.cluster.held if path.endswith(tuple(names))]
    assert not left


def test_others_who_change_the_same_resource_are_taken_in(place: Place) -> None:
    raced: list[str] = []

    def meddle(method: str, path: str) -> None:
        if method == "PATCH" and len(raced) < 3 and path.endswith(("/rollouts/vllm", "/httproutes/vllm")):
            raced.append(path)
            resource = place.cluster.held[path]
            resource["metadata"]["resourceVersion"] = "9" * (len(raced) + 6)
            resource["metadata"].setdefault("annotations", {})["somebody"] = "else"

    place.cluster.meddle = meddle
    until(place, "ab_test")
    assert len(raced) == 3
    assert all(place.cluster.held[path]["metadata"]["annotations"]["somebody"] == "else" for path in raced)


def test_a_run_that_dies_after_each_request_that_changes_anything_ends_the_same(place: Place) -> None:
    died: list[str] = []
    undisturbed = place.copy(place.site.folder.parent / "undisturbed")
    assert undisturbed.release("v1.1.0").result == "released"
    undisturbed.close()

    class Mortal(Api):
        def _once(self, method: str, path: str, *rest: Any) -> tuple[int, bytes]:
            answer = super()._once(method, path, *rest)
            if method != "GET":
                died.append(f"{method} {path}")
                raise Died
            return answer

    address = place.server.server_address[1]
    mortal = Mortal(lambda: Access(f"http://127.0.0.1:{address}", token=TOKEN), nap=lambda seconds: None)
    for _ in range(60):
        try:
            outcome = machine.release(replace(place.world(), target=place.target(api=mortal)), "v1.1.0")
        except Died:
            continue
        break
    assert outcome.result == "released"
    assert len(died) >= 12, "nothing was tried"
    assert place.served() == undisturbed.served()
    for kind, name in (("Rollout", "vllm"), ("HTTPRoute", "vllm"), ("Deployment", "gateway")):
        assert place.get(kind, name)["spec"] == undisturbed.get(kind, name)["spec"]
    assert place.site.state().stable == undisturbed.site.state().stable
    seen = look(place.world())
    assert seen.state.stable is not None
    place.target().deploy("production", "stable", seen.manifest(seen.state.stable))  # as the next release does
    place.target().deploy("staging", "stable", seen.manifest(seen.state.stable))
    assert place.cluster.held.keys() == undisturbed.cluster.held.keys(), "maps were left behind"


class Died(BaseException):
    """As SIGKILL: the request is done, and nobody is there to know."""
