"""What staging and production get, built from the overlays: valid, pinned, restricted, probed and fenced in."""

from __future__ import annotations

import copy
import json
import re
import shutil
import subprocess
from functools import cache
from pathlib import Path

import jsonschema
import kubernetes_validate
import pytest
import yaml

from pipelines.serving.config import load_serving
from pipelines.serving.references import find
from tests.k8s.kustomize import Resource, build, identity

ROOT = Path(__file__).parents[2]
ENVIRONMENTS = ("production", "staging")
KUBERNETES = "1.35"  # the first in which image volumes need no switch
GROUPS = ("monitoring.coreos.com/v1", "keda.sh/v1alpha1", "argoproj.io/v1alpha1", "gateway.networking.k8s.io/v1")
RUN = ("Deployment", "Rollout")
VERDICT = {"GATEHOUSE_GATES", "GATEHOUSE_PROMETHEUS", "GATEHOUSE_PROMETHEUS_TOKEN"}
PRIVATE = ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16")
"""Where the Kubernetes API is; nothing selects it by a label, and nothing outside is reached by this way."""


@cache
def resources(environment: str) -> dict[tuple[str, str], Resource]:
    found = build(ROOT / "k8s/overlays" / environment)
    by_name = {identity(resource): resource for resource in found}
    assert len(by_name) == len(found), "two resources of one name"
    return by_name


def check(resource: Resource) -> None:
    if resource["apiVersion"] not in GROUPS:
        kubernetes_validate.validate(resource, KUBERNETES, strict=True)
        return
    group, _, version = resource["apiVersion"].partition("/")
    path = ROOT / f"tests/crds/{group}_{resource['kind'].lower()}_{version}.json"
    validator(path).validate(resource)
    if resource["kind"] == "Rollout":  # its own schema leaves most of the pods to Kubernetes
        pod = {
            "apiVersion": "v1",
            "kind": "PodTemplate",
            "metadata": {"name": "x"},
            "template": resource["spec"]["template"],
        }
        kubernetes_validate.validate(pod, KUBERNETES, strict=True)


@cache
def validator(path: Path) -> jsonschema.Draft202012Validator:
    return jsonschema.Draft202012Validator(
        json.loads(path.read_text())
    )  # unchecked itself: one of its patterns is Go's


def pods(environment: str) -> dict[str, Resource]:
    found = resources(environment).values()
    return {one["metadata"]["name"]: one["spec"]["template"] for one in found if one["kind"] in RUN}


def config_map(environment: str, name: str) -> Resource:
    (found,) = [
        one
        for (kind, full), one in resources(environment).items()
        if kind == "ConfigMap" and full.startswith(f"{name}-")
    ]
    return found


each = pytest.mark.parametrize("environment", ENVIRONMENTS)


def test_these_environments_are_all() -> None:
    found = (ROOT / "k8s/overlays").glob("*/kustomization.yaml")  # releases on one machine keep their state beside them
    assert tuple(sorted(path.parent.name for path in found)) == ENVIRONMENTS


@each
def test_every_resource_is_valid(environment: str) -> None:
    for resource in resources(environment).values():
        check(resource)


