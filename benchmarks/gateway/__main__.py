"""Measure what each proxy adds to a zero-delay upstream, in interleaved rounds; medians over the rounds.

    python -m benchmarks.gateway [--json] [--rounds N] [--without litellm,nginx] [--memory REQUESTS] [--long]

Proxies get one processor, the load generator and the upstream another. Added is the difference to the upstream asked
directly in the same round, quantile by quantile. floor_ is nginx (the bare aiohttp proxy where nginx is not installed),
peer_ is LiteLLM's proxy, bare_ is aiohttp. cpu_us_per_request is what a busy machine changes least.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.gateway.contenders import ROOT, Contender, Gatehouse, Process, bare, get, litellm, nginx, upstream
from benchmarks.gateway.endurance import identical, long_run, memory

PREFIXES = {"gatehouse": "", "litellm": "peer_", "nginx": "floor_", "bare": "bare_"}
Figures = dict[str, float]


class Bench:
    """What is running, on which processors."""

    def __init__(self, folder: Path, without: set[str]) -> None:
        cpus = sorted(os.sched_getaffinity(0))
        self.load_cpu = cpus[1] if len(cpus) > 1 else None
        cpu = cpus[0] if len(cpus) > 1 else None
        self.upstream: Process = upstream(self.load_cpu)
        self.first = 1
        self.gatehouse = Gatehouse(cpu, self.upstream.port, folder)
        self.others: list[Contender] = [bare(cpu, self.upstream.port)]
        if "nginx" not in without:
            self.others.append(nginx(cpu, self.upstream.port, folder))
        if "litellm" not in without:
            self.others.append(litellm(cpu, self.upstream.port, folder))

    def stop(self) -> None:
        """End everything."""
        for process in (self.gatehouse, *self.others, self.upstream):
            process.stop()

    def load(self, port: int, name: str, **options: Any) -> dict[str, Any]:
        """Put load on a port; all of it must be answered.

        Raises:
            SystemExit: An answer was no 200.
        """
        words = [f"--{option.replace('_', '-')}={value}" for option, value in options.items() if value is not True]
        flags = [f"--{option}" for option, value in options.items() if value is True]
        command = [sys.executable, "-m", "benchmarks.gateway.load", f"--port={port}", *words, *flags]
        first = [f"--first={self.first}"]
        process = subprocess.Popen([*command, *first], cwd=ROOT, stdout=subprocess.PIPE, text=True)
        if self.load_cpu is not None:
            os.sched_setaffinity(process.pid, {self.load_cpu})
        found: dict[str, Any] = json.loads(process.communicate()[0] or "{}")
        self.first += sum(found.get("statuses", {}).values()) + 1
        if set(found.get("statuses", {})) != {"200"}:
            raise SystemExit(f"{name}: not every request was answered: {found.get('statuses')} {found.get('refusal')}")
        return found


def main() -> None:
    """Run everything that is asked for and print it."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gateway", description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--requests", type=int, default=2000, help="one after the other, per round and proxy")
    parser.add_argument("--seconds", type=float, default=4.0, help="at full load, per round and proxy")
    parser.add_argument("--connections", type=int, default=32, help="at full load")
    parser.add_argument("--identical", type=int, default=10_000, help="equal requests at once; 0 leaves it out")
    parser.add_argument("--memory", type=int, default=200_000, help="requests to watch memory over; 0 leaves it out")
    parser.add_argument("--long", action="store_true", help="10 minutes at 70 %% of capacity as well")
    parser.add_argument("--without", default="", help="litellm, nginx or both")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what was started ends too
    without = set(filter(None, arguments.without.split(",")))
    if not any(Path(folder, "nginx").exists() for folder in os.environ["PATH"].split(os.pathsep)):
        without.add("nginx")
    with tempfile.TemporaryDirectory() as name:
        bench = Bench(Path(name), without)
        try:
            figures = measure(bench, arguments)
        finally:
            bench.stop()
    if arguments.json:
        print(json.dumps(figures))
        return
    for key, value in figures.items():
        print(f"{key:<34} {value if not isinstance(value, float) else f'{value:.3f}'}")


def measure(bench: Bench, arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the medians and what only our gateway is asked."""
    names = [each.name for each in (bench.gatehouse, *bench.others)]
    rounds = [one_round(bench, arguments, at) for at in range(arguments.rounds)]
    figures: dict[str, Any] = {}
    for key in rounds[0]:
        figures[key] = statistics.median(one[key] for one in rounds)
    if "nginx" not in names:
        figures |= {
            f"floor_{key}": figures[f"bare_{key}"] for key in ("added_p50_ms", "added_p99_ms", "requests_per_s")
        }
    figures["floor"] = "nginx" if "nginx" in names else "aiohttp"
    figures["features"] = bench.gatehouse.features(bench.upstream.port)
    if arguments.identical:
        figures["identical_upstream_calls"] = identical(bench, arguments.identical)
    if arguments.memory:
        figures |= memory(bench, arguments.memory, arguments.connections)
    if arguments.long:
        figures |= long_run(bench, 0.7 * figures["requests_per_s"])
    return figures


def one_round(bench: Bench, arguments: argparse.Namespace, at: int) -> Figures:
    """Measure the upstream and every proxy once, each round in another order."""
    get(bench.upstream.port, "/delay/0")
    order = [("direct", bench.upstream)] + [(each.name, each) for each in (bench.gatehouse, *bench.others)]
    order = order[at % len(order) :] + order[: at % len(order)]
    found: dict[str, dict[str, Any]] = {}
    for name, process in order:
        port = process.port
        n = arguments.requests if name != "litellm" else max(50, arguments.requests // 10)
        one = bench.load(port, name, requests=n + n // 5, skip=n // 5)
        streamed = bench.load(port, name, requests=n // 2 + n // 5, skip=n // 5, stream=True)
        before_s = process.cpu_s()
        full = bench.load(port, name, connections=arguments.connections, seconds=arguments.seconds, warm_up=0.5)
        full["cpu_us"] = (process.cpu_s() - before_s) * 1e6 / full["statuses"]["200"]
        found[name] = {"one": one, "streamed": streamed, "full": full}
        print(
            f"round {at + 1}: {name}: {full['requests_per_s']:.0f}/s, p50 {one['latency_p50_ms']:.3f} ms",
            file=sys.stderr,
        )
    direct, figures = found["direct"], {"direct_p50_ms": found["direct"]["one"]["latency_p50_ms"]}
    figures["direct_requests_per_s"] = direct["full"]["requests_per_s"]
    for name, prefix in PREFIXES.items():
        if name not in found:
            continue
        for quantile in ("p50", "p99"):
            key = f"latency_{quantile}_ms"
            figures[f"{prefix}added_{quantile}_ms"] = found[name]["one"][key] - direct["one"][key]
        figures[f"{prefix}requests_per_s"] = found[name]["full"]["requests_per_s"]
        figures[f"{prefix}cpu_us_per_request"] = found[name]["full"]["cpu_us"]
        figures[f"{prefix}added_ttft_p99_ms"] = (
            found[name]["streamed"]["ttft_p99_ms"] - direct["streamed"]["ttft_p99_ms"]
        )
    return figures


if __name__ == "__main__":
    main()
