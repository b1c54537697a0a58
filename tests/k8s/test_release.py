"""What lets Argo CD and Argo Rollouts carry out a release, and nothing beyond it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from pipelines.core.gates import Gates
from pipelines.core.rollout import Rollout
from pipelines.core.source import parse
from pipelines.release.kubernetes import cluster, configuration, gateway, rollout, route
from pipelines.release.kubernetes.rollout import FIRST_SHARE_STEP, READY_STEP, ZERO_STEP, ladder
from pipelines.release.plan import VERDICTS
from tests.k8s.kustomize import Resource, build
from tests.k8s.test_overlays import ENVIRONMENTS, ROOT, check, resources
from tests.release.kubernetes.controller import measured

each = pytest.mark.parametrize("environment", ENVIRONMENTS)
RETRY_S = 10
"""After an error Argo Rollouts asks again so soon (metric/analysis: DefaultErrorRetryInterval)."""


def rollout_of(environment: str) -> Resource:
    return resources(environment)["Rollout", "vllm"]


def gates_of(environment: str) -> Rollout:
    gates = Gates.model_validate(parse(ROOT / f"k8s/overlays/{environment}/released/gates.yaml").value)
    assert gates.canary is not None
    assert gates.canary.kubernetes is not None
    return gates.canary.kubernetes


@each
def test_a_release_waits_longer_than_a_model_may_take_to_start(environment: str) -> None:
    spec = rollout_of(environment)["spec"]
    (container,) = spec["template"]["spec"]["containers"]
    starts_s = container["startupProbe"]["periodSeconds"] * container["startupProbe"]["failureThreshold"]
    assert spec["progressDeadlineSeconds"] >= gates_of(environment).ready_within_s > starts_s
    assert gates_of(environment).max_unknown_s > starts_s, "a candidate's only pod may move to another node"


def metric(environment: str) -> Resource:
    (found,) = resources(environment)["AnalysisTemplate", "verdict"]["spec"]["metrics"]
    return found


# --- the way back without anybody -----------------------------------------------------------------------------


@each
@pytest.mark.parametrize("word", VERDICTS)
def test_of_the_five_verdicts_rollback_alone_takes_the_candidate_back(environment: str, word: str) -> None:
    phase = measured(metric(environment), (200, {"verdict": word, "reasons": []}))
    assert phase == ("Failed" if word == "rollback" else "Successful")


@pytest.mark.parametrize(
    "body",
    [{"verdict": "Advance"}, {"verdict": ""}, {"verdict": None}, {"verdict": 1}, {"verdict": ["advance"]}, "<html>"],
)
def test_a_word_that_nobody_knows_is_never_taken_for_a_good_one(body: Any) -> None:
    assert measured(metric("production"), (200, body)) == "Failed"


@pytest.mark.parametrize("answer", [None, (404, {"error": {}}), (503, {"verdict": "advance"}), (200, {}), (200, [1])])
def test_no_answer_is_an_error_and_neither_good_nor_bad(answer: tuple[int, Any] | None) -> None:
    assert measured(metric("production"), answer) == "Error"


@each
def test_the_watch_over_a_candidate_ends_with_it_and_not_before(environment: str) -> None:
    found = metric(environment)
    # With a count, a limit of successes or of inconclusive measurements the run would end, and nobody would watch.
    assert not {"count", "consecutiveSuccessLimit", "inconclusiveLimit", "initialDelay"} & set(found)
    assert (found["failureLimit"], found["interval"]) == (0, "30s")
    # What cannot be measured is an error: Git's run, which would go back after max_unknown_s, has the first word.
    assert found["consecutiveErrorLimit"] * RETRY_S >= gates_of(environment).max_unknown_s
    web = found["provider"]["web"]
    assert web["timeoutSeconds"] < 30
    private = resources(environment)["Service", "gateway-private"]
    assert (
        web["url"]
        == f"http://gateway-private.{{{{args.namespace}}}}.svc:{private['spec']['ports'][0]['port']}/v1/verdict"
    )
    analysis = rollout_of(environment)["spec"]["strategy"]["canary"]["analysis"]
    assert analysis["args"] == [{"name": "namespace", "valueFrom": {"fieldRef": {"fieldPath": "metadata.namespace"}}}]
    assert analysis["templates"] == [{"templateName": "verdict"}]


# --- the ladder -----------------------------------------------------------------------------------------------


@each
def test_steps_are_those_of_the_releases_gates_and_every_share_waits_for_git(environment: str) -> None:
    canary = rollout_of(environment)["spec"]["strategy"]["canary"]
    gates = Gates.model_validate(parse(ROOT / f"k8s/overlays/{environment}/released/gates.yaml").value)
    wanted = ladder(gates)
    assert canary["steps"] == wanted.steps
    assert rollout_of(environment)["metadata"]["annotations"][rollout.STAGES] == wanted.stages
    steps = canary["steps"]
    assert steps[ZERO_STEP] == {"setWeight": 0}
    assert steps[READY_STEP] == {"pause": {}}
    assert canary["analysis"]["startingStep"] == FIRST_SHARE_STEP
    assert gates.canary is not None
    assert gates.canary.kubernetes is not None
    assert gates.ab_test is not None
    assert gates.ab_test.kubernetes is not None
    shares = [gates.ab_test.kubernetes.weight, *(stage.weight for stage in gates.canary.kubernetes.stages)]
    assert [step["setWeight"] for step in steps[FIRST_SHARE_STEP::2]] == shares
    assert all(step == {"pause": {}} for step in steps[FIRST_SHARE_STEP + 1 :: 2])
    assert len(steps) % 2 == 0, "the last share waits as well"


@each
def test_going_back_needs_no_pod_of_stable_to_start_and_cuts_nobody_off(environment: str) -> None:
    spec = rollout_of(environment)["spec"]
    canary = spec["strategy"]["canary"]
    assert canary["dynamicStableScale"] is False
    # Longer than an answer may take, and than the gateway takes to see a weight.
    grace_s = spec["template"]["spec"]["terminationGracePeriodSeconds"]
    assert min(canary["abortScaleDownDelaySeconds"], canary["scaleDownDelaySeconds"]) > grace_s
    assert spec["progressDeadlineAbort"] is True
    assert spec["rollbackWindow"] == {"revisions": 3}


@each
def test_route_services_and_serving_file_name_the_same_two_sides(environment: str) -> None:
    canary = rollout_of(environment)["spec"]["strategy"]["canary"]
    assert (canary["stableService"], canary["canaryService"]) == (route.STABLE, route.CANDIDATE)
    plugin = canary["trafficRouting"]["plugins"]["argoproj-labs/gatewayAPI"]
    found = resources(environment)["HTTPRoute", plugin["httpRoute"]]
    (rule,) = found["spec"]["rules"]
    assert [(one["name"], one["weight"]) for one in rule["backendRefs"]] == [(route.STABLE, 100), (route.CANDIDATE, 0)]
    assert "parentRefs" not in found["spec"], "no traffic passes through it"
    served = yaml.safe_load((ROOT / f"k8s/overlays/{environment}/released/serving.yaml").read_text())
    declared = served["rollout"]["weights"]["http_route"]
    assert (declared["name"], declared["namespace"]) == (plugin["httpRoute"], plugin["namespace"])
    assert (declared["stable"], declared["candidate"]) == (route.STABLE, route.CANDIDATE)


# --- who may do what ------------------------------------------------------------------------------------------


def rights(environment: str, name: str) -> set[tuple[str, str, str, str]]:
    rules = resources(environment)["Role", name]["rules"]
    return {
        (group, kind, one, verb)
        for rule in rules
        for group in rule["apiGroups"]
        for kind in rule["resources"]
        for one in rule.get("resourceNames", ["*"])
        for verb in rule["verbs"]
    }


@each
def test_accounts_may_do_this_and_nothing_else(environment: str) -> None:
    roles = {name for kind, name in resources(environment) if kind == "Role"}
    assert roles == {"gateway", "release", "weights"} | ({"release-reads"} if environment == "production" else set())
    gatewayapi = "gateway.networking.k8s.io"
    assert rights(environment, "gateway") == {
        (gatewayapi, "httproutes", "vllm", verb) for verb in ("get", "list", "watch")
    }
    assert rights(environment, "weights") == {
        (gatewayapi, "httproutes", "vllm", verb) for verb in ("get", "update", "patch")
    }
    assert rights(environment, "release") == {
        ("argoproj.io", "rollouts", "vllm", "get"), ("argoproj.io", "rollouts", "vllm", "patch"),
        ("argoproj.io", "rollouts/status", "vllm", "patch"), ("apps", "replicasets", "*", "list"),
        (gatewayapi, "httproutes", "vllm", "get"), (gatewayapi, "httproutes", "vllm", "patch"),
        ("apps", "deployments", "gateway", "get"), ("apps", "deployments", "gateway", "patch"),
        *(("", "configmaps", "*", verb) for verb in ("get", "list", "create", "delete")),
    }  # fmt: skip
    bindings = {name: one for (kind, name), one in resources(environment).items() if kind == "RoleBinding"}
    others = {"weights": ("argo-rollouts", "argo-rollouts"), "release-reads": ("release", "gatehouse-staging")}
    for name, binding in bindings.items():
        (subject,) = binding["subjects"]
        assert binding["roleRef"]["name"] == name
        assert (subject["name"], subject["namespace"]) == others.get(name, (name, f"gatehouse-{environment}"))


def test_staging_s_account_reads_of_production_what_its_own_changes_there_and_nothing_else() -> None:
    reads = {right for right in rights("production", "release") if right[3] in ("get", "list") and right[0]}
    assert rights("production", "release-reads") == reads


# --- Argo CD and Argo Rollouts --------------------------------------------------------------------------------


def installed(folder: str) -> list[Resource]:
    return build(ROOT / "k8s" / folder)


def test_what_is_given_to_argo_is_valid() -> None:
    for folder in ("argocd", "argo-rollouts"):
        for resource in installed(folder):
            check(resource)
    assert [one["metadata"]["name"] for one in installed("argocd")] == [
        "gatehouse",
        *("gatehouse-staging", "gatehouse-production"),
    ]


def test_a_misspelt_key_of_an_application_would_be_found() -> None:
    for resource in installed("argocd"):
        with pytest.raises(jsonschema.ValidationError, match="sourceRepoz"):
            check({**resource, "spec": {**resource["spec"], "sourceRepoz": []}})


@each
def test_argo_cd_leaves_alone_what_a_release_writes_and_heals_everything_else(environment: str) -> None:
    (found,) = [one for one in installed("argocd") if one["metadata"]["name"] == f"gatehouse-{environment}"]
    spec = found["spec"]
    assert spec["source"]["path"] == f"k8s/overlays/{environment}"
    assert spec["destination"]["namespace"] == cluster.namespace_of(ROOT, environment)
    assert spec["syncPolicy"]["automated"] == {"prune": True, "selfHeal": True}
    assert "RespectIgnoreDifferences=true" in spec["syncPolicy"]["syncOptions"]
    left = {(one["kind"], one["name"]): one["jqPathExpressions"] for one in spec["ignoreDifferences"]}
    assert left == {
        ("HTTPRoute", "vllm"): [".spec.rules[].backendRefs[].weight"],
        ("Rollout", "vllm"): [
            ".spec.template.spec.volumes[] | select(.image) | .image.reference",
            f'.spec.template.metadata.annotations["{rollout.MANIFEST}"]',
            f'.spec.template.metadata.annotations["{rollout.AGAIN}"]',
            f'.metadata.annotations["{rollout.STAGES}"]',
            ".spec.strategy.canary.steps",
        ],
        ("Deployment", "gateway"): [
            ".spec.template.spec.volumes[] | select(.configMap) | .configMap.name",
            '.spec.template.spec.containers[] | select(.name == "gateway") | .image',
            f'.metadata.annotations["{rollout.MANIFEST}"]',
        ],
    }
    for one in spec["ignoreDifferences"]:
        declared = resources(environment)[one["kind"], one["name"]]
        assert declared["apiVersion"].startswith(one["group"])
    declared = {gateway.CANDIDATE, gateway.BEFORE, rollout.WANTED, rollout.AGAIN, route.TERMS}
    assert not any(name in json.dumps(list(resources(environment).values())) for name in declared), "never in Git"


@each
def test_maps_that_a_gateway_may_still_mount_are_not_pruned(environment: str) -> None:
    for (kind, _), one in resources(environment).items():
        if kind == "ConfigMap":
            assert one["metadata"]["annotations"] == {
                "argocd.argoproj.io/sync-options": "Prune=false",
                "argocd.argoproj.io/compare-options": "IgnoreExtraneous",  # else it would be out of sync for ever
            }


def test_what_happens_in_the_cluster_is_told_to_github() -> None:
    (told,) = [one["data"] for one in installed("argo-rollouts") if "notification" in one["metadata"]["name"]]
    call = yaml.safe_load(told["template.gatehouse"])["webhook"]["gatehouse"]
    # Its token lies in the cluster, so it may start workflows and write nothing.
    assert call["path"].endswith("/actions/workflows/reconcile.yml/dispatches")
    assert json.loads(call["body"]) == {"ref": "main"}
    subscribed = rollout_of("production")["metadata"]["annotations"]
    triggers = {name.removeprefix("trigger.") for name in told if name.startswith("trigger.")}
    found = {re.fullmatch(r"notifications\.argoproj\.io/subscribe\.(.+)\.gatehouse", name) for name in subscribed}
    assert (
        {one[1] for one in found if one}
        == triggers
        == {"on-rollout-aborted", "on-rollout-paused", "on-rollout-completed"}
    )
    assert "github-token" in told["service.webhook.gatehouse"]


def test_a_plugin_whose_checksum_nobody_has_set_does_not_run() -> None:
    (config,) = [one["data"] for one in installed("argo-rollouts") if one["metadata"]["name"] == "argo-rollouts-config"]
    (plugin,) = yaml.safe_load(config["trafficRouterPlugins"])
    assert plugin["name"] in rollout_of("production")["spec"]["strategy"]["canary"]["trafficRouting"]["plugins"]
    assert plugin["sha256"] == "0" * 64


def test_testers_are_users_of_both_sides() -> None:
    served = yaml.safe_load((ROOT / "k8s/overlays/staging/released/serving.yaml").read_text())
    sides = served["routes"]["triage"]["variants"]
    assert {name: sides[name]["users"] for name in sides} == {k: [v] for k, v in configuration.TESTERS.items()}
    assert Path(served["routes"]["triage"]["prompt"]).parent == Path("prompts")
