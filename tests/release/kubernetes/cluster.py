"""A stand-in of the Kubernetes API with Argo Rollouts, a Deployment controller and Argo CD behind it.

Before each request the controllers go on by some steps, so nothing here waits for time to pass. What it does is what
the API documents: merge patches (RFC 7386), strategic merges by name, resourceVersion as a condition, generation that
grows with the spec alone, status as a subresource, 404 and 409 as Status objects.
"""

from __future__ import annotations

import copy
import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from pipelines.release.kubernetes.released import merge
from tests.k8s.kustomize import merged as strategic
from tests.release.kubernetes import controller

Resource = dict[str, Any]
KINDS = {
    "Rollout": "/apis/argoproj.io/v1alpha1/namespaces/{}/rollouts",
    "AnalysisTemplate": "/apis/argoproj.io/v1alpha1/namespaces/{}/analysistemplates",
    "HTTPRoute": "/apis/gateway.networking.k8s.io/v1/namespaces/{}/httproutes",
    "Deployment": "/apis/apps/v1/namespaces/{}/deployments",
    "ConfigMap": "/api/v1/namespaces/{}/configmaps",
}
TOKEN = "a-token"
STEPS = 4


class Cluster:
    """What a cluster holds, by path."""

    def __init__(self) -> None:
        self.held: dict[str, Resource] = {}
        self.sets: dict[str, list[Resource]] = {}
        self.broken: set[tuple[str, str]] = set()
        self.stuck: set[str] = set()
        self.replicas = 4
        self.has_controller = True
        self.answer: Callable[[], tuple[int, Any] | None] = lambda: (200, {"verdict": "hold"})
        self.errors = 0
        self.log: list[str] = []
        self.meddle: Callable[[str, str], None] = lambda method, path: None
        self.refuses: Callable[[str, str], bool] = lambda method, path: False
        self._version = 0
        self._namespace = ""
        self._lock = threading.RLock()

    # --- Argo CD ----------------------------------------------------------------------------------------------

    def sync(self, declared: list[Resource]) -> None:
        """Apply what Git declares. What is there already keeps what the Application says to leave alone."""
        with self._lock:
            for resource in declared:
                kind = resource["kind"]
                if kind not in KINDS:
                    continue
                namespace, name = resource["metadata"]["namespace"], resource["metadata"]["name"]
                path = f"{KINDS[kind].format(namespace)}/{name}"
                live = self.held.get(path)
                if live is None:
                    self._store(path, {**copy.deepcopy(resource), "status": {}})
                elif kind in ("Rollout", "HTTPRoute", "Deployment"):
                    self._store(path, respected(live, resource))
                else:
                    self._store(path, {**live, **copy.deepcopy(resource), "metadata": live["metadata"]})

    # --- controllers ------------------------------------------------------------------------------------------

    def can_start(self, template: Resource) -> bool:
        """Tell whether pods of a template ever get ready, in the namespace that is being looked at."""
        text = json.dumps(template)
        bad = [word for namespace, word in self.broken if namespace == self._namespace]
        return "sha256:" + "0" * 64 not in text and not any(word in text for word in bad)

    def measure(self) -> tuple[int, Any] | None:
        return self.answer()

    def go_on(self, steps: int = STEPS) -> None:
        """Let the controllers work."""
        with self._lock:
            for path, one in list(self.held.items()):
                if "/deployments/" in path:
                    self._deployment(one)
                elif "/rollouts/" in path and self.has_controller:
                    root = self._namespace = path.split("/namespaces/")[1].split("/")[0]
                    route = self.held[f"{KINDS['HTTPRoute'].format(root)}/vllm"]
                    template = self.held[f"{KINDS['AnalysisTemplate'].format(root)}/verdict"]
                    for _ in range(steps):
                        before = json.dumps(one.get("status"), sort_keys=True)
                        controller.reconcile(one, self.sets.setdefault(root, []), route, template, self)
                        if json.dumps(one.get("status"), sort_keys=True) == before:
                            break
                        one["metadata"]["resourceVersion"] = self._next()

    def _deployment(self, one: Resource) -> None:
        (container,) = one["spec"]["template"]["spec"]["containers"]
        is_new = one["metadata"]["namespace"] not in self.stuck and "0" * 64 not in container["image"]
        generation = one["metadata"]["generation"]
        one["status"] = {"observedGeneration": generation, "replicas": 2, "updatedReplicas": 2 if is_new else 1}
        one["status"]["availableReplicas"] = 2 if is_new else 1

    # --- the API ----------------------------------------------------------------------------------------------

    def ask(self, method: str, target: str, body: Any, kind: str) -> tuple[int, Any]:
        parts = urlsplit(target)
        self.meddle(method, parts.path)
        self.go_on()
        with self._lock:
            self.log.append(f"{method} {parts.path}")
            if self.refuses(method, parts.path):
                return 403, _status(403, "Forbidden")
            if parts.path.endswith("/replicasets"):
                root = parts.path.split("/namespaces/")[1].split("/")[0]
                assert parse_qs(parts.query) == {"labelSelector": ["app.kubernetes.io/name=vllm"]}
                return 200, {"items": self.sets.get(root, [])}
            if method == "GET" and parts.path.endswith("/configmaps"):
                (selector,) = parse_qs(parts.query)["labelSelector"]
                label = dict([selector.split("=")])
                held = [one for path, one in self.held.items() if path.startswith(f"{parts.path}/")]
                ours = [one for one in held if label.items() <= one["metadata"].get("labels", {}).items()]
                return 200, {"items": ours}
            if method == "POST":
                path = f"{parts.path}/{body['metadata']['name']}"
                if path in self.held:
                    return 409, _status(409, "AlreadyExists")
                self._store(path, body)
                return 201, self.held[path]
            path = parts.path.removesuffix("/status")
            if path not in self.held:
                return 404, _status(404, f"{path} not found")
            if method == "DELETE":
                return 200, self.held.pop(path)
            if method == "PATCH":
                return self._patched(path, body, kind, is_status=parts.path.endswith("/status"))
            return 200, self.held[path]

    def _patched(self, path: str, patch: Resource, kind: str, *, is_status: bool) -> tuple[int, Any]:
        live = self.held[path]
        asked = patch.get("metadata", {}).get("resourceVersion")
        if asked is not None and asked != live["metadata"]["resourceVersion"]:
            return 409, _status(409, "the object has been modified")
        if kind == "application/strategic-merge-patch+json":
            if "/deployments/" not in path:
                return 415, _status(415, "strategic merge is for Kubernetes' own kinds")
            changed = _without_nulls(strategic(live, patch))
        else:
            changed = merge(live, patch)
        # The status subresource changes status alone; everything else changes all but status.
        self._store(path, {**live, "status": changed["status"]} if is_status else {**changed, "status": live["status"]})
        return 200, self.held[path]

    def _store(self, path: str, resource: Resource) -> None:
        before = self.held.get(path)
        found = copy.deepcopy(resource)
        generation = before["metadata"]["generation"] if before else 0
        if before is None or before.get("spec") != found.get("spec"):
            generation += 1
        found["metadata"] |= {"generation": generation, "resourceVersion": self._next()}
        self.held[path] = found

    def _next(self) -> str:
        self._version += 1
        return str(self._version)


