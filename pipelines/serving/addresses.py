"""Where upstreams are."""

from __future__ import annotations

import os

from pipelines.serving.config_upstreams import MlflowUpstream, ProcessUpstream, Upstream


def address(name: str, declared: Upstream) -> tuple[str, bool]:
    """Return where an upstream is, and whether this machine has to start it.

    `GATEHOUSE_UPSTREAM_<NAME>` replaces what is declared, so that one file serves a laptop and a cluster.
    """
    variable = f"GATEHOUSE_UPSTREAM_{name.upper().replace('-', '_')}"
    if url := os.environ.get(variable, ""):
        return url, False
    if isinstance(declared, ProcessUpstream):
        return f"http://127.0.0.1:{declared.port}/v1", True
    return (declared.url if isinstance(declared, MlflowUpstream) else declared.base_url), False