@each
def test_a_misspelt_key_of_any_resource_would_be_found(environment: str) -> None:
    for resource in resources(environment).values():
        if "spec" not in resource:
            continue
        wrong = copy.deepcopy(resource)
        wrong["spec"]["replicaz"] = 1
        with pytest.raises(jsonschema.ValidationError, match="replicaz"):
            check(wrong)


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not installed; the builder here stands alone")
@each
def test_kubectl_builds_the_same(environment: str) -> None:
    done = subprocess.run(
        ["kubectl", "kustomize", f"k8s/overlays/{environment}"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == "", "kustomize warns"
    theirs = {identity(one): one for one in yaml.safe_load_all(done.stdout)}
    assert theirs == resources(environment)


@each
def test_all_of_it_is_in_the_environments_own_namespace(environment: str) -> None:
    namespace = f"gatehouse-{environment}"
    for (kind, name), resource in resources(environment).items():
        assert (name if kind == "Namespace" else resource["metadata"]["namespace"]) == namespace, (kind, name)
    scaled = resources(environment)["ScaledObject", "vllm"]
    assert re.findall(r'namespace="([^"]+)"', json.dumps(scaled).replace('\\"', '"')) == [namespace]
    canary = resources(environment)["Rollout", "vllm"]["spec"]["strategy"]["canary"]
    (plugin,) = canary["trafficRouting"]["plugins"].values()
    assert plugin["namespace"] == namespace


@each
def test_every_image_is_named_by_digest(environment: str) -> None:
    text = yaml.safe_dump_all(resources(environment).values(), width=1000)
    images = re.findall(r"(?:image|reference): ([^\s{]+)\n", text)
    assert len(images) == 4, "gateway, vLLM, the base model and the adapter"
    for image in images:
        assert re.fullmatch(r"[a-z0-9./-]+(:[a-z0-9.]+)?@sha256:[0-9a-f]{64}", image), image
        assert ":latest" not in image


@each
def test_pods_are_restricted_and_only_the_gateway_has_an_account_of_the_cluster(environment: str) -> None:
    assert set(pods(environment)) == {"gateway", "vllm"}
    for name, pod in pods(environment).items():
        spec = pod["spec"]
        assert spec["automountServiceAccountToken"] is (name == "gateway")
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["runAsUser"] > 0
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(spec)
        assert not any("hostPath" in volume for volume in spec["volumes"])
        for container in spec["containers"]:
            security = container["securityContext"]
            assert security["allowPrivilegeEscalation"] is False
            assert security["readOnlyRootFilesystem"] is True
            assert security["capabilities"] == {"drop": ["ALL"]}
    labels = resources(environment)["Namespace", f"gatehouse-{environment}"]["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"


@each
def test_every_container_says_what_it_takes_and_how_it_is(environment: str) -> None:
    for pod in pods(environment).values():
        for container in pod["spec"]["containers"]:
            assert {"cpu", "memory"} <= set(container["resources"]["requests"])
            assert "memory" in container["resources"]["limits"]
            ports = {port["name"] for port in container["ports"]}
            for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
                assert container[probe]["httpGet"]["port"] in ports, probe
            for volume in pod["spec"]["volumes"]:
                assert "emptyDir" not in volume or "sizeLimit" in volume["emptyDir"], "grows until the node is full"
            mounted = {mount["name"] for mount in container["volumeMounts"]}
            assert mounted == {volume["name"] for volume in pod["spec"]["volumes"]}


@each
def test_services_monitors_budgets_and_scalers_point_at_pods_that_are_there(environment: str) -> None:
    found = resources(environment)
    for (kind, name), resource in found.items():
        spec = resource.get("spec", {})
        if kind == "Service":
            pod = pods(environment)[spec["selector"]["app.kubernetes.io/name"]]
            names = {port["name"] for container in pod["spec"]["containers"] for port in container["ports"]}
            assert {port["targetPort"] for port in spec["ports"]} <= names
        elif kind == "PodDisruptionBudget":
            assert spec["selector"]["matchLabels"] == pods(environment)[name]["metadata"]["labels"]
        elif kind in ("HorizontalPodAutoscaler", "ScaledObject"):
            assert spec["scaleTargetRef"]["name"] in pods(environment)
            scaled = found[spec["scaleTargetRef"]["kind"], spec["scaleTargetRef"]["name"]]
            assert spec["scaleTargetRef"]["apiVersion"] == scaled["apiVersion"]
            assert "replicas" not in scaled["spec"], "two would set it"
        elif kind == "ServiceMonitor":
            services = [one for (sort, _), one in found.items() if sort == "Service"]
            wanted = spec["selector"]["matchLabels"].items()
            (service,) = [one for one in services if wanted <= one["metadata"]["labels"].items()]
            assert spec["endpoints"][0]["port"] in {port["name"] for port in service["spec"]["ports"]}
        elif kind == "PodMonitor":
            pod = pods(environment)[name]
            assert spec["selector"]["matchLabels"] == pod["metadata"]["labels"]
            names = {port["name"] for container in pod["spec"]["containers"] for port in container["ports"]}
            assert {endpoint["port"] for endpoint in spec["podMetricsEndpoints"]} <= names


def ways(environment: str, direction: str, side: str) -> set[tuple[str, str, int]]:
    """Return (pods, peer, port) of everything that policies let through."""
    found = set()
    for (kind, _), policy in resources(environment).items():
        if kind != "NetworkPolicy":
            continue
        who = policy["spec"]["podSelector"].get("matchLabels", {}).get("app.kubernetes.io/name", "all")
        for rule in policy["spec"].get(direction, []):
            for peer in rule[side]:
                if set(peer) == {"ipBlock"}:
                    found |= {(who, peer["ipBlock"]["cidr"], port["port"]) for port in rule["ports"]}
                    continue
                labels = [*peer.get("namespaceSelector", {}).get("matchLabels", {}).items(),
                          *peer.get("podSelector", {}).get("matchLabels", {}).items()]  # fmt: skip
                assert labels, "whoever selects everything names nobody"
                named = " ".join(f"{key.rpartition('/')[2]}={value}" for key, value in labels)
                found |= {(who, named, port["port"]) for port in rule["ports"]}
    return found


@each
def test_everything_is_denied_but_for_these_ways(environment: str) -> None:
    deny = resources(environment)["NetworkPolicy", "deny-everything"]["spec"]
    assert deny == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    assert ways(environment, "ingress", "from") == {
        ("gateway", "clients=true", 8080),
        ("gateway", "metadata.name=monitoring name=prometheus", 9090),
        ("gateway", "metadata.name=argo-rollouts name=argo-rollouts", 9090),
        ("vllm", "name=gateway", 8000),
        ("vllm", "metadata.name=monitoring name=prometheus", 8000),
    }
    assert ways(environment, "egress", "to") == {
        ("gateway", "metadata.name=kube-system k8s-app=kube-dns", 53),
        ("gateway", "name=vllm", 8000),
        ("gateway", "data=true", 5432),
        ("gateway", "data=true", 6379),
        ("gateway", "metadata.name=monitoring name=prometheus", 9090),
        *(("gateway", block, port) for block in PRIVATE for port in (443, 6443)),
    }


@each
def test_every_pod_has_a_policy_and_its_ports_are_the_ones_let_through(environment: str) -> None:
    named = {one["spec"]["podSelector"].get("matchLabels", {}).get("app.kubernetes.io/name")
             for (kind, _), one in resources(environment).items() if kind == "NetworkPolicy"}  # fmt: skip
    for name, pod in pods(environment).items():
        assert name in named
        listening = {port["containerPort"] for container in pod["spec"]["containers"] for port in container["ports"]}
        assert {port for who, _, port in ways(environment, "ingress", "from") if who == name} == listening


@each
def test_what_is_served_there_is_a_valid_serving_yaml(environment: str, tmp_path: Path) -> None:
    (tmp_path / "prompts").mkdir()
    for name, text in config_map(environment, "prompts")["data"].items():
        (tmp_path / "prompts" / name).write_text(text)
    (tmp_path / "serving.yaml").write_text(config_map(environment, "serving")["data"]["serving.yaml"])
    found = find(tmp_path / "serving.yaml", tmp_path)
    assert found.problems == []
    serving = load_serving(tmp_path / "serving.yaml")
    assert serving.keys, "open to the cluster, it would not start"
    assert {serving.listen.host, serving.listen.private_host} == {"0.0.0.0"}
    assert serving.ledger.spool.startswith(".gatehouse/"), "the volume is mounted there"
    pod = pods(environment)["gateway"]["spec"]
    ports = {port["name"]: port["containerPort"] for port in pod["containers"][0]["ports"]}
    assert ports == {"http": serving.listen.port, "private": serving.listen.private_port}
    assert serving.limits.drain_s > max(upstream.timeout_s for upstream in serving.upstreams.values())
    waits_s = pod["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert pod["terminationGracePeriodSeconds"] >= waits_s + serving.limits.drain_s + 30
    names = {variable["name"] for variable in pod["containers"][0]["env"]}
    assert {serving.ledger.url_variable, serving.caches.redis_url_variable, *VERDICT} == names
    mounts = {mount["name"]: mount["mountPath"] for mount in pod["containers"][0]["volumeMounts"]}
    (gates,) = [one["value"] for one in pod["containers"][0]["env"] if one["name"] == "GATEHOUSE_GATES"]
    assert mounts["serving"].endswith(str(Path(gates).parent))
    assert Path(gates).name in config_map(environment, "serving")["data"]


@each
def test_vllm_serves_the_models_that_are_asked_for_by_the_bytes_that_answers_are_cached_by(environment: str) -> None:
    serving = yaml.safe_load(config_map(environment, "serving")["data"]["serving.yaml"])
    pod = pods(environment)["vllm"]["spec"]
    (container,) = pod["containers"]
    arguments = " ".join(container["args"])
    mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
    images = {volume["name"]: volume["image"]["reference"] for volume in pod["volumes"] if "image" in volume}
    canary = resources(environment)["Rollout", "vllm"]["spec"]["strategy"]["canary"]
    for name, upstream in serving["upstreams"].items():
        side = canary["canaryService" if name.endswith("-next") else "stableService"]
        service = resources(environment)["Service", side]
        assert upstream["base_url"] == f"http://{side}:{service['spec']['ports'][0]['port']}/v1"
        model = upstream["model"]
        assert f"--served-model-name={model}" in arguments or f"={model}=/models/{model}" in arguments
        assert images[mounts[f"/models/{model}"]].endswith(f"@{upstream['digest']}")
        assert pod["terminationGracePeriodSeconds"] > upstream.get("timeout_s", 120)


def test_alerts_on_latency_can_fire() -> None:
    # No quantile of a histogram is above its last bound: an alert beyond it would sleep for ever.
    groups = resources("production")["PrometheusRule", "gatehouse"]["spec"]["groups"]
    rules = {rule["alert"]: rule for group in groups for rule in group["rules"]}
    metrics = load_serving(ROOT / "serving.yaml").metrics
    for alert, bounds in (
        ("GatehouseSlow", metrics.latency_bounds_s),
        ("GatehouseSlowFirstToken", metrics.ttft_bounds_s),
    ):
        assert float(rules[alert]["expr"].rpartition("> ")[2]) < bounds[-1]


@pytest.mark.skipif(not (ROOT / "pipelines/serving/metrics.py").exists(), reason="nothing is counted yet")
@each
def test_what_is_alerted_on_and_scaled_by_is_what_the_gateway_counts(environment: str) -> None:
    named = set()
    for (kind, _), resource in resources(environment).items():
        if kind in ("PrometheusRule", "HorizontalPodAutoscaler"):
            named |= set(re.findall(r"gatehouse_[a-z_]+", json.dumps(resource)))
    source = "".join(path.read_text() for path in (ROOT / "pipelines/serving").glob("*.py"))
    source = source.replace("{PREFIX}", "gatehouse_rollout_")
    assert {name.removesuffix("_bucket") for name in named} <= set(re.findall(r'"(gatehouse_[a-z_]+)"', source))
    assert len(named) >= 7


def test_alerts_need_nothing_that_has_to_be_switched_on_in_kube_state_metrics() -> None:
    # Its metrics of labels and annotations exist only where somebody listed them with --metric-labels-allowlist.
    text = json.dumps(resources("production")["PrometheusRule", "gatehouse"])
    named = set(re.findall(r"kube_[a-z_]+", text))
    assert named == {"kube_deployment_spec_replicas"}


def test_promtool_takes_the_alerts(tmp_path: Path) -> None:
    spec = resources("production")["PrometheusRule", "gatehouse"]["spec"]
    for group in spec["groups"]:
        for rule in group["rules"]:
            assert rule["expr"].count("(") == rule["expr"].count(")")
            assert rule["labels"]["severity"] in ("warning", "critical")
            assert set(rule["annotations"]) == {"summary", "description"}
    if shutil.which("promtool"):
        (tmp_path / "rules.yaml").write_text(yaml.safe_dump(spec))
        done = subprocess.run(
            ["promtool", "check", "rules", tmp_path / "rules.yaml"], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.skipif(not shutil.which("promtool"), reason="promtool is not installed")
@pytest.mark.parametrize(("weight", "age", "fires"), [(5, "0+30x20", True), (0, "0+30x20", False), (5, "20x20", False)])
def test_weights_that_nobody_confirms_are_alerted_on_while_a_candidate_has_users(
    tmp_path: Path, weight: int, age: str, fires: bool
) -> None:
    spec = resources("production")["PrometheusRule", "gatehouse"]["spec"]
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(spec))
    labels = '{namespace="production",pod="gateway-0"}'
    series = {
        f"gatehouse_rollout_weights_age_seconds{labels}": age,
        f"gatehouse_rollout_weight{labels}": f"{weight}x20",
    }
    # Of what is said only the labels are held against the rule: its texts are templates.
    expression = 'count(ALERTS{alertname="GatehouseWeightsLost",alertstate="firing",pod="gateway-0"})'
    samples = [{"labels": "{}", "value": 1}] if fires else []
    test = {
        "interval": "30s",
        "input_series": [{"series": name, "values": values} for name, values in series.items()],
        "promql_expr_test": [{"expr": expression, "eval_time": "9m", "exp_samples": samples}],
    }
    (tmp_path / "tests.yaml").write_text(yaml.safe_dump({"rule_files": ["rules.yaml"], "tests": [test]}))
    done = subprocess.run(
        ["promtool", "test", "rules", tmp_path / "tests.yaml"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
