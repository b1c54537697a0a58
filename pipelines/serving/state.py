"""What a gateway knows at one moment: one `serving.yaml` made ready. A reload makes a new one, requests keep theirs."""

from __future__ import annotations

from pathlib import Path

from pipelines.serving.addresses import address
from pipelines.serving.config import Serving
from pipelines.serving.keys import Keys, local_key
from pipelines.serving.limits import Admission, Bodies
from pipelines.serving.parts import Parts
from pipelines.serving.routing import ReadyRoute, cost_of, make_routes
from pipelines.serving.upstream import Upstream


class State:
    """A declared file, made ready.

    Attributes:
        serving: The file.
        parts: Ledger, budgets, metrics, guardrails, caches.
        keys: Whose key is whose.
        upstreams: By name.
        routes: By name.
        admission: The places and the queue of the whole gateway.
        bodies: Reads request bodies.
        project_active: Requests under way by project.
    """

    def __init__(
        self,
        serving: Serving,
        parts: Parts,
        *,
        root: Path = Path(),
        digests: dict[str, str] | None = None,
        before: State | None = None,
    ) -> None:
        """Make a file ready.

        Args:
            serving: The file.
            parts: What the gateway is put together from.
            root: Where prompts are.
            digests: Of models by upstream, where they are known only here.
            before: The state that this one replaces: upstreams that did not change go on with their connections.

        Raises:
            ConfigError: A prompt file is missing or wrong.
        """
        self.serving = serving
        self.parts = parts
        self.keys = Keys(serving.keys or [local_key(next(iter(serving.projects)), root / ".gatehouse/serving.key")])
        self.upstreams = {
            name: _kept(before, serving, name)
            or Upstream(
                name, declared, address(name, declared)[0],
                getattr(declared, "digest", "") or (digests or {}).get(name, ""),
                cost_of(serving.prices[declared.model]), parts.metrics,
            )
            for name, declared in serving.upstreams.items()
        }  # fmt: skip
        self.routes: dict[str, ReadyRoute] = make_routes(serving, self.upstreams, parts.guards, root, parts.splitting)
        limits = serving.limits
        if before is None:
            self.admission = Admission("the gateway", limits.max_active, limits.max_queued, limits.queue_timeout_s)
            self.bodies = Bodies(limits.max_body_bytes, limits.max_buffered_bytes)
            self.project_active: dict[str, int] = {}
        else:
            self.admission, self.bodies = before.admission, before.bodies
            self.admission.resize(limits.max_active, limits.max_queued, limits.queue_timeout_s)
            self.bodies.max_body_bytes, self.bodies.max_buffered_bytes = (
                limits.max_body_bytes,
                limits.max_buffered_bytes,
            )
            self.project_active = before.project_active

    def close_unused(self, after: State | None) -> None:
        """Close the connections of upstreams that the next state does not use."""
        kept = set() if after is None else {id(upstream) for upstream in after.upstreams.values()}
        for upstream in self.upstreams.values():
            if id(upstream) not in kept:
                upstream.close()


def _kept(before: State | None, serving: Serving, name: str) -> Upstream | None:
    if before is None or name not in before.upstreams:
        return None
    declared = serving.upstreams[name]
    old = before.serving
    is_same = old.upstreams[name] == declared and old.prices[declared.model] == serving.prices[declared.model]
    return before.upstreams[name] if is_same else None
