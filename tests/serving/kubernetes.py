"""A stand-in for Kubernetes' API server, over TLS, for the HTTPRoutes of one namespace.

It does what https://kubernetes.io/docs/reference/using-api/api-concepts/ says of lists and watches: a list has a
version of its own, a watch sends what happened after the version that it is given, in order, ends after timeoutSeconds,
sends bookmarks where they are allowed, and says 410 where the version is older than what is kept, either as the status
or as an ERROR event. An account that may list and watch one object by name must select it by `metadata.name`.
"""

from __future__ import annotations

import datetime
import ipaddress
import json
import ssl
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import parse_qs, urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

TOKEN = "token-of-the-account"


class Watcher(Protocol):
    """Who gets the events of a watch."""

    def begin(self) -> None:
        """Send the head, which comes at once."""

    def write(self, event: dict[str, Any]) -> None:
        """Send an event."""


class Kubernetes:
    """The server.

    Args:
        folder: Gets `ca.crt` and `token`, as a pod has them.

    Attributes:
        asked: Paths with queries, in order.
        is_gone_an_event: How 410 is said.
        longest_watch_s: Watches end after so long, whatever they asked for.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.asked: list[str] = []
        self.is_gone_an_event = True
        self.longest_watch_s = 60.0
        self.token = TOKEN
        self.routes: dict[str, dict[str, Any]] = {}
        self._changed = threading.Condition()
        self._version = 100
        self._oldest = 100  # of which what came after is still known
        self._events: list[tuple[int, dict[str, Any]]] = []
        self._context = _certified(folder)
        (folder / "token").write_text(TOKEN + "\n")
        self.port = 0
        self.start()

    @property
    def environment(self) -> dict[str, str]:
        return {
            "KUBERNETES_SERVICE_HOST": "127.0.0.1",
            "KUBERNETES_SERVICE_PORT": str(self.port),
            "GATEHOUSE_SERVICE_ACCOUNT": str(self.folder),
        }

    def start(self) -> None:
        self._server = ThreadingHTTPServer(("127.0.0.1", self.port), _handler(self))
        self._server.daemon_threads = True
        self._server.socket = self._context.wrap_socket(self._server.socket, server_side=True)
        self.port = self._server.server_address[1]
        self.is_up = True
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def stop(self) -> None:
        with self._changed:
            self.is_up = False
            self._changed.notify_all()
        self._server.shutdown()
        self._server.server_close()

    def put(self, name: str, route: dict[str, Any]) -> None:
        kind = "MODIFIED" if name in self.routes else "ADDED"
        self._note(kind, name, {"metadata": {"name": name}, **route})

    def delete(self, name: str) -> None:
        self._note("DELETED", name, self.routes[name])

    def bookmark(self) -> None:
        """Something else changed, and who watches is told how far they are."""
        with self._changed:
            self._version += 10
            value = {"kind": "HTTPRoute", "metadata": {"resourceVersion": str(self._version)}}
            self._events.append((self._version, {"type": "BOOKMARK", "object": value}))
            self._changed.notify_all()

    def forget(self) -> None:
        """Compact: only what comes from now on is known."""
        with self._changed:
            self._version += 10
            self._oldest = self._version
            self._events.clear()
            self._changed.notify_all()

    def _note(self, kind: str, name: str, value: dict[str, Any]) -> None:
        with self._changed:
            self._version += 1
            value["metadata"] = {**value["metadata"], "name": name, "resourceVersion": str(self._version)}
            self.routes[name] = json.loads(json.dumps(value))
            if kind == "DELETED":
                del self.routes[name]
            self._events.append((self._version, {"type": kind, "object": json.loads(json.dumps(value))}))
            self._changed.notify_all()

    # --- what a request gets

    def answer(self, path: str, token: str, watcher: Watcher) -> tuple[int, dict[str, Any]] | None:
        """Return status and body, or None where a watch was written."""
        self.asked.append(path)
        parts = urlsplit(path)
        query = {key: values[0] for key, values in parse_qs(parts.query).items()}
        if token != f"Bearer {self.token}":
            return 401, status(401, "Unauthorized")
        selector = query.get("fieldSelector", "")
        if parts.path != "/apis/gateway.networking.k8s.io/v1/namespaces/prod/httproutes" or "=" not in selector:
            return 403, status(403, "httproutes is forbidden")
        name = selector.removeprefix("metadata.name=")
        if query.get("watch") != "true":
            with self._changed:
                items = [route for route in self.routes.values() if route["metadata"]["name"] == name]
                value = {"kind": "HTTPRouteList", "metadata": {"resourceVersion": str(self._version)}, "items": items}
            return 200, value
        since = int(query["resourceVersion"])
        with self._changed:
            if since < self._oldest and not self.is_gone_an_event:
                return 410, status(410, "too old resource version")
        watcher.begin()
        self._watch(name, since, float(query["timeoutSeconds"]), watcher)
        return None

    def _watch(self, name: str, since: int, most_s: float, watcher: Watcher) -> None:
        began = time.monotonic()
        while True:
            with self._changed:
                if since < self._oldest:
                    events = [(self._version, {"type": "ERROR", "object": status(410, "too old resource version")})]
                else:
                    events = [event for event in self._events if event[0] > since]
                if (
                    not events
                    and self.is_up
                    and (left := min(most_s, self.longest_watch_s) - (time.monotonic() - began)) > 0
                ):
                    self._changed.wait(left)
                    continue
            since = events[-1][0] if events else since
            for _, event in events:
                if event["type"] in ("BOOKMARK", "ERROR") or event["object"]["metadata"]["name"] == name:
                    watcher.write(event)
            if not events or events[-1][1]["type"] == "ERROR":
                return


def status(code: int, message: str) -> dict[str, Any]:
    return {"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": message, "code": code}


def _handler(kubernetes: Kubernetes) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            found = kubernetes.answer(self.path, self.headers.get("Authorization", ""), self)
            self.close_connection = not kubernetes.is_up
            if found is None:
                self.wfile.write(b"" if self.close_connection else b"0\r\n\r\n")
                return
            content = json.dumps(found[1]).encode()
            self.send_response(found[0])
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def begin(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()

        def write(self, event: dict[str, Any]) -> None:
            line = json.dumps(event).encode() + b"\n"
            half = len(line) // 2  # events need not come whole
            for piece in (line[:half], line[half:]):
                self.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece))
                self.wfile.flush()

        def log_message(self, format: str, *arguments: Any) -> None:
            pass

    return Handler


def _certified(folder: Path) -> ssl.SSLContext:
    """Return a context with a certificate that `ca.crt` vouches for."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "kubernetes")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    (folder / "ca.crt").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    (folder / "server.pem").write_bytes(
        made.public_bytes(serialization.Encoding.PEM)
        + key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "server.pem")
    return context
