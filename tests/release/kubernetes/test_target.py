"""A release on a cluster: what Argo Rollouts, the route and the gateway are at each step, and what may go wrong."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from pipelines.release import machine
from tests.release.kubernetes.cluster import Cluster
from tests.release.kubernetes.place import Place


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Place:
    made = Place(tmp_path_factory.mktemp("kubernetes"))
    made.site.tag("v1.0.0")
    made.sync()
    assert made.release("v1.0.0").result == "released"
    made.next("v1.1.0")
    made.close()
    return made


@pytest.fixture
def place(built: Place, tmp_path: Path) -> Iterator[Place]:
    """v1.0.0 serves, v1.1.0 is tagged."""
    made = built.copy(tmp_path / "site")
    yield made
    made.close()


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


def test_while_two_versions_serve_each_has_its_own_prompt_and_identity(place: Place) -> None:
    until(place, "ab_test")
    serving, prompts = place.served()
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
    assert place.weights() == [50, 50]
    terms = place.target().split()
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


def test_users_are_safe_although_argo_rollouts_is_away(place: Place) -> None:
    until(place, "ab_test")
    place.site.script(errors=0.3)
    place.cluster.has_controller = False
    place.site.file.change(lambda world: world.update(now=world["now"] + 30))
    assert machine.reconcile(place.world()).result == "rolled_back"
    assert place.weights() == [100, 0]
    place.cluster.has_controller = True
    place.cluster.go_on()
    assert place.weights() == [100, 0]
    assert place.get("Rollout")["status"]["currentPodHash"] == place.get("Rollout")["status"]["stableRS"]


def test_argo_rollouts_takes_the_candidate_back_where_nobody_else_is_and_reconcile_writes_it(place: Place) -> None:
    until(place, "ab_test")
    place.cluster.answer = lambda: (200, {"verdict": "rollback", "reasons": ["error_rate"]})
    place.cluster.go_on()
    assert place.get("Rollout")["status"]["abort"] is True
    assert place.weights() == [100, 0]
    place.site.script(errors=0.3)
    assert machine.reconcile(place.world()).result == "rolled_back"
    assert place.site.state().held[0].tag == "v1.1.0"
    assert place.get("Rollout")["status"]["abort"] is False


def test_argo_rollouts_goes_no_step_by_itself_however_well_all_looks(place: Place) -> None:
    until(place, "ab_test")
    place.cluster.answer = lambda: (200, {"verdict": "advance"})
    place.cluster.go_on(100)
    assert place.weights() == [50, 50]


def test_a_cluster_that_is_built_anew_in_mid_canary_starts_on_stable(place: Place) -> None:
    until(place, "canary")
    stable = place.site.state().stable.manifest
    place.cluster.held.clear()
    place.cluster.sets.clear()
    place.sync()
    target = place.target()
    assert target.deployed("production", "stable") == stable
    assert (target.deployed("production", "candidate"), place.weights()) == ("", [100, 0])
    assert place.get("Rollout")["status"]["stableRS"] == place.get("Rollout")["status"]["currentPodHash"]
    assert machine.reconcile(place.world()).result == "released"
    assert place.target().deployed("production", "stable") == place.site.state().stable.manifest


def test_a_candidate_is_never_the_first_that_a_new_cluster_runs(place: Place) -> None:
    until(place, "canary")
    place.cluster.held.clear()
    place.cluster.sets.clear()
    place.cluster.has_controller = False  # it comes later than the release
    place.sync()
    machine.reconcile(place.world(), once=True)
    stable = place.site.state().stable.manifest
    assert place.get("Rollout")["spec"]["template"]["metadata"]["annotations"]["gatehouse.dev/manifest"] == stable


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


def test_without_counters_nothing_advances_and_in_the_end_it_goes_back(place: Place) -> None:
    until(place, "ab_test")
    place.is_counting = False
    assert machine.reconcile(place.world()).result == "rolled_back"
    assert "nothing could be measured" in place.site.state().held[0].why


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


def test_others_who_change_the_same_resource_are_taken_in(place: Place) -> None:
    raced: list[str] = []

    def meddle(method: str, path: str) -> None:
        if method == "PATCH" and len(raced) < 3 and path.endswith(("/rollouts/vllm", "/httproutes/vllm")):
            raced.append(path)
            resource = place.cluster.held[path]
            resource["metadata"]["resourceVersion"] = "9" * (len(raced) + 6)
            resource["metadata"].setdefault("annotations", {})["somebody"] = "else"

    place.cluster.meddle = meddle
    assert place.release("v1.1.0").result == "released"
    assert len(raced) == 3
    assert all(place.cluster.held[path]["metadata"]["annotations"]["somebody"] == "else" for path in raced)
