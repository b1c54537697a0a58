"""Ledger, budgets and metrics of a gateway, put together and shown to Prometheus."""

from __future__ import annotations

import os
import resource
import sys
import time
import tomllib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

from pipelines.core.errors import ConfigError
from pipelines.serving.budgets import ProjectBudgets, Spending
from pipelines.serving.config import Serving
from pipelines.serving.exposition import Exposition
from pipelines.serving.ledger import SpoolLedger
from pipelines.serving.ledger_database import open_database
from pipelines.serving.logs import Log
from pipelines.serving.metrics import GatewayMetrics
from pipelines.serving.parts import Parts
from pipelines.serving.rollout_metrics import render as render_rollout

STARTED_S = time.time()


class Accounts(NamedTuple):
    """The parts that know what requests cost."""

    ledger: SpoolLedger
    budgets: ProjectBudgets
    metrics: GatewayMetrics


def open_accounts(serving: Serving, root: Path, before: Parts | None, log: Log) -> Accounts:
    """Return ledger, budgets and metrics; on a reload ledger and metrics go on, and nothing spent is forgotten.

    Args:
        serving: The declared file.
        root: Folder of the repository.
        before: The parts in use, on a reload.
        log: Is told what goes wrong with the ledger.

    Raises:
        ConfigError: The database's URL is wrong, or `ledger` changed on a reload.
    """
    if before is not None and isinstance(before.ledger, SpoolLedger) and isinstance(before.metrics, GatewayMetrics):
        ledger, metrics = before.ledger, before.metrics
        if ledger.settings != serving.ledger:
            raise ConfigError("serving.yaml: ledger: changes with a restart only")
    else:
        database = open_database(serving.ledger, root)
        ledger, metrics = SpoolLedger(serving.ledger, root, database, Spending(), log), GatewayMetrics(serving)
    return Accounts(ledger, ProjectBudgets(serving, ledger.spending), metrics)


def take_effect(serving: Serving, parts: Parts) -> None:
    """Show what a file declares in the metrics, once it is in use: one that is refused changes nothing."""
    if isinstance(parts.metrics, GatewayMetrics):
        shown: list[Callable[[Exposition], None]] = [_show_process]
        if isinstance(parts.ledger, SpoolLedger):
            shown.append(partial(_show_ledger, parts.ledger))
        if isinstance(parts.budgets, ProjectBudgets):
            shown.append(partial(_show_budgets, parts.budgets))
        if parts.splitting is not None:
            parts.splitting.declare(serving)
            if serving.rollout is not None:
                shown.append(partial(render_rollout, parts.splitting))
        parts.metrics.declare(serving, *shown)


def _show_ledger(ledger: SpoolLedger, out: Exposition) -> None:
    writer = ledger.writer
    text = "Rows and ratings on the spool that the database does not have yet."
    out.single("gatehouse_ledger_rows_waiting", "gauge", text, ledger.n_waiting)
    text = "1: requests are taken; 0: the spool's disk is full, new requests get 503."
    out.single("gatehouse_ledger_accepting", "gauge", text, ledger.is_accepting)
    text = "1: the ledger's database answers."
    out.single("gatehouse_ledger_connected", "gauge", text, writer is not None and writer.is_connected)
    text = "How often the ledger's database was lost."
    out.single("gatehouse_ledger_failures_total", "counter", text, writer.n_failures if writer else 0)
    text = "Rows that the database refused for good and that were put aside."
    out.single("gatehouse_ledger_put_aside_total", "counter", text, writer.n_aside if writer else 0)
    text = "Records of the spool whose checksum was wrong."
    out.single("gatehouse_ledger_damaged_total", "counter", text, writer.n_damaged if writer else 0)


def _show_budgets(budgets: ProjectBudgets, out: Exposition) -> None:
    name = "gatehouse_budget_used_ratio"
    out.family(name, "gauge", "Share of a project's budget that is spent in this day or month (UTC).")
    for project, period, share in budgets.used():
        out.sample(name, {"project": project, "period": period}, share)


def _show_process(out: Exposition) -> None:
    out.family("gatehouse_build_info", "gauge", "Version of the gateway and of Python.")
    python = ".".join(map(str, sys.version_info[:3]))
    out.sample("gatehouse_build_info", {"version": VERSION, "python": python}, 1)
    usage = resource.getrusage(resource.RUSAGE_SELF)
    text = "Time on the CPU."
    out.single("process_cpu_seconds_total", "counter", text, usage.ru_utime + usage.ru_stime)
    out.single("process_start_time_seconds", "gauge", "Start, seconds since 1970.", STARTED_S)
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
        n_files = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - one call, no Path per file
    except OSError:  # no Linux
        return
    out.single("process_resident_memory_bytes", "gauge", "Memory in use.", pages * resource.getpagesize())
    out.single("process_open_fds", "gauge", "Open files and connections.", n_files)


def _version() -> str:
    try:
        text = (Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8")
    except OSError:
        return os.environ.get("GATEHOUSE_VERSION", "unknown")
    return str(tomllib.loads(text)["project"]["version"])


VERSION = _version()