def respected(live: Resource, declared: Resource) -> Resource:
    """Return what Argo CD applies with RespectIgnoreDifferences, for the pointers that k8s/argocd names."""
    found = copy.deepcopy(declared)
    found["metadata"] = {**declared["metadata"], **live["metadata"]}
    if live["kind"] == "HTTPRoute":
        found["spec"] = live["spec"]
    elif live["kind"] == "Deployment":
        found["spec"]["template"]["spec"] = live["spec"]["template"]["spec"]
    else:
        found["spec"]["template"] = live["spec"]["template"]
        found["spec"]["strategy"]["canary"]["steps"] = live["spec"]["strategy"]["canary"]["steps"]
    return {**found, "status": live["status"]}


def serve(cluster: Cluster) -> ThreadingHTTPServer:
    """Let a cluster's API answer on this machine."""

    class Handler(BaseHTTPRequestHandler):
        def _answer(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(length)) if length else None
            if self.headers.get("Authorization") != f"Bearer {TOKEN}":
                status, value = 401, _status(401, "Unauthorized")
            else:
                status, value = cluster.ask(self.command, self.path, body, self.headers.get("Content-Type", ""))
            data = json.dumps(value).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_PATCH = do_POST = do_DELETE = _answer

        def log_message(self, *arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    return server


def _status(code: int, message: str) -> Resource:
    return {"kind": "Status", "status": "Failure", "code": code, "message": message}


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nulls(part) for key, part in value.items() if part is not None}
    return value
