"""GPU runners: one job each, no privilege, and no way out but the declared one."""

from __future__ import annotations

import ipaddress
import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

ROOT = Path(__file__).parent.parent.parent
RUNNERS = ROOT / "k8s/runners"
VALUES = yaml.safe_load((RUNNERS / "values.yaml").read_text())
# What chart gha-runner-scale-set 0.14.2 reads; Helm says nothing of a value that it does not.
CHART = {
    "githubConfigUrl", "githubConfigSecret", "scaleSetLabels", "proxy", "maxRunners", "minRunners", "runnerGroup",
    "runnerScaleSetName", "githubServerTLS", "keyVault", "containerMode", "listenerTemplate", "listenerMetrics",
    "template", "controllerServiceAccount", "namespaceOverride", "annotations", "labels", "resourceMeta",
}  # fmt: skip


def documents(name: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((RUNNERS / name).read_text()))


def schema(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((ROOT / f"tests/schemas/{name}.schema.json").read_text())
    return found


POLICIES = {policy["metadata"]["name"]: policy for policy in documents("network-policy.yaml")}
EGRESS, SERVICE = documents("egress.yaml")
NAMESPACE = documents("namespace.yaml")[0]["metadata"]["name"]
PODS = {"runner": VALUES["template"], "egress": EGRESS["spec"]["template"]}
HOSTS = [line for line in (RUNNERS / "hosts.txt").read_text().splitlines() if not line.startswith("#")]


def scale_set(values: dict[str, Any]) -> dict[str, Any]:
    """Return the resource that the chart renders from the values, as far as they go into it unchanged."""
    names = ("githubConfigUrl", "githubConfigSecret", "runnerGroup", "runnerScaleSetName", "minRunners", "maxRunners",
             "proxy", "template")  # fmt: skip
    return {
        "apiVersion": "actions.github.com/v1alpha1",
        "kind": "AutoscalingRunnerSet",
        "metadata": {"name": values["runnerScaleSetName"]},
        "spec": {name: values[name] for name in names if name in values},
    }


def test_the_values_are_what_the_chart_reads_and_give_a_valid_scale_set() -> None:
    assert set(VALUES) <= CHART
    jsonschema.validate(scale_set(VALUES), schema("autoscaling-runner-set"))
    misspelt = json.loads(json.dumps(VALUES).replace("automountServiceAccountToken", "autoMountServiceAccountToken"))
    with pytest.raises(jsonschema.ValidationError, match="autoMountServiceAccountToken"):
        jsonschema.validate(scale_set(misspelt), schema("autoscaling-runner-set"))


def test_the_proxys_pods_are_valid_too() -> None:
    template = schema("autoscaling-runner-set")["properties"]["spec"]["properties"]["template"]
    jsonschema.validate(EGRESS["spec"]["template"], template)


def test_a_gpu_waits_for_nobody_and_a_hung_runner_gives_it_back() -> None:
    assert VALUES["minRunners"] == 0
    (container,) = VALUES["template"]["spec"]["containers"]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == "1"
    text = (ROOT / ".github/workflows/pull-request.yml").read_text()
    longest = max(map(int, re.findall(r"GATEHOUSE_TIMEOUT_MINUTES \|\| '([0-9]+)'", text)))
    assert VALUES["template"]["spec"]["activeDeadlineSeconds"] > longest * 60


def test_the_image_is_built_on_the_runner_whose_version_it_names() -> None:
    (container,) = VALUES["template"]["spec"]["containers"]
    tag = container["image"].rpartition(":")[2]
    text = (RUNNERS / "Dockerfile").read_text()
    assert f"actions-runner {tag}, by digest" in text
    assert re.findall(r"^FROM (.+)$", text, re.MULTILINE) == ["${RUNNER_IMAGE}"]


def test_nothing_of_one_job_is_left_for_the_next() -> None:
    spec = VALUES["template"]["spec"]
    assert spec["restartPolicy"] == "Never"
    assert all(set(volume) == {"name", "emptyDir"} for volume in spec["volumes"])


@pytest.mark.parametrize("name", PODS)
def test_pods_are_restricted_and_hold_no_account_of_the_cluster(name: str) -> None:
    spec = PODS[name]["spec"]
    assert spec["automountServiceAccountToken"] is False
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["runAsUser"] > 0
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert not {"hostNetwork", "hostPID", "hostIPC"} & set(spec)
    for container in spec["containers"]:
        security = container["securityContext"]
        assert security["allowPrivilegeEscalation"] is False
        assert security["capabilities"] == {"drop": ["ALL"]}
        assert "memory" in container["resources"]["limits"]
    labels = documents("namespace.yaml")[0]["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"


@pytest.mark.parametrize("name", POLICIES)
def test_every_policy_is_valid_and_in_the_runners_namespace(name: str) -> None:
    jsonschema.validate(POLICIES[name], schema("network-policy"))
    assert POLICIES[name]["metadata"]["namespace"] == NAMESPACE


def test_everything_is_denied_first() -> None:
    assert POLICIES["deny-everything"]["spec"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}


def test_the_exceptions_are_these_and_no_more() -> None:
    def ways(direction: str, side: str) -> set[tuple[str, str, str]]:
        return {
            (name, " ".join(sorted(peer)), " ".join(f"{port['protocol']}/{port['port']}" for port in rule["ports"]))
            for name, policy in POLICIES.items()
            for rule in policy["spec"].get(direction, [])
            for peer in rule[side]
        }

    assert ways("egress", "to") == {
        ("names", "namespaceSelector podSelector", "UDP/53 TCP/53"),
        ("runner", "podSelector", "TCP/3128"),
        ("egress", "ipBlock", "TCP/443"),
    }
    assert ways("ingress", "from") == {
        ("egress", "podSelector", "TCP/3128"),
        ("egress", "namespaceSelector", "TCP/3128"),
    }
    assert POLICIES["egress"]["spec"]["podSelector"] != {}, "runners themselves reach no address outside"


@pytest.mark.parametrize(
    ("address", "is_open"),
    [
        ("140.82.112.3", True),
        ("169.254.169.254", False),  # a cloud's metadata, which hands out keys
        ("100.100.100.200", False),  # another cloud's
        ("10.96.0.1", False),
        ("172.31.255.255", False),
        ("172.32.0.1", True),
        ("192.168.1.1", False),
        ("127.0.0.1", False),
        ("255.255.255.255", False),
    ],
)
def test_even_the_proxy_reaches_no_private_network(address: str, is_open: bool) -> None:
    (rule,) = POLICIES["egress"]["spec"]["egress"]
    block = rule["to"][0]["ipBlock"]
    closed = any(ipaddress.ip_address(address) in ipaddress.ip_network(one) for one in block["except"])
    assert ipaddress.ip_address(address) in ipaddress.ip_network(block["cidr"])
    assert closed != is_open


def test_the_policies_select_the_pods_that_are_there() -> None:
    for name, pod in PODS.items():
        selected = POLICIES[name]["spec"]["podSelector"]["matchLabels"]
        assert selected.items() <= pod["metadata"]["labels"].items()
    assert SERVICE["spec"]["selector"] == EGRESS["spec"]["selector"]["matchLabels"]


def test_runners_go_by_the_proxy_that_is_there() -> None:
    port = SERVICE["spec"]["ports"][0]["port"]
    url = f"http://{SERVICE['metadata']['name']}.{NAMESPACE}.svc.cluster.local:{port}"
    assert {way: VALUES["proxy"][way]["url"] for way in ("http", "https")} == {"http": url, "https": url}
    allowed = POLICIES["runner"]["spec"]["egress"][0]["ports"]
    assert [one["port"] for one in allowed] == [port]
    assert f"http_port {port}" in (RUNNERS / "squid.conf").read_text()


def test_the_declared_hosts_are_hosts_and_none_is_named_twice() -> None:
    assert HOSTS
    for host in HOSTS:
        assert re.fullmatch(r"\.?([a-z0-9-]+\.)+[a-z]{2,}", host), host
        assert host.count(".") >= (3 if host.startswith(".") else 1), f"{host} is half of the internet"
        covered = [one for one in HOSTS if one.startswith(".") and one != host and f".{host}".endswith(one)]
        assert not covered, f"{host} is in {covered} already, which squid refuses"


def test_the_proxy_lets_pass_declared_hosts_by_https_and_nothing_else() -> None:
    lines = (RUNNERS / "squid.conf").read_text().splitlines()
    access = [line for line in lines if line.startswith("http_access")]
    assert access == ["http_access allow tunnel https declared", "http_access deny all"]
    mount = next(
        one for one in PODS["egress"]["spec"]["containers"][0]["volumeMounts"] if one["name"] == "configuration"
    )
    assert f'acl declared dstdomain "{mount["mountPath"]}/hosts.txt"' in lines
    assert f"{mount['mountPath']}/squid.conf" in PODS["egress"]["spec"]["containers"][0]["command"]


def test_kustomize_takes_every_file_of_the_folder() -> None:
    (kustomization,) = documents("kustomization.yaml")
    named = set(kustomization["resources"]) | set(kustomization["configMapGenerator"][0]["files"])
    rest = {"values.yaml", "kustomization.yaml", "Dockerfile", "README.md"}
    assert named | rest == {path.name for path in RUNNERS.iterdir()}
    assert kustomization["configMapGenerator"][0]["name"] == "egress"
    assert kustomization["images"][0]["name"] == PODS["egress"]["spec"]["containers"][0]["image"]


def test_the_runners_label_is_one_that_the_variable_may_name() -> None:
    from pipelines.review.settings import Variable, Variables

    value = json.dumps([VALUES["runnerScaleSetName"]])
    Variables(schema_version=1, variables={"GATEHOUSE_RUNNER": Variable(description="GPU", value=value)})
