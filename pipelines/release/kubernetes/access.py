"""Where the Kubernetes API answers, and who asks: a kubeconfig, or the account of the pod that this runs in."""

from __future__ import annotations

import base64
import binascii
import json
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from pipelines.core.errors import ConfigError, ServiceError, one_line
from pipelines.core.files import read_text

TEXT = "GATEHOUSE_KUBECONFIG"
"""A whole kubeconfig: a workflow's secret is a text, not a file."""
ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
MOST_BYTES = 1 << 20
EXEC_S = 60


class Access(NamedTuple):
    """How the API is reached.

    Attributes:
        server: Address, without a slash at its end.
        ca: Certificates of those who may vouch for it, PEM; empty: those that this machine trusts.
        token: Bearer token, or empty.
        token_file: File whose token is read anew each time, since such tokens expire; or None.
        certificate: The asker's certificate, PEM, or empty.
        key: Its key, PEM, or empty.
    """

    server: str
    ca: str = ""
    token: str = ""
    token_file: Path | None = None
    certificate: str = ""
    key: str = ""

    def bearer(self) -> str:
        """Return the token to send now, or nothing."""
        return read_text(self.token_file, most_bytes=MOST_BYTES).strip() if self.token_file else self.token


def find(environment: Mapping[str, str] = os.environ, account: Path = ACCOUNT) -> Access:
    """Return how the API is reached from here.

    In this order: the text in GATEHOUSE_KUBECONFIG, the file in KUBECONFIG, the pod's own account, ~/.kube/config.

    Raises:
        ConfigError: There is none of them, or it is broken.
        ServiceError: The kubeconfig's own command for a token failed.
    """
    if text := environment.get(TEXT):
        return from_kubeconfig(text, TEXT, Path())
    file = Path(environment["KUBECONFIG"]) if environment.get("KUBECONFIG") else None
    host, port = environment.get("KUBERNETES_SERVICE_HOST"), environment.get("KUBERNETES_SERVICE_PORT", "443")
    if file is None and host and (account / "token").exists():
        shown = f"[{host}]" if ":" in host else host
        ca = read_text(account / "ca.crt", most_bytes=MOST_BYTES)
        return Access(f"https://{shown}:{port}", ca, token_file=account / "token")
    file = file or Path.home() / ".kube/config"
    if not file.is_file():
        raise ConfigError(
            f"no cluster to release to: {TEXT} and KUBECONFIG are not set, {file} is not there, and this is no pod; "
            "docs/release-kubernetes.md says how to make one for a release"
        )
    return from_kubeconfig(read_text(file, most_bytes=MOST_BYTES), str(file), file.parent)


def from_kubeconfig(text: str, shown: str, folder: Path) -> Access:
    """Return what a kubeconfig's current context says.

    Args:
        text: The whole file.
        shown: Its name in messages.
        folder: What the files that it names lie relative to.

    Raises:
        ConfigError: It is broken, or names no server.
        ServiceError: Its own command for a token failed.
    """
    try:
        value = yaml.safe_load(text)
        context = _named(value, "contexts", value["current-context"])["context"]
        cluster = _named(value, "clusters", context["cluster"])["cluster"]
        user = _named(value, "users", context["user"])["user"] if context.get("user") else {}
        server = str(cluster["server"]).rstrip("/")
        ca = _pem(cluster, "certificate-authority", folder)
        certificate, key = _pem(user, "client-certificate", folder), _pem(user, "client-key", folder)
    except (yaml.YAMLError, KeyError, TypeError, AttributeError, binascii.Error, UnicodeDecodeError) as error:
        raise ConfigError(f"{shown}: is no kubeconfig ({one_line(str(error), 100)}); write a whole one") from None
    if cluster.get("insecure-skip-tls-verify"):
        raise ConfigError(f"{shown}: insecure-skip-tls-verify: nobody vouches for the server; give its certificate")
    if not server.startswith(("https://", "http://127.0.0.1", "http://localhost")):
        raise ConfigError(f"{shown}: server {one_line(server, 100)!r}: must begin with https://")
    if user.get("tokenFile"):
        return Access(server, ca, token_file=folder / user["tokenFile"], certificate=certificate, key=key)
    token = str(user.get("token") or "")
    if user.get("exec"):
        token, certificate, key = _asked(user["exec"], shown)
    return Access(server, ca, token, certificate=certificate, key=key)


def _named(value: Any, kind: str, name: str) -> Any:
    """Return the entry of a kubeconfig's list."""
    found = next((one for one in value[kind] if one["name"] == name), None)
    if found is None:
        raise KeyError(f"{kind}: none is named {name}")
    return found


def _pem(entry: Any, name: str, folder: Path) -> str:
    """Return certificates or a key, which stand in the entry or in a file that it names."""
    if data := entry.get(f"{name}-data"):
        return base64.b64decode(data, validate=True).decode()
    return read_text(folder / entry[name], most_bytes=MOST_BYTES) if entry.get(name) else ""


def _asked(declared: Any, shown: str) -> tuple[str, str, str]:
    """Return token, certificate and key as a cloud's own command gives them (client.authentication.k8s.io)."""
    command = [str(declared["command"]), *map(str, declared.get("args") or [])]
    variables = {one["name"]: str(one["value"]) for one in declared.get("env") or []}
    version = str(declared.get("apiVersion", "client.authentication.k8s.io/v1"))
    asked = {"apiVersion": version, "kind": "ExecCredential", "spec": {"interactive": False}}
    variables["KUBERNETES_EXEC_INFO"] = json.dumps(asked)
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, check=True, timeout=EXEC_S, env={**os.environ, **variables}
        )
        status = json.loads(done.stdout)["status"]
        return (
            str(status.get("token") or ""),
            str(status.get("clientCertificateData") or ""),
            str(status.get("clientKeyData") or ""),
        )
    except (OSError, subprocess.SubprocessError, ValueError, KeyError, TypeError) as error:
        said = one_line(getattr(error, "stderr", "") or str(error), 200)
        raise ServiceError(f"{shown}: {one_line(command[0], 60)} gave no credential ({said}); log in again") from None
