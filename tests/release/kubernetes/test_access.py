"""How the Kubernetes API is found and asked: whose account, which certificate, and what is said where it refuses."""

from __future__ import annotations

import base64
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipelines.core.errors import ConfigError, ServiceError
from pipelines.release.kubernetes.access import ACCOUNT, Access, find
from pipelines.release.kubernetes.api import Api
from tests.release.kubernetes.cluster import TOKEN, Cluster, serve

PATH = "/api/v1/namespaces/x/configmaps"


def kubeconfig(user: dict[str, Any], **cluster: Any) -> str:
    server = {"server": "https://cluster.example:6443", "certificate-authority-data": base64.b64encode(b"CA").decode()}
    return yaml.safe_dump({
        "current-context": "here",
        "contexts": [{"name": "there", "context": {}}, {"name": "here", "context": {"cluster": "c", "user": "u"}}],
        "clusters": [{"name": "c", "cluster": server | cluster}],
        "users": [{"name": "u", "user": user}],
    })  # fmt: skip


def test_a_secret_of_a_workflow_holds_the_whole_file() -> None:
    found = find({"GATEHOUSE_KUBECONFIG": kubeconfig({"token": "t"}), "KUBECONFIG": "/nowhere"})
    assert (found.server, found.ca, found.bearer()) == ("https://cluster.example:6443", "CA", "t")


def test_files_that_a_kubeconfig_names_lie_beside_it_and_tokens_are_read_anew(tmp_path: Path) -> None:
    text = kubeconfig({"tokenFile": "token"}, **{"certificate-authority-data": None, "certificate-authority": "ca.pem"})
    for name, content in (("config", text), ("token", "one\n"), ("ca.pem", "PEM")):
        (tmp_path / name).write_text(content)
    found = find({"KUBECONFIG": str(tmp_path / "config")})
    assert (found.ca, found.bearer()) == ("PEM", "one")
    (tmp_path / "token").write_text("two")
    assert found.bearer() == "two"


def test_a_pod_asks_with_its_own_account(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("mine")
    (tmp_path / "ca.crt").write_text("PEM")
    found = find({"KUBERNETES_SERVICE_HOST": "fd00::1", "KUBERNETES_SERVICE_PORT": "443"}, tmp_path)
    assert (found.server, found.ca, found.bearer()) == ("https://[fd00::1]:443", "PEM", "mine")


def test_a_clouds_own_command_is_asked_for_a_token(tmp_path: Path) -> None:
    said = json.dumps({"status": {"token": "fresh"}})
    user = {"exec": {"command": sys.executable, "args": ["-c", f"print({said!r})"], "apiVersion": "v1"}}
    assert find({"GATEHOUSE_KUBECONFIG": kubeconfig(user)}).bearer() == "fresh"
    user["exec"]["args"] = ["-c", "import sys; sys.exit('log in\\nfirst')"]
    with pytest.raises(ServiceError, match=r"gave no credential \(log in\\nfirst.*\); log in again$"):
        find({"GATEHOUSE_KUBECONFIG": kubeconfig(user)})


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", r"GATEHOUSE_KUBECONFIG: is no kubeconfig \(.*\); write a whole one"),
        ("[]", r"GATEHOUSE_KUBECONFIG: is no kubeconfig .*"),
        (kubeconfig({}).replace("current-context: here", "current-context: gone"), r".*contexts: none is named gone.*"),
        (
            kubeconfig({}, server="http://cluster.example"),
            r".*server 'http://cluster\.example': must begin with https://",
        ),
        (kubeconfig({}, **{"insecure-skip-tls-verify": True}), r".*nobody vouches for the server.*"),
    ],
)
def test_what_is_no_kubeconfig_is_said_in_one_line(text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=f"^{said}$") as caught:
        find({"GATEHOUSE_KUBECONFIG": text})
    assert "\n" not in str(caught.value)


def test_no_cluster_at_all_is_said_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(
        ConfigError, match=r"^no cluster to release to: GATEHOUSE_KUBECONFIG and KUBECONFIG are not set, "
    ):
        find({}, ACCOUNT / "nothing")


@pytest.fixture
def address() -> Iterator[tuple[Cluster, str]]:
    cluster = Cluster()
    server = serve(cluster)
    yield cluster, f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


def api(server: str, token: str = TOKEN) -> Api:
    return Api(lambda: Access(server, token=token), nap=lambda seconds: None)


def test_who_is_refused_is_told_which_role_is_missing(address: tuple[Cluster, str]) -> None:
    with pytest.raises(
        ServiceError, match=r"^Kubernetes at 127.*: GET .*: 401 Unauthorized; give the account the role"
    ):
        api(address[1], "another").get(f"{PATH}/a")


def test_a_server_that_is_away_is_asked_again_and_then_named() -> None:
    with pytest.raises(ServiceError, match=r"^Kubernetes at 127\.0\.0\.1:1: does not answer GET .*; run again$"):
        api("http://127.0.0.1:1").get(f"{PATH}/a")


def test_a_server_that_is_overloaded_for_a_moment_is_asked_again(address: tuple[Cluster, str]) -> None:
    cluster, server = address
    ask, left = cluster.ask, [3]

    def busy(*arguments: Any) -> tuple[int, Any]:
        left[0] -= 1
        return (503, {"message": "try later"}) if left[0] >= 0 else ask(*arguments)

    cluster.ask = busy  # type: ignore[method-assign]
    assert api(server).get(f"{PATH}/a") is None


def test_what_is_there_already_is_not_made_twice_and_what_is_gone_is_gone(address: tuple[Cluster, str]) -> None:
    found = api(address[1])
    resource = {"kind": "ConfigMap", "metadata": {"name": "a", "namespace": "x"}, "data": {"k": "one"}}
    found.create(PATH, resource)
    found.create(PATH, {**resource, "data": {"k": "two"}})
    assert (found.get(f"{PATH}/a") or {})["data"] == {"k": "one"}
    found.delete(f"{PATH}/a")
    found.delete(f"{PATH}/a")
    assert found.get(f"{PATH}/a") is None
    with pytest.raises(ServiceError, match=r"/configmaps/a: is not there; does Argo CD apply k8s/overlays"):
        found.edit(f"{PATH}/a", lambda one: {})


def test_others_who_never_stop_changing_it_are_named_in_the_end(address: tuple[Cluster, str]) -> None:
    cluster, server = address
    found = api(server)
    found.create(PATH, {"kind": "ConfigMap", "metadata": {"name": "a"}, "status": {}})

    def meddle(method: str, path: str) -> None:
        if method == "PATCH":
            cluster.held[path]["metadata"]["resourceVersion"] += "0"

    cluster.meddle = meddle
    with pytest.raises(ServiceError, match=r"was changed by others 8 times in a row; run again$"):
        found.edit(f"{PATH}/a", lambda one: {"data": {"k": "v"}})
